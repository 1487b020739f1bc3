//! The same fleet on real sockets: engines as servers, a flashlane of its own process before them, agents as clients over HTTP. What the
//! simulation leaves out is here: the network's stack, the gateway's driver, threads and timers.

use super::engine::{Engine, Job, Pace, Said};
use super::prompt::Prompt;
use super::scene::Scene;
use super::tally::{Answer, Tally, Unanswered};
use super::workload::{Agent, Turn};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use flashlane_engine::Tier;
use futures_util::StreamExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const BYTES_PER_TOKEN: usize = 4;
/// A server looks at its engine at least so often.
const LOOK: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(10);
/// An answer that takes longer is none.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// A real run.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    pub scene: &'a Scene,
    /// The binary of the gateway.
    pub flashlane: &'a Path,
    pub seed: u64,
    pub warm_ms: u64,
    pub measured_ms: u64,
}

/// What a run gave.
#[derive(Debug)]
pub struct Seen {
    pub tally: Tally,
    /// How much later than asked for a timer of this process woke it, at the 99.9th percentile: the machine's own noise.
    pub late_ms: f64,
}

/// Runs it, in as much time as it says, and tells of the turns that were asked within the measured time. Those that have no answer at its
/// end are waited for.
///
/// # Errors
/// When a server, the gateway or a turn fails.
pub async fn measure(plan: &Plan<'_>) -> Result<Seen, Failed> {
    let mut servers = JoinSet::new();
    let mut addresses = Vec::new();
    for pace in plan.scene.paces() {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        addresses.push(listener.local_addr()?);
        let server = Arc::new(Server::new(pace));
        servers.spawn(Arc::clone(&server).play());
        let router = axum::Router::new().route("/v1/chat/completions", post(answer)).with_state(server);
        servers.spawn(async { drop(axum::serve(listener, router).await) });
    }
    let gateway = Gateway::start(plan.flashlane, &config(plan.scene, &addresses))?;
    let began = Instant::now();
    let from = began + Duration::from_millis(plan.warm_ms);
    let until = from + Duration::from_millis(plan.measured_ms);
    let mut clients = JoinSet::new();
    for agent in plan.scene.workload.agents(plan.seed) {
        let client = Client {
            url: format!("{}/v1/chat/completions", gateway.url),
            http: reqwest::Client::builder().no_proxy().build()?,
            scene: plan.scene.clone(),
            from,
            until,
            tally: Tally::default(),
        };
        clients.spawn(client.work(agent));
    }
    let watch = tokio::spawn(lateness(until));
    let mut all = Tally { seconds: plan.measured_ms as f64 / 1000.0, ..Tally::default() };
    while let Some(client) = clients.join_next().await {
        let tally = client.map_err(|_| Failed::Turn("a client panicked".to_owned()))??;
        all = all.and(tally);
    }
    Ok(Seen { tally: all, late_ms: watch.await.unwrap_or(f64::INFINITY) })
}

/// Sleeps over and over, and sees how much too long.
async fn lateness(until: Instant) -> f64 {
    let mut late_ms = Vec::new();
    while Instant::now() < until {
        let due = Instant::now() + TICK;
        sleep_until(due).await;
        late_ms.push(due.elapsed().as_secs_f64() * 1000.0);
    }
    late_ms.sort_by(f64::total_cmp);
    late_ms.get(late_ms.len().saturating_sub(late_ms.len() / 1000 + 1)).copied().unwrap_or(f64::INFINITY)
}

/// Why there is no result.
#[derive(Debug)]
pub enum Failed {
    Io(io::Error),
    Http(reqwest::Error),
    /// A turn ended in a way that no fleet here has.
    Turn(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<reqwest::Error> for Failed {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error)
    }
}

/// An engine on its socket.
struct Server {
    began: Instant,
    held: Mutex<Held>,
    changed: Notify,
}

struct Held {
    engine: Engine,
    jobs: u64,
    listeners: BTreeMap<u64, mpsc::UnboundedSender<Said>>,
}

