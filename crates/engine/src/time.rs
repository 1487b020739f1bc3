//! Time as a value: pure code is told what time it is.

/// One reading of both clocks, taken by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Nanoseconds on a clock that never goes back; only differences mean anything.
    pub mono_ns: u64,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

impl Now {
    /// The monotonic time `ms` milliseconds from now.
    #[must_use]
    pub fn after_ms(self, ms: u64) -> u64 {
        self.mono_ns.saturating_add(ms.saturating_mul(1_000_000))
    }

    /// Whole seconds since the Unix epoch, the unit of `created_at`.
    #[must_use]
    pub fn unix_s(self) -> u64 {
        self.unix_ms / 1000
    }
}
