//! Where a turn comes from, as its client says: which conversation, of which session, and whether a sub-agent's. Reads headers and
//! `client_metadata`, whose names are Codex's and our own. What cannot be read is as if it were not said: routing refuses nobody.

use super::traits::{Keys, SessionKey};
use crate::fleet::Tier;
use crate::session::Owner;
use schemars::JsonSchema;
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
    /// The one tier that its key may use; None: both.
    pub only: Option<Tier>,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize, Serialize, JsonSchema)]
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
/// The header in which Codex tells of a turn, and of the model that it will ask for.
pub const TURN_METADATA: &str = "x-codex-turn-metadata";

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

    /// Where its prefix may be cached. `cache_key` is what a request has named so.
    #[must_use]
    pub fn keys(self, cache_key: Option<SessionKey>) -> Keys {
        Keys { thread: self.thread, session: cache_key.or(self.session) }
    }

    /// The label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match (self.kind, self.subagent) {
            (RequestKind::Prewarm, _) => "prewarm",
            (RequestKind::Turn | RequestKind::Other, true) => "sub-agent",
            (RequestKind::Turn | RequestKind::Other, false) => "turn",
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const OWNER: Owner = Owner([5; 32]);
    const WEBSOCKET: &str = include_str!("../../../../proto/codex-0.169.0/ws-ordinary.jsonl");
    const SUBAGENT: &str = include_str!("../../../../proto/codex-0.169.0/ws-subagent.jsonl");
    const HTTP: &str = include_str!("../../../../proto/codex-0.169.0/http-ordinary.jsonl");

    fn key(name: &str) -> Option<SessionKey> {
        Some(SessionKey::new(&OWNER, name))
    }

    /// What Codex sent: its first head's headers, and each request's `client_metadata`.
    fn sent(recording: &str) -> (Vec<(String, String)>, Vec<String>) {
        let lines: Vec<Value> = recording.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let headers = lines.iter().find_map(|line| line["head"]["headers"].as_object()).unwrap();
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        let metadata =
            lines.iter().filter(|line| line["from"] == "client").map(|line| &line["frame"]["client_metadata"]);
        (headers, metadata.filter(|metadata| metadata.is_object()).map(Value::to_string).collect())
    }

    fn of_headers(headers: &[(String, String)]) -> Origin {
        Origin::of_headers(&OWNER, headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    #[test]
    fn codex_says_its_session_in_the_handshake_and_in_each_request() {
        let (headers, metadata) = sent(WEBSOCKET);
        let session = key("00000000-0000-7000-8000-000000000002");
        let handshake = of_headers(&headers);
        assert_eq!(handshake, Origin { kind: RequestKind::Prewarm, session, thread: session, ..Origin::default() });
        let requests: Vec<_> = metadata.iter().map(|raw| Origin::default().with_client_metadata(&OWNER, raw)).collect();
        let kinds: Vec<_> = requests.iter().map(|origin| origin.kind).collect();
        assert_eq!(kinds, [RequestKind::Prewarm, RequestKind::Turn, RequestKind::Turn]);
        assert!(requests.iter().all(|origin| origin.session == session && !origin.subagent));
        let turn = handshake.with_client_metadata(&OWNER, &metadata[1]);
        assert_eq!(turn.kind, RequestKind::Turn);
    }

    #[test]
    fn codex_says_whose_sub_agent_it_is() {
        let (parent, child) =
            (key("00000000-0000-7000-8000-000000000002"), key("00000000-0000-7000-8000-000000000004"));
        let of_child = Origin { session: parent, thread: child, parent, subagent: true, ..Origin::default() };
        let mut heads = SUBAGENT.lines().filter(|line| line.contains("x-openai-subagent") && line.contains("\"head\""));
        let (headers, _) = sent(heads.next_back().unwrap());
        assert_eq!(of_headers(&headers), Origin { kind: RequestKind::Prewarm, ..of_child });
        let (_, metadata) = sent(SUBAGENT);
        let origins = metadata.iter().map(|raw| Origin::default().with_client_metadata(&OWNER, raw));
        let turns: Vec<_> = origins.filter(|origin| origin.kind == RequestKind::Turn).collect();
        assert_eq!(turns.iter().filter(|origin| **origin == of_child).count(), 1);
        assert_eq!(turns.iter().filter(|origin| !origin.subagent && origin.thread == parent).count(), 3);
    }

    #[test]
    fn an_origin_is_one_of_three_labels() {
        let of = |kind, subagent| Origin { kind, subagent, ..Origin::default() }.label();
        let kinds = [RequestKind::Turn, RequestKind::Prewarm, RequestKind::Other];
        assert_eq!(kinds.map(|kind| of(kind, false)), ["turn", "prewarm", "turn"]);
        assert_eq!(kinds.map(|kind| of(kind, true)), ["sub-agent", "prewarm", "sub-agent"]);
    }

    #[test]
    fn codex_says_the_same_over_http() {
        let (headers, metadata) = sent(HTTP);
        let session = key("00000000-0000-7000-8000-000000000001");
        let origin = of_headers(&headers);
        assert_eq!(origin, Origin { session, thread: session, ..Origin::default() });
        assert_eq!(Origin::default().with_client_metadata(&OWNER, &metadata[0]), origin);
    }

    #[test]
    fn a_handshake_names_the_model_before_any_request() {
        let (headers, _) = sent(WEBSOCKET);
        let (_, metadata) = headers.iter().find(|(name, _)| name == TURN_METADATA).unwrap();
        assert_eq!(model_named(metadata).as_deref(), Some("gpt-5.5"));
        assert_eq!(model_named("{}"), None);
        assert_eq!(model_named("no json"), None);
    }

    #[test]
    fn a_sub_agent_is_told_by_any_of_its_marks() {
        let marks: [&[(&str, &str)]; 5] = [
            &[("x-openai-subagent", "collab_spawn")],
            &[("x-codex-parent-thread-id", "p")],
            &[(TURN_METADATA, r#"{"thread_source":"subagent"}"#)],
            &[(TURN_METADATA, r#"{"subagent_kind":{"any":"thing"}}"#)],
            &[(TURN_METADATA, r#"{"parent_thread_id":"p"}"#)],
        ];
        for mark in marks {
            let origin = Origin::of_headers(&OWNER, mark.iter().copied());
            assert!(origin.subagent, "{mark:?}");
            let metadata = serde_json::to_string(&mark.iter().copied().collect::<std::collections::BTreeMap<_, _>>());
            assert_eq!(Origin::default().with_client_metadata(&OWNER, &metadata.unwrap()), origin, "{mark:?}");
        }
        let parent = Origin::of_headers(&OWNER, [("x-codex-parent-thread-id", "p"), ("thread-id", "c")]);
        assert_eq!((parent.parent, parent.thread), (key("p"), key("c")));
        for none in [("x-openai-subagent", ""), (TURN_METADATA, r#"{"thread_source":"user","subagent_kind":null}"#)] {
            assert!(!Origin::of_headers(&OWNER, [none]).subagent, "{none:?}");
        }
    }

    #[test]
    fn the_header_that_asks_for_a_tier_names_one() {
        let wanted = |value| Origin::of_headers(&OWNER, [(TIER_HEADER, value)]).wanted;
        assert_eq!(wanted("latency"), Some(Tier::Latency));
        assert_eq!(wanted("throughput"), Some(Tier::Throughput));
        assert_eq!((wanted("fast"), wanted("")), (None, None));
        let origin = Origin { wanted: Some(Tier::Latency), ..Origin::default() };
        let other = origin.with_client_metadata(&OWNER, r#"{"x-flashlane-tier":"throughput"}"#);
        assert_eq!(other.wanted, Some(Tier::Throughput));
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        let origin = Origin { session: key("s"), ..Origin::default() };
        for raw in [
            "",
            "7",
            "[]",
            "{",
            r#"{"session_id":"","thread_id":"","x-openai-subagent":""}"#,
            r#"{"session_id":7,"thread_id":null,"x-codex-turn-metadata":"{{"}"#,
        ] {
            assert_eq!(origin.with_client_metadata(&OWNER, raw), origin, "{raw}");
        }
        let some = r#"{"session_id":["x"],"thread_id":"t","x-codex-turn-metadata":{"request_kind":"prewarm"}}"#;
        let read = origin.with_client_metadata(&OWNER, some);
        assert_eq!((read.session, read.thread, read.kind), (key("s"), key("t"), RequestKind::Turn));
        let other = r#"{"x-codex-turn-metadata":"{\"request_kind\":\"compact\"}"}"#;
        assert_eq!(origin.with_client_metadata(&OWNER, other).kind, RequestKind::Other);
    }
}
