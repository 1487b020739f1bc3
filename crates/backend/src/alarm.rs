//! A timer that is asked far more often than it rings. Knows nothing of what it is set for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::time::{Instant, Sleep};

/// Rings at its time. Asked before that by the task that asked last, it does no more than look.
#[derive(Debug)]
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// Who will be woken.
    waker: Option<Waker>,
}

impl Alarm {
    #[must_use]
    pub fn new(at: Instant) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(at)), waker: None }
    }

    /// Sets another time. While it has not rung, a later one costs no lock.
    pub fn set(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at);
        self.waker = None;
    }

    /// Ready from its time on.
    // hot: per token
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_set_for = |waker: &Waker| waker.will_wake(cx.waker());
        if self.waker.as_ref().is_some_and(is_set_for) && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        let rung = self.sleep.as_mut().poll(cx);
        self.waker = rung.is_pending().then(|| cx.waker().clone());
        rung
    }
}
