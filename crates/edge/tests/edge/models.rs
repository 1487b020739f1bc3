//! The list of models, and Codex's catalog.

use crate::support::{Gateway, simulated, upstream};
use serde_json::json;

#[tokio::test]
async fn models_are_listed_and_say_who_plays_them() {
    let gateway = Gateway::start(simulated()).await;
    let list = gateway.get("/v1/models").await.json();
    let entry = |id| json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "simulator"});
    assert_eq!(list, json!({"object": "list", "data": [entry("demo"), entry("openai/gpt-oss-120b")]}));
    assert_eq!(gateway.get("/v1/models/demo").await.json(), entry("demo"));

    let gateway = Gateway::start(upstream("http://127.0.0.1:9/v1")).await;
    assert_eq!(gateway.get("/v1/models/demo").await.json()["owned_by"], "flashlane");
}

#[tokio::test]
async fn a_models_name_may_have_a_slash_escaped_or_not() {
    let gateway = Gateway::start(simulated()).await;
    for path in ["/v1/models/openai/gpt-oss-120b", "/v1/models/openai%2Fgpt-oss-120b"] {
        assert_eq!(gateway.get(path).await.json()["id"], "openai/gpt-oss-120b", "{path}");
    }
    let reply = gateway.get("/v1/models/nobody").await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn a_models_name_that_is_no_text_is_not_found() {
    let gateway = Gateway::start(simulated()).await;
    for path in ["/v1/models/%ff", "/v1/models/openai/%C3%28"] {
        let reply = gateway.get(path).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")), "{path}");
    }
}

#[tokio::test]
async fn codex_gets_a_catalog_with_every_field_it_insists_on() {
    let gateway = Gateway::start(simulated()).await;
    let reply = gateway.get("/v1/models?client_version=0.169.0").await;
    let catalog = reply.json();
    assert_eq!(catalog["models"].as_array().unwrap().len(), 2);
    let entry = catalog["models"][0].as_object().unwrap();
    // Without any of these, Codex 0.169.0 drops the catalog or the apply_patch tool.
    for field in [
        "slug",
        "display_name",
        "supported_reasoning_levels",
        "shell_type",
        "visibility",
        "supported_in_api",
        "priority",
        "support_verbosity",
        "apply_patch_tool_type",
        "truncation_policy",
        "experimental_supported_tools",
        "base_instructions",
    ] {
        assert!(entry.contains_key(field), "{field} is missing");
    }
    assert_eq!((&entry["slug"], &entry["context_window"]), (&json!("demo"), &json!(131_072)));
    assert_eq!(entry["input_modalities"], json!(["text"]));

    let tag = reply.header("etag").unwrap();
    let known =
        gateway.send("GET", "/v1/models?client_version=0.169.0", &format!("if-none-match: {tag}\r\n"), b"").await;
    assert_eq!((known.status, known.body.len()), (304, 0));
}
