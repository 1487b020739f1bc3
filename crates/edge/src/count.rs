//! Tokens are counted on the blocking threads: a megabyte takes tens of milliseconds, and the tokenizer a tenth of a second to load.
//!
//! Knows no session: it takes a job and answers it.

use flashlane_engine::tokens::{Counted, Counter, Job};
use flashlane_store::BoxFuture;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Jobs at once; more wait.
const COUNTING_MAX: usize = 2;

#[derive(Debug, Clone)]
pub(crate) struct Counting(Arc<Semaphore>);

impl Default for Counting {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(COUNTING_MAX)))
    }
}

impl Counting {
    /// What the job comes to. Where it cannot be counted, nothing is known, and the engine decides.
    pub(crate) fn count(&self, job: Job) -> BoxFuture<Counted> {
        let places = Arc::clone(&self.0);
        Box::pin(async move {
            let place = places.acquire_owned().await;
            let counted = tokio::task::spawn_blocking(move || {
                // It is the work's, not the wait's: who leaves does not stop the count.
                let _place = place;
                Counter::load().count(&job)
            });
            let counted = counted.await;
            counted.unwrap_or_else(|error| {
                tracing::error!(error = &error as &dyn std::error::Error, "tokens could not be counted");
                Counted::All(Vec::new())
            })
        })
    }
}
