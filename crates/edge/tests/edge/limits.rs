//! Limits and queues seen and changed over the admin port while turns run.

use crate::support::{Gateway, Reply, exchange, kinds, simulated, soon};
use flashlane_backend::EndpointConfig;
use flashlane_engine::admission::{PerTier, Queueing, Settings};
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::time::Duration;

async fn change(gateway: &Gateway, tier: &str, fields: &str, patch: &Value) -> Reply {
    exchange(gateway.admin, "PATCH", &format!("/limits/{tier}"), fields, patch.to_string().as_bytes()).await
}

async fn until_metric(gateway: &Gateway, line: &str) {
    soon(line, async {
        while !gateway.metrics().await.contains(line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn create() -> Value {
    json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})
}

#[tokio::test]
async fn more_slots_let_in_who_waits_at_once_and_fewer_take_none_away() {
    let slow = EndpointConfig { first_token_ms: Some(600_000), ..simulated() };
    let latency = Queueing { concurrency_max: NonZeroU32::new(1), wait_ms_max: 60_000, ..Queueing::default() };
    let settings = Settings { queue: PerTier { latency, ..PerTier::default() }, ..Settings::default() };
    let gateway = Gateway::start_behind(&[slow], settings).await;
    let (mut first, mut second) = (gateway.websocket().await, gateway.websocket().await);
    first.send(&create()).await;
    until_metric(&gateway, "flashlane_tier_turns_running{tier=\"latency\"} 1").await;
    second.send(&create()).await;
    assert_eq!(kinds(&[second.event().await]), ["keepalive"]);

    let reply = change(&gateway, "latency", "", &json!({"queue": {"concurrency_min": 3, "concurrency_max": 3}})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        (&reply.json()["queue"]["concurrency_max"], &reply.json()["queue"]["wait_ms_max"]),
        (&json!(3), &json!(60_000))
    );
    until_metric(&gateway, "flashlane_tier_turns_running{tier=\"latency\"} 2").await;

    let fewer = json!({"queue": {"concurrency_min": null, "concurrency_max": 1, "wait_ms_max": 0}});
    assert_eq!(change(&gateway, "latency", "", &fewer).await.status, 200);
    let metrics = gateway.metrics().await;
    for line in [
        "flashlane_tier_turns_running{tier=\"latency\"} 2",
        "flashlane_tier_slots{tier=\"latency\"} 1",
        "flashlane_limit_changes_total{tier=\"latency\"} 2",
        "flashlane_limit_changes_total{tier=\"throughput\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let refused = gateway.post("/v1/responses", &json!({"model": "demo", "input": "hi"})).await;
    assert_eq!(refused.status, 429);
    let shown = exchange(gateway.admin, "GET", "/limits", "", b"").await.json();
    assert_eq!(
        (&shown["latency"]["queue"]["wait_ms_max"], &shown["throughput"]["queue"]["wait_ms_max"]),
        (&json!(0), &json!(2_000))
    );
}

#[tokio::test]
async fn a_new_limit_holds_for_the_next_turn_and_counts_from_there() {
    let gateway = Gateway::start(simulated()).await;
    let ask = async || gateway.post("/v1/responses", &json!({"model": "demo", "input": "hi"})).await;
    for _ in 0..3 {
        assert_eq!(ask().await.header("x-ratelimit-limit-requests"), None);
    }
    let limit = json!({"limits": {"requests_per_minute": 1}, "queue": {"wait_ms_max": 0}});
    assert_eq!(change(&gateway, "latency", "", &limit).await.status, 200);
    assert_eq!(ask().await.header("x-ratelimit-limit-requests"), Some("1"));
    assert_eq!(ask().await.status, 429);
    assert_eq!(change(&gateway, "latency", "", &json!({"limits": null})).await.status, 200);
    assert_eq!(ask().await.status, 200);
}

#[tokio::test]
async fn what_cannot_hold_is_refused_and_changes_nothing() {
    let gateway = Gateway::start(simulated()).await;
    let good = json!({"queue": {"turns_max": 1}});
    let origin = "origin: https://elsewhere.example\r\n";
    for (tier, fields, patch, status, code) in [
        ("fast", "", &good, 404, "unknown_url"),
        ("latency", origin, &good, 403, "origin_not_allowed"),
        ("latency", "", &json!({"queue": {"ttft_ms_max": 0}}), 400, "invalid_value"),
        ("latency", "", &json!({"queue": {"colour": 1}}), 400, "invalid_value"),
        ("latency", "", &json!({"limits": {}, "queue": {"ttft_ms_max": "soon"}}), 400, "invalid_value"),
    ] {
        let reply = change(&gateway, tier, fields, patch).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.json()["error"]["code"], code, "{reply:?}");
        if code == "invalid_value" {
            let field = patch["queue"].as_object().unwrap().keys().next().unwrap();
            assert_eq!(reply.json()["error"]["param"], format!("queue.{field}"), "{reply:?}");
        }
    }
    for nothing in [json!({}), json!({"queue": {}}), json!({"queue": {"turns_max": 256}, "limits": null})] {
        let reply = change(&gateway, "latency", "", &nothing).await;
        assert_eq!((reply.status, &reply.json()["queue"]["turns_max"]), (200, &json!(256)));
    }
    let reply = exchange(gateway.admin, "PATCH", "/limits/latency", "", b"{").await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("invalid_json")));
    assert_eq!(exchange(gateway.admin, "DELETE", "/limits", "", b"").await.status, 405);
    assert!(gateway.metrics().await.contains("flashlane_limit_changes_total{tier=\"latency\"} 0"));
    let shown = exchange(gateway.admin, "GET", "/limits", "", b"").await.json();
    assert_eq!(shown["latency"]["queue"]["turns_max"], 256);
}
