//! Where a turn goes, and why: the tiers that may serve it ([`route`]), and inside a tier the endpoint ([`Router::take`]).
//!
//! ```text
//! Traits --rules--> Plan: tiers in order --the caller's limits--> take(tier): affinity, else the less busy of two --> Pick
//!                                                                    ^                                              |
//!      what endpoints proved to be: health, load, affinity ----------+<---------- give_back(how the turn ended) ----+
//! ```
//!
//! Knows no limits of keys and no queue: whether a turn may start now is admission's to say.

mod affinity;
mod decision;
mod health;
mod load;
mod origin;
mod pick;
mod plan;
mod retry;
mod rules;
mod settings;
mod traits;

pub use decision::{Attempt, Decision, PickReason};
pub use health::{Cause, Change, Standing, Verdict};
pub use load::Load;
pub use origin::{HEADERS, Origin, RequestKind, TIER_HEADER, model_named};
pub use pick::{Pick, Return, Router, Unpicked, Wish};
pub use plan::{Plan, PlanReason, Unroutable, route};
pub use retry::RetryBudget;
pub use rules::{Digest, Rule, When};
pub use settings::Routing;
pub use traits::{Effort, Keys, Media, ServiceTier, SessionKey, Traits};

use crate::fleet::{EndpointId, Fleet, Model, Tier};

/// The tiers that may serve `model`, in order.
pub fn plan<'a>(model: &'a Model, fleet: &'a Fleet) -> impl Iterator<Item = Tier> + 'a {
    model.route.tiers().iter().copied().filter(|&tier| fleet.tier(tier).next().is_some())
}

/// The endpoint of `tier` with the least turns in flight, the first of the config among equals, none of `tried`.
#[must_use]
pub fn pick(
    fleet: &Fleet,
    tier: Tier,
    tried: &[EndpointId],
    in_flight: impl Fn(EndpointId) -> u32,
) -> Option<EndpointId> {
    fleet.tier(tier).map(|(id, _)| id).filter(|id| !tried.contains(id)).min_by_key(|&id| in_flight(id))
}

/// The endpoint that a turn of `model` would go to if nothing else ran: the one to warm up.
#[must_use]
pub fn first(fleet: &Fleet, model: &Model) -> Option<EndpointId> {
    plan(model, fleet).find_map(|tier| pick(fleet, tier, &[], |_| 0))
}

#[cfg(test)]
mod fixture;

#[cfg(test)]
mod tests {
    use super::fixture::{fleet, model};
    use super::*;
    use crate::fleet::Route;

    #[test]
    fn a_plan_names_only_tiers_that_have_endpoints() {
        let fleet = fleet(&[Tier::Throughput]);
        let model = model(Route::LatencyFirst);
        assert_eq!(plan(&model, &fleet).collect::<Vec<_>>(), [Tier::Throughput]);
        assert_eq!(first(&fleet, &model), Some(EndpointId(0)));
    }

    #[test]
    fn the_least_loaded_endpoint_that_was_not_tried_is_picked() {
        let fleet = fleet(&[Tier::Latency, Tier::Throughput, Tier::Throughput, Tier::Throughput]);
        let load = |id: EndpointId| [0, 5, 2, 2].get(usize::from(id.0)).copied().unwrap();
        assert_eq!(pick(&fleet, Tier::Throughput, &[], load), Some(EndpointId(2)));
        assert_eq!(pick(&fleet, Tier::Throughput, &[EndpointId(2), EndpointId(3)], load), Some(EndpointId(1)));
        assert_eq!(pick(&fleet, Tier::Latency, &[EndpointId(0)], load), None);
    }
}
