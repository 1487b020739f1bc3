//! What an upstream that speaks the Responses API itself says: one event of its stream, read as far as its turn must know it,
//! and written again under our numbering. Knows nothing of what becomes of it.

use super::error::ParseError;
use super::fields::Fields;
use crate::chat::{Field, FinishReason, StreamError, Usage, request};
use crate::json;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One event of such a stream.
#[derive(Debug)]
pub struct ServerEvent<'a> {
    /// Letters, digits, `_`, `-` and `.`.
    pub name: Cow<'a, str>,
    pub said: Said<'a>,
    fields: Fields<'a>,
}

/// What an event means to its turn.
#[derive(Debug)]
pub enum Said<'a> {
    /// That it is being made, which our own events say; or what is between the upstream and us alone (keepalives, limits, timings).
    Nothing,
    ItemAdded(&'a RawValue),
    ItemDone(&'a RawValue),
    /// A part of an item that the model has just made, or of something that nobody here knows.
    Delta,
    /// Anything else: of an item, of the response, or not known.
    Other,
    Ended(Ending),
}

/// How the upstream's response ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Whole { finish: FinishReason, usage: Option<Usage> },
    Failed(StreamError),
}

/// What a delta brought of an item that is of a known kind.
#[derive(Debug, Clone, Copy)]
pub struct Delta<'a> {
    pub of: DeltaOf,
    /// The index of its part; 0 of what has none.
    pub part: u64,
    /// A raw string.
    pub text: &'a str,
}

/// What a delta is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeltaOf {
    Text,
    Refusal,
    Reasoning,
    Summary,
    Arguments,
    Input,
}

/// An item as our client knows it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub id: &'a str,
    pub output_index: u32,
}

/// Events that tell of the response as a whole while it is being made, and those that end with the hop from the upstream to us.
const NOT_PASSED: [&str; 7] = [
    "response.created",
    "response.queued",
    "response.in_progress",
    "keepalive",
    "ping",
    "codex.rate_limits",
    "responsesapi.websocket_timing",
];
/// No event has a longer name.
const NAME_BYTES_MAX: usize = 128;

