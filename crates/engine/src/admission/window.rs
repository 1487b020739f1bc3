//! How many turns a tier runs at once: a window that grows by one when it was full and all went well, and shrinks by a quarter when
//! first tokens come late or an endpoint refuses for load (AIMD), between two bounds.
//!
//! Knows nothing of who the turns are.

use crate::time::Now;
use std::num::NonZeroU32;

/// Slots are counted in thousandths, so that growth by a part of one adds up.
const WHOLE: u64 = 1000;

/// Between what the window moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub min: NonZeroU32,
    pub max: NonZeroU32,
    /// A first token later than this means that too many run, in milliseconds.
    pub ttft_ms_max: u64,
}

/// What a turn's end says of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Its first token came after so long, in milliseconds.
    FirstToken(u64),
    /// It had none after so long, and was left.
    NoTokenWithin(u64),
    /// Its endpoint would not have it, for load.
    Refused,
    /// Nothing: its client left, or it failed for another reason.
    Nothing,
}

/// The slots of one tier. Without bounds there are as many as are wanted.
#[derive(Debug, Default)]
pub struct Window {
    bounds: Option<Bounds>,
    size: u64,
    in_flight: u32,
    /// No cut before: what began before the last one says nothing of what it did.
    settled_ns: u64,
}

impl Window {
    #[must_use]
    pub fn new(bounds: Option<Bounds>) -> Self {
        // In the middle: neither a storm nor a crawl to begin with.
        let size = bounds.map_or(0, |bounds| u64::from(bounds.min.get()).midpoint(u64::from(bounds.max.get())) * WHOLE);
        Self { bounds, size, in_flight: 0, settled_ns: 0 }
    }

    /// New bounds; what it has learned stays, within them.
    pub fn adopt(&mut self, bounds: Option<Bounds>) {
        *self = match (self.bounds, bounds) {
            (Some(_), Some(new)) => Self { bounds, size: within(new, self.size), ..*self },
            (None, _) | (_, None) => Self { in_flight: self.in_flight, ..Self::new(bounds) },
        };
    }

    /// Turns that may run at once; None: as many as are wanted.
    #[must_use]
    pub fn slots(&self) -> Option<u32> {
        self.bounds?;
        Some(u32::try_from(self.size / WHOLE).unwrap_or(u32::MAX))
    }

    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Slots that are free now.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.slots().map_or(u32::MAX, |slots| slots.saturating_sub(self.in_flight))
    }

    /// A turn begins.
    pub fn enter(&mut self) {
        self.in_flight += 1;
    }

    /// A turn that began at `began_ns` has ended.
    pub fn leave(&mut self, signal: Signal, began_ns: u64, now: Now) {
        debug_assert!(self.in_flight > 0, "a turn ends once");
        let was_full = self.free() <= 1;
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(bounds) = self.bounds else { return };
        let is_good = match signal {
            Signal::FirstToken(ttft_ms) => ttft_ms <= bounds.ttft_ms_max,
            Signal::NoTokenWithin(ms) if ms <= bounds.ttft_ms_max => return,
            Signal::Refused | Signal::NoTokenWithin(_) => false,
            Signal::Nothing => return,
        };
        if is_good {
            // One slot for each window of turns, as long as the slots are used: what was not tried proves nothing.
            let growth = if was_full { WHOLE * WHOLE / self.size.max(1) } else { 0 };
            self.size = within(bounds, self.size + growth.max(u64::from(was_full)));
        } else if began_ns >= self.settled_ns {
            self.size = within(bounds, self.size / 4 * 3);
            self.settled_ns = now.mono_ns;
        }
    }
}

fn within(bounds: Bounds, size: u64) -> u64 {
    let (min, max) = (u64::from(bounds.min.get()), u64::from(bounds.max.get()));
    size.clamp(min * WHOLE, max.max(min) * WHOLE)
}
