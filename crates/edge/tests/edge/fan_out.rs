//! A request that fans out, over sockets: who is asked when, what a client sees of it, and what is left when it goes. PROTOCOL clause 15.

use crate::support::{Gateway, Reply, Socket, begun, kinds, request, soon, text, upstream};
use flashlane_backend::{EndpointConfig, Tier};
use flashlane_edge::EdgeConfig;
use flashlane_engine::Settings;
use flashlane_engine::admission::Settings as Admission;
use flashlane_testkit::upstream::{Step, Upstream, chat_events, error, stream};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Long enough that what does not wait for a first token is there before it.
const FIRST_TOKEN: Duration = Duration::from_millis(300);

/// Answers after a while, again and again.
async fn engine(said: &str) -> Upstream {
    let mut events = stream(&chat_events(&[said]));
    events.insert(2, Step::Wait(FIRST_TOKEN));
    Upstream::start(vec![[events, vec![Step::Again]].concat()]).await.unwrap()
}

fn endpoint(name: &str, tier: Tier, engine: &Upstream) -> EndpointConfig {
    EndpointConfig { name: name.to_owned(), tier, ..upstream(&engine.base_url()) }
}

/// Two tiers.
async fn gateway(wafer: &Upstream, gpu: &Upstream) -> Gateway {
    let endpoints = [endpoint("wafer", Tier::Latency, wafer), endpoint("gpu", Tier::Throughput, gpu)];
    let edit = |config: &mut EdgeConfig, settings: &mut Settings| {
        (settings.children_max, config.drain.busy_ms_max) = (8, 100);
    };
    Gateway::start_behind_with(&endpoints, Admission::default(), edit).await
}

fn asked(children: &Value) -> Value {
    json!({"model": "demo", "instructions": "You review.", "input": "the diff", "store": false, "flashlane": {"fan_out": children}})
}

fn create(children: &Value) -> Value {
    let mut create = asked(children);
    create["type"] = json!("response.create");
    create
}

/// What engines were asked, in order: the model, and the messages.
fn requests(engine: &Upstream) -> Vec<(String, Vec<String>)> {
    let of = |body: &[u8]| {
        let body: Value = serde_json::from_slice(body).unwrap();
        let messages = body["messages"].as_array().unwrap().iter();
        let messages = messages.map(|message| message["content"].as_str().unwrap().to_owned()).collect();
        (body["model"].as_str().unwrap().to_owned(), messages)
    };
    engine.seen().requests.iter().map(|request| of(&request.body)).collect()
}

fn of_lane<'a>(events: &'a [Value], lane: Option<&'a str>) -> Vec<&'a Value> {
    events.iter().filter(|event| event["stream_id"].as_str() == lane).collect()
}

/// All up to the end of the default lane's response.
async fn until_end(socket: &mut Socket) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let event = socket.event().await;
        let is_last = event["stream_id"].is_null()
            && event["type"].as_str().unwrap().starts_with("response.")
            && ["completed", "incomplete", "failed"].iter().any(|end| event["type"] == format!("response.{end}"));
        events.push(event);
        if is_last {
            return events;
        }
    }
}

/// Each child's name, its status, and what its item says.
fn texts(response: &Value) -> Vec<(&str, &str, &str)> {
    response["output"].as_array().unwrap().iter().map(row).collect()
}

fn row(item: &Value) -> (&str, &str, &str) {
    let child = &item["flashlane"]["child"];
    (child["name"].as_str().unwrap(), child["status"].as_str().unwrap(), item["content"][0]["text"].as_str().unwrap())
}

