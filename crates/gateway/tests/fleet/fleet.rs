//! Two wafer-shaped servers with TLS, one spoken to in HTTP/1.1 and one in HTTP/2, three GPU-shaped ones, and the built binary before them.
//! A server says its own name, so that every answer tells who gave it.

use crate::client::{End, Transport, ask, exchange};
use crate::rig::Gateway;
use bytes::Bytes;
use flashlane_testkit::upstream::{Identity, Options, Step, Upstream, chat_events, error, stream, wire};
use flashlane_testkit::wafer::{self, Say, Wafer, Ways};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// By endpoint: the wafers, then the GPUs.
pub const NAMES: [&str; 5] = ["wafer-1", "wafer-2", "gpu-1", "gpu-2", "gpu-3"];

/// Of the events of an answer: the role, and the role with the first of two tokens.
pub const ROLE: usize = 1;
pub const TOKEN: usize = 2;

/// Each with its route.
const MODELS: [(&str, &str); 4] = [
    ("fast", "latency-only"),
    ("wide", "throughput-only"),
    ("fast-first", "latency-first"),
    ("wide-first", "throughput-first"),
];

/// Of the wafers' limits.
const PLENTY: u64 = 1 << 40;

/// What goes wrong at an endpoint.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nobody listens.
    Refuses,
    /// Each connection is reset as soon as it is there: with TLS, in the handshake.
    HangsUp,
    /// The connection is reset when the request is there: with TLS, after the handshake.
    Resets,
    /// An error of this status, whole.
    Status(u16, &'static str),
    /// The request is taken, and not a byte comes.
    Silent,
    /// So many events, and then nothing.
    Stalls(usize),
    /// So many events, and then comments, and nothing else.
    Comments(usize),
    /// So many events, and the stream ends as if that were all.
    Ends(usize),
    /// So many bytes of the answer, HTTP's own included, and the connection ends.
    Cut(usize),
    NotHttp,
    /// A page in the place of events.
    NotEvents,
    /// So many events, and one that is no JSON.
    NotJson(usize),
    /// So many events, and an error as the next one.
    InStream(usize),
}

/// Which endpoints of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    Latency,
    Throughput,
}

impl Tier {
    pub fn endpoints(self) -> std::ops::Range<usize> {
        match self {
            Self::Latency => 0..2,
            Self::Throughput => 2..5,
        }
    }

    /// The model that this tier alone serves.
    pub fn only(self) -> &'static str {
        match self {
            Self::Latency => "fast",
            Self::Throughput => "wide",
        }
    }

    /// The model that this tier serves first.
    pub fn first(self) -> &'static str {
        match self {
            Self::Latency => "fast-first",
            Self::Throughput => "wide-first",
        }
    }
}

/// What tests set differently.
#[derive(Debug, Clone)]
pub struct Setup {
    pub routing: String,
    pub first_token_ms_max: u64,
    pub idle_ms_max: u64,
    /// Later, a turn is announced before its endpoint has answered: what fails then is a failed response.
    pub announce_after_ms: u64,
    pub log: &'static str,
}

impl Default for Setup {
    /// One failure takes an endpoint out, for as short a time as can be; retries are free; nothing is ever late.
    fn default() -> Self {
        let routing = "breaker_failures_max = 1\nbreaker_pause_ms_min = 1\nbreaker_pause_ms_max = 1\noutlier_factor = 0\n\
            retries_per_second_max = 1000000\n";
        Self {
            routing: routing.to_owned(),
            first_token_ms_max: 20_000,
            idle_ms_max: 20_000,
            announce_after_ms: 20_000,
            log: "info",
        }
    }
}

impl Setup {
    /// Silence is noticed soon.
    pub fn impatient() -> Self {
        Self { first_token_ms_max: 500, idle_ms_max: 600, announce_after_ms: 200, ..Self::default() }
    }
}

pub struct Fleet {
    pub wafers: [Wafer; 2],
    pub gpus: Vec<Upstream>,
    pub gateway: Gateway,
    log: Arc<Mutex<String>>,
    asked: AtomicUsize,
    keys: AtomicUsize,
    files: [PathBuf; 2],
}

