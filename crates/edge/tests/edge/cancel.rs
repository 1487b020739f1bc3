//! Nothing generates for nobody: a client that leaves, however it leaves, cancels its upstream at once.

use crate::support::{Gateway, begun, request, soon, upstream};
use flashlane_testkit::upstream::{Step, Upstream, chat_events};
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
    post_and(gateway, stream, b"").await
}

/// With bytes behind the body.
async fn post_and(gateway: &Gateway, stream: bool, behind: &[u8]) -> TcpStream {
    let mut client = gateway.connect().await;
    let body = json!({"model": "demo", "input": "hi", "stream": stream}).to_string();
    let mut bytes = request("POST", "/v1/responses", "", body.as_bytes());
    bytes.extend_from_slice(behind);
    client.write_all(&bytes).await.unwrap();
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

/// Old clients send a line's end behind a body.
#[tokio::test]
async fn a_client_that_has_sent_more_than_its_request_cancels_by_leaving_too() {
    let next = request("GET", "/v1/models", "", b"");
    assert_in_time(async |gateway: &Gateway| post_and(gateway, true, b"\r\n").await, drop).await;
    assert_in_time(async |gateway: &Gateway| post_and(gateway, false, b"\r\n").await, drop).await;
    assert_in_time(async |gateway: &Gateway| post_and(gateway, true, &next).await, half_close).await;
    let late = async |gateway: &Gateway| {
        let mut client = post_and(gateway, true, b"\r\n").await;
        client.write_all(&next).await.unwrap();
        client.write_all(&next).await.unwrap();
        client
    };
    assert_in_time(late, drop).await;
}

/// What is read to see whether the client has left is not lost.
#[tokio::test]
async fn requests_sent_ahead_are_answered_in_their_order() {
    let mut script = begun();
    script.pop();
    script.push(Step::Wait(Duration::from_millis(20)));
    script.extend(chat_events(&["one", " two"]).into_iter().skip(3).map(Step::Chunk));
    script.push(Step::Chunk(bytes::Bytes::new()));
    let upstream_server = Upstream::start(vec![script]).await.unwrap();
    let gateway = Gateway::start(upstream(&upstream_server.base_url())).await;
    let body =
        json!({"model": "demo", "input": "hi", "stream": true, "metadata": {"long": "x".repeat(300)}}).to_string();
    let mut client = gateway.connect().await;
    let turn = request("POST", "/v1/responses", "", body.as_bytes());
    client.write_all(&turn).await.unwrap();
    client.write_all(b"\r\n").await.unwrap();
    for _ in 0..20 {
        client.write_all(&turn).await.unwrap();
        tokio::task::yield_now().await;
    }
    client.write_all(&request("GET", "/v1/models/demo", "connection: close\r\n", b"")).await.unwrap();
    let mut bytes = Vec::new();
    soon("all answers", client.read_to_end(&mut bytes)).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.matches("event: response.completed").count(), 21);
    assert!(text.ends_with(r#""owned_by":"flashlane"}"#), "{text}");
}

/// Keeps the socket, so that only the FIN is sent.
fn half_close(client: TcpStream) -> std::net::TcpStream {
    let client = client.into_std().unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    client
}
