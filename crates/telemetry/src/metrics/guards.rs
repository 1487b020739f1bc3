//! Of guards: what they said of turns, and how long it took them.

use super::Metrics;
use super::buckets::TTFT_SECONDS;
use super::family::{counters, histograms};
use flashlane_engine::guard::Ruling;
use prometheus::{HistogramVec, IntCounterVec, Registry};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Guards {
    ruled: IntCounterVec,
    took: HistogramVec,
}

impl Guards {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let ruled = "What guards said of turns";
        let took = "From asking a guard to its word";
        Ok(Self {
            ruled: counters(registry, "flashlane_guard_rulings_total", ruled, &["guard", "ruling"])?,
            took: histograms(registry, "flashlane_guard_seconds", took, &["guard"], TTFT_SECONDS)?,
        })
    }
}

impl Metrics {
    /// A guard was asked; its name is the config's.
    pub fn ruled(&self, guard: &str, ruling: &Ruling, took: Duration) {
        let word = match ruling {
            Ruling::Pass => "pass",
            Ruling::Refuse { .. } => "refuse",
            Ruling::Missing { .. } => "missing",
        };
        self.guards.ruled.with_label_values(&[guard, word]).inc();
        self.guards.took.with_label_values(&[guard]).observe(took.as_secs_f64());
    }
}
