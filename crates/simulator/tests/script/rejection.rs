//! Requests that an engine refuses.

use crate::play::{ask, script, with};
use flashlane_simulator::{Profile, Script};
use serde_json::{Value, json};

fn refused(body: &[u8]) -> Value {
    let rejection = Script::new(body, Profile::WAFER, 0, 0).err().expect("it is refused");
    assert_eq!(rejection.status, 400);
    let error = serde_json::from_str::<Value>(&rejection.body).unwrap()["error"].clone();
    assert_eq!(error["type"], "invalid_request_error");
    assert!(!error["message"].as_str().unwrap().is_empty());
    error
}

#[test]
fn what_is_no_request_is_refused() {
    for (body, code) in [
        ("", Value::Null),
        ("{", Value::Null),
        ("{\"model\": \"\u{1}\"}", Value::Null),
        ("[1]", json!("invalid_type")),
        (r#"{"model": 1, "messages": []}"#, json!("invalid_type")),
        (r#"{"model": "m", "messages": [{"role": "robot", "content": "x"}]}"#, json!("invalid_type")),
        (r#"{"model": "m", "messages": [{"role": "user"}], "max_tokens": -1}"#, json!("invalid_type")),
    ] {
        assert_eq!(refused(body.as_bytes())["code"], code, "{body}");
    }
    refused(b"\xff\xfe");
}

#[test]
fn the_parameter_at_fault_is_named() {
    let missing = |body: &str, param: &str| {
        let error = refused(body.as_bytes());
        assert_eq!((&error["code"], &error["param"]), (&json!("missing_required_parameter"), &json!(param)));
    };
    missing(r#"{"messages": [{"role": "user", "content": "x"}]}"#, "model");
    missing(r#"{"model": "m"}"#, "messages");
    let tool = json!({"type": "function", "function": {"name": "f"}});
    for (fields, param) in [
        (json!({"messages": []}), "messages"),
        (
            json!({"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": 7}]}),
            "messages[1].content",
        ),
        (json!({"messages": [{"role": "user", "content": ["x"]}]}), "messages[0].content"),
        (json!({"n": 2}), "n"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
        (json!({"stop": ""}), "stop"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tools": [tool], "tool_choice": "sometimes"}), "tool_choice"),
        (json!({"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "g"}}}), "tool_choice"),
        (json!({"tools": [{"type": "custom", "custom": {"name": "f"}}]}), "tools[0].type"),
        (json!({"tools": [tool, {"type": "function"}]}), "tools[1].function"),
        (json!({"response_format": {"type": "xml"}}), "response_format"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": false}}}),
            "response_format.json_schema.schema",
        ),
    ] {
        assert_eq!(refused(with(ask("x"), fields.clone()).to_string().as_bytes())["param"], param, "{fields}");
    }
}

#[test]
fn absent_null_and_unknown_fields_are_no_fault() {
    let fields = json!({"tools": null, "tool_choice": null, "stop": null, "stream": null, "stream_options": null, "n": 1,
        "max_tokens": null, "response_format": null, "reasoning_effort": null, "temperature": 0.5, "unheard_of": {"x": 1}});
    assert!(script(&with(ask("x"), fields), Profile::GPU, 0).is_ok());
}
