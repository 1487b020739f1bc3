//! One endpoint under examination: asked as turns ask it, by the adapter and the connections that serve them, and with requests that
//! no adapter would send. Keeps what it sees and judges nothing.
//!
//! Knows no client and no session; one question at a time.

pub use crate::client::reach::{Handshake, Reached, Step, Unreached};
pub use crate::client::witness::Head;
pub use crate::hosted::quota::Told;

use crate::backends::{Backend, Stats};
use crate::client::Remote;
use crate::client::address::Address;
use crate::client::dial::{Dialer, Version};
use crate::client::witness::Witness;
use crate::config::EndpointConfig;
use crate::detect::{self, Detected, Look, detect};
use crate::error::{Error, chain};
use crate::hosted::quota;
use crate::openai::dialect::Dialect;
use crate::openai::http1::Http1;
use crate::openai::http2::Http2;
use crate::openai::request::{Body, Coding, Outbound};
use crate::stream::TokenStream;
use bytes::Bytes;
use flashlane_engine::router::{Load, Urgency};
use flashlane_engine::{Ended, EndpointId, UpstreamEvent, UpstreamFailure, UpstreamRequest};
use flashlane_wire::chat::Field;
use http::header::{CONTENT_LENGTH, HeaderValue};
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an answer may take, all in all.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// Of an answer no more is kept.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a connection may take to be warm.
const WARM_MAX: Duration = Duration::from_secs(2);

/// Where a key is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    Variable(String),
    File(PathBuf),
}

/// What the adapter takes an endpoint to be.
#[derive(Debug, Clone, Copy)]
pub struct Ways {
    pub dialect: Dialect,
    /// What is assumed of answers is assumed of Chat Completions.
    pub is_chat: bool,
    /// A service that rents out its hardware by the token.
    pub is_hosted: bool,
    /// Below the base URL: a request that does nothing but open the way.
    pub warm_path: Option<&'static str>,
    /// What `service_tier` may be.
    pub tiers: &'static [&'static str],
    pub queue: Option<Queue>,
    pub takes_gzip: bool,
    /// Closed schemas, answered calls, no `tool_choice` without tools, no unknown fields.
    pub has_strict_rules: bool,
    pub sends_cache_key: bool,
    /// Its prefix cache belongs to slots.
    pub has_slots: bool,
}

/// A header by which a request says how long it would wait in the service's queue.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    pub header: &'static str,
    /// The service tiers that heed it.
    pub tiers: &'static [&'static str],
    pub ms_max: u64,
}

/// One question.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    pub model: String,
    /// Top-level fields in OpenAI's names, each value raw JSON.
    pub fields: Vec<(&'static str, String)>,
    /// The inside of `messages`.
    pub messages: String,
    pub cache_key: Option<String>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The request's body before any coding; empty for a GET.
    pub sent: Vec<u8>,
    /// It went out in gzip.
    pub is_packed: bool,
    /// `None`: none came.
    pub head: Option<Head>,
    /// The event stream, or a refusal's body.
    pub body: Vec<u8>,
    pub end: End,
    /// From the request to the first byte of a stream.
    pub first_byte: Option<Duration>,
    pub whole: Duration,
    /// It went over a connection that was open before.
    pub is_reused: bool,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The body is whole.
    Whole,
    /// An error status.
    Refused {
        status: u16,
    },
    Broken {
        reason: String,
    },
}

/// An endpoint and who looks on.
pub struct Exam {
    backend: Backend,
    remote: Arc<Remote>,
    witness: Arc<Witness>,
    look: Look,
    pub ways: Ways,
}

impl Exam {
    /// Reads the key and the certificates; connects to nothing. `None`: it plays in this process, there is nothing to ask.
    ///
    /// # Errors
    /// Names the field at fault, as [`crate::Backends::new`] does.
    pub fn new(config: &EndpointConfig) -> Result<Option<Self>, Error> {
        let backend = config.check()?;
        let remote = match &backend {
            Backend::OpenAi(openai) => Arc::clone(&openai.remote),
            Backend::Hosted(hosted) => Arc::clone(&hosted.remote),
            Backend::Responses(responses) => Arc::clone(&responses.remote),
            Backend::Simulator(_) => return Ok(None),
        };
        let (ways, witness) = (Ways::of(&backend), remote.witnessed());
        Ok(Some(Self { backend, remote, witness, look: config.look()?, ways }))
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.look.base_url
    }

    /// The key that it is asked with: for whoever sees to it that it stands nowhere.
    #[must_use]
    pub fn key(&self) -> Option<&crate::Secret> {
        self.look.api_key.as_ref()
    }

    /// Resolves, connects and shakes hands; sends no request.
    ///
    /// # Errors
    /// Where the way ends.
    pub async fn reach(&self) -> Result<Reached, Unreached> {
        self.remote.reach().await
    }

    /// What it says that it is, as `flashlane serve --throughput URL` asks.
    ///
    /// # Errors
    /// It does not list its models.
    pub async fn detect(&self) -> Result<Detected, detect::Error> {
        detect(&self.look).await
    }

    /// What it says of its load; `None`: the config does not ask (`probe_ms`).
    pub async fn load(&self) -> Option<Result<Load, String>> {
        self.remote.look_at_load().await
    }

