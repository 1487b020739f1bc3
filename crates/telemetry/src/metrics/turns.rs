//! Of turns: what became of them, how long they took and what they used. Each is counted once, at its end, from its own plain counters.

use super::Metrics;
use super::buckets::{OVERHEAD_SECONDS, STAGE_SECONDS, TPOT_SECONDS, TTFT_SECONDS, TURN_SECONDS};
use super::family::{counters, histograms, seconds};
use super::gaps::GapFamily;
use crate::label;
use flashlane_engine::migration::Reason;
use flashlane_engine::{ErrorKind, Outcome, Stage, Status, Tier};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

/// What an engine does with a turn, in order.
const PHASES: [&str; 3] = ["queue", "prompt", "completion"];

/// What turns came to.
#[derive(Debug)]
pub(super) struct Turns {
    ended: IntCounterVec,
    errors: IntCounterVec,
    routes: IntCounterVec,
    migrations: IntCounterVec,
    gaps: GapFamily,
    /// Indexed as [`Tier::ALL`], then `none`.
    tiers: [TierMetrics; 3],
}

/// One tier's rows, resolved once.
#[derive(Debug)]
struct TierMetrics {
    ttft: Histogram,
    turn: Histogram,
    overhead: Histogram,
    token_overhead: Histogram,
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
    empty: IntCounter,
}

impl Turns {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let tiers = TierFamilies::new(registry)?;
        let errors = "Requests and turns that ended in an error";
        let errors = counters(registry, "flashlane_errors_total", errors, &["kind"])?;
        // There before the first of its kind: a rate needs a zero to rise from.
        for kind in ErrorKind::ALL {
            errors.with_label_values(&[kind.row().label]);
        }
        let migrations = "Answers that were frozen for another endpoint to go on with";
        let migrations = counters(registry, "flashlane_migrations_total", migrations, &["reason", "outcome"])?;
        for reason in Reason::ALL {
            ["spliced", "failed"]
                .iter()
                .for_each(|outcome| drop(migrations.with_label_values(&[reason.name(), outcome])));
        }
        let routes = "Turns that went to an endpoint, by why";
        Ok(Self {
            ended: counters(registry, "flashlane_turns_total", "Turns ended", &["tier", "outcome"])?,
            errors,
            routes: counters(
                registry,
                "flashlane_routes_total",
                routes,
                &["tier", "plan", "pick", "attempt", "origin"],
            )?,
            migrations,
            gaps: GapFamily::new(registry)?,
            tiers: [Some(Tier::Latency), Some(Tier::Throughput), None].map(|tier| tiers.of(tier)),
        })
    }
}

impl Metrics {
    /// A turn has ended: its one entry in every family it belongs to.
    pub fn turn_done(&self, outcome: &Outcome) {
        let turns = &self.turns;
        turns.ended.with_label_values(&[label::tier(outcome.tier), outcome.status.name()]).inc();
        if let Some(kind) = outcome.error {
            self.error(kind);
        }
        self.upstreams.attempts_failed(outcome);
        if outcome.child.as_deref().is_some_and(|of| of.is_branch) {
            self.branch_done(outcome.status);
        }
        if let Some(guarded) = &outcome.guard {
            self.guarded(guarded, outcome);
        }
        outcome.hedge.into_iter().for_each(|hedge| self.hedged(hedge));
        if let Some(decision) = &outcome.decision {
            let (plan, pick, attempt) = (decision.plan.label(), decision.pick.label(), decision.attempt.label());
            let origin = outcome.origin.label();
            turns.routes.with_label_values(&[decision.tier.name(), plan, pick, attempt, origin]).inc();
        }
        for splice in &outcome.splices {
            let outcome = if splice.to.is_some() { "spliced" } else { "failed" };
            turns.migrations.with_label_values(&[splice.reason.name(), outcome]).inc();
        }
        outcome.tier.iter().for_each(|tier| turns.gaps.add(*tier, &outcome.gaps));
        outcome.tier.iter().for_each(|tier| self.read_ahead_used(*tier, outcome.read_ahead));
        let [latency, throughput, none] = &turns.tiers;
        match outcome.tier {
            Some(Tier::Latency) => latency,
            Some(Tier::Throughput) => throughput,
            None => none,
        }
        .turn_done(outcome);
    }

    /// A request was refused before it became a turn. (A turn's own error is counted by [`Self::turn_done`].)
    pub fn error(&self, kind: ErrorKind) {
        self.turns.errors.with_label_values(&[kind.row().label]).inc();
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
        if outcome.deltas > 0 {
            self.token_overhead.observe(seconds(outcome.gateway_ns) / outcome.deltas as f64);
        } else if outcome.status == Status::Completed {
            self.empty.inc();
        }
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
    token_overhead: HistogramVec,
    queue_wait: HistogramVec,
    tpot: HistogramVec,
    upstream_phases: HistogramVec,
    stages: HistogramVec,
    input_tokens: IntCounterVec,
    cached_tokens: IntCounterVec,
    output_tokens: IntCounterVec,
    deltas: IntCounterVec,
    empty: IntCounterVec,
}

impl TierFamilies {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str, buckets: &[f64]| histograms(registry, name, help, &["tier"], buckets);
        let split = |name: &str, help: &str, buckets: &[f64], label: &str| {
            histograms(registry, name, help, &["tier", label], buckets)
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
            token_overhead: histogram(
                "flashlane_gateway_token_overhead_seconds",
                "The time a turn kept flashlane itself busy, for each of its tokens",
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
            empty: counter("flashlane_empty_completions_total", "Turns that completed without a token")?,
        })
    }

    fn of(&self, tier: Option<Tier>) -> TierMetrics {
        let value = &[label::tier(tier)];
        TierMetrics {
            ttft: self.ttft.with_label_values(value),
            turn: self.turn.with_label_values(value),
            overhead: self.overhead.with_label_values(value),
            token_overhead: self.token_overhead.with_label_values(value),
            empty: self.empty.with_label_values(value),
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
