//! What a turn asks for that wants to start, or to go on with what another endpoint has begun. Knows nothing of places.

use crate::fleet::{EndpointId, Tier};
use crate::router::{Plan, Traits, Unroutable};
use std::sync::Arc;

/// A turn's wish to start.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub model: Arc<str>,
    pub traits: Traits,
    /// Endpoints that already failed this turn.
    pub tried: Vec<EndpointId>,
    /// Taken whatever its load, where the plan has it: its prefix cache holds what this turn goes on from.
    pub prefer: Option<EndpointId>,
    /// Where its client was expected to go, by [`Admission::foresee`].
    pub planned: Option<EndpointId>,
    /// Another endpoint has begun its answer.
    pub goes_on: Option<GoesOn>,
}

/// What a turn needs of an endpoint that is to go on with another's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoesOn {
    /// Where the model is the same. None: at both tiers.
    pub tier: Option<Tier>,
    /// Text stands that it has to go on with.
    pub by_prefill: bool,
    /// Its endpoint serves it still, and an operator wants it elsewhere: nothing has failed.
    pub is_ordered: bool,
}

impl Ticket {
    pub(super) fn needs_prefill(&self) -> bool {
        self.goes_on.is_some_and(|goes_on| goes_on.by_prefill)
    }

    /// Whether an endpoint has failed it.
    pub(super) fn is_of_failure(&self) -> bool {
        !self.tried.is_empty() && !self.goes_on.is_some_and(|goes_on| goes_on.is_ordered)
    }

    pub(super) fn within(&self, plan: Plan) -> Result<Plan, Unroutable> {
        plan.within(self.goes_on.and_then(|goes_on| goes_on.tier))
    }
}
