//! One client connection, as a machine: its lane of turns, its memory of chains, and the bytes that wait for it.
//!
//! A WebSocket is a session of many turns; an HTTP request is a session of one. The driver feeds it, drains its effects,
//! and writes its bytes; it decides nothing.

mod clock;
mod effect;
mod end;
mod reply;
mod run;

use crate::chain::Chain;
use crate::draft::Draft;
use crate::error::{ErrorKind, Refusal};
use crate::fleet::Fleet;
use crate::ids::IdSource;
use crate::outgoing::Outgoing;
use crate::time::Now;
use crate::tools::Tools;
use crate::turn::Turn;
use flashlane_wire::chat::ChatRequest;
use flashlane_wire::responses::{ClientEvent, CreateRequest, Fields};
use flashlane_wire::websocket::Encoder;
use std::collections::VecDeque;
use std::sync::Arc;

pub use effect::{Answer, Effect, Outcome, Record, Status};

/// What holds for every session.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A client that has a turn waiting hears something at least this often.
    pub keepalive_ms: u64,
    /// A turn whose upstream is silent is announced after this time; before it, a failure is a plain error.
    pub announce_after_ms: u64,
    /// Requests that may wait behind the running one.
    pub queued_turns_max: usize,
    /// Bytes of requests that may wait behind the running one.
    pub queued_bytes_max: usize,
    /// Bytes that one chain may hold: its items, and their messages.
    pub chain_bytes_max: usize,
    /// Bytes of upstream events in one turn.
    pub output_bytes_max: usize,
    /// Bytes of one upstream event.
    pub event_bytes_max: usize,
    /// Warm-ups that a connection remembers beside its latest response.
    pub warm_ups_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keepalive_ms: 5_000,
            announce_after_ms: 200,
            queued_turns_max: 16,
            queued_bytes_max: 32 * 1024 * 1024,
            chain_bytes_max: 64 * 1024 * 1024,
            output_bytes_max: 64 * 1024 * 1024,
            event_bytes_max: 4 * 1024 * 1024,
            warm_ups_max: 4,
        }
    }
}

/// One snapshot of what sessions share. A turn keeps the one that it began with.
#[derive(Debug, Default)]
pub struct Shared {
    pub settings: Settings,
    pub fleet: Arc<Fleet>,
}

/// Whose state a session sees: the digest of the key that it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Owner(pub [u8; 32]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TurnId(pub u32);

/// The machine of one connection.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    ids: IdSource,
    owner: Owner,
    outgoing: Outgoing,
    transport: Transport,
    effects: VecDeque<Effect>,
    running: Option<Box<Turn>>,
    /// Requests behind the running one, in order; a wrong one is told of at its place.
    queued: VecDeque<Result<Draft, Refusal>>,
    queued_bytes: usize,
    /// Hosted tools that the latest request offered.
    hosted_tools: Vec<String>,
    memory: VecDeque<Remembered>,
    /// The tools that this client sent last, and what they came to.
    tools_seen: Option<(Box<str>, Arc<Tools>)>,
    turns_begun: u32,
    last_sent_ns: u64,
    life: Life,
}

#[derive(Debug)]
enum Transport {
    WebSocket {
        /// The client asked for a timing event after each response.
        timing: bool,
    },
    Http {
        answer: Option<Answer>,
        /// The client was told that a stream follows.
        streaming: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// Ends when nothing runs and nothing is queued.
    Draining,
    Closed,
}

/// A response that this connection can go on from.
#[derive(Debug)]
struct Remembered {
    id: String,
    chain: Chain,
    warm_up: bool,
}

impl Session {
    /// A WebSocket's session. With `timing`, a timing event follows each response.
    #[must_use]
    pub fn websocket(shared: Arc<Shared>, ids: IdSource, owner: Owner, encoder: Encoder, timing: bool) -> Self {
        Self::new(shared, ids, owner, Outgoing::websocket(encoder), Transport::WebSocket { timing })
    }

    /// The session of one HTTP request.
    #[must_use]
    pub fn http(shared: Arc<Shared>, ids: IdSource, owner: Owner) -> Self {
        let transport = Transport::Http { answer: None, streaming: false };
        Self::new(shared, ids, owner, Outgoing::collect(), transport)
    }

    fn new(shared: Arc<Shared>, ids: IdSource, owner: Owner, outgoing: Outgoing, transport: Transport) -> Self {
        Self {
            shared,
            ids,
            owner,
            outgoing,
            transport,
            effects: VecDeque::new(),
            running: None,
            queued: VecDeque::new(),
            queued_bytes: 0,
            hosted_tools: Vec::new(),
            memory: VecDeque::new(),
            tools_seen: None,
            turns_begun: 0,
            last_sent_ns: 0,
            life: Life::Open,
        }
    }

    /// A new snapshot, for the turns to come.
    pub fn adopt(&mut self, shared: Arc<Shared>) {
        self.shared = shared;
    }

