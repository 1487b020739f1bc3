//! A client over HTTP that takes nothing of what there is for it. Seen where bytes wait for it: at the connection's writes, and over HTTP/2,
//! where each answer has a window of its own, at each event stream's frames.
//!
//! Looks twice in the time that a client has, so that what runs pays a store for a wait and nothing else. Knows nothing of what waits.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Context;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// Where bytes may wait for a client: 0 while none do, else another number for each wait.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    shown: Arc<AtomicU64>,
    waits: u64,
}

impl Mark {
    pub(crate) fn begin(&mut self) {
        self.waits += 1;
        self.shown.store(self.waits, Ordering::Relaxed);
    }

    pub(crate) fn end(&mut self) {
        self.shown.store(0, Ordering::Relaxed);
    }
}

/// The marks of one connection, each with what the last look saw there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks(Arc<Mutex<Vec<Seen>>>);

/// A mark, and what it showed at the last look.
#[derive(Debug)]
struct Seen(Weak<AtomicU64>, u64);

impl Marks {
    pub(crate) fn mark(&self) -> Mark {
        let mark = Mark::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Seen(Arc::downgrade(&mark.shown), 0));
        mark
    }

    /// Whether one of them waits as it did at the last look.
    fn look(&self) -> bool {
        let mut is_stalled = false;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|Seen(mark, seen)| {
            let Some(mark) = mark.upgrade() else { return false };
            let shown = mark.load(Ordering::Relaxed);
            is_stalled |= shown != 0 && shown == std::mem::replace(seen, shown);
            true
        });
        is_stalled
    }
}

/// See the module.
pub(crate) struct Stall {
    marks: Marks,
    period: Duration,
    sleep: Pin<Box<Sleep>>,
    /// `sleep` will wake the task.
    is_armed: bool,
}

impl Stall {
    pub(crate) fn new(ms_max: u64) -> Self {
        let period = Duration::from_millis(ms_max.div_ceil(2));
        Self { marks: Marks::default(), period, sleep: Box::pin(sleep(period)), is_armed: false }
    }

    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// True when the client has taken nothing for one period at least, and two at most. All polls must be of one task.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_armed && !self.sleep.is_elapsed() {
            return false;
        }
        let mut is_over = false;
        while self.sleep.as_mut().poll(cx).is_ready() {
            is_over |= self.marks.look();
            self.sleep.as_mut().reset(Instant::now() + self.period);
        }
        self.is_armed = true;
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_stall_when_two_looks_in_a_row_see_it() {
        let marks = Marks::default();
        let (mut one, mut other) = (marks.mark(), marks.mark());
        one.begin();
        assert!(!marks.look());
        one.end();
        other.begin();
        assert!(!marks.look());
        one.begin();
        other.end();
        other.begin();
        assert!(!marks.look(), "another wait");
        drop(one);
        assert!(marks.look());
        drop(other);
        assert!(!marks.look());
    }
}
