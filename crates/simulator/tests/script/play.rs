//! Plays scripts in virtual time and reads what they send. Knows nothing of the scripts' insides.

use flashlane_simulator::{Profile, Rejection, Script, Step};
use serde_json::{Value, json};

pub const UNIX_S: u64 = 1_767_225_600;

pub fn script(body: &Value, profile: Profile, seed: u64) -> Result<Script, Rejection> {
    Script::new(body.to_string().as_bytes(), profile, seed, UNIX_S)
}

/// Everything a script sends, each write with the time it was due at.
pub fn writes(body: &Value, profile: Profile, seed: u64) -> Vec<(u64, String)> {
    let mut script = script(body, profile, seed).unwrap();
    let (mut now_ns, mut writes) = (0, Vec::new());
    loop {
        match script.poll(now_ns) {
            Step::Bytes(bytes) => writes.push((now_ns, String::from_utf8(bytes.to_vec()).unwrap())),
            Step::Wait(deadline_ns) => {
                assert!(deadline_ns > now_ns, "a deadline lies ahead");
                now_ns = deadline_ns;
            }
            Step::End => return writes,
        }
    }
}

/// What a stream amounts to for its reader.
#[derive(Debug, Default)]
pub struct Read {
    pub chunks: Vec<Value>,
    pub content: String,
    pub reasoning: String,
    pub tool: Option<(String, Value)>,
    pub finish: String,
    pub usage: Value,
}

pub fn stream_with(mut body: Value, profile: Profile, seed: u64) -> Read {
    body["stream"] = json!(true);
    if body.get("stream_options").is_none() {
        body["stream_options"] = json!({"include_usage": true});
    }
    let text: String = writes(&body, profile, seed).into_iter().map(|(_, text)| text).collect();
    let events = text.strip_suffix("data: [DONE]\n\n").expect("the end mark is last");
    let mut read = Read::default();
    let (mut name, mut arguments) = (None, String::new());
    for event in events.split_terminator("\n\n") {
        let chunk: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        let delta = &chunk["choices"][0]["delta"];
        read.content += delta["content"].as_str().unwrap_or_default();
        read.reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
        let function = &delta["tool_calls"][0]["function"];
        name = function["name"].as_str().map(str::to_owned).or(name);
        arguments += function["arguments"].as_str().unwrap_or_default();
        read.finish += chunk["choices"][0]["finish_reason"].as_str().unwrap_or_default();
        if chunk["usage"].is_object() {
            read.usage = chunk["usage"].clone();
        }
        read.chunks.push(chunk);
    }
    read.tool = name.map(|name| (name, serde_json::from_str(&arguments).unwrap_or(Value::String(arguments))));
    read
}

pub fn stream(body: Value) -> Read {
    stream_with(body, Profile::WAFER, 1)
}

/// The one JSON document of an answer that does not stream.
pub fn complete(body: &Value) -> Value {
    let writes = writes(body, Profile::WAFER, 1);
    assert_eq!(writes.len(), 1);
    serde_json::from_str(&writes[0].1).unwrap()
}

pub fn ask(text: &str) -> Value {
    json!({"model": "flashlane-demo", "messages": [{"role": "user", "content": text}]})
}

pub fn with(mut body: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    body.as_object_mut().unwrap().extend(fields);
    body
}
