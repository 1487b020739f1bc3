//! The whole gateway before a scripted server that holds it to what Cerebras' service refuses: what clients may say, it must be able to
//! pass on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail this way")]

mod rig;

use flashlane_testkit::wafer::{Fault, Wafer, Ways};
use rig::Gateway;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

const KEY: &str = "csk-scripted";

async fn wafer() -> (Wafer, Gateway) {
    let wafer = Wafer::start(Ways { key: Some(KEY.to_owned()), ..Ways::default() }, None).await.unwrap();
    let gateway = Gateway::start_with(&["--latency", &wafer.base_url()], &[("FLASHLANE_LATENCY_API_KEY", KEY)]);
    assert!(gateway.said.contains("backend = \"cerebras\""), "{}", gateway.said);
    (wafer, gateway)
}

/// What a path answers: status and body.
fn ask(address: &str, request: &str, body: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn respond(gateway: &Gateway, mut body: Value) -> (u16, String) {
    body["model"] = json!("gpt-oss-120b");
    body["store"] = json!(false);
    ask(&gateway.clients, "POST /v1/responses", &body.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_and_schemas_that_the_service_would_refuse_reach_it_mended() {
    let (wafer, gateway) = wafer().await;
    let call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"});
    let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "done"});
    let user = json!({"role": "user", "content": "go on"});
    let tools = json!([{"type": "function", "name": "f", "strict": true,
        "parameters": {"type": "object", "properties": {"p": {"type": "object", "properties": {}}}}}]);
    for input in [
        json!([user, call("a"), user]),
        json!([call("a"), call("b"), output("b"), user]),
        json!([call("a"), user, output("a"), user]),
        json!([call("a"), output("a"), call("a"), output("a")]),
        json!([call("a"), output("a"), output("a")]),
        json!([user, call("a")]),
    ] {
        let (status, answer) =
            respond(&gateway, json!({"input": input, "tools": tools, "reasoning": {"effort": "xhigh"}}));
        assert_eq!(status, 200, "{input}: {answer}");
        assert!(answer.contains("Hello from the wafer, as scripted."), "{answer}");
    }
    let seen = wafer.seen();
    assert!(seen.turns().iter().all(|turn| turn.refused.is_none()));
    let metrics = ask(&gateway.admin, "GET /metrics", "").1;
    for line in [
        "flashlane_upstream_phase_seconds_count{phase=\"queue\",tier=\"latency\"} 6",
        "flashlane_upstream_phase_seconds_sum{phase=\"prompt\",tier=\"latency\"} 0.012",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_inside_of_a_stream_and_a_cut_one_are_never_an_answer() {
    let (wafer, gateway) = wafer().await;
    for fault in [Fault::InStream { events: 3 }, Fault::Garbage { events: 3 }, Fault::Cut { bytes: 700 }] {
        wafer.alter(|ways| ways.fault = fault.clone());
        let (status, answer) = respond(&gateway, json!({"input": "hello"}));
        assert!(!answer.contains("\"status\":\"completed\""), "{fault:?}: {status} {answer}");
        let (_, events) = respond(&gateway, json!({"input": "hello", "stream": true}));
        assert_eq!(events.matches("event: response.failed").count(), 1, "{fault:?}: {events}");
        assert!(!events.contains("response.completed"), "{events}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_known_is_told_with_its_time_and_asks_nobody() {
    let (wafer, gateway) = wafer().await;
    wafer.alter(|ways| ways.requests_left = 0);
    for _ in 0..3 {
        let (status, answer) = respond(&gateway, json!({"input": "hello"}));
        assert_eq!(status, 429, "{answer}");
        assert!(answer.contains("rate_limit_exceeded") && answer.contains("Please try again in 330"), "{answer}");
    }
    assert_eq!(wafer.seen().turns().len(), 1);
}