impl<'a> ServerEvent<'a> {
    /// Reads one `data:` line, or one text message.
    ///
    /// # Errors
    /// Not an object, no `type`, or a wrong field of an event that its turn must understand.
    pub fn parse(data: &'a [u8]) -> Result<Self, ParseError> {
        let fields = Fields::parse(data)?;
        let name = match fields.string("type")? {
            Some(name) => name,
            // Some servers say an error in the body's shape.
            None if fields.raw("error").is_some() => Cow::Borrowed("error"),
            None => return Err(ParseError::missing("type")),
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
            return Err(ParseError::value("type", "Invalid 'type': it is no event's name."));
        }
        let item = || fields.raw("item").ok_or_else(|| ParseError::missing("item"));
        let said = match &*name {
            name if NOT_PASSED.contains(&name) => Said::Nothing,
            "response.output_item.added" => Said::ItemAdded(item()?),
            "response.output_item.done" => Said::ItemDone(item()?),
            "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
                Said::Ended(Ending::parse(&name, &fields)?)
            }
            "error" => Said::Ended(Ending::Failed(error_of(&fields))),
            name if name.ends_with(".delta") => Said::Delta,
            _ => Said::Other,
        };
        Ok(Self { name, said, fields })
    }

    /// The upstream's own place of the item that this is about, where it says one.
    #[must_use]
    pub fn output_index(&self) -> Option<u64> {
        self.fields.integer("output_index", 0, u64::MAX).ok().flatten()
    }

    /// The upstream's own id of the item that this is about, where it says one: beside it, or in it.
    #[must_use]
    pub fn item_id(&self) -> Option<Cow<'a, str>> {
        let in_item = || Fields::nested("item", self.fields.raw("item")?).ok()?.string("id").ok().flatten();
        self.fields.string("item_id").ok().flatten().or_else(in_item)
    }

    /// What it brought, where it is a delta of a known kind.
    ///
    /// hot: per token
    #[must_use]
    pub fn delta(&self) -> Option<Delta<'a>> {
        let (of, part) = match &*self.name {
            "response.output_text.delta" => (DeltaOf::Text, "content_index"),
            "response.refusal.delta" => (DeltaOf::Refusal, "content_index"),
            "response.reasoning_text.delta" => (DeltaOf::Reasoning, "content_index"),
            "response.reasoning_summary_text.delta" => (DeltaOf::Summary, "summary_index"),
            "response.function_call_arguments.delta" => (DeltaOf::Arguments, ""),
            "response.custom_tool_call_input.delta" => (DeltaOf::Input, ""),
            _ => return None,
        };
        let text = self.fields.raw_string("delta").ok().flatten()?;
        let part = self.fields.integer(part, 0, u64::MAX).ok().flatten().unwrap_or(0);
        Some(Delta { of, part, text })
    }

    /// The text of a delta, raw, where this is one of a message's text.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        self.delta().filter(|delta| delta.of == DeltaOf::Text).map(|delta| delta.text)
    }

    /// Appends the event as it came, but for what is ours: its number, the response's id, the item's id and place, and the lane.
    pub fn push(&self, out: &mut Vec<u8>, sequence_number: u64, response_id: &str, place: Option<Place<'_>>) {
        out.extend_from_slice(b"{\"type\":");
        json::push_string(out, &self.name);
        for (name, value) in self.fields.iter() {
            if matches!(name, "type" | "sequence_number" | "stream_id" | "obfuscation") {
                continue;
            }
            out.push(b',');
            json::push_string(out, name);
            out.push(b':');
            match (name, place) {
                ("response_id", _) => json::push_string(out, response_id),
                ("item_id", Some(place)) => json::push_string(out, place.id),
                ("output_index", Some(place)) => json::push_u64(out, u64::from(place.output_index)),
                ("item", Some(place)) => push_item(out, value, place.id),
                (_, _) => json::push_compact(out, value.get()),
            }
        }
        // Clients find an item by its place.
        if let (Said::ItemAdded(_) | Said::ItemDone(_), Some(place), None) =
            (&self.said, place, self.fields.raw("output_index"))
        {
            out.extend_from_slice(b",\"output_index\":");
            json::push_u64(out, u64::from(place.output_index));
        }
        out.extend_from_slice(b",\"sequence_number\":");
        json::push_u64(out, sequence_number);
        out.push(b'}');
    }
}

/// Appends an item under `id`: all else is as it came.
pub fn push_item(out: &mut Vec<u8>, raw: &RawValue, id: &str) {
    let Ok(fields) = Fields::nested("item", raw) else { return json::push_compact(out, raw.get()) };
    out.extend_from_slice(b"{\"id\":");
    json::push_string(out, id);
    for (name, value) in fields.iter().filter(|(name, _)| *name != "id") {
        out.push(b',');
        json::push_string(out, name);
        out.push(b':');
        json::push_compact(out, value.get());
    }
    out.push(b'}');
}

impl Ending {
    fn parse(name: &str, fields: &Fields<'_>) -> Result<Self, ParseError> {
        let response = fields.object("response")?.ok_or_else(|| ParseError::missing("response"))?;
        let usage = response.raw("usage").and_then(Usage::parse);
        let status = response.string("status")?;
        let details = response.object("incomplete_details")?;
        let reason = details.as_ref().map(|details| details.string("reason")).transpose()?.flatten();
        // Some servers end all their responses by `response.completed`, and say in the response alone how it went.
        Ok(match (name, status.as_deref()) {
            ("response.failed", _) | (_, Some("failed")) => Self::Failed(error_of(&response)),
            ("response.cancelled", _) | (_, Some("cancelled")) => {
                Self::Failed(plain_error("the upstream cancelled its response"))
            }
            (_, _) if reason.as_deref() == Some("content_filter") => {
                Self::Whole { finish: FinishReason::ContentFilter, usage }
            }
            // `max_output_tokens`, and others that have no name of their own here, or none at all: the answer is cut.
            ("response.incomplete", _) | (_, Some("incomplete")) => Self::Whole { finish: FinishReason::Length, usage },
            (_, _) if reason.is_some() => Self::Whole { finish: FinishReason::Length, usage },
            (_, _) => Self::Whole { finish: FinishReason::Stop, usage },
        })
    }
}

