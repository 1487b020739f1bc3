//! What time it is, told once for both clocks, and the one timer of a session. All that waits goes by the steady clock; the clock on the
//! wall is for what clients are shown and for the age of what is kept, and may jump.

use flashlane_backend::Alarm;
use flashlane_engine::Now;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// How long the system's time is told by the steady clock before it is read again: a token pays for one clock, not for two.
const UNIX_NS_MAX: u64 = 1_000_000_000;

/// Both clocks, told together.
pub(crate) struct Clock {
    base: Instant,
    /// The system's time, in milliseconds. It may jump: nothing waits by it.
    wall: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The system's time at `base`, as it was seen last, and when that was.
    unix_ms_at_base: AtomicU64,
    unix_read_ns: AtomicU64,
}

impl Clock {
    pub(crate) fn new(wall: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let unix_ms_at_base = AtomicU64::new(wall());
        Self { base: Instant::now(), wall: Box::new(wall), unix_ms_at_base, unix_read_ns: AtomicU64::new(0) }
    }

    // hot: per token
    pub(crate) fn now(&self) -> Now {
        let mono_ns = self.mono_ns();
        let mono_ms = mono_ns / 1_000_000;
        if mono_ns.saturating_sub(self.unix_read_ns.load(Ordering::Relaxed)) > UNIX_NS_MAX {
            self.unix_ms_at_base.store((self.wall)().saturating_sub(mono_ms), Ordering::Relaxed);
            self.unix_read_ns.store(mono_ns, Ordering::Relaxed);
        }
        Now { mono_ns, unix_ms: self.unix_ms_at_base.load(Ordering::Relaxed).saturating_add(mono_ms) }
    }

    pub(crate) fn mono_ns(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn instant(&self, mono_ns: u64) -> Instant {
        self.base + Duration::from_nanos(mono_ns)
    }
}

pub(crate) fn unix_ms() -> u64 {
    unix_us() / 1000
}

/// The system's time, in microseconds since 1970.
pub(crate) fn unix_us() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(unix.as_micros()).unwrap_or(u64::MAX)
}

/// One timer for all deadlines.
#[derive(Default)]
pub(crate) struct Timer {
    alarm: Option<Alarm>,
    /// What `alarm` is set to, until it rings.
    armed_ns: Option<u64>,
}

impl Timer {
    /// Ready at `deadline_ns`, or earlier. Setting a timer takes a lock, and the next deadline moves with every token: so a later one
    /// leaves the timer as it is, and is found when that rings.
    pub(crate) fn poll(&mut self, deadline_ns: u64, clock: &Clock, cx: &mut Context<'_>) -> Poll<()> {
        let alarm = self.alarm.get_or_insert_with(|| Alarm::new(clock.instant(deadline_ns)));
        if self.armed_ns.is_none_or(|armed_ns| armed_ns > deadline_ns) {
            alarm.set(clock.instant(deadline_ns));
            self.armed_ns = Some(deadline_ns);
        }
        let rung = alarm.poll(cx);
        if rung.is_ready() {
            self.armed_ns = None;
        }
        rung
    }
}
