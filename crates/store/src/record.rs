//! What a store keeps: responses, background jobs, conversations, usage; and how their lists are read.
//!
//! Knows ids, owners and bytes. Contents are the users', so `Debug` shows sizes only.

use std::fmt;

use bytes::Bytes;

use crate::Items;

/// Whose a record is. Nobody else can load or delete it, or learn that it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub [u8; 32]);

impl OwnerId {
    /// Its beginning: enough to tell owners apart in a list, and of no use to anybody.
    #[must_use]
    pub fn begin(&self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().unwrap_or(&[0; 8]))
    }
}

/// A response with its context.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Unique to its owner.
    pub id: String,
    pub owner: OwnerId,
    /// The response that this one goes on from. A store that has it need not keep the items before again.
    pub previous: Option<String>,
    /// The conversation that this one's own items are appended to when it is committed, if that is there then.
    pub conversation: Option<String>,
    /// The whole context, input then output, in order: each item its JSON as served. Items should own their bytes or share them with other
    /// records; a slice of something larger keeps all of that alive, uncounted.
    pub items: Items,
    /// How many of `items`, at the front, are all of the context of `previous`, or all items of the conversation. The others are its own.
    pub inherited: usize,
    /// How many of `items`, at the back, are output.
    pub outputs: usize,
    /// The response object as served, JSON.
    pub response: Bytes,
    pub created_unix_ms: u64,
}

impl Record {
    /// The items that this response brought: its input, then its output.
    pub fn own_items(&self) -> impl Iterator<Item = &Bytes> + Clone {
        let inherited = if self.inherited > self.items.len() { 0 } else { self.inherited };
        self.items.iter().skip(inherited)
    }

    /// All that the model was given.
    pub fn input_items(&self) -> impl Iterator<Item = &Bytes> + Clone {
        self.items.iter().take(self.items.len().saturating_sub(self.outputs))
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .field("items", &self.items.len())
            .field("inherited", &self.inherited)
            .field("outputs", &self.outputs)
            .field("response_bytes", &self.response.len())
            .field("created_unix_ms", &self.created_unix_ms)
            .finish_non_exhaustive()
    }
}

/// A response without its context.
#[derive(Clone, PartialEq, Eq)]
pub struct Retrieved {
    /// The response object as served, JSON.
    pub response: Bytes,
    pub created_unix_ms: u64,
    /// How far it is, if it was asked for in the background.
    pub job: Option<JobState>,
}

impl fmt::Debug for Retrieved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrieved")
            .field("response_bytes", &self.response.len())
            .field("created_unix_ms", &self.created_unix_ms)
            .field("job", &self.job)
            .finish()
    }
}

/// Queued → in progress → finished; nothing leads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    Queued,
    InProgress,
    Finished,
}

/// A background response that had not finished when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedJob {
    pub owner: OwnerId,
    pub id: String,
    pub state: JobState,
    pub is_cancelled: bool,
    pub created_unix_ms: u64,
    /// One more than that of the journal's last event; 0 for an empty journal.
    pub next_sequence_number: u64,
}

/// One event of a job's journal, not framed for any transport.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    pub sequence_number: u64,
    pub json: Bytes,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event {{ {}, {} bytes }}", self.sequence_number, self.json.len())
    }
}

/// A part of a job's journal. `events` is empty when no more are kept now; when `state` is finished too, none will come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    pub state: JobState,
    /// In order, at most [`EVENTS_READ_MAX`].
    pub events: Vec<Event>,
}

/// Events that one call reads.
pub const EVENTS_READ_MAX: usize = 1000;

/// A conversation without its items.
#[derive(Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Unique to its owner.
    pub id: String,
    pub owner: OwnerId,
    /// JSON.
    pub metadata: Bytes,
    pub created_unix_ms: u64,
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation")
            .field("id", &self.id)
            .field("metadata_bytes", &self.metadata.len())
            .field("created_unix_ms", &self.created_unix_ms)
            .finish_non_exhaustive()
    }
}

/// Which part of a list of items is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The id of the item that the page comes after, in the page's order.
    pub after: Option<String>,
    pub items_max: usize,
    pub order: Order,
}

impl Page {
    /// All of it, oldest first.
    pub const WHOLE: Self = Self { after: None, items_max: usize::MAX, order: Order::OldestFirst };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    OldestFirst,
    NewestFirst,
}

/// A page of a list.
#[derive(Clone, PartialEq, Eq)]
pub enum Listing {
    Items {
        items: Vec<Bytes>,
        has_more: bool,
    },
    /// The list has no item of the id in `after`.
    NoSuchItem,
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Items { items, has_more } => write!(f, "Items {{ {}, has_more: {has_more} }}", items.len()),
            Self::NoSuchItem => f.write_str("NoSuchItem"),
        }
    }
}

/// What one turn used. It says nothing of the turn's contents, so it is kept whatever `store` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageEntry {
    pub owner: OwnerId,
    pub response_id: String,
    pub model: String,
    pub tier: String,
    pub tokens: Tokens,
    pub unix_ms: u64,
}

/// Counts of tokens. `cached` are among `input`, `reasoning` among `output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub reasoning: u64,
}

/// What an owner's turns on one model and tier used together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageTotal {
    pub owner: OwnerId,
    pub model: String,
    pub tier: String,
    pub turns: u64,
    pub tokens: Tokens,
}
