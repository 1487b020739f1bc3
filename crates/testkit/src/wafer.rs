//! A server in the shape of Cerebras' inference service, for tests: TLS or not, HTTP/1.1 and HTTP/2 on one port, and the rules that the
//! real one is known to hold its clients to, each of them a refusal with its body. It says what it is told to say, with faults.
//!
//! Its rules follow the types of the SDK 1.91.0 and the service's documentation; it was never compared with the service itself.
//! Loopback only, on a free port.

mod answer;
mod rules;
mod wire;

pub use answer::{Fault, Say, Timing};
pub use rules::Refusal;

use crate::upstream::{self, Identity};
use answer::Answer;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rules::Asked;
use serde_json::Value;
use std::convert::Infallible;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use wire::{Valve, Wire};

/// How it serves; may be changed while it runs ([`Wafer::alter`]).
#[derive(Clone)]
pub struct Ways {
    /// The key that it asks for; `None`: any or none.
    pub key: Option<String>,
    pub models: Vec<String>,
    /// How long a request would wait in its queue.
    pub queue_ms: u64,
    /// Tokens and requests left of this minute's and this day's; each request takes its prompt and all that its answer may have.
    pub tokens_left: u64,
    pub requests_left: u64,
    pub takes_gzip: bool,
    /// `/v1/tcp_warming` is there.
    pub warms: bool,
    pub say: Say,
    pub timing: Timing,
    pub fault: Fault,
    /// In what it differs from what it is known for.
    pub odds: Vec<Odd>,
}

/// One difference from what the service is known for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    /// Each connection is closed after its answer.
    Closes,
    /// The list of models tells this context window.
    TellsContext(u64),
    /// The stream ends without `[DONE]`.
    NotDone,
    NoUsage,
    NoTimes,
    /// Reasoning comes under a name that nobody knows.
    StrangeReasoning,
    /// A limit on output is not heeded.
    Talkative,
    /// A field or header that it does not take.
    Refuses(&'static str),
    NothingCached,
    /// A rule that it does not hold its clients to.
    Overlooks(Rule),
    /// Its limits stand under other names.
    StrangeLimits,
    /// Its refusals are a page for people.
    PlainRefusals,
    Http1Alone,
    /// Refusals and headers repeat the client's key.
    Echoes,
}

/// What it refuses otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    UnknownFields,
    UnknownModels,
    ToolChoice,
    ClosedSchemas,
    AnsweredCalls,
    Types,
}

impl Ways {
    fn is(&self, odd: Odd) -> bool {
        self.odds.contains(&odd)
    }

    /// What a client is held to.
    fn holds(&self, rule: Rule) -> bool {
        !self.is(Odd::Overlooks(rule))
    }
}

/// What a bucket holds when it is full.
pub const TOKENS_A_MINUTE: u64 = 1_000_000;
pub const REQUESTS_A_DAY: u64 = 14_400;

impl Default for Ways {
    fn default() -> Self {
        Self {
            key: None,
            models: vec!["gpt-oss-120b".to_owned()],
            queue_ms: 0,
            tokens_left: TOKENS_A_MINUTE,
            requests_left: REQUESTS_A_DAY,
            takes_gzip: true,
            warms: true,
            say: Say::default(),
            timing: Timing::default(),
            fault: Fault::None,
            odds: Vec::new(),
        }
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Met {
    /// Which connection it came over, counted from 0.
    pub connection: usize,
    /// 1 or 2.
    pub http: u8,
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    /// Unpacked.
    pub body: Bytes,
    /// As it was on the wire.
    pub wire_bytes: usize,
    /// Its refusal's status and code.
    pub refused: Option<(u16, String)>,
}

impl Met {
    /// The body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// All that it has met so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub connections: usize,
    /// Those of them that are over.
    pub closed: usize,
    pub requests: Vec<Met>,
    /// Answers that their client left before their end.
    pub abandoned: usize,
}

impl Seen {
    /// The turns, without what warms and what lists models.
    #[must_use]
    pub fn turns(&self) -> Vec<&Met> {
        self.requests.iter().filter(|met| met.path == CHAT).collect()
    }

    #[must_use]
    pub fn warmings(&self) -> usize {
        self.requests.iter().filter(|met| met.path == WARMING).count()
    }
}

const CHAT: &str = "/v1/chat/completions";
const WARMING: &str = "/v1/tcp_warming";
const MODELS: &str = "/v1/models";

/// A running server. Dropping it closes its connections and its port.
pub struct Wafer {
    address: SocketAddr,
    tls: Option<Identity>,
    shared: Arc<Shared>,
    /// Aborted on drop.
    tasks: JoinSet<()>,
}

struct Shared {
    ways: Mutex<Ways>,
    seen: watch::Sender<Seen>,
    /// The prompts that it has read.
    prompts: Mutex<Vec<String>>,
    hang_up: Notify,
}

impl Wafer {
    /// # Errors
    /// When no port can be bound.
    pub async fn start(ways: Ways, tls: Option<Identity>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            ways: Mutex::new(ways),
            seen: watch::Sender::default(),
            prompts: Mutex::default(),
            hang_up: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls.clone(), Arc::clone(&shared)));
        Ok(Self { address, tls, shared, tasks })
    }

