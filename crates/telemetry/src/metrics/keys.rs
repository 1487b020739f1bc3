//! Of clients' keys: those that were refused.

use super::Metrics;
use super::family::counters;
use crate::label::KeyFault;
use prometheus::{IntCounterVec, Registry};

#[derive(Debug)]
pub(super) struct Keys {
    refused: IntCounterVec,
}

impl Keys {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Requests and handshakes of clients that were refused for their key";
        let refused = counters(registry, "flashlane_keys_refused_total", help, &["reason"])?;
        for fault in KeyFault::ALL {
            refused.with_label_values(&[fault.name()]);
        }
        Ok(Self { refused })
    }
}

impl Metrics {
    /// A request came without a key of this server's.
    pub fn key_refused(&self, fault: KeyFault) {
        self.keys.refused.with_label_values(&[fault.name()]).inc();
    }
}
