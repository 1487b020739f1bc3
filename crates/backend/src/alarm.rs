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
        // A task that has spent its budget would be told to wait without being put on the timer's list.
        let rung = std::pin::pin!(tokio::task::unconstrained(self.sleep.as_mut())).poll(cx);
        self.waker = rung.is_pending().then(|| cx.waker().clone());
        rung
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    /// tokio lets one task do so much at once; then all that it polls says that it is not ready.
    async fn spend_the_budget() {
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
        (0..1000).for_each(|number| tx.send(number).unwrap());
        poll_fn(|cx| {
            while rx.poll_recv(cx).is_ready() {}
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn it_rings_though_it_was_first_asked_by_a_task_that_had_done_its_share() {
        let mut alarm = Alarm::new(Instant::now() + Duration::from_millis(20));
        spend_the_budget().await;
        let rung = poll_fn(|cx| alarm.poll(cx));
        assert!(tokio::time::timeout(Duration::from_secs(5), rung).await.is_ok());
    }
}
