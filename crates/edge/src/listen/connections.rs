//! The connections of one listener: their number, their tasks, and how they learn that it is time to end.

use super::guests::Stay;
use crate::drain::{Phase, idle_until_ms};
use crate::places::Place;
use dashmap::DashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};

/// Of the word, those that are a [`Phase`].
const PHASE_BITS: u32 = 8;
/// From here on it is counted how often all were to look besides.
const NUDGE_BIT: u32 = 40;
const PHASE: u64 = (1 << PHASE_BITS) - 1;

/// A place among the connections, given back when the last task that holds it has ended.
#[derive(Clone)]
pub(crate) struct Permit {
    _permit: Option<Arc<OwnedSemaphorePermit>>,
    /// Its client's own, among those of the same address.
    _place: Option<Arc<Place>>,
    /// An operator's.
    stay: Option<Arc<Stay>>,
}

impl Permit {
    fn new(permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { _permit: permit.map(Arc::new), _place: None, stay: None }
    }

    /// Among operators.
    pub(super) fn with_stay(self, stay: Option<Arc<Stay>>) -> Self {
        Self { stay, ..self }
    }

    /// Whoever is at the other end has shown that they may be there.
    pub(crate) fn prove(&self) {
        if let Some(stay) = &self.stay {
            stay.prove();
        }
    }

    /// The connection is this task's now.
    pub(crate) fn goes_on_by(&self, task: AbortHandle) {
        if let Some(stay) = &self.stay {
            stay.goes_on_by(task);
        }
    }

    pub(crate) fn hold(&mut self, place: Arc<Place>) {
        self._place = Some(place);
    }
}

/// See the module.
pub(crate) struct Connections {
    count_max: u32,
    permits: Arc<Semaphore>,
    tasks: Mutex<JoinSet<()>>,
    /// A [`Phase`], and above [`PHASE_BITS`] the config that holds: one load a poll tells of both.
    word: AtomicU64,
    /// Over which time those are closed that are idle when [`Phase::Closing`] begins.
    idle_ms: AtomicU64,
    /// To be woken by each phase, by [`Draining::id`].
    wakers: DashMap<u64, Waker>,
    next_id: AtomicU64,
}

impl Connections {
    pub(crate) fn new(count_max: u32) -> Arc<Self> {
        Arc::new(Self {
            count_max,
            permits: Arc::new(Semaphore::new(usize::try_from(count_max).unwrap_or(Semaphore::MAX_PERMITS))),
            tasks: Mutex::default(),
            word: AtomicU64::new(Phase::Serving as u64),
            idle_ms: AtomicU64::new(0),
            wakers: DashMap::new(),
            next_id: AtomicU64::new(0),
        })
    }

    /// Waits until there is a place for one more.
    pub(super) async fn permit(&self) -> Permit {
        // An Err would say that the semaphore is closed; nobody closes it.
        Permit::new(Arc::clone(&self.permits).acquire_owned().await.ok())
    }

    /// How many places are taken, and how many there are.
    pub(crate) fn places(&self) -> (u64, u64) {
        let most = u64::from(self.count_max);
        (most.saturating_sub(self.permits.available_permits() as u64), most)
    }

    /// A place for one more, if there is one.
    pub(super) fn permit_now(&self) -> Option<Permit> {
        Arc::clone(&self.permits).try_acquire_owned().ok().map(|permit| Permit::new(Some(permit)))
    }

