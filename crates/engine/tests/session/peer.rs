//! A client, an upstream and a store for one session, without a socket: they apply what a script says, and check every
//! event that comes back against the invariants of the contract.

use bytes::Bytes;
use flashlane_engine::admission::Admission;
use flashlane_engine::{
    Effect, Ended, Endpoint, ErrorKind, Fleet, IdSource, Modality, Model, Now, Outcome, Owner, Refusal, Route, Session,
    Settings, Shared, Tier, TurnId, UpstreamEvent, UpstreamFailure,
};
use flashlane_wire::websocket::Encoder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One thing that happens to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Create,
    CreateStored,
    /// Goes on from the latest response that ended well.
    Continue,
    /// Goes on from a response that nobody knows.
    ContinueUnknown,
    WarmUp,
    Interrupt,
    Nonsense,
    Opened,
    Text,
    Reasoning,
    Call,
    CustomCall,
    Arguments,
    Finish,
    FinishByLength,
    Cut,
    EndOfBody,
    Unreachable,
    Refused400,
    StreamError,
    Loaded,
    NotLoaded,
    Committed,
    NotCommitted,
    Pass300Ms,
    Pass6S,
    Drain,
    ClientGone,
}

pub const STEPS: [Step; 28] = [
    Step::Create,
    Step::CreateStored,
    Step::Continue,
    Step::ContinueUnknown,
    Step::WarmUp,
    Step::Interrupt,
    Step::Nonsense,
    Step::Opened,
    Step::Text,
    Step::Reasoning,
    Step::Call,
    Step::CustomCall,
    Step::Arguments,
    Step::Finish,
    Step::FinishByLength,
    Step::Cut,
    Step::EndOfBody,
    Step::Unreachable,
    Step::Refused400,
    Step::StreamError,
    Step::Loaded,
    Step::NotLoaded,
    Step::Committed,
    Step::NotCommitted,
    Step::Pass300Ms,
    Step::Pass6S,
    Step::Drain,
    Step::ClientGone,
];

pub struct Peers {
    pub session: Session,
    fleet: Arc<Fleet>,
    admission: Admission,
    now: Now,
    /// The turn that the session last asked something for.
    turn: TurnId,
    open_streams: BTreeMap<TurnId, u32>,
    granted: u32,
    pub outcomes: Vec<Outcome>,
    pub effects: Vec<String>,
    /// Bodies sent upstream.
    pub sent: Vec<(Vec<(String, String)>, String)>,
    pub stored: BTreeMap<String, Vec<Bytes>>,
    gone: bool,
    pub watch: Watch,
}

/// What a client has seen, checked as it comes.
#[derive(Default)]
pub struct Watch {
    pub events: Vec<Value>,
    current: Option<Seen>,
    pub ended: Vec<String>,
    pub errors: u32,
}

#[derive(Default)]
struct Seen {
    id: String,
    next: u64,
    /// Output index to item id, of items that are open.
    open: BTreeMap<u64, String>,
    items: u64,
    text: BTreeMap<String, String>,
}

pub fn fleet() -> Fleet {
    let endpoint = |name: &str, tier| Endpoint { name: name.into(), tier, simulated: false };
    Fleet {
        endpoints: vec![endpoint("wafer", Tier::Latency), endpoint("gpu", Tier::Throughput)],
        models: vec![Model {
            name: "m".into(),
            context_tokens_max: 131_072,
            modalities: vec![Modality::Text],
            route: Route::LatencyFirst,
            upstream_latency: Some("m-wafer".into()),
            upstream_throughput: None,
        }],
        created_unix_s: 0,
    }
}

const TOOLS: &str = r#","tools":[{"type":"function","name":"run","parameters":{}},{"type":"custom","name":"patch"}]"#;

