//! What must outlive a connection: responses with the context that a `previous_response_id` brings back, background jobs, conversations,
//! and the ledger of usage.
//!
//! Knows ids, owners, bytes and moments; not what a response is, and of an item only its `id` and `type`. Time is passed in, as
//! milliseconds since the Unix epoch. [`MemoryStore`] forgets with the process, [`SqliteStore`] does not; both answer alike.

mod error;
mod item;
mod items;
mod memory;
mod record;
mod sqlite;

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

pub use error::Error;
pub use items::Items;
pub use memory::{MemoryStore, Usage};
pub use record::{
    Conversation, EVENTS_READ_MAX, Event, JobState, Journal, Listing, Order, OwnerId, Page, Record, Retrieved, Tokens,
    UnfinishedJob, UsageEntry, UsageTotal,
};
pub use sqlite::{Ledger, Options, SqliteStore};

/// The store's work, to be polled by whoever asked. It owns what it needs, so that it can be kept beside the store.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a method of the store comes to.
pub type Answer<T> = BoxFuture<Result<T, Error>>;

/// How much is kept, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All records and conversations together; an item that several share, as a chain of responses does, counts once. The oldest make room for the newest; what is not finished does not.
    pub bytes_max: usize,
    /// Records and conversations; at least 1.
    pub records_max: usize,
    /// From a record's creation, and from a conversation's last change.
    pub age_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 256 * 1024 * 1024, records_max: 100_000, age_ms_max: 24 * 60 * 60 * 1000 }
    }
}

/// Records by owner and id. Work may begin when a method is called, and has happened when its future is ready; what a store with a disk has
/// done then outlives the machine's fall. Writes happen in the order of their calls. A future that is dropped undoes nothing.
///
/// `None` and `false` stand for what is not there, has expired at `now_unix_ms`, or is another's: nobody learns which.
///
/// # Errors
/// Each method: when the store cannot do it, or cannot tell. Nothing has changed then.
pub trait Store: Send + Sync {
    /// Keeps the record until it expires, is deleted, or makes room for others. One of the same owner and id is replaced, a job with it.
    fn commit(&self, record: Record) -> Answer<()>;

    /// The record as it was committed.
    fn load(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<Arc<Record>>>;

    /// The response object alone.
    fn retrieve(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<Retrieved>>;

    /// What the model was given, the turns before included.
    fn input_items(&self, owner: OwnerId, id: &str, page: Page, now_unix_ms: u64) -> Answer<Option<Listing>>;

    /// The items of these ids that any of the owner's responses brought itself, as input or output; in the order of the ids.
    fn find_items(&self, owner: OwnerId, ids: Vec<String>, now_unix_ms: u64) -> Answer<Vec<Option<Bytes>>>;

    /// Whether there was anything to delete. Responses that go on from it keep their context.
    fn delete(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<bool>;

    /// Keeps a background response that is queued: its context without output, the response object as it is now, and the request.
    fn job_create(&self, record: Record, request: Bytes) -> Answer<()>;

    /// The job is in progress, and this is its response object now. `false` as well if it has finished.
    fn job_start(&self, owner: OwnerId, id: &str, response: Bytes) -> Answer<bool>;

    /// Adds to the job's journal; an event of the same number is replaced. `false` as well if the job has finished.
    fn job_append(&self, owner: OwnerId, id: &str, events: Vec<Event>) -> Answer<bool>;

    /// Adds the last events, replaces the record and ends the job, in one step. `false` as well if it has finished already.
    fn job_finish(&self, record: Record, events: Vec<Event>) -> Answer<bool>;

    /// Marks an unfinished job as cancelled; how far it is. `None` as well for a response that is no job.
    fn job_cancel(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<JobState>>;

    /// The journal after a sequence number, or from its beginning. `None` as well for a response that is no job.
    fn job_events(&self, owner: OwnerId, id: &str, after: Option<u64>, now_unix_ms: u64) -> Answer<Option<Journal>>;

    /// The request of an unfinished job.
    fn job_request(&self, owner: OwnerId, id: &str) -> Answer<Option<Bytes>>;

    /// Everybody's, oldest first: for a process that begins.
    fn jobs_unfinished(&self) -> Answer<Vec<UnfinishedJob>>;

    /// Keeps the conversation. One of the same owner and id is replaced.
    fn conversation_create(&self, conversation: Conversation, items: Vec<Bytes>) -> Answer<()>;

    fn conversation(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<Conversation>>;

    fn conversation_update(&self, owner: OwnerId, id: &str, metadata: Bytes, now_unix_ms: u64) -> Answer<bool>;

    /// Whether there was one to delete. Responses that were made in it stay.
    fn conversation_delete(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<bool>;

    fn conversation_append(&self, owner: OwnerId, id: &str, items: Vec<Bytes>, now_unix_ms: u64) -> Answer<bool>;

    fn conversation_items(&self, owner: OwnerId, id: &str, page: Page, now_unix_ms: u64) -> Answer<Option<Listing>>;

    /// The newest item of this id in the conversation.
    fn conversation_item(&self, owner: OwnerId, id: &str, item_id: &str, now_unix_ms: u64) -> Answer<Option<Bytes>>;

    /// Whether there was one to delete: the newest of this id.
    fn conversation_item_delete(&self, owner: OwnerId, id: &str, item_id: &str, now_unix_ms: u64) -> Answer<bool>;

    /// What it takes now: of the disk, its log included, or of memory. Does not wait for its own work.
    fn bytes(&self) -> u64;

    /// Adds to the ledger.
    fn usage_append(&self, entry: UsageEntry) -> Answer<()>;

    /// One owner's use, or everybody's, in a span of time: a row for each owner, model and tier, in that order.
    fn usage_sum(&self, owner: Option<OwnerId>, span_unix_ms: Range<u64>) -> Answer<Vec<UsageTotal>>;
}
