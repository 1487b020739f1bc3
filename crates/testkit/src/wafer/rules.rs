//! What the service refuses in a request: the fields that it does not know, and the rules on messages of its API version 2.

use super::{Odd, Rule, Ways};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The fields of the SDK's types.
const FIELDS: [&str; 31] = [
    "clear_thinking",
    "disable_reasoning",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "min_completion_tokens",
    "min_tokens",
    "model",
    "model_parameters",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "reasoning_effort",
    "reasoning_format",
    "response_format",
    "seed",
    "service_tier",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
];
const EFFORTS: [&str; 4] = ["none", "low", "medium", "high"];
const TIERS: [&str; 4] = ["auto", "default", "flex", "priority"];
/// What an answer may have where a request does not say.
const CONTEXT_TOKENS: u64 = 131_072;

/// A refusal, with its body in the service's form: without the envelope `error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn wrong(message: impl Into<String>) -> Self {
        Self::new(400, "wrong_api_format", message)
    }

    /// `told` stands behind its message.
    pub(super) fn body(&self, told: &str) -> Bytes {
        let message = format!("{} {told}", self.message);
        let (kind, param) = match self.status {
            429 if self.code.starts_with("queue") => ("too_many_requests_error", "queue"),
            429 => ("too_many_requests_error", "quota"),
            401 => ("authentication_error", "api_key"),
            _ => ("invalid_request_error", "validation_error"),
        };
        let body = json!({"message": message.trim_end(), "type": kind, "param": param, "code": self.code});
        Bytes::from(body.to_string())
    }
}

/// What a request asks for, as far as it decides the answer.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) model: String,
    /// Which of the server's requests it is.
    pub(super) number: usize,
    pub(super) queue_ms_max: Option<u64>,
    /// What it is charged before it runs.
    pub(super) tokens: u64,
    pub(super) prompt_tokens: u64,
    /// Its messages, and the cache that they belong to.
    pub(super) prompt: String,
    pub(super) cached_tokens: u64,
    pub(super) answer_tokens_max: Option<u64>,
}

impl Asked {
    pub(super) fn read(ways: &Ways, headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        let json: Value = serde_json::from_slice(body).map_err(|error| Refusal::wrong(error.to_string()))?;
        taken(ways, headers, &json)?;
        one_of(&json, "reasoning_effort", &EFFORTS)?;
        one_of(&json, "service_tier", &TIERS)?;
        let tier = json.get("service_tier").and_then(Value::as_str).unwrap_or("default");
        let queue_ms_max = queue(headers, tier)?;
        if json.get("tools").is_none() && json.get("tool_choice").is_some() && ways.holds(Rule::ToolChoice) {
            return Err(Refusal::wrong("'tool_choice' needs 'tools'"));
        }
        if ways.holds(Rule::ClosedSchemas) {
            strict_schemas(&json)?;
        }
        let messages = match json.get("messages").and_then(Value::as_array) {
            Some(messages) => messages.as_slice(),
            None if ways.holds(Rule::Types) => return Err(Refusal::wrong("'messages' is missing")),
            None => &[],
        };
        if ways.holds(Rule::AnsweredCalls) {
            answered(messages)?;
        }
        let prompt_tokens = body.len() as u64 / 4;
        let limit = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| json.get(name)?.as_u64());
        let answer = limit.unwrap_or(CONTEXT_TOKENS.saturating_sub(prompt_tokens));
        let model = json.get("model").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !ways.models.contains(&model) && ways.holds(Rule::UnknownModels) {
            return Err(Refusal::new(404, "model_not_found", format!("Model {model} does not exist")));
        }
        let cache = json.get("prompt_cache_key").and_then(Value::as_str).unwrap_or_default();
        let prompt = format!("{cache} {}", json.get("messages").unwrap_or(&Value::Null));
        let (number, cached_tokens, tokens) = (0, 0, prompt_tokens + answer);
        Ok(Self { model, number, queue_ms_max, tokens, prompt_tokens, prompt, cached_tokens, answer_tokens_max: limit })
    }
}

/// Each field and header is one that it knows, and of its type.
fn taken(ways: &Ways, headers: &HeaderMap, json: &Value) -> Result<(), Refusal> {
    let Some(fields) = json.as_object() else { return Err(Refusal::wrong("no object")) };
    let is_unknown = |name: &str| !FIELDS.contains(&name) && ways.holds(Rule::UnknownFields);
    let is_refused = |name: &str| ways.odds.iter().any(|odd| matches!(odd, Odd::Refuses(other) if *other == name));
    if let Some(name) = fields.keys().find(|name| is_unknown(name) || is_refused(name)) {
        return Err(Refusal::wrong(format!("property '{name}' is unsupported")));
    }
    if let Some(name) = headers.keys().find(|name| is_refused(name.as_str())) {
        return Err(Refusal::wrong(format!("header '{name}' is unsupported")));
    }
    Ok(())
}

fn one_of(json: &Value, name: &str, known: &[&str]) -> Result<(), Refusal> {
    match json.get(name) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(value)) if known.contains(&value.as_str()) => Ok(()),
        Some(value) => Err(Refusal::wrong(format!("'{name}' may not be {value}"))),
    }
}

fn queue(headers: &HeaderMap, tier: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get("queue_threshold") else { return Ok(None) };
    if !matches!(tier, "auto" | "flex") {
        return Err(Refusal::wrong("queue_threshold is for the service tiers auto and flex"));
    }
    let ms = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    match ms.filter(|ms| (50..=20_000).contains(ms)) {
        Some(ms) => Ok(Some(ms)),
        None => Err(Refusal::wrong("queue_threshold must lie between 50 and 20000")),
    }
}