impl Server {
    fn new(pace: Pace) -> Self {
        let held = Held { engine: Engine::new(pace), jobs: 0, listeners: BTreeMap::new() };
        Self { began: Instant::now(), held: Mutex::new(held), changed: Notify::new() }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the engine as time goes on.
    async fn play(self: Arc<Self>) {
        loop {
            let due_ns = {
                let mut held = self.held();
                held.advance(self.now_ns());
                held.engine.due_ns()
            };
            let due = due_ns.map_or(Instant::now() + LOOK, |due_ns| self.began + Duration::from_nanos(due_ns));
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// None: it is refused.
    fn offer(&self, prompt: Prompt, tokens_output: u64) -> Option<mpsc::UnboundedReceiver<Said>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut held = self.held();
        let now_ns = self.now_ns();
        held.advance(now_ns);
        held.jobs += 1;
        let id = held.jobs;
        if !held.engine.offer(Job { id, prompt, tokens_output }, now_ns) {
            return None;
        }
        held.listeners.insert(id, sender);
        self.changed.notify_one();
        Some(receiver)
    }
}

impl Held {
    fn advance(&mut self, now_ns: u64) {
        let mut said = Vec::new();
        self.engine.advance(now_ns, &mut said);
        for word in said {
            // Who is gone hears nothing; the engine goes on.
            match word {
                Said::First { id, .. } => self.listeners.get(&id).map(|listener| listener.send(word).ok()),
                Said::Last { id } => self.listeners.remove(&id).map(|listener| listener.send(word).ok()),
            };
        }
    }
}

async fn answer(State(server): State<Arc<Server>>, body: Bytes) -> Response {
    let asked = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    // The first message begins with the prompt's numbers.
    let numbers = asked.pointer("/messages/0/content").and_then(Value::as_str).and_then(numbers);
    let Some([conversation, kind, shared, own, tokens_output]) = numbers else {
        return (StatusCode::BAD_REQUEST, "no prompt of the fleet's").into_response();
    };
    let prompt = Prompt { conversation, kind: u32::try_from(kind).unwrap_or(0), shared, own };
    let Some(said) = server.offer(prompt, tokens_output) else {
        let error =
            r#"{"error":{"message":"The queue is full.","type":"too_many_requests_error","code":"queue_exceeded"}}"#;
        let headers = [("content-type", "application/json")];
        return (StatusCode::TOO_MANY_REQUESTS, headers, error).into_response();
    };
    let prompt_tokens = prompt.tokens();
    let events = futures_util::stream::unfold((said, 0), move |(mut said, mut cached)| async move {
        let text = match said.recv().await? {
            Said::First { cached: found, .. } => {
                cached = found;
                chunk(r#"{"role":"assistant","content":"first"}"#, "null")
            }
            Said::Last { .. } => last_chunks(prompt_tokens, cached, tokens_output),
        };
        Some((Ok::<_, io::Error>(Bytes::from(text)), (said, cached)))
    });
    ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response()
}

fn numbers(content: &str) -> Option<[u64; 5]> {
    let mut words = content.split(' ').map(|word| word.parse().ok());
    Some([words.next()??, words.next()??, words.next()??, words.next()??, words.next()??])
}

fn chunk(delta: &str, finish: &str) -> String {
    let choice = format!(r#"{{"index":0,"delta":{delta},"finish_reason":{finish}}}"#);
    let head = r#""id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,"model":"m""#;
    format!("data: {{{head},\"choices\":[{choice}]}}\n\n")
}

fn last_chunks(prompt_tokens: u64, cached: u64, tokens_output: u64) -> String {
    let mut text = chunk(r#"{"content":" and last"}"#, r#""stop""#);
    let total = prompt_tokens + tokens_output;
    let head = r#""id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,"model":"m","choices":[]"#;
    let usage = format!(
        r#"{{"prompt_tokens":{prompt_tokens},"completion_tokens":{tokens_output},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":{cached}}}}}"#
    );
    let _ = write!(text, "data: {{{head},\"usage\":{usage}}}\n\ndata: [DONE]\n\n");
    text
}

/// The gateway, killed when it is dropped.
struct Gateway {
    child: Child,
    url: String,
    /// Its config lies there.
    _folder: Folder,
}

/// Removed when it is dropped.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Gateway {
    fn start(binary: &Path, config: &str) -> Result<Self, Failed> {
        let folder = Folder(std::env::temp_dir().join(format!("flashlane-fleet-{}", std::process::id())));
        std::fs::create_dir_all(&folder.0)?;
        let file = folder.0.join("flashlane.toml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(binary);
        command.args(["serve".as_ref(), "--config".as_ref(), file.as_os_str()]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut gateway = Self { child, url: String::new(), _folder: folder };
        let out = gateway.child.stdout.take().map(BufReader::new);
        let ready =
            out.into_iter().flat_map(BufRead::lines).map_while(Result::ok).find(|line| line.starts_with("ready "));
        let url = ready.and_then(|line| line.split_whitespace().nth(1).map(str::to_owned));
        gateway.url = url.ok_or_else(|| Failed::Turn("the gateway did not start".to_owned()))?;
        Ok(gateway)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the simulation has as values, as a file.
fn config(scene: &Scene, addresses: &[SocketAddr]) -> String {
    let queue = &scene.settings.queue.latency;
    let limits = &scene.settings.limits.latency;
    let max = |value: Option<std::num::NonZeroU32>| value.map_or(u32::MAX, std::num::NonZeroU32::get);
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n\
         [[models]]\nname = \"m\"\ncontext_tokens_max = 1000000\nroute = \"latency-first\"\n\
         [queue.latency]\nconcurrency_max = {}\nconcurrency_min = {}\nturns_max = {}\nwait_ms_max = {}\nttft_ms_max = {}\n\
         [limits.latency]\ntokens_per_minute = {}\n",
        max(queue.concurrency_max),
        queue.concurrency_min,
        queue.turns_max,
        queue.wait_ms_max,
        queue.ttft_ms_max,
        max(limits.tokens_per_minute),
    );
    for (number, (address, pace)) in addresses.iter().zip(scene.paces()).enumerate() {
        let tier = match pace {
            Pace::Wafer(_) => Tier::Latency,
            Pace::Gpu(_) => Tier::Throughput,
        };
        let _ = write!(
            text,
            "[[endpoints]]\nname = \"e{number}\"\ntier = \"{}\"\nbackend = \"openai\"\nsimulated = true\n\
             base_url = \"http://{address}/v1\"\nidle_connections_max = 64\n",
            tier.name()
        );
    }
    text
}

/// One agent's connection, and what it saw.
struct Client {
    url: String,
    http: reqwest::Client,
    scene: Scene,
    from: Instant,
    until: Instant,
    tally: Tally,
}

/// What came of one request.
enum Reply {
    Answered { route: String, first: Instant, cached: u64 },
    ComeBack(Duration),
}

impl Client {
    async fn work(mut self, mut agent: Agent) -> Result<Tally, Failed> {
        loop {
            let turn = agent.next(&self.scene.workload);
            sleep(Duration::from_millis(turn.pause_ms)).await;
            let asked = Instant::now();
            if asked >= self.until {
                return Ok(self.tally);
            }
            let (route, first, cached) = self.insist(agent.key, &turn).await?;
            if asked >= self.from && first <= self.until {
                self.tally.answers.push(seen(&agent, &turn, &route, (asked, first, cached)));
            } else if asked >= self.from {
                self.tally.unanswered.push(late(&agent, &turn, self.until.duration_since(asked)));
            }
        }
    }

    /// Asks until it is answered: where, when the first token came, and how much of the prompt was cached.
    async fn insist(&mut self, key: u8, turn: &Turn) -> Result<(String, Instant, u64), Failed> {
        loop {
            let reply = timeout(ANSWER_MAX, self.ask(key, turn)).await;
            match reply.map_err(|_| Failed::Turn("an answer did not come".to_owned()))?? {
                Reply::Answered { route, first, cached } => return Ok((route, first, cached)),
                Reply::ComeBack(after) => {
                    self.tally.turned_away += 1;
                    sleep(after).await;
                }
            }
        }
    }

    async fn ask(&self, key: u8, turn: &Turn) -> Result<Reply, Failed> {
        let Prompt { conversation, kind, shared, own } = turn.prompt;
        let mut content = format!("{conversation} {kind} {shared} {own} {} ", turn.tokens_output);
        let bytes = turn.prompt.tokens() as usize * BYTES_PER_TOKEN;
        content.extend(std::iter::repeat_n('x', bytes.saturating_sub(content.len())));
        let body = serde_json::json!({
            "model": "m",
            "stream": true,
            "stream_options": {"include_usage": true},
            "prompt_cache_key": format!("thread-{}", turn.thread),
            "messages": [{"role": "user", "content": content}],
        });
        let request = self.http.post(&self.url).bearer_auth(format!("key-{key}"));
        let response = request.header("x-flashlane-route", "tell").json(&body).send().await?;
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (status, route, retry_after) =
            (response.status().as_u16(), header("x-flashlane-route"), header("retry-after"));
        if status == 429 {
            let seconds = retry_after.parse().unwrap_or(1);
            return Ok(Reply::ComeBack(Duration::from_secs(seconds)));
        }
        let mut first = None;
        let mut text = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(bytes) = stream.next().await {
            text.extend_from_slice(&bytes?);
            if first.is_none() && text.windows(7).any(|window| window == b"\"first\"") {
                first = Some(Instant::now());
            }
        }
        let text = String::from_utf8_lossy(&text);
        let cached = text.rsplit("\"cached_tokens\":").next().map(|rest| rest.split(|c: char| !c.is_ascii_digit()));
        let cached = cached.and_then(|mut words| words.next()?.parse().ok()).unwrap_or(0);
        match first {
            Some(first) if status == 200 && text.contains("[DONE]") => Ok(Reply::Answered { route, first, cached }),
            Some(_) | None => Err(Failed::Turn(format!("{status}: {text}"))),
        }
    }
}

fn late(agent: &Agent, turn: &Turn, waited: Duration) -> Unanswered {
    let tokens = turn.prompt.tokens() + turn.tokens_output;
    let waited_us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
    Unanswered { key: agent.key, session: agent.session, tokens, waited_us }
}

fn seen(agent: &Agent, turn: &Turn, route: &str, (asked, first, cached): (Instant, Instant, u64)) -> Answer {
    let tier = if route.starts_with(Tier::Latency.name()) { Tier::Latency } else { Tier::Throughput };
    let us = |instant: Instant| u64::try_from(instant.duration_since(asked).as_micros()).unwrap_or(u64::MAX);
    Answer {
        key: agent.key,
        session: agent.session,
        tier,
        // The latency tier is the first of its plan.
        is_spilled: tier == Tier::Throughput,
        ttft_us: us(first),
        whole_us: us(Instant::now()),
        tokens_prompt: turn.prompt.tokens(),
        tokens_cached: cached,
        tokens_output: turn.tokens_output,
    }
}
