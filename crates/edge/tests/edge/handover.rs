//! A split model's conversation between two engines: what each is sent, and when that is stopped.

use crate::support::{Gateway, Socket, model, soon, upstream};
use flashlane_backend::{EndpointConfig, Tier};
use flashlane_engine::admission::limit::Limits;
use flashlane_engine::admission::{PerTier, Queueing, Settings};
use flashlane_engine::{Model, ModelRouting};
use flashlane_testkit::upstream::{Step, Upstream, chat_events, stream};
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::time::Duration;

const CALLS: &[u8] = br#"data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"run","arguments":"{}"}}]},"finish_reason":null}]}

data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}

data: {"id":"c","choices":[],"usage":{"prompt_tokens":50,"completion_tokens":9,"total_tokens":59}}

data: [DONE]

"#;

fn calls() -> Vec<Step> {
    stream(&[CALLS.into()])
}

fn says() -> Vec<Step> {
    stream(&chat_events(&["Hello"]))
}

fn held() -> Vec<Step> {
    vec![Step::Expect, Step::Hold]
}

async fn engine(scripts: Vec<Vec<Step>>) -> Upstream {
    Upstream::start(scripts).await.unwrap()
}

fn reading() -> Queueing {
    Queueing { prefill_on_handover: true, handover_tokens_min: 1, ..Queueing::default() }
}

fn split() -> Model {
    Model { routing: ModelRouting { splits: true, ..ModelRouting::default() }, ..model("demo") }
}

/// Two tiers of one engine each, the first to be asked by what tools gave, the second by users.
async fn gateway(wafer: &Upstream, gpu: &Upstream, queue: PerTier<Queueing>, limits: Limits) -> Gateway {
    let endpoint = |name: &str, tier, engine: &Upstream| EndpointConfig {
        name: name.to_owned(),
        tier,
        ..upstream(&engine.base_url())
    };
    let endpoints = [endpoint("wafer", Tier::Latency, wafer), endpoint("gpu", Tier::Throughput, gpu)];
    let limits = PerTier { latency: limits, throughput: Limits::default() };
    Gateway::start_of(&endpoints, Settings { queue, limits, ..Settings::default() }, vec![split()]).await
}

fn both() -> PerTier<Queueing> {
    PerTier { latency: reading(), throughput: Queueing::default() }
}

fn create(previous: Option<&str>, input: &Value) -> Value {
    json!({"type": "response.create", "model": "demo", "instructions": "Be brief.", "store": false, "input": input,
        "tools": [{"type": "function", "name": "run", "parameters": {}}], "previous_response_id": previous})
}

/// The first turn, which ends in a call.
async fn planned(socket: &mut Socket) -> String {
    let events = socket.turn(&create(None, &json!("What is there?"))).await;
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed", "{last}");
    last["response"]["id"].as_str().unwrap().to_owned()
}

fn output() -> Value {
    json!([{"type": "function_call_output", "call_id": "call_1", "output": "a file"}])
}

fn bodies(engine: &Upstream) -> Vec<Value> {
    engine.seen().requests.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
}

