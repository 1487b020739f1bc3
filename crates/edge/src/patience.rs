//! How long the store is waited for: a disk that hangs must not hold a turn for ever.

use crate::state::State;
use flashlane_store::{Answer, Error};
use std::time::Duration;

/// The store's answer, or [`Error::Slow`]. What was to be written may be written all the same.
pub(crate) fn in_time<T: Send + 'static>(state: &State, answer: Answer<T>) -> Answer<T> {
    let ms_max = state.current().config.limits.store_ms_max;
    Box::pin(async move {
        let within = tokio::time::timeout(Duration::from_millis(ms_max), answer);
        within.await.unwrap_or(Err(Error::Slow { ms_max }))
    })
}
