//! Start, probes, pings and the end.

use crate::support::{Gateway, begun, exchange, simulated, soon, text, upstream};
use flashlane_edge::{EdgeConfig, Listeners};
use flashlane_testkit::upstream::{Step, Upstream, chat_events};
use serde_json::json;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_taken_port_is_told_with_the_setting_that_changes_it() {
    let any_port = "127.0.0.1:0".parse().unwrap();
    let config = EdgeConfig { listen: any_port, admin_listen: any_port, ..EdgeConfig::default() };
    let first = Listeners::bind(&config).await.unwrap();
    let taken = EdgeConfig { listen: first.clients_address().unwrap(), ..config.clone() };
    let message = Listeners::bind(&taken).await.unwrap_err().to_string();
    assert!(message.contains("server.listen") && message.contains("--listen"), "{message}");
    let taken = EdgeConfig { admin_listen: first.admin_address().unwrap(), ..config };
    let message = Listeners::bind(&taken).await.unwrap_err().to_string();
    assert!(message.contains("server.admin_listen") && message.contains("--admin-listen"), "{message}");
}

#[tokio::test]
async fn it_drains_a_running_turn_ends_and_then_the_socket_closes_1012() {
    let mut script = begun();
    script.pop();
    script.push(Step::Wait(Duration::from_millis(300)));
    let rest = chat_events(&["one", " two"]).into_iter().skip(3);
    script.extend(rest.map(Step::Chunk));
    script.push(Step::Chunk(bytes::Bytes::new()));
    let upstream_server = Upstream::start(vec![script]).await.unwrap();
    let gateway = Gateway::start(upstream(&upstream_server.base_url())).await;
    let ready = exchange(gateway.admin, "GET", "/readyz", "", b"").await;
    assert_eq!((ready.status, ready.body), (200, b"ready\n".to_vec()));
    let mut idle = gateway.websocket().await;
    let mut kept_alive = gateway.connect().await;
    let mut socket = gateway.websocket().await;
    socket.send(&json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})).await;
    socket.until("response.output_text.delta").await;

    gateway.stop();
    assert!(matches!(idle.message().await, Some(Message::Close(Some(frame))) if u16::from(frame.code) == 1012));
    assert_eq!(soon("the idle connection's end", kept_alive.read(&mut [0; 1])).await.unwrap_or(0), 0);
    assert_eq!(exchange(gateway.admin, "GET", "/readyz", "", b"").await.status, 503);
    assert_eq!(exchange(gateway.admin, "GET", "/livez", "", b"").await.status, 200);
    let events = socket.until("response.completed").await;
    assert_eq!(text(&events.last().unwrap()["response"]), "one two");
    assert!(matches!(socket.message().await, Some(Message::Close(Some(frame))) if u16::from(frame.code) == 1012));
    drop((idle, socket));
    gateway.ended().await;
}

#[tokio::test]
async fn a_turn_that_does_not_end_is_cancelled_when_the_drain_has_lasted_long_enough() {
    let upstream_server = Upstream::start(vec![begun()]).await.unwrap();
    let endpoint = upstream(&upstream_server.base_url());
    let gateway = Gateway::start_with(endpoint, |config, _| config.drain.busy_ms_max = 50).await;
    let mut socket = gateway.websocket().await;
    socket.send(&json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})).await;
    socket.until("response.output_text.delta").await;
    gateway.stop();
    gateway.ended().await;
    soon("the cancel", upstream_server.until(|seen| seen.closed[0].is_some())).await;
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_dropped_when_it_never_answers() {
    let gateway = Gateway::start_with(simulated(), |config, _| config.limits.ping_ms = 20).await;
    let mut socket = gateway.websocket().await.0.into_inner();
    let mut bytes = Vec::new();
    soon("the end", socket.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(bytes, [0x89, 0, 0x89, 0]);

    // tungstenite answers each ping as it reads: this one stays.
    let mut socket = gateway.websocket().await;
    for _ in 0..6 {
        assert_eq!(socket.message().await, Some(Message::Ping(Default::default())));
    }
}

#[tokio::test]
async fn a_turn_that_waits_hears_keepalives() {
    let upstream_server = Upstream::start(vec![begun()]).await.unwrap();
    let endpoint = upstream(&upstream_server.base_url());
    let gateway = Gateway::start_with(endpoint, |_, settings| settings.keepalive_ms = 20).await;
    let mut socket = gateway.websocket().await;
    socket.send(&json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})).await;
    socket.until("keepalive").await;
    socket.until("keepalive").await;
}

#[tokio::test]
async fn connections_are_counted_while_they_are_open() {
    let gateway = Gateway::start(simulated()).await;
    let socket = gateway.websocket().await;
    let open = |metrics: &str, count: u32| {
        metrics.contains(&format!("flashlane_connections_open{{transport=\"websocket\"}} {count}"))
    };
    assert!(open(&gateway.metrics().await, 1));
    drop(socket);
    soon("the gauge", async {
        while !open(&gateway.metrics().await, 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
