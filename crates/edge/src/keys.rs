//! `[[keys]]`: who may call this server, and what with. Holds digests alone; knows nothing of requests.

use flashlane_engine::router::Digest;
use flashlane_engine::{Owner, Shared, Tier};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// One of `[[keys]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Whose it is: what it stored stays its own for as long as the name does. In logs, rules and the ledger. Unique.
    pub name: String,
    /// SHA-256 of the key, in hexadecimal: of one, or of two while clients change from the old one to the new.
    pub sha256: Vec<Digest>,
    /// The models that it may use, by name. Default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// The tiers that it may use: `"latency"`, `"throughput"`. Default both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Vec<TierName>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
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
    /// The one tier that it may use; None: both.
    pub(crate) only: Option<Tier>,
    /// What it sees of the fleet, and all that sessions share.
    pub(crate) shared: Arc<Shared>,
}

/// All keys. None: whoever reaches the server may use it.
#[derive(Debug)]
pub(crate) struct Keys {
    keys: Vec<(Digest, Caller)>,
}

impl Keys {
    pub(crate) fn new(configs: &[KeyConfig], shared: &Arc<Shared>) -> Self {
        let mut keys = Vec::new();
        for config in configs {
            let only = config.only();
            let models = config.models.as_deref();
            let shared = match (models, only) {
                (None, None) => Arc::clone(shared),
                (Some(_), _) | (_, Some(_)) => {
                    let fleet = Arc::new(shared.fleet.narrowed(models, only));
                    Arc::new(Shared { fleet, ..Shared::clone(shared) })
                }
            };
            let caller = Caller { owner: Owner::of_key(&config.name), only, shared };
            keys.extend(config.sha256.iter().map(|&digest| (digest, caller.clone())));
        }
        Self { keys }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whose key it is. Looks at every key, whichever it is, for the same time.
    pub(crate) fn caller(&self, key: &[u8]) -> Option<&Caller> {
        let sent = Sha256::digest(key);
        let mut found = None;
        for (digest, caller) in &self.keys {
            if bool::from(digest.0.0.as_slice().ct_eq(sent.as_slice())) {
                found = Some(caller);
            }
        }
        found
    }
}
