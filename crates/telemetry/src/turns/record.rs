//! One turn that has ended, as it is kept and shown: words and numbers, no text of the turn. Its JSON is what the admin listener answers.

use flashlane_engine::guard as engine;
use flashlane_engine::migration::Splice;
use flashlane_engine::router::SessionKey;
use flashlane_engine::trace::Trace;
use flashlane_engine::{Attempted, Outcome, Stage, Step, hex};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Most attempts of one turn that are kept.
const ATTEMPTS_MAX: usize = 16;
/// The most of an attempt's failure that is kept, in bytes.
const FAILURE_BYTES_MAX: usize = 256;

/// A word of a closed set, as in metrics and logs.
type Word = Cow<'static, str>;

/// A name that many records share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(pub Arc<str>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self(name.into()))
    }
}

/// Whose turn it was.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    /// `x-request-id` of the HTTP answer, or of the WebSocket's handshake.
    pub request_id: &'a Arc<str>,
    /// The name of the caller's key.
    pub key: Option<&'a Arc<str>>,
    /// The beginning of the digest of whose state it saw.
    pub owner: u64,
}

/// A turn that has ended. Times are microseconds; those that end in `at_us` count from its beginning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    /// From 1, in the order in which turns ended.
    pub number: u64,
    pub request_id: Name,
    /// Empty: it was refused before it was a turn.
    pub response_id: String,
    /// Since 1970.
    pub began_unix_us: u64,
    /// The name of the caller's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Name>,
    /// The beginning of a digest of whose state it saw, in hexadecimal.
    pub owner: String,
    pub model: Name,
    pub status: Word,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Word>,
    /// Where it was served, and why there. None: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// It was served by what only plays a model.
    pub simulated: bool,
    /// Its first place among those that waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queued>,
    /// Each request that went out for it, in order.
    pub attempts: Vec<Tried>,
    /// Its first token was late: what became of asking a second endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// Where another endpoint went on with what one had begun, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splices: Vec<Spliced>,
    /// What came of asking its model's guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Box<Guarded>>,
    /// When its stages began, in order.
    pub steps: Vec<Stepped>,
    /// What its stages took together, less flashlane's own work, which is in `gateway`. Adds up to the whole.
    pub parts: Vec<Part>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_us: Option<u64>,
    pub total_us: u64,
    /// flashlane's own work, whatever the stage.
    pub gateway_us: u64,
    pub tokens: Tokens,
    /// A digest of the client's session, as in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    pub subagent: bool,
    /// Whose child it is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<Box<ChildOf>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools_not_forwarded: Vec<Word>,
    /// Where turns are traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Box<Traced>>,
}

/// A place in an answer where another endpoint went on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spliced {
    pub from: Name,
    /// None: nobody went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Name>,
    pub reason: Word,
    /// Of the item that was being made, and how many bytes of it stood.
    pub output_index: u32,
    pub bytes: u64,
    /// Why the tokens behind it may not be those that the first would have given. None: they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inexact: Option<Word>,
}

/// A child's name, and the response that asked for it: PROTOCOL clause 14.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildOf {
    pub name: Name,
    pub parent: Name,
}

/// Its place in a trace: W3C's ids, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    pub trace_id: String,
    pub span_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    pub is_sampled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Name>,
}

impl Traced {
    fn new(trace: &Trace) -> Self {
        Self {
            trace_id: hex(trace.id.to_be_bytes()),
            span_id: hex(trace.span.to_be_bytes()),
            parent_span_id: trace.parent.map(|parent| hex(parent.to_be_bytes())),
            is_sampled: trace.is_sampled,
            state: trace.state.as_ref().map(|state| Name(Arc::clone(state))),
        }
    }
}

/// Where a turn went, and why there: docs/ROUTING.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub tier: Word,
    pub endpoint: Name,
    pub plan: Word,
    pub pick: Word,
    pub attempt: Word,
    pub queued_ms: u32,
}

/// A place among those that waited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    pub tier: Word,
    /// 1: the next.
    pub place: u32,
}

/// A request that went out for the turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    #[serde(flatten)]
    pub route: Route,
    /// The model's name there.
    pub model: Name,
    pub began_at_us: u64,
    pub ended_at_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Another endpoint, asked as well, gave the first token.
    #[serde(default, skip_serializing_if = "is_false")]
    pub outrun: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(is: &bool) -> bool {
    !is
}

/// A second endpoint beside the one where the first token was late: docs/ROUTING.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hedge {
    pub outcome: Word,
    /// What it was given to read beside the turn's own tokens.
    pub tokens: u64,
}

/// A guard that was asked, beside the turn's stages: docs/PROTOCOL.md, clause 13.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    pub name: Name,
    pub ruling: Word,
    /// What became of the turn by it.
    pub turn: Word,
    pub asked_at_us: u64,
    /// Until its word came, or nobody waited for it any more.
    pub took_us: u64,
    /// Why there is no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A stage that began: docs/PROTOCOL.md, 3.9.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stepped {
    pub stage: Word,
    pub at_us: u64,
}

