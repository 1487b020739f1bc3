//! What an HTTP/1.1 connection keeps of its last turn: the turn itself until its answer is written, since a client need not wait for
//! a log line, and its timer for the next one, since setting a new timer wakes the thread that waits for the earliest. It counts the
//! connection's polls, too: hyper asks a body up to three times in one.

use crate::clock::Timer;
use crate::drive::Drive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One a connection. Touched once a turn, but for a look at each poll.
#[derive(Clone, Default)]
pub(crate) struct Afterwards(Arc<Shared>);

#[derive(Default)]
struct Shared {
    has_ended: AtomicBool,
    polls: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    ended: Option<Box<Drive>>,
    timer: Timer,
}

impl Afterwards {
    /// The timer of the turn before.
    pub(crate) fn timer(&self) -> Timer {
        std::mem::take(&mut self.kept().timer)
    }

    /// The turn's answer is whole, and about to be written. It is counted now, and logged then.
    pub(crate) fn end(&self, mut drive: Box<Drive>) {
        drive.count();
        let mut kept = self.kept();
        kept.timer = drive.take_timer();
        let before = kept.ended.replace(drive);
        self.0.has_ended.store(true, Ordering::Release);
        drop(kept);
        drop(before);
    }

    /// What could be written is.
    // hot: per token
    pub(crate) fn settle(&self) {
        if self.0.has_ended.load(Ordering::Acquire) {
            self.0.has_ended.store(false, Ordering::Release);
            let ended = self.kept().ended.take();
            drop(ended);
        }
    }

    /// The connection is polled, after a wake.
    // hot: per token
    pub(crate) fn begin_poll(&self) {
        self.0.polls.fetch_add(1, Ordering::Relaxed);
    }

    /// Which poll this is: whoever waits since an earlier call of the same one has not been woken.
    // hot: per token
    pub(crate) fn poll_number(&self) -> u64 {
        self.0.polls.load(Ordering::Relaxed)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
