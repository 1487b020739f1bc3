//! A store in memory that fails as it is told to: as a full disk does, or a slow one, or by a panic.

use bytes::Bytes;
use flashlane_store::{
    Answer, Conversation, Error, Event, JobState, Journal, Limits, Listing, MemoryStore, OwnerId, Page, Record,
    Retrieved, Store, UnfinishedJob, UsageEntry, UsageTotal,
};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of the writes and reads of responses.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    None,
    Full,
    Slow(Duration),
    /// As soon as it is asked.
    Panic,
    /// When its answer is waited for.
    LatePanic,
}

pub struct Double {
    inner: MemoryStore,
    fault: Mutex<Fault>,
}

impl Double {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { inner: MemoryStore::new(Limits::default()), fault: Mutex::new(Fault::None) })
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    fn after<T: Send + 'static>(&self, answer: Answer<T>) -> Answer<T> {
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::None => answer,
            Fault::Full => Box::pin(async { Err(Error::Full { bytes_max: 1, records_max: 1 }) }),
            Fault::Slow(pause) => Box::pin(async move {
                tokio::time::sleep(pause).await;
                answer.await
            }),
            Fault::Panic => panic!("the store panics as it was told to"),
            Fault::LatePanic => Box::pin(async { panic!("the store panics late as it was told to") }),
        }
    }
}

/// Methods that may be slow, and otherwise do not fail.
macro_rules! may_be_slow {
    ($($name:ident($($argument:ident: $of:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $($argument: $of),*) -> Answer<$answer> {
            let answer = self.inner.$name($($argument),*);
            let fault = *self.fault.lock().unwrap();
            match fault {
                Fault::Slow(_) => self.after(answer),
                Fault::None | Fault::Full | Fault::Panic | Fault::LatePanic => answer,
            }
        })*
    };
}

impl Store for Double {
    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    fn commit(&self, record: Record) -> Answer<()> {
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::None | Fault::Slow(_) => self.after(self.inner.commit(record)),
            Fault::Full | Fault::Panic | Fault::LatePanic => self.after(Box::pin(async { Ok(()) })),
        }
    }

    fn load(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<Arc<Record>>> {
        self.after(self.inner.load(owner, id, now_unix_ms))
    }

    fn retrieve(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<Retrieved>> {
        self.after(self.inner.retrieve(owner, id, now_unix_ms))
    }

    fn job_create(&self, record: Record, request: Bytes) -> Answer<()> {
        self.after(self.inner.job_create(record, request))
    }

    fn usage_append(&self, entry: UsageEntry) -> Answer<()> {
        self.inner.usage_append(entry)
    }

    may_be_slow! {
        input_items(owner: OwnerId, id: &str, page: Page, now: u64) -> Option<Listing>;
        find_items(owner: OwnerId, ids: Vec<String>, now: u64) -> Vec<Option<Bytes>>;
        delete(owner: OwnerId, id: &str, now: u64) -> bool;
        job_start(owner: OwnerId, id: &str, response: Bytes) -> bool;
        job_append(owner: OwnerId, id: &str, events: Vec<Event>) -> bool;
        job_finish(record: Record, events: Vec<Event>) -> bool;
        job_cancel(owner: OwnerId, id: &str, now: u64) -> Option<JobState>;
        job_events(owner: OwnerId, id: &str, after: Option<u64>, now: u64) -> Option<Journal>;
        job_request(owner: OwnerId, id: &str) -> Option<Bytes>;
        jobs_unfinished() -> Vec<UnfinishedJob>;
        conversation_create(conversation: Conversation, items: Vec<Bytes>) -> ();
        conversation(owner: OwnerId, id: &str, now: u64) -> Option<Conversation>;
        conversation_update(owner: OwnerId, id: &str, metadata: Bytes, now: u64) -> bool;
        conversation_delete(owner: OwnerId, id: &str, now: u64) -> bool;
        conversation_append(owner: OwnerId, id: &str, items: Vec<Bytes>, now: u64) -> bool;
        conversation_items(owner: OwnerId, id: &str, page: Page, now: u64) -> Option<Listing>;
        conversation_item(owner: OwnerId, id: &str, item: &str, now: u64) -> Option<Bytes>;
        conversation_item_delete(owner: OwnerId, id: &str, item: &str, now: u64) -> bool;
        usage_sum(owner: Option<OwnerId>, span: Range<u64>) -> Vec<UsageTotal>;
    }
}
