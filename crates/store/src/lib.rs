//! What must outlive a connection: responses with the context that a `previous_response_id` brings back.
//!
//! Knows ids, owners, bytes and moments; not what an item or a response is. Time is passed in, as milliseconds since the Unix epoch.

mod memory;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

pub use memory::{Limits, MemoryStore, Usage};

/// The store's work, to be polled by whoever asked. It owns what it needs, so that it can be kept beside the store.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Whose a record is. Nobody else can load or delete it, or learn that it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub [u8; 32]);

/// A response that reached its end.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Unique to its owner.
    pub id: String,
    pub owner: OwnerId,
    /// The whole context, input then output, in order: each item its JSON as served. Items should own their bytes or share them with other
    /// records; a slice of something larger keeps all of that alive, uncounted.
    pub items: Vec<Bytes>,
    /// The response object as served, JSON.
    pub response: Bytes,
    pub created_unix_ms: u64,
}

/// Sizes only: the contents are the users'.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .field("items", &self.items.len())
            .field("response_bytes", &self.response.len())
            .field("created_unix_ms", &self.created_unix_ms)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a record of {bytes} bytes, and the store holds {bytes_max}")]
    RecordTooLarge { bytes: usize, bytes_max: usize },
}

/// Records by owner and id. Work may begin when a method is called, and has happened when its future is ready.
pub trait Store: Send + Sync {
    /// Keeps the record until it expires, is deleted, or makes room for others. One of the same owner and id is replaced.
    ///
    /// # Errors
    /// When it cannot be kept; nothing has changed then.
    fn commit(&self, record: Record) -> BoxFuture<Result<(), Error>>;

    /// `None` for what is not there, has expired at `now_unix_ms`, or is another's.
    ///
    /// # Errors
    /// When the store cannot tell.
    fn load(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> BoxFuture<Result<Option<Arc<Record>>, Error>>;

    /// Whether there was anything to delete.
    ///
    /// # Errors
    /// When the store cannot tell whether it is gone.
    fn delete(&self, owner: OwnerId, id: &str) -> BoxFuture<Result<bool, Error>>;
}
