//! `flashlane simulate`: the simulator as an inference server of its own, for benches and rehearsals. Knows nothing of what
//! it plays, which is the simulator's, nor of the gateway before it.

use crate::address;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, SERVER};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use flashlane_simulator::{Answers, OWNED_BY, Profile, SYSTEM_FINGERPRINT, Script, Step};
use futures_util::stream;
use serde_json::json;
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};

const REQUEST_BYTES_MAX: usize = 32 << 20;
const REQUESTS_RUNNING_MAX: u64 = 10_000;

/// Arguments of `flashlane simulate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  flashlane simulate
  flashlane simulate --profile gpu --listen 127.0.0.1:8711
  flashlane simulate --first-token-ms 5 --tokens-per-second 20000
  curl -sN http://127.0.0.1:8710/v1/chat/completions -H 'content-type: application/json' \\
    -d '{\"model\":\"any\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"count from 1 to 20\"}]}'")]
pub struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8710", value_parser = address::listen)]
    pub listen: SocketAddr,
    /// How fast it is
    #[arg(long, value_name = "NAME", value_enum, default_value_t = ProfileName::Wafer)]
    pub profile: ProfileName,
    /// The model that it lists; it answers for any name
    #[arg(long, value_name = "NAME", default_value = "flashlane-simulator")]
    pub model: String,
    /// Milliseconds to the first token, in place of the profile's
    #[arg(long, value_name = "N")]
    pub first_token_ms: Option<u32>,
    /// Tokens a second after the first, in place of the profile's; 0: all at once
    #[arg(long, value_name = "N")]
    pub tokens_per_second: Option<u32>,
    /// Answers to play in a conversation, one after the other, as JSON: [{"text": "...", "call": {"name": "...", "arguments": "{...}"}}, ...]
    #[arg(long, value_name = "FILE")]
    pub answers: Option<PathBuf>,
    /// A key that clients have to send; without it, none is asked for
    #[arg(long, value_name = "KEY", env = "FLASHLANE_SIMULATOR_API_KEY", hide_env_values = true)]
    pub api_key: Option<Key>,
}

/// The simulator's rows of pace, by name.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ProfileName {
    /// First token after 30 ms, then 1,500 tokens/s, several a chunk at times
    Wafer,
    /// First token after 250 ms, then 65 tokens/s, one a chunk
    Gpu,
}

/// A key that is compared and never shown.
#[derive(Clone)]
pub struct Key(String);

impl FromStr for Key {
    type Err = Infallible;