/// `error`, nested as in a response or flat as in an `error` event.
fn error_of(fields: &Fields<'_>) -> StreamError {
    let status = fields.integer("status", 0, 999).ok().flatten().and_then(|status| u16::try_from(status).ok());
    let error = match fields.raw("error") {
        Some(error) => StreamError::parse(error, status),
        None => {
            let text = |name| fields.string(name).ok().flatten().map(Cow::into_owned);
            let message = text("message").unwrap_or_else(|| "the upstream did not say why".to_owned());
            StreamError { message, code: text("code"), kind: None, status }
        }
    };
    let status = error.status.or_else(|| status_of(error.code.as_deref()?));
    StreamError { status, ..error }
}

/// The status that a code comes with outside of a stream, where it has one of its own.
fn status_of(code: &str) -> Option<u16> {
    match code {
        "rate_limit_exceeded" | "slow_down" | "insufficient_quota" => Some(429),
        "server_is_overloaded" => Some(503),
        "invalid_prompt" | "invalid_value" | "unsupported_parameter" | "context_length_exceeded" => Some(400),
        _ => None,
    }
}

fn plain_error(message: &str) -> StreamError {
    StreamError { message: message.to_owned(), code: None, kind: None, status: None }
}

/// The body of a streaming request, in pieces that lie end to end: a head, the items as they are, and a tail.
///
/// `items` are objects; nothing of them is copied. Nothing is stored there: what is asked for again is sent again.
#[must_use]
pub fn body(model: &str, fields: &[Field], items: &[Bytes]) -> Vec<Bytes> {
    request::streaming(model, b",\"stream\":true,\"store\":false", fields, (b"input", items))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(data: &str) -> String {
        let event = ServerEvent::parse(data.as_bytes()).unwrap();
        let mut out = Vec::new();
        event.push(&mut out, 7, "resp_ours", Some(Place { id: "msg_ours", output_index: 3 }));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_passes_under_our_number_and_id_and_lane() {
        let delta = r#"{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"content_index":0,"delta":"\"sequence_number\":1","sequence_number":41,"stream_id":"theirs","logprobs":[],"obfuscation":"x"}"#;
        let expected = r#"{"type":"response.output_text.delta","item_id":"msg_ours","output_index":3,"content_index":0,"delta":"\"sequence_number\":1","logprobs":[],"sequence_number":7}"#;
        assert_eq!(passed(delta), expected);
        let of_response = r#"{"type":"response.output_item.interrupted","response_id":"resp_theirs","item_id":"m"}"#;
        let expected = r#"{"type":"response.output_item.interrupted","response_id":"resp_ours","item_id":"msg_ours","sequence_number":7}"#;
        assert_eq!(passed(of_response), expected);
        let done = r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"new_call","id":"x","status":"completed","deep":{"id":"y"}}}"#;
        let expected = r#"{"type":"response.output_item.done","output_index":3,"item":{"id":"msg_ours","type":"new_call","status":"completed","deep":{"id":"y"}},"sequence_number":7}"#;
        assert_eq!(passed(done), expected);
    }

    fn ending(data: &str) -> Ending {
        let Said::Ended(ending) = ServerEvent::parse(data.as_bytes()).unwrap().said else { panic!("{data}") };
        ending
    }

    #[test]
    fn an_ending_is_whole_with_its_reason_or_an_error() {
        let usage = r#"{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":12}"#;
        let whole =
            |finish| Ending::Whole { finish, usage: Some(Usage { input: 9, cached: 4, output: 3, reasoning: 1 }) };
        let completed = format!(r#"{{"type":"response.completed","response":{{"id":"r","usage":{usage}}}}}"#);
        assert_eq!(ending(&completed), whole(FinishReason::Stop));
        for (reason, finish) in
            [("max_output_tokens", FinishReason::Length), ("content_filter", FinishReason::ContentFilter)]
        {
            let cut = format!(
                r#"{{"type":"response.incomplete","response":{{"incomplete_details":{{"reason":"{reason}"}},"usage":{usage}}}}}"#
            );
            assert_eq!(ending(&cut), whole(finish));
        }
        let failed =
            r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"slow"}}}"#;
        let flat = r#"{"type":"error","code":"rate_limit_exceeded","message":"slow","status":429}"#;
        let nested = r#"{"type":"error","status":429,"error":{"code":"rate_limit_exceeded","message":"slow"}}"#;
        for (data, status) in [(failed, Some(429)), (flat, Some(429)), (nested, Some(429))] {
            let Ending::Failed(error) = ending(data) else { panic!("{data}") };
            assert_eq!(
                (error.code.as_deref(), &*error.message, error.status),
                (Some("rate_limit_exceeded"), "slow", status)
            );
        }
    }

    #[test]
    fn a_response_that_is_called_completed_ends_as_its_status_says() {
        let of = |response: &str| ending(&format!(r#"{{"type":"response.completed","response":{response}}}"#));
        let whole = |finish| Ending::Whole { finish, usage: None };
        assert_eq!(of(r#"{"status":"completed","incomplete_details":null}"#), whole(FinishReason::Stop));
        assert_eq!(of(r#"{"status":"incomplete","incomplete_details":null}"#), whole(FinishReason::Length));
        let details = |reason: &str, status: &str| {
            of(&format!(r#"{{"status":"{status}","incomplete_details":{{"reason":"{reason}"}}}}"#))
        };
        assert_eq!(details("max_output_tokens", "incomplete"), whole(FinishReason::Length));
        assert_eq!(details("max_output_tokens", "completed"), whole(FinishReason::Length));
        assert_eq!(details("content_filter", "incomplete"), whole(FinishReason::ContentFilter));
        for response in [r#"{"status":"cancelled"}"#, r#"{"status":"failed","error":{"message":"boom"}}"#] {
            assert!(matches!(of(response), Ending::Failed(_)), "{response}");
        }
    }

    #[test]
    fn progress_and_what_is_no_event_of_a_response_says_nothing() {
        for name in ["response.created", "response.queued", "response.in_progress", "keepalive", "codex.rate_limits"] {
            let data = format!(r#"{{"type":"{name}"}}"#);
            assert!(matches!(ServerEvent::parse(data.as_bytes()).unwrap().said, Said::Nothing), "{name}");
        }
        assert!(ServerEvent::parse(b"[]").is_err());
        assert!(ServerEvent::parse(b"{}").is_err());
        assert!(ServerEvent::parse(br#"{"type":"response.output_item.done"}"#).is_err());
        assert!(ServerEvent::parse(br#"{"type":"response.completed"}"#).is_err());
        assert!(ServerEvent::parse(br#"{"type":"response.x\ndata: y"}"#).is_err());
    }

    #[test]
    fn a_body_is_its_items_as_they_are() {
        let items = [Bytes::from_static(b"{\"role\":\"user\"}"), Bytes::from_static(b"{\"a\":1}")];
        let fields = [Field::new("temperature", "0.5")];
        let body: Vec<u8> = body("m", &fields, &items).concat();
        let expected =
            r#"{"model":"m","stream":true,"store":false,"temperature":0.5,"input":[{"role":"user"},{"a":1}]}"#;
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }
}