#[tokio::test]
async fn each_engine_reads_what_children_share_once_and_then_gets_the_others() {
    let (wafer, gpu) = (engine("fast").await, engine("large").await);
    let gateway = gateway(&wafer, &gpu).await;
    let mut socket = gateway.websocket().await;
    let children = json!([
        {"name": "a", "input": "bugs?"}, {"name": "b", "input": "style?"}, {"name": "c", "input": "tests?"},
        {"name": "g1", "input": "more?", "model": "openai/gpt-oss-120b", "tier": "throughput"},
        {"name": "g2", "input": "less?", "model": "openai/gpt-oss-120b", "tier": "throughput"},
    ]);
    socket.send(&create(&children)).await;
    soon("the first of each", wafer.until(|seen| !seen.requests.is_empty())).await;
    soon("the first of each", gpu.until(|seen| !seen.requests.is_empty())).await;
    let mut before = Vec::new();
    let first = loop {
        let event = socket.event().await;
        if event["type"] == "response.output_text.delta" {
            break event;
        }
        before.push((wafer.seen().requests.len(), gpu.seen().requests.len()));
        assert_ne!(event["type"], "response.completed");
    };
    assert!(before.iter().all(|asked| *asked == (1, 1)), "nobody else is asked before a first token: {before:?}");
    assert!(first["stream_id"].is_string(), "{first}");
    let events = until_end(&mut socket).await;
    let response = &events.last().unwrap()["response"];
    let done = |name| (name, "completed", if name < "g" { "fast" } else { "large" });
    assert_eq!(texts(response), ["a", "b", "c", "g1", "g2"].map(done));
    let (fast, large) = (requests(&wafer), requests(&gpu));
    assert_eq!((fast.len(), large.len()), (3, 2));
    assert!(fast.iter().all(|(model, said)| model == "demo" && said[..2] == ["You review.", "the diff"]), "{fast:?}");
    assert_eq!((&*fast[0].1[2], &*large[0].1[2], &*large[0].0), ("bugs?", "more?", "openai/gpt-oss-120b"));
    assert_eq!(response["usage"]["total_tokens"], 5 * 8);
    // The next turn goes on from all of them.
    let next = json!({"type": "response.create", "model": "demo", "input": "so?", "store": false, "previous_response_id": response["id"]});
    socket.turn(&next).await;
    let (_, said) = requests(&wafer).pop().unwrap();
    assert_eq!(said, ["the diff", "[a]\nfast\n\n[b]\nfast\n\n[c]\nfast\n\n[g1]\nlarge\n\n[g2]\nlarge", "so?"]);
    let metrics = gateway.metrics().await;
    assert!(metrics.contains("flashlane_turns_total{outcome=\"completed\",tier=\"latency\"} 4"), "{metrics}");
    assert!(metrics.contains("flashlane_turns_total{outcome=\"completed\",tier=\"none\"} 1"), "{metrics}");
    assert!(metrics.contains("flashlane_children_total{kind=\"fan_out\",outcome=\"completed\"} 5"), "{metrics}");
}

#[tokio::test]
async fn over_http_its_parents_events_are_all_that_is_shown() {
    let (wafer, gpu) = (engine("fast").await, engine("large").await);
    let gateway = gateway(&wafer, &gpu).await;
    let children = json!([{"name": "a", "input": "x"}, {"name": "b", "input": "y", "tier": "throughput"}, {"name": "c", "input": "z"}]);
    let mut body = asked(&children);
    let whole = gateway.post("/v1/responses", &body).await;
    let expected = [("a", "completed", "fast"), ("b", "completed", "large"), ("c", "completed", "fast")];
    assert_eq!((whole.status, texts(&whole.json())), (200, expected.to_vec()));
    body["stream"] = json!(true);
    let streamed = gateway.post("/v1/responses", &body).await;
    let events = streamed.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let events = &events[..events.len() - 1];
    assert!(events.iter().all(|event| event.get("stream_id").is_none()));
    let item = [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ];
    let expected_kinds =
        ["created", "in_progress"].into_iter().chain(std::iter::repeat_n(item, 3).flatten()).chain(["completed"]);
    let expected_kinds: Vec<_> = expected_kinds.map(|kind| format!("response.{kind}")).collect();
    assert_eq!(kinds(events), expected_kinds);
    assert!(events.iter().zip(0u64..).all(|(event, number)| event["sequence_number"] == number));
    assert_eq!(texts(&events.last().unwrap()["response"]), expected);
    assert_eq!(text(&events.last().unwrap()["response"]), "fastlargefast");
}