    /// Closes all connections, and takes new ones.
    pub fn hang_up(&self) {
        self.shared.hang_up.notify_one();
    }

    /// Closes all connections and the port: who connects is refused.
    pub async fn shut(&mut self) {
        self.tasks.shutdown().await;
        self.shared.seen.send_modify(|seen| seen.closed = seen.connections);
    }

    /// Takes connections again, at the same port.
    ///
    /// # Errors
    /// When somebody else has it by now.
    pub async fn reopen(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.tasks.spawn(accept(listener, self.tls.clone(), Arc::clone(&self.shared)));
        Ok(())
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT/v1`, or with https.
    #[must_use]
    pub fn base_url(&self) -> String {
        upstream::base_url(self.address, self.tls.is_some())
    }

    /// Changes how it serves from the next request on.
    pub fn alter(&self, change: impl FnOnce(&mut Ways)) {
        change(&mut self.shared.ways());
    }

    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared.seen.borrow().clone()
    }

    /// Waits until what was seen fulfils `condition`. Bound it with a timeout.
    pub async fn until(&self, condition: impl FnMut(&Seen) -> bool) -> Seen {
        upstream::until(self.shared.seen.subscribe(), condition).await
    }
}

impl Shared {
    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a prompt that it has read before, what its cache holds: whole blocks.
    fn cached(&self, asked: &Asked) -> u64 {
        const BLOCK_TOKENS: u64 = 128;
        let mut prompts = self.prompts.lock().unwrap_or_else(PoisonError::into_inner);
        if prompts.contains(&asked.prompt) {
            return asked.prompt_tokens / BLOCK_TOKENS * BLOCK_TOKENS;
        }
        prompts.push(asked.prompt.clone());
        0
    }
}

async fn accept(listener: TcpListener, tls: Option<Identity>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let tcp = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => tcp,
                Err(_) => return,
            },
            () = shared.hang_up.notified() => {
                connections.shutdown().await;
                shared.seen.send_modify(|seen| seen.closed = seen.connections);
                continue;
            }
        };
        let mut number = 0;
        shared.seen.send_modify(|seen| {
            number = seen.connections;
            seen.connections += 1;
        });
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            greet(tcp, tls, number, &shared).await;
            shared.seen.send_modify(|seen| seen.closed += 1);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn greet(tcp: TcpStream, tls: Option<Identity>, number: usize, shared: &Arc<Shared>) {
    let (hangs_up, resets) = {
        let fault = &shared.ways().fault;
        (matches!(fault, Fault::HangUp), matches!(fault, Fault::Reset))
    };
    if hangs_up || resets {
        let _ = tcp.set_zero_linger();
    }
    if hangs_up {
        // In the middle of a TLS handshake, or before a request.
        return;
    }
    let _ = tcp.set_nodelay(true);
    match tls {
        None => serve(tcp, number, shared).await,
        Some(identity) => {
            if let Ok(tls) = identity.acceptor().accept(tcp).await {
                serve(tls, number, shared).await;
            }
        }
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, number: usize, shared: &Arc<Shared>) {
    let is_http1_alone = shared.ways().is(Odd::Http1Alone);
    let valve = Valve::new();
    let wire = Wire::new(io, valve.clone());
    let service = service_fn(move |request| {
        let (valve, shared) = (valve.clone(), Arc::clone(shared));
        async move { Ok::<_, Infallible>(respond(request, number, valve, shared).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if is_http1_alone {
        builder = builder.http1_only();
    }
    // A broken connection is what some tests are for.
    let _ = builder.serve_connection(TokioIo::new(wire), service).await;
}

async fn respond(request: Request<Incoming>, connection: usize, valve: Valve, shared: Arc<Shared>) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let wire = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let is_gzip = head.headers.get("content-encoding").is_some_and(|coding| coding == "gzip");
    let body = if is_gzip { unpacked(&wire) } else { wire.clone() };
    let (result, fault) = {
        let mut ways = shared.ways();
        let mut result = judge(&mut ways, head.uri.path(), &head.headers, &body);
        if let Ok(Said::Stream(asked)) = &mut result {
            asked.number = shared.seen.borrow().requests.len();
            asked.cached_tokens = if ways.is(Odd::NothingCached) { 0 } else { shared.cached(asked) };
        }
        (result.map(|say| (say, ways.clone())), ways.fault.clone())
    };
    let bearer = head.headers.get("authorization").cloned();
    let refused = result.as_ref().err().map(|refusal| (refusal.status, refusal.code.to_owned()));
    let met = Met {
        connection,
        http: if head.version == http::Version::HTTP_2 { 2 } else { 1 },
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body,
        wire_bytes: wire.len(),
        refused,
    };
    let is_turn = met.path == CHAT;
    if is_turn {
        valve.set(fault.flow());
    }
    shared.seen.send_modify(|seen| seen.requests.push(met));
    let (status, content_type, answer) = match result {
        Err(refusal) => refusal_of(&refusal, &shared.ways(), bearer.as_ref()),
        Ok((Said::Json(json), _)) => (200, "application/json", Answer::whole(Bytes::from(json.to_string()))),
        Ok((Said::Stream(asked), ways)) => answer::stream(&asked, &ways),
    };
    let (status, content_type, answer) = match (fault, is_turn) {
        (Fault::Status { status, body }, true) => (status, "application/json", Answer::whole(body)),
        (Fault::Silent, true) => {
            // Its drop tells that its client has left.
            let _waiting = Answer::endless().watched(Arc::clone(&shared));
            std::future::pending().await
        }
        _ => (status, content_type, answer),
    };
    let answer = answer.watched(Arc::clone(&shared));
    let mut response = Response::new(answer);
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(content_type));
    let ways = shared.ways();
    limits(&ways, response.headers_mut());
    if ways.is(Odd::Closes) {
        response.headers_mut().insert("connection", http::HeaderValue::from_static("close"));
    }
    if let Some(bearer) = bearer.filter(|_| ways.is(Odd::Echoes)) {
        response.headers_mut().insert("x-asked-by", bearer);
    }
    drop(ways);
    response
}

fn refusal_of(refusal: &Refusal, ways: &Ways, bearer: Option<&http::HeaderValue>) -> (u16, &'static str, Answer) {
    if ways.is(Odd::PlainRefusals) {
        return (refusal.status, "text/html", Answer::whole(Bytes::from_static(b"<html>Something went wrong</html>")));
    }
    let bearer = bearer.and_then(|bearer| bearer.to_str().ok()).unwrap_or_default();
    let told = if ways.is(Odd::Echoes) { bearer } else { "" };
    (refusal.status, "application/json", Answer::whole(refusal.body(told)))
}

/// The headers that tell what is left.
fn limits(ways: &Ways, headers: &mut HeaderMap) {
    if ways.is(Odd::StrangeLimits) {
        headers.insert("x-budget-left", http::HeaderValue::from_static("17"));
        return;
    }
    for (name, value) in [
        ("x-ratelimit-limit-tokens-minute", TOKENS_A_MINUTE.to_string()),
        ("x-ratelimit-remaining-tokens-minute", ways.tokens_left.to_string()),
        ("x-ratelimit-reset-tokens-minute", "26.5".to_owned()),
        ("x-ratelimit-limit-requests-day", REQUESTS_A_DAY.to_string()),
        ("x-ratelimit-remaining-requests-day", ways.requests_left.to_string()),
        ("x-ratelimit-reset-requests-day", "33011.382867".to_owned()),
    ] {
        if let Ok(value) = http::HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}

enum Said {
    Json(Value),
    Stream(Asked),
}

/// What becomes of a request; takes what it costs.
fn judge(ways: &mut Ways, path: &str, headers: &HeaderMap, body: &[u8]) -> Result<Said, Refusal> {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if ways.key.as_ref().is_some_and(|key| bearer != format!("Bearer {key}")) {
        return Err(Refusal::new(401, "wrong_api_key", "Wrong API key"));
    }
    match path {
        WARMING if ways.warms => return Ok(Said::Json(Value::Null)),
        MODELS => return Ok(Said::Json(rules::models(ways))),
        CHAT => {}
        _ => return Err(Refusal::new(404, "not_found", "Unknown path")),
    }
    if headers.contains_key("content-encoding") && !ways.takes_gzip {
        return Err(Refusal::new(415, "unsupported_media_type", "This endpoint takes no compressed requests"));
    }
    let asked = Asked::read(ways, headers, body)?;
    if asked.queue_ms_max.is_some_and(|ms_max| ways.queue_ms > ms_max) {
        return Err(Refusal::new(429, "queue_exceeded", "The expected time in the queue exceeds queue_threshold"));
    }
    if ways.requests_left == 0 {
        return Err(Refusal::new(
            429,
            "request_quota_exceeded",
            "Requests per day limit exceeded - too many requests sent.",
        ));
    }
    let Some(left) = ways.tokens_left.checked_sub(asked.tokens) else {
        let message = "Tokens per minute limit exceeded - too many tokens processed.";
        return Err(Refusal::new(429, "token_quota_exceeded", message));
    };
    (ways.tokens_left, ways.requests_left) = (left, ways.requests_left - 1);
    Ok(Said::Stream(asked))
}

fn unpacked(wire: &[u8]) -> Bytes {
    let mut body = Vec::new();
    match GzDecoder::new(wire).read_to_end(&mut body) {
        Ok(_) => Bytes::from(body),
        Err(_) => Bytes::new(),
    }
}
