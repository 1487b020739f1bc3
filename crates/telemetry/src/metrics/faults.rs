//! Of our own mistakes.

use super::Metrics;
use super::family::registered;
use prometheus::{IntCounter, Registry};

#[derive(Debug)]
pub(super) struct Faults {
    panics: IntCounter,
}

impl Faults {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let panics = "Panics that ended a turn or a request, and nothing else";
        Ok(Self { panics: registered(registry, IntCounter::new("flashlane_panics_total", panics)?)? })
    }
}

impl Metrics {
    /// A turn or a request ended by a panic.
    pub fn panicked(&self) {
        self.faults.panics.inc();
    }
}
