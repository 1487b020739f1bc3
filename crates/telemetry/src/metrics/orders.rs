//! What operators have said of endpoints while the server runs. What is kept elsewhere is brought up to date by a scrape.

use super::Metrics;
use super::family::{counters, gauges, set};
use flashlane_engine::router::{Duty, Seen};
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

/// See the module.
#[derive(Debug)]
pub(super) struct Orders {
    state: IntGaugeVec,
    weight: IntGaugeVec,
    changes: IntCounterVec,
}

impl Orders {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let state = "1 for the state that operators have put an endpoint into, 0 for the others";
        let changes = "Changes of an endpoint's state or weight by operators";
        Ok(Self {
            state: gauges(registry, "flashlane_endpoint_state", state, &["endpoint", "state"])?,
            weight: gauges(
                registry,
                "flashlane_endpoint_weight",
                "An endpoint's weight that holds now",
                &["endpoint"],
            )?,
            changes: counters(registry, "flashlane_endpoint_changes_total", changes, &["endpoint"])?,
        })
    }

    /// A row that is not there is none to forget.
    pub(super) fn forget(&self, endpoint: &str) {
        for duty in Duty::ALL {
            let _ = self.state.remove_label_values(&[endpoint, duty.name()]);
        }
        let _ = self.weight.remove_label_values(&[endpoint]);
        let _ = self.changes.remove_label_values(&[endpoint]);
    }

    fn bring_up_to(&self, endpoint: &str, seen: Seen) {
        for duty in Duty::ALL {
            set(&self.state.with_label_values(&[endpoint, duty.name()]), u64::from(seen.order.duty == duty));
        }
        set(&self.weight.with_label_values(&[endpoint]), u64::from(seen.weight));
        // There before the first change.
        self.changes.with_label_values(&[endpoint]);
    }
}

impl Metrics {
    /// An operator has changed an endpoint's state or weight.
    pub fn endpoint_ordered(&self, endpoint: &str) {
        self.orders.changes.with_label_values(&[endpoint]).inc();
    }

    /// How an endpoint stands at the moment of a scrape.
    pub fn endpoint_seen(&self, endpoint: &str, seen: Seen) {
        self.orders.bring_up_to(endpoint, seen);
    }
}
