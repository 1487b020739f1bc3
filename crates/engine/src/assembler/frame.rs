//! The response object: what stays the same through a response's life is written once, what changes is put before it.

use crate::children::ChildOf;
use crate::error::Refusal;
use crate::ids::TurnHex;
use bytes::Bytes;
use flashlane_wire::chat::Usage;
use flashlane_wire::json;
use flashlane_wire::responses::{CreateRequest, Fields};
use serde_json::value::RawValue;
use std::sync::Arc;

/// The part of a response object that its request decides.
#[derive(Debug, Clone)]
pub struct Frame {
    previous: Option<Arc<str>>,
    store: bool,
    /// Fields from `background` on, and the closing brace.
    tail: Bytes,
}

/// Where a response stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseStatus<'a> {
    Queued,
    InProgress,
    Completed,
    /// With the reason.
    Incomplete(&'static str),
    Failed {
        refusal: &'a Refusal,
        request_id: Option<&'a str>,
    },
    Cancelled,
}

/// The part that changes.
pub struct Variable<'a> {
    pub hex: &'a TurnHex,
    pub created_at: u64,
    pub completed_at: Option<u64>,
    pub status: ResponseStatus<'a>,
    /// The finished items' JSON.
    pub output: &'a [Bytes],
    pub usage: Option<Usage>,
    pub service_tier: &'static str,
}

impl Frame {
    /// What `request` decides of every response object that answers it.
    #[must_use]
    pub fn new(request: &CreateRequest<'_>) -> Self {
        let echo = &request.echo;
        let mut out = Vec::with_capacity(1024 + request.tools.as_ref().map_or(0, |(raw, _)| raw.get().len()));
        let mut field = |name: &str, write: &mut dyn FnMut(&mut Vec<u8>)| {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            write(&mut out);
        };
        field("background", &mut |out| push_bool(out, request.background));
        if let Some(conversation) = request.conversation.as_deref() {
            field("conversation", &mut |out| {
                out.extend_from_slice(b"{\"id\":");
                json::push_string(out, conversation);
                out.push(b'}');
            });
        }
        field("frequency_penalty", &mut |out| push_raw(out, echo.frequency_penalty, "0.0"));
        field("instructions", &mut |out| push_raw_string(out, request.instructions));
        field("max_output_tokens", &mut |out| match request.max_output_tokens {
            Some(tokens) => json::push_u64(out, tokens),
            None => out.extend_from_slice(b"null"),
        });
        field("max_tool_calls", &mut |out| push_raw(out, echo.max_tool_calls, "null"));
        field("metadata", &mut |out| push_raw(out, echo.metadata, "{}"));
        field("model", &mut |out| json::push_string(out, &request.model));
        field("parallel_tool_calls", &mut |out| push_bool(out, request.parallel_tool_calls.unwrap_or(true)));
        field("presence_penalty", &mut |out| push_raw(out, echo.presence_penalty, "0.0"));
        field("prompt_cache_key", &mut |out| push_raw(out, echo.prompt_cache_key, "null"));
        field("prompt_cache_retention", &mut |out| push_raw(out, echo.prompt_cache_retention, "null"));
        field("reasoning", &mut |out| {
            out.extend_from_slice(b"{\"effort\":");
            json::push_optional_string(out, request.effort.as_deref());
            out.extend_from_slice(b",\"summary\":");
            push_raw(out, echo.reasoning_summary, "null");
            out.push(b'}');
        });
        field("safety_identifier", &mut |out| push_raw(out, echo.safety_identifier, "null"));
        field("temperature", &mut |out| push_raw(out, echo.temperature, "1.0"));
        field("text", &mut |out| push_text(out, echo.text));
        field("tool_choice", &mut |out| push_raw(out, echo.tool_choice, "\"auto\""));
        field("tools", &mut |out| push_raw(out, request.tools.as_ref().map(|(raw, _)| *raw), "[]"));
        field("top_logprobs", &mut |out| push_raw(out, echo.top_logprobs, "0"));
        field("top_p", &mut |out| push_raw(out, echo.top_p, "1.0"));
        field("truncation", &mut |out| push_raw(out, echo.truncation, "\"disabled\""));
        field("user", &mut |out| push_raw(out, echo.user, "null"));
        out.push(b'}');
        let previous = request.previous_response_id.as_deref().map(Arc::from);
        Self { previous, store: request.store, tail: Bytes::from(out) }
    }

    /// The same settings for a response that goes on from `previous`.
    #[must_use]
    pub fn going_on_from(&self, previous: &str) -> Self {
        Self { previous: Some(previous.into()), ..self.clone() }
    }

    /// The same for a response that is another's child.
    #[must_use]
    pub fn of_child(self, of: &ChildOf) -> Self {
        let mut tail = self.tail.strip_suffix(b"}").unwrap_or_default().to_vec();
        tail.extend_from_slice(b",\"flashlane\":{\"child\":{\"name\":");
        json::push_string(&mut tail, &of.name);
        tail.extend_from_slice(b",\"parent\":");
        json::push_string(&mut tail, &of.parent);
        tail.extend_from_slice(b"}}}");
        Self { tail: Bytes::from(tail), ..self }
    }

