//! How the textbook gateway makes a Chat Completions request of a Responses request: `serde_json::Value` in, `Value` out.

use serde_json::{Value, json};

/// The chat request that a body amounts to; none if it is no such body.
#[must_use]
pub fn chat_request(body: &[u8]) -> Option<Value> {
    let request = serde_json::from_slice::<Value>(body).ok()?;
    let input = request.get("input")?;
    let messages: Vec<Value> = match input.as_array() {
        Some(items) => items.iter().map(message).collect(),
        None => vec![json!({"role": "user", "content": input})],
    };
    let mut chat = json!({
        "model": request.get("model"),
        "messages": messages,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    if let (Some(tools), Some(chat)) = (request.get("tools").and_then(Value::as_array), chat.as_object_mut()) {
        chat.insert("tools".to_owned(), tools.iter().map(tool).collect());
    }
    Some(chat)
}

/// A Responses tool as a chat tool.
fn tool(tool: &Value) -> Value {
    let function = json!({
        "name": tool.get("name"),
        "description": tool.get("description"),
        "parameters": tool.get("parameters"),
    });
    json!({"type": "function", "function": function})
}

/// A Responses item as a chat message.
fn message(item: &Value) -> Value {
    let id = item.get("call_id");
    match item.get("type").and_then(Value::as_str) {
        Some("function_call") => {
            let function = json!({"name": item.get("name"), "arguments": item.get("arguments")});
            let call = json!({"id": id, "type": "function", "function": function});
            return json!({"role": "assistant", "content": null, "tool_calls": [call]});
        }
        Some("function_call_output") => {
            return json!({"role": "tool", "tool_call_id": id, "content": item.get("output")});
        }
        _ => {}
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_their_outputs_and_tools_are_the_chat_apis() {
        let body = json!({"model": "m", "tools": [{"type": "function", "name": "f", "parameters": {}}], "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "done"},
        ]});
        let chat = chat_request(body.to_string().as_bytes()).unwrap();
        assert_eq!(chat["messages"][0], json!({"role": "user", "content": "hi"}));
        assert_eq!(chat["messages"][1]["tool_calls"][0]["function"], json!({"name": "f", "arguments": "{}"}));
        assert_eq!(chat["messages"][2], json!({"role": "tool", "tool_call_id": "c", "content": "done"}));
        assert_eq!(chat["tools"][0]["function"]["name"], "f");
    }
}
