//! How the textbook gateway makes a Chat Completions request of a Responses request: `serde_json::Value` in, `Value` out.

use serde_json::{Value, json};

/// The chat request that a body amounts to; none if it is no such body.
#[must_use]
pub fn chat_request(body: &[u8]) -> Option<Value> {
    let request = serde_json::from_slice::<Value>(body).ok()?;
    let messages = match request.get("input")? {
        Value::Array(items) => items.iter().map(message).collect(),
        text => vec![json!({"role": "user", "content": text})],
    };
    Some(json!({
        "model": request.get("model"),
        "messages": messages,
        "stream": true,
        "stream_options": {"include_usage": true},
    }))
}

/// A Responses item as a chat message.
fn message(item: &Value) -> Value {
    let text = match item.get("content") {
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
            texts.collect::<Vec<_>>().join("\n")
        }
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    };
    json!({"role": item.get("role"), "content": text})
}
