//! Of prompts that are read for warm-ups, before their turns came: how many, and what they took.

use super::Metrics;
use super::family::counters;
use flashlane_engine::{Prefilled, Usage};
use prometheus::{IntCounterVec, Registry};

#[derive(Debug)]
pub(super) struct Prefills {
    ended: IntCounterVec,
    tokens: IntCounterVec,
}

impl Prefills {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let read = "Prompts read for warm-ups, before their turns came";
        let tokens = "Tokens that prompts took that were read for warm-ups, of no turn";
        Ok(Self {
            ended: counters(registry, "flashlane_prefills_total", read, &["tier", "outcome"])?,
            tokens: counters(registry, "flashlane_prefill_tokens_total", tokens, &["tier", "kind"])?,
        })
    }
}

impl Metrics {
    /// A warm-up's prompt was read, or not.
    pub fn prefilled(&self, prefilled: &Prefilled) {
        let tier = prefilled.leave.tier.name();
        self.prefills.ended.with_label_values(&[tier, prefilled.end.name()]).inc();
        let Usage { input, cached, output, .. } = prefilled.usage;
        for (kind, tokens) in [("input", input), ("cached", cached), ("output", output)] {
            self.prefills.tokens.with_label_values(&[tier, kind]).inc_by(tokens);
        }
    }
}
