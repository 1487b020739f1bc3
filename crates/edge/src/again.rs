//! Polls a future again at once when it was woken while it was polled. hyper hands a request's body from one half of a connection to
//! the other, and wakes the connection's own task for it, from within that task. The scheduler puts a task that wakes itself at the end
//! of its queue and wakes another thread to take it: a futex call, and a connection that moves to another core before its first token.
//!
//! Knows nothing of what it polls.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

/// Polls before others on the same thread get their turn.
const ROUNDS_MAX: u32 = 4;

/// Nobody polls: a wake is the task's.
const RESTING: u8 = 0;
const POLLING: u8 = 1;
/// Woken since the poll began.
const WOKEN: u8 = 2;

pub(crate) struct Again {
    shared: Arc<Shared>,
    waker: Waker,
}

#[derive(Default)]
struct Shared {
    state: AtomicU8,
    task: OnceLock<Waker>,
}

impl Again {
    pub(crate) fn new() -> Self {
        let shared = Arc::<Shared>::default();
        Self { waker: Waker::from(Arc::clone(&shared)), shared }
    }

    /// What `poll` comes to. All polls must be of one task.
    // hot: per token
    pub(crate) fn poll<T>(&self, cx: &Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let task = self.shared.task.get_or_init(|| cx.waker().clone());
        for _ in 0..ROUNDS_MAX {
            self.shared.state.store(POLLING, Ordering::Release);
            let polled = poll(&mut Context::from_waker(&self.waker));
            if polled.is_ready() || self.shared.state.swap(RESTING, Ordering::AcqRel) != WOKEN {
                return polled;
            }
        }
        task.wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Woken already: the poll that is to come is for this wake, too.
        if let Err(RESTING) = self.state.compare_exchange(POLLING, WOKEN, Ordering::AcqRel, Ordering::Acquire)
            && let Some(task) = self.task.get()
        {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often the future was polled, and its task woken, when it wakes itself in each of its first `wakes` polls.
    fn polls_and_wakes(wakes: u32) -> (u32, u32) {
        let count = Arc::<Count>::default();
        let task = Waker::from(Arc::clone(&count));
        let mut polls = 0;
        let polled = Again::new().poll(&Context::from_waker(&task), |cx| {
            polls += 1;
            if polls <= wakes {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        (polls, count.0.load(Ordering::Relaxed))
    }

    #[test]
    fn a_wake_from_within_polls_again_and_leaves_the_task_alone() {
        assert_eq!(polls_and_wakes(0), (1, 0));
        assert_eq!(polls_and_wakes(1), (2, 0));
        assert_eq!(polls_and_wakes(3), (4, 0));
    }

    #[test]
    fn what_wakes_itself_for_ever_goes_back_to_the_scheduler() {
        assert_eq!(polls_and_wakes(u32::MAX), (ROUNDS_MAX, 1));
    }

    #[test]
    fn a_wake_from_without_is_the_tasks() {
        let count = Arc::<Count>::default();
        let task = Waker::from(Arc::clone(&count));
        let again = Again::new();
        let mut kept = None;
        let mut poll = |again: &Again| {
            again.poll(&Context::from_waker(&task), |cx| {
                kept = Some(cx.waker().clone());
                Poll::<()>::Pending
            })
        };
        assert!(poll(&again).is_pending() && poll(&again).is_pending());
        kept.unwrap().wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
