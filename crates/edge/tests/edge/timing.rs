//! Where a turn's time went: the stages that clients are told, beside what they measure.

use crate::support::{Gateway, Reply, Socket, request, simulated, soon, upstream};
use flashlane_testkit::upstream::{Step, Upstream, chat_events};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const STAGES: [&str; 8] = ["receive", "validate", "queue", "route", "connect", "upstream_ttft", "stream", "gateway"];
const TTFT: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(25);
const TOKENS: usize = 30;
/// What disturbs a measurement makes it worse: one that is undisturbed is enough.
const TRIES: usize = 5;

/// An engine that takes a second.
async fn slow() -> Upstream {
    let tokens = vec!["token "; TOKENS];
    let mut script = vec![Step::Expect, Step::Wait(TTFT), Step::stream_head()];
    for event in chat_events(&tokens) {
        script.extend([Step::Chunk(event), Step::Wait(PAUSE)]);
    }
    script.extend([Step::Chunk("".into()), Step::Again]);
    Upstream::start(vec![script]).await.unwrap()
}

fn body(more: &Value) -> Value {
    let mut body = json!({"model": "demo", "input": "hi", "store": false});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// `name;dur=1.234, …`.
fn server_timing(header: &str) -> BTreeMap<String, f64> {
    let entry = |entry: &str| {
        let (name, ms) = entry.split_once(";dur=").unwrap();
        (name.to_owned(), ms.parse().unwrap())
    };
    header.split(", ").map(entry).collect()
}

fn sum(parts: &BTreeMap<String, f64>) -> f64 {
    STAGES.iter().map(|stage| parts[*stage]).sum()
}

/// Whether the parts are what the client measured, within 2 %. That they are the whole, and where the time went, holds always.
fn adds_up(parts: &BTreeMap<String, f64>, measured: Duration) -> bool {
    let measured_ms = measured.as_secs_f64() * 1e3;
    assert!((sum(parts) - parts["total"]).abs() < 0.01, "{parts:?}");
    assert!(parts["upstream_ttft"] >= 245.0 && parts["stream"] >= 24.0 * (TOKENS - 1) as f64, "{parts:?}");
    assert!(parts["total"] <= measured_ms, "{parts:?} of {measured_ms} ms");
    measured_ms - sum(parts) <= measured_ms * 0.02
}

#[tokio::test]
async fn the_parts_of_a_turn_are_what_its_websocket_client_measures() {
    let engine = slow().await;
    let gateway = Gateway::start(upstream(&engine.base_url())).await;
    let mut asks = format!("ws://{}/v1/responses", gateway.address).into_client_request().unwrap();
    asks.headers_mut().insert("x-flashlane-timing", "1".parse().unwrap());
    let (socket, _) = tokio_tungstenite::client_async(asks, gateway.connect().await).await.unwrap();
    let mut socket = Socket(socket);
    for attempt in 1.. {
        let sent = Instant::now();
        socket.turn(&body(&json!({"type": "response.create"}))).await;
        let measured = sent.elapsed();
        let told = socket.event().await;
        assert_eq!(told["type"], "responsesapi.websocket_timing");
        let timing = &told["timing"];
        let of = |stage: &&str| ((*stage).to_owned(), timing["parts"][format!("{stage}_ms")].as_f64().unwrap());
        let mut parts: BTreeMap<_, _> = STAGES.iter().map(of).collect();
        parts.insert("total".to_owned(), timing["total_ms"].as_f64().unwrap());
        // The same in Codex's names.
        let codex = |name: &str| told["timing_metrics"][name].as_f64().unwrap();
        let engine_ms = parts["upstream_ttft"] + parts["stream"];
        assert!((codex("engine_service_total_ms") - engine_ms).abs() < 0.01, "{told}");
        let others_ms = codex("responses_duration_excl_engine_and_client_tool_time_ms");
        assert!((others_ms + engine_ms - parts["total"]).abs() < 0.01, "{told}");
        assert!(codex("engine_service_tbt_across_engine_calls_ms") >= 20.0, "{told}");
        if adds_up(&parts, measured) {
            break;
        }
        assert!(attempt < TRIES, "{parts:?} of {measured:?}");
    }
}

#[tokio::test]
async fn the_parts_of_a_request_are_what_its_client_measures() {
    let engine = slow().await;
    let gateway = Gateway::start(upstream(&engine.base_url())).await;
    for (path, more) in [
        ("/v1/responses", json!({})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "hi"}]})),
    ] {
        for attempt in 1.. {
            let sent = Instant::now();
            let reply = gateway.post(path, &body(&more)).await;
            let measured = sent.elapsed();
            let parts = server_timing(reply.header("server-timing").unwrap());
            if adds_up(&parts, measured) {
                break;
            }
            assert!(attempt < TRIES, "{parts:?} of {measured:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_says_what_is_over_in_its_head_and_all_in_its_last_comment() {
    let engine = slow().await;
    let gateway = Gateway::start(upstream(&engine.base_url())).await;
    let ask = async |fields: &str| -> Reply {
        gateway.send("POST", "/v1/responses", fields, body(&json!({"stream": true})).to_string().as_bytes()).await
    };
    for attempt in 1.. {
        let sent = Instant::now();
        let reply = ask("x-flashlane-timing: 1\r\n").await;
        let measured = sent.elapsed();
        let head = server_timing(reply.header("server-timing").unwrap());
        assert_eq!(head.keys().collect::<Vec<_>>(), ["connect", "queue", "receive", "route", "validate"]);
        let text = std::str::from_utf8(&reply.body).unwrap();
        let (_, last) = text.split_once("data: [DONE]\n\n: server-timing: ").unwrap();
        let parts = server_timing(last.trim_end());
        assert!(head.iter().all(|(stage, ms)| parts[stage] == *ms), "{head:?} {parts:?}");
        if adds_up(&parts, measured) {
            break;
        }
        assert!(attempt < TRIES, "{parts:?} of {measured:?}");
    }
    assert!(ask("").await.body.ends_with(b"data: [DONE]\n\n"), "nothing follows where nobody asked");
}

#[tokio::test]
async fn a_body_that_comes_slowly_was_received_so_long() {
    let gateway = Gateway::start(simulated()).await;
    let bytes = request("POST", "/v1/responses", "connection: close\r\n", body(&json!({})).to_string().as_bytes());
    let (first, rest) = bytes.split_at(bytes.len() - 5);
    let mut stream = gateway.connect().await;
    stream.write_all(first).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    stream.write_all(rest).await.unwrap();
    let mut reply = Vec::new();
    soon("a reply", stream.read_to_end(&mut reply)).await.unwrap();
    let parts = server_timing(Reply::parse(&reply).header("server-timing").unwrap());
    assert!(parts["receive"] >= 70.0 && parts["total"] >= parts["receive"], "{parts:?}");
    // What never was a turn has no parts.
    assert_eq!(gateway.post("/v1/responses", &json!({"model": 3})).await.header("server-timing"), None);
}
