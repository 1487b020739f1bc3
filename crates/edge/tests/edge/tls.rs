//! TLS for clients: everything that plain connections do, and the handshake's own rules.

use crate::support::{Gateway, PATIENCE, Reply, Socket, begun, exchange, request, simulated, soon, text, upstream};
use bytes::Bytes;
use flashlane_backend::EndpointConfig;
use flashlane_edge::{ClientCertificates, EdgeConfig, Tls, TlsConfig};
use flashlane_testkit::upstream::{Upstream, chat_events, stream};
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use std::error::Error as _;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;

static FILES: AtomicU32 = AtomicU32::new(0);

/// A file that is gone after the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> Self {
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("flashlane-edge-tls-{}-{number}.pem", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A certificate for this machine, signed by itself, in files.
pub struct Identity {
    certificate: TempFile,
    key: TempFile,
    roots: RootCertStore,
}

impl Identity {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        Self {
            certificate: TempFile::new(&made.cert.pem()),
            key: TempFile::new(&made.signing_key.serialize_pem()),
            roots,
        }
    }

    pub fn config(&self) -> TlsConfig {
        TlsConfig {
            certificate_file: self.certificate.0.clone(),
            key_file: self.key.0.clone(),
            handshake_ms_max: 10_000,
            handshakes_max: NonZeroU16::MIN,
            client_ca_file: None,
            client_certificates: None,
        }
    }

    pub fn client(&self, alpn: &[&str], versions: &[&'static SupportedProtocolVersion]) -> TlsConnector {
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// An authority, and a client that it knows.
struct Authority {
    certificate: TempFile,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = TempFile::new(&params.self_signed(&key).unwrap().pem());
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A client of this server, with a certificate of this authority.
    fn client(&self, server: &Identity) -> TlsConnector {
        self.client_by(server, &TLS13)
    }

    fn client_by(&self, server: &Identity, version: &'static SupportedProtocolVersion) -> TlsConnector {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["app".to_owned()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(server.roots.clone())
            .with_client_auth_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        TlsConnector::from(Arc::new(config))
    }
}

/// The status of a request behind a handshake; None: it was not let through.
async fn status(client: &TlsConnector, address: SocketAddr, path: &str) -> Option<u16> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut stream = client.connect(ServerName::try_from("localhost").unwrap(), tcp).await.ok()?;
    // TLS 1.3: the client's part ends before the server has seen its certificate.
    stream.write_all(&request("GET", path, "connection: close\r\n", b"")).await.ok()?;
    let mut bytes = Vec::new();
    soon("an answer", stream.read_to_end(&mut bytes)).await.ok()?;
    Some(Reply::parse(&bytes).status)
}

#[tokio::test]
async fn a_client_shows_a_certificate_of_the_authority_or_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let secure = Secure::start_with(simulated(), |tls| {
        tls.client_ca_file = Some(authority.certificate.0.clone());
    })
    .await;
    let address = secure.gateway.address;
    let known = authority.client(&secure.identity);
    assert_eq!(status(&known, address, "/v1/models").await, Some(200));
    // The second time by a ticket, which remembers the certificate.
    assert_eq!(status(&known, address, "/v1/models").await, Some(200));
    assert_eq!(status(&secure.client, address, "/v1/models").await, None);
    assert_eq!(status(&stranger.client(&secure.identity), address, "/v1/models").await, None);
    assert!(secure.gateway.metrics().await.contains("flashlane_tls_handshakes_failed_total{reason=\"failed\"} 2"));
}

#[tokio::test]
async fn an_optional_certificate_may_be_left_out_and_must_be_good() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let secure = Secure::start_with(simulated(), |tls| {
        tls.client_ca_file = Some(authority.certificate.0.clone());
        tls.client_certificates = Some(ClientCertificates::Optional);
    })
    .await;
    let address = secure.gateway.address;
    assert_eq!(status(&secure.client, address, "/v1/models").await, Some(200));
    assert_eq!(status(&authority.client(&secure.identity), address, "/v1/models").await, Some(200));
    assert_eq!(status(&stranger.client(&secure.identity), address, "/v1/models").await, None);
}

