//! Rules: which route a turn takes that is like this or like that. The first that fits decides; where none does, what every turn of
//! its kind may expect ([`super::plan`]).

use super::origin::RequestKind;
use super::traits::{Effort, ServiceTier, Traits};
use crate::fleet::Route;
use crate::session::Owner;
use serde::{Deserialize, Serialize};

/// `[[rules]]` and `[[models.rules]]`: a route for the turns that `when` describes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What a turn must be like, in every field that is there. Empty: every turn is.
    #[serde(default)]
    pub when: When,
    /// The tiers that may serve it, in order.
    pub route: Route,
}

/// What a turn must be like. A list: one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// `service_tier` of the request; without one it is `"auto"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<Vec<ServiceTier>>,
    /// `reasoning.effort` of the request; one without it fits no list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<Vec<Effort>>,
    /// Whether another conversation started this one, as Codex's sub-agents are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subagent: Option<bool>,
    /// What Codex says the request is for: `"turn"`, `"prewarm"`, `"other"`; of other clients all are turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_kind: Option<Vec<RequestKind>>,
    /// Whether there are images or files in the input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<bool>,
    /// At least so many tokens of input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_input_min: Option<u64>,
    /// At most so many tokens of input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_input_max: Option<u64>,
    /// The name of the key in `[[keys]]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<KeyName>>,
    /// SHA-256 of the `Authorization` header, in hexadecimal, where no key is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_sha256: Option<Vec<Digest>>,
}

impl When {
    /// Whether a turn is like this.
    #[must_use]
    pub fn fits(&self, traits: &Traits) -> bool {
        self.service_tier.as_ref().is_none_or(|tiers| tiers.contains(&traits.service_tier))
            && self.effort.as_ref().is_none_or(|efforts| traits.effort.is_some_and(|effort| efforts.contains(&effort)))
            && self.subagent.is_none_or(|wanted| wanted == traits.origin.subagent)
            && self.request_kind.as_ref().is_none_or(|kinds| kinds.contains(&traits.origin.kind))
            && self.media.is_none_or(|wanted| wanted != traits.media.is_empty())
            && self.tokens_input_min.is_none_or(|min| traits.tokens_input >= min)
            && self.tokens_input_max.is_none_or(|max| traits.tokens_input <= max)
            && self.key.as_ref().is_none_or(|keys| keys.iter().any(|key| key.owner == traits.owner))
            && self.authorization_sha256.as_ref().is_none_or(|keys| keys.iter().any(|key| key.0 == traits.owner))
    }
}

/// A key as a config names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "String", into = "String")]
pub struct KeyName {
    pub name: String,
    owner: Owner,
}

impl From<String> for KeyName {
    fn from(name: String) -> Self {
        Self { owner: Owner::of_key(&name), name }
    }
}

impl From<KeyName> for String {
    fn from(key: KeyName) -> Self {
        key.name
    }
}

/// A digest as a config writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub Owner);

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(hex: String) -> Result<Self, Self::Error> {
        const EXPECTED: &str = "expected the 64 hexadecimal digits of a SHA-256";
        let mut owner = Owner::default();
        if hex.len() != 2 * owner.0.len() || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(EXPECTED);
        }
        for (byte, digits) in owner.0.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| EXPECTED)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| EXPECTED)?;
        }
        Ok(Self(owner))
    }
}

impl From<Digest> for String {
    fn from(Digest(owner): Digest) -> Self {
        owner.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
