//! One client connection, as a machine: its lanes of turns, their memory of chains, and the bytes that wait for it.
//!
//! A WebSocket is a session of many turns; an HTTP request is a session of one. The driver feeds it, drains its effects,
//! and writes its bytes; it decides nothing.

mod background;
mod children;
mod clock;
mod compact;
mod effect;
mod elsewhere;
mod end;
mod fan_out;
mod guard;
mod handover;
mod hedge;
mod lane;
mod limit;
mod migrate;
mod pass;
mod prefill;
mod references;
mod reply;
mod request;
mod revoke;
mod run;
mod settings;
mod steer;
mod stream;
mod timing;
mod trace;
mod traits;
mod truncate;

use crate::draft::{Background, Contract, Draft};
use crate::error::{ErrorKind, Refusal};
use crate::fleet::{EndpointId, Fleet, Speaks, Tier};
use crate::guard::Vetted;
use crate::ids::IdSource;
use crate::outgoing::Outgoing;
use crate::recognition::{Found, Fresh, Limits, Recognition};
use crate::router::Origin;
use crate::seal::{Keyring, Takes};
use crate::stages::{Arrival, Parts};
use crate::time::Now;
use crate::tokens::Ratios;
use crate::tools::Tools;
use crate::trace::Tracing;
use bytes::Bytes;
use flashlane_wire::chat::ChatRequest;
use flashlane_wire::responses::{ClientEvent, CreateRequest, Fields};
use flashlane_wire::websocket::Encoder;
use handover::Errand;
use lane::{LaneId, Lanes};
use prefill::Prefilling;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

pub use background::Enlisting;
pub use effect::{Answer, Effect, Outcome, Record, Routed, Source, Status};
pub use fan_out::Gathering;
pub use guard::{Guarding, Held};
pub use handover::{Before, ReadAhead};
pub use hedge::{HedgeCost, HedgeEnd, Hedged};
pub use prefill::{PrefillEnd, Prefilled};
pub use settings::Settings;
pub use steer::Steer;
pub use truncate::Cut;

/// One snapshot of what sessions share. A turn keeps the one that it began with.
#[derive(Debug, Clone)]
pub struct Shared {
    pub settings: Settings,
    pub fleet: Arc<Fleet>,
    /// What clients send again.
    pub recognition: Arc<Recognition>,
    /// How the engines' tokenizers differ from ours.
    pub ratios: Arc<Mutex<Ratios>>,
    /// The keys of what clients keep for this server.
    pub ring: Arc<Keyring>,
    /// What guards have passed and no session remembers.
    pub vetted: Arc<Vetted>,
}

impl Shared {
    #[must_use]
    pub fn new(settings: Settings, fleet: Arc<Fleet>, ring: Arc<Keyring>) -> Self {
        let limits =
            Limits { bytes_max: settings.recognised_bytes_max, owner_bytes_max: settings.recognised_bytes_per_key_max };
        Self {
            settings,
            fleet,
            recognition: Arc::new(Recognition::new(limits)),
            ratios: Arc::default(),
            ring,
            vetted: Arc::default(),
        }
    }
}

/// Whose state a session sees: the digest of the configured key's name, or of what it came with where no key is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Owner(pub [u8; 32]);

impl Owner {
    /// Who holds the key of this name: the same after the key's secret has changed.
    #[must_use]
    pub fn of_key(name: &str) -> Self {
        Self(Sha256::new().chain_update("flashlane key ").chain_update(name).finalize().into())
    }

    /// What stands for it where no key has its name: `(unknown 1a2b3c4d)`.
    #[must_use]
    pub fn unnamed(&self) -> String {
        let Self([a, b, c, d, ..]) = self;
        match *self == Self::default() {
            true => "(no key)".to_owned(),
            false => format!("(unknown {a:02x}{b:02x}{c:02x}{d:02x})"),
        }
    }
}

/// A turn of this session, and the lane that runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TurnId {
    number: u32,
    lane: LaneId,
}