    /// The response will not be stored, whatever its request said.
    pub fn forget(&mut self) {
        self.store = false;
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tail.len()
    }

    /// Appends the whole object.
    pub fn push(&self, out: &mut Vec<u8>, variable: &Variable<'_>) {
        out.extend_from_slice(b"{\"id\":");
        json::push_string(out, &variable.hex.response_id());
        out.extend_from_slice(b",\"object\":\"response\",\"created_at\":");
        json::push_u64(out, variable.created_at);
        push_status(out, variable.status);
        out.extend_from_slice(b",\"completed_at\":");
        match variable.completed_at {
            Some(at) => json::push_u64(out, at),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"output\":[");
        for (index, item) in variable.output.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(item);
        }
        out.extend_from_slice(b"],\"usage\":");
        match variable.usage {
            Some(usage) => push_usage(out, usage),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"service_tier\":");
        json::push_string(out, variable.service_tier);
        out.extend_from_slice(b",\"previous_response_id\":");
        json::push_optional_string(out, self.previous.as_deref());
        out.extend_from_slice(b",\"store\":");
        push_bool(out, self.store);
        out.extend_from_slice(&self.tail);
    }
}

fn push_status(out: &mut Vec<u8>, status: ResponseStatus<'_>) {
    let name = match status {
        ResponseStatus::Queued => "queued",
        ResponseStatus::InProgress => "in_progress",
        ResponseStatus::Completed => "completed",
        ResponseStatus::Incomplete(_) => "incomplete",
        ResponseStatus::Failed { .. } => "failed",
        ResponseStatus::Cancelled => "cancelled",
    };
    out.extend_from_slice(b",\"status\":");
    json::push_string(out, name);
    out.extend_from_slice(b",\"error\":");
    match status {
        ResponseStatus::Failed { refusal, request_id } => {
            out.extend_from_slice(b"{\"code\":");
            json::push_string(out, refusal.kind.row().response_code);
            out.extend_from_slice(b",\"message\":");
            json::push_string(out, &refusal.message);
            if let Some(request_id) = request_id {
                out.extend_from_slice(b",\"request_id\":");
                json::push_string(out, request_id);
            }
            out.push(b'}');
        }
        ResponseStatus::Queued
        | ResponseStatus::InProgress
        | ResponseStatus::Completed
        | ResponseStatus::Incomplete(_)
        | ResponseStatus::Cancelled => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"incomplete_details\":");
    match status {
        ResponseStatus::Incomplete(reason) => {
            out.extend_from_slice(b"{\"reason\":");
            json::push_string(out, reason);
            out.push(b'}');
        }
        ResponseStatus::Queued
        | ResponseStatus::InProgress
        | ResponseStatus::Completed
        | ResponseStatus::Failed { .. }
        | ResponseStatus::Cancelled => out.extend_from_slice(b"null"),
    }
}

/// Usage as the Responses API tells it.
pub fn push_usage(out: &mut Vec<u8>, usage: Usage) {
    let fields: [(&[u8], u64); 6] = [
        (b"{\"input_tokens\":", usage.input),
        (b",\"input_tokens_details\":{\"cached_tokens\":", usage.cached),
        (b",\"cache_write_tokens\":", 0),
        (b"},\"output_tokens\":", usage.output),
        (b",\"output_tokens_details\":{\"reasoning_tokens\":", usage.reasoning),
        (b"},\"total_tokens\":", usage.input.saturating_add(usage.output)),
    ];
    for (name, count) in fields {
        out.extend_from_slice(name);
        json::push_u64(out, count);
    }
    out.push(b'}');
}

fn push_bool(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

fn push_raw(out: &mut Vec<u8>, raw: Option<&RawValue>, default: &str) {
    json::push_compact(out, raw.map_or(default, RawValue::get));
}

fn push_raw_string(out: &mut Vec<u8>, raw: Option<&str>) {
    match raw {
        Some(raw) => {
            out.push(b'"');
            out.extend_from_slice(raw.as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// `text` always has a format, which clients read without asking.
fn push_text(out: &mut Vec<u8>, raw: Option<&RawValue>) {
    let fields = raw.and_then(|raw| Fields::nested("text", raw).ok());
    let format = fields.as_ref().and_then(|fields| fields.raw("format"));
    out.extend_from_slice(b"{\"format\":");
    push_raw(out, format, "{\"type\":\"text\"}");
    for (name, value) in fields.iter().flat_map(Fields::iter).filter(|(name, _)| *name != "format") {
        out.push(b',');
        json::push_string(out, name);
        out.push(b':');
        push_raw(out, Some(value), "");
    }
    out.push(b'}');
}
