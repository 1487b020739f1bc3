//! Of second endpoints that turns were given whose first token was late: what became of them, and what they took beside the turns' own tokens.

use super::Metrics;
use super::family::{counters, registered};
use flashlane_engine::{HedgeCost, HedgeEnd};
use prometheus::{IntCounter, IntCounterVec, Registry};

#[derive(Debug)]
pub(super) struct Hedges {
    ended: IntCounterVec,
    tokens: IntCounter,
}

impl Hedges {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let ended = "Turns whose first token was late, by what became of asking a second endpoint";
        let tokens = "Tokens that a second engine was given to read, in no turn's usage";
        let ended = counters(registry, "flashlane_hedges_total", ended, &["outcome"])?;
        // A share of all is asked for before there is one of each.
        for end in HedgeEnd::ALL {
            ended.with_label_values(&[end.name()]);
        }
        let tokens = registered(registry, IntCounter::new("flashlane_hedge_tokens_total", tokens)?)?;
        Ok(Self { ended, tokens })
    }
}

impl Metrics {
    /// A turn has ended whose first token was late.
    pub(super) fn hedged(&self, hedge: HedgeCost) {
        self.hedges.ended.with_label_values(&[hedge.end.name()]).inc();
        self.hedges.tokens.inc_by(hedge.tokens);
    }
}
