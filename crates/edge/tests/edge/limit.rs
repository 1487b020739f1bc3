//! The model's context: what is too long is refused before any engine sees it, and a count can be had without one.

use crate::support::{Gateway, simulated, upstream};
use serde_json::json;

#[tokio::test]
async fn too_long_an_input_is_refused_over_http_and_the_websocket_before_it_is_sent() {
    // Nothing listens there: to ask it would be another error.
    let gateway = Gateway::start(upstream("http://127.0.0.1:1/v1")).await;
    let request = json!({"model": "demo", "store": false, "input": "word ".repeat(140_000)});
    let reply = gateway.post("/v1/responses", &request).await;
    assert_eq!(reply.status, 400);
    let error = reply.json()["error"].clone();
    assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("input")));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("131072") && message.contains("140"), "{message}");

    let chat = json!({"model": "demo", "messages": [{"role": "user", "content": "word ".repeat(140_000)}]});
    assert_eq!(gateway.post("/v1/chat/completions", &chat).await.json()["error"]["code"], "context_length_exceeded");

    let mut socket = gateway.websocket().await;
    let mut create = request;
    create["type"] = json!("response.create");
    socket.send(&create).await;
    let error = socket.event().await;
    assert_eq!((&error["status"], &error["error"]["code"]), (&json!(400), &json!("context_length_exceeded")));
}

#[tokio::test]
async fn what_fits_when_it_is_counted_is_served() {
    let gateway = Gateway::start(simulated()).await;
    let request = json!({"model": "demo", "store": false, "input": format!("repeat: yes\n{}", "word ".repeat(40_000))});
    let reply = gateway.post("/v1/responses", &request).await;
    assert_eq!(reply.status, 200, "{:?}", reply.json());
}

#[tokio::test]
async fn tokens_are_counted_without_an_engine() {
    let gateway = Gateway::start(upstream("http://127.0.0.1:1/v1")).await;
    let count = |request: serde_json::Value| {
        let gateway = &gateway;
        async move {
            let reply = gateway.post("/v1/responses/input_tokens", &request).await;
            assert_eq!(reply.status, 200, "{:?}", reply.json());
            assert_eq!(reply.json()["object"], "response.input_tokens");
            reply.json()["input_tokens"].as_u64().unwrap()
        }
    };
    let one = count(json!({"model": "demo", "input": "hello world"})).await;
    assert_eq!(one, 6, "two tokens and a message around them");
    let with_tools = count(json!({"model": "demo", "input": "hello world", "instructions": "be brief", "tools": [
        {"type": "function", "name": "f", "description": "does something", "parameters": {"type": "object", "properties": {}}}
    ]}))
    .await;
    assert!(with_tools > one + 20, "{with_tools}");
    let reply = gateway.post("/v1/responses/input_tokens", &json!({"model": "absent", "input": "x"})).await;
    assert_eq!(reply.json()["error"]["code"], "model_not_found");
    let unknown = json!({"model": "demo", "input": "x", "previous_response_id": "resp_unknown"});
    let reply = gateway.post("/v1/responses/input_tokens", &unknown).await;
    assert_eq!(reply.json()["error"]["code"], "previous_response_not_found");
}
