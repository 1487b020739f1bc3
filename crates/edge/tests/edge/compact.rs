//! Compaction over HTTP and the WebSocket: the summary is asked of an engine, and what was sealed opens for its owner alone.

use crate::support::{Gateway, kinds, upstream};
use flashlane_testkit::upstream::{Upstream, chat_events, stream};
use serde_json::{Value, json};

fn long() -> Value {
    json!([
        {"role": "user", "content": "word ".repeat(300)},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "and now?"},
    ])
}

#[tokio::test]
async fn a_window_comes_back_and_is_gone_on_from_by_its_owner_alone() {
    let answers = ["sum", "yes"].map(|text| stream(&chat_events(&[text])));
    let engine = Upstream::start(answers.to_vec()).await.unwrap();
    let gateway = Gateway::start(upstream(&engine.base_url())).await;
    let reply = gateway.post("/v1/responses/compact", &json!({"model": "demo", "input": long()})).await;
    let window = reply.json();
    assert_eq!((reply.status, &window["object"]), (200, &json!("response.compaction")), "{window}");
    assert_eq!(kinds(window["output"].as_array().unwrap()), ["message", "message", "compaction"]);
    assert!(!window.to_string().contains("sum\""), "it is sealed");

    let request = json!({"model": "demo", "store": false, "input": window["output"]});
    let stranger = gateway
        .send("POST", "/v1/responses", "authorization: Bearer another\r\n", request.to_string().as_bytes())
        .await;
    assert_eq!(stranger.json()["error"]["param"], "input[2].encrypted_content", "{}", stranger.json());
    assert_eq!(gateway.post("/v1/responses", &request).await.status, 200);

    let none = gateway.post("/v1/responses/compact", &json!({"model": "demo"})).await;
    assert_eq!((none.status, &none.json()["error"]["param"]), (400, &json!("input")));
}

#[tokio::test]
async fn beyond_its_threshold_a_turn_compacts_first_on_either_transport() {
    let answers = ["sum", "yes", "sum", "yes"].map(|text| stream(&chat_events(&[text])));
    let engine = Upstream::start(answers.to_vec()).await.unwrap();
    let gateway = Gateway::start(upstream(&engine.base_url())).await;
    let mut request = json!({"model": "demo", "store": false, "stream": true, "input": long(),
        "context_management": [{"type": "compaction", "compact_threshold": 100}]});
    let mut streamed = gateway.post("/v1/responses", &request).await.events();
    assert_eq!(streamed.pop().unwrap(), "[DONE]");
    request["type"] = json!("response.create");
    let mut socket = gateway.websocket().await;
    socket.send(&request).await;
    let mut events = vec![socket.event().await];
    while events.last().unwrap()["type"] != "response.completed" {
        events.push(socket.event().await);
    }
    assert_eq!(kinds(&streamed), kinds(&events));
    assert_eq!(
        kinds(&events)[2..5],
        ["response.output_item.added", "response.compaction.compacting", "response.output_item.done"]
    );
    let output = events.last().unwrap()["response"]["output"].as_array().unwrap();
    assert_eq!(kinds(output), ["compaction", "message"]);
}