impl Fleet {
    pub async fn start(setup: &Setup) -> Self {
        let identity = Identity::new(&["h2", "http/1.1"]).unwrap();
        let wafer = async |name: &str| {
            let say = Say { reasoning: Vec::new(), texts: vec!["from ".to_owned(), name.to_owned()], call: None };
            let models = MODELS.iter().map(|(model, _)| (*model).to_owned()).collect();
            let ways = Ways { say, models, tokens_left: PLENTY, requests_left: PLENTY, ..Ways::default() };
            Wafer::start(ways, Some(identity.clone())).await.unwrap()
        };
        let wafers = [wafer(NAMES[0]).await, wafer(NAMES[1]).await];
        let mut gpus = Vec::new();
        for name in &NAMES[2..] {
            gpus.push(Upstream::start_with(Options::default(), vec![says(name)]).await.unwrap());
        }
        let [config, authority] = ["toml", "pem"].map(file);
        std::fs::write(&authority, identity.pem()).unwrap();
        let urls = wafers.iter().map(Wafer::base_url).chain(gpus.iter().map(Upstream::base_url));
        std::fs::write(&config, config_of(setup, &urls.collect::<Vec<_>>(), authority.to_str().unwrap())).unwrap();
        let variables = [("CEREBRAS_API_KEY", "csk-scripted"), ("FLASHLANE_LOG", setup.log)];
        let mut gateway = Gateway::start_with(&["--config", config.to_str().unwrap()], &variables);
        let log = Arc::<Mutex<String>>::default();
        let (lines, kept) = (BufReader::new(gateway.running.child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *kept.lock().unwrap() += &(line + "\n");
            }
        });
        let (asked, keys) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { wafers, gpus, gateway, log, asked, keys, files: [config, authority] }
    }

    pub async fn ask(&self, transport: Transport, model: &str) -> End {
        self.ask_with(transport, &json!({"model": model, "input": "hello"})).await
    }

    /// In the conversation of this key.
    pub async fn ask_as(&self, transport: Transport, model: &str, key: &str) -> End {
        self.ask_with(transport, &json!({"model": model, "input": "hello", "prompt_cache_key": key})).await
    }

    async fn ask_with(&self, transport: Transport, body: &Value) -> End {
        let end = ask(&self.gateway.clients, transport, body).await;
        self.asked.fetch_add(1, Ordering::Relaxed);
        end
    }

    /// The key of a conversation whose endpoint is this one.
    pub async fn pinned(&self, endpoint: usize, model: &str) -> String {
        for _ in 0..200 {
            let key = format!("conversation-{}", self.keys.fetch_add(1, Ordering::Relaxed));
            let end = self.ask_as(Transport::Http, model, &key).await;
            let End::Completed(text) = end else { panic!("no answer without a fault: {end:?}\n{}", self.log()) };
            if text == answer(endpoint) {
                return key;
            }
        }
        panic!("{} gets no turns\n{}", NAMES[endpoint], self.log());
    }

    pub async fn inject(&mut self, endpoint: usize, fault: &Fault) {
        match endpoint {
            0 | 1 => spoil_wafer(&mut self.wafers[endpoint], fault).await,
            _ => spoil_gpu(&mut self.gpus[endpoint - 2], NAMES[endpoint], fault).await,
        }
    }

    /// Undoes the fault, and waits until turns go there again.
    pub async fn heal(&mut self, endpoints: impl IntoIterator<Item = usize>, fault: &Fault) {
        for endpoint in endpoints {
            match endpoint {
                0 | 1 => {
                    self.wafers[endpoint].alter(|ways| ways.fault = wafer::Fault::None);
                    if let Fault::Refuses = fault {
                        self.wafers[endpoint].reopen().await.unwrap();
                    }
                }
                _ => {
                    let gpu = &mut self.gpus[endpoint - 2];
                    gpu.play(says(NAMES[endpoint]));
                    if let Fault::Refuses = fault {
                        gpu.reopen().await.unwrap();
                    }
                }
            }
        }
        for tier in [Tier::Latency, Tier::Throughput] {
            self.settled().await;
            while tier.endpoints().any(|endpoint| self.is_out(endpoint)) {
                let end = self.ask(Transport::Http, tier.only()).await;
                assert!(matches!(end, End::Completed(_)), "{end:?}\n{}", self.log());
                self.settled().await;
            }
        }
    }

    /// Turns that an endpoint was asked for.
    pub fn turns_seen(&self, endpoint: usize) -> usize {
        match endpoint {
            0 | 1 => self.wafers[endpoint].seen().turns().len(),
            _ => self.gpus[endpoint - 2].seen().requests.len(),
        }
    }

    /// Waits until it has nothing of a turn that it was never to end.
    pub async fn until_left(&self, endpoint: usize, abandoned_before: usize) {
        let left = async {
            match endpoint {
                0 | 1 => drop(self.wafers[endpoint].until(|seen| seen.abandoned > abandoned_before).await),
                _ => {
                    let is_left = |seen: &flashlane_testkit::upstream::Seen| {
                        seen.requests.last().is_some_and(|last| seen.closed[last.connection].is_some())
                    };
                    drop(self.gpus[endpoint - 2].until(is_left).await);
                }
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(5), left).await;
        assert!(waited.is_ok(), "{} still holds the dead turn's connection", NAMES[endpoint]);
    }

    pub fn abandoned(&self, endpoint: usize) -> usize {
        if endpoint < 2 { self.wafers[endpoint].seen().abandoned } else { 0 }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// How often an endpoint was put out.
    pub fn times_out(&self, endpoint: usize) -> usize {
        self.log().matches(&format!("no turns for a while endpoint={} ", NAMES[endpoint])).count()
    }

    fn is_out(&self, endpoint: usize) -> bool {
        let back = format!("endpoint gets turns again endpoint={}\n", NAMES[endpoint]);
        self.log().matches(&back).count() < self.times_out_at_first(endpoint)
    }

    /// How often it was put out of those that are in: a trial that fails leaves it where it is.
    fn times_out_at_first(&self, endpoint: usize) -> usize {
        self.times_out(endpoint) - self.log().matches(&format!("endpoint={} cause=again", NAMES[endpoint])).count()
    }

    /// Waits until all turns that were asked for are logged: what they did to endpoints and metrics is done by then.
    pub async fn settled(&self) {
        let asked = self.asked.load(Ordering::Relaxed);
        for _ in 0..2000 {
            let log = self.log();
            // What a client says behind an answer is refused.
            if log.matches(" INFO turn ").count() - log.matches(" INFO turn refused").count() == asked {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{asked} turns were asked for\n{}", self.log());
    }

    pub async fn metrics(&self) -> Metrics {
        let (status, text) = exchange(&self.gateway.admin, "GET /metrics", "").await;
        assert_eq!(status, 200);
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        Metrics(lines.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.files.iter().for_each(|file| drop(std::fs::remove_file(file)));
    }
}

/// By name and labels, as they are written.
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// The sum of all of this family whose labels have all of these.
    pub fn sum(&self, family: &str, labels: &[&str]) -> u64 {
        let fits = |name: &str| {
            let rest = name.strip_prefix(family)?;
            (rest.is_empty() || rest.starts_with('{')).then(|| labels.iter().all(|label| rest.contains(label)))
        };
        let found = self.0.iter().filter(|(name, _)| fits(name) == Some(true));
        found.map(|(_, value)| *value).sum::<f64>() as u64
    }
}

/// What an endpoint answers.
pub fn answer(endpoint: usize) -> String {
    format!("from {}", NAMES[endpoint])
}

fn events(name: &str) -> Vec<Bytes> {
    chat_events(&["from ", name])
}

fn says(name: &str) -> Vec<Step> {
    let mut steps = stream(&events(name));
    steps.push(Step::Again);
    steps
}

/// All bytes of a GPU's answer.
pub fn wire_of(endpoint: usize) -> Bytes {
    wire(&says(NAMES[endpoint]))
}

const IN_STREAM: &str = r#"{"error":{"message":"Encountered a server error.","type":"server_error","code":500}}"#;

/// The first events of an answer, and this one.
fn begun(name: &str, count: usize, next: Option<&str>) -> Vec<Step> {
    let mut steps = vec![Step::Expect, Step::stream_head()];
    steps.extend(events(name).into_iter().take(count).map(Step::Chunk));
    steps.extend(next.map(|next| Step::Chunk(Bytes::from(format!("{next}\n\n")))));
    steps
}

async fn spoil_gpu(gpu: &mut Upstream, name: &str, fault: &Fault) {
    let held = |mut steps: Vec<Step>| {
        steps.push(Step::Hold);
        steps
    };
    let script = match fault {
        Fault::Refuses => return gpu.shut().await,
        Fault::HangsUp => vec![Step::Reset],
        Fault::Resets => vec![Step::Expect, Step::Reset],
        Fault::Status(status, body) => {
            let mut steps = error(*status, "", body);
            steps.push(Step::Again);
            steps
        }
        Fault::Silent => vec![Step::Expect, Step::Hold],
        Fault::Stalls(count) => held(begun(name, *count, None)),
        Fault::Comments(count) => {
            let mut steps = begun(name, *count, None);
            let comment = [Step::Wait(Duration::from_millis(20)), Step::Chunk(Bytes::from_static(b": alive\n\n"))];
            steps.extend(std::iter::repeat_n(comment, 500).flatten());
            steps
        }
        Fault::Ends(count) => {
            let mut steps = begun(name, *count, None);
            steps.push(Step::Chunk(Bytes::new()));
            steps
        }
        Fault::Cut(bytes) => vec![Step::Expect, Step::Send(wire(&says(name)).slice(..*bytes))],
        Fault::NotHttp => vec![Step::Expect, Step::Send(Bytes::from_static(b"SSH-2.0-nobody\r\n\r\n"))],
        Fault::NotEvents => {
            let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>";
            vec![Step::Expect, Step::Send(Bytes::from_static(page.as_bytes())), Step::Again]
        }
        Fault::NotJson(count) => begun(name, *count, Some("data: <html>bad gateway</html>")),
        Fault::InStream(count) => begun(name, *count, Some(&format!("data: {IN_STREAM}"))),
    };
    gpu.play(script);
    if let Fault::HangsUp = fault {
        gpu.hang_up();
    }
}

async fn spoil_wafer(wafer: &mut Wafer, fault: &Fault) {
    let fault = match fault {
        Fault::Refuses => return wafer.shut().await,
        Fault::HangsUp => wafer::Fault::HangUp,
        Fault::Resets => wafer::Fault::Reset,
        Fault::Status(status, body) => {
            wafer::Fault::Status { status: *status, body: Bytes::from_static(body.as_bytes()) }
        }
        Fault::Silent => wafer::Fault::Silent,
        Fault::Stalls(events) => wafer::Fault::Stall { events: *events },
        Fault::Cut(bytes) => wafer::Fault::CutWire { bytes: *bytes },
        Fault::NotHttp => wafer::Fault::NotHttp,
        Fault::NotEvents => wafer::Fault::Status { status: 200, body: Bytes::from_static(b"<html></html>") },
        Fault::NotJson(events) => wafer::Fault::Garbage { events: *events },
        Fault::InStream(events) => wafer::Fault::InStream { events: *events },
        Fault::Comments(_) | Fault::Ends(_) => panic!("only GPUs do {fault:?}"),
    };
    let is_of_connections = matches!(fault, wafer::Fault::HangUp | wafer::Fault::Reset);
    wafer.alter(|ways| ways.fault = fault);
    if is_of_connections {
        wafer.hang_up();
    }
}

fn config_of(setup: &Setup, urls: &[String], authority: &str) -> String {
    let Setup { routing, first_token_ms_max, idle_ms_max, announce_after_ms, .. } = setup;
    let mut config = format!("[session]\nannounce_after_ms = {announce_after_ms}\n[routing]\n{routing}\n");
    for tier in ["latency", "throughput"] {
        config += &format!(
            "[queue.{tier}]\nfirst_token_ms_max = {first_token_ms_max}\ntoken_idle_ms_max = {}\n",
            2 * idle_ms_max
        );
    }
    for ((endpoint, name), url) in NAMES.iter().enumerate().zip(urls) {
        let common = format!("[[endpoints]]\nname = {name:?}\nbase_url = {url:?}\nidle_ms_max = {idle_ms_max}\n");
        config += &match endpoint {
            0 | 1 => format!(
                "{common}tier = \"latency\"\nbackend = \"cerebras\"\nhttp_version = {}\nca_file = {authority:?}\n",
                endpoint + 1
            ),
            _ => format!("{common}tier = \"throughput\"\nbackend = \"openai\"\ndialect = \"vllm\"\n"),
        };
    }
    for (model, route) in MODELS {
        config += &format!("[[models]]\nname = {model:?}\nroute = {route:?}\n");
    }
    config
}

/// A file's path of this process's own.
fn file(extension: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("fleet-{}-{number}.{extension}", std::process::id());
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}
