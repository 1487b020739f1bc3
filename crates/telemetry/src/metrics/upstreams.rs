//! Of endpoints and the connections to them. What is kept elsewhere is brought up to date by a scrape.

use super::family::{counters, gauges, lift, set};
use flashlane_engine::Outcome;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

/// How an endpoint stands at the moment of a scrape; the counts are since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upstream {
    pub connections_opened: u64,
    /// Turns that went out on a connection that was already open.
    pub connections_reused: u64,
    /// Requests sent a second time, because a reused connection turned out to be closed.
    pub requests_resent: u64,
    /// Connections open and idle now.
    pub connections_idle: u64,
    /// Turns running now.
    pub turns_in_flight: u64,
}

/// The families whose label is the endpoint.
#[derive(Debug)]
pub(super) struct Upstreams {
    attempts_failed: IntCounterVec,
    opened: IntCounterVec,
    reused: IntCounterVec,
    resent: IntCounterVec,
    idle: IntGaugeVec,
    in_flight: IntGaugeVec,
}

impl Upstreams {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| counters(registry, name, help, &["endpoint"]);
        let gauge = |name: &str, help: &str| gauges(registry, name, help, &["endpoint"]);
        let failed = "Turns that an endpoint failed, whether or not another served them";
        Ok(Self {
            attempts_failed: counter("flashlane_upstream_attempts_failed_total", failed)?,
            opened: counter("flashlane_upstream_connections_opened_total", "Connections made to an endpoint")?,
            reused: counter("flashlane_upstream_connections_reused_total", "Turns sent on a connection already open")?,
            resent: counter("flashlane_upstream_requests_resent_total", "Requests sent again on a fresh connection")?,
            idle: gauge("flashlane_upstream_connections_idle", "Connections to an endpoint open and idle now")?,
            in_flight: gauge("flashlane_upstream_turns_in_flight", "Turns running at an endpoint now")?,
        })
    }

    pub(super) fn attempts_failed(&self, outcome: &Outcome) {
        for (failed, _) in outcome.failed() {
            self.attempts_failed.with_label_values(&[&*failed.endpoint]).inc();
        }
    }

    pub(super) fn bring_up_to(&self, endpoint: &str, upstream: Upstream) {
        for (family, count) in [
            (&self.opened, upstream.connections_opened),
            (&self.reused, upstream.connections_reused),
            (&self.resent, upstream.requests_resent),
        ] {
            lift(&family.with_label_values(&[endpoint]), count);
        }
        for (family, count) in [(&self.idle, upstream.connections_idle), (&self.in_flight, upstream.turns_in_flight)] {
            set(&family.with_label_values(&[endpoint]), count);
        }
        // There before its first failure: a rate needs a zero to rise from.
        self.attempts_failed.with_label_values(&[endpoint]);
    }
}
