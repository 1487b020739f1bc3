//! The connections of one listener: their number, their tasks, and how they learn that it is time to end.

use dashmap::DashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// A place among the connections, given back when the last task that holds it has ended.
#[derive(Clone)]
pub(crate) struct Permit {
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

/// See the module.
pub(crate) struct Connections {
    count_max: u32,
    permits: Arc<Semaphore>,
    tasks: Mutex<JoinSet<()>>,
    is_draining: AtomicBool,
    /// To be woken when draining begins, by [`Draining::id`].
    wakers: DashMap<u64, Waker>,
    next_id: AtomicU64,
}

impl Connections {
    pub(crate) fn new(count_max: u32) -> Arc<Self> {
        Arc::new(Self {
            count_max,
            permits: Arc::new(Semaphore::new(usize::try_from(count_max).unwrap_or(Semaphore::MAX_PERMITS))),
            tasks: Mutex::default(),
            is_draining: AtomicBool::new(false),
            wakers: DashMap::new(),
            next_id: AtomicU64::new(0),
        })
    }

    /// Waits until there is a place for one more.
    pub(super) async fn permit(&self) -> Permit {
        // An Err would say that the semaphore is closed; nobody closes it.
        Permit { _permit: Arc::clone(&self.permits).acquire_owned().await.ok().map(Arc::new) }
    }

    /// Runs a task until it ends, or [`Self::end`]. It must hold its connection's [`Permit`].
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    pub(crate) fn draining(self: &Arc<Self>) -> Draining {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Draining { connections: Arc::clone(self), id, stage: Stage::New }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    /// Asks every connection to end, and waits for them, but not for ever; whether they have.
    pub(super) async fn drain(&self, wait_max: Duration) -> bool {
        self.is_draining.store(true, Ordering::SeqCst);
        for waker in &self.wakers {
            waker.wake_by_ref();
        }
        self.have_ended(wait_max).await
    }

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

/// One connection's ear for the drain. Costs one load a poll, and no lock: it is asked on the token path.
pub(crate) struct Draining {
    connections: Arc<Connections>,
    id: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Listening,
    Begun,
}

impl Draining {
    /// True once, when draining has begun; the task is woken for it. All polls must be of one task.
    pub(crate) fn poll_begun(&mut self, cx: &Context<'_>) -> bool {
        match self.stage {
            Stage::New => {
                self.connections.wakers.insert(self.id, cx.waker().clone());
                self.stage = Stage::Listening;
            }
            Stage::Listening => {}
            Stage::Begun => return false,
        }
        if self.connections.is_draining() {
            self.stage = Stage::Begun;
            return true;
        }
        false
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.connections.wakers.remove(&self.id);
    }
}