/// The machine of one connection.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    ids: IdSource,
    owner: Owner,
    /// `x-request-id` of its HTTP answer or of its handshake: its errors name it.
    request_id: Option<Arc<str>>,
    /// None: its turns are not traced.
    tracing: Option<Box<Tracing>>,
    /// What the client said of itself when it came.
    origin: Origin,
    /// Where its first turn was expected to go when it came: a connection is warm there.
    planned: Option<EndpointId>,
    /// A prompt is being read before its turn comes.
    prefill: Option<Box<Prefilling>>,
    /// Admission is asked whether one may be, by this name.
    errand: Option<(TurnId, Errand)>,
    outgoing: Outgoing,
    transport: Transport,
    effects: VecDeque<Effect>,
    lanes: Lanes,
    /// The lane whose name is on the events to come; None where it may be another's.
    speaking: Option<LaneId>,
    /// Hosted tools that the latest request offered.
    hosted_tools: BTreeSet<&'static str>,
    /// The tools that this client sent last, and what they came to.
    tools_seen: Option<(Box<str>, Arc<Tools>)>,
    turns_begun: u32,
    /// When the request began to come that is whole now.
    arriving_ns: Option<u64>,
    last_sent_ns: u64,
    /// When a WebSocket has had its time.
    ends_ns: Option<u64>,
    life: Life,
}

#[derive(Debug)]
enum Transport {
    WebSocket {
        /// The client asked for a timing event after each response.
        timing: bool,
        /// It asked for one before the last event, where it still reads.
        timing_within: bool,
        /// It knows what to do with an event that tells its limits.
        limits: bool,
    },
    Http {
        answer: Option<Answer>,
        /// The client was told that a stream follows.
        streaming: bool,
        routed: Routed,
        /// Its client asked where the time goes.
        timing: bool,
        /// What its turn took, once that has ended.
        parts: Option<Box<Parts>>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// Ends when nothing runs and nothing is queued.
    Draining(Why),
    /// The client's key is gone: what runs may end until then, and if nothing does, it closes a little later than at once.
    Revoked {
        close_ns: u64,
        until_ns: u64,
    },
    /// Closed, since the client's key is gone.
    Expelled,
    Closed,
}

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The server goes away.
    Restart,
    /// The connection has had its time.
    Age,
}

impl Why {
    fn refusal(self) -> Refusal {
        match self {
            Self::Restart => {
                Refusal::new(ErrorKind::ShuttingDown, "The server is shutting down. Please connect again.")
                    .with_retry_after_ms(Some(1000))
            }
            Self::Age => Refusal::new(
                ErrorKind::ConnectionTooOld,
                "This connection has reached its longest life. Please connect again.",
            ),
        }
    }
}

impl Session {
    /// A WebSocket's session. With `timing`, a timing event follows each response.
    #[must_use]
    pub fn websocket(shared: Arc<Shared>, ids: IdSource, owner: Owner, encoder: Encoder, timing: bool) -> Self {
        Self::new(
            shared,
            ids,
            owner,
            Outgoing::websocket(encoder),
            Transport::WebSocket { timing, timing_within: false, limits: false },
        )
    }

    /// A WebSocket's client is told its limits before each turn.
    #[must_use]
    pub fn with_limits_told(mut self, is_told: bool) -> Self {
        if let Transport::WebSocket { limits, .. } = &mut self.transport {
            *limits = is_told;
        }
        self
    }

    /// The session of one HTTP request.
    #[must_use]
    pub fn http(shared: Arc<Shared>, ids: IdSource, owner: Owner) -> Self {
        let (routed, timing, parts) = (Routed::default(), false, None);
        let transport = Transport::Http { answer: None, streaming: false, routed, timing, parts };
        Self::new(shared, ids, owner, Outgoing::collect(), transport)
    }

    fn new(shared: Arc<Shared>, ids: IdSource, owner: Owner, outgoing: Outgoing, transport: Transport) -> Self {
        Self {
            shared,
            ids,
            owner,
            request_id: None,
            tracing: None,
            origin: Origin::default(),
            planned: None,
            prefill: None,
            errand: None,
            outgoing,
            transport,
            effects: VecDeque::new(),
            lanes: Lanes::default(),
            speaking: Some(LaneId::default()),
            hosted_tools: BTreeSet::new(),
            tools_seen: None,
            turns_begun: 0,
            arriving_ns: None,
            last_sent_ns: 0,
            ends_ns: None,
            life: Life::Open,
        }
    }

