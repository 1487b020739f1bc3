//! Of prompts that are read before their turns come: how many, what they took, and how much of that was of use.

use super::Metrics;
use super::family::counters;
use flashlane_engine::admission::Cause;
use flashlane_engine::{Prefilled, ReadAhead, Tier, Usage};
use prometheus::{IntCounterVec, Registry};

#[derive(Debug)]
pub(super) struct Prefills {
    ended: IntCounterVec,
    tokens: IntCounterVec,
}

impl Prefills {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let read = "Prompts read before their turns came";
        let tokens = "Tokens that prompts took that were read before their turns came, of no turn";
        Ok(Self {
            ended: counters(registry, "flashlane_prefills_total", read, &["tier", "cause", "outcome"])?,
            tokens: counters(registry, "flashlane_prefill_tokens_total", tokens, &["tier", "cause", "kind"])?,
        })
    }
}

impl Metrics {
    /// A prompt was read, or not.
    pub fn prefilled(&self, prefilled: &Prefilled) {
        let (tier, cause) = (prefilled.leave.tier.name(), prefilled.leave.cause.name());
        self.prefills.ended.with_label_values(&[tier, cause, prefilled.end.name()]).inc();
        let Usage { input, cached, output, .. } = prefilled.usage;
        for (kind, tokens) in [("input", input), ("cached", cached), ("output", output)] {
            self.prefills.tokens.with_label_values(&[tier, cause, kind]).inc_by(tokens);
        }
    }

    /// Of what was read, a turn has gone on from so much.
    pub(super) fn read_ahead_used(&self, tier: Tier, ReadAhead(tokens): ReadAhead) {
        for (cause, tokens) in Cause::NAMES.into_iter().zip(tokens).filter(|(_, tokens)| *tokens > 0) {
            self.prefills.tokens.with_label_values(&[tier.name(), cause, "used"]).inc_by(tokens);
        }
    }
}
