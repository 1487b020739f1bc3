//! Of memory: what is held, what may be, and what is kept away meanwhile.

use super::Metrics;
use super::family::{registered, set};
use prometheus::{IntGauge, Registry};

#[derive(Debug)]
pub(super) struct Memory {
    used: IntGauge,
    most: IntGauge,
    stage: IntGauge,
}

impl Memory {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            used: gauge(registry, "flashlane_memory_used_bytes", "Memory that the process holds")?,
            most: gauge(registry, "flashlane_memory_max_bytes", "Memory that the process is held to; 0: none")?,
            stage: gauge(registry, "flashlane_memory_stage", "What is kept away while memory runs short, 0 to 3")?,
        })
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registered(registry, IntGauge::new(name, help)?)
}

impl Metrics {
    /// How memory stands now; before a scrape.
    pub fn memory(&self, used_bytes: u64, bytes_max: Option<u64>, stage: u8) {
        set(&self.memory.used, used_bytes);
        set(&self.memory.most, bytes_max.unwrap_or_default());
        self.memory.stage.set(i64::from(stage));
    }
}
