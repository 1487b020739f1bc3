//! A gateway in this process, and clients that see every byte.

use flashlane_backend::{Backends, EndpointConfig, Kind, Tier};
use flashlane_edge::{EdgeConfig, Haste, KeyConfig, Listeners, Parts, Renewal, Shown, State, Tls, TlsConfig};
use flashlane_engine::admission;
use flashlane_engine::seal::Keyring;
use flashlane_engine::{Fleet, Model, Settings, Shared};
use flashlane_store::{Limits, MemoryStore, Store};
use flashlane_telemetry::{Metrics, Turns};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Longer than anything here takes, short enough to end a test that hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits with [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    store: Arc<dyn Store>,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Plays at once: no waiting for tokens.
pub fn simulated() -> EndpointConfig {
    EndpointConfig {
        first_token_ms: Some(0),
        tokens_per_second: Some(0),
        ..EndpointConfig::new("sim", Tier::Latency, Kind::Simulator)
    }
}

pub fn upstream(base_url: &str) -> EndpointConfig {
    EndpointConfig { base_url: Some(base_url.to_owned()), ..EndpointConfig::new("gpu", Tier::Throughput, Kind::OpenAi) }
}

pub fn model(name: &str) -> Model {
    Model::named(name)
}

impl Gateway {
    pub async fn start(endpoint: EndpointConfig) -> Self {
        Self::start_with(endpoint, |_, _| {}).await
    }

    pub async fn start_with(endpoint: EndpointConfig, edit: impl FnOnce(&mut EdgeConfig, &mut Settings)) -> Self {
        Self::start_on(endpoint, Arc::new(MemoryStore::new(Limits::default())), edit).await
    }

    /// With a store that may have something in it.
    pub async fn start_on(
        endpoint: EndpointConfig,
        store: Arc<dyn Store>,
        edit: impl FnOnce(&mut EdgeConfig, &mut Settings),
    ) -> Self {
        Self::start_fleet(&[endpoint], store, admission::Settings::default(), &[], edit).await
    }

    /// Two simulated tiers, for those alone who have one of these keys.
    pub async fn start_keyed(keys: &[KeyConfig]) -> Self {
        let gpu = EndpointConfig { name: "gpu".to_owned(), tier: Tier::Throughput, ..simulated() };
        let store = Arc::new(MemoryStore::new(Limits::default()));
        Self::start_fleet(&[simulated(), gpu], store, admission::Settings::default(), keys, |_, _| {}).await
    }

    /// The same with an edge of its own.
    pub async fn start_keyed_with(keys: &[KeyConfig], edit: impl FnOnce(&mut EdgeConfig, &mut Settings)) -> Self {
        Self::start_with_keys(simulated(), keys, edit).await
    }

    pub async fn start_with_keys(
        endpoint: EndpointConfig,
        keys: &[KeyConfig],
        edit: impl FnOnce(&mut EdgeConfig, &mut Settings),
    ) -> Self {
        let store = Arc::new(MemoryStore::new(Limits::default()));
        Self::start_fleet(&[endpoint], store, admission::Settings::default(), keys, edit).await
    }

    /// Limits and queues before several endpoints.
    pub async fn start_behind(endpoints: &[EndpointConfig], admission: admission::Settings) -> Self {
        Self::start_behind_with(endpoints, admission, |_, _| {}).await
    }

    pub async fn start_behind_with(
        endpoints: &[EndpointConfig],
        admission: admission::Settings,
        edit: impl FnOnce(&mut EdgeConfig, &mut Settings),
    ) -> Self {
        Self::start_fleet(endpoints, Arc::new(MemoryStore::new(Limits::default())), admission, &[], edit).await
    }

    /// With a clock on the wall that a test may set.
    pub async fn start_with_wall(
        endpoint: EndpointConfig,
        admission: admission::Settings,
        wall: impl Fn() -> u64 + Send + Sync + 'static,
        edit: impl FnOnce(&mut EdgeConfig, &mut Settings),
    ) -> Self {
        let store = Arc::new(MemoryStore::new(Limits::default()));
        Self::start_state(&[endpoint], store, (admission, &[]), edit, |state| state.with_wall(wall)).await
    }

    async fn start_fleet(
        endpoints: &[EndpointConfig],
        store: Arc<dyn Store>,
        admission: admission::Settings,
        keys: &[KeyConfig],
        edit: impl FnOnce(&mut EdgeConfig, &mut Settings),
    ) -> Self {
        Self::start_state(endpoints, store, (admission, keys), edit, |state| state).await
    }

    /// Of other models.
    pub async fn start_of(endpoints: &[EndpointConfig], admission: admission::Settings, models: Vec<Model>) -> Self {
        let store = Arc::new(MemoryStore::new(Limits::default()));
        Self::start_models(models, (endpoints, store), (admission, &[]), |_, _| {}, |state| state).await
    }

    async fn start_state(
        endpoints: &[EndpointConfig],
        store: Arc<dyn Store>,
        (admission, keys): (admission::Settings, &[KeyConfig]),
        edit: impl FnOnce(&mut EdgeConfig, &mut Settings),
        finish: impl FnOnce(State) -> State,
    ) -> Self {
        let models = vec![model("demo"), model("openai/gpt-oss-120b")];
        Self::start_models(models, (endpoints, store), (admission, keys), edit, finish).await
    }

    async fn start_models(
        models: Vec<Model>,
        (endpoints, store): (&[EndpointConfig], Arc<dyn Store>),
        (admission, keys): (admission::Settings, &[KeyConfig]),
        edit: impl FnOnce(&mut EdgeConfig, &mut Settings),
        finish: impl FnOnce(State) -> State,
    ) -> Self {
        let any_port = "127.0.0.1:0".parse().unwrap();
        let mut config = EdgeConfig { listen: any_port, admin_listen: any_port, ..EdgeConfig::default() };
        let mut settings = Settings::default();
        edit(&mut config, &mut settings);
        let backends = Backends::new(endpoints).unwrap();
        let fleet = Fleet {
            endpoints: backends.endpoints().cloned().collect(),
            models,
            created_unix_s: 1_700_000_000,
            rules: Arc::default(),
        };
        let ring = Keyring::new(&[7; 32], &[], 1 << 20).unwrap();
        let listeners = Listeners::bind(&config).await.unwrap();
        let (address, admin) = (listeners.clients_address().unwrap(), listeners.admin_address().unwrap());
        let tls = config.tls.as_ref().map(|tls| Tls::load(tls).unwrap());
        let admin_tls = config.admin.tls.as_ref().map(|tls| Tls::load(tls).unwrap());
        let state = State::new(Parts {
            config,
            tls,
            admin_tls,
            shared: Arc::new(Shared::new(settings, Arc::new(fleet), Arc::new(ring))),
            keys: keys.to_vec(),
            backends: Arc::new(backends),
            shown: Shown::default(),
            admission,
            store: Arc::clone(&store),
            metrics: Arc::new(Metrics::new().unwrap()),
            turns: Arc::new(Turns::new(1000)),
            trace_sample_percent: Some(100),
        });
        let state = Arc::new(finish(state));
        let serving = tokio::spawn(listeners.serve(Arc::clone(&state)));
        Self { address, admin, store, state, serving }
    }

    /// As a reload does that changes TLS, and nothing else: the endpoint is [`simulated`].
    pub fn renew_tls(&self, tls: &TlsConfig) {
        let config = EdgeConfig { tls: Some(tls.clone()), ..EdgeConfig::default() };
        let renewal = Renewal {
            config,
            tls: Some(Tls::load(tls).unwrap()),
            admin_tls: None,
            settings: Settings::default(),
            fleet: Fleet::clone(&self.state.current().shared.fleet),
            backends: Backends::new(&[simulated()]).unwrap(),
            ring: None,
            keys: Vec::new(),
            admission: admission::Settings::default(),
            shown: Shown::default(),
        };
        self.state.renew(renewal).unwrap();
    }

    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Asks it to end, as Ctrl-C does.
    pub fn stop(&self) {
        self.stop_as(Haste::AtOnce);
    }

    pub fn stop_as(&self, haste: Haste) {
        assert!(self.state.stop(haste), "it was asked to already");
    }

    /// After [`Self::stop`]: waits until it has ended.
    pub async fn ended(mut self) {
        soon("the gateway to end", &mut self.serving).await.unwrap();
    }

    pub async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", b"").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, "content-type: application/json\r\n", body.to_string().as_bytes()).await
    }

    pub async fn send(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Reply {
        exchange(self.address, method, path, fields, body).await
    }

    /// Whatever bytes, and what is answered before the connection ends.
    pub async fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        let mut reply = Vec::new();
        soon("a reply", stream.read_to_end(&mut reply)).await.unwrap();
        Reply::parse(&reply)
    }

    pub async fn metrics(&self) -> String {
        let reply = exchange(self.admin, "GET", "/metrics", "", b"").await;
        assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        String::from_utf8(reply.body).unwrap()
    }

    pub async fn websocket(&self) -> Socket {
        let url = format!("ws://{}/v1/responses", self.address);
        let (socket, response) = tokio_tungstenite::client_async(url, self.connect().await).await.unwrap();
        assert_eq!(response.status(), 101);
        assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
        Socket(socket)
    }
}

