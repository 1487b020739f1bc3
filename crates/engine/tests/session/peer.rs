//! A client, an upstream and a store for one session, without a socket: they apply what a script says, and check every
//! event that comes back against the invariants of the contract.

use crate::nursery::{DELEGATE, Nursery};
use crate::watch::Watch;
use bytes::Bytes;
use flashlane_engine::admission::{self, Admission, Ahead, Asked, Ending, Ticket, WaiterId};
use flashlane_engine::guard::{Inquiry, Ruling};
use flashlane_engine::router::Verdict;
use flashlane_engine::seal::Keyring;
use flashlane_engine::tokens::{Counted, Counter, Job};
use flashlane_engine::{
    Effect, Ended, Endpoint, ErrorKind, Fate, Fleet, IdSource, Modality, Model, Now, Outcome, Owner, Prefilled, Record,
    Refusal, Session, Settings, Shared, Speaks, Tier, TurnId, UpstreamEvent, UpstreamFailure, UpstreamRequest,
};
use flashlane_wire::websocket::Encoder;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One thing that happens to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Create,
    CreateStored,
    /// Goes on from the latest response that ended well.
    Continue,
    /// Its input is a reference to the item that ended last.
    Refer,
    /// Goes on from the latest response that ended well, for a model that this is too long for.
    ContinueCut,
    /// Goes on from a response that nobody knows.
    ContinueUnknown,
    WarmUp,
    CreateInA,
    /// Goes on, in another lane, from the latest response that ended well.
    ForkIntoB,
    /// Asks for compaction, which its input is long enough for once it is counted.
    CreateCompacting,
    CreateTrigger,
    /// Three children, two of which share what they go on from.
    FanOut,
    FanOutInA,
    /// Hands work to two children, and goes on from the latest response that ended well.
    CreateDelegating,
    /// The child that began first of those that run has ended.
    ChildEnds,
    Steer,
    SteerEnded,
    Interrupt,
    Cancel,
    /// What runs in the default lane: a parent, where there are children.
    CancelFirst,
    Nonsense,
    /// Another running turn is meant from here on.
    Switch,
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
    NotFound,
    Counted,
    Committed,
    NotCommitted,
    Pass300Ms,
    Pass6S,
    PassAnHour,
    Drain,
    /// The server can wait no longer.
    Over,
    /// Its key is gone: it closes 500 ms later, or after what runs, or after 55 s.
    Revoke,
    ClientGone,
}

pub const STEPS: [Step; 47] = [
    Step::Create,
    Step::CreateStored,
    Step::Continue,
    Step::Refer,
    Step::ContinueCut,
    Step::ContinueUnknown,
    Step::WarmUp,
    Step::CreateInA,
    Step::ForkIntoB,
    Step::CreateCompacting,
    Step::CreateTrigger,
    Step::FanOut,
    Step::FanOutInA,
    Step::CreateDelegating,
    Step::ChildEnds,
    Step::Steer,
    Step::SteerEnded,
    Step::Interrupt,
    Step::Cancel,
    Step::CancelFirst,
    Step::Nonsense,
    Step::Switch,
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
    Step::NotFound,
    Step::Counted,
    Step::Committed,
    Step::NotCommitted,
    Step::Pass300Ms,
    Step::Pass6S,
    Step::PassAnHour,
    Step::Drain,
    Step::Revoke,
    Step::ClientGone,
];

