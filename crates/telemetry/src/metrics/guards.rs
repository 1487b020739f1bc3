//! Of guards: what they said of turns, how long it took them, and what it cost the turns.

use super::Metrics;
use super::buckets::TTFT_SECONDS;
use super::family::{counters, histograms, seconds};
use flashlane_engine::guard::{Guarded, Word};
use flashlane_engine::{Outcome, Stage};
use prometheus::{HistogramVec, IntCounterVec, Registry};

#[derive(Debug)]
pub(super) struct Guards {
    ruled: IntCounterVec,
    took: HistogramVec,
    held: HistogramVec,
}

impl Guards {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let ruled = "What guards said of turns, and what became of the turns";
        let took = "From asking a guard to its word, or to when nobody waited for it any more";
        let held = "What turns waited with their first token for their guard alone";
        Ok(Self {
            ruled: counters(registry, "flashlane_guard_rulings_total", ruled, &["guard", "ruling", "turn"])?,
            took: histograms(registry, "flashlane_guard_seconds", took, &["guard"], TTFT_SECONDS)?,
            held: histograms(registry, "flashlane_guard_hold_seconds", held, &["guard"], TTFT_SECONDS)?,
        })
    }
}

impl Metrics {
    /// A turn has ended whose guard was asked; its name is the config's.
    pub(super) fn guarded(&self, guarded: &Guarded, outcome: &Outcome) {
        let Guards { ruled, took, held } = &self.guards;
        let guard = &*guarded.guard;
        ruled.with_label_values(&[guard, guarded.word.name(), guarded.course.name()]).inc();
        if guarded.word != Word::NotAwaited {
            took.with_label_values(&[guard]).observe(seconds(guarded.took_ns()));
        }
        if outcome.ttft_ns.is_some() {
            held.with_label_values(&[guard]).observe(seconds(outcome.parts.of(Stage::Guard)));
        }
    }
}