    /// Runs a task until it ends, or [`Self::end`]. It must hold its connection's [`Permit`].
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task)
    }

    pub(crate) fn draining(self: &Arc<Self>) -> Draining {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Draining { connections: Arc::clone(self), id, is_woken: false, word: Phase::Serving as u64 }
    }

    pub(crate) fn phase(&self) -> Phase {
        phase_of(self.word.load(Ordering::SeqCst))
    }

    /// Those that are open now.
    pub(crate) fn open(&self) -> usize {
        self.wakers.len()
    }

    /// A stop was asked for.
    pub(super) fn leave(&self) {
        self.enter(Phase::Leaving);
    }

    /// Asks every connection to end: those that are idle within that time.
    pub(super) fn close(&self, idle: Duration) {
        self.idle_ms.store(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        self.enter(Phase::Closing);
    }

    /// Asks every turn to end.
    pub(super) fn cut(&self) {
        self.enter(Phase::Over);
    }

    fn enter(&self, phase: Phase) {
        self.tell(|word| word & !PHASE | phase as u64);
    }

    /// Another config holds.
    pub(crate) fn renew(&self, generation: u64) {
        self.tell(|word| word & PHASE | generation << PHASE_BITS);
    }

    /// There is something to look at besides: as with another config.
    pub(crate) fn nudge(&self) {
        self.tell(|word| word.wrapping_add(1 << NUDGE_BIT));
    }

    fn tell(&self, change: impl Fn(u64) -> u64) {
        // An Err would say that there is nothing to change to.
        let _ = self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| Some(change(word)));
        for waker in &self.wakers {
            waker.wake_by_ref();
        }
    }

    /// Waits for all of them, but not for ever; whether they have.
    pub(super) async fn have_ended(&self, wait_max: Duration) -> bool {
        tokio::time::timeout(wait_max, self.permits.acquire_many(self.count_max)).await.is_ok()
    }

    /// Cancels whatever runs.
    pub(super) async fn end(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        tasks.shutdown().await;
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// To end after what runs, and if nothing does, so much later.
    Close { idle: Duration },
    /// To end what runs.
    Over,
    /// To look at the config that holds.
    Renewed,
}

fn phase_of(word: u64) -> Phase {
    Phase::of(u8::try_from(word & PHASE).unwrap_or(u8::MAX))
}

impl Heard {
    /// Whether the connection is to end.
    pub(crate) fn is_end(self) -> bool {
        match self {
            Self::Close { .. } | Self::Over => true,
            Self::Renewed => false,
        }
    }
}

/// One connection's ear for the drain, and for another config. Costs one load a poll, and no lock: it is asked on the token path.
pub(crate) struct Draining {
    connections: Arc<Connections>,
    id: u64,
    is_woken: bool,
    /// What it was told last.
    word: u64,
}

impl Draining {
    /// Each once, when it is time; the task is woken for it. All polls must be of one task.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Option<Heard> {
        if !self.is_woken {
            self.connections.wakers.insert(self.id, cx.waker().clone());
            self.is_woken = true;
        }
        let heard = self.heard();
        if heard == Some(Heard::Renewed) {
            // There may be a phase behind it.
            cx.waker().wake_by_ref();
        }
        heard
    }

    /// Whether it was told to end before.
    pub(crate) fn has_heard(&self) -> bool {
        phase_of(self.word) > Phase::Leaving
    }

    /// The same for a task that is woken for other reasons.
    pub(crate) fn heard(&mut self) -> Option<Heard> {
        let word = self.connections.word.load(Ordering::SeqCst);
        if word == self.word {
            return None;
        }
        if word & !PHASE != self.word & !PHASE {
            // One thing at a time: what else has changed is heard next.
            self.word = word & !PHASE | self.word & PHASE;
            return Some(Heard::Renewed);
        }
        self.word = word;
        match phase_of(word) {
            Phase::Serving | Phase::Leaving => None,
            Phase::Closing => {
                let idle_ms = idle_until_ms(self.id, self.connections.idle_ms.load(Ordering::SeqCst));
                Some(Heard::Close { idle: Duration::from_millis(idle_ms) })
            }
            Phase::Over => Some(Heard::Over),
        }
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        if self.is_woken {
            self.connections.wakers.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_and_a_phase_that_came_together_are_both_heard() {
        let connections = Connections::new(1);
        let mut draining = connections.draining();
        connections.renew(2);
        connections.close(Duration::ZERO);
        assert_eq!(draining.heard(), Some(Heard::Renewed));
        assert_eq!(draining.heard(), Some(Heard::Close { idle: Duration::ZERO }));
        assert_eq!(draining.heard(), None);
        connections.cut();
        assert_eq!((draining.heard(), draining.heard()), (Some(Heard::Over), None));
    }
}
