//! Every metric of the gateway, in its own registry. Nothing else in the house makes one; `docs/METRICS.md` lists them.
//!
//! A family of metrics is a file: its struct, made in [`Metrics::new`], and the methods of [`Metrics`] by which it is told what happened.

mod buckets;
mod children;
mod configs;
mod connections;
mod family;
mod faults;
mod gaps;
mod gates;
mod guards;
mod hedges;
mod keys;
mod memory;
mod orders;
mod prefills;
mod process;
mod stored;
#[cfg(test)]
mod tests;
mod traces;
mod turns;
mod upstreams;

use flashlane_engine::Tier;
use flashlane_engine::admission::Standing;
use prometheus::{Registry, TextEncoder};
use std::sync::{Mutex, PoisonError};

pub use connections::OpenConnection;
pub use process::{Build, Runtime};
pub use prometheus::Error as RenderError;
pub use stored::BackgroundTurn;
pub use traces::TraceEnd;
pub use upstreams::Upstream;

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    configs: configs::Configs,
    connections: connections::Connections,
    faults: faults::Faults,
    gates: gates::Gates,
    guards: guards::Guards,
    hedges: hedges::Hedges,
    memory: memory::Memory,
    keys: keys::Keys,
    orders: orders::Orders,
    prefills: prefills::Prefills,
    children: children::Children,
    process: process::Process,
    stored: stored::Stored,
    traces: traces::Traces,
    turns: turns::Turns,
    upstreams: upstreams::Upstreams,
    /// One scrape at a time: each brings counters up to what it was told.
    scrape: Mutex<()>,
}

impl Metrics {
    /// A registry of its own with every metric in it.
    ///
    /// # Errors
    /// When two metrics have one name: our own mistake, found by the first test that runs.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        Ok(Self {
            configs: configs::Configs::new(&registry)?,
            connections: connections::Connections::new(&registry)?,
            faults: faults::Faults::new(&registry)?,
            gates: gates::Gates::new(&registry)?,
            guards: guards::Guards::new(&registry)?,
            hedges: hedges::Hedges::new(&registry)?,
            memory: memory::Memory::new(&registry)?,
            keys: keys::Keys::new(&registry)?,
            orders: orders::Orders::new(&registry)?,
            prefills: prefills::Prefills::new(&registry)?,
            children: children::Children::new(&registry)?,
            process: process::Process::new(&registry)?,
            stored: stored::Stored::new(&registry)?,
            traces: traces::Traces::new(&registry)?,
            turns: turns::Turns::new(&registry)?,
            upstreams: upstreams::Upstreams::new(&registry)?,
            scrape: Mutex::new(()),
            registry,
        })
    }

    /// No config has an endpoint of this name any more, and nothing runs at one.
    pub fn endpoint_gone(&self, endpoint: &str) {
        let _alone = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.upstreams.forget(endpoint);
        self.orders.forget(endpoint);
    }

    /// All metrics in Prometheus' text format 0.0.4. `upstreams` are the endpoints by name; the names come from the config, so the
    /// label's values are bounded. `gates` are what stands before each tier.
    ///
    /// # Errors
    /// When a family cannot be written: our own mistake.
    pub fn render<'a>(
        &self,
        upstreams: impl IntoIterator<Item = (&'a str, Upstream)>,
        gates: impl IntoIterator<Item = (Tier, Standing)>,
    ) -> Result<String, prometheus::Error> {
        let _alone = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.process.look();
        for (tier, standing) in gates {
            self.gates.bring_up_to(tier, &standing);
        }
        for (endpoint, upstream) in upstreams {
            self.upstreams.bring_up_to(endpoint, upstream);
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
