//! The limits that a key has of its own, before those of its tier. Knows no key's name.

use super::limit::Limits;
use super::settings::PerTier;
use crate::fleet::Tier;
use crate::session::Owner;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// What one of `[[keys]]` may take of a tier. What it leaves out is that of `[limits.*]`; what it sets may be more or less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeyLimits {
    /// Turns that it may begin a minute.
    ///
    /// Default: the tier's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens that it may use a minute, input and output together.
    ///
    /// Default: the tier's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Turns that it may have running at once.
    ///
    /// Default: the tier's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns_max: Option<NonZeroU32>,
}

impl KeyLimits {
    /// Whether all is left to the tier.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What holds for the key, where the tier has these limits for all.
    #[must_use]
    pub fn over(self, tier: &Limits) -> Limits {
        let Self { requests_per_minute, tokens_per_minute, turns_max } = self;
        Limits {
            requests_per_minute: requests_per_minute.or(tier.requests_per_minute),
            tokens_per_minute: tokens_per_minute.or(tier.tokens_per_minute),
            turns_max: turns_max.or(tier.turns_max),
            ..*tier
        }
    }
}

/// All keys that have limits of their own. As many as the config names.
pub type OwnLimits = BTreeMap<Owner, PerTier<KeyLimits>>;

/// Those of one tier.
pub(super) fn at(tier: Tier, own: &OwnLimits) -> BTreeMap<Owner, KeyLimits> {
    let at_tier = own.iter().map(|(owner, limits)| (*owner, *limits.of(tier)));
    at_tier.filter(|(_, limits)| !limits.is_none()).collect()
}