    /// A new snapshot, and the one tier that its client may use from here on (None: both). Turns that run keep their endpoints, which are in
    /// the new fleet too.
    pub fn adopt(&mut self, shared: Arc<Shared>, only: Option<Tier>) {
        self.shared = shared;
        self.origin.only = only;
    }

    /// One text message of a WebSocket.
    pub fn handle_message(&mut self, text: &[u8], now: Now) {
        self.speak(LaneId::default());
        let mut found = Found::default();
        let recognition = Arc::clone(&self.shared.recognition);
        let event = ClientEvent::parse(text, |items| {
            found = recognition.find(self.owner, items);
            found.known()
        });
        let handled = match event {
            Ok(ClientEvent::Create { stream_id, previous_response_id, request }) => {
                let draft = request.map_err(Refusal::from).and_then(|request| self.draft(&request, found));
                let previous = previous_response_id.map(Cow::into_owned);
                self.enqueue(stream_id.as_deref(), draft, previous, now)
            }
            Ok(ClientEvent::Interrupt { response_id }) => self.interrupt(&response_id, now),
            Ok(ClientEvent::Cancel { response_id }) => self.cancel(&response_id, now),
            Ok(ClientEvent::Steer { previous_response_id, input }) => {
                self.steer(&previous_response_id, input, now);
                Ok(())
            }
            Err(error) => Err(Refusal::from(error)),
        };
        if let Err(refusal) = handled {
            self.refuse(&refusal, now);
        }
    }

    /// A binary message of a WebSocket: refused, the connection goes on.
    pub fn handle_binary(&mut self, now: Now) {
        let refusal = Refusal::new(
            ErrorKind::InvalidJson,
            "Binary messages are not supported: send each event as one text message.",
        );
        self.speak(LaneId::default());
        self.refuse(&refusal, now);
    }

    /// The body of `POST /v1/responses`.
    pub fn handle_responses_body(&mut self, body: &[u8], now: Now) {
        let mut found = Found::default();
        let recognition = Arc::clone(&self.shared.recognition);
        let parsed = Fields::parse_request(body, |items| {
            found = recognition.find(self.owner, items);
            found.known()
        });
        let parsed = parsed.map_err(Refusal::from);
        let handled = parsed.and_then(|fields| {
            let request = CreateRequest::parse(&fields)?;
            self.outgoing = match (request.background, request.stream) {
                (true, _) => Outgoing::journal(),
                (false, true) => Outgoing::sse(),
                (false, false) => Outgoing::collect(),
            };
            if request.stream_id.is_some() {
                let message = "'stream_id' names a lane of a WebSocket: leave it out over HTTP.";
                return Err(Refusal::new(ErrorKind::InvalidStreamId, message).with_param("stream_id"));
            }
            let mut draft = self.draft(&request, found)?;
            if request.background {
                let request = Background { request: Bytes::copy_from_slice(body), is_streamed: request.stream };
                draft = draft.in_background(request);
            }
            self.enqueue(None, Ok(draft), None, now)
        });
        if let Err(refusal) = handled {
            self.refuse(&refusal, now);
        }
    }

    /// The body of `POST /v1/responses/input_tokens`: a request, of which only the length is asked for.
    pub fn handle_input_tokens_body(&mut self, body: &[u8], now: Now) {
        let parsed = Fields::parse(body).map_err(Refusal::from);
        let handled = parsed.and_then(|fields| {
            let request = CreateRequest { children: None, ..CreateRequest::parse(&fields)? };
            let mut draft = self.draft(&request, Found::default())?;
            if let Contract::Responses(responses) = &mut draft.contract {
                responses.count_only = true;
            }
            self.enqueue(None, Ok(draft), None, now)
        });
        if let Err(refusal) = handled {
            self.refuse(&refusal, now);
        }
    }