/// One request on a connection of its own, read to its end.
pub async fn exchange(address: SocketAddr, method: &str, path: &str, fields: &str, body: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&request(method, path, &format!("connection: close\r\n{fields}"), body)).await.unwrap();
    let mut bytes = Vec::new();
    soon("a reply", stream.read_to_end(&mut bytes)).await.unwrap();
    Reply::parse(&bytes)
}

pub fn request(method: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{fields}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A response as it came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
    /// The chunks of a chunked body, each as it was framed.
    pub chunks: Vec<Vec<u8>>,
}

impl Reply {
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Self { status, head, body: bytes[end..].to_vec(), chunks: Vec::new() };
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.chunks = dechunk(&bytes[end..]);
            reply.body = reply.chunks.concat();
        }
        reply
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The events of an event stream; `[DONE]` is a string.
    pub fn events(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).unwrap();
        text.split_terminator("\n\n")
            .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
            .map(parse)
            .collect()
    }
}

fn parse(data: &str) -> Value {
    serde_json::from_str(data).unwrap_or_else(|_| Value::from(data))
}

fn dechunk(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|window| window == b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line_end]).unwrap(), 16).unwrap();
        if size == 0 {
            return chunks;
        }
        chunks.push(rest[line_end + 2..line_end + 2 + size].to_vec());
        rest = &rest[line_end + 4 + size..];
    }
}

