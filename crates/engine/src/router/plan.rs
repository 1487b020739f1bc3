//! The tiers that may serve a turn, in order, and why: the first rule that fits, else what a turn of its kind may expect, within the
//! model's route. Knows nothing of load and health.
//!
//! ```text
//! model's rules -> rules of all models -> sub-agent -> service_tier -> split -> model's route      the first that says something
//!     then x-flashlane-tier, which reorders what that allows, and never adds to it
//!     then what cannot serve the turn is left out: no endpoint, no such input, not so long an input
//! ```

use super::step::Follows;
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

    /// This tier of it alone; all of it, where none is named.
    ///
    /// # Errors
    /// It has no such tier.
    pub fn within(self, tier: Option<Tier>) -> Result<Self, Unroutable> {
        match tier {
            None => Ok(self),
            Some(tier) if self.tiers().contains(&tier) => Ok(Self { route: Route::only(tier), ..self }),
            Some(_) => Err(Unroutable::NoEndpoint),
        }
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
    /// The model's route is split: by what the turn answers.
    Split,
    /// The tier before takes no such input.
    Media,
    /// The input is too long for the tier before.
    Context,
    /// The key may not use the tier before.
    Key,
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
            Self::Split => "split",
            Self::Media => "media",
            Self::Context => "context",
            Self::Key => "key",
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
    /// The key may use none of them.
    Key,
}

/// Plans a turn of `model`.
///
/// # Errors
/// Every tier that the turn's route allows is one that cannot serve it.
pub fn route(fleet: &Fleet, model: &Model, traits: &Traits) -> Result<Plan, Unroutable> {
    let (route, reason) = match ruled(fleet, model, traits) {
        Some((number, route)) => (route, PlanReason::Rule(number)),
        None => preferred(model, traits),
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
            Self::Key => PlanReason::Key,
        }
    }
}

fn ruled(fleet: &Fleet, model: &Model, traits: &Traits) -> Option<(u16, Route)> {
    let rules = model.routing.rules.iter().chain(fleet.rules.iter());
    (1..).zip(rules).find(|(_, rule)| rule.when.fits(traits)).map(|(number, rule)| (number, rule.route))
}

/// Where no rule says otherwise. A sub-agent works while its parent talks: it leaves the fast tier to it, whatever tier the session
/// asks for.
fn preferred(model: &Model, traits: &Traits) -> (Route, PlanReason) {
    let route = model.route;
    let first = match (traits.origin.subagent, traits.service_tier) {
        (true, _) => Some((Tier::Throughput, PlanReason::SubAgent)),
        (false, ServiceTier::Priority | ServiceTier::Fast | ServiceTier::Ultrafast) => {
            Some((Tier::Latency, PlanReason::ServiceTier))
        }
        (false, ServiceTier::Flex) => Some((Tier::Throughput, PlanReason::ServiceTier)),
        (false, ServiceTier::Auto | ServiceTier::Default | ServiceTier::Scale) if model.routing.splits => {
            return (split(traits.follows), PlanReason::Split);
        }
        (false, ServiceTier::Auto | ServiceTier::Default | ServiceTier::Scale) => None,
    };
    match first.and_then(|(tier, reason)| Some((route.led_by(tier)?, reason))) {
        Some((led, reason)) if led != route => (led, reason),
        Some(_) | None => (route, PlanReason::ModelRoute),
    }
}

/// A user's message is thought about by the large model, and what tools gave is acted on by the fast one. Before anything is said, a user is
/// expected to.
fn split(follows: Option<Follows>) -> Route {
    match follows {
        Some(Follows::User) | None => Route::ThroughputFirst,
        Some(Follows::Tool) => Route::LatencyFirst,
    }
}

