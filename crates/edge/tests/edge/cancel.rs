//! Nothing generates for nobody: a client that leaves, however it leaves, cancels its upstream at once.

use crate::support::{Gateway, begun, request, soon, upstream};
use flashlane_testkit::upstream::Upstream;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Of so many tries one must be in time: the machine may be busy with something else in the others.
const TRIES: usize = 5;
const IN_TIME: Duration = Duration::from_millis(10);

/// From each client's leaving to the end of its upstream connection.
async fn assert_in_time<Client, Leave>(begin: impl AsyncFn(&Gateway) -> Client, leave: impl Fn(Client) -> Leave) {
    let upstream_server = Upstream::start(vec![begun()]).await.unwrap();
    let gateway = Gateway::start(upstream(&upstream_server.base_url())).await;
    let mut waits = Vec::new();
    for round in 0..TRIES {
        let client = begin(&gateway).await;
        soon("the request", upstream_server.until(|seen| seen.requests.len() > round)).await;
        let connection = upstream_server.seen().requests[round].connection;
        let left = Instant::now();
        let kept = leave(client);
        let seen = soon("the cancel", upstream_server.until(|seen| seen.closed[connection].is_some())).await;
        waits.push(seen.closed[connection].unwrap().saturating_duration_since(left));
        drop(kept);
    }
    assert!(waits.iter().any(|wait| *wait <= IN_TIME), "{waits:?}");
    let metrics = gateway.metrics().await;
    let line = format!("flashlane_turns_total{{outcome=\"cancelled\",tier=\"throughput\"}} {TRIES}");
    assert!(metrics.contains(&line), "{metrics}");
    assert!(metrics.contains("flashlane_upstream_turns_in_flight{endpoint=\"gpu\"} 0"), "{metrics}");
}

async fn websocket(gateway: &Gateway) -> TcpStream {
    let mut socket = gateway.websocket().await;
    socket.send(&json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})).await;
    socket.until("response.output_text.delta").await;
    socket.0.into_inner()
}

/// A POST whose answer has begun, or will not begin.
async fn post(gateway: &Gateway, stream: bool) -> TcpStream {
    let mut client = gateway.connect().await;
    let body = json!({"model": "demo", "input": "hi", "stream": stream}).to_string();
    client.write_all(&request("POST", "/v1/responses", "", body.as_bytes())).await.unwrap();
    if stream {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("response.output_text.delta") {
            soon("a delta", client.read_buf(&mut seen)).await.unwrap();
        }
    }
    client
}

#[tokio::test]
async fn a_websocket_that_drops_cancels() {
    assert_in_time(websocket, drop).await;
}

#[tokio::test]
async fn a_websocket_that_is_reset_cancels() {
    assert_in_time(websocket, |client| client.set_zero_linger().unwrap()).await;
}

#[tokio::test]
async fn a_websocket_that_is_half_closed_cancels() {
    assert_in_time(websocket, half_close).await;
}

#[tokio::test]
async fn an_event_stream_that_drops_cancels() {
    assert_in_time(async |gateway: &Gateway| post(gateway, true).await, drop).await;
}

#[tokio::test]
async fn a_request_that_drops_before_its_answer_cancels() {
    assert_in_time(async |gateway: &Gateway| post(gateway, false).await, drop).await;
}

/// Keeps the socket, so that only the FIN is sent.
fn half_close(client: TcpStream) -> std::net::TcpStream {
    let client = client.into_std().unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    client
}
