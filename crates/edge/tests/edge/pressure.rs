//! Backpressure: what a client does not read is neither generated for ever nor kept.

use crate::support::{Gateway, soon, upstream};
use futures_util::SinkExt as _;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

/// More than the sockets' buffers of both hops hold, far less than an unbounded buffer would have taken by then.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A flood that has stood still for so long stands.
const STILL: Duration = Duration::from_millis(300);

const STALL: Duration = Duration::from_millis(300);

/// An upstream that never ends its answer and counts what it could send.
struct Flood {
    base_url: String,
    sent: Arc<AtomicU64>,
    is_cut: watch::Receiver<bool>,
    _tasks: JoinSet<()>,
}

impl Flood {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let sent = Arc::new(AtomicU64::new(0));
        let (cut, is_cut) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let counter = Arc::clone(&sent);
        tasks.spawn(async move {
            // The first connection may be a warm one that is never used: each serves itself.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(flood(stream, Arc::clone(&counter), cut.clone()));
            }
        });
        Self { base_url, sent, is_cut, _tasks: tasks }
    }

    /// How much it sent until nobody took more.
    async fn standstill(&self) -> u64 {
        loop {
            let before = self.sent.load(Ordering::SeqCst);
            tokio::time::sleep(STILL).await;
            let after = self.sent.load(Ordering::SeqCst);
            assert!(after < BYTES_MAX, "{after} bytes were taken that nobody reads");
            if before == after && after > 0 {
                return after;
            }
        }
    }

    async fn cut(&mut self) {
        soon("the cancel", self.is_cut.wait_for(|is_cut| *is_cut)).await.unwrap();
    }
}

async fn flood(mut stream: TcpStream, sent: Arc<AtomicU64>, cut: watch::Sender<bool>) {
    let mut request = Vec::new();
    while !request.ends_with(b"]}") && !request.ends_with(b"}}") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let text = "la ".repeat(300);
    let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
    let chunk = format!("data: {chunk}\n\n");
    let mut result = stream.write_all(head.as_bytes()).await;
    while result.is_ok() {
        result = stream.write_all(chunk.as_bytes()).await;
        sent.fetch_add(chunk.len() as u64, Ordering::SeqCst);
    }
    cut.send_replace(true);
}

#[tokio::test]
async fn an_upstream_waits_for_a_websocket_that_does_not_read_and_goes_on_when_it_does() {
    let flood = Flood::start().await;
    let gateway = Gateway::start(upstream(&flood.base_url)).await;
    let mut socket = gateway.websocket().await;
    socket.send(&json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})).await;
    let stood = flood.standstill().await;
    let mut read = 0;
    while read < stood * 2 {
        read += socket.message().await.expect("the stream goes on").len() as u64;
    }
    assert!(flood.sent.load(Ordering::SeqCst) > stood);
}

#[tokio::test]
async fn an_upstream_waits_for_an_event_stream_that_is_not_read_and_is_cut_when_its_client_leaves() {
    let mut flood = Flood::start().await;
    let gateway = Gateway::start(upstream(&flood.base_url)).await;
    let mut client = gateway.connect().await;
    let body = json!({"model": "demo", "input": "hi", "stream": true}).to_string();
    client.write_all(&crate::support::request("POST", "/v1/responses", "", body.as_bytes())).await.unwrap();
    flood.standstill().await;
    client.shutdown().await.unwrap();
    flood.cut().await;
}

#[tokio::test]
async fn an_event_stream_that_is_never_read_is_not_held_for_ever() {
    let mut flood = Flood::start().await;
    let gateway = Gateway::start_with(upstream(&flood.base_url), |config, _| config.limits.ping_ms = 100).await;
    let mut client = gateway.connect().await;
    let body = json!({"model": "demo", "input": "hi", "stream": true}).to_string();
    client.write_all(&crate::support::request("POST", "/v1/responses", "", body.as_bytes())).await.unwrap();
    flood.cut().await;
}

