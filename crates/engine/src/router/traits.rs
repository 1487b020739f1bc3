//! What a decision looks at: a turn as the rules see it. Small and copied; it holds no text of the turn.

use super::origin::Origin;
use super::step::Follows;
use crate::fleet::{Modality, Tier};
use crate::session::Owner;
use memchr::{memmem, memrchr};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// So many bytes of a conversation without a name tell it from others: beyond the instructions of any agent that is known.
const ROOT_BYTES_MAX: usize = 64 * 1024;

/// A turn as routing sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits {
    pub owner: Owner,
    pub service_tier: ServiceTier,
    /// None: the request names none.
    pub effort: Option<Effort>,
    pub media: Media,
    pub origin: Origin,
    /// No client waits for its answer.
    pub background: bool,
    /// It follows Chat Completions, which not every endpoint speaks.
    pub is_chat: bool,
    pub keys: Keys,
    /// Tokens of the input: counted, or a bound.
    pub tokens_input: u64,
    /// What it answers, where a rule or the model's route asks for that.
    pub follows: Option<Follows>,
    /// Tokens of the input behind the model's last answer: a bound, where a rule asks for that.
    pub tokens_new: u64,
    /// What the request allows its answer, where it says so.
    pub tokens_output_max: Option<u64>,
}

/// How soon a turn wants its tokens beside other turns of the same engine, the most patient first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Urgency {
    /// Nobody looks at its tokens as they come: background responses, sub-agents, `service_tier: "flex"`.
    Patient,
    #[default]
    Ordinary,
    /// Its client asked for speed, by `service_tier` or by the header.
    Urgent,
}

impl Traits {
    /// As routing has it, a background response and a sub-agent leave the way to others whatever tier their session asks for; the header is
    /// a word about this request alone.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        match (self.origin.wanted, self.background || self.origin.subagent, self.service_tier) {
            (Some(Tier::Latency), ..) => Urgency::Urgent,
            (None | Some(Tier::Throughput), true, _) => Urgency::Patient,
            (None | Some(Tier::Throughput), false, tier) => match tier {
                ServiceTier::Priority | ServiceTier::Fast | ServiceTier::Ultrafast => Urgency::Urgent,
                ServiceTier::Flex => Urgency::Patient,
                ServiceTier::Auto | ServiceTier::Default | ServiceTier::Scale => Urgency::Ordinary,
            },
        }
    }
}

/// `service_tier` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceTier {
    #[default]
    Auto,
    Default,
    Flex,
    Priority,
    Fast,
    Ultrafast,
    Scale,
}

impl ServiceTier {
    pub const ALL: [Self; 7] =
        [Self::Auto, Self::Default, Self::Flex, Self::Priority, Self::Fast, Self::Ultrafast, Self::Scale];

    /// As requests write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Default => "default",
            Self::Flex => "flex",
            Self::Priority => "priority",
            Self::Fast => "fast",
            Self::Ultrafast => "ultrafast",
            Self::Scale => "scale",
        }
    }

    /// The tier of that name. None: there is no such.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name)
    }
}

/// `reasoning.effort` of a request, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

impl Effort {
    pub const ALL: [Self; 7] = [Self::None, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::Xhigh, Self::Max];

    /// As requests write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The effort of that name. None: there is no such.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effort| effort.name() == name)
    }
}

/// What the whole input brings beside text, the history included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Media {
    pub image: bool,
    pub file: bool,
}

impl Media {
    #[must_use]
    pub fn is_empty(self) -> bool {
        !self.image && !self.file
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { image: self.image || other.image, file: self.file || other.file }
    }

    /// Whether a model that takes `modalities` can read it.
    #[must_use]
    pub fn fits(self, modalities: &[Modality]) -> bool {
        (!self.image || modalities.contains(&Modality::Image)) && (!self.file || modalities.contains(&Modality::File))
    }
}

/// Where a turn's prefix may be cached: looked up in this order, remembered under both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keys {
    /// The conversation itself: each sub-agent has its own.
    pub thread: Option<SessionKey>,
    /// What conversations of one session share: instructions and tools.
    pub session: Option<SessionKey>,
}

impl Keys {
    pub fn iter(self) -> impl Iterator<Item = SessionKey> {
        let session = self.session.filter(|_| self.session != self.thread);
        self.thread.into_iter().chain(session)
    }
}

/// A name that a client gives to its conversation, as a number: of two owners, the same name is not the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u64);