    /// The body of `POST /v1/chat/completions`.
    pub fn handle_chat_body(&mut self, body: &[u8], now: Now) {
        let handled = ChatRequest::parse(body).map_err(Refusal::from).and_then(|request| {
            self.outgoing = if request.stream { Outgoing::sse() } else { Outgoing::collect() };
            let shared = Arc::clone(&self.shared);
            let model = model_of(&shared.fleet, &request.model)?;
            if !shared.fleet.speaks(model, self.origin.only, Speaks::Chat) {
                let message =
                    format!("The model '{}' is served by the Responses API alone: POST to /v1/responses.", model.name);
                return Err(Refusal::new(ErrorKind::InvalidValue, message).with_param("model"));
            }
            let service_tier = request.service_tier.clone();
            let mut draft = Draft::chat(request, model);
            draft.traits = self.traits_of_chat(&draft, service_tier.as_deref());
            self.enqueue(None, Ok(draft), None, now)
        });
        if let Err(refusal) = handled {
            self.refuse(&refusal, now);
        }
    }

    fn draft(&mut self, request: &CreateRequest<'_>, found: Found) -> Result<Draft, Refusal> {
        if request.conversation.is_some() {
            self.may_be_in_a_conversation(request)?;
        }
        if request.background {
            self.may_run_in_background(request)?;
        }
        if let Some(children) = &request.children {
            self.may_have_children(request, children)?;
        }
        let shared = Arc::clone(&self.shared);
        let model = model_of(&shared.fleet, &request.model)?;
        let tools = self.recognise_tools(request)?;
        let takes = shared.fleet.takes(model, self.origin.only);
        let opener = shared.opener(self.owner, takes);
        let read = |fresh: &Fresh<'_>| shared.recognition.read(opener, found, fresh);
        let mut draft = Draft::responses(request, tools, model, read)?;
        draft.traits = self.traits_of(request);
        draft.trace = self.parent_of(request);
        if takes != Takes::Own {
            draft = draft.passing(request);
        }
        if let Some(children) = &request.children {
            self.give_children(&mut draft, request, children)?;
        }
        // Where all may be forwarded, nothing is known to be left out.
        self.hosted_tools = match takes {
            Takes::Own | Takes::Sealed => draft.hosted_tools().collect(),
            Takes::Any => BTreeSet::new(),
        };
        Ok(draft)
    }

    fn may_be_in_a_conversation(&self, request: &CreateRequest<'_>) -> Result<(), Refusal> {
        if matches!(self.transport, Transport::WebSocket { .. }) {
            let message = "'conversation' is not supported over a WebSocket: chain by 'previous_response_id', or POST.";
            return Err(Refusal::new(ErrorKind::UnsupportedParameter, message).with_param("conversation"));
        }
        if !request.store {
            let message =
                "Invalid 'store': a response in a conversation is kept in it. Leave 'store' out, or send true.";
            return Err(Refusal::new(ErrorKind::InvalidValue, message).with_param("store"));
        }
        Ok(())
    }

    /// Clients send the same tools with every turn: those are read once.
    fn recognise_tools(&mut self, request: &CreateRequest<'_>) -> Result<Arc<Tools>, Refusal> {
        let Some((raw, elements)) = &request.tools else { return Ok(Arc::default()) };
        if let Some((seen, tools)) = &self.tools_seen
            && **seen == *raw.get()
        {
            return Ok(Arc::clone(tools));
        }
        let tools = match self.shared.recognition.find_tools(self.owner, raw.get()) {
            Some(tools) => tools,
            None => {
                let tools = Arc::new(Tools::parse(elements, self.shared.settings.tools_max)?);
                self.shared.recognition.remember_tools(self.owner, raw.get(), &tools);
                tools
            }
        };
        self.tools_seen = Some((raw.get().into(), Arc::clone(&tools)));
        Ok(tools)
    }

