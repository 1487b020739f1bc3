//! Who is let in, and with what rights. The digests are those that `sha256sum` prints of the keys.

use crate::support::{Gateway, Reply, Socket, exchange, kinds, soon};
use flashlane_edge::{KeyConfig, TierName};
use flashlane_engine::admission::{KeyLimits, PerTier};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::num::NonZeroU32;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

fn digest(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key(name: &str, secrets: &[&str]) -> KeyConfig {
    let sha256 = secrets.iter().map(|secret| digest(secret).try_into().unwrap()).collect();
    KeyConfig { name: name.to_owned(), sha256, models: None, tiers: None, limits: PerTier::default() }
}

fn bearer(secret: &str) -> String {
    format!("authorization: Bearer {secret}\r\n")
}

async fn post(gateway: &Gateway, secret: &str, body: &Value) -> Reply {
    let fields = format!("{}x-flashlane-route: 1\r\n", bearer(secret));
    gateway.send("POST", "/v1/responses", &fields, body.to_string().as_bytes()).await
}

async fn websocket(gateway: &Gateway, secret: &str) -> Socket {
    let mut request = format!("ws://{}/v1/responses", gateway.address).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
    let (socket, _) = tokio_tungstenite::client_async(request, gateway.connect().await).await.unwrap();
    Socket(socket)
}

#[test]
fn the_digest_is_that_of_sha256sum() {
    assert_eq!(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[tokio::test]
async fn without_a_key_of_the_config_nothing_is_answered() {
    let gateway = Gateway::start_keyed(&[key("a", &["flk_a"])]).await;
    let body = json!({"model": "demo", "input": "hello"}).to_string();
    let wrong = [
        String::new(),
        bearer("flk_b"),
        bearer(&digest("flk_a")),
        bearer("flk_a flk_a"),
        bearer(""),
        "authorization: Basic flk_a\r\n".to_owned(),
        "authorization: flk_a\r\n".to_owned(),
    ];
    for fields in &wrong {
        for (method, path) in [
            ("POST", "/v1/responses"),
            ("POST", "/v1/responses/compact"),
            ("POST", "/v1/responses/input_tokens"),
            ("GET", "/v1/responses/resp_1"),
            ("DELETE", "/v1/responses/resp_1"),
            ("POST", "/v1/responses/resp_1/cancel"),
            ("GET", "/v1/responses/resp_1/input_items"),
            ("POST", "/v1/conversations"),
            ("GET", "/v1/conversations/conv_1/items"),
            ("POST", "/v1/chat/completions"),
            ("GET", "/v1/models"),
            ("GET", "/v1/models/demo"),
            ("GET", "/nowhere"),
        ] {
            let reply = gateway.send(method, path, fields, body.as_bytes()).await;
            assert_eq!(reply.status, 401, "{method} {path} {fields}: {reply:?}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
            assert!(reply.header("x-request-id").is_some());
            let text = String::from_utf8(reply.body.clone()).unwrap();
            assert!(!text.contains("flk_"), "what was sent is said again: {text}");
            assert_eq!(reply.json()["error"]["code"], "invalid_api_key");
        }
    }
    let metrics = gateway.metrics().await;
    let count = 13 * wrong.len();
    assert!(metrics.contains(&format!("flashlane_errors_total{{kind=\"invalid_api_key\"}} {count}")), "{metrics}");
    for field in ["authorization: Bearer flk_a\r\n", "Authorization: bearer  flk_a\r\n"] {
        assert_eq!(gateway.send("POST", "/v1/responses", field, body.as_bytes()).await.status, 200, "{field}");
    }
}

/// Before the 101: a handshake without a key costs no session.
#[tokio::test]
async fn a_handshake_without_a_key_is_refused() {
    let gateway = Gateway::start_keyed(&[key("a", &["flk_a"])]).await;
    for (fields, status) in [(String::new(), "401"), (bearer("flk_b"), "401"), (bearer("flk_a"), "101")] {
        let mut client = gateway.connect().await;
        let handshake = format!(
            "GET /v1/responses HTTP/1.1\r\nhost: gateway.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
        );
        client.write_all(handshake.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        soon("the answer", client.read_exact(&mut head)).await.unwrap();
        assert_eq!(std::str::from_utf8(&head[9..]).unwrap(), status, "{fields}");
    }
    let mut socket = websocket(&gateway, "flk_a").await;
    let events = socket.turn(&json!({"type": "response.create", "model": "demo", "input": "hello"})).await;
    assert_eq!(kinds(&events).last(), Some(&"response.completed"));
    socket.0.close(None).await.unwrap();
    while socket.0.next().await.is_some() {}
}

#[tokio::test]
async fn what_is_stored_belongs_to_the_name_and_not_to_the_secret() {
    let gateway = Gateway::start_keyed(&[key("a", &["old", "new"]), key("b", &["other"])]).await;
    let stored = post(&gateway, "old", &json!({"model": "demo", "input": "hello"})).await.json();
    let path = format!("/v1/responses/{}", stored["id"].as_str().unwrap());
    for (secret, status) in [("old", 200), ("new", 200), ("other", 404)] {
        assert_eq!(gateway.send("GET", &path, &bearer(secret), b"").await.status, status, "{secret}");
    }
    let next = |secret| {
        let body = json!({"model": "demo", "input": "and?", "previous_response_id": stored["id"]});
        let gateway = &gateway;
        async move { post(gateway, secret, &body).await.status }
    };
    assert_eq!((next("new").await, next("other").await), (200, 400));
}

#[tokio::test]
async fn a_key_sees_its_own_models_alone() {
    let narrow = KeyConfig { models: Some(vec!["openai/gpt-oss-120b".to_owned()]), ..key("a", &["narrow"]) };
    let gateway = Gateway::start_keyed(&[narrow, key("b", &["all"])]).await;
    for (secret, names) in [("narrow", &["openai/gpt-oss-120b"][..]), ("all", &["demo", "openai/gpt-oss-120b"])] {
        let list = gateway.send("GET", "/v1/models", &bearer(secret), b"").await.json();
        let seen: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
        assert_eq!(seen, names);
        let status = gateway.send("GET", "/v1/models/demo", &bearer(secret), b"").await.status;
        assert_eq!(status, if names.len() == 2 { 200 } else { 404 });
    }
    let refused = post(&gateway, "narrow", &json!({"model": "demo", "input": "hello"})).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(post(&gateway, "all", &json!({"model": "demo", "input": "hello"})).await.status, 200);
}

#[tokio::test]
async fn a_key_is_served_by_its_own_tiers_alone() {
    let narrow = KeyConfig { tiers: Some(vec![TierName::Throughput]), ..key("a", &["narrow"]) };
    let gateway = Gateway::start_keyed(&[narrow, key("b", &["all"])]).await;
    let body = json!({"model": "demo", "input": "hello"});
    let route = |reply: Reply| reply.header("x-flashlane-route").unwrap().to_owned();
    let served = route(post(&gateway, "narrow", &body).await);
    assert!(served.starts_with("throughput/gpu; plan=key;"), "{served}");
    let served = route(post(&gateway, "all", &body).await);
    assert!(served.starts_with("latency/sim; plan=model-route;"), "{served}");
    // Its own wish does not give it the other tier.
    let fields = format!("{}x-flashlane-tier: latency\r\nx-flashlane-route: 1\r\n", bearer("narrow"));
    let served = route(gateway.send("POST", "/v1/responses", &fields, body.to_string().as_bytes()).await);
    assert!(served.starts_with("throughput/gpu; plan=key;"), "{served}");
}

#[tokio::test]
async fn a_key_has_limits_of_its_own_and_is_told_of_them() {
    let own = KeyLimits { requests_per_minute: NonZeroU32::new(2), ..KeyLimits::default() };
    let limits = PerTier { latency: own, throughput: KeyLimits { turns_max: NonZeroU32::new(8), ..own } };
    let limited = KeyConfig { limits, ..key("a", &["narrow"]) };
    let gateway = Gateway::start_keyed(&[limited, key("b", &["wide"])]).await;
    let reply = post(&gateway, "narrow", &json!({"model": "demo", "input": "hi"})).await;
    assert_eq!((reply.status, reply.header("x-ratelimit-limit-requests")), (200, Some("2")));
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("1"));
    assert_eq!(
        post(&gateway, "wide", &json!({"model": "demo", "input": "hi"})).await.header("x-ratelimit-limit-requests"),
        None
    );

    let mut asks = format!("ws://{}/v1/responses", gateway.address).into_client_request().unwrap();
    asks.headers_mut().insert("x-flashlane-rate-limits", "1".parse().unwrap());
    asks.headers_mut().insert("authorization", "Bearer narrow".parse().unwrap());
    let (socket, _) = tokio_tungstenite::client_async(asks, gateway.connect().await).await.unwrap();
    let events = Socket(socket).turn(&json!({"type": "response.create", "model": "demo", "input": "hi"})).await;
    let told = &events[0];
    assert_eq!(told["type"], "codex.rate_limits", "{events:?}");
    assert_eq!(told["rate_limits"]["primary"]["used_percent"], 100, "{told}");

    let shown = exchange(gateway.admin, "GET", "/limits", "", b"").await.json();
    let own = json!({"latency": {"requests_per_minute": 2}, "throughput": {"requests_per_minute": 2, "turns_max": 8}});
    assert_eq!(shown["keys"], json!({"a": own}), "{shown}");
    assert_eq!(shown["latency"]["limits"]["requests_per_minute"], Value::Null);
}
