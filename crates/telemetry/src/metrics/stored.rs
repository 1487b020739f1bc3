//! Of what is kept: responses that run in the background, and the ledger of usage.

use super::Metrics;
use super::family::registered;
use prometheus::{IntCounter, IntGauge, Registry};

#[derive(Debug)]
pub(super) struct Stored {
    background_turns: IntGauge,
    usage_rows_lost: IntCounter,
}

/// A running background response in the gauge; its drop is its end.
#[derive(Debug)]
pub struct BackgroundTurn(IntGauge);

impl Drop for BackgroundTurn {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Stored {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let running = "Background responses running now";
        let lost = "Turns that the ledger of usage does not have";
        Ok(Self {
            background_turns: registered(registry, IntGauge::new("flashlane_background_turns_running", running)?)?,
            usage_rows_lost: registered(registry, IntCounter::new("flashlane_usage_rows_lost_total", lost)?)?,
        })
    }
}

impl Metrics {
    /// Counts a response that runs in the background until the returned value is dropped.
    #[must_use]
    pub fn background_turn(&self) -> BackgroundTurn {
        self.stored.background_turns.inc();
        BackgroundTurn(self.stored.background_turns.clone())
    }

    /// The store would not take a turn's row of the ledger.
    pub fn usage_row_lost(&self) {
        self.stored.usage_rows_lost.inc();
    }
}
