//! Endpoints cordoned, drained and weighed over the admin port while turns run.

use crate::support::{Gateway, Reply, exchange, kinds, simulated, soon};
use flashlane_backend::{EndpointConfig, Tier};
use flashlane_engine::admission::{PerTier, Queueing, Settings};
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::time::Duration;

async fn order(gateway: &Gateway, name: &str, fields: &str, patch: &Value) -> Reply {
    exchange(gateway.admin, "PATCH", &format!("/endpoints/{name}"), fields, patch.to_string().as_bytes()).await
}

async fn endpoints(gateway: &Gateway) -> Value {
    exchange(gateway.admin, "GET", "/endpoints", "", b"").await.json()
}

fn named(name: &str, tier: Tier) -> EndpointConfig {
    EndpointConfig { name: name.to_owned(), tier, ..simulated() }
}

fn create() -> Value {
    json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})
}

#[tokio::test]
async fn turns_go_elsewhere_and_one_that_runs_goes_on_until_its_endpoint_is_drained() {
    let slow = EndpointConfig { first_token_ms: Some(600_000), ..named("wafer 1", Tier::Latency) };
    let latency = Queueing { concurrency_max: NonZeroU32::new(1), wait_ms_max: 60_000, ..Queueing::default() };
    let settings = Settings { queue: PerTier { latency, ..PerTier::default() }, ..Settings::default() };
    let gateway = Gateway::start_behind(&[slow, named("gpu", Tier::Throughput)], settings).await;
    let (mut first, mut second) = (gateway.websocket().await, gateway.websocket().await);
    first.send(&create()).await;
    soon("a turn that runs", async {
        while endpoints(&gateway).await[0]["in_flight"] != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    second.send(&create()).await;
    assert_eq!(kinds(&[second.event().await]), ["keepalive"], "it waits for the only slot");

    let reply = order(&gateway, "wafer%201", "", &json!({"state": "draining", "weight": 5})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let shown = reply.json();
    assert_eq!(
        (&shown["state"], &shown["drained"], &shown["in_flight"]),
        (&json!("draining"), &json!(false), &json!(1))
    );
    assert_eq!((&shown["weight"], &shown["weight_config"]), (&json!(5), &json!(1)));
    let served = soon("the turn that waited", async {
        loop {
            let event = second.event().await;
            if event["type"] == "response.completed" {
                return event;
            }
        }
    })
    .await;
    assert_eq!(served["response"]["service_tier"], "default", "the other tier served it");

    drop(first);
    soon("the drain", async {
        while endpoints(&gateway).await[0]["drained"] != true {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let metrics = gateway.metrics().await;
    for line in [
        "flashlane_endpoint_state{endpoint=\"wafer 1\",state=\"draining\"} 1",
        "flashlane_endpoint_state{endpoint=\"wafer 1\",state=\"active\"} 0",
        "flashlane_endpoint_state{endpoint=\"gpu\",state=\"active\"} 1",
        "flashlane_endpoint_weight{endpoint=\"wafer 1\"} 5",
        "flashlane_endpoint_changes_total{endpoint=\"wafer 1\"} 1",
        "flashlane_endpoint_changes_total{endpoint=\"gpu\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn with_every_endpoint_cordoned_turns_are_refused_until_one_is_back() {
    let gateway = Gateway::start(simulated()).await;
    let ask = async || gateway.post("/v1/responses", &json!({"model": "demo", "input": "hi"})).await;
    assert_eq!(ask().await.status, 200);
    assert_eq!(order(&gateway, "sim", "", &json!({"state": "cordoned"})).await.status, 200);
    let refused = ask().await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("server_is_overloaded")));
    assert_eq!(order(&gateway, "sim", "", &json!({"state": null})).await.json()["state"], "active");
    assert_eq!(ask().await.status, 200);
}

#[tokio::test]
async fn what_is_no_order_is_refused_and_changes_nothing() {
    let gateway = Gateway::start(simulated()).await;
    let cordon = json!({"state": "cordoned"});
    let origin = "origin: https://elsewhere.example\r\n";
    for (name, fields, patch, status, code) in [
        ("other", "", &cordon, 404, "unknown_url"),
        ("sim", origin, &cordon, 403, "origin_not_allowed"),
        ("sim", "", &json!({"weight": 1001}), 400, "invalid_value"),
        ("sim", "", &json!({"state": "gone"}), 400, "invalid_value"),
    ] {
        let reply = order(&gateway, name, fields, patch).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.json()["error"]["code"], code, "{reply:?}");
    }
    let shown = &endpoints(&gateway).await[0];
    assert_eq!((&shown["state"], &shown["weight"], &shown["drained"]), (&json!("active"), &json!(1), &Value::Null));
}
