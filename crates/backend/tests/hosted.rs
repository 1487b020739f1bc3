//! The adapter of hosted services against a scripted server in the shape of Cerebras' one: what it sends, what it does with refusals, and
//! how it keeps its connections warm.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail this way")]

mod rig;

use bytes::Bytes;
use flashlane_backend::{Backends, EndpointConfig, Kind, Tier};
use flashlane_engine::{Ended, UpstreamFailure, UpstreamRequest};
use flashlane_testkit::upstream::Identity;
use flashlane_testkit::wafer::{Fault, Wafer, Ways};
use flashlane_wire::chat::{ChunkReader, DeltaKind, Field, Read};
use flashlane_wire::sse;
use rig::{ONLY, Ran, backends, run_until, within};
use serde_json::{Value, json};
use std::time::Duration;

/// Cargo sets the variable for tests.
const KEY: &str = env!("CARGO_PKG_NAME");

fn config(wafer: &Wafer) -> EndpointConfig {
    EndpointConfig {
        base_url: Some(wafer.base_url()),
        api_key_env: Some("CARGO_PKG_NAME".to_owned()),
        ..EndpointConfig::new("wafer-1", Tier::Latency, Kind::Cerebras)
    }
}

async fn wafer() -> Wafer {
    Wafer::start(Ways { key: Some(KEY.to_owned()), ..Ways::default() }, None).await.unwrap()
}

fn request(fields: Vec<Field>) -> UpstreamRequest {
    UpstreamRequest { model: "gpt-oss-120b".into(), fields, cache_key: Some("session-1".into()), ..rig::request() }
}

async fn run(backends: &Backends, fields: Vec<Field>) -> Ran {
    run_until(&mut backends.open(ONLY, request(fields)), |_| false).await
}

async fn refused(backends: &Backends) -> (u16, Option<u64>) {
    let failure = run(backends, Vec::new()).await.failure();
    let UpstreamFailure::Refused { status, retry_after_ms, .. } = failure else { panic!("no refusal but {failure:?}") };
    (status, retry_after_ms)
}

/// Waits until so many connections are at rest.
async fn idle(backends: &Backends, connections: u64) {
    let rested = async {
        while backends.stats(ONLY).connections_idle < connections {
            tokio::task::yield_now().await;
        }
    };
    within(rested).await;
}

fn last_body(wafer: &Wafer) -> Value {
    wafer.seen().turns().last().unwrap().json()
}

#[tokio::test]
async fn a_turn_brings_reasoning_text_usage_and_the_services_own_times() {
    let wafer = wafer().await;
    let ran = run(&backends(config(&wafer)), Vec::new()).await;
    assert_eq!(ran.ended, Some(Ended::Complete));
    let (mut chunks, mut texts, mut reasoning) = (ChunkReader::default(), 0, 0);
    let (mut usage, mut times, mut is_done) = (None, None, false);
    let mut decoder = sse::Decoder::new(1 << 20);
    let whole = decoder.decode(&ran.bytes, |event| match chunks.read(event.data).unwrap() {
        Read::Text(DeltaKind::Content, _) => texts += 1,
        Read::Text(DeltaKind::Reasoning, _) => reasoning += 1,
        Read::Text(DeltaKind::Arguments(_), _) => panic!("no call was asked for"),
        Read::Chunk(chunk) => (usage, times) = (chunk.usage.or(usage), chunk.times.or(times)),
        Read::Done => is_done = true,
    });
    assert!(whole.is_ok() && is_done);
    assert_eq!((texts, reasoning), (2, 1));
    assert!(usage.unwrap().output > texts + reasoning, "a chunk has several tokens");
    assert_eq!(times.unwrap().queue_ns, Some(500_000));
}

#[tokio::test]
async fn a_request_says_what_the_service_wants_to_hear() {
    let wafer = wafer().await;
    let config = EndpointConfig {
        service_tier: Some("flex".to_owned()),
        queue_ms_max: Some(200),
        completion_tokens_max: Some(4096),
        ..config(&wafer)
    };
    let backends = backends(config);
    let own = vec![
        Field::string("reasoning_effort", "xhigh"),
        Field::new("store", "false"),
        Field::string("tool_choice", "auto"),
    ];
    assert_eq!(run(&backends, own).await.ended, Some(Ended::Complete));
    let seen = wafer.seen();
    let [turn] = seen.turns()[..] else { panic!("{seen:?}") };
    assert_eq!(turn.header("queue_threshold"), Some("200"));
    assert_eq!(turn.header("x-cerebras-version-patch"), Some("2"));
    let body = turn.json();
    let expected = json!({"reasoning_effort": "high", "prompt_cache_key": "session-1", "max_completion_tokens": 4096,
        "service_tier": "flex", "model": "gpt-oss-120b", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "hello"}]});
    assert_eq!(body, expected);
    run(&backends, vec![Field::new("max_completion_tokens", "16")]).await;
    assert_eq!(last_body(&wafer)["max_completion_tokens"], 16, "the client's own limit stays");
}