/// Why a tier cannot serve the turn.
fn unfit(fleet: &Fleet, model: &Model, tier: Tier, traits: &Traits) -> Option<Unroutable> {
    let accepts = model.accepts(tier);
    let modalities = accepts.modalities.as_ref().unwrap_or(&model.modalities);
    // Whether the model itself has room, the session has judged, who knows how its engines count.
    let is_too_long = accepts.context_tokens_max.is_some_and(|max| traits.tokens_input > u64::from(max));
    if traits.origin.only.is_some_and(|only| only != tier) {
        Some(Unroutable::Key)
    } else if fleet.tier(tier).next().is_none() {
        Some(Unroutable::NoEndpoint)
    } else if !traits.media.fits(modalities) {
        Some(Unroutable::Media)
    } else if is_too_long {
        Some(Unroutable::Context)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{fleet, model};
    use super::super::origin::{Origin, RequestKind};
    use super::super::rules::{Digest, Rule, When};
    use super::super::traits::{Effort, Media};
    use super::*;
    use crate::fleet::{Accepts, Modality};
    use crate::session::Owner;
    use std::sync::Arc;

    const BOTH: [Tier; 2] = [Tier::Latency, Tier::Throughput];
    const ROUTES: [Route; 4] = [Route::LatencyFirst, Route::ThroughputFirst, Route::LatencyOnly, Route::ThroughputOnly];

    fn planned(fleet: &Fleet, model: &Model, traits: &Traits) -> (Vec<Tier>, PlanReason) {
        let plan = route(fleet, model, traits).unwrap();
        (plan.tiers().to_vec(), plan.reason)
    }

    fn rule(when: When, route: Route) -> Rule {
        Rule { when, route }
    }

    #[test]
    fn a_turn_that_says_nothing_takes_its_models_route() {
        let fleet = fleet(&BOTH);
        for route in ROUTES {
            let (tiers, reason) = planned(&fleet, &model(route), &Traits::default());
            assert_eq!((tiers.as_slice(), reason), (route.tiers(), PlanReason::ModelRoute));
        }
    }

    #[test]
    fn a_service_tier_says_which_tier_is_the_first() {
        let fleet = fleet(&BOTH);
        for service_tier in ServiceTier::ALL {
            let traits = Traits { service_tier, ..Traits::default() };
            let first = |route| planned(&fleet, &model(route), &traits).0[0];
            let expected = match service_tier {
                ServiceTier::Priority | ServiceTier::Fast | ServiceTier::Ultrafast => BOTH.map(|_| Tier::Latency),
                ServiceTier::Flex => BOTH.map(|_| Tier::Throughput),
                ServiceTier::Auto | ServiceTier::Default | ServiceTier::Scale => BOTH,
            };
            assert_eq!([first(Route::LatencyFirst), first(Route::ThroughputFirst)], expected, "{service_tier:?}");
        }
    }

    #[test]
    fn a_split_model_answers_users_and_tools_at_different_tiers() {
        let fleet = fleet(&BOTH);
        let mut model = model(Route::LatencyFirst);
        model.routing.splits = true;
        let of =
            |follows, service_tier| planned(&fleet, &model, &Traits { follows, service_tier, ..Traits::default() });
        let throughput_first = vec![Tier::Throughput, Tier::Latency];
        for follows in [Some(Follows::User), None] {
            assert_eq!(of(follows, ServiceTier::Auto), (throughput_first.clone(), PlanReason::Split));
        }
        assert_eq!(of(Some(Follows::Tool), ServiceTier::Auto), (BOTH.to_vec(), PlanReason::Split));
        // Who says what it wants has it.
        assert_eq!(of(Some(Follows::User), ServiceTier::Fast), (BOTH.to_vec(), PlanReason::ModelRoute));
        assert_eq!(of(Some(Follows::Tool), ServiceTier::Flex), (throughput_first, PlanReason::ServiceTier));
    }

    #[test]
    fn a_rule_may_look_at_the_step() {
        let when =
            r#"{"when": {"follows": ["user"], "tokens_new_min": 5, "tokens_new_max": 9}, "route": "throughput-only"}"#;
        let rule: Rule = serde_json::from_str(when).unwrap();
        assert!(rule.asks_for_the_step() && !self::rule(When::default(), Route::LatencyOnly).asks_for_the_step());
        let fits = Traits { follows: Some(Follows::User), tokens_new: 5, ..Traits::default() };
        assert!(rule.when.fits(&fits));
        let others = [
            Traits { follows: Some(Follows::Tool), ..fits },
            Traits { follows: None, ..fits },
            Traits { tokens_new: 4, ..fits },
            Traits { tokens_new: 10, ..fits },
        ];
        assert!(others.iter().all(|other| !rule.when.fits(other)));
    }

    #[test]
    fn a_sub_agent_leaves_the_latency_tier_to_its_parent() {
        let (fleet, model) = (fleet(&BOTH), model(Route::LatencyFirst));
        let origin = Origin { subagent: true, ..Origin::default() };
        let traits = Traits { origin, service_tier: ServiceTier::Priority, ..Traits::default() };
        assert_eq!(planned(&fleet, &model, &traits), (vec![Tier::Throughput, Tier::Latency], PlanReason::SubAgent));
    }

    #[test]
    fn what_a_client_says_never_adds_a_tier() {
        let fleet = fleet(&BOTH);
        let wanted = [None, Some(Tier::Latency), Some(Tier::Throughput)];
        let origins =
            wanted.map(|wanted| [false, true].map(|subagent| Origin { subagent, wanted, ..Origin::default() }));
        for (origin, service_tier) in origins.into_iter().flatten().flat_map(|o| ServiceTier::ALL.map(|tier| (o, tier)))
        {
            let traits = Traits { origin, service_tier, ..Traits::default() };
            for only in [Route::LatencyOnly, Route::ThroughputOnly] {
                let (tiers, reason) = planned(&fleet, &model(only), &traits);
                assert_eq!((tiers.as_slice(), reason), (only.tiers(), PlanReason::ModelRoute));
            }
        }
    }

    #[test]
    fn the_header_reorders_what_rules_allow_and_no_more() {
        let mut fleet = fleet(&BOTH);
        let model = model(Route::LatencyFirst);
        let origin = Origin { wanted: Some(Tier::Latency), subagent: true, ..Origin::default() };
        let traits = Traits { origin, ..Traits::default() };
        assert_eq!(planned(&fleet, &model, &traits), (BOTH.to_vec(), PlanReason::Header));
        fleet.rules = [rule(When::default(), Route::ThroughputFirst)].into();
        assert_eq!(planned(&fleet, &model, &traits), (BOTH.to_vec(), PlanReason::Header));
        fleet.rules = [rule(When::default(), Route::ThroughputOnly)].into();
        assert_eq!(planned(&fleet, &model, &traits), (vec![Tier::Throughput], PlanReason::Rule(1)));
    }

    #[test]
    fn the_first_rule_that_fits_decides_the_models_own_before_all_others() {
        let mut fleet = fleet(&BOTH);
        let mut model = model(Route::LatencyFirst);
        let when = |max| When { tokens_input_max: Some(max), ..When::default() };
        model.routing.rules = [rule(when(10), Route::LatencyOnly), rule(when(20), Route::ThroughputOnly)].into();
        fleet.rules = [rule(when(30), Route::ThroughputFirst), rule(when(40), Route::LatencyFirst)].into();
        for (tokens_input, route, reason) in [
            (10, Route::LatencyOnly, PlanReason::Rule(1)),
            (11, Route::ThroughputOnly, PlanReason::Rule(2)),
            (21, Route::ThroughputFirst, PlanReason::Rule(3)),
            (31, Route::LatencyFirst, PlanReason::Rule(4)),
            (41, Route::LatencyFirst, PlanReason::ModelRoute),
        ] {
            let (tiers, why) = planned(&fleet, &model, &Traits { tokens_input, ..Traits::default() });
            assert_eq!((tiers.as_slice(), why), (route.tiers(), reason), "{tokens_input}");
        }
    }

    #[test]
    fn a_rule_needs_every_field_that_it_has() {
        let whole = r#"{"when": {"service_tier": ["priority", "fast"], "effort": ["high"], "subagent": true,
            "request_kind": ["turn"], "media": true, "tokens_input_min": 5, "tokens_input_max": 9, "key": ["a", "b"]}, "route": "latency-only"}"#;
        let rule: Rule = serde_json::from_str(whole).unwrap();
        let origin = Origin { subagent: true, ..Origin::default() };
        let fits = Traits {
            owner: Owner::of_key("b"),
            service_tier: ServiceTier::Fast,
            effort: Some(Effort::High),
            media: Media { image: true, file: false },
            origin,
            tokens_input: 5,
            ..Traits::default()
        };
        assert!(rule.when.fits(&fits));
        let others = [
            Traits { owner: Owner([2; 32]), ..fits },
            Traits { service_tier: ServiceTier::Auto, ..fits },
            Traits { effort: Some(Effort::Low), ..fits },
            Traits { effort: None, ..fits },
            Traits { media: Media::default(), ..fits },
            Traits { origin: Origin { subagent: false, ..origin }, ..fits },
            Traits { origin: Origin { kind: RequestKind::Prewarm, ..origin }, ..fits },
            Traits { tokens_input: 4, ..fits },
            Traits { tokens_input: 10, ..fits },
        ];
        for other in others {
            assert!(!rule.when.fits(&other), "{other:?}");
        }
        assert!(When::default().fits(&others[0]));
        let digest = When { authorization_sha256: Some(vec![Digest(fits.owner)]), ..When::default() };
        assert!(digest.fits(&fits) && !digest.fits(&others[0]));
        let again: Rule = serde_json::from_str(&serde_json::to_string(&rule).unwrap()).unwrap();
        assert_eq!(again, rule);
    }

    #[test]
    fn a_digest_is_64_hexadecimal_digits() {
        let digest = Digest::try_from("AB".repeat(32)).unwrap();
        assert_eq!(digest.0, Owner([0xab; 32]));
        assert_eq!(String::from(digest), "ab".repeat(32));
        for wrong in ["", "ab", &"ab".repeat(33), &"zz".repeat(32), &"+1".repeat(32), &"é".repeat(32)] {
            assert!(Digest::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_tier_that_cannot_read_the_input_is_left_out() {
        let fleet = fleet(&BOTH);
        let mut model = model(Route::LatencyFirst);
        model.modalities = vec![Modality::Text, Modality::Image];
        model.routing.latency = Accepts { modalities: Some(vec![Modality::Text]), context_tokens_max: Some(100) };
        let media = Media { image: true, file: false };
        let image = Traits { media, ..Traits::default() };
        assert_eq!(planned(&fleet, &model, &image), (vec![Tier::Throughput], PlanReason::Media));
        let long = |tokens_input| Traits { tokens_input, ..Traits::default() };
        assert_eq!(planned(&fleet, &model, &long(100)), (BOTH.to_vec(), PlanReason::ModelRoute));
        assert_eq!(planned(&fleet, &model, &long(101)), (vec![Tier::Throughput], PlanReason::Context));
        model.routing.throughput.context_tokens_max = Some(1000);
        assert_eq!(route(&fleet, &model, &long(1001)), Err(Unroutable::Context));
        let file = Traits { media: Media { image: false, file: true }, ..Traits::default() };
        assert_eq!(route(&fleet, &model, &file), Err(Unroutable::Media));
        model.route = Route::ThroughputFirst;
        assert_eq!(planned(&fleet, &model, &image), (vec![Tier::Throughput], PlanReason::ModelRoute));
    }

    #[test]
    fn a_tier_that_the_key_may_not_use_is_left_out() {
        let mut fleet = fleet(&BOTH);
        let mut model = model(Route::LatencyFirst);
        let only = |only| Traits { origin: Origin { only: Some(only), ..Origin::default() }, ..Traits::default() };
        let (latency, throughput) = (only(Tier::Latency), only(Tier::Throughput));
        assert_eq!(planned(&fleet, &model, &latency), (vec![Tier::Latency], PlanReason::ModelRoute));
        assert_eq!(planned(&fleet, &model, &throughput), (vec![Tier::Throughput], PlanReason::Key));
        // Neither a rule nor the client's own wish gives it back.
        fleet.rules = [rule(When::default(), Route::LatencyFirst)].into();
        let wish = Origin { wanted: Some(Tier::Latency), ..throughput.origin };
        let wishing = Traits { origin: wish, ..Traits::default() };
        assert_eq!(planned(&fleet, &model, &wishing), (vec![Tier::Throughput], PlanReason::Key));
        fleet.rules = Arc::default();
        model.route = Route::LatencyOnly;
        assert_eq!(route(&fleet, &model, &throughput), Err(Unroutable::Key));
    }

    #[test]
    fn a_plan_without_the_tier_that_is_named_is_none() {
        let plan = route(&fleet(&BOTH), &model(Route::ThroughputFirst), &Traits::default()).unwrap();
        assert_eq!(plan.within(None), Ok(plan));
        let latency = plan.within(Some(Tier::Latency)).unwrap();
        assert_eq!(latency.tiers(), [Tier::Latency]);
        assert_eq!(latency.within(Some(Tier::Throughput)), Err(Unroutable::NoEndpoint));
    }

    #[test]
    fn a_tier_without_endpoints_is_left_out() {
        let fleet = fleet(&[Tier::Throughput]);
        let plan = planned(&fleet, &model(Route::LatencyFirst), &Traits::default());
        assert_eq!(plan, (vec![Tier::Throughput], PlanReason::ModelRoute));
        let none = route(&fleet, &model(Route::LatencyOnly), &Traits::default());
        assert_eq!(none, Err(Unroutable::NoEndpoint));
    }
}
