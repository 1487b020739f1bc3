//! Every metric of the gateway, in its own registry. Nothing else in the house makes one; `docs/METRICS.md` lists them.
//!
//! A turn is counted once, at its end, from its own plain counters: no atomic is touched per token.

use crate::label::{self, Direction, Handshake, Transport};
use flashlane_engine::admission::{Standing, Why};
use flashlane_engine::{ErrorKind, Outcome, Prefilled, Stage, Tier, Usage};
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use std::sync::{Mutex, PoisonError};

pub use prometheus::Error as RenderError;

/// Seconds from a turn's first byte to its first token: from a cached wafer's to a cold GPU's.
const TTFT_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];
/// Seconds a whole turn takes.
const TURN_SECONDS: &[f64] =
    &[0.000_1, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Seconds of the gateway's own time in a turn: microseconds, when all is well.
const OVERHEAD_SECONDS: &[f64] = &[
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.1,
    1.0,
];
/// Seconds between two output tokens: 20,000 tokens/s down to 1.
const TPOT_SECONDS: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// Seconds of one stage of a turn: from the microseconds of our own to a long answer.
const STAGE_SECONDS: &[f64] =
    &[0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0];

/// What an engine does with a turn, in order.
const PHASES: [&str; 3] = ["queue", "prompt", "completion"];

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    turns: IntCounterVec,
    errors: IntCounterVec,
    attempts_failed: IntCounterVec,
    /// Indexed as [`Tier::ALL`], then `none`.
    tiers: [TierMetrics; 3],
    connections_open: IntGaugeVec,
    handshakes_failed: IntCounterVec,
    background_turns: IntGauge,
    websocket_bytes: [IntCounter; 2],
    usage_rows_lost: IntCounter,
    routes: IntCounterVec,
    /// How many, and their tokens.
    prefills: [IntCounterVec; 2],
    /// Behind a lock, for two scrapes at once: each brings the counters up to what it was told.
    told: Mutex<(UpstreamFamilies, GateFamilies)>,
}

/// One tier's rows, resolved once.
#[derive(Debug)]
struct TierMetrics {
    ttft: Histogram,
    turn: Histogram,
    overhead: Histogram,
    queue_wait: Histogram,
    tpot: Histogram,
    /// As [`PHASES`].
    upstream_phases: [Histogram; 3],
    /// As [`Stage::ALL`].
    stages: [Histogram; Stage::ALL.len()],
    input_tokens: IntCounter,
    cached_tokens: IntCounter,
    output_tokens: IntCounter,
    deltas: IntCounter,
}

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

/// An open client connection in the gauge; its drop closes it.
#[derive(Debug)]
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A running background response in the gauge; its drop is its end.
#[derive(Debug)]
pub struct BackgroundTurn(IntGauge);

