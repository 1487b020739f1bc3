//! `[runtime]`: the threads that everything runs on, and how often they look around. Knows nothing of what runs on them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io;
use std::num::{NonZeroU8, NonZeroU32};
use std::thread::available_parallelism;
use tokio::runtime::{Builder, Runtime};

/// tokio's own default, written down so that it cannot change unseen.
const EVENT_INTERVAL: u32 = 61;

/// Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Threads that serve. One stream costs the same on 1, 2 and 4 of them (7,550 to 7,650 instructions a token, no futex call). 64 streams
    /// flat out on 2 busy cores cost 0.37 / 0.48 / 0.37 µs of a core a token (Chat, Responses, WebSocket) on one thread and 0.53 / 0.59 /
    /// 0.49 on two, whose streams waited half as long.
    ///
    /// Default: one for each core that the process may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_threads: Option<NonZeroU8>,
    /// Tasks that a busy thread polls before it asks the system for new events: higher is cheaper, and later to notice them. 16, 61 and 512
    /// cost 1.126, 1.028 and 1.005 `epoll_wait` calls a token.
    pub event_interval: NonZeroU32,
    /// Threads beside these, for what blocks: engines' names are looked up, tokens counted and requests packed in gzip there. They end
    /// after 10 s without work; more work than that waits.
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
    /// Threads that serve, on this machine.
    pub fn threads(&self) -> usize {
        let cores = || available_parallelism().map_or(1, usize::from);
        self.worker_threads.map_or_else(cores, |threads| usize::from(threads.get()))
    }

    /// The runtime that this amounts to.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn build(&self) -> io::Result<Runtime> {
        Builder::new_multi_thread()
            .worker_threads(self.threads())
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
