//! A decision as a value: which endpoint serves a turn, and why. Logged, counted, and shown to the client that asks.

use super::plan::PlanReason;
use crate::fleet::{EndpointId, Fleet, Tier};
use std::fmt::Write as _;

/// Where a turn goes, and why there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub tier: Tier,
    pub endpoint: EndpointId,
    pub plan: PlanReason,
    pub pick: PickReason,
    pub attempt: Attempt,
    pub queued_ms: u32,
}

/// Why this endpoint of its tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PickReason {
    /// It holds what the turn goes on from.
    Affinity,
    /// Of two that were drawn.
    LeastLoaded,
    /// No other could be taken.
    Only,
    /// It failed before, and may be well again: this turn finds out.
    Trial,
    /// All are out, and one is better than none.
    LastResort,
}

impl PickReason {
    pub const ALL: [Self; 5] = [Self::Affinity, Self::LeastLoaded, Self::Only, Self::Trial, Self::LastResort];

    /// The label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Affinity => "affinity",
            Self::LeastLoaded => "least-loaded",
            Self::Only => "only",
            Self::Trial => "trial",
            Self::LastResort => "last-resort",
        }
    }
}

/// What came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attempt {
    /// Nothing: the plan's first tier.
    First,
    /// The tier before had no place, or no endpoint that was well.
    Spill,
    /// Another endpoint failed this turn.
    Retry,
    /// Another endpoint's first token was late.
    Hedge,
}

impl Attempt {
    pub const ALL: [Self; 4] = [Self::First, Self::Spill, Self::Retry, Self::Hedge];

    /// The label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Spill => "spill",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
        }
    }
}

impl Decision {
    /// The value of `x-flashlane-route`: `latency/wafer-1; plan=model-route; pick=affinity; attempt=first; queued_ms=0`.
    #[must_use]
    pub fn header(&self, fleet: &Fleet) -> String {
        let name = fleet.endpoint(self.endpoint).map_or("", |endpoint| &*endpoint.name);
        let mut text = format!("{}/{name}; plan={}", self.tier.name(), self.plan.label());
        if let PlanReason::Rule(number) = self.plan {
            // Writing to a string cannot fail.
            let _ = write!(text, "-{number}");
        }
        let (pick, attempt) = (self.pick.label(), self.attempt.label());
        let _ = write!(text, "; pick={pick}; attempt={attempt}; queued_ms={}", self.queued_ms);
        text
    }
}
