//! Background responses over HTTP: they run without their client, can be followed from any event, cancelled, and are never stuck.

use crate::support::{Gateway, Reply, begun, exchange, simulated, soon, text, upstream};
use flashlane_backend::EndpointConfig;
use flashlane_store::{EVENTS_READ_MAX, Event, Limits, MemoryStore, OwnerId, Record, Store as _};
use flashlane_testkit::upstream::Upstream;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const OTHER: &str = "authorization: Bearer other\r\n";

fn request(more: &Value) -> Value {
    let mut request = json!({"model": "demo", "input": "count from 1 to 9", "background": true});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

async fn start(gateway: &Gateway, more: &Value) -> Value {
    let reply = gateway.post("/v1/responses", &request(more)).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

async fn retrieve(gateway: &Gateway, id: &Value) -> Value {
    gateway.get(&format!("/v1/responses/{}", id.as_str().unwrap())).await.json()
}

async fn cancel(gateway: &Gateway, id: &Value) -> Reply {
    gateway.send("POST", &format!("/v1/responses/{}/cancel", id.as_str().unwrap()), "", b"").await
}

/// Polls until it has ended, as clients do.
pub async fn ended(gateway: &Gateway, id: &Value) -> Value {
    soon("a background response to end", async {
        loop {
            let response = retrieve(gateway, id).await;
            if !matches!(response["status"].as_str(), Some("queued" | "in_progress")) {
                return response;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

async fn follow(gateway: &Gateway, id: &Value, query: &str) -> String {
    let reply = gateway.get(&format!("/v1/responses/{}?stream=true{query}", id.as_str().unwrap())).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    String::from_utf8(reply.body).unwrap()
}

fn events(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// An upstream that begins an answer and goes no further.
async fn endless() -> (Upstream, EndpointConfig) {
    let server = Upstream::start(vec![begun()]).await.unwrap();
    let endpoint = upstream(&server.base_url());
    (server, endpoint)
}

#[tokio::test]
async fn it_is_answered_at_once_and_ends_by_itself() {
    let gateway = Gateway::start(simulated()).await;
    let queued = start(&gateway, &json!({})).await;
    assert_eq!(
        (&queued["status"], &queued["background"], &queued["output"]),
        (&json!("queued"), &json!(true), &json!([]))
    );
    let response = ended(&gateway, &queued["id"]).await;
    assert_eq!((&response["status"], &response["id"]), (&json!("completed"), &queued["id"]));
    assert!(text(&response).contains('9'), "{response}");
    let next = json!({"model": "demo", "input": "repeat: on", "previous_response_id": queued["id"]});
    assert_eq!(text(&gateway.post("/v1/responses", &next).await.json()), "on");
    assert_eq!(cancel(&gateway, &queued["id"]).await.json(), response, "a cancel comes too late and changes nothing");
    let stream = gateway.get(&format!("/v1/responses/{}?stream=true", queued["id"].as_str().unwrap())).await;
    assert_eq!(stream.status, 404, "it was not made with stream");
}

#[tokio::test]
async fn from_every_event_on_the_stream_has_the_same_bytes() {
    let gateway = Gateway::start(simulated()).await;
    let reply = gateway.post("/v1/responses", &request(&json!({"stream": true}))).await;
    let whole = String::from_utf8(reply.body).unwrap();
    let told = events(&whole);
    let types: Vec<_> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        types[..4],
        ["response.created", "response.queued", "response.in_progress", "response.output_item.added"]
    );
    assert_eq!(types.last(), Some(&"response.completed"));
    let numbers: Vec<_> = told.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..told.len() as u64).collect::<Vec<_>>());
    let id = &told[0]["response"]["id"];
    assert_eq!(retrieve(&gateway, id).await, told.last().unwrap()["response"]);
    assert_eq!(follow(&gateway, id, "").await, whole);
    let frames: Vec<_> = whole.split_inclusive("\n\n").collect();
    for after in 0..told.len() {
        let rest = follow(&gateway, id, &format!("&starting_after={after}")).await;
        assert_eq!(rest, frames[after + 1..].concat(), "after {after}");
    }
    let path = format!("/v1/responses/{}?stream=true", id.as_str().unwrap());
    assert_eq!(gateway.get(&format!("{path}&starting_after=x")).await.status, 400);
    let maybe = gateway.get(&path.replace("true", "maybe")).await;
    assert_eq!((maybe.status, &maybe.json()["error"]["param"]), (400, &json!("stream")));
    assert_eq!(gateway.get(&path.replace("true", "false")).await.json(), told.last().unwrap()["response"]);
    assert_eq!(gateway.send("GET", &path, OTHER, b"").await.status, 404);
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_it_and_comes_back_to_all_of_it() {
    let endpoint = EndpointConfig { first_token_ms: Some(50), tokens_per_second: Some(200), ..simulated() };
    let gateway = Gateway::start(endpoint).await;
    let mut stream = gateway.connect().await;
    let body = request(&json!({"stream": true})).to_string();
    let bytes = crate::support::request("POST", "/v1/responses", "", body.as_bytes());
    stream.write_all(&bytes).await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(15).any(|window| window == b"response.queued") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
    }
    drop(stream);
    let seen = String::from_utf8(seen).unwrap();
    let id = json!(seen.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap());
    let whole = follow(&gateway, &id, "").await;
    assert_eq!(events(&whole).last().unwrap()["type"], "response.completed", "it was followed while it ran");
    assert_eq!(ended(&gateway, &id).await["status"], "completed");
    assert_eq!(follow(&gateway, &id, "").await, whole);
}

#[tokio::test]
async fn a_cancel_ends_the_upstream_the_stream_and_the_response() {
    let (server, endpoint) = endless().await;
    let gateway = Gateway::start(endpoint).await;
    let made = start(&gateway, &json!({})).await;
    let id = &made["id"];
    soon("the upstream's request", server.until(|seen| seen.requests.len() == 1)).await;
    let chained = json!({"model": "demo", "input": "x", "previous_response_id": id});
    let chained = gateway.post("/v1/responses", &chained).await;
    assert_eq!((chained.status, chained.json()["error"]["param"].as_str()), (400, Some("previous_response_id")));
    let cancelled = cancel(&gateway, id).await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    soon("the upstream to be left", server.until(|seen| seen.closed[0].is_some())).await;
    assert_eq!(retrieve(&gateway, id).await, cancelled.json());
    assert_eq!(cancel(&gateway, id).await.json(), cancelled.json(), "again");
    assert_eq!(gateway.send("POST", "/v1/responses/resp_unknown/cancel", "", b"").await.status, 404);
}

#[tokio::test]
async fn a_followed_stream_has_signs_of_life_and_ends_with_a_cancel() {
    let (server, endpoint) = endless().await;
    let gateway = Gateway::start_with(endpoint, |_, settings| settings.keepalive_ms = 20).await;
    let made = start(&gateway, &json!({})).await;
    assert_eq!(cancel(&gateway, &made["id"]).await.json()["status"], "cancelled", "however early it comes");
    let mut stream = gateway.connect().await;
    let body = request(&json!({"stream": true})).to_string();
    stream.write_all(&crate::support::request("POST", "/v1/responses", "", body.as_bytes())).await.unwrap();
    let mut seen = Vec::new();
    let has = |seen: &[u8], what: &str| String::from_utf8_lossy(seen).contains(what);
    while !has(&seen, "output_text.delta") || !has(&seen, ": keepalive\n\n") {
        assert!(soon("a sign of life", stream.read_buf(&mut seen)).await.unwrap() > 0);
    }
    let said = String::from_utf8_lossy(&seen).into_owned();
    let id = json!(said.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap());
    let cancelled = cancel(&gateway, &id).await.json();
    assert_eq!(cancelled["status"], "cancelled");
    while !has(&seen, "data: [DONE]\n\n") {
        assert!(soon("the end", stream.read_buf(&mut seen)).await.unwrap() > 0);
    }
    assert!(!has(&seen, "response.completed") && !has(&seen, "response.failed"));
    assert_eq!(retrieve(&gateway, &id).await, cancelled);
    drop(server);
}

#[tokio::test]
async fn a_journal_longer_than_one_read_is_followed_to_its_end() {
    let gateway = Gateway::start(simulated()).await;
    let long = json!({"stream": true, "input": "count from 1 to 900"});
    let reply = gateway.post("/v1/responses", &request(&long)).await;
    let whole = String::from_utf8(reply.body).unwrap();
    let told = events(&whole);
    assert!(told.len() > EVENTS_READ_MAX, "{} events", told.len());
    assert_eq!(told.last().unwrap()["type"], "response.completed");
    assert_eq!(follow(&gateway, &told[0]["response"]["id"], "").await, whole);
}

#[tokio::test]
async fn a_chain_goes_through_the_background_and_a_warm_up_ends_at_once() {
    let gateway = Gateway::start(simulated()).await;
    let named = json!({"model": "demo", "input": "My name is Ada."});
    let named = gateway.post("/v1/responses", &named).await.json();
    let asked = json!({"input": "What is my name?", "previous_response_id": named["id"]});
    let asked = start(&gateway, &asked).await;
    let answered = ended(&gateway, &asked["id"]).await;
    assert!(text(&answered).contains("Ada"), "{answered}");
    assert_eq!(answered["previous_response_id"], named["id"]);
    let warm_up = start(&gateway, &json!({"generate": false})).await;
    let warm_up = ended(&gateway, &warm_up["id"]).await;
    assert_eq!((&warm_up["status"], &warm_up["output"]), (&json!("completed"), &json!([])));
}

#[tokio::test]
async fn one_more_than_may_run_is_refused_and_a_deleted_one_makes_room() {
    let (server, endpoint) = endless().await;
    let gateway = Gateway::start_with(endpoint, |config, _| config.limits.background_turns_max = 1).await;
    let first = start(&gateway, &json!({})).await;
    soon("the upstream's request", server.until(|seen| seen.requests.len() == 1)).await;
    let metrics = gateway.metrics().await;
    assert!(metrics.contains("flashlane_background_turns_running 1"), "{metrics}");
    let refused = gateway.post("/v1/responses", &request(&json!({}))).await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("server_is_overloaded")));
    let path = format!("/v1/responses/{}", first["id"].as_str().unwrap());
    assert_eq!(gateway.send("DELETE", &path, OTHER, b"").await.status, 404, "nobody else can");
    assert_eq!(gateway.send("POST", &format!("{path}/cancel"), OTHER, b"").await.status, 404);
    assert_eq!(retrieve(&gateway, &first["id"]).await["status"], "in_progress");
    assert_eq!(gateway.send("DELETE", &path, "", b"").await.status, 200);
    soon("the upstream to be left", server.until(|seen| seen.closed[0].is_some())).await;
    assert_eq!(gateway.get(&path).await.status, 404);
    let next = start(&gateway, &json!({})).await;
    assert_eq!(cancel(&gateway, &next["id"]).await.json()["status"], "cancelled");
}

#[tokio::test]
async fn what_cannot_run_in_the_background_is_refused_in_words() {
    let gateway = Gateway::start(simulated()).await;
    for (more, param) in [
        (json!({"store": false}), "store"),
        (json!({"previous_response_id": "resp_unknown"}), "previous_response_id"),
        (json!({"model": "absent"}), "model"),
    ] {
        let reply = gateway.post("/v1/responses", &request(&more)).await;
        assert_eq!(reply.json()["error"]["param"], param, "{reply:?}");
    }
    let mut socket = gateway.websocket().await;
    socket.send(&json!({"type": "response.create", "model": "demo", "input": "x", "background": true})).await;
    let error = socket.until("error").await;
    assert_eq!(error[0]["error"]["code"], "unsupported_parameter");
}

#[tokio::test]
async fn an_upstream_that_fails_ends_it_as_failed() {
    let gateway = Gateway::start(upstream("http://127.0.0.1:1/v1")).await;
    let reply = gateway.post("/v1/responses", &request(&json!({"stream": true}))).await;
    let told = events(std::str::from_utf8(&reply.body).unwrap());
    assert_eq!(told.last().unwrap()["type"], "response.failed");
    let kept = retrieve(&gateway, &told[0]["response"]["id"]).await;
    assert_eq!(kept, told.last().unwrap()["response"]);
    assert_eq!(kept["error"]["code"], "server_error");
}

#[tokio::test]
async fn a_stop_waits_for_it_and_then_fails_it() {
    let endpoint = EndpointConfig { first_token_ms: Some(300), ..simulated() };
    let gateway = Gateway::start(endpoint).await;
    start(&gateway, &json!({})).await;
    let store = gateway.store();
    gateway.stop();
    gateway.ended().await;
    let job = store.jobs_unfinished().await.unwrap();
    assert!(job.is_empty(), "it was waited for: {job:?}");

    let (server, endpoint) = endless().await;
    let gateway = Gateway::start_with(endpoint, |config, _| config.drain.busy_ms_max = 50).await;
    let made = start(&gateway, &json!({})).await;
    soon("the upstream's request", server.until(|seen| seen.requests.len() == 1)).await;
    let store = gateway.store();
    gateway.stop();
    gateway.ended().await;
    let owner = OwnerId::default();
    let kept = store.retrieve(owner, made["id"].as_str().unwrap(), 0).await.unwrap().unwrap();
    let kept: Value = serde_json::from_slice(&kept.response).unwrap();
    assert_eq!((&kept["status"], &kept["error"]["code"]), (&json!("failed"), &json!("server_error")));
}

#[tokio::test]
async fn who_follows_it_when_the_stop_fails_it_reads_its_end() {
    let (server, endpoint) = endless().await;
    let gateway = Gateway::start_with(endpoint, |config, _| config.drain.busy_ms_max = 50).await;
    let (address, body) = (gateway.address, request(&json!({"stream": true})).to_string());
    let json = "content-type: application/json\r\n";
    let followed = tokio::spawn(async move { exchange(address, "POST", "/v1/responses", json, body.as_bytes()).await });
    soon("the upstream's request", server.until(|seen| seen.requests.len() == 1)).await;
    gateway.stop();
    gateway.ended().await;
    let told = followed.await.unwrap().events();
    assert_eq!(told.last().unwrap(), "[DONE]", "{told:?}");
    assert_eq!(told[told.len() - 2]["type"], "response.failed", "{told:?}");
}

#[tokio::test]
async fn what_a_process_left_unfinished_is_ended_by_the_next() {
    let store = Arc::new(MemoryStore::new(Limits::default()));
    let object = |id: &str| json!({"id": id, "object": "response", "status": "in_progress", "error": null}).to_string();
    let record = |id: &str| Record {
        id: id.to_owned(),
        created_unix_ms: u64::MAX,
        response: object(id).into(),
        ..Record::default()
    };
    let owner = OwnerId::default();
    for (id, request) in [("resp_a", r#"{"stream":true}"#), ("resp_b", "{}"), ("resp_c", r#"{"stream":true}"#)] {
        store.job_create(record(id), request.into()).await.unwrap();
    }
    let event = |number: u64| Event { sequence_number: number, json: format!("{{\"type\":\"e{number}\"}}").into() };
    store.job_append(owner, "resp_a", vec![event(0), event(1)]).await.unwrap();
    store.job_cancel(owner, "resp_b", 0).await.unwrap();
    let gateway = Gateway::start_on(simulated(), store, |_, _| {}).await;
    let failed = retrieve(&gateway, &json!("resp_a")).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("server_error")));
    assert!(failed["error"]["message"].as_str().unwrap().contains("restarted"));
    assert_eq!(retrieve(&gateway, &json!("resp_b")).await["status"], "cancelled");
    let rest = events(&follow(&gateway, &json!("resp_a"), "&starting_after=0").await);
    assert_eq!(rest[0]["type"], "e1");
    assert_eq!((&rest[1]["type"], &rest[1]["response"]), (&json!("response.failed"), &failed));
    assert_eq!(rest[1]["sequence_number"], 2);
    let types: Vec<_> =
        events(&follow(&gateway, &json!("resp_c"), "").await).iter().map(|e| e["type"].clone()).collect();
    assert_eq!(types, ["response.created", "response.queued", "response.failed"]);
}