    /// One text message of a WebSocket.
    pub fn handle_message(&mut self, text: &[u8], now: Now) {
        let handled = match ClientEvent::parse(text) {
            Ok(ClientEvent::Create(request)) => {
                let draft = request.map_err(Refusal::from).and_then(|request| self.draft(&request));
                self.enqueue(draft, now)
            }
            Ok(ClientEvent::Interrupt { response_id }) => self.interrupt(&response_id, now),
            Ok(ClientEvent::Steer { input, .. }) => {
                self.refuse_steer(input);
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
        self.refuse(&refusal, now);
    }

    /// The body of `POST /v1/responses`.
    pub fn handle_responses_body(&mut self, body: &[u8], now: Now) {
        let parsed = Fields::parse(body).map_err(Refusal::from);
        let handled = parsed.and_then(|fields| {
            let request = CreateRequest::parse(&fields)?;
            self.outgoing = if request.stream { Outgoing::sse() } else { Outgoing::collect() };
            let draft = self.draft(&request)?;
            self.enqueue(Ok(draft), now)
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
            self.enqueue(Ok(Draft::chat(request, model)), now)
        });
        if let Err(refusal) = handled {
            self.refuse(&refusal, now);
        }
    }

    fn draft(&mut self, request: &CreateRequest<'_>) -> Result<Draft, Refusal> {
        if request.stream_id.is_some() {
            let message = "Named lanes ('stream_id') are not supported by this server yet: leave 'stream_id' out.";
            return Err(Refusal::new(ErrorKind::InvalidStreamId, message).with_param("stream_id"));
        }
        if request.background {
            let message = "'background' is not supported by this server yet: leave it out, or send false.";
            return Err(Refusal::new(ErrorKind::UnsupportedParameter, message).with_param("background"));
        }
        let shared = Arc::clone(&self.shared);
        let model = model_of(&shared.fleet, &request.model)?;
        let tools = self.recognise_tools(request)?;
        let draft = Draft::responses(request, tools, model)?;
        self.hosted_tools = draft.hosted_tools().cloned().collect();
        Ok(draft)
    }

    /// Clients send the same tools with every turn: those are read once.
    fn recognise_tools(&mut self, request: &CreateRequest<'_>) -> Result<Arc<Tools>, Refusal> {
        let Some((raw, elements)) = &request.tools else { return Ok(Arc::default()) };
        if let Some((seen, tools)) = &self.tools_seen
            && **seen == *raw.get()
        {
            return Ok(Arc::clone(tools));
        }
        let tools = Arc::new(Tools::parse(elements)?);
        self.tools_seen = Some((raw.get().into(), Arc::clone(&tools)));
        Ok(tools)
    }

    /// Puts a request into the lane. A flood is refused at once.
    fn enqueue(&mut self, draft: Result<Draft, Refusal>, now: Now) -> Result<(), Refusal> {
        let (max, bytes_max) = (self.shared.settings.queued_turns_max, self.shared.settings.queued_bytes_max);
        let weight = draft.as_ref().map_or(0, Draft::weight);
        let full = self.queued.len() >= max || self.queued_bytes + weight > bytes_max;
        if self.running.is_some() && full {
            let message = format!(
                "Requests already wait on this connection, and it holds {max} of them or {bytes_max} bytes. Wait for responses to end."
            );
            return Err(Refusal::new(ErrorKind::TooManyQueued, message).with_retry_after_ms(Some(1000)));
        }
        if self.life != Life::Open {
            let message = "The server is shutting down. Please connect again.";
            return Err(Refusal::new(ErrorKind::ShuttingDown, message).with_retry_after_ms(Some(1000)));
        }
        if self.running.is_none() && self.queued.is_empty() {
            self.last_sent_ns = now.mono_ns;
        }
        self.queued_bytes += weight;
        self.queued.push_back(draft);
        self.advance(now);
        Ok(())
    }

    /// What is to be done now; drain after every `handle_*`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether nothing runs, nothing waits, and all is written.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.running.is_none() && self.queued.is_empty() && self.effects.is_empty() && self.outgoing.is_empty()
    }

    /// Whether a turn runs.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    pub fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.outgoing
    }

    /// How to answer an HTTP request, as soon as it is known; told once.
    pub fn answer(&mut self) -> Option<Answer> {
        let Transport::Http { answer, streaming } = &mut self.transport else { return None };
        if answer.is_none() && !*streaming && !self.outgoing.is_empty() {
            *streaming = true;
            return Some(Answer::Stream);
        }
        answer.take()
    }

    /// Hosted tools that the request offered and that are not forwarded.
    #[must_use]
    pub fn tools_not_forwarded(&self) -> &[String] {
        &self.hosted_tools
    }
}

fn model_of<'a>(fleet: &'a Fleet, name: &str) -> Result<&'a crate::fleet::Model, Refusal> {
    fleet.model(name).ok_or_else(|| {
        let message = format!("The model '{name}' does not exist or you do not have access to it.");
        Refusal::new(ErrorKind::ModelNotFound, message).with_param("model")
    })
}
