//! `[[keys]]`: who may call this server, and what with. Holds digests alone; knows nothing of requests.

use flashlane_engine::admission::{KeyLimits, OwnLimits, PerTier};
use flashlane_engine::router::Digest;
use flashlane_engine::{Owner, Shared, Tier};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// One of `[[keys]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Whose it is, at most 64 bytes. What it stored stays its own for as long as the name does, whatever becomes of its secret. Limits
    /// hold for it, and rules go by it. Unique.
    pub name: String,
    /// SHA-256 of the key in hexadecimal, in a list: of one key, or of two while clients change from the old one to the new. `flashlane
    /// keys digest` prints that of a key that is there already, if it has 20 bytes at least: a shorter one can be guessed from its digest.
    pub sha256: Vec<Digest>,
    /// The models that it may use, by name; the others are not there for it.
    ///
    /// Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// The tiers that it may use. The other is left out of its turns' plans, whatever rules or clients say.
    ///
    /// Default: both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Vec<TierName>>,
    /// Its own in each tier: `{ latency = { requests_per_minute = 60, tokens_per_minute = 200000, turns_max = 4 }, throughput = {
    /// tokens_per_minute = 2000000 } }`. More or less than those of `[limits.*]`, which hold for what it leaves out; `burst_ms` is theirs.
    /// Who is to have no limit where others do gets a number that it cannot reach.
    ///
    /// Default: those of `[limits.*]`, field by field.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: PerTier<KeyLimits>,
}

fn is_default(limits: &PerTier<KeyLimits>) -> bool {
    *limits == PerTier::default()
}

/// The limits that some of the keys have of their own.
pub(crate) fn own_limits(keys: &[KeyConfig]) -> OwnLimits {
    let own = keys.iter().filter(|key| !is_default(&key.limits));
    own.map(|key| (Owner::of_key(&key.name), key.limits.clone())).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TierName {
    Latency,
    Throughput,
}

impl From<TierName> for Tier {
    fn from(name: TierName) -> Self {
        match name {
            TierName::Latency => Self::Latency,
            TierName::Throughput => Self::Throughput,
        }
    }
}

impl KeyConfig {
    /// The one tier that it may use; None: both.
    #[must_use]
    pub fn only(&self) -> Option<Tier> {
        let tiers = self.tiers.as_ref()?;
        Tier::ALL.into_iter().find(|tier| !tiers.is_empty() && tiers.iter().all(|&name| Tier::from(name) == *tier))
    }
}

/// What is known of a caller who was let in.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) owner: Owner,
    /// What the config calls its key; None where no keys are configured.
    pub(crate) key: Option<Arc<str>>,
    /// Which of the key's secrets it showed.
    pub(crate) secret: Option<Digest>,
    /// The config that let it in.
    pub(crate) generation: u64,
    /// The one tier that it may use; None: both.
    pub(crate) only: Option<Tier>,
    /// What it sees of the fleet, and all that sessions share.
    pub(crate) shared: Arc<Shared>,
}

/// All keys. None: whoever reaches the server may use it.
#[derive(Debug)]
pub(crate) struct Keys {
    /// By the beginning of their digests.
    keys: BTreeMap<u64, Vec<(Digest, Caller)>>,
    names: BTreeMap<Owner, Arc<str>>,
    /// By name: those that have any of their own.
    limits: BTreeMap<String, PerTier<KeyLimits>>,
}

impl Keys {
    pub(crate) fn new(configs: &[KeyConfig], shared: &Arc<Shared>, generation: u64) -> Self {
        let mut keys = BTreeMap::<u64, Vec<_>>::new();
        let (mut names, mut limits) = (BTreeMap::new(), BTreeMap::new());
        for config in configs {
            if !is_default(&config.limits) {
                limits.insert(config.name.clone(), config.limits.clone());
            }
            let only = config.only();
            let models = config.models.as_deref();
            let shared = match (models, only) {
                (None, None) => Arc::clone(shared),
                (Some(_), _) | (_, Some(_)) => {
                    let fleet = Arc::new(shared.fleet.narrowed(models, only));
                    Arc::new(Shared { fleet, ..Shared::clone(shared) })
                }
            };
            let (owner, key): (_, Arc<str>) = (Owner::of_key(&config.name), config.name.as_str().into());
            names.insert(owner, Arc::clone(&key));
            for &digest in &config.sha256 {
                let (key, secret, shared) = (Some(Arc::clone(&key)), Some(digest), Arc::clone(&shared));
                let caller = Caller { owner, key, secret, generation, only, shared };
                keys.entry(begin(&digest.0.0)).or_default().push((digest, caller));
            }
        }
        Self { keys, names, limits }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What the config calls the key of an owner.
    pub(crate) fn name(&self, owner: &Owner) -> Option<&str> {
        self.names.get(owner).map(|name| &**name)
    }

    /// What keys may take that have limits of their own, by their names.
    pub(crate) fn limits(&self) -> &BTreeMap<String, PerTier<KeyLimits>> {
        &self.limits
    }

    /// Whose key it is, found as fast among many as among few. Digests that begin alike are compared in constant time. Finding those tells
    /// by its time no more than how a digest begins: nobody can choose a key by its digest, or find one by half of it.
    pub(crate) fn caller(&self, key: &[u8]) -> Option<&Caller> {
        self.of(&Digest(Owner(Sha256::digest(key).into())))
    }

    /// The same of one that is known by its digest.
    pub(crate) fn of(&self, sent: &Digest) -> Option<&Caller> {
        let alike = self.keys.get(&begin(&sent.0.0))?;
        alike.iter().find(|(digest, _)| bool::from(digest.0.0.ct_eq(&sent.0.0))).map(|(_, caller)| caller)
    }
}

fn begin(digest: &[u8; 32]) -> u64 {
    let (begin, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashlane_engine::{Fleet, Settings, seal::Keyring};

    fn config(name: &str, digest: Digest) -> KeyConfig {
        KeyConfig { name: name.to_owned(), sha256: vec![digest], models: None, tiers: None, limits: PerTier::default() }
    }

    fn shared() -> Arc<Shared> {
        let ring = Arc::new(Keyring::new(&[7; 32], &[], 1000).unwrap());
        Arc::new(Shared::new(Settings::default(), Arc::new(Fleet::default()), ring))
    }

    #[test]
    fn a_key_is_found_by_its_whole_digest() {
        let right: [u8; 32] = Sha256::digest("sk-right").into();
        let mut alike = right;
        alike[31] ^= 1;
        // One that begins as the right one's, before and behind it.
        let digest = |bytes| Digest(Owner(bytes));
        let all = [config("before", digest(alike)), config("right", digest(right)), config("behind", digest(alike))];
        let others = (0..100).map(|n| config(&format!("{n}"), digest(Sha256::digest([n]).into())));
        let keys = Keys::new(&all.into_iter().chain(others).collect::<Vec<_>>(), &shared(), 1);
        let owner = |key: &[u8]| keys.caller(key).map(|caller| caller.owner);
        assert_eq!(owner(b"sk-right"), Some(Owner::of_key("right")));
        assert_eq!(owner(&[99]), Some(Owner::of_key("99")));
        assert_eq!(owner(b"sk-wrong"), None);
        assert_eq!(Keys::new(&[config("alike", digest(alike))], &shared(), 1).caller(b"sk-right").map(|_| ()), None);
    }
}
