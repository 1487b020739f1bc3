//! Waiting for a place: what a client hears meanwhile, where it is served or sent then, and that its leaving leaves nothing behind.

use crate::support::{Gateway, Reply, Socket, kinds, simulated, soon};
use flashlane_backend::{EndpointConfig, Kind, Tier};
use flashlane_engine::admission::limit::Limits;
use flashlane_engine::admission::{PerTier, Queueing, Settings};
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::time::Duration;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// One slot, whose turns take 300 ms.
fn wafer() -> EndpointConfig {
    EndpointConfig { first_token_ms: Some(300), ..simulated() }
}

fn gpu() -> EndpointConfig {
    EndpointConfig {
        first_token_ms: Some(0),
        tokens_per_second: Some(0),
        ..EndpointConfig::new("gpu", Tier::Throughput, Kind::Simulator)
    }
}

fn one_slot(wait_ms_max: u64) -> Settings {
    let latency = Queueing { concurrency_max: NonZeroU32::new(1), wait_ms_max, ..Queueing::default() };
    Settings { queue: PerTier { latency, ..PerTier::default() }, ..Settings::default() }
}

fn limited(tokens_per_minute: u32) -> Settings {
    let tokens_per_minute = NonZeroU32::new(tokens_per_minute);
    let latency = Limits { tokens_per_minute, requests_per_minute: NonZeroU32::new(60), ..Limits::default() };
    let impatient = Queueing { wait_ms_max: 0, ..Queueing::default() };
    Settings {
        limits: PerTier { latency, ..PerTier::default() },
        queue: PerTier { latency: impatient, ..PerTier::default() },
        ..Settings::default()
    }
}

fn create() -> Value {
    json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})
}

fn body(stream: bool) -> Value {
    json!({"model": "demo", "input": "hi", "store": false, "stream": stream})
}

