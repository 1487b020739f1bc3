//! Everything that is refused is refused in the API's own error body.

use crate::support::{Gateway, Reply, simulated};
use serde_json::json;

fn assert_error(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    let body = reply.json();
    let error = body["error"].as_object().expect("an error object");
    assert_eq!(error["code"], code, "{reply:?}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert!(error.contains_key("type") && error.contains_key("param"));
    assert!(reply.header("x-request-id").unwrap().starts_with("req_"));
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_answered_in_json() {
    let gateway = Gateway::start(simulated()).await;
    assert_error(&gateway.get("/").await, 404, "unknown_url");
    assert_error(&gateway.get("/v1/engines").await, 404, "unknown_url");
    let reply = gateway.send("DELETE", "/v1/chat/completions", "", b"").await;
    assert_error(&reply, 405, "method_not_allowed");
    assert_eq!(reply.header("allow"), Some("POST"));
    let reply = gateway.send("PUT", "/v1/responses", "", b"").await;
    assert_error(&reply, 405, "method_not_allowed");
    assert!(reply.header("allow").unwrap().contains("POST"));
}

#[tokio::test]
async fn a_plain_get_of_responses_is_told_to_post() {
    let gateway = Gateway::start(simulated()).await;
    let reply = gateway.get("/v1/responses").await;
    assert_error(&reply, 405, "method_not_allowed");
    assert_eq!(reply.header("allow"), Some("POST"));
}

#[tokio::test]
async fn bad_bodies_are_refused_by_what_is_wrong_with_them() {
    let gateway = Gateway::start(simulated()).await;
    for path in ["/v1/responses", "/v1/chat/completions"] {
        assert_error(&gateway.send("POST", path, "", b"{\"model\":").await, 400, "invalid_json");
        assert_error(&gateway.send("POST", path, "", b"\xff\xfe").await, 400, "invalid_json");
        assert_error(&gateway.send("POST", path, "", b"{}").await, 400, "missing_required_parameter");
    }
    let reply = gateway.post("/v1/responses", &json!({"model": "nobody", "input": "hi"})).await;
    assert_error(&reply, 404, "model_not_found");
    assert_eq!(reply.json()["error"]["param"], "model");
    let reply = gateway.send("POST", "/v1/responses", "content-encoding: gzip\r\n", b"\x1f\x8b").await;
    assert_error(&reply, 415, "unsupported_media_type");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not() {
    let gateway = Gateway::start_with(simulated(), |config, _| config.limits.request_bytes_max = 1000).await;
    let reply = gateway.send("POST", "/v1/responses", "", &[b' '; 1001]).await;
    assert_error(&reply, 413, "payload_too_large");
    let mut chunked = b"3e9\r\n".to_vec();
    chunked.extend_from_slice(&[b' '; 1001]);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let head =
        "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let reply = gateway.raw(&[head.as_bytes(), &chunked].concat()).await;
    assert_error(&reply, 413, "payload_too_large");
    let fits = json!({"model": "demo", "input": "hello"}).to_string();
    assert_eq!(gateway.send("POST", "/v1/responses", "", fits.as_bytes()).await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let gateway = Gateway::start_with(simulated(), |config, _| config.limits.request_ms_max = 20).await;
    let head = "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 10\r\n\r\n";
    let reply = gateway.raw(head.as_bytes()).await;
    assert_error(&reply, 400, "invalid_json");
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("20 ms"));
}

const UPGRADE: &str =
    "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn a_handshake_to_a_switched_off_websocket_is_answered_426() {
    let gateway = Gateway::start_with(simulated(), |config, _| config.websocket = false).await;
    let reply = gateway.send("GET", "/v1/responses", &format!("connection: upgrade\r\n{UPGRADE}"), b"").await;
    assert_error(&reply, 426, "websocket_disabled");
}

#[tokio::test]
async fn bad_handshakes_are_answered_with_what_is_wrong() {
    let gateway = Gateway::start(simulated()).await;
    let fields = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 8\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let reply = gateway.send("GET", "/v1/responses", fields, b"").await;
    assert_eq!(reply.status, 426);
    assert_eq!(reply.header("sec-websocket-version"), Some("13"));
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("Sec-WebSocket-Version"));

    let fields = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n";
    let reply = gateway.send("GET", "/v1/responses", fields, b"").await;
    assert_error(&reply, 400, "invalid_value");
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("Sec-WebSocket-Key"));

    let reply = gateway.send("GET", "/v1/responses", UPGRADE, b"").await;
    assert_error(&reply, 400, "invalid_value");
}

#[tokio::test]
async fn the_admin_listener_answers_errors_in_json_too() {
    let gateway = Gateway::start(simulated()).await;
    let reply = crate::support::exchange(gateway.admin, "GET", "/nowhere", "", b"").await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("unknown_url")));
    let reply = crate::support::exchange(gateway.admin, "POST", "/livez", "", b"").await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (405, &json!("method_not_allowed")));
}

#[tokio::test]
async fn what_is_no_request_is_answered_in_json_with_an_id_too() {
    let gateway = Gateway::start_with(simulated(), |config, _| config.limits.header_bytes_max = 8192).await;
    let long = "x".repeat(70_000);
    let assert_told = |reply: &Reply, status: u16, code: &str| {
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (status, &json!(code)), "{reply:?}");
        assert!(reply.header("x-request-id").unwrap().starts_with("req_"), "{reply:?}");
    };
    for (head, status, code) in [
        ("GET /\x01 HTTP/1.1\r\n\r\n".to_owned(), 400, "malformed_http"),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(8192)), 431, "headers_too_large"),
    ] {
        assert_told(&gateway.raw(head.as_bytes()).await, status, code);
    }
    let gateway = Gateway::start_with(simulated(), |config, _| config.limits.header_bytes_max = 100_000).await;
    let head = format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_told(&gateway.raw(head.as_bytes()).await, 414, "uri_too_long");
}
