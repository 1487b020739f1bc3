//! Rules: which route a turn takes that is like this or like that. The first that fits decides; where none does, what every turn of
//! its kind may expect ([`super::plan`]).

use super::origin::RequestKind;
use super::step::Follows;
use super::traits::{Effort, ServiceTier, Traits};
use crate::fleet::Route;
use crate::session::Owner;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[[rules]]` and `[[models.rules]]`: a route for the turns that `when` describes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What a turn must be like, in every field that is there.
    ///
    /// Default: every turn is.
    #[serde(default)]
    pub when: When,
    /// The tiers that may serve such a turn, in order.
    pub route: Route,
}

/// What a turn must be like. A list: one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// `service_tier` of the request, one of these; `"auto"` where it says none.
    ///
    /// Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<Vec<ServiceTier>>,
    /// `reasoning.effort` of the request, one of these. A request that says none fits no list.
    ///
    /// Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<Vec<Effort>>,
    /// `true`: another conversation started this one, as Codex's sub-agents are.
    ///
    /// Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subagent: Option<bool>,
    /// What Codex says the request is for, one of these. Other clients' requests are turns.
    ///
    /// Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_kind: Option<Vec<RequestKind>>,
    /// `true`: there are images or files in the input, the history included.
    ///
    /// Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<bool>,
    /// At least so many tokens of input: counted where [they had to be](PROTOCOL.md#53-the-length-of-the-input), else a quarter of the
    /// bytes.
    ///
    /// Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_input_min: Option<u64>,
    /// At most so many.
    ///
    /// Default: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_input_max: Option<u64>,
    /// What the turn answers, one of these: `"user"`, the words of a user, or `"tool"`, what tools gave; whichever stands last.
    ///
    /// Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follows: Option<Vec<Follows>>,
    /// At least so many tokens of input behind the model's last answer, at a quarter of their bytes.
    ///
    /// Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_new_min: Option<u64>,
    /// At most so many.
    ///
    /// Default: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_new_max: Option<u64>,
    /// The name of the key in [`[[keys]]`](#keys), one of these.
    ///
    /// Default: anybody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<KeyName>>,
    /// Where no keys are configured: SHA-256 of the `Authorization` header in hexadecimal, as `printf 'Bearer %s' "$KEY" | sha256sum`
    /// prints it, one of these.
    ///
    /// Default: anybody's.
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
            && self
                .follows
                .as_ref()
                .is_none_or(|wanted| traits.follows.is_some_and(|follows| wanted.contains(&follows)))
            && self.tokens_new_min.is_none_or(|min| traits.tokens_new >= min)
            && self.tokens_new_max.is_none_or(|max| traits.tokens_new <= max)
            && self.key.as_ref().is_none_or(|keys| keys.iter().any(|key| key.owner == traits.owner))
            && self.authorization_sha256.as_ref().is_none_or(|keys| keys.iter().any(|key| key.0 == traits.owner))
    }
}

impl Rule {
    /// Whether it has to be known which step of its conversation a turn is.
    #[must_use]
    pub fn asks_for_the_step(&self) -> bool {
        let When { follows, tokens_new_min, tokens_new_max, .. } = &self.when;
        follows.is_some() || tokens_new_min.is_some() || tokens_new_max.is_some()
    }
}

/// A key as a config names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[0-9a-fA-F]{64}$"))]
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
