//! Of endpoints and the connections to them. What is kept elsewhere is brought up to date by a scrape.

use super::Metrics;
use super::family::{counters, gauges, lift, set};
use flashlane_engine::Outcome;
use flashlane_engine::router::{Cause, Standing};
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
    /// Requests that were cancelled and that the engine has not let go of yet.
    pub cancelled_generating: u64,
    /// Requests that the engine had not let go of a second after they were cancelled.
    pub cancels_unanswered: u64,
    /// Requests that run at the engine by its own account, whoever sent them. None: it was not asked lately.
    pub running_told: Option<u32>,
    pub health: Standing,
}

/// The families whose label is the endpoint.
#[derive(Debug)]
pub(super) struct Upstreams {
    attempts_failed: IntCounterVec,
    opened: IntCounterVec,
    reused: IntCounterVec,
    resent: IntCounterVec,
    unanswered: IntCounterVec,
    idle: IntGaugeVec,
    in_flight: IntGaugeVec,
    cancelled: IntGaugeVec,
    told: IntGaugeVec,
    health: IntGaugeVec,
    outs: IntCounterVec,
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
            unanswered: counter(
                "flashlane_upstream_cancels_unanswered_total",
                "Cancelled requests that an engine had not let go of in time",
            )?,
            cancelled: gauge(
                "flashlane_upstream_cancelled_generating",
                "Cancelled requests that an engine has not let go of",
            )?,
            told: gauge("flashlane_upstream_running_told", "Requests that run at an endpoint by its own account")?,
            health: gauges(
                registry,
                "flashlane_endpoint_health",
                "1 for what an endpoint's turns have shown of it, 0 for the others",
                &["endpoint", "health"],
            )?,
            outs: counters(
                registry,
                "flashlane_endpoint_outs_total",
                "Times that an endpoint was left out for a while",
                &["endpoint", "cause"],
            )?,
            idle: gauge("flashlane_upstream_connections_idle", "Connections to an endpoint open and idle now")?,
            in_flight: gauge("flashlane_upstream_turns_in_flight", "Turns running at an endpoint now")?,
        })
    }

    pub(super) fn attempts_failed(&self, outcome: &Outcome) {
        for (failed, _) in outcome.failed() {
            self.attempts_failed.with_label_values(&[&*failed.endpoint]).inc();
        }
    }

    /// A row that is not there is none to forget.
    pub(super) fn forget(&self, endpoint: &str) {
        for family in [&self.attempts_failed, &self.opened, &self.reused, &self.resent, &self.unanswered] {
            let _ = family.remove_label_values(&[endpoint]);
        }
        for family in [&self.idle, &self.in_flight, &self.cancelled, &self.told] {
            let _ = family.remove_label_values(&[endpoint]);
        }
        for state in Standing::LABELS {
            let _ = self.health.remove_label_values(&[endpoint, state]);
        }
        for cause in Cause::ALL {
            let _ = self.outs.remove_label_values(&[endpoint, cause.label()]);
        }
    }

    pub(super) fn bring_up_to(&self, endpoint: &str, upstream: Upstream) {
        for (family, count) in [
            (&self.opened, upstream.connections_opened),
            (&self.reused, upstream.connections_reused),
            (&self.resent, upstream.requests_resent),
            (&self.unanswered, upstream.cancels_unanswered),
        ] {
            lift(&family.with_label_values(&[endpoint]), count);
        }
        for (family, count) in [
            (&self.idle, upstream.connections_idle),
            (&self.in_flight, upstream.turns_in_flight),
            (&self.cancelled, upstream.cancelled_generating),
        ] {
            set(&family.with_label_values(&[endpoint]), count);
        }
        for state in Standing::LABELS {
            let is_so = upstream.health.label() == state;
            self.health.with_label_values(&[endpoint, state]).set(i64::from(is_so));
        }
        match upstream.running_told {
            Some(running) => self.told.with_label_values(&[endpoint]).set(i64::from(running)),
            // Better none than an old one.
            None => drop(self.told.remove_label_values(&[endpoint])),
        }
        // There before its first failure: a rate needs a zero to rise from.
        self.attempts_failed.with_label_values(&[endpoint]);
        for cause in Cause::ALL {
            self.outs.with_label_values(&[endpoint, cause.label()]);
        }
    }
}

impl Metrics {
    /// An endpoint is left out for a while.
    pub fn endpoint_out(&self, endpoint: &str, cause: Cause) {
        self.upstreams.outs.with_label_values(&[endpoint, cause.label()]).inc();
    }
}