    /// Puts a request into its lane. A flood is refused at once.
    fn enqueue(
        &mut self,
        lane: Option<&str>,
        draft: Result<Draft, Refusal>,
        previous: Option<String>,
        now: Now,
    ) -> Result<(), Refusal> {
        let Settings { queued_turns_max: max, queued_bytes_max: bytes_max, lanes_max, .. } = self.shared.settings;
        let lane = self.lanes.named(lane, lanes_max).inspect_err(|refusal| {
            // A lane that cannot be opened has a name all the same; one that is no name is not repeated.
            if refusal.kind == ErrorKind::TooManyLanes {
                self.speaking = None;
                self.outgoing.speak_for(lane);
            }
        })?;
        self.speak(lane);
        let weight = draft.as_ref().map_or(0, Draft::weight);
        let full = self.lanes.queued() >= max || self.lanes.queued_bytes() + weight > bytes_max;
        if full && self.is_busy() {
            let message = format!(
                "Requests already wait on this connection, and it holds {max} of them or {bytes_max} bytes. Wait for responses to end."
            );
            return Err(Refusal::new(ErrorKind::TooManyQueued, message).with_retry_after_ms(Some(1000)));
        }
        match self.life {
            Life::Open => {}
            Life::Draining(why) => return Err(why.refusal()),
            Life::Revoked { .. } | Life::Expelled => return Err(revoke::refusal()),
            Life::Closed => return Err(Why::Restart.refusal()),
        }
        if self.lanes.is_quiet() {
            self.last_sent_ns = now.mono_ns;
        }
        let began_ns = self.arriving_ns.take().unwrap_or(now.mono_ns);
        self.lanes.push(lane, draft, previous, Arrival { began_ns, whole_ns: now.mono_ns });
        self.advance(now);
        Ok(())
    }

    /// The events to come are this lane's.
    ///
    /// hot: per token
    fn speak(&mut self, lane: LaneId) {
        if self.speaking != Some(lane) {
            self.speaking = Some(lane);
            self.outgoing.speak_for(self.lanes.name(lane));
        }
    }

    /// Whether what is said now is of a child that its client does not hear.
    fn is_muted(&self) -> bool {
        self.speaking.is_some_and(|lane| !self.is_heard(lane))
    }

    /// Over HTTP all lanes but one are children's, of which their parent's lane tells the results.
    fn is_heard(&self, lane: LaneId) -> bool {
        self.is_websocket() || lane == LaneId::default()
    }

    /// What is to be done now; drain after every `handle_*`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether nothing runs, nothing waits, and all is written.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.lanes.is_quiet() && self.effects.is_empty() && self.outgoing.is_empty()
    }

    /// Whether a turn runs.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.lanes.running().next().is_some()
    }

    /// Whether this turn runs.
    #[must_use]
    pub fn has(&self, turn: TurnId) -> bool {
        self.lanes.running().any(|running| running.id == turn)
    }

    /// Whether nothing runs and nothing waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lanes.is_quiet()
    }

    pub fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.outgoing
    }

    /// How to answer an HTTP request, as soon as it is known; told once.
    pub fn answer(&mut self) -> Option<Answer> {
        let Transport::Http { answer, streaming, .. } = &mut self.transport else { return None };
        if answer.is_none() && !*streaming && !self.outgoing.is_empty() {
            *streaming = true;
            return Some(Answer::Stream);
        }
        answer.take()
    }

    /// How an HTTP request was routed, as far as that is known.
    #[must_use]
    pub fn routed(&self) -> Routed {
        match &self.transport {
            Transport::Http { routed, .. } => *routed,
            Transport::WebSocket { .. } => Routed::default(),
        }
    }

    fn is_websocket(&self) -> bool {
        matches!(self.transport, Transport::WebSocket { .. })
    }

    /// Lanes that the connection has used, the one without a name included.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.count()
    }

    /// Hosted tools that the request offered and that are not forwarded.
    #[must_use]
    pub fn tools_not_forwarded(&self) -> &BTreeSet<&'static str> {
        &self.hosted_tools
    }
}

fn model_of<'a>(fleet: &'a Fleet, name: &str) -> Result<&'a crate::fleet::Model, Refusal> {
    fleet.model(name).ok_or_else(|| {
        let message = format!("The model '{name}' does not exist or you do not have access to it.");
        Refusal::new(ErrorKind::ModelNotFound, message).with_param("model")
    })
}