impl Drop for BackgroundTurn {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// A registry of its own with every metric in it.
    ///
    /// # Errors
    /// When two metrics have one name: our own mistake, found by the first test that runs.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let tiers = TierFamilies::new(&registry)?;
        let websocket_bytes = counters(
            &registry,
            "flashlane_websocket_bytes_total",
            "Bytes over WebSocket connections, as on the wire",
            &["direction"],
        )?;
        let metrics = Self {
            turns: counters(&registry, "flashlane_turns_total", "Turns ended", &["tier", "outcome"])?,
            errors: counters(
                &registry,
                "flashlane_errors_total",
                "Requests and turns that ended in an error",
                &["kind"],
            )?,
            attempts_failed: counters(
                &registry,
                "flashlane_upstream_attempts_failed_total",
                "Turns that an endpoint failed, whether or not another served them",
                &["endpoint"],
            )?,
            background_turns: registered(
                &registry,
                IntGauge::new("flashlane_background_turns_running", "Background responses running now")?,
            )?,
            tiers: [Some(Tier::Latency), Some(Tier::Throughput), None].map(|tier| tiers.of(tier)),
            connections_open: gauges(
                &registry,
                "flashlane_connections_open",
                "Client connections open now",
                &["transport"],
            )?,
            handshakes_failed: counters(
                &registry,
                "flashlane_tls_handshakes_failed_total",
                "TLS handshakes with clients that came to nothing",
                &["reason"],
            )?,
            websocket_bytes: Direction::ALL.map(|d| websocket_bytes.with_label_values(&[d.name()])),
            usage_rows_lost: registered(
                &registry,
                IntCounter::new("flashlane_usage_rows_lost_total", "Turns that the ledger of usage does not have")?,
            )?,
            routes: counters(
                &registry,
                "flashlane_routes_total",
                "Turns that went to an endpoint, by why",
                &["tier", "plan", "pick", "attempt", "origin"],
            )?,
            prefills: prefills(&registry)?,
            told: Mutex::new((UpstreamFamilies::new(&registry)?, GateFamilies::new(&registry)?)),
            registry,
        };
        for transport in Transport::ALL {
            metrics.connections_open.with_label_values(&[transport.name()]);
        }
        for failure in Handshake::ALL {
            metrics.handshakes_failed.with_label_values(&[failure.name()]);
        }
        Ok(metrics)
    }

    /// A turn has ended: its one entry in every family it belongs to.
    pub fn turn_done(&self, outcome: &Outcome) {
        self.turns.with_label_values(&[label::tier(outcome.tier), outcome.status.name()]).inc();
        if let Some(kind) = outcome.error {
            self.error(kind);
        }
        for failed in &outcome.attempts_failed {
            self.attempts_failed.with_label_values(&[&*failed.endpoint]).inc();
        }
        if let Some(decision) = &outcome.decision {
            let (plan, pick, attempt) = (decision.plan.label(), decision.pick.label(), decision.attempt.label());
            let origin = outcome.origin.label();
            self.routes.with_label_values(&[decision.tier.name(), plan, pick, attempt, origin]).inc();
        }
        let [latency, throughput, none] = &self.tiers;
        match outcome.tier {
            Some(Tier::Latency) => latency,
            Some(Tier::Throughput) => throughput,
            None => none,
        }
        .turn_done(outcome);
    }

    /// A warm-up's prompt was read, or not.
    pub fn prefilled(&self, prefilled: &Prefilled) {
        let tier = prefilled.leave.tier.name();
        let [prefills, of_tokens] = &self.prefills;
        prefills.with_label_values(&[tier, prefilled.end.name()]).inc();
        let Usage { input, cached, output, .. } = prefilled.usage;
        for (kind, tokens) in [("input", input), ("cached", cached), ("output", output)] {
            of_tokens.with_label_values(&[tier, kind]).inc_by(tokens);
        }
    }

    /// A request was refused before it became a turn. (A turn's own error is counted by [`Self::turn_done`].)
    pub fn error(&self, kind: ErrorKind) {
        self.errors.with_label_values(&[kind.row().label]).inc();
    }

    /// Counts a client connection until the returned value is dropped.
    #[must_use]
    pub fn connection(&self, transport: Transport) -> OpenConnection {
        let gauge = self.connections_open.with_label_values(&[transport.name()]);
        gauge.inc();
        OpenConnection(gauge)
    }

    /// Counts a response that runs in the background until the returned value is dropped.
    #[must_use]
    pub fn background_turn(&self) -> BackgroundTurn {
        self.background_turns.inc();
        BackgroundTurn(self.background_turns.clone())
    }

    /// A client's TLS handshake came to nothing.
    pub fn handshake_failed(&self, failure: Handshake) {
        self.handshakes_failed.with_label_values(&[failure.name()]).inc();
    }

    /// The store would not take a turn's row of the ledger.
    pub fn usage_row_lost(&self) {
        self.usage_rows_lost.inc();
    }

    pub fn websocket_bytes(&self, direction: Direction, bytes: u64) {
        let [bytes_in, bytes_out] = &self.websocket_bytes;
        match direction {
            Direction::In => bytes_in,
            Direction::Out => bytes_out,
        }
        .inc_by(bytes);
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
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (of_upstreams, of_gates) = &*told;
        for (tier, standing) in gates {
            of_gates.bring_up_to(tier, &standing);
        }
        for (endpoint, upstream) in upstreams {
            of_upstreams.bring_up_to(endpoint, upstream);
            // There before its first failure: a rate needs a zero to rise from.
            self.attempts_failed.with_label_values(&[endpoint]);
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl TierMetrics {
    fn turn_done(&self, outcome: &Outcome) {
        let usage = &outcome.usage;
        self.turn.observe(seconds(outcome.total_ns));
        self.overhead.observe(seconds(outcome.gateway_ns));
        if let Some(queued_ms) = outcome.decision.map(|decision| decision.queued_ms).filter(|ms| *ms > 0) {
            self.queue_wait.observe(f64::from(queued_ms) / 1000.0);
        }
        let times = &outcome.upstream_times;
        let told = [times.queue_ns, times.prompt_ns, times.completion_ns];
        for (phase, ns) in self.upstream_phases.iter().zip(told) {
            ns.into_iter().for_each(|ns| phase.observe(seconds(ns)));
        }
        // What no tier served has no stages to compare.
        let parts = outcome.tier.map(|_| outcome.parts.iter());
        for (stage, (_, ns)) in self.stages.iter().zip(parts.into_iter().flatten()) {
            stage.observe(seconds(ns));
        }
        self.input_tokens.inc_by(usage.input);
        self.cached_tokens.inc_by(usage.cached);
        self.output_tokens.inc_by(usage.output);
        self.deltas.inc_by(outcome.deltas);
        let Some(ttft_ns) = outcome.ttft_ns else { return };
        self.ttft.observe(seconds(ttft_ns));
        if let Some(gaps) = usage.output.checked_sub(1).filter(|gaps| *gaps > 0) {
            self.tpot.observe(seconds(outcome.total_ns.saturating_sub(ttft_ns)) / gaps as f64);
        }
    }
}

/// The families whose only label is the tier.
struct TierFamilies {
    ttft: HistogramVec,
    turn: HistogramVec,
    overhead: HistogramVec,
    queue_wait: HistogramVec,
    tpot: HistogramVec,
    upstream_phases: HistogramVec,
    stages: HistogramVec,
    input_tokens: IntCounterVec,
    cached_tokens: IntCounterVec,
    output_tokens: IntCounterVec,
    deltas: IntCounterVec,
}

impl TierFamilies {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(registry, HistogramVec::new(options, &["tier"])?)
        };
        let split = |name: &str, help: &str, buckets: &[f64], label: &str| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(registry, HistogramVec::new(options, &["tier", label])?)
        };
        let counter = |name: &str, help: &str| counters(registry, name, help, &["tier"]);
        Ok(Self {
            ttft: histogram("flashlane_ttft_seconds", "From a turn's arrival to its first token", TTFT_SECONDS)?,
            turn: histogram("flashlane_turn_seconds", "From a turn's arrival to its end", TURN_SECONDS)?,
            overhead: histogram(
                "flashlane_gateway_overhead_seconds",
                "The time a turn kept flashlane itself busy",
                OVERHEAD_SECONDS,
            )?,
            queue_wait: histogram(
                "flashlane_queue_wait_seconds",
                "How long turns waited for a place, of those that did and were served",
                TTFT_SECONDS,
            )?,
            tpot: histogram(
                "flashlane_output_token_seconds",
                "Mean time between a turn's output tokens, after its first",
                TPOT_SECONDS,
            )?,
            upstream_phases: split(
                "flashlane_upstream_phase_seconds",
                "Where a turn's time went by its engine's own account",
                TTFT_SECONDS,
                "phase",
            )?,
            stages: split(
                "flashlane_turn_stage_seconds",
                "Where a turn's time went: stages whose sum is the turn",
                STAGE_SECONDS,
                "stage",
            )?,
            input_tokens: counter("flashlane_input_tokens_total", "Input tokens, cached ones included")?,
            cached_tokens: counter("flashlane_cached_tokens_total", "Input tokens that the upstream had cached")?,
            output_tokens: counter("flashlane_output_tokens_total", "Output tokens, reasoning included")?,
            deltas: counter("flashlane_deltas_total", "Delta events sent to clients")?,
        })
    }

    fn of(&self, tier: Option<Tier>) -> TierMetrics {
        let value = &[label::tier(tier)];
        TierMetrics {
            ttft: self.ttft.with_label_values(value),
            turn: self.turn.with_label_values(value),
            overhead: self.overhead.with_label_values(value),
            queue_wait: self.queue_wait.with_label_values(value),
            tpot: self.tpot.with_label_values(value),
            upstream_phases: PHASES.map(|phase| self.upstream_phases.with_label_values(&[label::tier(tier), phase])),
            stages: Stage::ALL.map(|stage| self.stages.with_label_values(&[label::tier(tier), stage.name()])),
            input_tokens: self.input_tokens.with_label_values(value),
            cached_tokens: self.cached_tokens.with_label_values(value),
            output_tokens: self.output_tokens.with_label_values(value),
            deltas: self.deltas.with_label_values(value),
        }
    }
}