    fn from_str(key: &str) -> Result<Key, Infallible> {
        Ok(Key(key.to_owned()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Why the simulator does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Answers {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on {address}; --listen takes another address")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the simulator's listener failed")]
    Serve(#[source] io::Error),
}

/// Serves until Ctrl-C, and prints where.
///
/// # Errors
/// When the address cannot be listened on, or its socket fails.
pub async fn run(args: Args) -> Result<(), Error> {
    let server = Server::bind(args).await?;
    server.announce(&mut io::stdout().lock()).map_err(Error::Serve)?;
    if let Some(warning) = server.warning() {
        writeln!(io::stderr(), "{warning}").map_err(Error::Serve)?;
    }
    tokio::select! {
        served = server.serve() => served,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Error::Serve),
    }
}

fn read_answers(path: &Path) -> Result<Answers, Error> {
    let failed = |source| Error::Answers { path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(failed)?;
    Answers::parse(&bytes).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// The simulator on its socket.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What all requests share.
struct Shared {
    profile: Profile,
    answers: Answers,
    model: String,
    api_key: Option<Key>,
    started_unix_s: u64,
    requests: AtomicU64,
    running: AtomicU64,
    cancelled: AtomicU64,
}

impl Server {
    /// Opens the socket; nothing is answered yet.
    ///
    /// # Errors
    /// [`Error::Listen`] when the address is taken or not this machine's, [`Error::Answers`] when they cannot be read.
    pub async fn bind(args: Args) -> Result<Server, Error> {
        let listen_error = |source| Error::Listen { address: args.listen, source };
        let listener = TcpListener::bind(args.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let row = match args.profile {
            ProfileName::Wafer => Profile::WAFER,
            ProfileName::Gpu => Profile::GPU,
        };
        let answers = args.answers.map(|path| read_answers(&path)).transpose()?;
        let shared = Shared {
            answers: answers.unwrap_or_default(),
            profile: Profile {
                first_token_ms: args.first_token_ms.unwrap_or(row.first_token_ms),
                tokens_per_second: args.tokens_per_second.unwrap_or(row.tokens_per_second),
                ..row
            },
            model: args.model,
            api_key: args.api_key,
            started_unix_s: unix_s(),
            requests: AtomicU64::new(0),
            running: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
        };
        Ok(Server { listener, address, shared: Arc::new(shared) })
    }

    /// Where it listens, with the port that port 0 became.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until its socket fails.
    ///
    /// # Errors
    /// [`Error::Serve`] when it does.
    pub async fn serve(self) -> Result<(), Error> {
        let authorized = Router::new()
            .route("/v1/chat/completions", post(chat_completions))
            .route("/v1/models", get(models))
            .layer(middleware::from_fn_with_state(Arc::clone(&self.shared), authorize));
        let router = authorized
            .route("/health", get(async || "ok\n"))
            .route("/metrics", get(metrics))
            .fallback(unknown_path)
            .method_not_allowed_fallback(unknown_method)
            .layer(middleware::map_response(name_itself))
            .with_state(self.shared);
        // A socket that is gone already fails at its first read, so that a failure here needs no answer.
        let listener = self.listener.tap_io(|socket| drop(socket.set_nodelay(true)));
        axum::serve(listener, router).await.map_err(Error::Serve)
    }

    fn announce(&self, out: &mut impl Write) -> io::Result<()> {
        let Profile { first_token_ms, tokens_per_second, .. } = self.shared.profile;
        let (address, model) = (self.near_address(), &self.shared.model);
        writeln!(out, "The flashlane simulator plays `{model}` at http://{address}/v1: a script, not a model.")?;
        writeln!(out, "First token after {first_token_ms} ms, then {tokens_per_second} tokens/s. Ctrl-C ends it.")?;
        writeln!(out, "Put flashlane before it: flashlane serve --throughput http://{address}/v1")?;
        out.flush()
    }

    /// Where a client on this machine finds it: an address that stands for all is none to connect to.
    fn near_address(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
        };
        SocketAddr::new(ip, self.address.port())
    }

    /// Who else may use it.
    fn warning(&self) -> Option<String> {
        if self.address.ip().is_loopback() {
            return None;
        }
        let key = match self.shared.api_key {
            Some(_) => "in plain text, the key too",
            None => "and asks for no key: FLASHLANE_SIMULATOR_API_KEY sets one",
        };
        Some(format!("warning: {} is reachable from other machines, {key}", self.address))
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn chat_completions(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let seed = shared.requests.fetch_add(1, Relaxed);
    let Some(running) = Running::begin(&shared) else {
        let message = format!("The simulator plays at most {REQUESTS_RUNNING_MAX} requests at a time.");
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "server_is_overloaded", &message);
    };
    if request.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let message = "The simulator takes no compressed bodies.";
        return running.refuse(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_encoding", message));
    }
    let Ok(body) = to_bytes(request.into_body(), REQUEST_BYTES_MAX).await else {
        let message = format!("The body is cut short, or longer than {REQUEST_BYTES_MAX} bytes.");
        return running.refuse(refusal(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", &message));
    };
    let started = Instant::now();
    let script = match Script::with_answers(&body, shared.profile, seed, unix_s(), &shared.answers) {
        Ok(script) => script,
        Err(rejection) => {
            let status = StatusCode::from_u16(rejection.status).unwrap_or(StatusCode::BAD_REQUEST);
            return running.refuse(json_response(status, rejection.body));
        }
    };
    let streams = script.streams();
    let mut play = Play { script, started, running };
    if !streams {
        return json_response(StatusCode::OK, play.next().await.unwrap_or_default());
    }
    let events = stream::unfold(play, async |mut play| Some((Ok::<Bytes, Infallible>(play.next().await?), play)));
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events)).into_response()
}

/// A script and the clock that it is played by. Dropped before its end, it counts as cancelled.
struct Play {
    script: Script,
    started: Instant,
    running: Running,
}

impl Play {
    /// All that is due, as soon as anything is: one write.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let elapsed_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let due_ns = match self.script.poll(elapsed_ns) {
                Step::Bytes(bytes) => {
                    let bytes = Bytes::copy_from_slice(bytes);
                    self.running.is_over = self.script.is_over();
                    return Some(bytes);
                }
                Step::Wait(due_ns) => due_ns,
                Step::End => return None,
            };
            sleep_until(self.started + Duration::from_nanos(due_ns)).await;
        }
    }
}

/// One request in the count of those that run.
struct Running {
    shared: Arc<Shared>,
    is_over: bool,
}

impl Running {
    fn begin(shared: &Arc<Shared>) -> Option<Running> {
        let begun = shared.running.try_update(Relaxed, Relaxed, |n| (n < REQUESTS_RUNNING_MAX).then_some(n + 1));
        begun.ok().map(|_| Running { shared: Arc::clone(shared), is_over: false })
    }

    fn refuse(mut self, response: Response) -> Response {
        self.is_over = true;
        response
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, Relaxed);
        if !self.is_over {
            self.shared.cancelled.fetch_add(1, Relaxed);
        }
    }
}

async fn models(State(shared): State<Arc<Shared>>) -> Response {
    let model = json!({"id": shared.model, "object": "model", "created": shared.started_unix_s, "owned_by": OWNED_BY});
    json_response(StatusCode::OK, json!({"object": "list", "data": [model]}).to_string())
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let rows = [
        ("requests_running", "gauge", "Requests being played.", &shared.running),
        ("requests_total", "counter", "Requests that came.", &shared.requests),
        ("requests_cancelled_total", "counter", "Requests whose client left before the end.", &shared.cancelled),
    ];
    let text: String = rows
        .map(|(name, kind, help, value)| {
            let (name, value) = (format!("flashlane_simulator_{name}"), value.load(Relaxed));
            format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n")
        })
        .concat();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn unknown_path(method: Method, uri: Uri) -> Response {
    refusal(StatusCode::NOT_FOUND, "unknown_url", &format!("Unknown request URL: {method} {}.", uri.path()))
}

async fn unknown_method(method: Method, uri: Uri) -> Response {
    let message = format!("{method} is not allowed on {}.", uri.path());
    refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message)
}

async fn authorize(State(shared): State<Arc<Shared>>, request: Request, next: middleware::Next) -> Response {
    let sent = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.strip_prefix("Bearer "));
    if shared.api_key.as_ref().is_some_and(|key| sent != Some(&key.0)) {
        return refusal(StatusCode::UNAUTHORIZED, "invalid_api_key", "The API key is missing or wrong.");
    }
    next.run(request).await
}

async fn name_itself(mut response: Response) -> Response {
    response.headers_mut().insert(SERVER, HeaderValue::from_static(SYSTEM_FINGERPRINT));
    response
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let kind = if status.is_server_error() { "service_unavailable_error" } else { "invalid_request_error" };
    let error = json!({"message": message, "type": kind, "param": null, "code": code});
    json_response(status, json!({ "error": error }).to_string())
}

fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.into()).into_response()
}

#[cfg(test)]
mod tests;