impl Peers {
    pub fn new() -> Self {
        let fleet = Arc::new(fleet());
        let shared = Arc::new(Shared { settings: Settings::default(), fleet: Arc::clone(&fleet) });
        let session = Session::websocket(shared, IdSource::new([1; 32]), Owner::default(), Encoder::new(None), false);
        Self {
            session,
            fleet,
            admission: Admission::default(),
            now: Now { mono_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 },
            turn: TurnId(0),
            open_streams: BTreeMap::new(),
            granted: 0,
            outcomes: Vec::new(),
            effects: Vec::new(),
            sent: Vec::new(),
            stored: BTreeMap::new(),
            gone: false,
            watch: Watch::default(),
        }
    }

    pub fn message(&mut self, text: &str) {
        if !self.gone {
            self.session.handle_message(text.as_bytes(), self.now);
            self.settle();
        }
    }

    fn create(&mut self, more: &str) {
        self.message(&format!(r#"{{"type":"response.create","model":"m","input":"hi"{TOOLS}{more}}}"#));
    }

    pub fn chunk(&mut self, data: &str) {
        let line = format!("data: {data}\n\n");
        self.upstream(UpstreamEvent::Bytes(line.as_bytes()));
    }

    pub fn delta(&mut self, delta: &str) {
        self.chunk(&format!(r#"{{"id":"c","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#));
    }

    pub fn finish(&mut self, reason: &str) {
        self.chunk(&format!(r#"{{"id":"c","choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#));
        self.chunk(r#"{"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}"#);
        self.chunk("[DONE]");
    }

    pub fn upstream(&mut self, event: UpstreamEvent<'_>) {
        // A driver has no stream for a turn that was never opened, or whose stream was dropped.
        if self.open_streams.contains_key(&self.turn) {
            self.session.handle_upstream(self.turn, event, self.now);
            self.settle();
        }
    }

    pub fn apply(&mut self, step: Step) {
        match step {
            Step::Create => self.create(r#","store":false"#),
            Step::CreateStored => self.create(""),
            Step::Continue => {
                let previous = self.watch.ended.last().cloned().unwrap_or_default();
                self.create(&format!(r#","store":false,"previous_response_id":"{previous}""#));
            }
            Step::ContinueUnknown => self.create(r#","store":false,"previous_response_id":"resp_unknown""#),
            Step::WarmUp => self.create(r#","store":false,"generate":false"#),
            Step::Interrupt => {
                let id = self.watch.current.as_ref().map(|seen| seen.id.clone()).unwrap_or_default();
                self.message(&format!(r#"{{"type":"response.interrupt","response_id":"{id}"}}"#));
            }
            Step::Nonsense => self.message(r#"{"type":"response.create","model":3}"#),
            Step::Opened => self.upstream(UpstreamEvent::Opened),
            Step::Text => self.delta(r#"{"content":"a\n"}"#),
            Step::Reasoning => self.delta(r#"{"reasoning":"hm"}"#),
            Step::Call => {
                self.delta(r#"{"tool_calls":[{"index":0,"id":"c0","function":{"name":"run","arguments":""}}]}"#)
            }
            Step::CustomCall => {
                self.delta(r#"{"tool_calls":[{"index":1,"id":"c1","function":{"name":"patch","arguments":"{\"input\":\"x"}}]}"#);
            }
            Step::Arguments => self.delta(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}"#),
            Step::Finish => self.finish("stop"),
            Step::FinishByLength => self.finish("length"),
            Step::Cut => self.fail(UpstreamFailure::Cut { reason: "reset".into() }),
            Step::EndOfBody => self.upstream(UpstreamEvent::Ended(Ended::Complete)),
            Step::Unreachable => self.fail(UpstreamFailure::Unreachable { reason: "refused".into() }),
            Step::Refused400 => {
                let body = Bytes::from_static(br#"{"error":{"message":"no","type":"invalid_request_error"}}"#);
                self.fail(UpstreamFailure::Refused { status: 400, retry_after_ms: None, body });
            }
            Step::StreamError => self.chunk(r#"{"error":{"message":"boom","code":500}}"#),
            Step::Loaded => {
                let item = Bytes::from_static(br#"{"role":"user","content":"before"}"#);
                self.session.handle_loaded(self.turn, Ok(Some(vec![item])), self.now);
                self.settle();
            }
            Step::NotLoaded => {
                self.session.handle_loaded(self.turn, Ok(None), self.now);
                self.settle();
            }
            Step::Committed => {
                self.session.handle_committed(self.turn, Ok(()), self.now);
                self.settle();
            }
            Step::NotCommitted => {
                let refusal = Refusal::new(ErrorKind::Internal, "the disk is full");
                self.session.handle_committed(self.turn, Err(refusal), self.now);
                self.settle();
            }
            Step::Pass300Ms => self.pass_ms(300),
            Step::Pass6S => self.pass_ms(6000),
            Step::Drain => {
                self.session.handle_drain(self.now);
                self.settle();
            }
            Step::ClientGone => {
                self.gone = true;
                self.session.handle_client_gone(self.now);
                self.settle();
            }
        }
    }

    fn fail(&mut self, failure: UpstreamFailure) {
        self.upstream(UpstreamEvent::Ended(Ended::Failed(failure)));
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now.mono_ns += ms * 1_000_000;
        self.now.unix_ms += ms;
        if self.session.poll_timeout().is_some_and(|at| at <= self.now.mono_ns) {
            self.session.handle_tick(self.now);
            self.settle();
            assert!(self.session.poll_timeout().is_none_or(|at| at > self.now.mono_ns), "a tick leaves nothing due");
        }
    }

    /// Drains effects and bytes, as a driver does.
    fn settle(&mut self) {
        while let Some(effect) = self.session.poll_effect() {
            self.effects.push(format!("{effect:?}").split(['(', ' ']).next().unwrap().to_owned());
            self.run(effect);
        }
        self.read();
    }

    fn run(&mut self, effect: Effect) {
        match effect {
            Effect::Ask(turn, ticket) => {
                self.turn = turn;
                let result = self.admission.ask(&self.fleet, &ticket);
                self.granted += u32::from(result.is_ok());
                self.session.handle_granted(turn, result, self.now);
            }
            Effect::Release(grant) => {
                self.granted = self.granted.checked_sub(1).expect("released once");
                self.admission.release(grant);
            }
            Effect::Open(turn, request) => {
                self.turn = turn;
                *self.open_streams.entry(turn).or_default() += 1;
                let body = flashlane_wire::chat::body(&request.model, &request.fields, &request.messages);
                let body: Vec<u8> = body.into_iter().flatten().collect();
                let fields = request.fields.iter();
                let fields =
                    fields.map(|f| (f.name.to_string(), String::from_utf8(f.value.to_vec()).unwrap())).collect();
                let body = String::from_utf8(body).unwrap();
                serde_json::from_str::<Value>(&body).expect("a body is JSON");
                self.sent.push((fields, body));
            }
            Effect::Park(turn) | Effect::Abort(turn) => {
                assert!(self.open_streams.remove(&turn).is_some(), "{turn:?} has a stream to end");
            }
            Effect::Warm(_) => {}
            Effect::Load(turn, id) => {
                self.turn = turn;
                if let Some(items) = self.stored.get(&id).cloned() {
                    self.session.handle_loaded(turn, Ok(Some(items)), self.now);
                }
            }
            Effect::Commit(turn, record) => {
                self.turn = turn;
                let response: Value = serde_json::from_slice(&record.response).unwrap();
                assert_eq!(response["id"], record.id);
                self.stored.insert(record.id.clone(), record.items);
            }
            Effect::Finish(_, outcome) => self.outcomes.push(*outcome),
            Effect::Close { .. } => self.gone = true,
        }
    }

    fn read(&mut self) {
        let out = self.session.outgoing();
        let bytes = out.ready().to_vec();
        out.consume(bytes.len());
        for payload in frames(&bytes) {
            let event: Value = serde_json::from_slice(payload).expect("an event is JSON");
            self.watch.see(event);
        }
    }

    /// Ends the connection; nothing may be left behind.
    pub fn finish_and_check(mut self) -> Self {
        if !self.gone {
            self.apply(Step::ClientGone);
        } else {
            self.session.handle_client_gone(self.now);
            self.settle();
        }
        assert_eq!(self.granted, 0, "every grant is released");
        assert!(self.open_streams.is_empty(), "every stream is parked or aborted");
        assert!(self.session.is_drained());
        assert_eq!(self.session.poll_timeout(), None);
        self
    }
}

/// The payloads of unmasked, whole text frames.
fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut payloads = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        assert_eq!(*first, 0x81, "a whole text frame");
        let (len, rest) = match second {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (usize::try_from(u64::from_be_bytes(rest[..8].try_into().unwrap())).unwrap(), &rest[8..]),
            len => (usize::from(*len), rest),
        };
        payloads.push(&rest[..len]);
        bytes = &rest[len..];
    }
    payloads
}

impl Watch {
    fn see(&mut self, event: Value) {
        let kind = event["type"].as_str().unwrap().to_owned();
        match kind.as_str() {
            "keepalive" => assert!(self.current.is_some(), "signs of life only while a response runs"),
            "error" => {
                assert!(
                    event["status"].is_u64() && event["error"]["message"].is_string() && event["message"].is_string()
                );
                self.errors += 1;
            }
            "response.created" => {
                assert!(self.current.is_none(), "one response at a time");
                let id = event["response"]["id"].as_str().unwrap().to_owned();
                assert!(!self.ended.contains(&id));
                self.current = Some(Seen { id, ..Seen::default() });
                self.number(&event);
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                self.number(&event);
                let seen = self.current.take().expect("a terminal event ends a response");
                assert!(seen.open.is_empty(), "nothing is left open: {:?}", seen.open);
                assert_eq!(event["response"]["id"], seen.id);
                assert_eq!(event["response"]["status"], kind["response.".len()..]);
                if kind != "response.failed" {
                    self.ended.push(seen.id);
                }
            }
            _ => {
                self.number(&event);
                self.item(&kind, &event);
            }
        }
        self.events.push(event);
    }

    fn number(&mut self, event: &Value) {
        let seen = self.current.as_mut().expect("an event of a response that was created");
        assert_eq!(event["sequence_number"], seen.next, "numbers have no gaps: {event}");
        seen.next += 1;
    }

    fn item(&mut self, kind: &str, event: &Value) {
        let seen = self.current.as_mut().unwrap();
        let index = event["output_index"].as_u64();
        match kind {
            "response.in_progress" | "response.interrupt.accepted" => {}
            "response.output_item.added" => {
                assert_eq!(index, Some(seen.items), "indexes have no gaps");
                assert!(seen.open.is_empty(), "one item at a time");
                seen.items += 1;
                seen.open.insert(index.unwrap(), event["item"]["id"].as_str().unwrap().to_owned());
            }
            "response.output_item.done" => {
                let id = seen.open.remove(&index.unwrap()).expect("closed once, after it was opened");
                assert_eq!(event["item"]["id"], id);
                let item = &event["item"];
                let whole = ["arguments", "input"].iter().find_map(|name| item[name].as_str());
                let whole = whole.or_else(|| item["content"][0]["text"].as_str()).unwrap();
                assert_eq!(seen.text.remove(&id).unwrap_or_default(), whole, "the deltas add up to the whole");
            }
            "response.output_item.interrupted" => {
                let id = seen.open.remove(&index.unwrap()).expect("only an open item is interrupted");
                assert_eq!(event["item_id"], id);
            }
            _ => {
                let id = event["item_id"].as_str().unwrap();
                assert_eq!(seen.open.get(&index.unwrap()).map(String::as_str), Some(id), "{event}");
                if kind.ends_with(".delta") {
                    let delta = event["delta"].as_str().unwrap();
                    assert!(!delta.is_empty());
                    seen.text.entry(id.to_owned()).or_default().push_str(delta);
                }
            }
        }
    }
}
