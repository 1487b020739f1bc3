//! The two clocks of the house: the steady one that everything is timed by, and the system's.

use flashlane_engine::Now;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// How long the system's time is told by the steady clock before it is read again: a token pays for one clock, not for two.
const UNIX_NS_MAX: u64 = 1_000_000_000;

/// Both clocks, told together.
pub(crate) struct Clock {
    base: Instant,
    /// The system's time at `base`, as it was seen last, and when that was.
    unix_ms_at_base: AtomicU64,
    unix_read_ns: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { base: Instant::now(), unix_ms_at_base: AtomicU64::new(unix_ms()), unix_read_ns: AtomicU64::new(0) }
    }

    // hot: per token
    pub(crate) fn now(&self) -> Now {
        let mono_ns = self.mono_ns();
        let mono_ms = mono_ns / 1_000_000;
        if mono_ns.saturating_sub(self.unix_read_ns.load(Ordering::Relaxed)) > UNIX_NS_MAX {
            self.unix_ms_at_base.store(unix_ms().saturating_sub(mono_ms), Ordering::Relaxed);
            self.unix_read_ns.store(mono_ns, Ordering::Relaxed);
        }
        Now { mono_ns, unix_ms: self.unix_ms_at_base.load(Ordering::Relaxed).saturating_add(mono_ms) }
    }

    pub(crate) fn mono_ns(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn instant(&self, mono_ns: u64) -> Instant {
        self.base + Duration::from_nanos(mono_ns)
    }
}

fn unix_ms() -> u64 {
    unix_us() / 1000
}

/// The system's time, in microseconds since 1970.
pub(crate) fn unix_us() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(unix.as_micros()).unwrap_or(u64::MAX)
}
