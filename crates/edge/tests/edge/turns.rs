//! What is kept of turns that have ended, and how operators find it.

use crate::support::{Gateway, Reply, begun, exchange, simulated, soon, upstream};
use flashlane_testkit::upstream::{Step, Upstream, chat_events, stream};
use serde_json::{Value, json};
use std::time::Duration;

async fn asked(gateway: &Gateway, path: &str) -> Reply {
    exchange(gateway.admin, "GET", path, "", b"").await
}

/// The records of an id: a turn is kept right after its answer is out.
async fn records(gateway: &Gateway, id: &str) -> Vec<Value> {
    soon("a record", async {
        loop {
            let reply = asked(gateway, &format!("/turns/{id}")).await;
            if reply.status == 200 {
                return reply.json()["turns"].as_array().unwrap().clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

fn micros(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[tokio::test]
async fn a_turn_is_found_by_its_request_and_by_its_response() {
    let gateway = Gateway::start(simulated()).await;
    let reply = gateway.post("/v1/responses", &json!({"model": "demo", "input": "count from 1 to 3"})).await;
    let response = reply.json()["id"].as_str().unwrap().to_owned();
    let [record] = &records(&gateway, reply.header("x-request-id").unwrap()).await[..] else { panic!("one turn") };
    assert_eq!(records(&gateway, &response).await, std::slice::from_ref(record));
    assert_eq!(
        (&record["response_id"], &record["status"], &record["simulated"]),
        (&json!(response), &json!("completed"), &json!(true))
    );
    let route = json!({"tier": "latency", "endpoint": "sim", "plan": "model-route", "pick": "only", "attempt": "first", "queued_ms": 0});
    assert_eq!(record["route"], route);
    let [attempt] = &record["attempts"].as_array().unwrap()[..] else { panic!("one attempt") };
    assert_eq!((&attempt["endpoint"], &attempt["failure"]), (&json!("sim"), &Value::Null));
    let total = micros(&record["total_us"]);
    let parts: u64 = record["parts"].as_array().unwrap().iter().map(|part| micros(&part["us"])).sum();
    assert!(parts <= total && total - parts <= 8, "each part is cut to a microsecond: {record}");
    let steps = record["steps"].as_array().unwrap();
    assert!(steps.is_sorted_by_key(|step| micros(&step["at_us"])), "{record}");
    assert!(
        steps.iter().any(|step| step["stage"] == "route") && micros(&steps.last().unwrap()["at_us"]) <= total,
        "{record}"
    );
    assert!(!record.to_string().contains("count from"), "no text of the turn: {record}");
}

#[tokio::test]
async fn what_failed_before_is_told_with_its_reason() {
    let peer = Upstream::start(vec![vec![Step::Expect, Step::Reset]]).await.unwrap();
    let gateway = Gateway::start(upstream(&peer.base_url())).await;
    let reply = gateway.post("/v1/responses", &json!({"model": "demo", "input": "hi"})).await;
    assert_eq!(reply.status, 502, "{reply:?}");
    let [record] = &records(&gateway, reply.header("x-request-id").unwrap()).await[..] else { panic!("one turn") };
    assert_eq!((&record["status"], &record["error"]), (&json!("failed"), &json!("upstream_failed")));
    let [attempt] = &record["attempts"].as_array().unwrap()[..] else { panic!("one attempt") };
    assert!(attempt["failure"].as_str().is_some_and(|failure| !failure.is_empty()), "{record}");
    assert!(micros(&attempt["began_at_us"]) <= micros(&attempt["ended_at_us"]), "{record}");
}

#[tokio::test]
async fn a_websockets_turns_have_its_request_id_the_newest_first() {
    let gateway = Gateway::start(simulated()).await;
    let mut socket = gateway.websocket().await;
    let mut responses = Vec::new();
    for _ in 0..3 {
        let events =
            socket.turn(&json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})).await;
        responses.push(events.last().unwrap()["response"]["id"].clone());
    }
    socket.send(&json!({"type": "nonsense"})).await;
    let error = socket.until("error").await.pop().unwrap();
    drop(socket);
    let newest = records(&gateway, responses[2].as_str().unwrap()).await;
    let request = newest[0]["request_id"].as_str().unwrap();
    assert_eq!(error["error"]["headers"], json!({"x-request-id": request}));
    let turns = soon("the refusal", async {
        loop {
            let turns = records(&gateway, request).await;
            if turns.len() == 4 {
                return turns;
            }
        }
    })
    .await;
    assert_eq!((&turns[0]["status"], &turns[0]["response_id"]), (&json!("refused"), &json!("")));
    let found: Vec<_> = turns[1..].iter().rev().map(|turn| turn["response_id"].clone()).collect();
    assert_eq!(found, responses);
    let listed = asked(&gateway, "/turns?limit=2").await.json();
    assert_eq!((&listed["turns"][0]["number"], listed["turns"].as_array().unwrap().len()), (&json!(4), 2));
    let news = asked(&gateway, "/turns?after=2").await.json();
    let numbers: Vec<_> = news["turns"].as_array().unwrap().iter().map(|turn| micros(&turn["number"])).collect();
    assert_eq!((numbers, &news["kept"], &news["kept_max"]), (vec![3, 4], &json!(4), &json!(1000)));
}

#[tokio::test]
async fn what_is_not_found_says_why() {
    let gateway = Gateway::start(simulated()).await;
    let said = async |path: &str| {
        let reply = asked(&gateway, path).await;
        assert_eq!(reply.status, 404, "{reply:?}");
        reply.json()["error"]["message"].as_str().unwrap().to_owned()
    };
    assert!(said("/turns/req_none").await.contains("none has ended since the start"));
    let reply = gateway.post("/v1/responses", &json!({"model": "demo", "input": "hi"})).await;
    records(&gateway, reply.header("x-request-id").unwrap()).await;
    let message = said("/turns/req_none").await;
    assert!(message.contains("The last 1000 turns are kept") && message.contains("all since the start"), "{message}");
}

#[tokio::test]
async fn a_response_that_fails_names_its_request() {
    let peer = Upstream::start(vec![begun_and_broken()]).await.unwrap();
    let gateway = Gateway::start(upstream(&peer.base_url())).await;
    let mut socket = gateway.websocket().await;
    socket.send(&json!({"type": "response.create", "model": "demo", "input": "hi"})).await;
    let failed = socket.until("response.failed").await.pop().unwrap();
    let error = &failed["response"]["error"];
    let [record] = &records(&gateway, failed["response"]["id"].as_str().unwrap()).await[..] else { panic!("one turn") };
    assert_eq!((&error["request_id"], &record["status"]), (&record["request_id"], &json!("failed")), "{failed}");
    assert!(error["request_id"].as_str().unwrap().starts_with("req_"));
}

#[tokio::test]
async fn an_upstream_is_told_which_span_of_which_trace_asks() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let peer = Upstream::start(vec![stream(&chat_events(&["one", " two"]))]).await.unwrap();
    let gateway = Gateway::start(upstream(&peer.base_url())).await;
    let body = json!({"model": "demo", "input": "hi"}).to_string();
    let fields = format!("content-type: application/json\r\ntraceparent: {PARENT}\r\ntracestate: a=1\r\n");
    let reply = gateway.send("POST", "/v1/responses", &fields, body.as_bytes()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let seen = peer.seen();
    let told = seen.requests[0].header("traceparent").unwrap();
    assert!(told.starts_with(&PARENT[..36]) && told.ends_with("-01") && told != PARENT, "{told}");
    assert_eq!(seen.requests[0].header("tracestate"), Some("a=1"));
    let [record] = &records(&gateway, reply.header("x-request-id").unwrap()).await[..] else { panic!("one turn") };
    assert_eq!(record["trace"]["parent_span_id"], "00f067aa0ba902b7");
}

/// An answer that begins, and whose connection breaks.
fn begun_and_broken() -> Vec<Step> {
    let mut steps = begun();
    steps.pop();
    steps.push(Step::Reset);
    steps
}