/// Each call is answered right behind its message, once, and nothing answers what was not called.
fn answered(messages: &[Value]) -> Result<(), Refusal> {
    let mut open: BTreeSet<&str> = BTreeSet::new();
    let mut all: BTreeSet<&str> = BTreeSet::new();
    for message in messages {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        if role == "tool" {
            let id = message.get("tool_call_id").and_then(Value::as_str).unwrap_or_default();
            if !open.remove(id) {
                return Err(Refusal::wrong(format!("tool message '{id}' follows no call of that id")));
            }
            continue;
        }
        if let Some(id) = open.first() {
            return Err(Refusal::wrong(format!("tool call '{id}' is not answered by the messages that follow it")));
        }
        let calls = message.get("tool_calls").and_then(Value::as_array);
        for call in calls.into_iter().flatten() {
            let id = call.get("id").and_then(Value::as_str).unwrap_or_default();
            if !all.insert(id) {
                return Err(Refusal::wrong(format!("duplicate tool call id '{id}'")));
            }
            open.insert(id);
        }
    }
    match open.first() {
        Some(id) => Err(Refusal::wrong(format!("tool call '{id}' is not answered by the messages that follow it"))),
        None => Ok(()),
    }
}

fn strict_schemas(json: &Value) -> Result<(), Refusal> {
    let tools = json.get("tools").and_then(Value::as_array);
    let functions = tools.into_iter().flatten().filter_map(|tool| tool.get("function"));
    let format = json.pointer("/response_format/json_schema");
    let strict = functions.chain(format).filter(|place| place.get("strict") == Some(&Value::Bool(true)));
    for place in strict {
        if let Some(schema) = place.get("parameters").or(place.get("schema")) {
            closed(schema)?;
        }
    }
    Ok(())
}

fn closed(schema: &Value) -> Result<(), Refusal> {
    let Some(fields) = schema.as_object() else { return Ok(()) };
    let is_object = fields.get("type").is_some_and(|kind| kind == "object") || fields.contains_key("properties");
    if is_object && fields.get("additionalProperties") != Some(&Value::Bool(false)) {
        return Err(Refusal::wrong("strict schemas need 'additionalProperties': false at every level"));
    }
    if fields.contains_key("definitions") {
        return Err(Refusal::wrong("strict schemas name their definitions '$defs'"));
    }
    let named = ["properties", "$defs"].iter().filter_map(|name| fields.get(*name)?.as_object());
    let listed = ["anyOf", "allOf", "oneOf"].iter().filter_map(|name| fields.get(*name)?.as_array());
    let children = named.flat_map(|named| named.values()).chain(listed.flatten()).chain(fields.get("items"));
    children.into_iter().try_for_each(closed)
}

pub(super) fn models(ways: &Ways) -> Value {
    let context =
        ways.odds.iter().find_map(|odd| if let Odd::TellsContext(tokens) = odd { Some(*tokens) } else { None });
    let model = |name: &String| json!({"id": name, "object": "model", "created": 0, "owned_by": "Cerebras", "max_model_len": context});
    let models: Vec<_> = ways.models.iter().map(model).collect();
    json!({"object": "list", "data": models})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value) -> Result<Asked, Refusal> {
        let models = vec![body.get("model").and_then(Value::as_str).unwrap_or_default().to_owned()];
        Asked::read(&Ways { models, ..Ways::default() }, &HeaderMap::new(), body.to_string().as_bytes())
    }

    #[test]
    fn messages_are_held_to_version_two() {
        let call = |id: &str| json!({"role": "assistant", "tool_calls": [{"id": id, "type": "function"}]});
        let tool = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": ""});
        let user = json!({"role": "user", "content": "hi"});
        let both = json!({"role": "assistant", "tool_calls": [{"id": "a"}, {"id": "b"}]});
        for (messages, good) in [
            (vec![user.clone(), call("a"), tool("a"), user.clone()], true),
            (vec![both.clone(), tool("b"), tool("a")], true),
            (vec![call("a"), user.clone()], false),
            (vec![call("a"), user.clone(), tool("a")], false),
            (vec![both, tool("b"), user.clone()], false),
            (vec![call("a")], false),
            (vec![tool("a")], false),
            (vec![call("a"), tool("a"), tool("a")], false),
            (vec![call("a"), tool("a"), call("a"), tool("a")], false),
        ] {
            assert_eq!(read(&json!({"messages": messages})).is_ok(), good, "{messages:?}");
        }
    }

    #[test]
    fn fields_and_schemas_are_held_to_what_is_known() {
        let with = |name: &str, value: Value| {
            let mut body = json!({"messages": []});
            body[name] = value;
            read(&body).is_ok()
        };
        assert!(
            with("prompt_cache_key", json!("k")) && !with("store", json!(false)) && !with("tool_choice", json!("auto"))
        );
        assert!(with("reasoning_effort", json!("none")) && !with("reasoning_effort", json!("xhigh")));
        let tool = |schema: Value| json!([{"type": "function", "function": {"strict": true, "parameters": schema}}]);
        assert!(!with("tools", tool(json!({"type": "object"}))));
        assert!(with("tools", tool(json!({"type": "object", "additionalProperties": false}))));
        let inner = json!({"additionalProperties": false, "properties": {"a": {"items": {"type": "object"}}}});
        assert!(!with("tools", tool(inner)));
    }
}
