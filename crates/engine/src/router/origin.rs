//! Where a turn comes from, as its client says: which conversation, of which session, and whether a sub-agent's. Reads headers and
//! `client_metadata`, whose names are Codex's and our own. What cannot be read is as if it were not said: routing refuses nobody.

use super::traits::SessionKey;
use crate::fleet::Tier;
use crate::session::Owner;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Who speaks, in which conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    pub kind: RequestKind,
    /// Another conversation of the same session started this one.
    pub subagent: bool,
    /// The conversation that did.
    pub parent: Option<SessionKey>,
    pub session: Option<SessionKey>,
    pub thread: Option<SessionKey>,
    /// The tier that the client asks for by `x-flashlane-tier`.
    pub wanted: Option<Tier>,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestKind {
    #[default]
    Turn,
    /// Sent before its turn, so that this finds all ready.
    Prewarm,
    /// What a client does beside its turns: compaction, titles.
    Other,
}

/// The header by which a client chooses the tier that is tried first.
pub const TIER_HEADER: &str = "x-flashlane-tier";
const TURN_METADATA: &str = "x-codex-turn-metadata";

/// The headers that tell of an origin, in small letters.
pub const HEADERS: [&str; 6] =
    [TIER_HEADER, TURN_METADATA, "session-id", "thread-id", "x-openai-subagent", "x-codex-parent-thread-id"];

/// A JSON object's fields, each whatever it is.
#[derive(Deserialize)]
struct ClientMetadata<'a> {
    #[serde(borrow, default, rename = "x-codex-turn-metadata")]
    turn: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "session-id")]
    session_id: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "thread-id")]
    thread_id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "x-openai-subagent")]
    subagent: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "x-codex-parent-thread-id")]
    parent: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "x-flashlane-tier")]
    tier: Option<&'a RawValue>,
}

/// What Codex tells of a turn, as a JSON text of its own.
#[derive(Deserialize)]
struct TurnMetadata<'a> {
    #[serde(borrow, default)]
    request_kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    session_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thread_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    parent_thread_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thread_source: Option<&'a RawValue>,
    #[serde(default)]
    subagent_kind: Option<IgnoredAny>,
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A string that says something.
fn text<'a>(raw: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
    let Text(text) = serde_json::from_str(raw?.get()).ok()?;
    Some(text).filter(|text| !text.is_empty())
}

impl Origin {
    /// What a request's or a handshake's headers tell. Names are in small letters; those that tell nothing are passed over.
    #[must_use]
    pub fn of_headers<'a>(owner: &Owner, headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut origin = Self::default();
        let mut said = Said::default();
        for (name, value) in headers.into_iter().filter(|(_, value)| !value.is_empty()) {
            match name {
                TURN_METADATA => origin.read_turn(owner, value),
                TIER_HEADER => said.tier = Some(value.into()),
                "session-id" => said.session = Some(value.into()),
                "thread-id" => said.thread = Some(value.into()),
                "x-openai-subagent" => said.subagent = true,
                "x-codex-parent-thread-id" => said.parent = Some(value.into()),
                _ => {}
            }
        }
        origin.take(owner, said);
        origin
    }

    /// The same, where a request's own `client_metadata` (raw JSON) tells more or otherwise.
    #[must_use]
    pub fn with_client_metadata(mut self, owner: &Owner, raw: &str) -> Self {
        let Ok(metadata) = serde_json::from_str::<ClientMetadata<'_>>(raw) else { return self };
        if let Some(turn) = text(metadata.turn) {
            self.read_turn(owner, &turn);
        }
        let said = Said {
            session: text(metadata.session_id),
            thread: text(metadata.thread_id),
            parent: text(metadata.parent),
            tier: text(metadata.tier),
            subagent: text(metadata.subagent).is_some(),
        };
        self.take(owner, said);
        self
    }

    fn read_turn(&mut self, owner: &Owner, raw: &str) {
        let Ok(turn) = serde_json::from_str::<TurnMetadata<'_>>(raw) else { return };
        match text(turn.request_kind).as_deref() {
            Some("turn") => self.kind = RequestKind::Turn,
            Some("prewarm") => self.kind = RequestKind::Prewarm,
            Some(_) => self.kind = RequestKind::Other,
            None => {}
        }
        let is_subagent = text(turn.thread_source).as_deref() == Some("subagent");
        let said = Said {
            session: text(turn.session_id),
            thread: text(turn.thread_id),
            parent: text(turn.parent_thread_id),
            tier: None,
            subagent: is_subagent || turn.subagent_kind.is_some(),
        };
        self.take(owner, said);
    }

    fn take(&mut self, owner: &Owner, said: Said<'_>) {
        let key = |name: Option<Cow<'_, str>>| name.map(|name| SessionKey::new(owner, &name));
        self.session = key(said.session).or(self.session);
        self.thread = key(said.thread).or(self.thread);
        self.parent = key(said.parent).or(self.parent);
        // A child has a parent, and is no conversation of the user's own.
        self.subagent |= said.subagent || self.parent.is_some();
        let wanted = said.tier.and_then(|name| Tier::ALL.into_iter().find(|tier| tier.name() == name));
        self.wanted = wanted.or(self.wanted);
    }
}

/// The model that a handshake's `x-codex-turn-metadata` names, before any request does.
#[must_use]
pub fn model_named(turn_metadata: &str) -> Option<String> {
    let turn: TurnMetadata<'_> = serde_json::from_str(turn_metadata).ok()?;
    text(turn.model).map(Cow::into_owned)
}

/// The names that one source tells.
#[derive(Default)]
struct Said<'a> {
    session: Option<Cow<'a, str>>,
    thread: Option<Cow<'a, str>>,
    parent: Option<Cow<'a, str>>,
    tier: Option<Cow<'a, str>>,
    subagent: bool,
}