#[tokio::test]
async fn a_child_whose_engine_refuses_it_fails_alone() {
    let wafer = engine("fast").await;
    let refusing = error(400, "", r#"{"error":{"message":"no such thing","type":"invalid_request_error"}}"#);
    let gpu = Upstream::start(vec![[refusing, vec![Step::Again]].concat()]).await.unwrap();
    let gateway = gateway(&wafer, &gpu).await;
    let children = json!([{"name": "a", "input": "x", "tier": "throughput"}, {"name": "b", "input": "y"}]);
    let response = gateway.post("/v1/responses", &asked(&children)).await.json();
    let failed = ("a", "failed", "(This part failed: no such thing)");
    assert_eq!(
        (response["status"].as_str(), texts(&response)),
        (Some("completed"), vec![failed, ("b", "completed", "fast")])
    );
    let error = &response["output"][0]["flashlane"]["child"]["error"];
    assert_eq!(*error, json!({"code": "invalid_prompt", "message": "no such thing"}));
    let mut socket = gateway.websocket().await;
    socket.send(&create(&json!([{"name": "a", "input": "x", "tier": "throughput"}]))).await;
    let events = until_end(&mut socket).await;
    assert_eq!(kinds(&of_lane(&events, Some("a")).into_iter().cloned().collect::<Vec<_>>()), ["error"]);
    let response = &events.last().unwrap()["response"];
    assert_eq!((&response["status"], &response["error"]["code"]), (&json!("failed"), &json!("invalid_prompt")));
}

/// Both engines are in the middle of an answer.
async fn in_the_middle() -> (Upstream, Upstream, Gateway, Value) {
    let (wafer, gpu) = (Upstream::start(vec![begun()]).await.unwrap(), Upstream::start(vec![begun()]).await.unwrap());
    let gateway = gateway(&wafer, &gpu).await;
    let children = json!([{"name": "a", "input": "x"}, {"name": "b", "input": "y"}, {"name": "g", "input": "z", "tier": "throughput"}]);
    (wafer, gpu, gateway, children)
}

async fn all_begun(wafer: &Upstream, gpu: &Upstream) {
    soon("two at the wafer", wafer.until(|seen| seen.requests.len() == 2)).await;
    soon("one at the gpu", gpu.until(|seen| seen.requests.len() == 1)).await;
}

async fn all_closed(wafer: &Upstream, gpu: &Upstream) {
    for engine in [wafer, gpu] {
        soon("their end", engine.until(|seen| seen.requests.iter().all(|r| seen.closed[r.connection].is_some()))).await;
    }
}

async fn assert_nothing_is_left(gateway: &Gateway, ended: &str) {
    let metrics = gateway.metrics().await;
    for endpoint in ["wafer", "gpu"] {
        let line = format!("flashlane_upstream_turns_in_flight{{endpoint=\"{endpoint}\"}} 0");
        assert!(metrics.contains(&line), "{metrics}");
    }
    assert!(metrics.contains(ended), "{metrics}");
}

const LATENCY_CANCELLED: &str = "flashlane_turns_total{outcome=\"cancelled\",tier=\"latency\"} 2";

#[tokio::test]
async fn a_client_that_leaves_takes_all_of_it_along() {
    let (wafer, gpu, gateway, children) = in_the_middle().await;
    let mut socket = gateway.websocket().await;
    socket.send(&create(&children)).await;
    all_begun(&wafer, &gpu).await;
    drop(socket);
    all_closed(&wafer, &gpu).await;
    assert_nothing_is_left(&gateway, LATENCY_CANCELLED).await;
    for streams in [true, false] {
        let (wafer, gpu, gateway, children) = in_the_middle().await;
        let mut body = asked(&children);
        body["stream"] = json!(streams);
        let mut client = gateway.connect().await;
        client.write_all(&request("POST", "/v1/responses", "", body.to_string().as_bytes())).await.unwrap();
        all_begun(&wafer, &gpu).await;
        drop(client);
        all_closed(&wafer, &gpu).await;
        assert_nothing_is_left(&gateway, LATENCY_CANCELLED).await;
    }
}

#[tokio::test]
async fn a_child_is_cancelled_by_its_id_and_a_parent_with_all_of_its_children() {
    let (wafer, gpu, gateway, children) = in_the_middle().await;
    let mut socket = gateway.websocket().await;
    socket.send(&create(&children)).await;
    let mut ids = std::collections::BTreeMap::new();
    while ids.len() < 4 {
        let event = socket.event().await;
        if event["type"] == "response.created" {
            let lane = event["stream_id"].as_str().unwrap_or_default().to_owned();
            ids.insert(lane, event["response"]["id"].clone());
        }
    }
    all_begun(&wafer, &gpu).await;
    socket.send(&json!({"type": "response.cancel", "response_id": ids["g"]})).await;
    soon("the gpu's end", gpu.until(|seen| seen.closed[seen.requests[0].connection].is_some())).await;
    assert!(wafer.seen().requests.iter().all(|r| wafer.seen().closed[r.connection].is_none()), "the others go on");
    socket.send(&json!({"type": "response.cancel", "response_id": ids[""]})).await;
    let events = until_end(&mut socket).await;
    for lane in ["a", "b", "g"] {
        let last = *of_lane(&events, Some(lane)).last().unwrap();
        assert_eq!(last["response"]["incomplete_details"]["reason"], "cancelled", "{lane}");
    }
    assert_eq!(events.last().unwrap()["response"]["incomplete_details"]["reason"], "cancelled");
    all_closed(&wafer, &gpu).await;
    assert_nothing_is_left(&gateway, LATENCY_CANCELLED).await;
}

/// A background response, once it has ended.
async fn ended(gateway: &Gateway, id: &str) -> Value {
    loop {
        let response = gateway.get(&format!("/v1/responses/{id}")).await.json();
        if !["queued", "in_progress"].contains(&response["status"].as_str().unwrap()) {
            return response;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_kept_of_it_is_its_parents() {
    let (wafer, gpu) = (engine("fast").await, engine("large").await);
    let gateway = gateway(&wafer, &gpu).await;
    let mut body = asked(&json!([{"name": "a", "input": "x"}, {"name": "b", "input": "y"}]));
    (body["store"], body["background"], body["stream"]) = (json!(true), json!(true), json!(true));
    let streamed: Reply = gateway.post("/v1/responses", &body).await;
    let events = streamed.events();
    assert_eq!(kinds(&events[..3]), ["response.created", "response.queued", "response.in_progress"]);
    let id = events[0]["response"]["id"].as_str().unwrap().to_owned();
    let response = ended(&gateway, &id).await;
    assert_eq!(texts(&response), [("a", "completed", "fast"), ("b", "completed", "fast")]);
    assert_eq!(kinds(&events).iter().filter(|kind| **kind == "response.output_item.added").count(), 2);
    assert!(events.iter().zip(0u64..).all(|(event, number)| event == "[DONE]" || event["sequence_number"] == number));
    let child = response["output"][0]["flashlane"]["child"]["id"].as_str().unwrap();
    assert_eq!(gateway.get(&format!("/v1/responses/{child}")).await.status, 404, "a child is not stored");
    let next = json!({"model": "demo", "input": "so?", "previous_response_id": id});
    assert_eq!(gateway.post("/v1/responses", &next).await.status, 200);
    assert_eq!(requests(&wafer).pop().unwrap().1, ["the diff", "[a]\nfast\n\n[b]\nfast", "so?"]);
    // In the middle, it is cancelled as any other.
    let (wafer, gpu, gateway, children) = in_the_middle().await;
    let mut body = asked(&children);
    (body["store"], body["background"]) = (json!(true), json!(true));
    let queued = gateway.post("/v1/responses", &body).await.json();
    all_begun(&wafer, &gpu).await;
    let cancelled = gateway.post(&format!("/v1/responses/{}/cancel", queued["id"].as_str().unwrap()), &json!({})).await;
    assert_eq!(cancelled.json()["status"], "cancelled");
    all_closed(&wafer, &gpu).await;
    assert_nothing_is_left(&gateway, LATENCY_CANCELLED).await;
}

#[tokio::test]
async fn a_server_that_waits_no_longer_fails_it_in_order() {
    let (wafer, gpu, gateway, children) = in_the_middle().await;
    let mut client = gateway.connect().await;
    let mut body = asked(&children);
    body["stream"] = json!(true);
    client
        .write_all(&request("POST", "/v1/responses", "connection: close\r\n", body.to_string().as_bytes()))
        .await
        .unwrap();
    all_begun(&wafer, &gpu).await;
    gateway.stop();
    let mut bytes = Vec::new();
    soon("the end", client.read_to_end(&mut bytes)).await.unwrap();
    let events = Reply::parse(&bytes).events();
    let failed = &events[events.len() - 2];
    assert_eq!(
        (&failed["type"], &failed["response"]["error"]["code"]),
        (&json!("response.failed"), &json!("server_error"))
    );
    all_closed(&wafer, &gpu).await;
}