#[tokio::test]
async fn a_ticket_of_before_lets_nobody_in_whose_authority_is_gone() {
    for version in [&TLS13, &TLS12] {
        let (gone, holds) = (Authority::new(), Authority::new());
        let secure = Secure::start_with(simulated(), |tls| {
            tls.client_ca_file = Some(gone.certificate.0.clone());
        })
        .await;
        let address = secure.gateway.address;
        let known = gone.client_by(&secure.identity, version);
        assert_eq!(status(&known, address, "/v1/models").await, Some(200));
        let resumed = connect(&known, secure.gateway.connect().await).await;
        assert_eq!(resumed.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        drop(resumed);
        // Another authority in the same file.
        std::fs::copy(&holds.certificate.0, &gone.certificate.0).unwrap();
        let tls = TlsConfig { client_ca_file: Some(gone.certificate.0.clone()), ..secure.identity.config() };
        secure.gateway.renew_tls(&tls);
        for _ in 0..3 {
            assert_eq!(status(&known, address, "/v1/models").await, None, "{version:?}");
        }
        let new = holds.client_by(&secure.identity, version);
        assert_eq!(status(&new, address, "/v1/models").await, Some(200));
        // A reload that leaves TLS as it is leaves tickets good.
        secure.gateway.renew_tls(&tls);
        let kept = connect(&new, secure.gateway.connect().await).await;
        assert_eq!(kept.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[tokio::test]
async fn operators_may_speak_tls_of_their_own() {
    let (authority, identity) = (Authority::new(), Identity::new());
    let tls = TlsConfig { client_ca_file: Some(authority.certificate.0.clone()), ..identity.config() };
    let gateway = Gateway::start_with(simulated(), |config, _| config.admin.tls = Some(tls)).await;
    assert_eq!(status(&authority.client(&identity), gateway.admin, "/metrics").await, Some(200));
    assert_eq!(status(&identity.client(&["http/1.1"], &[&TLS13]), gateway.admin, "/livez").await, None);
}

#[tokio::test]
async fn a_ticket_allows_no_early_data() {
    let secure = Secure::start(simulated()).await;
    let mut config = ClientConfig::clone(secure.client.config());
    config.enable_early_data = true;
    let config = Arc::new(config);
    let client = TlsConnector::from(Arc::clone(&config));
    assert_eq!(status(&client, secure.gateway.address, "/v1/models").await, Some(200));
    let tcp = TcpStream::connect(secure.gateway.address).await.unwrap();
    let resumed = client.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
    assert_eq!(resumed.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    let mut next = rustls::ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    assert!(next.early_data().is_none(), "the ticket offers early data");
}

/// A gateway that speaks TLS, and a client that trusts it.
struct Secure {
    gateway: Gateway,
    client: TlsConnector,
    identity: Identity,
}

impl Secure {
    async fn start(endpoint: EndpointConfig) -> Self {
        Self::start_with(endpoint, |_| {}).await
    }

    async fn start_with(endpoint: EndpointConfig, edit: impl FnOnce(&mut TlsConfig)) -> Self {
        let identity = Identity::new();
        let mut tls = identity.config();
        edit(&mut tls);
        let gateway = Gateway::start_with(endpoint, |config: &mut EdgeConfig, _| config.tls = Some(tls)).await;
        let client = identity.client(&["http/1.1"], &[&TLS13]);
        Self { gateway, client, identity }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        connect(&self.client, self.gateway.connect().await).await
    }

    async fn websocket(&self) -> Socket<TlsStream<TcpStream>> {
        upgraded(self.connect().await).await
    }
}

pub async fn connect<Io: AsyncRead + AsyncWrite + Unpin>(client: &TlsConnector, io: Io) -> TlsStream<Io> {
    soon("the handshake", client.connect(ServerName::try_from("localhost").unwrap(), io)).await.unwrap()
}

pub async fn upgraded<Io: AsyncRead + AsyncWrite + Unpin>(io: Io) -> Socket<Io> {
    let (socket, response) = tokio_tungstenite::client_async("wss://localhost/v1/responses", io).await.unwrap();
    assert_eq!(response.status(), 101);
    Socket(socket)
}

fn create() -> Value {
    json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})
}

/// One request and its whole answer. That it ends by close_notify rustls sees to: without it, the end is an error.
async fn post(io: &mut TlsStream<TcpStream>, body: &Value) -> Reply {
    let body = body.to_string();
    io.write_all(&request("POST", "/v1/responses", "connection: close\r\n", body.as_bytes())).await.unwrap();
    let mut bytes = Vec::new();
    soon("a reply", io.read_to_end(&mut bytes)).await.unwrap();
    Reply::parse(&bytes)
}

#[tokio::test]
async fn http_1_is_answered_and_ends_in_close_notify() {
    let secure = Secure::start(simulated()).await;
    let mut io = secure.connect().await;
    assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let reply = post(&mut io, &json!({"model": "demo", "input": "count from 1 to 3"})).await;
    assert_eq!((reply.status, text(&reply.json()).as_str()), (200, "1\n2\n3"));
    let reply = post(&mut secure.connect().await, &json!({"model": "demo", "input": "hello", "stream": true})).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert!(reply.body.ends_with(b"data: [DONE]\n\n"));
    let events = reply.events();
    assert_eq!(events[events.len() - 2]["type"], "response.completed");
}

#[tokio::test]
async fn http_2_is_chosen_by_alpn() {
    let secure = Secure::start(simulated()).await;
    let both = secure.identity.client(&["http/1.1", "h2"], &[&TLS13, &TLS12]);
    let io = connect(&both, secure.gateway.connect().await).await;
    assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    let connection = tokio::spawn(connection);
    let body = json!({"model": "demo", "input": "count from 1 to 5", "stream": true}).to_string();
    let request = hyper::Request::post("https://localhost/v1/responses").body(Full::new(Bytes::from(body))).unwrap();
    let response = soon("an answer", sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = soon("its body", response.into_body().collect()).await.unwrap().to_bytes();
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    connection.abort();
}

#[tokio::test]
async fn a_client_without_alpn_or_with_tls_1_2_is_served_and_one_that_speaks_neither_http_is_not() {
    let secure = Secure::start(simulated()).await;
    let old = secure.identity.client(&[], &[&TLS12]);
    let mut io = connect(&old, secure.gateway.connect().await).await;
    assert_eq!(post(&mut io, &json!({"model": "demo", "input": "hello"})).await.status, 200);
    let other = secure.identity.client(&["spdy/1"], &[&TLS13]);
    let name = ServerName::try_from("localhost").unwrap();
    let error = soon("a refusal", other.connect(name, secure.gateway.connect().await)).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn a_websocket_turns_and_closes_with_close_notify() {
    let secure = Secure::start(simulated()).await;
    let mut socket = secure.websocket().await;
    for _ in 0..2 {
        let events = socket.turn(&create()).await;
        assert_eq!(events.last().unwrap()["type"], "response.completed");
    }
    socket.0.close(None).await.unwrap();
    assert!(matches!(socket.message().await, Some(Message::Close(_))));
    assert_eq!(socket.message().await, None);
    let mut io = socket.0.into_inner();
    // Read on, a connection without close_notify would end in an error.
    assert_eq!(soon("the end", io.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn the_second_connection_resumes() {
    for version in [&TLS13, &TLS12] {
        let secure = Secure::start(simulated()).await;
        let client = secure.identity.client(&["http/1.1"], &[version]);
        let mut kinds = Vec::new();
        for _ in 0..3 {
            let mut io = connect(&client, secure.gateway.connect().await).await;
            kinds.push(io.get_ref().1.handshake_kind().unwrap());
            post(&mut io, &json!({"model": "demo", "input": "hello"})).await;
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed], "{version:?}");
    }
}

#[tokio::test]
async fn a_plain_request_is_told_to_use_tls() {
    let secure = Secure::start(simulated()).await;
    let body = json!({"model": "demo", "input": "hello"}).to_string();
    let reply = exchange(secure.gateway.address, "POST", "/v1/responses", "", body.as_bytes()).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
    assert_eq!(reply.json()["error"]["code"], "tls_required");
    assert!(reply.header("x-request-id").unwrap().starts_with("req_"), "{reply:?}");
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_closed() {
    let secure = Secure::start_with(simulated(), |tls| tls.handshake_ms_max = 50).await;
    for begun in [&b""[..], &[22, 3, 1], b"GET"] {
        let mut io = secure.gateway.connect().await;
        io.write_all(begun).await.unwrap();
        let mut bytes = Vec::new();
        soon("the end", io.read_to_end(&mut bytes)).await.unwrap();
        assert_eq!(bytes.starts_with(b"HTTP/1.1 400"), begun == b"GET", "{begun:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_comes_to_nothing_is_counted_by_its_reason() {
    let secure = Secure::start_with(simulated(), |tls| tls.handshake_ms_max = 500).await;
    // Half of a record, a record that is no hello, no record.
    for begun in [&[22, 3, 1][..], &[22, 3, 1, 0, 4, 9, 9, 9, 9], b"GET"] {
        let mut io = secure.gateway.connect().await;
        io.write_all(begun).await.unwrap();
        soon("the end", io.read_to_end(&mut Vec::new())).await.unwrap();
    }
    let lines = ["late", "failed", "plain"]
        .map(|reason| format!("flashlane_tls_handshakes_failed_total{{reason=\"{reason}\"}} 1\n"));
    let counted = async {
        loop {
            let metrics = secure.gateway.metrics().await;
            if lines.iter().all(|line| metrics.contains(line)) {
                break;
            }
        }
    };
    soon("the counts", counted).await;
}

#[tokio::test]
async fn clients_that_are_slow_to_shake_hands_hold_up_nobody_and_no_drain() {
    let secure = Secure::start(simulated()).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut io = secure.gateway.connect().await;
        io.write_all(&[22, 3, 1]).await.unwrap();
        slow.push(io);
    }
    let began = Instant::now();
    secure.websocket().await.turn(&create()).await;
    secure.gateway.stop();
    secure.gateway.ended().await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn many_handshakes_at_once_are_all_done() {
    let secure = Secure::start(simulated()).await;
    let handshakes = (0..100).map(|_| secure.connect());
    let done = futures_util::future::join_all(handshakes).await;
    assert_eq!(done.len(), 100);
}

/// Of so many tries one must be in time: the machine may be busy with something else in the others.
const TRIES: usize = 5;
const IN_TIME: Duration = Duration::from_millis(10);

/// A turn has begun for each client; leaving ends it upstream.
async fn assert_cancels<Client, Leave>(begin: impl AsyncFn(&Secure) -> Client, leave: impl AsyncFn(Client) -> Leave) {
    let upstream_server = Upstream::start(vec![begun()]).await.unwrap();
    let secure = Secure::start(upstream(&upstream_server.base_url())).await;
    let mut waits = Vec::new();
    for round in 0..TRIES {
        let client = begin(&secure).await;
        let connection = upstream_server.seen().requests[round].connection;
        let left = Instant::now();
        let kept = leave(client).await;
        let seen = soon("the cancel", upstream_server.until(|seen| seen.closed[connection].is_some())).await;
        waits.push(seen.closed[connection].unwrap().saturating_duration_since(left));
        drop(kept);
    }
    assert!(waits.iter().any(|wait| *wait <= IN_TIME), "{waits:?}");
}

async fn streaming_websocket(secure: &Secure) -> TlsStream<TcpStream> {
    let mut socket = secure.websocket().await;
    socket.send(&create()).await;
    socket.until("response.output_text.delta").await;
    socket.0.into_inner()
}

async fn event_stream(secure: &Secure) -> TlsStream<TcpStream> {
    let mut io = secure.connect().await;
    let body = json!({"model": "demo", "input": "hi", "stream": true}).to_string();
    io.write_all(&request("POST", "/v1/responses", "", body.as_bytes())).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("response.output_text.delta") {
        soon("a delta", io.read_buf(&mut seen)).await.unwrap();
    }
    io
}

/// Sends close_notify, and keeps the socket.
async fn say_goodbye(mut io: TlsStream<TcpStream>) -> TlsStream<TcpStream> {
    io.get_mut().1.send_close_notify();
    io.flush().await.unwrap();
    io
}

#[tokio::test]
async fn a_client_that_leaves_cancels_with_and_without_close_notify() {
    assert_cancels(streaming_websocket, async |io| drop(io)).await;
    assert_cancels(streaming_websocket, say_goodbye).await;
    assert_cancels(event_stream, async |io| drop(io)).await;
    assert_cancels(event_stream, say_goodbye).await;
}

/// A connection that keeps what it has read.
struct Tapped {
    io: TcpStream,
    read: Vec<u8>,
}

impl Tapped {
    /// How many records of application data came since the first `from` bytes.
    fn records(&self, from: usize) -> usize {
        let (mut count, mut at) = (0, 0);
        while let Some(head) = self.read.get(at..at + 5) {
            count += usize::from(head[0] == 23 && at >= from);
            at += 5 + usize::from(u16::from_be_bytes([head[3], head[4]]));
        }
        count
    }
}

impl AsyncRead for Tapped {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        this.read.extend_from_slice(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn what_comes_from_upstream_at_once_goes_out_in_one_record() {
    let whole = chat_events(&["a"; 40]).concat();
    let upstream_server = Upstream::start(vec![stream(&[Bytes::from(whole)])]).await.unwrap();
    let secure = Secure::start(upstream(&upstream_server.base_url())).await;
    let io = Tapped { io: secure.gateway.connect().await, read: Vec::new() };
    let mut socket = upgraded(connect(&secure.client, io).await).await;
    let tap = |socket: &Socket<TlsStream<Tapped>>| socket.0.get_ref().get_ref().0.read.len();
    let before = tap(&socket);
    let events = socket.turn(&create()).await;
    assert!(events.len() > 40);
    let bytes = tap(&socket) - before;
    let records = socket.0.get_ref().get_ref().0.records(before);
    // Head and body of the upstream's answer may be read apart; a record holds 16 KiB.
    assert!(records <= 3 + bytes / 16384, "{records} records for {} events, {bytes} bytes", events.len());
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let piece = "x".repeat(2048);
    let events = chat_events(&vec![piece.as_str(); 3000]);
    let upstream_server = Upstream::start(vec![stream(&events)]).await.unwrap();
    let secure = Secure::start(upstream(&upstream_server.base_url())).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let io = socket.connect(secure.gateway.address).await.unwrap();
    let mut socket = upgraded(connect(&secure.client, io).await).await;
    socket.send(&create()).await;
    let mut bytes = 0;
    let began = Instant::now();
    loop {
        let event = socket.event().await;
        bytes += event["delta"].as_str().map_or(0, str::len);
        if event["type"] == "response.completed" {
            break;
        }
        assert!(began.elapsed() < 3 * PATIENCE);
    }
    assert_eq!(bytes, 3000 * piece.len());
}

#[tokio::test]
async fn a_stop_closes_an_idle_socket_1012() {
    let secure = Secure::start(simulated()).await;
    let mut socket = secure.websocket().await;
    secure.gateway.stop();
    assert!(matches!(socket.message().await, Some(Message::Close(Some(frame))) if u16::from(frame.code) == 1012));
    while socket.0.next().await.is_some_and(|message| message.is_ok()) {}
    let _ = socket.0.close(None).await;
    drop(socket);
    secure.gateway.ended().await;
}

#[test]
fn files_that_cannot_be_served_are_named_with_their_field() {
    let (identity, other) = (Identity::new(), Identity::new());
    let nothing = TempFile::new("nothing\n");
    let broken = TempFile::new("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let bad_key = TempFile::new("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let cut = TempFile::new("-----BEGIN CERTIFICATE-----\nAAAA\n");
    let missing = PathBuf::from("no-such-file.pem");
    let (certificate, key) = (&identity.certificate.0, &identity.key.0);
    let cases = [
        (&missing, key, "certificate_file", "cannot read `no-such-file.pem`"),
        (certificate, &missing, "key_file", "cannot read `no-such-file.pem`"),
        (&nothing.0, key, "certificate_file", "no CERTIFICATE block"),
        (&cut.0, key, "certificate_file", "no usable certificate"),
        (&broken.0, key, "certificate_file", "no usable certificate"),
        (key, key, "certificate_file", "no CERTIFICATE block"),
        (certificate, &nothing.0, "key_file", "no unencrypted PRIVATE KEY block"),
        (certificate, certificate, "key_file", "no unencrypted PRIVATE KEY block"),
        (certificate, &bad_key.0, "key_file", "no usable private key"),
        (certificate, &other.key.0, "key_file", "is not that of the certificate in"),
    ];
    for (certificate_file, key_file, field, message) in cases {
        let (certificate_file, key_file) = (certificate_file.clone(), key_file.clone());
        let config = TlsConfig { certificate_file, key_file, ..identity.config() };
        let error = Tls::load(&config).err().unwrap_or_else(|| panic!("accepted {config:?}"));
        assert_eq!(error.field, field, "{error}");
        let said = error.source().unwrap().to_string();
        assert!(said.contains(message), "{said}");
    }
    assert!(Tls::load(&identity.config()).is_ok());
}