/// What a stage took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub stage: Word,
    pub us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub reasoning: u64,
}

impl TurnRecord {
    /// The record of a turn that ended at `ended_unix_us`. Its number is not known yet.
    #[must_use]
    pub fn new(outcome: &Outcome, whose: Whose<'_>, ended_unix_us: u64) -> Self {
        let total_us = outcome.total_ns / 1000;
        let since = |ns: u64| ns.saturating_sub(outcome.began_ns) / 1000;
        let route = outcome.decision.zip(outcome.endpoint.as_ref());
        let tried = |of: &Attempted| Tried {
            route: Route::new(of.decision, &of.endpoint),
            model: Name(Arc::clone(&of.model)),
            began_at_us: since(of.began_ns),
            ended_at_us: of.ended_ns.map_or(total_us, since),
            failure: of.failure.as_deref().map(|failure| start(failure, FAILURE_BYTES_MAX).to_owned()),
            outrun: of.is_outrun,
        };
        let spliced = |of: &Splice| Spliced {
            from: Name(Arc::clone(&of.from)),
            to: of.to.clone().map(Name),
            reason: of.reason.name().into(),
            output_index: of.output_index,
            bytes: of.bytes,
            inexact: of.exactness.why().map(Into::into),
        };
        let stepped = |step: &Step| Stepped { stage: step.stage.name().into(), at_us: since(step.at_ns) };
        let guarded = |of: &engine::Guarded| Guarded {
            name: Name(Arc::clone(&of.guard)),
            ruling: of.word.name().into(),
            turn: of.course.name().into(),
            asked_at_us: since(of.asked_ns),
            took_us: of.took_ns() / 1000,
            reason: of.reason.as_deref().map(|reason| start(reason, FAILURE_BYTES_MAX).to_owned()),
        };
        let parts = outcome.parts.iter().filter(|(_, ns)| *ns > 0);
        let digest = |SessionKey(key)| hex(key.to_be_bytes());
        Self {
            number: 0,
            request_id: Name(Arc::clone(whose.request_id)),
            response_id: outcome.response_id.clone(),
            began_unix_us: ended_unix_us.saturating_sub(total_us),
            key: whose.key.map(|key| Name(Arc::clone(key))),
            owner: hex(whose.owner.to_be_bytes()),
            model: Name(Arc::clone(&outcome.model)),
            status: outcome.status.name().into(),
            error: outcome.error.map(|kind| kind.row().label.into()),
            route: route.map(|(decision, endpoint)| Route::new(decision, endpoint)),
            simulated: outcome.simulated,
            queue: outcome.place.map(|place| Queued { tier: place.tier.name().into(), place: place.number }),
            attempts: outcome.attempts.iter().take(ATTEMPTS_MAX).map(tried).collect(),
            hedge: outcome.hedge.map(|hedge| Hedge { outcome: hedge.end.name().into(), tokens: hedge.tokens }),
            splices: outcome.splices.iter().map(spliced).collect(),
            guard: outcome.guard.as_deref().map(|guard| Box::new(guarded(guard))),
            steps: outcome.steps.iter().map(stepped).collect(),
            parts: parts.map(|(stage, ns)| Part { stage: stage.name().into(), us: ns / 1000 }).collect(),
            ttft_us: outcome.ttft_ns.map(|ns| ns / 1000),
            total_us,
            gateway_us: outcome.gateway_ns / 1000,
            tokens: Tokens {
                input: outcome.usage.input,
                cached: outcome.usage.cached,
                output: outcome.usage.output,
                reasoning: outcome.usage.reasoning,
            },
            session: outcome.session.map(digest),
            parent: outcome.origin.parent.map(digest),
            subagent: outcome.origin.subagent,
            child: outcome
                .child
                .as_deref()
                .map(|of| Box::new(ChildOf { name: Name(Arc::clone(&of.name)), parent: Name(Arc::clone(&of.parent)) })),
            tools_not_forwarded: outcome.hosted_tools.iter().map(|&kind| kind.into()).collect(),
            trace: outcome.trace.as_deref().map(|trace| Box::new(Traced::new(trace))),
        }
    }

    /// Whether it is of this request or response.
    #[must_use]
    pub fn has_id(&self, id: &str) -> bool {
        !id.is_empty() && (*self.request_id.0 == *id || self.response_id == id)
    }

    /// Each step with its end: where the next one begins, or the turn's end.
    pub fn spans(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        let ends = self.steps.iter().skip(1).map(|step| step.at_us).chain([self.total_us]);
        self.steps.iter().zip(ends).map(|(step, end_us)| (&*step.stage, step.at_us, end_us.max(step.at_us)))
    }

    /// What a stage took, less flashlane's own work.
    #[must_use]
    pub fn part_us(&self, stage: Stage) -> u64 {
        self.parts.iter().find(|part| part.stage == stage.name()).map_or(0, |part| part.us)
    }
}

