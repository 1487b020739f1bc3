//! `[runtime]`: the threads that everything runs on, and how often they look around. Knows nothing of what runs on them.

use serde::{Deserialize, Serialize};
use std::io;
use std::num::{NonZeroU8, NonZeroU32};
use std::thread::available_parallelism;
use tokio::runtime::{Builder, Runtime};

/// tokio's own default, written down so that it cannot change unseen.
const EVENT_INTERVAL: u32 = 61;

/// Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Threads that serve. Default one for each core that the process may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_threads: Option<NonZeroU8>,
    /// Tasks that a busy thread polls before it asks the system for new events. Default 61.
    pub event_interval: NonZeroU32,
    /// Threads beside them, at most, for what blocks: looking up the names of engines, counting tokens, packing requests. They end when
    /// idle. Default 8.
    pub blocking_threads_max: NonZeroU8,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            worker_threads: None,
            event_interval: NonZeroU32::new(EVENT_INTERVAL).unwrap_or(NonZeroU32::MIN),
            blocking_threads_max: NonZeroU8::new(8).unwrap_or(NonZeroU8::MIN),
        }
    }
}

impl RuntimeConfig {
    /// The runtime that this amounts to.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn build(&self) -> io::Result<Runtime> {
        let cores = || available_parallelism().map_or(1, usize::from);
        Builder::new_multi_thread()
            .worker_threads(self.worker_threads.map_or_else(cores, |threads| usize::from(threads.get())))
            .event_interval(self.event_interval.get())
            .max_blocking_threads(usize::from(self.blocking_threads_max.get()))
            .enable_all()
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_threads_serve_as_the_config_says() {
        let config = RuntimeConfig { worker_threads: NonZeroU8::new(3), ..RuntimeConfig::default() };
        assert_eq!(config.build().unwrap().metrics().num_workers(), 3);
        let cores = available_parallelism().map_or(1, usize::from);
        assert_eq!(RuntimeConfig::default().build().unwrap().metrics().num_workers(), cores);
    }
}
