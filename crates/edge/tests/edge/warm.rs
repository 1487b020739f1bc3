//! What is ready before a client's first turn: the connection where it will go, and what is known of its limits.

use crate::support::{Gateway, Socket, kinds, simulated, soon, upstream};
use flashlane_backend::{EndpointConfig, Tier};
use flashlane_engine::admission::limit::Limits;
use flashlane_engine::admission::{PerTier, Queueing, Settings};
use flashlane_testkit::upstream::{Step, Upstream, chat_events, stream};
use futures_util::future::select_all;
use http::Response;
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::time::Duration;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const CODEX: (&str, &str) = ("x-codex-turn-metadata", r#"{"model":"demo","request_kind":"prewarm"}"#);

async fn engine() -> Upstream {
    Upstream::start(vec![[stream(&chat_events(&["Hello"])), vec![Step::Again]].concat()]).await.unwrap()
}

fn endpoint(name: &str, tier: Tier, engine: &Upstream) -> EndpointConfig {
    EndpointConfig { name: name.to_owned(), tier, ..upstream(&engine.base_url()) }
}

async fn connect(gateway: &Gateway, fields: &[(&'static str, &str)]) -> (Socket, Response<Option<Vec<u8>>>) {
    let mut request = format!("ws://{}/v1/responses", gateway.address).into_client_request().unwrap();
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let (socket, response) = tokio_tungstenite::client_async(request, gateway.connect().await).await.unwrap();
    (Socket(socket), response)
}

/// The engine that was connected to first.
async fn connected(engines: &[Upstream]) -> usize {
    let connected = engines.iter().map(|engine| Box::pin(engine.until(|seen| !seen.closed.is_empty())));
    soon("a connection before the first turn", select_all(connected)).await.1
}

fn create() -> Value {
    json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})
}

#[tokio::test]
async fn the_first_turn_goes_where_the_handshake_opened_a_connection() {
    for fields in [&[CODEX][..], &[], &[CODEX, ("thread-id", "t")]] {
        let mut engines = Vec::new();
        for _ in 0..5 {
            engines.push(engine().await);
        }
        let endpoints: Vec<_> =
            (0..).zip(&engines).map(|(n, e)| endpoint(&format!("gpu-{n}"), Tier::Throughput, e)).collect();
        let gateway = Gateway::start_behind(&endpoints, Settings::default()).await;
        let (mut socket, _) = connect(&gateway, fields).await;
        let planned = connected(&engines).await;
        socket.turn(&create()).await;
        let served = engines.iter().map(|engine| engine.seen().requests.len());
        assert_eq!(
            served.enumerate().filter(|(_, turns)| *turns > 0).collect::<Vec<_>>(),
            [(planned, 1)],
            "{fields:?}"
        );
        let opened: usize = engines.iter().map(|engine| engine.seen().closed.len()).sum();
        assert_eq!(opened, 1, "no other connection was needed, {fields:?}");
    }
}

#[tokio::test]
async fn a_handshake_is_planned_as_its_turns_will_be() {
    for (subagent, tier) in [(None, 0), (Some(("x-openai-subagent", "collab_spawn")), 1)] {
        let engines = [engine().await, engine().await];
        let endpoints = [endpoint("wafer", Tier::Latency, &engines[0]), endpoint("gpu", Tier::Throughput, &engines[1])];
        let gateway = Gateway::start_behind(&endpoints, Settings::default()).await;
        let fields: Vec<_> = [CODEX].into_iter().chain(subagent).collect();
        let (mut socket, _) = connect(&gateway, &fields).await;
        assert_eq!(connected(&engines).await, tier);
        socket.turn(&create()).await;
        assert_eq!(engines.map(|engine| engine.seen().closed.len()).iter().sum::<usize>(), 1);
    }
}

#[tokio::test]
async fn a_handshake_is_told_what_is_left_of_its_limits() {
    let latency = Limits { tokens_per_minute: NonZeroU32::new(6000), ..Limits::default() };
    let limits = PerTier { latency, ..PerTier::default() };
    let gateway = Gateway::start_behind(&[simulated()], Settings { limits, ..Settings::default() }).await;
    let (mut socket, response) = connect(&gateway, &[CODEX]).await;
    assert_eq!(response.headers()["x-ratelimit-remaining-tokens"], "6000");
    assert!(!response.headers().contains_key("x-ratelimit-limit-requests"), "those are not limited");
    socket.turn(&create()).await;
    let (_, response) = connect(&gateway, &[CODEX]).await;
    assert_ne!(response.headers()["x-ratelimit-remaining-tokens"], "6000");
}

fn reading() -> Settings {
    let queue = || Queueing { prefill_on_warm_up: true, ..Queueing::default() };
    Settings { queue: PerTier { latency: queue(), throughput: queue() }, ..Settings::default() }
}

fn warm_up(input: &str) -> Value {
    json!({"type": "response.create", "model": "demo", "input": input, "store": true, "generate": false})
}

async fn until_metric(gateway: &Gateway, line: &str) {
    soon(line, async {
        while !gateway.metrics().await.contains(line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_warm_up_has_its_prompt_read_where_its_turn_goes_and_it_is_counted() {
    let engines = [engine().await, engine().await, engine().await];
    let endpoints: Vec<_> =
        (0..).zip(&engines).map(|(n, e)| endpoint(&format!("gpu-{n}"), Tier::Throughput, e)).collect();
    let gateway = Gateway::start_behind(&endpoints, reading()).await;
    for round in 1..=4 {
        let (mut socket, _) = connect(&gateway, &[]).await;
        let events = socket.turn(&warm_up(&format!("{round}"))).await;
        assert_eq!(kinds(&events), ["response.created", "response.completed"]);
        let mut turn = create();
        turn["previous_response_id"] = events[1]["response"]["id"].clone();
        socket.turn(&turn).await;
        let line =
            format!("flashlane_prefills_total{{cause=\"warm-up\",outcome=\"completed\",tier=\"throughput\"}} {round}");
        until_metric(&gateway, &line).await;
    }
    let mut prefills = 0;
    for engine in &engines {
        let bodies: Vec<Value> =
            engine.seen().requests.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect();
        for pair in bodies.chunks(2) {
            assert_eq!(pair[0]["max_completion_tokens"], 1);
            assert_eq!(pair[0]["messages"][0], pair[1]["messages"][0], "its turn came to the same engine");
            assert_eq!(pair[1]["messages"][1]["content"], "hi");
            prefills += 1;
        }
    }
    assert_eq!(prefills, 4);
    // The script says 7 tokens for each.
    until_metric(&gateway, "flashlane_prefill_tokens_total{cause=\"warm-up\",kind=\"input\",tier=\"throughput\"} 28")
        .await;
    until_metric(&gateway, "flashlane_input_tokens_total{tier=\"throughput\"} 28").await;
    let store = gateway.store();
    soon("the ledger", async {
        let billed = async || store.usage_sum(None, 0..u64::MAX).await.unwrap()[0].tokens.input;
        while billed().await < 56 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(billed().await, 56);
    })
    .await;
}

fn held() -> Vec<Step> {
    vec![Step::Expect, Step::Hold]
}

#[tokio::test]
async fn a_prefill_makes_room_for_another_sessions_turn() {
    let answer = [stream(&chat_events(&["Hello"])), vec![Step::Again]].concat();
    let engine = Upstream::start(vec![held(), answer]).await.unwrap();
    let endpoints = [EndpointConfig { concurrency_max: Some(1), ..endpoint("gpu", Tier::Throughput, &engine) }];
    let gateway = Gateway::start_behind(&endpoints, reading()).await;
    let (mut warmed, _) = connect(&gateway, &[]).await;
    warmed.turn(&warm_up("first")).await;
    soon("the prefill", engine.until(|seen| seen.requests.len() == 1)).await;
    let (mut other, _) = connect(&gateway, &[]).await;
    assert_eq!(kinds(&other.turn(&create()).await).last(), Some(&"response.completed"));
    soon("the prefill to be left", engine.until(|seen| seen.closed[0].is_some())).await;
    until_metric(&gateway, "flashlane_prefills_total{cause=\"warm-up\",outcome=\"cancelled\",tier=\"throughput\"} 1")
        .await;
}

#[tokio::test]
async fn a_prefill_ends_with_its_client() {
    let engine = Upstream::start(vec![held()]).await.unwrap();
    let gateway = Gateway::start_behind(&[endpoint("gpu", Tier::Throughput, &engine)], reading()).await;
    let (mut socket, _) = connect(&gateway, &[]).await;
    socket.turn(&warm_up("first")).await;
    soon("the prefill", engine.until(|seen| seen.requests.len() == 1)).await;
    drop(socket);
    soon("the prefill to be left", engine.until(|seen| seen.closed[0].is_some())).await;
    until_metric(&gateway, "flashlane_prefills_total{cause=\"warm-up\",outcome=\"cancelled\",tier=\"throughput\"} 1")
        .await;
}
