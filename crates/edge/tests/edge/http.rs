//! POST: JSON and event streams of both APIs.

use crate::support::{Gateway, kinds, simulated, text, upstream};
use bytes::Bytes;
use flashlane_testkit::upstream::{Upstream, chat_events, stream};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

#[tokio::test]
async fn a_response_comes_as_json() {
    let gateway = Gateway::start(simulated()).await;
    let reply = gateway.post("/v1/responses", &json!({"model": "demo", "input": "count from 1 to 5"})).await;
    assert_eq!(reply.status, 200);
    let response = reply.json();
    assert_eq!(response["status"], "completed");
    assert_eq!(text(&response).split_whitespace().collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
    assert!(reply.header("x-request-id").unwrap().starts_with("req_"));
    assert!(reply.header("openai-processing-ms").unwrap().parse::<u64>().is_ok());
    assert_eq!(reply.header("x-flashlane-tools-not-forwarded"), None);
}

#[tokio::test]
async fn a_response_streams_whole_events_and_ends_in_done() {
    let gateway = Gateway::start(simulated()).await;
    let request = json!({"model": "demo", "input": "count from 1 to 30", "stream": true});
    let reply = gateway.post("/v1/responses", &request).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
    assert!(reply.chunks.iter().all(|chunk| chunk.ends_with(b"\n\n")), "an event was split over two frames");
    let mut events = reply.events();
    assert_eq!(events.pop().unwrap(), "[DONE]");
    assert_eq!(kinds(&events)[..2], ["response.created", "response.in_progress"]);
    assert_eq!(events.last().unwrap()["type"], "response.completed");
    let numbers: Vec<_> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn chat_comes_as_json_and_as_a_stream() {
    let upstream_server = Upstream::start(vec![stream(&chat_events(&["Hel", "lo"]))]).await.unwrap();
    let gateway = Gateway::start(upstream(&upstream_server.base_url())).await;
    let mut request = json!({"model": "demo", "messages": [{"role": "user", "content": "hi"}]});
    let reply = gateway.post("/v1/chat/completions", &request).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "Hello");

    request["stream"] = Value::from(true);
    let events = gateway.post("/v1/chat/completions", &request).await.events();
    let said: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, "Hello");
    assert_eq!(events.last().unwrap(), "[DONE]");
}

#[tokio::test]
async fn an_upstreams_error_keeps_its_status_and_delay() {
    let body = r#"{"error":{"message":"slow down","type":"rate_limit_error","code":null,"param":null}}"#;
    let script = flashlane_testkit::upstream::error(429, "retry-after: 3\r\n", body);
    let upstream_server = Upstream::start(vec![script]).await.unwrap();
    let gateway = Gateway::start(upstream(&upstream_server.base_url())).await;
    for stream in [false, true] {
        let request = json!({"model": "demo", "input": "hi", "stream": stream});
        let reply = gateway.post("/v1/responses", &request).await;
        assert_eq!(reply.status, 429, "{reply:?}");
        assert_eq!(reply.header("retry-after"), Some("3"));
        assert_eq!(reply.header("retry-after-ms"), Some("3000"));
        assert_eq!(reply.json()["error"]["code"], "rate_limit_exceeded");
    }
}

#[tokio::test]
async fn hosted_tools_are_named_in_a_header() {
    let gateway = Gateway::start(simulated()).await;
    let tools = json!([{"type": "web_search"}]);
    let reply = gateway.post("/v1/responses", &json!({"model": "demo", "input": "hello", "tools": tools})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("x-flashlane-tools-not-forwarded"), Some("web_search"));
}

#[tokio::test]
async fn a_tool_of_no_known_type_is_another_by_name() {
    let gateway = Gateway::start(simulated()).await;
    let tools = json!([{"type": "web_search"}, {"type": "caf\u{e9}\n"}, {"type": "mcp", "server_label": "x"}]);
    let reply = gateway.post("/v1/responses", &json!({"model": "demo", "input": "hello", "tools": tools})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("x-flashlane-tools-not-forwarded"), Some("mcp, other, web_search"));
}

#[tokio::test]
async fn http_2_is_spoken_with_clients_that_know_it() {
    let gateway = Gateway::start(simulated()).await;
    let io = TokioIo::new(gateway.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let body = json!({"model": "demo", "input": "count from 1 to 5", "stream": true}).to_string();
    let uri = format!("http://{}/v1/responses", gateway.address);
    let request = hyper::Request::post(uri).body(Full::new(Bytes::from(body))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    connection.abort();
}

#[tokio::test]
async fn a_turn_is_counted_once() {
    let gateway = Gateway::start(simulated()).await;
    gateway.post("/v1/responses", &json!({"model": "demo", "input": "hello"})).await;
    gateway.post("/v1/responses", &json!({"model": "unknown", "input": "hello"})).await;
    gateway.get("/nowhere").await;
    let metrics = gateway.metrics().await;
    for line in [
        "flashlane_turns_total{outcome=\"completed\",tier=\"latency\"} 1",
        "flashlane_turns_total{outcome=\"refused\",tier=\"none\"} 1",
        "flashlane_errors_total{kind=\"model_not_found\"} 1",
        "flashlane_errors_total{kind=\"unknown_url\"} 1",
        "flashlane_ttft_seconds_count{tier=\"latency\"} 1",
        "flashlane_upstream_turns_in_flight{endpoint=\"sim\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn the_time_that_a_json_turn_kept_the_gateway_busy_is_measured() {
    let gateway = Gateway::start(simulated()).await;
    gateway.post("/v1/responses", &json!({"model": "demo", "input": "count from 1 to 5"})).await;
    let metrics = gateway.metrics().await;
    let sum =
        metrics.lines().find_map(|line| line.strip_prefix("flashlane_gateway_overhead_seconds_sum{tier=\"latency\"} "));
    assert!(sum.expect("the turn's overhead").parse::<f64>().unwrap() > 0.0, "{metrics}");
}
