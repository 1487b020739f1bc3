//! What a turn waits for beside its upstream: the store, the tokenizer, or its model's guard. Knows nothing of sessions: who polls it tells them.

use bytes::Bytes;
use flashlane_engine::guard::Ruling;
use flashlane_engine::tokens::Counted;
use flashlane_store::{BoxFuture, JobState, Listing, OwnerId, Record, Retrieved, Store};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Work for a turn that waits for it.
pub(crate) enum Work {
    Load(BoxFuture<Result<Option<Arc<Record>>, flashlane_store::Error>>),
    /// Since when it is asked for, on the monotonic clock.
    Commit(BoxFuture<Result<(), flashlane_store::Error>>, u64),
    Count(BoxFuture<Counted>),
    Inquire(BoxFuture<Ruling>),
    Find(BoxFuture<Result<Vec<Option<Bytes>>, flashlane_store::Error>>),
    LoadItems(BoxFuture<Result<Option<Listing>, flashlane_store::Error>>),
    /// How a response stands whose job had a task when it was asked for: its end may be kept already.
    Standing(String, BoxFuture<Result<Option<Retrieved>, flashlane_store::Error>>),
}

/// What came of it.
pub(crate) enum Done {
    Loaded(Result<Option<Vec<Bytes>>, flashlane_store::Error>),
    Unfinished,
    Committed(Result<(), flashlane_store::Error>, u64),
    Counted(Counted),
    Ruled(Ruling),
    Found(Result<Vec<Option<Bytes>>, flashlane_store::Error>),
}

impl Work {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, of: (&dyn Store, OwnerId), now_unix_ms: u64) -> Poll<Done> {
        loop {
            return match self {
                Self::Load(load) => load.as_mut().poll(cx).map(|found| Done::Loaded(found.map(context_of))),
                Self::Commit(commit, began_ns) => {
                    commit.as_mut().poll(cx).map(|result| Done::Committed(result, *began_ns))
                }
                Self::Count(count) => count.as_mut().poll(cx).map(Done::Counted),
                Self::Inquire(inquiry) => inquiry.as_mut().poll(cx).map(Done::Ruled),
                Self::Find(find) => find.as_mut().poll(cx).map(Done::Found),
                Self::LoadItems(load) => load.as_mut().poll(cx).map(|found| Done::Loaded(found.map(items_of))),
                Self::Standing(id, standing) => match standing.as_mut().poll(cx) {
                    Poll::Ready(Ok(Some(kept))) if kept.job.is_some_and(|job| job != JobState::Finished) => {
                        Poll::Ready(Done::Unfinished)
                    }
                    Poll::Ready(Ok(_)) => {
                        let (store, owner) = of;
                        *self = Self::Load(store.load(owner, id, now_unix_ms));
                        continue;
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Done::Loaded(Err(error))),
                    Poll::Pending => Poll::Pending,
                },
            };
        }
    }
}

fn context_of(found: Option<Arc<Record>>) -> Option<Vec<Bytes>> {
    found.map(|record| record.items.to_vec())
}

fn items_of(found: Option<Listing>) -> Option<Vec<Bytes>> {
    match found {
        Some(Listing::Items { items, .. }) => Some(items),
        Some(Listing::NoSuchItem) | None => None,
    }
}
