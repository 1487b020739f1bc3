//! Of what is kept: responses that run in the background, the store and the ledger of usage.

use super::Metrics;
use super::buckets::COMMIT_SECONDS;
use super::family::{counters, registered, seconds, set};
use crate::label::StoreWork;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Registry};

#[derive(Debug)]
pub(super) struct Stored {
    background_turns: IntGauge,
    usage_rows_lost: IntCounter,
    commit: Histogram,
    failures: IntCounterVec,
    bytes: IntGauge,
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
        let commit = HistogramOpts::new("flashlane_store_commit_seconds", "How long the store took to keep a response");
        let failures = "What the store was asked for and could not do";
        let bytes = IntGauge::new("flashlane_store_bytes", "What the store takes: of the disk, or of memory")?;
        let stored = Self {
            commit: registered(registry, Histogram::with_opts(commit.buckets(COMMIT_SECONDS.to_vec()))?)?,
            failures: counters(registry, "flashlane_store_failures_total", failures, &["work"])?,
            bytes: registered(registry, bytes)?,
            background_turns: registered(registry, IntGauge::new("flashlane_background_turns_running", running)?)?,
            usage_rows_lost: registered(registry, IntCounter::new("flashlane_usage_rows_lost_total", lost)?)?,
        };
        for work in StoreWork::ALL {
            stored.failures.with_label_values(&[work.name()]);
        }
        Ok(stored)
    }
}

impl Metrics {
    /// Counts a response that runs in the background until the returned value is dropped.
    #[must_use]
    pub fn background_turn(&self) -> BackgroundTurn {
        self.stored.background_turns.inc();
        BackgroundTurn(self.stored.background_turns.clone())
    }

    /// The store has kept a response, `ns` after it was asked to.
    pub fn store_committed(&self, ns: u64) {
        self.stored.commit.observe(seconds(ns));
    }

    /// The store could not do what it was asked for.
    pub fn store_failed(&self, work: StoreWork) {
        self.stored.failures.with_label_values(&[work.name()]).inc();
    }

    /// What the store takes now.
    pub fn store_bytes(&self, bytes: u64) {
        set(&self.stored.bytes, bytes);
    }

    /// The store would not take a turn's row of the ledger.
    pub fn usage_row_lost(&self) {
        self.stored.usage_rows_lost.inc();
    }
}
