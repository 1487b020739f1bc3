//! The parts of the file that say how turns are routed: what a model takes in at one tier, and the rules. Knows nothing of turns.

use super::{ModalityName, ModelConfig, RouteName};
use flashlane_engine::router::{Effort, Routing, Rule};
use flashlane_engine::{Accepts, Fleet, Modality, ModelRouting, Route, Tier};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Of one turn.
pub const MIGRATIONS_MAX: u8 = 8;
/// Rules of one list: each turn asks them in turn.
const RULES_MAX: usize = 256;

/// `latency = { .. }` and `throughput = { .. }` of a model: what it takes in at that tier's endpoints, and how it is to work there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AtTier {
    /// Tokens of input and output together.
    ///
    /// Default: the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub context_tokens_max: Option<u32>,
    /// What it takes in there.
    ///
    /// Default: the model's; at the latency tier text alone, where the throughput tier may serve it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modalities: Option<Vec<ModalityName>>,
    /// What is added to the instructions of the turns that it serves there; `""` is nothing.
    ///
    /// Default: the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions_append: Option<String>,
    /// How hard it thinks there in turns whose request does not say.
    ///
    /// Default: the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
}

/// A field of the part at fault, and what is wrong with it.
type Fault = (String, String);

/// What routing knows of a model with this route.
pub fn of_model(config: &ModelConfig, route: Route, fleet: &Fleet) -> Result<ModelRouting, Fault> {
    check_rules(&config.rules, fleet)?;
    let mut latency = at_tier(config, &config.latency, "latency")?;
    let ruled = config.rules.iter().any(|rule| rule.route.tiers().contains(&Tier::Throughput));
    if route.tiers().contains(&Tier::Throughput) || ruled {
        latency.modalities = latency.modalities.or_else(|| Some(vec![Modality::Text]));
    }
    let throughput = at_tier(config, &config.throughput, "throughput")?;
    let splits = config.route == Some(RouteName::Split);
    if config.hedge && Tier::ALL.into_iter().any(|tier| !reaches(config, route, tier)) {
        let message = "is true, and the model's route has one tier alone: there is none to ask as well".to_owned();
        return Err(("hedge".to_owned(), message));
    }
    let migrations_max = config.migrations_max.unwrap_or(0);
    if migrations_max > MIGRATIONS_MAX {
        let message = format!("is {migrations_max}: expected at most {MIGRATIONS_MAX}");
        return Err(("migrations_max".to_owned(), message));
    }
    let (rules, hedges) = (config.rules.as_slice().into(), config.hedge);
    Ok(ModelRouting { rules, latency, throughput, splits, hedges, migrations_max })
}

/// Whether turns of the model may be served there, by its own route or rules.
fn reaches(config: &ModelConfig, route: Route, tier: Tier) -> bool {
    let ruled = config.rules.iter().map(|rule| rule.route);
    ruled.chain([route]).any(|route| route.tiers().contains(&tier))
}

fn at_tier(config: &ModelConfig, at: &AtTier, field: &str) -> Result<Accepts, Fault> {
    let fault = |name: &str, message: String| (format!("{field}.{name}"), message);
    if let Some(tokens) = at.context_tokens_max
        && !(1..=config.context_tokens_max).contains(&tokens)
    {
        let most = config.context_tokens_max;
        return Err(fault("context_tokens_max", format!("is {tokens}: expected 1 to the model's own, {most}")));
    }
    let modalities: Option<BTreeSet<_>> = at.modalities.as_ref().map(|names| names.iter().copied().collect());
    if let Some(modalities) = &modalities {
        if !modalities.contains(&ModalityName::Text) {
            return Err(fault("modalities", "must have \"text\" in it".to_owned()));
        }
        if let Some(beyond) = modalities.iter().find(|name| !config.modalities.contains(name)) {
            let name = Modality::from(*beyond).name();
            return Err(fault("modalities", format!("has \"{name}\" in it, which the model's own have not")));
        }
    }
    let modalities = modalities.map(|names| names.into_iter().map(Modality::from).collect());
    Ok(Accepts { context_tokens_max: at.context_tokens_max, modalities })
}

/// A route that names a tier without endpoints is a mistake, in a rule as well.
pub fn check_rules(rules: &[Rule], fleet: &Fleet) -> Result<(), Fault> {
    if rules.len() > RULES_MAX {
        return Err(("rules".to_owned(), format!("are {}: expected at most {RULES_MAX}", rules.len())));
    }
    for (i, rule) in rules.iter().enumerate() {
        if let Some(message) = without_endpoint(rule.route, fleet) {
            return Err((format!("rules[{i}].route"), message));
        }
        if rule.when.tokens_input_min > rule.when.tokens_input_max.or(Some(u64::MAX)) {
            let message = "is above tokens_input_max, so that no turn fits".to_owned();
            return Err((format!("rules[{i}].when.tokens_input_min"), message));
        }
        if rule.when.tokens_new_min > rule.when.tokens_new_max.or(Some(u64::MAX)) {
            let message = "is above tokens_new_max, so that no turn fits".to_owned();
            return Err((format!("rules[{i}].when.tokens_new_min"), message));
        }
    }
    Ok(())
}

/// What is wrong with a route in this fleet.
pub fn without_endpoint(route: Route, fleet: &Fleet) -> Option<String> {
    let absent = route.tiers().iter().find(|&&tier| fleet.tier(tier).next().is_none())?.name();
    let expected = format!("expected an [[endpoints]] table with tier = \"{absent}\"");
    Some(format!("names tier {absent}, which has no endpoint: {expected}"))
}

pub fn check(routing: &Routing) -> Result<(), Fault> {
    let (min, max) = (routing.breaker_pause_ms_min, routing.breaker_pause_ms_max);
    if min > max {
        return Err(("breaker_pause_ms_max".to_owned(), format!("is {max}: expected at least the first pause, {min}")));
    }
    let percent = routing.hedge_tokens_percent_max;
    if percent > 100 {
        return Err(("hedge_tokens_percent_max".to_owned(), format!("is {percent}: expected at most 100")));
    }
    Ok(())
}