/// A WebSocket client that is tungstenite, and not ours.
pub struct Socket<Io = TcpStream>(pub WebSocketStream<Io>);

impl<Io: AsyncRead + AsyncWrite + Unpin> Socket<Io> {
    pub async fn send(&mut self, event: &Value) {
        self.0.send(Message::text(event.to_string())).await.unwrap();
    }

    pub async fn message(&mut self) -> Option<Message> {
        soon("a message", self.0.next()).await.map(Result::unwrap)
    }

    /// The next event; a pong and the like are passed over.
    pub async fn event(&mut self) -> Value {
        loop {
            match self.message().await.expect("the socket is open") {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other @ (Message::Binary(_) | Message::Close(_) | Message::Frame(_)) => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Events up to and with the first of this type.
    pub async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.event().await;
            let is_last = event["type"] == kind;
            events.push(event);
            if is_last {
                return events;
            }
        }
    }

    /// A whole turn: its events, up to the terminal one.
    pub async fn turn(&mut self, create: &Value) -> Vec<Value> {
        self.send(create).await;
        self.until("response.completed").await
    }
}

pub fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap_or("?")).collect()
}

/// What a finished response says.
pub fn text(response: &Value) -> String {
    let items = response["output"].as_array().unwrap().iter();
    let parts = items.flat_map(|item| item["content"].as_array().cloned().unwrap_or_default());
    parts.filter_map(|part| part["text"].as_str().map(str::to_owned)).collect()
}

/// The head of a chunked stream, its first event, and then nothing: an upstream in the middle of its answer.
pub fn begun() -> Vec<flashlane_testkit::upstream::Step> {
    use flashlane_testkit::upstream::{Step, chat_events};
    let events = chat_events(&["one", " two"]);
    let mut steps = vec![Step::Expect, Step::stream_head()];
    steps.extend(events.into_iter().take(3).map(Step::Chunk));
    steps.push(Step::Hold);
    steps
}