impl SessionKey {
    #[must_use]
    pub fn new(owner: &Owner, name: &str) -> Self {
        Self::of_bytes(owner, name.as_bytes())
    }

    #[must_use]
    pub fn of_bytes(owner: &Owner, bytes: &[u8]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = owner.0;
        Self(xxh3_64_with_seed(bytes, u64::from_le_bytes([a, b, c, d, e, f, g, h])))
    }

    /// A conversation that has no name, by how it begins: what comes before the model's first answer stays the same from turn to
    /// turn. `messages` are the inside of a `messages` array.
    #[must_use]
    pub fn of_messages(owner: &Owner, messages: &[u8]) -> Self {
        let beginning = messages.get(..ROOT_BYTES_MAX).unwrap_or(messages);
        let end = memmem::find(beginning, b"\"assistant\"").unwrap_or(beginning.len());
        let asked = beginning.get(..end).unwrap_or(beginning);
        // The braces of the answer itself are not a part of it.
        let end = memrchr(b'}', asked).unwrap_or(asked.len());
        Self::of_bytes(owner, asked.get(..end).unwrap_or(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_serde_are_one_list() {
        for tier in ServiceTier::ALL {
            assert_eq!(serde_json::to_string(&tier).unwrap(), format!("\"{}\"", tier.name()));
            assert_eq!(ServiceTier::named(tier.name()), Some(tier));
        }
        for effort in Effort::ALL {
            assert_eq!(serde_json::to_string(&effort).unwrap(), format!("\"{}\"", effort.name()));
            assert_eq!(Effort::named(effort.name()), Some(effort));
        }
        assert_eq!((ServiceTier::named("fastest"), Effort::named("")), (None, None));
    }

    #[test]
    fn urgent_is_who_asks_for_speed_and_patient_whom_nobody_waits_for() {
        let of = |traits: Traits| traits.urgency();
        let tier = |service_tier| Traits { service_tier, ..Traits::default() };
        assert_eq!(of(Traits::default()), Urgency::Ordinary);
        assert_eq!(of(tier(ServiceTier::Fast)), Urgency::Urgent);
        assert_eq!(of(tier(ServiceTier::Flex)), Urgency::Patient);
        let background = Traits { background: true, ..tier(ServiceTier::Priority) };
        assert_eq!(of(background), Urgency::Patient);
        let subagent = Origin { subagent: true, ..Origin::default() };
        assert_eq!(of(Traits { origin: subagent, ..tier(ServiceTier::Priority) }), Urgency::Patient);
        let wanted = Origin { wanted: Some(Tier::Latency), ..subagent };
        assert_eq!(of(Traits { origin: wanted, background: true, ..Traits::default() }), Urgency::Urgent);
    }

    #[test]
    fn a_name_is_another_key_for_another_owner() {
        let owners = [Owner([1; 32]), Owner([2; 32])];
        let [one, other] = owners.map(|owner| SessionKey::new(&owner, "s"));
        assert_ne!(one, other);
        assert_eq!(one, SessionKey::new(&Owner([1; 32]), "s"));
    }

    #[test]
    fn equal_keys_are_one() {
        let key = |name| Some(SessionKey::new(&Owner::default(), name));
        assert_eq!(Keys { thread: key("a"), session: key("a") }.iter().count(), 1);
        assert_eq!(Keys { thread: key("a"), session: key("b") }.iter().count(), 2);
        assert_eq!(Keys { thread: None, session: key("b") }.iter().count(), 1);
    }

    #[test]
    fn a_conversation_without_a_name_is_known_by_how_it_begins() {
        let of = |messages: &str| SessionKey::of_messages(&Owner::default(), messages.as_bytes());
        let first = r#"{"role":"system","content":"s"},{"role":"user","content":"hi"}"#;
        let later = format!(r#"{first},{{"role":"assistant","content":"}} yo"}},{{"role":"user","content":"more"}}"#);
        assert_eq!(of(first), of(&later));
        assert_ne!(of(first), of(&first.replace("hi", "ho")));
        // As another client writes it, its fields in another order.
        let first = r#"{"content": "hi", "role": "user"}"#;
        let later = format!(r#"{first}, {{"content": "yo", "role": "assistant"}}"#);
        assert_eq!(of(first), of(&later));
        let long = "x".repeat(ROOT_BYTES_MAX);
        assert_eq!(of(&long), of(&format!("{long}and more")));
    }
}