#[tokio::test]
async fn equal_turns_are_equal_bytes() {
    let wafer = wafer().await;
    let backends = backends(config(&wafer));
    let tools = Bytes::from_static(br#"[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object","properties":{"z":{},"a":{}}}}}]"#);
    for _ in 0..2 {
        let ran = run(&backends, vec![Field::new("tools", tools.clone()), Field::string("tool_choice", "auto")]).await;
        assert_eq!(ran.ended, Some(Ended::Complete), "the service refuses schemas that are not closed");
    }
    let seen = wafer.seen();
    let turns = seen.turns();
    assert_eq!(turns[0].body, turns[1].body);
    let text = String::from_utf8(turns[0].body.to_vec()).unwrap();
    assert!(text.contains(r#""properties":{"z":{},"a":{}},"additionalProperties":false"#), "{text}");
}

#[tokio::test]
async fn a_queue_that_is_too_long_is_refused_as_a_full_endpoint() {
    let wafer = wafer().await;
    let config = EndpointConfig { service_tier: Some("auto".to_owned()), queue_ms_max: Some(50), ..config(&wafer) };
    let backends = backends(config);
    wafer.alter(|ways| ways.queue_ms = 51);
    assert_eq!(refused(&backends).await, (429, None));
    assert_eq!(refused(&backends).await, (429, None), "a queue may be shorter a moment later: it is asked again");
    assert_eq!(wafer.seen().turns().len(), 2);
    wafer.alter(|ways| ways.queue_ms = 50);
    assert_eq!(run(&backends, Vec::new()).await.ended, Some(Ended::Complete));
}

#[tokio::test]
async fn what_the_service_would_refuse_is_not_sent() {
    let wafer = wafer().await;
    let backends = backends(EndpointConfig { completion_tokens_max: Some(1000), ..config(&wafer) });
    wafer.alter(|ways| ways.tokens_left = 1900);
    assert_eq!(run(&backends, Vec::new()).await.ended, Some(Ended::Complete));
    // Some 850 are left, as its answer said.
    let (status, wait_ms) = refused(&backends).await;
    assert_eq!((status, wait_ms.is_some_and(|ms| (20_000..=26_500).contains(&ms))), (429, true), "{wait_ms:?}");
    assert_eq!(wafer.seen().turns().len(), 1, "it was sent");
    let small = run(&backends, vec![Field::new("max_completion_tokens", "10")]).await;
    assert_eq!(small.ended, Some(Ended::Complete), "a smaller one fits");
}

#[tokio::test]
async fn a_refusal_for_its_limits_says_how_long_it_holds_and_closes_the_way_until_then() {
    let wafer = wafer().await;
    let backends = backends(config(&wafer));
    wafer.alter(|ways| ways.requests_left = 0);
    let (status, wait_ms) = refused(&backends).await;
    let by_its_reset = wait_ms.is_some_and(|ms| (33_000_000..=33_011_383).contains(&ms));
    assert!(status == 429 && by_its_reset, "by the bucket's own reset: {wait_ms:?}");
    let (status, wait_ms) = refused(&backends).await;
    assert!(status == 429 && wait_ms.is_some_and(|ms| ms > 30_000_000), "{wait_ms:?}");
    assert_eq!(wafer.seen().turns().len(), 1);
}

#[tokio::test]
async fn limits_are_each_models_own() {
    let wafer = wafer().await;
    let backends = backends(config(&wafer));
    wafer.alter(|ways| {
        ways.requests_left = 0;
        ways.models.push("qwen-3.8-27b".to_owned());
    });
    refused(&backends).await;
    wafer.alter(|ways| ways.requests_left = 10);
    let other = UpstreamRequest { model: "qwen-3.8-27b".into(), ..request(Vec::new()) };
    let ran = run_until(&mut backends.open(ONLY, other), |_| false).await;
    assert_eq!(ran.ended, Some(Ended::Complete));
}

#[tokio::test]
async fn large_requests_go_out_in_gzip_until_a_415() {
    for version in [1, 2] {
        gzip_until_a_415(version).await;
    }
}

fn large() -> UpstreamRequest {
    let message = format!(r#"{{"role":"user","content":"{}"}}"#, "let x = 1; ".repeat(1000));
    UpstreamRequest { messages: vec![Bytes::from(message)], ..request(Vec::new()) }
}

#[tokio::test]
async fn a_service_that_is_near_gets_large_requests_as_they_are() {
    let wafer = wafer().await;
    let config = EndpointConfig { gzip_bytes_min: Some(2048), gzip_round_trip_ms_min: Some(1000), ..config(&wafer) };
    let backends = backends(config);
    for _ in 0..2 {
        assert_eq!(run_until(&mut backends.open(ONLY, large()), |_| false).await.ended, Some(Ended::Complete));
    }
    assert!(wafer.seen().turns().iter().all(|turn| turn.header("content-encoding").is_none()));
}

async fn gzip_until_a_415(version: u8) {
    let wafer = wafer().await;
    let backends = backends(EndpointConfig {
        gzip_bytes_min: Some(2048),
        gzip_round_trip_ms_min: Some(0),
        http_version: Some(version),
        ..config(&wafer)
    });
    let run_large = async || run_until(&mut backends.open(ONLY, large()), |_| false).await;
    assert_eq!(run(&backends, Vec::new()).await.ended, Some(Ended::Complete));
    assert_eq!(run_large().await.ended, Some(Ended::Complete));
    let seen = wafer.seen();
    let turns = seen.turns();
    assert_eq!(turns[0].header("content-encoding"), None, "a small one");
    assert_eq!(turns[1].header("content-encoding"), Some("gzip"));
    assert!(turns[1].wire_bytes * 3 < turns[1].body.len(), "{} of {}", turns[1].wire_bytes, turns[1].body.len());

    wafer.alter(|ways| ways.takes_gzip = false);
    assert!(matches!(run_large().await.failure(), UpstreamFailure::Refused { status: 415, .. }));
    assert_eq!(run_large().await.ended, Some(Ended::Complete), "it was sent in gzip again");
}

#[tokio::test]
async fn an_error_inside_of_a_stream_is_handed_on_and_a_cut_is_a_cut() {
    let wafer = wafer().await;
    let backends = backends(config(&wafer));
    wafer.alter(|ways| ways.fault = Fault::InStream { events: 2 });
    let ran = run(&backends, Vec::new()).await;
    let text = String::from_utf8(ran.bytes).unwrap();
    assert!(text.contains(r#""status_code":500"#) && !text.contains("[DONE]"), "{text}");
    wafer.alter(|ways| ways.fault = Fault::Cut { bytes: 300 });
    let ran = run(&backends, Vec::new()).await;
    assert_eq!(ran.bytes.len(), 300);
    assert!(matches!(ran.failure(), UpstreamFailure::Cut { .. }));
}

#[tokio::test]
async fn a_wrong_key_is_the_services_word() {
    let wafer = wafer().await;
    let config = EndpointConfig { api_key_env: Some("CARGO_PKG_VERSION".to_owned()), ..config(&wafer) };
    assert_eq!(refused(&backends(config)).await, (401, None));
}

#[tokio::test]
async fn both_versions_of_http_over_tls_are_warmed_before_the_first_turn() {
    for (version, alpn) in [(1, &["http/1.1"][..]), (2, &["h2"])] {
        let identity = Identity::new(alpn).unwrap();
        let wafer = Wafer::start(Ways::default(), Some(identity.clone())).await.unwrap();
        let backends = backends(EndpointConfig {
            http_version: Some(version),
            ca_file: Some(rig::file(&format!("hosted-{version}.pem"), identity.pem())),
            ..config(&wafer)
        });
        backends.warm(ONLY);
        let wanted = if version == 1 { 2 } else { 1 };
        within(wafer.until(|seen| seen.warmings() == wanted)).await;
        if version == 1 {
            // Read to its end, and put back.
            idle(&backends, 2).await;
        }
        assert_eq!(run(&backends, Vec::new()).await.ended, Some(Ended::Complete));
        let seen = wafer.seen();
        assert_eq!(seen.connections, wanted, "a turn opened one more");
        assert!(
            seen.requests
                .iter()
                .all(|met| met.http == version && met.header("authorization") == Some("Bearer flashlane-backend"))
        );
        assert_eq!(seen.requests[0].method, "GET");
    }
}

#[tokio::test]
async fn rounds_keep_as_many_warm_as_are_wanted_and_end_when_nobody_comes() {
    let wafer = wafer().await;
    let backends = backends(EndpointConfig {
        warm_connections: Some(2),
        idle_connection_ms_max: Some(40),
        warm_ms_max: Some(150),
        ..config(&wafer)
    });
    backends.warm(ONLY);
    backends.warm(ONLY);
    let seen = within(wafer.until(|seen| seen.warmings() >= 8)).await;
    assert!(seen.connections <= 4, "{} connections for {} warmings", seen.connections, seen.warmings());
    tokio::time::sleep(Duration::from_millis(250)).await;
    let rested = wafer.seen().warmings();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(wafer.seen().warmings(), rested, "it is kept warm for nobody");
    backends.warm(ONLY);
    within(wafer.until(|seen| seen.warmings() > rested)).await;
}

#[tokio::test]
async fn a_service_without_the_path_is_warm_all_the_same() {
    let wafer = wafer().await;
    wafer.alter(|ways| ways.warms = false);
    let backends = backends(EndpointConfig { warm_connections: Some(1), ..config(&wafer) });
    backends.warm(ONLY);
    idle(&backends, 1).await;
    assert_eq!(run(&backends, Vec::new()).await.ended, Some(Ended::Complete));
    assert_eq!(wafer.seen().connections, 1);
}

#[tokio::test]
async fn a_dropped_turn_reaches_the_service() {
    let wafer = wafer().await;
    wafer.alter(|ways| ways.fault = Fault::Stall { events: 2 });
    let backends = backends(config(&wafer));
    let mut stream = backends.open(ONLY, request(Vec::new()));
    run_until(&mut stream, |ran| !ran.bytes.is_empty()).await;
    drop(stream);
    within(wafer.until(|seen| seen.abandoned == 1)).await;
}
