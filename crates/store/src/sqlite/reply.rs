//! One answer from one of the store's threads to whoever waits for it. Knows nothing of what is answered, nor of any runtime.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::Error;

/// Empty → answered → taken; a promise that is dropped unkept answers that the store is closed.
enum Slot<T> {
    Empty(Option<Waker>),
    Answered(Result<T, Error>),
    Taken,
}

type Shared<T> = Arc<Mutex<Slot<T>>>;

/// Kept once.
pub(super) struct Promise<T>(Option<Shared<T>>);

pub(super) struct Reply<T>(Shared<T>);

pub(super) fn pair<T>() -> (Promise<T>, Reply<T>) {
    let slot = Arc::new(Mutex::new(Slot::Empty(None)));
    (Promise(Some(Arc::clone(&slot))), Reply(slot))
}

impl<T> Promise<T> {
    pub(super) fn keep(mut self, answer: Result<T, Error>) {
        self.answer(answer);
    }

    fn answer(&mut self, answer: Result<T, Error>) {
        let Some(shared) = self.0.take() else { return };
        let before = std::mem::replace(&mut *lock(&shared), Slot::Answered(answer));
        if let Slot::Empty(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.answer(Err(Error::Closed));
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = lock(&self.0);
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Answered(answer) => Poll::Ready(answer),
            Slot::Empty(_) => {
                *slot = Slot::Empty(Some(cx.waker().clone()));
                Poll::Pending
            }
            Slot::Taken => Poll::Ready(Err(Error::Closed)),
        }
    }
}

/// A slot is replaced whole, so a poisoned lock guards a good one.
fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll<T>(reply: &mut Reply<T>, woken: &Arc<Woken>) -> Poll<Result<T, Error>> {
        Pin::new(reply).poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
    }

    #[test]
    fn who_waits_is_woken_once_and_has_the_answer() {
        let (woken, (promise, mut reply)) = (Arc::new(Woken::default()), pair());
        assert!(poll(&mut reply, &woken).is_pending());
        assert!(poll(&mut reply, &woken).is_pending());
        promise.keep(Ok(7));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(matches!(poll(&mut reply, &woken), Poll::Ready(Ok(7))));
    }

    #[test]
    fn a_promise_that_nobody_keeps_says_that_the_store_is_closed() {
        let (woken, (promise, mut reply)) = (Arc::new(Woken::default()), pair::<()>());
        assert!(poll(&mut reply, &woken).is_pending());
        drop(promise);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(matches!(poll(&mut reply, &woken), Poll::Ready(Err(Error::Closed))));
    }

    #[test]
    fn an_answer_may_come_before_it_is_asked_for_or_to_nobody() {
        let (woken, (promise, mut reply)) = (Arc::new(Woken::default()), pair());
        promise.keep(Ok(7));
        assert!(matches!(poll(&mut reply, &woken), Poll::Ready(Ok(7))));
        let (promise, reply) = pair();
        drop(reply);
        promise.keep(Ok(7));
    }
}