#[tokio::test]
async fn a_websocket_that_is_never_read_is_closed_and_its_upstream_cut() {
    let mut flood = Flood::start().await;
    let gateway = stalling(&flood).await;
    let mut socket = gateway.websocket().await;
    socket.send(&json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})).await;
    flood.cut().await;
    // It answers pings of its own accord, and still is none that reads.
    let metrics = gateway.metrics().await;
    assert!(metrics.contains("flashlane_connections_open{transport=\"websocket\"} 0"));
    assert!(metrics.contains("flashlane_clients_cut_total{reason=\"stalled\"} 1"));
}

#[tokio::test]
async fn an_event_stream_that_takes_nothing_is_closed_and_its_upstream_cut() {
    let mut flood = Flood::start().await;
    let gateway = stalling(&flood).await;
    let mut client = gateway.connect().await;
    let body = json!({"model": "demo", "input": "hi", "stream": true}).to_string();
    client.write_all(&crate::support::request("POST", "/v1/responses", "", body.as_bytes())).await.unwrap();
    flood.cut().await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_reads_is_not_stalled() {
    let flood = Flood::start().await;
    let gateway = stalling(&flood).await;
    let mut socket = gateway.websocket().await;
    socket.send(&json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})).await;
    let (began, mut read) = (tokio::time::Instant::now(), 0);
    while began.elapsed() < 5 * STALL {
        read += socket.message().await.expect("the stream goes on").len();
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    assert!(read > 0);
}

/// No ping is ever due, and the kernel waits for ever.
async fn stalling(flood: &Flood) -> Gateway {
    let edit = |config: &mut flashlane_edge::EdgeConfig| {
        (config.limits.write_stall_ms_max, config.limits.ping_ms) = (u64::try_from(STALL.as_millis()).unwrap(), 0);
    };
    Gateway::start_with(upstream(&flood.base_url), |config, _| edit(config)).await
}

#[tokio::test]
async fn an_interrupt_gets_through_however_much_is_unwritten() {
    let mut flood = Flood::start().await;
    // One read from upstream goes far beyond this mark.
    let gateway =
        Gateway::start_with(upstream(&flood.base_url), |config, _| config.limits.outgoing_bytes_high = 512).await;
    let mut socket = gateway.websocket().await;
    socket.send(&json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})).await;
    let created = socket.event().await;
    flood.standstill().await;
    let interrupt = json!({"type": "response.interrupt", "response_id": created["response"]["id"]});
    socket.send(&interrupt).await;
    flood.cut().await;
    socket.until("response.incomplete").await;
}

#[tokio::test]
async fn a_client_that_stopped_reading_and_half_closes_is_gone() {
    let mut flood = Flood::start().await;
    let gateway = Gateway::start(upstream(&flood.base_url)).await;
    let mut socket = gateway.websocket().await;
    socket.send(&json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})).await;
    flood.standstill().await;
    // More than is read at once: the end stands behind it.
    socket.send(&json!({"type": "nonsense", "padding": "x".repeat(4 << 20)})).await;
    let mut client = socket.0.into_inner();
    client.shutdown().await.unwrap();
    flood.cut().await;
}

#[tokio::test]
async fn a_client_that_only_sends_is_not_read_for_ever() {
    let gateway = Gateway::start(crate::support::simulated()).await;
    let mut socket = gateway.websocket().await;
    let message = Message::text(json!({"type": "nonsense", "padding": "x".repeat(1000)}).to_string());
    let mut sent = 0;
    while let Ok(result) = tokio::time::timeout(STILL, socket.0.send(message.clone())).await {
        result.unwrap();
        sent += message.len() as u64;
        assert!(sent < BYTES_MAX, "{sent} bytes were taken whose answers nobody reads");
    }
    // What it is told once it reads: an error for each.
    for _ in 0..1000 {
        assert_eq!(socket.event().await["type"], "error");
    }
}