    /// `path` below the base URL.
    pub async fn get(&self, path: &str) -> Answer {
        let began = Instant::now();
        let asking = async {
            let address = Address::parse(&self.look.base_url).map_err(|problem| chain(&problem))?;
            let target = format!("{}{path}", address.path);
            let wait_ms_max = self.look.wait_ms_max;
            let dialer = Dialer::new(address, &self.look.way, Version::Http1, wait_ms_max);
            let dialer = dialer.map_err(|(_, problem)| chain(&problem))?;
            let wait = Duration::from_millis(wait_ms_max);
            match tokio::time::timeout(wait, detect::ask(&dialer, &target, self.look.api_key.as_ref())).await {
                Ok(answer) => answer.map_err(|error| chain(&error)),
                Err(_) => Err(format!("no answer within {wait:?}")),
            }
        };
        let result = asking.await;
        let whole = began.elapsed();
        let (sent, is_packed, is_reused) = (Vec::new(), false, false);
        match result {
            Err(reason) => {
                let (head, body, end) = (None, Vec::new(), End::Broken { reason });
                Answer { sent, is_packed, head, body, end, first_byte: None, whole, is_reused }
            }
            Ok(answer) => {
                let fields = answer.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
                let status = answer.status.as_u16();
                let end = if answer.status.is_success() { End::Whole } else { End::Refused { status } };
                let (head, body) = (Some(Head::new(status, fields)), answer.body.to_vec());
                Answer { sent, is_packed, head, body, end, first_byte: Some(whole), whole, is_reused }
            }
        }
    }

    /// Asks as a turn does: altered, completed and mended by the adapter.
    pub async fn ask(&self, ask: &Ask) -> Answer {
        let request = UpstreamRequest {
            endpoint: EndpointId(0),
            model: ask.model.as_str().into(),
            fields: ask.fields.iter().map(|(name, value)| Field::new(name, value.clone())).collect(),
            messages: vec![Bytes::from(ask.messages.clone())],
            continues: false,
            cache_key: ask.cache_key.as_deref().map(Into::into),
            urgency: Urgency::Ordinary,
            trace: None,
        };
        let stream = match &self.backend {
            Backend::OpenAi(openai) => openai.open(request),
            Backend::Hosted(hosted) => hosted.open(request),
            Backend::Responses(responses) => responses.open(&request),
            Backend::Simulator(simulator) => simulator.open(&request),
        };
        self.run(stream).await
    }

    /// Sends this body as it is, behind the head of a turn's request: what no adapter would say.
    pub async fn ask_as_is(&self, body: &str) -> Answer {
        let body =
            Body { pieces: vec![Bytes::copy_from_slice(body.as_bytes())], coding: Coding::Identity, trace: None };
        self.remote.sends(&body, false);
        let remote = Arc::clone(&self.remote);
        let stream = match remote.version {
            Version::Http1 => {
                let outbound = Outbound::new(&remote.template, body);
                TokenStream::Http1(Box::new(Http1::new(remote, outbound, false)))
            }
            Version::Http2 => TokenStream::Http2(Box::new(Http2::new(remote, body, None))),
        };
        self.run(stream).await
    }

    /// Has a connection opened and warmed, as the beginning of a session does. `false`: there is none in time.
    pub async fn warm(&self) -> bool {
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        self.remote.warm();
        let warmed = async {
            while self.remote.idle() == 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(WARM_MAX, warmed).await.is_ok()
    }

    /// The fields of the requests that it sends, but those that nobody may see.
    #[must_use]
    pub fn request_fields(&self) -> Vec<(String, String)> {
        let fields = self.remote.template.fields(0, Coding::Identity, None);
        let shown = fields.iter().filter(|(name, value)| !value.is_sensitive() && *name != CONTENT_LENGTH);
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        shown.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
    }

    /// How its connections were used so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.remote.stats()
    }

    async fn run(&self, mut stream: TokenStream) -> Answer {
        let before = self.stats();
        let began = Instant::now();
        let (mut body, mut first_byte, mut end) = (Vec::new(), None, None);
        let turn = async {
            while end.is_none() {
                let mut on = |event: UpstreamEvent<'_>| match event {
                    UpstreamEvent::Connected | UpstreamEvent::Opened => {}
                    UpstreamEvent::Bytes(bytes) => {
                        first_byte.get_or_insert_with(|| began.elapsed());
                        body.extend_from_slice(bytes);
                    }
                    UpstreamEvent::Ended(ended) => end = Some(ended),
                };
                poll_fn(|cx| stream.poll(cx, &mut on)).await;
                if body.len() > ANSWER_BYTES_MAX {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(ANSWER_MAX, turn).await.is_ok();
        let seen = self.witness.take();
        let after = self.stats();
        let is_reused =
            after.connections_reused > before.connections_reused && after.requests_resent == before.requests_resent;
        let end = match end {
            Some(Ended::Complete) => End::Whole,
            Some(Ended::Failed(UpstreamFailure::Refused { status, body: said, .. })) => {
                body = said.to_vec();
                End::Refused { status: seen.head.as_ref().map_or(status, |head| head.status) }
            }
            Some(Ended::Failed(UpstreamFailure::Unreachable { reason } | UpstreamFailure::Cut { reason })) => {
                End::Broken { reason }
            }
            Some(Ended::Failed(UpstreamFailure::Silent { waited_ms })) => {
                End::Broken { reason: format!("nothing came for {waited_ms} ms") }
            }
            None if in_time => End::Broken { reason: format!("more than {ANSWER_BYTES_MAX} bytes") },
            None => End::Broken { reason: format!("not whole within {ANSWER_MAX:?}") },
        };
        let whole = began.elapsed();
        Answer { sent: seen.sent, is_packed: seen.is_packed, head: seen.head, body, end, first_byte, whole, is_reused }
    }
}

impl Head {
    /// The rate limits that the adapter reads from it.
    #[must_use]
    pub fn limits(&self) -> Vec<Told> {
        quota::told(|name| self.field(name).map(str::as_bytes))
    }
}