impl Route {
    fn new(decision: flashlane_engine::router::Decision, endpoint: &Arc<str>) -> Self {
        Self {
            tier: decision.tier.name().into(),
            endpoint: Name(Arc::clone(endpoint)),
            plan: decision.plan.label().into(),
            pick: decision.pick.label().into(),
            attempt: decision.attempt.label().into(),
            queued_ms: decision.queued_ms,
        }
    }
}

/// The beginning of a text, of at most so many bytes.
fn start(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attempted, outcome};
    use flashlane_engine::{HedgeCost, HedgeEnd};

    fn record(outcome: &Outcome) -> TurnRecord {
        let (id, key) = ("req_1".into(), "partner".into());
        TurnRecord::new(outcome, Whose { request_id: &id, key: Some(&key), owner: 0xabab }, 1_700_000_000_012_000)
    }

    #[test]
    fn a_record_tells_where_when_and_why_and_is_read_back_as_it_was() {
        let step = |stage, at_ns| Step { stage, at_ns };
        let steps = vec![step(Stage::Validate, 1_000_000_000), step(Stage::Connect, 1_001_000_000)];
        let attempts = vec![attempted(Some("silent for 7 ms")), Attempted { ended_ns: None, ..attempted(None) }];
        let record = record(&Outcome { steps, attempts, ..outcome() });
        assert_eq!(
            (record.began_unix_us, record.total_us, record.ttft_us),
            (1_700_000_000_000_000, 12_000, Some(2_000))
        );
        assert_eq!(record.owner, "000000000000abab");
        assert_eq!(record.spans().collect::<Vec<_>>(), [("validate", 0, 1_000), ("connect", 1_000, 12_000)]);
        let [failed, served] = &record.attempts[..] else { panic!("two attempts") };
        assert_eq!(
            (failed.began_at_us, failed.ended_at_us, failed.failure.as_deref()),
            (1_000, 4_000, Some("silent for 7 ms"))
        );
        assert_eq!((served.ended_at_us, &served.failure, &*served.model.0), (12_000, &None, "demo-large"));
        let json = serde_json::to_string(&record).unwrap();
        assert!(
            json.contains(r#""route":{"tier":"latency","endpoint":"wafer-1","plan":"model-route","pick":"affinity""#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<TurnRecord>(&json).unwrap(), record);
    }

    #[test]
    fn a_second_endpoint_and_who_was_outrun_are_in_it() {
        let hedge = Some(HedgeCost { end: HedgeEnd::Won, tokens: 40 });
        let attempts = vec![Attempted { is_outrun: true, ..attempted(None) }, attempted(None)];
        let record = record(&Outcome { hedge, attempts, ..outcome() });
        assert_eq!(record.hedge, Some(Hedge { outcome: "won".into(), tokens: 40 }));
        assert_eq!(record.attempts.iter().map(|tried| tried.outrun).collect::<Vec<_>>(), [true, false]);
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(json.matches("outrun").count(), 1, "{json}");
        assert_eq!(serde_json::from_str::<TurnRecord>(&json).unwrap(), record);
    }

    #[test]
    fn what_came_of_asking_a_guard_is_in_it() {
        let guarded = engine::Guarded {
            guard: "policy".into(),
            word: engine::Word::TimedOut,
            course: engine::Course::WentOn,
            asked_ns: 1_000_500_000,
            ended_ns: Some(1_003_000_000),
            reason: Some("no answer within 2 ms".to_owned()),
        };
        let record = record(&Outcome { guard: Some(Box::new(guarded)), ..outcome() });
        let guard = record.guard.as_deref().unwrap();
        assert_eq!(
            (&*guard.ruling, &*guard.turn, guard.asked_at_us, guard.took_us),
            ("timed_out", "went_on", 500, 2_500)
        );
        assert_eq!(serde_json::from_str::<TurnRecord>(&serde_json::to_string(&record).unwrap()).unwrap(), record);
    }

    #[test]
    fn what_a_record_holds_is_bounded() {
        let long = "é".repeat(1000);
        let attempts = vec![attempted(Some(&long)); 100];
        let record = record(&Outcome { attempts, ..outcome() });
        assert_eq!(record.attempts.len(), ATTEMPTS_MAX);
        assert!(record.attempts.iter().all(|tried| tried.failure.as_ref().unwrap().len() == FAILURE_BYTES_MAX));
        let few = serde_json::to_string(&record).unwrap().len();
        assert!(few < 16 * 1024, "{few}");
    }

    #[test]
    fn a_record_is_of_its_request_and_of_its_response() {
        let record = record(&outcome());
        assert!(record.has_id("req_1") && record.has_id("resp_1") && !record.has_id("resp_2"));
        let refused = TurnRecord { response_id: String::new(), ..record };
        assert!(!refused.has_id(""));
    }
}