pub struct Peers {
    pub session: Session,
    admission: Admission,
    now: Now,
    /// The turn that the session last asked something for, or that the script went over to.
    pub turn: TurnId,
    /// Turns that were begun and have not ended.
    turns: Vec<TurnId>,
    open_streams: BTreeMap<TurnId, u32>,
    /// The turn whose second endpoint's stream is opened next.
    hedged: Option<TurnId>,
    /// Second endpoints' streams, and whose they are.
    pub beside: Vec<(TurnId, TurnId)>,
    granted: u32,
    waiting: BTreeMap<WaiterId, TurnId>,
    /// Prefills that have their leave, the last one's stream, and what became of those before.
    prefills: usize,
    prefill_stream: Option<TurnId>,
    pub prefilled: Vec<Prefilled>,
    /// What became of grants.
    pub endings: Vec<Ending>,
    pub outcomes: Vec<Outcome>,
    pub effects: Vec<String>,
    /// Bodies sent upstream.
    pub sent: Vec<(Vec<(String, String)>, String)>,
    /// Those of them that go on with an answer.
    pub continued: Vec<String>,
    pub stored: BTreeMap<String, Vec<Bytes>>,
    /// What was to be counted.
    pub jobs: Vec<Job>,
    /// What guards were asked, and for whom.
    pub inquiries: Vec<(TurnId, Inquiry)>,
    pub nursery: Nursery,
    gone: bool,
    fleet: Arc<Fleet>,
    /// When something happened.
    stamps: BTreeSet<u64>,
    pub watch: Watch,
}

fn body_of(fleet: &Fleet, request: &UpstreamRequest) -> Vec<Bytes> {
    match fleet.contract(request.endpoint) {
        Speaks::Chat => flashlane_wire::chat::body(&request.model, &request.fields, &request.messages),
        Speaks::Responses => flashlane_wire::responses::body(&request.model, &request.fields, &request.messages),
    }
}

pub fn ring() -> Arc<Keyring> {
    Arc::new(Keyring::new(&[7; 32], &[], 1 << 20).unwrap())
}

pub fn fleet() -> Fleet {
    let model = |name: &str, context_tokens_max| Model {
        context_tokens_max,
        upstream_latency: Some("m-wafer".into()),
        ..Model::named(name)
    };
    Fleet {
        endpoints: vec![Endpoint::named("wafer", Tier::Latency), Endpoint::named("gpu", Tier::Throughput)],
        models: vec![model("m", 131_072), model("small", 200)],
        ..Fleet::default()
    }
}

const TOOLS: &str = r#","tools":[{"type":"function","name":"run","parameters":{}},{"type":"custom","name":"patch"}]"#;

const TRIGGER: &str =
    r#"{"type":"response.create","model":"m","input":[{"role":"user","content":"a"},{"type":"compaction_trigger"}]}"#;

impl Peers {
    pub fn new() -> Self {
        Self::with(fleet(), Settings { children_max: 8, ..Settings::default() })
    }

    /// Before its tiers there are limits and queues.
    pub fn behind(settings: &admission::Settings) -> Self {
        Self::before(settings, fleet())
    }

    /// The same of another fleet.
    pub fn before(settings: &admission::Settings, fleet: Fleet) -> Self {
        Self { admission: Admission::new(settings, Arc::new(fleet.clone()), [7; 32]), ..Self::on(fleet) }
    }

    /// Its model hedges, and a first token of its is late after a tenth of a second and an eighth of that at most.
    pub fn hedging(settings: &admission::Settings) -> Self {
        Self::hedging_on(fleet(), settings)
    }

    pub fn hedging_on(mut fleet: Fleet, settings: &admission::Settings) -> Self {
        fleet.models.iter_mut().for_each(|model| model.routing.hedges = true);
        let mut peers = Self::on(fleet);
        peers.admission = Admission::new(settings, Arc::clone(&peers.fleet), [7; 32]);
        for _ in 0..100 {
            let ticket = Ticket {
                model: "m".into(),
                traits: <_>::default(),
                tried: vec![],
                prefer: None,
                planned: None,
                goes_on: None,
            };
            let Asked::Granted(grant, _) = peers.admission.ask(ticket, peers.now) else { panic!("nothing is limited") };
            let verdict = Verdict::Served { ttft_ns: Some(100_000_000) };
            peers.admission.release(grant, &Ending { verdict, tokens_input: 10_000, tokens_output: 0 }, peers.now);
        }
        peers
    }