/// Until a metric has that value.
async fn until_metric(gateway: &Gateway, line: &str) {
    soon(line, async {
        while !gateway.metrics().await.contains(line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

const RUNNING: &str = "flashlane_tier_turns_running{tier=\"latency\"} 1";
const WAITING: &str = "flashlane_queue_turns_waiting{tier=\"latency\"} 1";
const NOBODY_WAITS: &str = "flashlane_queue_turns_waiting{tier=\"latency\"} 0";
const NOBODY_RUNS: &str = "flashlane_tier_turns_running{tier=\"latency\"} 0";

#[tokio::test]
async fn who_waits_over_a_websocket_is_told_its_place_and_then_served() {
    let gateway = Gateway::start_behind(&[wafer()], one_slot(10_000)).await;
    let (mut first, mut second) = (gateway.websocket().await, gateway.websocket().await);
    first.send(&create()).await;
    until_metric(&gateway, RUNNING).await;
    second.send(&create()).await;
    let told = second.event().await;
    assert_eq!(
        (&told["type"], &told["queue"]["tier"], &told["queue"]["place"]),
        (&json!("keepalive"), &json!("latency"), &json!(1))
    );
    assert!(told["queue"]["wait_ms"].is_u64() && told.get("sequence_number").is_none(), "{told}");
    first.until("response.completed").await;
    let events = second.until("response.completed").await;
    assert_eq!(kinds(&events)[..2], ["response.created", "response.in_progress"]);
    assert_eq!(events.last().unwrap()["response"]["service_tier"], "priority");
    until_metric(&gateway, "flashlane_queue_wait_seconds_count{tier=\"latency\"} 1").await;
    until_metric(&gateway, NOBODY_RUNS).await;
}

#[tokio::test]
async fn at_the_deadline_the_next_tier_serves_and_says_so() {
    let gateway = Gateway::start_behind(&[wafer(), gpu()], one_slot(50)).await;
    let mut first = gateway.websocket().await;
    first.send(&create()).await;
    until_metric(&gateway, RUNNING).await;
    let headers = "content-type: application/json\r\nx-flashlane-route: 1\r\n";
    let reply = gateway.send("POST", "/v1/responses", headers, body(false).to_string().as_bytes()).await;
    assert_eq!((reply.status, &reply.json()["service_tier"]), (200, &json!("default")));
    let route = reply.header("x-flashlane-route").unwrap();
    assert!(route.starts_with("throughput/gpu; plan=model-route; pick=only; attempt=spill; queued_ms="), "{route}");
    let metrics = gateway.metrics().await;
    for line in [
        "flashlane_spills_total{tier=\"latency\"} 1",
        "flashlane_routes_total{attempt=\"spill\",origin=\"turn\",pick=\"only\",plan=\"model-route\",tier=\"throughput\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert_eq!(gateway.post("/v1/responses", &body(false)).await.header("x-flashlane-route"), None, "only who asks");
}

#[tokio::test]
async fn without_another_tier_it_is_refused_with_a_time() {
    let gateway = Gateway::start_behind(&[wafer()], one_slot(50)).await;
    let mut first = gateway.websocket().await;
    first.send(&create()).await;
    until_metric(&gateway, RUNNING).await;
    for stream in [false, true] {
        let reply = gateway.post("/v1/responses", &body(stream)).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.ends_with("s.") && message.contains("Please try again in "), "{message}");
        assert!(reply.header("retry-after").is_some() && reply.header("retry-after-ms").is_some());
    }
    first.until("response.completed").await;
    until_metric(&gateway, "flashlane_refusals_total{reason=\"queue_deadline\",tier=\"latency\"} 2").await;
}

#[tokio::test]
async fn who_leaves_while_it_waits_leaves_the_queue_at_once() {
    let gateway = Gateway::start_behind(&[wafer()], one_slot(10_000)).await;
    let (mut first, mut second) = (gateway.websocket().await, gateway.websocket().await);
    first.send(&create()).await;
    until_metric(&gateway, RUNNING).await;
    second.send(&create()).await;
    until_metric(&gateway, WAITING).await;
    drop(second);
    until_metric(&gateway, NOBODY_WAITS).await;
    first.until("response.completed").await;
    until_metric(&gateway, NOBODY_RUNS).await;
}

#[tokio::test]
async fn a_stream_that_waits_long_hears_its_place_in_a_comment() {
    let mut settings = one_slot(10_000);
    settings.queue.latency.turns_max = 4;
    let gateway = Gateway::start_behind_with(&[wafer()], settings, |_, settings| settings.keepalive_ms = 50).await;
    let mut first = gateway.websocket().await;
    first.send(&create()).await;
    until_metric(&gateway, RUNNING).await;
    let reply = gateway.post("/v1/responses", &body(true)).await;
    let text = String::from_utf8(reply.body.clone()).unwrap();
    assert!(text.starts_with(": queued place=1 wait_ms="), "{text}");
    assert_eq!(reply.status, 200);
    assert_eq!(kinds(&reply.events())[0], "response.created", "a comment is no event");
}

#[tokio::test]
async fn a_stream_that_waited_in_vain_ends_as_a_failed_response() {
    let gateway = Gateway::start_behind_with(&[wafer()], one_slot(150), |_, settings| settings.keepalive_ms = 50).await;
    let mut first = gateway.websocket().await;
    first.send(&create()).await;
    until_metric(&gateway, RUNNING).await;
    let reply = gateway.post("/v1/responses", &body(true)).await;
    assert!(reply.body.starts_with(b": queued place=1"), "{reply:?}");
    let events = reply.events();
    assert_eq!(kinds(&events), ["response.created", "response.in_progress", "response.failed", "?"]);
    let error = &events[2]["response"]["error"];
    assert_eq!(error["code"], "rate_limit_exceeded");
    assert!(error["message"].as_str().unwrap().contains("Please try again in "), "{error}");
}

#[tokio::test]
async fn limits_are_told_in_headers_and_events_and_hold_for_each_key() {
    let gateway = Gateway::start_behind(&[simulated()], limited(2_000)).await;
    let ask = async |key: &str| -> Reply {
        let headers = format!("content-type: application/json\r\nauthorization: Bearer {key}\r\n");
        gateway.send("POST", "/v1/responses", &headers, body(false).to_string().as_bytes()).await
    };
    let reply = ask("one").await;
    assert_eq!((reply.status, reply.header("x-ratelimit-limit-tokens")), (200, Some("2000")));
    assert_eq!(reply.header("x-ratelimit-limit-requests"), Some("60"));
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("59"));
    assert_eq!(reply.header("x-ratelimit-reset-requests"), Some("1s"));
    let mut refused = None;
    for _ in 0..60 {
        let reply = ask("one").await;
        if reply.status != 200 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("two thousand tokens do not last");
    assert_eq!(refused.status, 429);
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("Rate limit reached for the model 'demo' on "), "{message}");
    assert_eq!(ask("two").await.status, 200, "another key has limits of its own");

    let events = gateway.websocket().await.turn(&create()).await;
    assert_eq!(kinds(&events)[0], "response.created", "only who asks, or is Codex, hears of limits over a WebSocket");
    let mut asks = format!("ws://{}/v1/responses", gateway.address).into_client_request().unwrap();
    asks.headers_mut().insert("x-flashlane-rate-limits", "1".parse().unwrap());
    let (socket, _) = tokio_tungstenite::client_async(asks, gateway.connect().await).await.unwrap();
    let events = Socket(socket).turn(&create()).await;
    let told = &events[0];
    assert_eq!(
        (&told["type"], &told["metered_limit_name"]),
        (&json!("codex.rate_limits"), &json!("flashlane-latency"))
    );
    let primary = &told["rate_limits"]["primary"];
    assert!(primary["used_percent"].is_u64() && primary["reset_at"].is_u64(), "{told}");
    assert_eq!(
        (&primary["window_minutes"], &told["rate_limits"]["secondary"]["window_minutes"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(kinds(&events)[1], "response.created");
}

#[tokio::test]
async fn a_turn_that_a_limit_refuses_brings_what_is_left_of_it() {
    let gateway = Gateway::start_behind(&[simulated()], limited(2_000)).await;
    while gateway.post("/v1/responses", &body(false)).await.status == 200 {}
    let mut asks = format!("ws://{}/v1/responses", gateway.address).into_client_request().unwrap();
    asks.headers_mut().insert("x-flashlane-rate-limits", "1".parse().unwrap());
    let (socket, _) = tokio_tungstenite::client_async(asks, gateway.connect().await).await.unwrap();
    let mut socket = Socket(socket);
    socket.send(&create()).await;
    let told = socket.event().await;
    assert_eq!(
        (&told["type"], &told["metered_limit_name"]),
        (&json!("codex.rate_limits"), &json!("flashlane-latency"))
    );
    let used = ["primary", "secondary"].map(|name| told["rate_limits"][name]["used_percent"].as_u64().unwrap());
    assert!(used.into_iter().max().unwrap() > 50, "{told}");
    let refused = socket.event().await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("rate_limit_exceeded")));
}

#[tokio::test]
async fn an_endpoint_that_gives_no_token_in_time_is_left_for_the_next_tier() {
    let silent = EndpointConfig { first_token_ms: Some(60_000), ..simulated() };
    let latency = Queueing { first_token_ms_max: Some(50), ..Queueing::default() };
    let settings = Settings { queue: PerTier { latency, ..PerTier::default() }, ..Settings::default() };
    let gateway = Gateway::start_behind(&[silent, gpu()], settings).await;
    let mut socket = gateway.websocket().await;
    let events = socket.turn(&create()).await;
    assert_eq!(events.last().unwrap()["response"]["service_tier"], "default");
    until_metric(&gateway, "flashlane_upstream_attempts_failed_total{endpoint=\"sim\"} 1").await;
    until_metric(&gateway, "flashlane_routes_total{attempt=\"retry\"").await;
}
