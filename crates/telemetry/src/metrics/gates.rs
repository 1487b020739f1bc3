//! Of what stands before each tier: places, queue and limits, brought up to date by a scrape.

use super::family::{counters, gauges, lift, set};
use flashlane_engine::Tier;
use flashlane_engine::admission::{Standing, Why};
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

/// What stands before each tier.
#[derive(Debug)]
pub(super) struct Gates {
    queued: IntGaugeVec,
    running: IntGaugeVec,
    slots: IntGaugeVec,
    reserved: IntGaugeVec,
    spilled: IntCounterVec,
    changes: IntCounterVec,
    refused: IntCounterVec,
}

impl Gates {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| gauges(registry, name, help, &["tier"]);
        let refused = "Turns refused for want of a place, of a limit's remainder or of an endpoint";
        let spilled = "Turns that went on to the next tier for want of a place";
        let changes = "Changes of a tier's limits or queue while it runs";
        Ok(Self {
            queued: gauge("flashlane_queue_turns_waiting", "Turns waiting for a place now")?,
            running: gauge("flashlane_tier_turns_running", "Turns that hold a place now")?,
            slots: gauge("flashlane_tier_slots", "Turns that may run at once now, where that is bounded")?,
            reserved: gauge("flashlane_limit_tokens_reserved", "Tokens that running turns have reserved")?,
            spilled: counters(registry, "flashlane_spills_total", spilled, &["tier"])?,
            changes: counters(registry, "flashlane_limit_changes_total", changes, &["tier"])?,
            refused: counters(registry, "flashlane_refusals_total", refused, &["tier", "reason"])?,
        })
    }

    pub(super) fn bring_up_to(&self, tier: Tier, standing: &Standing) {
        let name = tier.name();
        for (family, value) in [
            (&self.queued, u64::from(standing.queued)),
            (&self.running, u64::from(standing.in_flight)),
            (&self.slots, standing.slots.map_or(0, u64::from)),
            (&self.reserved, standing.tokens_reserved),
        ] {
            set(&family.with_label_values(&[name]), value);
        }
        for (family, count) in [(&self.spilled, standing.spilled), (&self.changes, standing.changes)] {
            lift(&family.with_label_values(&[name]), count);
        }
        for (why, count) in Why::ALL.into_iter().zip(standing.refused) {
            lift(&self.refused.with_label_values(&[name, why.label()]), count);
        }
    }
}
