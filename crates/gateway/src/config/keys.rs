//! `[[keys]]`: what holds for each, between them, and between them and the rest of the file. Knows nothing of secrets: the file holds
//! digests.

use super::check::Fault;
use flashlane_edge::KeyConfig;
use flashlane_engine::router::{Digest, Rule};
use flashlane_engine::{Fleet, Tier};
use std::collections::{BTreeMap, BTreeSet};

/// One in use, and the one that takes its place.
const DIGESTS_MAX: usize = 2;
const NAME_BYTES_MAX: usize = 64;
/// All are in memory, and each reload reads them all.
const KEYS_MAX: usize = 10_000;

/// # Errors
/// The first fault.
pub fn check(keys: &[KeyConfig], fleet: &Fleet) -> Result<(), Fault> {
    if keys.len() > KEYS_MAX {
        return Err(Fault::new("keys", format!("are {}: expected at most {KEYS_MAX}", keys.len())));
    }
    let mut names = BTreeSet::new();
    let mut digests = BTreeMap::new();
    for (i, key) in keys.iter().enumerate() {
        let fault = |field: &str, message: String| Fault::new(format!("keys[{i}].{field}"), message);
        check_name(&key.name).map_err(|message| fault("name", message.to_owned()))?;
        if !names.insert(&key.name) {
            return Err(fault("name", "is used by another key too".to_owned()));
        }
        if key.sha256.is_empty() || key.sha256.len() > DIGESTS_MAX {
            let expected = "expected one digest, or two while clients change from one key to the next";
            return Err(fault("sha256", format!("has {} in it: {expected}", key.sha256.len())));
        }
        for digest in &key.sha256 {
            if let Some(other) = digests.insert(String::from(*digest), &key.name) {
                return Err(fault("sha256", format!("is that of the key \"{other}\" too: each has keys of its own")));
            }
        }
        check_rights(key, fleet).map_err(|(field, message)| fault(field, message))?;
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("must not be empty");
    }
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err("is no name: expected at most 64 bytes without line breaks and the like");
    }
    Ok(())
}

/// What it may use has to be there.
fn check_rights(key: &KeyConfig, fleet: &Fleet) -> Result<(), (&'static str, String)> {
    if let Some(models) = &key.models {
        if models.is_empty() {
            return Err(("models", "is empty: leave it out for all models, or the key for none".to_owned()));
        }
        if let Some(unknown) = models.iter().find(|name| fleet.model(name).is_none()) {
            return Err(("models", format!("names \"{unknown}\", which is no [[models]] table's name")));
        }
    }
    let is_barred = |tier: Tier| key.only().is_some_and(|only| only != tier);
    if let Some(tier) = Tier::ALL.into_iter().find(|tier| is_barred(*tier) && !key.limits.of(*tier).is_none()) {
        let message = format!("has some in tier {}, which this key may not use (tiers)", tier.name());
        return Err(("limits", message));
    }
    let Some(tiers) = &key.tiers else { return Ok(()) };
    if tiers.is_empty() {
        return Err(("tiers", "is empty: leave it out for both tiers, or the key for none".to_owned()));
    }
    if fleet.narrowed(key.models.as_deref(), key.only()).models.is_empty() {
        let only = key.only().map_or("none", Tier::name);
        return Err(("tiers", format!("leaves no model: none that this key may use is routed to {only}")));
    }
    Ok(())
}

/// Rules that speak of keys have to speak of some that are there. `path` is where the list stands.
///
/// # Errors
/// The first fault.
pub fn check_rules(keys: &[KeyConfig], path: &str, rules: &[Rule]) -> Result<(), Fault> {
    for (i, rule) in rules.iter().enumerate() {
        let unknown = rule.when.key.iter().flatten().find(|named| keys.iter().all(|key| key.name != named.name));
        if let Some(unknown) = unknown {
            let message = format!("names \"{}\", which is no [[keys]] table's name", unknown.name);
            return Err(Fault::new(format!("{path}[{i}].when.key"), message));
        }
        let digests: Option<&Vec<Digest>> = rule.when.authorization_sha256.as_ref();
        if digests.is_some() && !keys.is_empty() {
            let message = "is for a server without keys: name the [[keys]] by `key`";
            return Err(Fault::new(format!("{path}[{i}].when.authorization_sha256"), message));
        }
    }
    Ok(())
}
