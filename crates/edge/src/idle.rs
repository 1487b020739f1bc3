//! When a client's connection has been idle for too long: nothing asked for, nothing being answered. Needed before the first byte,
//! when hyper does not yet know which HTTP is spoken, and for HTTP/2, for which it has no such limit.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// The requests of one connection: how many have begun, and by its clones how many run. Each request has one, and so has the event
/// stream that answers it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(Arc<AtomicU64>);

impl Requests {
    /// Those of [`Idle`] and of the service.
    const CLONES_IDLE: usize = 2;

    pub(crate) fn begin(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.clone()
    }
}

/// Looks once in each period, so that a running connection pays nothing. Idle is a connection that asks for nothing between two looks.
pub(crate) struct Idle {
    requests: Requests,
    period: Duration,
    /// Until a first request, where it is waited for no longer than this.
    first: Option<Pin<Box<Sleep>>>,
    /// How many requests had begun at the last look; None if one was running then.
    begun_before: Option<u64>,
    sleep: Pin<Box<Sleep>>,
    /// `sleep` will wake the task.
    is_armed: bool,
}

impl Idle {
    pub(crate) fn new(requests: Requests, period: Duration, first_until: Option<Instant>) -> Self {
        let first = first_until.map(|until| Box::pin(sleep_until(until)));
        let sleep = Box::pin(tokio::time::sleep(period));
        Self { requests, period, first, begun_before: Some(0), sleep, is_armed: false }
    }

    /// From now on the period is that short.
    pub(crate) fn hurry(&mut self, period: Duration) {
        self.period = period;
        self.sleep.as_mut().reset(Instant::now() + period);
        self.is_armed = false;
    }

    /// Whether there has been a request.
    pub(crate) fn was_asked(&self) -> bool {
        self.requests.0.load(Ordering::Relaxed) > 0
    }

    /// True when a first request should have come and has not. All polls must be of one task.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> bool {
        if self.first.is_some() && self.was_asked() {
            self.first = None;
        }
        self.first.as_mut().is_some_and(|first| first.as_mut().poll(cx).is_ready())
    }

    /// True at the end of each period in which nothing was asked for and nothing is being answered. All polls must be of one task.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_armed && !self.sleep.is_elapsed() {
            return false;
        }
        let mut is_over = false;
        while self.sleep.as_mut().poll(cx).is_ready() {
            let begun = self.requests.0.load(Ordering::Relaxed);
            let is_running = Arc::strong_count(&self.requests.0) > Requests::CLONES_IDLE;
            is_over = !is_running && self.begun_before == Some(begun);
            self.begun_before = (!is_running).then_some(begun);
            self.sleep.as_mut().reset(Instant::now() + self.period);
        }
        self.is_armed = true;
        is_over
    }
}
