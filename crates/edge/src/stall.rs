//! A client over HTTP that takes nothing of what there is for it. Seen where bytes wait for it: at a connection's writes, and over HTTP/2,
//! where each answer has a window of its own, at each answer's frames.
//!
//! Who writes pays a store for a wait, and nothing while there is none. Knows nothing of what waits.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Where bytes may wait for a client: 0 while none do, else another number for each wait.
#[derive(Debug, Clone, Default)]
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

/// See the module.
pub(crate) struct Stall {
    shown: Arc<AtomicU64>,
    wait_max: Duration,
    /// The wait that was seen last, and when it will have been too long.
    seen: Option<(u64, Instant)>,
    /// Made for the first wait: most clients take all at once.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(crate) fn new(mark: &Mark, ms_max: u64) -> Self {
        Self { shown: Arc::clone(&mark.shown), wait_max: Duration::from_millis(ms_max), seen: None, sleep: None }
    }

    /// True when the client has taken nothing for that long. To be asked after each poll of who writes, by the same task.
    // hot: per token
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        match self.shown.load(Ordering::Relaxed) {
            0 => false,
            wait => self.poll_wait(wait, cx),
        }
    }

    fn poll_wait(&mut self, wait: u64, cx: &mut Context<'_>) -> bool {
        let due = self.due(wait, Instant::now());
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(cx).is_ready()
    }

    /// When this wait will have been too long.
    fn due(&mut self, wait: u64, now: Instant) -> Instant {
        match self.seen {
            Some((seen, due)) if seen == wait => due,
            Some(_) | None => {
                let due = now + self.wait_max;
                self.seen = Some((wait, due));
                due
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_too_long_after_exactly_its_time_and_another_wait_has_its_own() {
        let mut mark = Mark::default();
        let mut stall = Stall::new(&mark, 30_000);
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let shown = |mark: &Mark| mark.shown.load(Ordering::Relaxed);
        assert_eq!(shown(&mark), 0, "nothing waits");
        mark.begin();
        assert_eq!([0, 1, 29_999].map(|ms| stall.due(shown(&mark), at(ms))), [at(30_000); 3]);
        mark.end();
        assert_eq!(shown(&mark), 0, "it has taken something");
        mark.begin();
        assert_eq!([29_999, 31_000].map(|ms| stall.due(shown(&mark), at(ms))), [at(59_999); 2]);
    }
}
