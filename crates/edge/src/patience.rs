//! The store as the edge asks it: for no longer than `store_ms_max`, since a disk that hangs must not hold anybody for ever, and with what
//! it could not do counted. The only way to it, so that no question is without. Knows nothing of who asks.

use bytes::Bytes;
use flashlane_store::{
    Answer, Conversation, Error, Event, JobState, Journal, Listing, OwnerId, Page, Record, Retrieved, Store,
    UnfinishedJob, UsageEntry, UsageTotal,
};
use flashlane_telemetry::Metrics;
use flashlane_telemetry::label::StoreWork;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) struct Patient {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    ms_max: Arc<AtomicU64>,
}

impl Patient {
    /// `ms_max` is looked at with each question.
    pub(crate) fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>, ms_max: Arc<AtomicU64>) -> Self {
        Self { store, metrics, ms_max }
    }

    /// The store's answer, or [`Error::Slow`]. What was to be written may be written all the same.
    fn in_time<T: Send + 'static>(&self, work: StoreWork, answer: Answer<T>) -> Answer<T> {
        let (ms_max, metrics) = (self.ms_max.load(Ordering::Relaxed), Arc::clone(&self.metrics));
        Box::pin(async move {
            let within = tokio::time::timeout(Duration::from_millis(ms_max), answer).await;
            within.unwrap_or(Err(Error::Slow { ms_max })).inspect_err(|_| metrics.store_failed(work))
        })
    }
}

/// Methods whose answer is waited for so long.
macro_rules! in_time {
    ($($work:ident $name:ident($($argument:ident: $of:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $($argument: $of),*) -> Answer<$answer> {
            self.in_time(StoreWork::$work, self.store.$name($($argument),*))
        })*
    };
}

impl Store for Patient {
    fn bytes(&self) -> u64 {
        self.store.bytes()
    }

    /// Nobody waits for it: what the store takes it writes, and what it does not is counted with the ledger.
    fn usage_append(&self, entry: UsageEntry) -> Answer<()> {
        self.store.usage_append(entry)
    }

    in_time! {
        Write commit(record: Record) -> ();
        Read load(owner: OwnerId, id: &str, now_unix_ms: u64) -> Option<Arc<Record>>;
        Read retrieve(owner: OwnerId, id: &str, now_unix_ms: u64) -> Option<Retrieved>;
        Read input_items(owner: OwnerId, id: &str, page: Page, now_unix_ms: u64) -> Option<Listing>;
        Read find_items(owner: OwnerId, ids: Vec<String>, now_unix_ms: u64) -> Vec<Option<Bytes>>;
        Write delete(owner: OwnerId, id: &str, now_unix_ms: u64) -> bool;
        Write job_create(record: Record, request: Bytes) -> ();
        Write job_start(owner: OwnerId, id: &str, response: Bytes) -> bool;
        Write job_append(owner: OwnerId, id: &str, events: Vec<Event>) -> bool;
        Write job_finish(record: Record, events: Vec<Event>) -> bool;
        Write job_cancel(owner: OwnerId, id: &str, now_unix_ms: u64) -> Option<JobState>;
        Read job_events(owner: OwnerId, id: &str, after: Option<u64>, now_unix_ms: u64) -> Option<Journal>;
        Read job_request(owner: OwnerId, id: &str) -> Option<Bytes>;
        Read jobs_unfinished() -> Vec<UnfinishedJob>;
        Write conversation_create(conversation: Conversation, items: Vec<Bytes>) -> ();
        Read conversation(owner: OwnerId, id: &str, now_unix_ms: u64) -> Option<Conversation>;
        Write conversation_update(owner: OwnerId, id: &str, metadata: Bytes, now_unix_ms: u64) -> bool;
        Write conversation_delete(owner: OwnerId, id: &str, now_unix_ms: u64) -> bool;
        Write conversation_append(owner: OwnerId, id: &str, items: Vec<Bytes>, now_unix_ms: u64) -> bool;
        Read conversation_items(owner: OwnerId, id: &str, page: Page, now_unix_ms: u64) -> Option<Listing>;
        Read conversation_item(owner: OwnerId, id: &str, item_id: &str, now_unix_ms: u64) -> Option<Bytes>;
        Write conversation_item_delete(owner: OwnerId, id: &str, item_id: &str, now_unix_ms: u64) -> bool;
        Read usage_sum(owner: Option<OwnerId>, span_unix_ms: Range<u64>) -> Vec<UsageTotal>;
    }
}