/// The families whose label is the endpoint.
#[derive(Debug)]
struct UpstreamFamilies {
    opened: IntCounterVec,
    reused: IntCounterVec,
    resent: IntCounterVec,
    idle: IntGaugeVec,
    in_flight: IntGaugeVec,
}

impl UpstreamFamilies {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| counters(registry, name, help, &["endpoint"]);
        let gauge = |name: &str, help: &str| gauges(registry, name, help, &["endpoint"]);
        Ok(Self {
            opened: counter("flashlane_upstream_connections_opened_total", "Connections made to an endpoint")?,
            reused: counter("flashlane_upstream_connections_reused_total", "Turns sent on a connection already open")?,
            resent: counter("flashlane_upstream_requests_resent_total", "Requests sent again on a fresh connection")?,
            idle: gauge("flashlane_upstream_connections_idle", "Connections to an endpoint open and idle now")?,
            in_flight: gauge("flashlane_upstream_turns_in_flight", "Turns running at an endpoint now")?,
        })
    }

    fn bring_up_to(&self, endpoint: &str, upstream: Upstream) {
        for (family, count) in [
            (&self.opened, upstream.connections_opened),
            (&self.reused, upstream.connections_reused),
            (&self.resent, upstream.requests_resent),
        ] {
            let counter = family.with_label_values(&[endpoint]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        for (family, count) in [(&self.idle, upstream.connections_idle), (&self.in_flight, upstream.turns_in_flight)] {
            family.with_label_values(&[endpoint]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// What stands before each tier.
#[derive(Debug)]
struct GateFamilies {
    queued: IntGaugeVec,
    running: IntGaugeVec,
    slots: IntGaugeVec,
    reserved: IntGaugeVec,
    spilled: IntCounterVec,
    changes: IntCounterVec,
    refused: IntCounterVec,
}

impl GateFamilies {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
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

    fn bring_up_to(&self, tier: Tier, standing: &Standing) {
        let name = tier.name();
        for (family, value) in [
            (&self.queued, u64::from(standing.queued)),
            (&self.running, u64::from(standing.in_flight)),
            (&self.slots, standing.slots.map_or(0, u64::from)),
            (&self.reserved, standing.tokens_reserved),
        ] {
            family.with_label_values(&[name]).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        for (family, count) in [(&self.spilled, standing.spilled), (&self.changes, standing.changes)] {
            let counter = family.with_label_values(&[name]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        for (why, count) in Why::ALL.into_iter().zip(standing.refused) {
            let refused = self.refused.with_label_values(&[name, why.label()]);
            refused.inc_by(count.saturating_sub(refused.get()));
        }
    }
}

/// Of prompts that are read for warm-ups: how many, and their tokens.
fn prefills(registry: &Registry) -> Result<[IntCounterVec; 2], prometheus::Error> {
    let read = "Prompts read for warm-ups, before their turns came";
    let tokens = "Tokens that prompts took that were read for warm-ups, of no turn";
    Ok([
        counters(registry, "flashlane_prefills_total", read, &["tier", "outcome"])?,
        counters(registry, "flashlane_prefill_tokens_total", tokens, &["tier", "kind"])?,
    ])
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, family: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome;
    use flashlane_engine::{FailedAttempt, UpstreamFailure};

    fn render(metrics: &Metrics) -> String {
        metrics.render([], []).unwrap()
    }

    #[test]
    fn a_turn_enters_every_family_of_its_tier_once() {
        let metrics = Metrics::new().unwrap();
        metrics.turn_done(&outcome());
        let text = render(&metrics);
        for line in [
            "flashlane_turns_total{outcome=\"completed\",tier=\"latency\"} 1",
            "flashlane_ttft_seconds_sum{tier=\"latency\"} 0.002",
            "flashlane_turn_seconds_sum{tier=\"latency\"} 0.012",
            "flashlane_gateway_overhead_seconds_bucket{tier=\"latency\",le=\"0.00005\"} 1",
            "flashlane_output_token_seconds_sum{tier=\"latency\"} 0.001",
            "flashlane_input_tokens_total{tier=\"latency\"} 100",
            "flashlane_cached_tokens_total{tier=\"latency\"} 60",
            "flashlane_output_tokens_total{tier=\"latency\"} 11",
            "flashlane_deltas_total{tier=\"latency\"} 9",
            "flashlane_queue_wait_seconds_sum{tier=\"latency\"} 0.25",
            "flashlane_turn_stage_seconds_count{stage=\"upstream_ttft\",tier=\"latency\"} 1",
            "flashlane_routes_total{attempt=\"first\",origin=\"sub-agent\",pick=\"affinity\",plan=\"model-route\",tier=\"latency\"} 1",
            "flashlane_upstream_phase_seconds_sum{phase=\"queue\",tier=\"latency\"} 0.0005",
            "flashlane_upstream_phase_seconds_sum{phase=\"completion\",tier=\"latency\"} 0.009",
            "flashlane_turns_total{outcome=\"completed\",tier=\"latency\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("flashlane_errors_total{"), "{text}");
    }

    #[test]
    fn an_endpoint_that_failed_a_turn_is_counted_even_when_another_served_it() {
        let metrics = Metrics::new().unwrap();
        let failure = UpstreamFailure::Silent { waited_ms: 7 };
        let attempts_failed = vec![FailedAttempt::new("wafer-1", &failure), FailedAttempt::new("wafer-1", &failure)];
        metrics.turn_done(&Outcome { attempts_failed, ..outcome() });
        let text = render(&metrics);
        assert!(text.contains("flashlane_upstream_attempts_failed_total{endpoint=\"wafer-1\"} 2"), "{text}");
    }

    #[test]
    fn an_endpoint_that_has_not_failed_yet_is_there_at_zero() {
        let metrics = Metrics::new().unwrap();
        let text = metrics.render([("gpu", Upstream::default())], []).unwrap();
        assert!(text.contains("flashlane_upstream_attempts_failed_total{endpoint=\"gpu\"} 0"), "{text}");
    }

    #[test]
    fn a_turn_without_a_token_has_no_ttft() {
        let metrics = Metrics::new().unwrap();
        let error = Some(ErrorKind::Overloaded);
        metrics.turn_done(&Outcome { tier: None, ttft_ns: None, error, ..outcome() });
        let text = render(&metrics);
        assert!(text.contains("flashlane_ttft_seconds_count{tier=\"none\"} 0"), "{text}");
        assert!(text.contains("flashlane_turn_seconds_count{tier=\"none\"} 1"), "{text}");
        assert!(text.contains("flashlane_errors_total{kind=\"overloaded\"} 1"), "{text}");
    }

    #[test]
    fn an_endpoints_counters_follow_what_it_tells() {
        let metrics = Metrics::new().unwrap();
        let mut upstream = Upstream { connections_opened: 2, turns_in_flight: 1, ..Upstream::default() };
        metrics.render([("gpu", upstream)], []).unwrap();
        (upstream.connections_opened, upstream.turns_in_flight) = (5, 0);
        let text = metrics.render([("gpu", upstream)], []).unwrap();
        assert!(text.contains("flashlane_upstream_connections_opened_total{endpoint=\"gpu\"} 5"), "{text}");
        assert!(text.contains("flashlane_upstream_turns_in_flight{endpoint=\"gpu\"} 0"), "{text}");
    }

    #[test]
    fn a_gates_gauges_and_counters_follow_what_it_tells() {
        let metrics = Metrics::new().unwrap();
        let mut standing = Standing { queued: 3, slots: Some(8), spilled: 2, changes: 1, ..Standing::default() };
        standing.refused[1] = 5;
        metrics.render([], [(Tier::Latency, standing.clone())]).unwrap();
        (standing.queued, standing.spilled) = (0, 7);
        let text = metrics.render([], [(Tier::Latency, standing)]).unwrap();
        for line in [
            "flashlane_queue_turns_waiting{tier=\"latency\"} 0",
            "flashlane_tier_slots{tier=\"latency\"} 8",
            "flashlane_spills_total{tier=\"latency\"} 7",
            "flashlane_limit_changes_total{tier=\"latency\"} 1",
            "flashlane_refusals_total{reason=\"tokens\",tier=\"latency\"} 5",
            "flashlane_refusals_total{reason=\"queue_full\",tier=\"latency\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_connection_counts_until_it_is_dropped() {
        let metrics = Metrics::new().unwrap();
        let connection = metrics.connection(Transport::WebSocket);
        assert!(render(&metrics).contains("flashlane_connections_open{transport=\"websocket\"} 1"));
        drop(connection);
        assert!(render(&metrics).contains("flashlane_connections_open{transport=\"websocket\"} 0"));
    }
}
