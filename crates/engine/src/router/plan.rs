//! The tiers that may serve a turn, in order, and why: the first rule that fits, else what a turn of its kind may expect, within the
//! model's route. Knows nothing of load and health.
//!
//! ```text
//! model's rules -> rules of all models -> sub-agent -> service_tier -> model's route      the first that says something
//!     then x-flashlane-tier, which reorders what that allows, and never adds to it
//!     then what cannot serve the turn is left out: no endpoint, no such input, not so long an input
//! ```

use super::traits::{ServiceTier, Traits};
use crate::fleet::{Fleet, Model, Route, Tier};

/// Where a turn may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    route: Route,
    pub reason: PlanReason,
}

impl Plan {
    /// One or two, in the order in which they are to be tried.
    #[must_use]
    pub fn tiers(self) -> &'static [Tier] {
        self.route.tiers()
    }
}

/// Why a plan's first tier is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlanReason {
    ModelRoute,
    /// The rule of this number, from 1: the model's own, then those of all models.
    Rule(u16),
    Header,
    SubAgent,
    ServiceTier,
    /// The tier before takes no such input.
    Media,
    /// The input is too long for the tier before.
    Context,
}

impl PlanReason {
    /// The label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ModelRoute => "model-route",
            Self::Rule(_) => "rule",
            Self::Header => "header",
            Self::SubAgent => "sub-agent",
            Self::ServiceTier => "service-tier",
            Self::Media => "media",
            Self::Context => "context",
        }
    }
}

/// Why no tier may serve a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unroutable {
    /// None of them has an endpoint.
    NoEndpoint,
    /// None of them takes such input.
    Media,
    /// The input is too long for each of them.
    Context,
}

/// Plans a turn of `model`.
///
/// # Errors
/// Every tier that the turn's route allows is one that cannot serve it.
pub fn route(fleet: &Fleet, model: &Model, traits: &Traits) -> Result<Plan, Unroutable> {
    let (route, reason) = match ruled(fleet, model, traits) {
        Some((number, route)) => (route, PlanReason::Rule(number)),
        None => preferred(model.route, traits),
    };
    let (route, reason) = match traits.origin.wanted.and_then(|tier| route.led_by(tier)) {
        Some(led) if led != route => (led, PlanReason::Header),
        Some(_) | None => (route, reason),
    };
    let unfit = |tier: Tier| unfit(fleet, model, tier, traits);
    let (first, second) = route.parts();
    let Some(why) = unfit(first) else {
        let route = if second.is_some_and(|tier| unfit(tier).is_some()) { Route::only(first) } else { route };
        return Ok(Plan { route, reason });
    };
    match second {
        Some(tier) if unfit(tier).is_none() => Ok(Plan { route: Route::only(tier), reason: why.reason(reason) }),
        Some(_) | None => Err(why),
    }
}

impl Unroutable {
    /// Why the tier after it is the first.
    fn reason(self, otherwise: PlanReason) -> PlanReason {
        match self {
            Self::NoEndpoint => otherwise,
            Self::Media => PlanReason::Media,
            Self::Context => PlanReason::Context,
        }
    }
}

fn ruled(fleet: &Fleet, model: &Model, traits: &Traits) -> Option<(u16, Route)> {
    let rules = model.routing.rules.iter().chain(fleet.rules.iter());
    (1..).zip(rules).find(|(_, rule)| rule.when.fits(traits)).map(|(number, rule)| (number, rule.route))
}

/// Where no rule says otherwise. A sub-agent works while its parent talks: it leaves the fast tier to it, whatever tier the session
/// asks for.
fn preferred(route: Route, traits: &Traits) -> (Route, PlanReason) {
    let first = match (traits.origin.subagent, traits.service_tier) {
        (true, _) => Some((Tier::Throughput, PlanReason::SubAgent)),
        (false, ServiceTier::Priority | ServiceTier::Fast | ServiceTier::Ultrafast) => {
            Some((Tier::Latency, PlanReason::ServiceTier))
        }
        (false, ServiceTier::Flex) => Some((Tier::Throughput, PlanReason::ServiceTier)),
        (false, ServiceTier::Auto | ServiceTier::Default | ServiceTier::Scale) => None,
    };
    match first.and_then(|(tier, reason)| Some((route.led_by(tier)?, reason))) {
        Some((led, reason)) if led != route => (led, reason),
        Some(_) | None => (route, PlanReason::ModelRoute),
    }
}

/// Why a tier cannot serve the turn.
fn unfit(fleet: &Fleet, model: &Model, tier: Tier, traits: &Traits) -> Option<Unroutable> {
    let accepts = model.accepts(tier);
    let modalities = accepts.modalities.as_ref().unwrap_or(&model.modalities);
    let tokens_max = accepts.context_tokens_max.unwrap_or(model.context_tokens_max);
    if fleet.tier(tier).next().is_none() {
        Some(Unroutable::NoEndpoint)
    } else if !traits.media.fits(modalities) {
        Some(Unroutable::Media)
    } else if traits.tokens_input > u64::from(tokens_max) {
        Some(Unroutable::Context)
    } else {
        None
    }
}