async fn until_metric(gateway: &Gateway, line: &str) {
    soon(line, async {
        while !gateway.metrics().await.contains(line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn ended(cause: &str, outcome: &str, tier: &str) -> String {
    format!("flashlane_prefills_total{{cause=\"{cause}\",outcome=\"{outcome}\",tier=\"{tier}\"}} 1")
}

#[tokio::test]
async fn the_engine_that_runs_the_next_turn_has_read_the_conversation_by_then() {
    let (wafer, gpu) = (engine(vec![[says(), vec![Step::Again]].concat()]).await, engine(vec![calls()]).await);
    let gateway = gateway(&wafer, &gpu, both(), Limits::default()).await;
    let mut socket = gateway.websocket().await;
    let previous = planned(&mut socket).await;
    until_metric(&gateway, &ended("handover", "completed", "latency")).await;
    assert_eq!(bodies(&wafer).len(), 1, "while the tool runs");
    socket.turn(&create(Some(&previous), &output())).await;
    let read = bodies(&wafer);
    assert_eq!((&read[0]["max_completion_tokens"], read.len()), (&json!(1), 2));
    let messages = |body: &Value| body["messages"].as_array().unwrap()[..3].to_vec();
    assert_eq!(messages(&read[0]), messages(&read[1]));
    assert_eq!(messages(&read[0])[2]["tool_calls"][0]["id"], "call_1");
    // The script says 7 tokens for each, and none of them from a cache.
    for kind in ["input", "used"] {
        let line = format!("flashlane_prefill_tokens_total{{cause=\"handover\",kind=\"{kind}\",tier=\"latency\"}} 7");
        until_metric(&gateway, &line).await;
    }
    assert_eq!(bodies(&gpu).len(), 1);
    // It is paid for under the turn before: 50 and 9 of that, 7 and 1 of reading, 7 and 1 of the turn after.
    let store = gateway.store();
    soon("the ledger", async {
        while store.usage_sum(None, 0..u64::MAX).await.unwrap().iter().map(|row| row.tokens.input).sum::<u64>() < 64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn with_the_setting_off_an_engine_is_asked_by_turns_alone() {
    let (wafer, gpu) = (engine(vec![says()]).await, engine(vec![calls()]).await);
    let gateway = gateway(&wafer, &gpu, PerTier::default(), Limits::default()).await;
    let mut socket = gateway.websocket().await;
    let previous = planned(&mut socket).await;
    socket.turn(&create(Some(&previous), &output())).await;
    assert_eq!((bodies(&wafer).len(), bodies(&gpu).len()), (1, 1));
    assert!(!gateway.metrics().await.contains("flashlane_prefills_total{"));
}

#[tokio::test]
async fn a_turn_that_goes_elsewhere_is_not_kept_waiting_and_ends_the_reading() {
    let (wafer, gpu) = (engine(vec![held()]).await, engine(vec![[calls(), says()].concat()]).await);
    let gateway = gateway(&wafer, &gpu, both(), Limits::default()).await;
    let mut socket = gateway.websocket().await;
    let previous = planned(&mut socket).await;
    soon("the reading", wafer.until(|seen| seen.requests.len() == 1)).await;
    // The user speaks, and the wafer never ends what it was asked.
    let events = socket.turn(&create(Some(&previous), &json!("Leave that."))).await;
    assert_eq!(events.last().unwrap()["type"], "response.completed");
    soon("the reading to be left", wafer.until(|seen| seen.closed[0].is_some())).await;
    until_metric(&gateway, &ended("handover", "cancelled", "latency")).await;
    assert_eq!((bodies(&wafer).len(), bodies(&gpu).len()), (1, 2));
}

#[tokio::test]
async fn a_turn_that_goes_there_goes_when_the_reading_has_had_its_time() {
    let (wafer, gpu) = (engine(vec![held(), says()]).await, engine(vec![calls()]).await);
    let queue = PerTier { latency: Queueing { prefill_ms_max: 300, ..reading() }, ..PerTier::default() };
    let gateway = gateway(&wafer, &gpu, queue, Limits::default()).await;
    let mut socket = gateway.websocket().await;
    let previous = planned(&mut socket).await;
    soon("the reading", wafer.until(|seen| seen.requests.len() == 1)).await;
    let events = socket.turn(&create(Some(&previous), &output())).await;
    assert_eq!(events.last().unwrap()["type"], "response.completed");
    until_metric(&gateway, &ended("handover", "cancelled", "latency")).await;
    assert_eq!(bodies(&wafer).len(), 2);
}

#[tokio::test]
async fn it_ends_with_its_client_and_nothing_is_left() {
    let (wafer, gpu) = (engine(vec![held()]).await, engine(vec![calls()]).await);
    let gateway = gateway(&wafer, &gpu, both(), Limits::default()).await;
    let mut socket = gateway.websocket().await;
    planned(&mut socket).await;
    soon("the reading", wafer.until(|seen| seen.requests.len() == 1)).await;
    drop(socket);
    soon("the reading to be left", wafer.until(|seen| seen.closed[0].is_some())).await;
    until_metric(&gateway, &ended("handover", "cancelled", "latency")).await;
    until_metric(&gateway, "flashlane_limit_tokens_reserved{tier=\"latency\"} 0").await;
}

#[tokio::test]
async fn who_has_too_few_tokens_left_for_both_keeps_them_for_the_turn() {
    let tokens = |per_minute| Limits { tokens_per_minute: NonZeroU32::new(per_minute), ..Limits::default() };
    for (per_minute, requests) in [(100_000, 2), (120, 1)] {
        let (wafer, gpu) = (engine(vec![[says(), vec![Step::Again]].concat()]).await, engine(vec![calls()]).await);
        let gateway = gateway(&wafer, &gpu, both(), tokens(per_minute)).await;
        let mut socket = gateway.websocket().await;
        let previous = planned(&mut socket).await;
        let mut turn = create(Some(&previous), &output());
        turn["max_output_tokens"] = json!(20);
        let events = socket.turn(&turn).await;
        assert_eq!(events.last().unwrap()["type"], "response.completed", "{per_minute}");
        assert_eq!(bodies(&wafer).len(), requests, "{per_minute}");
    }
}

#[tokio::test]
async fn a_turn_that_waits_is_read_at_the_next_tier_and_goes_on_there() {
    let (wafer, gpu) = (engine(vec![held()]).await, engine(vec![[says(), vec![Step::Again]].concat()]).await);
    let narrow = Queueing { concurrency_max: NonZeroU32::new(1), wait_ms_max: 1_000, ..Queueing::default() };
    let queue = PerTier { latency: narrow, throughput: reading() };
    let gateway = gateway(&wafer, &gpu, queue, Limits::default()).await;
    let mut first = gateway.websocket().await;
    let history = json!([{"type": "function_call", "call_id": "call_1", "name": "run", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "a file"}]);
    first.send(&create(None, &history)).await;
    soon("the only slot is taken", wafer.until(|seen| seen.requests.len() == 1)).await;
    // As long as that turn has run, it is thought to run on.
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let mut second = gateway.websocket().await;
    let events = second.turn(&create(None, &history)).await;
    assert_eq!(events.last().unwrap()["type"], "response.completed");
    let read = bodies(&gpu);
    assert_eq!((read.len(), &read[0]["max_completion_tokens"]), (2, &json!(1)));
    assert_eq!(read[0]["messages"], read[1]["messages"]);
    let used = "flashlane_prefill_tokens_total{cause=\"queue\",kind=\"used\",tier=\"throughput\"} 7";
    until_metric(&gateway, used).await;
    until_metric(&gateway, &ended("queue", "completed", "throughput")).await;
}