    /// The same, and another fleet behind them.
    pub fn behind_on(settings: &admission::Settings, fleet: Fleet) -> Self {
        Self { admission: Admission::new(settings, Arc::new(fleet.clone()), [7; 32]), ..Self::on(fleet) }
    }

    /// Its model takes images.
    pub fn with_images() -> Self {
        let mut fleet = fleet();
        fleet.models.iter_mut().for_each(|model| model.modalities.push(Modality::Image));
        Self::on(fleet)
    }

    /// Its only endpoint speaks the Responses API.
    pub fn with_responses() -> Self {
        let mut fleet = fleet();
        fleet.endpoints.truncate(1);
        fleet.endpoints.iter_mut().for_each(|endpoint| endpoint.speaks = Speaks::Responses);
        fleet.models.iter_mut().for_each(|model| model.upstream_latency = None);
        Self::on(fleet)
    }

    pub fn on(fleet: Fleet) -> Self {
        Self::with(fleet, Settings { children_max: 8, ..Settings::default() })
    }

    pub fn with(fleet: Fleet, settings: Settings) -> Self {
        let fleet = Arc::new(fleet);
        let shared = Arc::new(Shared::new(settings, Arc::clone(&fleet), ring()));
        let now = Now { mono_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 };
        let mut session =
            Session::websocket(shared, IdSource::new([1; 32]), Owner::default(), Encoder::new(None), false);
        session.handle_connected(now);
        Self {
            session,
            admission: Admission::new(&admission::Settings::default(), Arc::clone(&fleet), [7; 32]),
            now,
            turn: TurnId::default(),
            turns: Vec::new(),
            open_streams: BTreeMap::new(),
            hedged: None,
            beside: Vec::new(),
            granted: 0,
            waiting: BTreeMap::new(),
            prefills: 0,
            prefill_stream: None,
            prefilled: Vec::new(),
            endings: Vec::new(),
            outcomes: Vec::new(),
            effects: Vec::new(),
            sent: Vec::new(),
            continued: Vec::new(),
            stored: BTreeMap::new(),
            jobs: Vec::new(),
            inquiries: Vec::new(),
            nursery: Nursery::default(),
            gone: false,
            fleet,
            stamps: BTreeSet::new(),
            watch: Watch::default(),
        }
    }

    /// Another config's fleet, of the same endpoints.
    pub fn adopt(&mut self, fleet: Fleet) {
        self.fleet = Arc::new(fleet);
        let shared = Arc::new(Shared::new(Settings::default(), Arc::clone(&self.fleet), ring()));
        self.session.adopt(shared, None);
    }

    pub fn message(&mut self, text: &str) {
        if !self.gone {
            self.session.handle_message(text.as_bytes(), self.now);
            self.settle();
        }
    }

