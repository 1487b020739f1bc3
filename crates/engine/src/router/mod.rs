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
mod aside;
mod decision;
mod duty;
mod health;
mod hedging;
mod load;
mod origin;
mod pick;
mod plan;
mod retry;
mod rules;
mod settings;
mod step;
mod traits;

pub use decision::{Attempt, Decision, PickReason};
pub use duty::{Duty, Order, WEIGHT_MAX};
pub use health::{Cause, Change, Lately, Standing, Verdict};
pub use hedging::Hedging;
pub use load::Load;
pub use origin::{HEADERS, Origin, RequestKind, TIER_HEADER, TURN_METADATA, model_named};
pub use pick::{Pick, Return, Router, Seen, Unpicked, Wish};
pub use plan::{Plan, PlanReason, Unroutable, route};
pub use retry::RetryBudget;
pub use rules::{Digest, KeyName, Rule, When};
pub use settings::Routing;
pub use step::{Follows, Step};
pub use traits::{Effort, Keys, Media, ServiceTier, SessionKey, Traits, Urgency};

use crate::fleet::{EndpointId, Fleet, Model};

/// The endpoint that a turn of `model` would go to if nothing ran and nothing was known: the one to warm up.
#[must_use]
pub fn first(fleet: &Fleet, model: &Model) -> Option<EndpointId> {
    model.route.tiers().iter().find_map(|&tier| fleet.tier(tier).next()).map(|(id, _)| id)
}

#[cfg(test)]
pub(crate) mod fixture;

#[cfg(test)]
mod tests {
    use super::fixture::{fleet, model};
    use super::*;
    use crate::fleet::{Route, Tier};

    #[test]
    fn the_first_endpoint_is_of_the_first_tier_that_has_any() {
        let model = model(Route::LatencyFirst);
        assert_eq!(first(&fleet(&[Tier::Throughput]), &model), Some(EndpointId(0)));
        assert_eq!(first(&fleet(&[Tier::Throughput, Tier::Latency, Tier::Latency]), &model), Some(EndpointId(1)));
        assert_eq!(first(&fleet(&[]), &model), None);
    }
}