    fn steer(&mut self, of: &str) {
        self.message(&format!(r#"{{"type":"response.steer","previous_response_id":"{of}","input":"rather this"}}"#));
    }

    fn create(&mut self, more: &str) {
        self.message(&format!(r#"{{"type":"response.create","model":"m","input":"hi"{TOOLS}{more}}}"#));
    }

    /// A request that was on its way when the connection was closed.
    pub fn create_across_the_close(&mut self) {
        self.gone = false;
        self.create(r#","store":false"#);
        self.gone = true;
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

    /// All of an answer before the driver looks at what is to be done.
    pub fn upstream_at_once(&mut self, stream: &[u8]) {
        self.session.handle_upstream(self.turn, UpstreamEvent::Opened, self.now);
        self.session.handle_upstream(self.turn, UpstreamEvent::Bytes(stream), self.now);
        self.settle();
    }

    /// Counts what the running turn waits for, by the real tokenizer.
    pub fn count(&mut self) {
        let counted = self.jobs.last().map_or(Counted::Beyond, |job| Counter::load().count(job));
        self.tell(|session, turn, now| session.handle_counted(turn, &counted, now));
    }

    pub fn apply(&mut self, step: Step) {
        match step {
            Step::Create => self.create(r#","store":false"#),
            Step::CreateStored => self.create(""),
            Step::Continue => {
                let previous = self.watch.ended.last().cloned().unwrap_or_default();
                self.create(&format!(r#","store":false,"previous_response_id":"{previous}""#));
            }
            Step::Refer => self.refer(),
            Step::ContinueCut => self.continue_cut(),
            Step::ContinueUnknown => self.create(r#","store":false,"previous_response_id":"resp_unknown""#),
            Step::WarmUp => self.create(r#","store":false,"generate":false"#),
            Step::CreateInA => self.create(r#","store":false,"stream_id":"a""#),
            Step::ForkIntoB => {
                let previous = self.watch.ended.last().cloned().unwrap_or_default();
                self.create(&format!(r#","store":false,"stream_id":"b","previous_response_id":"{previous}""#));
            }
            Step::CreateCompacting => self.create_compacting(),
            Step::CreateTrigger => self.message(TRIGGER),
            Step::FanOut => self.fan_out(&["f1", "f2", "f3"], ""),
            Step::FanOutInA => self.fan_out(&["g1", "g2", "g3"], r#","stream_id":"a""#),
            Step::CreateDelegating => self.create_delegating(),
            Step::ChildEnds => self.nursery.end_next(Fate::Completed),
            Step::Counted => self.count(),
            Step::Steer => self.steer(&self.watch.latest()),
            Step::SteerEnded => self.steer(&self.watch.ended.last().cloned().unwrap_or_default()),
            Step::Interrupt => self.stop("interrupt", &self.watch.latest()),
            Step::Cancel => self.stop("cancel", &self.watch.latest()),
            Step::CancelFirst => self.stop("cancel", &self.watch.running("")),
            Step::Switch => self.switch(),
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
                self.tell(|session, turn, now| session.handle_loaded(turn, Ok(Some(vec![item])), now));
            }
            Step::NotLoaded => self.tell(|session, turn, now| session.handle_loaded(turn, Ok(None), now)),
            Step::NotFound => self.tell(|session, turn, now| session.handle_found(turn, Ok(vec![None]), now)),
            Step::Committed => self.tell(|session, turn, now| session.handle_committed(turn, Ok(()), now)),
            Step::NotCommitted => {
                let refusal = Refusal::new(ErrorKind::Internal, "the disk is full");
                self.tell(|session, turn, now| session.handle_committed(turn, Err(refusal), now));
            }
            Step::Pass300Ms => self.pass_ms(300),
            Step::Pass6S => self.pass_ms(6000),
            Step::PassAnHour => self.pass_ms(60 * 60 * 1000),
            Step::Over => self.tell(|session, _, now| session.handle_over(now)),
            Step::Drain => self.tell(|session, _, now| session.handle_drain(now)),
            Step::Revoke => self.tell(|session, _, now| revoke(session, now)),
            Step::ClientGone => self.leave(),
        }
    }

    fn fan_out(&mut self, [one, two, other]: &[&str; 3], more: &str) {
        let children = format!(
            r#"{{"name":"{one}","input":"x"}},{{"name":"{two}","input":"y"}},{{"name":"{other}","input":"z","tier":"throughput"}}"#
        );
        self.create(&format!(r#","store":false,"flashlane":{{"fan_out":[{children}]}}{more}"#));
    }

    fn create_delegating(&mut self) {
        let previous = self.watch.ended.last().map(|id| format!(r#","previous_response_id":"{id}""#));
        self.create(&format!(r#","store":false{DELEGATE}{}"#, previous.unwrap_or_default()));
    }

    fn leave(&mut self) {
        self.gone = true;
        self.tell(|session, _, now| session.handle_client_gone(now));
    }

    fn refer(&mut self) {
        let ended = self.watch.events.iter().rfind(|event| event["type"] == "response.output_item.done");
        let id = ended.and_then(|event| event["item"]["id"].as_str()).unwrap_or("msg_unknown");
        self.message(&format!(
            r#"{{"type":"response.create","model":"m","store":false,"input":[{{"type":"item_reference","id":"{id}"}}]}}"#
        ));
    }

    fn continue_cut(&mut self) {
        let previous = self.watch.ended.last().map_or("null".to_owned(), |id| format!("\"{id}\""));
        let long = "word ".repeat(120);
        self.message(&format!(
            r#"{{"type":"response.create","model":"small","store":false,"truncation":"auto","previous_response_id":{previous},
                "input":[{{"role":"user","content":"{long}"}},{{"role":"user","content":"{long}"}}]}}"#
        ));
    }

    /// Goes on from another response every second time.
    fn create_compacting(&mut self) {
        let previous = self.watch.ended.last().filter(|_| self.outcomes.len().is_multiple_of(2));
        let previous = previous.map(|id| format!(r#","previous_response_id":"{id}""#)).unwrap_or_default();
        self.message(&format!(
            r#"{{"type":"response.create","model":"m","store":false{previous}{TOOLS},
                "input":[{{"role":"user","content":"a"}},{{"role":"assistant","content":"b"}},{{"role":"user","content":"c"}}],
                "context_management":[{{"type":"compaction","compact_threshold":1}}]}}"#
        ));
    }

    /// The guard's answer to what it was asked last.
    pub fn rule(&mut self, ruling: Ruling) {
        if let Some((turn, _)) = self.inquiries.last() {
            self.session.handle_ruling(*turn, ruling, self.now);
            self.settle();
        }
    }

    pub fn tell(&mut self, what: impl FnOnce(&mut Session, TurnId, Now)) {
        what(&mut self.session, self.turn, self.now);
        self.settle();
    }

    fn switch(&mut self) {
        let next = self.turns.iter().position(|turn| *turn == self.turn).map_or(0, |at| at + 1);
        self.turn = self.turns.get(next).or(self.turns.first()).copied().unwrap_or_default();
    }

    fn stop(&mut self, how: &str, id: &str) {
        self.message(&format!(r#"{{"type":"response.{how}","response_id":"{id}"}}"#));
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

    /// Drains effects and bytes, as a driver does: some time it is at work, and then the next thing happens.
    fn settle(&mut self) {
        self.stamps.insert(self.now.mono_ns);
        loop {
            while let Some(effect) = self.session.poll_effect() {
                self.effects.push(format!("{effect:?}").split(['(', ' ']).next().unwrap().to_owned());
                self.run(effect);
            }
            let Some(woken) = self.admission.poll_woken() else { break };
            if let Some(turn) = self.waiting.get(&woken).copied() {
                let asked = self.admission.look(woken, self.now);
                self.answer(turn, asked);
            }
        }
        self.read();
        let began_ns = self.now.mono_ns;
        self.session.handle_busy(began_ns, began_ns + 7_000);
        self.now.mono_ns += 107_000;
    }

    fn run(&mut self, effect: Effect) {
        match effect {
            Effect::Inquire(turn, inquiry) => {
                serde_json::from_slice::<Value>(&inquiry.body).expect("an inquiry is JSON");
                self.inquiries.push((turn, inquiry));
            }
            Effect::Ask(turn, ticket) => {
                self.begun(turn);
                let asked = self.admission.ask(*ticket, self.now);
                self.answer(turn, asked);
            }
            Effect::Look(turn, waiter) => {
                let asked = self.admission.look(waiter, self.now);
                self.answer(turn, asked);
            }
            Effect::Forget(waiter) => {
                assert!(self.waiting.remove(&waiter).is_some(), "who is forgotten has waited");
                self.admission.forget(waiter, self.now);
            }
            Effect::Count(turn, job) => {
                self.begun(turn);
                self.jobs.push(job);
            }
            Effect::Release(grant, ending) => {
                self.granted = self.granted.checked_sub(1).expect("released once");
                self.admission.release(grant, &ending, self.now);
                self.endings.push(ending);
            }
            Effect::Hedge(turn, late, ticket) => {
                let grant = self.admission.hedge(&ticket, late, self.now);
                self.granted += u32::from(grant.is_some());
                self.hedged = grant.map(|_| turn);
                self.session.handle_hedged(turn, grant, self.now);
            }
            Effect::Adopt(turn, stream, _) => self.adopt_stream(turn, stream),
            Effect::Open(turn, request) => self.open(turn, &request),
            Effect::Park(turn) | Effect::Abort(turn) => {
                assert!(self.open_streams.remove(&turn).is_some(), "{turn:?} has a stream to end");
                self.beside.retain(|(stream, _)| *stream != turn);
            }
            Effect::Answering(_) | Effect::Warm(_) => {}
            Effect::Prepare(turn, ahead) => self.prepare(turn, &ahead),
            Effect::Prefilled(prefilled) => self.prefilled(*prefilled),
            Effect::Load(turn, source) => {
                let flashlane_engine::Source::Response(id) = source else { panic!("no conversation over a WebSocket") };
                self.begun(turn);
                if let Some(items) = self.stored.get(&id).cloned() {
                    self.session.handle_loaded(turn, Ok(Some(items)), self.now);
                }
            }
            Effect::Find(turn, ids) => {
                self.begun(turn);
                let items =
                    ids.iter().map(|id| self.stored.values().flatten().find(|item| is_named(item, id)).cloned());
                let items: Vec<_> = items.collect();
                if items.iter().any(Option::is_some) {
                    self.session.handle_found(turn, Ok(items), self.now);
                }
            }
            Effect::Delegate(_, delegation) => self.nursery.begin(*delegation, self.now),
            Effect::Join(turn, ids) => self.join(turn, &ids),
            Effect::Commit(turn, record) => self.commit(turn, &record),
            Effect::EndJob(..) => panic!("nothing runs in the background here"),
            Effect::Finish(turn, outcome) => self.ended(turn, *outcome),
            Effect::Close { .. } => self.gone = true,
        }
    }

    fn join(&mut self, turn: TurnId, ids: &[Arc<str>]) {
        self.begun(turn);
        let standing = self.nursery.standing(ids);
        self.session.handle_joined(turn, standing, self.now);
    }

    fn commit(&mut self, turn: TurnId, record: &Record) {
        self.begun(turn);
        assert!(record.inherited + record.outputs <= record.items().count());
        let response: Value = serde_json::from_slice(&record.response).unwrap();
        assert_eq!(response["id"], record.id);
        self.stored.insert(record.id.clone(), record.items().cloned().collect());
    }

    fn open(&mut self, turn: TurnId, request: &UpstreamRequest) {
        match self.hedged.take_if(|_| !self.session.has(turn)) {
            Some(of) => self.beside.push((turn, of)),
            None => self.begun(turn),
        }
        *self.open_streams.entry(turn).or_default() += 1;
        let body: Vec<u8> = body_of(&self.fleet, request).into_iter().flatten().collect();
        let fields = request.fields.iter();
        let fields = fields.map(|f| (f.name.to_string(), String::from_utf8(f.value.to_vec()).unwrap()));
        let fields: Vec<_> = fields.collect();
        let body = String::from_utf8(body).unwrap();
        serde_json::from_str::<Value>(&body).expect("a body is JSON");
        if self.prefills > 0 && fields.contains(&("max_completion_tokens".to_owned(), "1".to_owned())) {
            self.prefill_stream = Some(turn);
        }
        if request.continues {
            self.continued.push(body.clone());
        }
        self.sent.push((fields, body));
        self.session.handle_sending(turn, self.now);
    }

    /// A second endpoint's stream is the turn's: the first one's was ended before.
    fn adopt_stream(&mut self, turn: TurnId, stream: TurnId) {
        let open = self.open_streams.remove(&stream).expect("a second stream is open");
        assert_eq!(self.open_streams.insert(turn, open), None, "one of the two is left");
        self.beside.retain(|(known, _)| *known != stream);
        self.begun(turn);
    }

    /// To the second endpoint of the turn that is meant.
    pub fn beside(&mut self, event: UpstreamEvent<'_>) {
        if let Some((stream, _)) = self.beside.iter().find(|(_, of)| *of == self.turn) {
            self.session.handle_upstream(*stream, event, self.now);
            self.settle();
        }
    }

    /// There was a mistake of ours in what a stream has sent.
    pub fn stopped(&mut self, stream: TurnId) {
        self.session.handle_stopped(stream, &Refusal::new(ErrorKind::Internal, "a mistake"), self.now);
        self.settle();
    }

    /// Several events at once to whatever stream, as one poll hands them over.
    pub fn burst(&mut self, stream: TurnId, events: Vec<UpstreamEvent<'_>>) {
        for event in events {
            self.session.handle_upstream(stream, event, self.now);
        }
        self.settle();
    }

    fn prepare(&mut self, turn: TurnId, ahead: &Ahead) {
        let leave = self.admission.prepare(ahead, self.now).and_then(|prepared| prepared.prefill);
        if let Some(leave) = leave {
            self.prefills += 1;
            self.waiting.insert(leave.id, turn);
        }
        self.session.handle_prepared(turn, leave, self.now);
    }

    fn prefilled(&mut self, prefilled: Prefilled) {
        self.prefills = self.prefills.checked_sub(1).expect("handed back once");
        self.waiting.remove(&prefilled.leave.id);
        self.admission.end_prefill(prefilled.leave.id, prefilled.usage.input, self.now);
        self.turns.retain(|known| Some(*known) != self.prefill_stream);
        self.prefilled.push(prefilled);
    }

    /// Its parts are all of its time, from something that happened until now.
    fn ended(&mut self, turn: TurnId, outcome: Outcome) {
        assert_eq!(outcome.total_ns, outcome.parts.total_ns());
        let began_ns = self.now.mono_ns - outcome.total_ns;
        assert!(self.stamps.contains(&began_ns), "{:?}", outcome.parts);
        self.turns.retain(|known| *known != turn);
        self.outcomes.push(outcome);
    }

    fn answer(&mut self, turn: TurnId, asked: Asked) {
        self.waiting.retain(|_, known| *known != turn);
        match &asked {
            Asked::Granted(..) => self.granted += 1,
            Asked::Queued(place) => drop(self.waiting.insert(place.waiter, turn)),
            Asked::Refused(..) => {}
        }
        self.session.handle_asked(turn, asked, self.now);
    }

    fn begun(&mut self, turn: TurnId) {
        self.turn = turn;
        if !self.turns.contains(&turn) {
            self.turns.push(turn);
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
        assert_eq!((self.granted, self.prefills), (0, 0), "every grant is released");
        assert!(self.waiting.is_empty(), "nobody waits for nobody");
        for tier in Tier::ALL {
            let standing = self.admission.standing(tier);
            assert_eq!((standing.queued, standing.in_flight, standing.tokens_reserved), (0, 0, 0));
        }
        assert!(self.open_streams.is_empty(), "every stream is parked or aborted");
        assert!(self.session.is_drained());
        assert_eq!(self.session.poll_timeout(), None);
        self
    }
}

fn is_named(item: &Bytes, id: &str) -> bool {
    serde_json::from_slice::<Value>(item).unwrap()["id"] == id
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

fn revoke(session: &mut Session, now: Now) {
    session.handle_revoked(now.after_ms(500), now.after_ms(55_000), now);
}
