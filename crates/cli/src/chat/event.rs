//! What a Responses server says over the WebSocket, as far as the terminal client cares. Knows no socket and no terminal.

use serde::Deserialize;
use std::collections::BTreeMap;

/// One server event.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerEvent {
    /// A response began.
    Created { id: String },
    /// Visible text.
    Text(String),
    /// Reasoning, or its summary.
    Reasoning(String),
    /// The response's one terminal event.
    Ended(Ended),
    /// A request was refused, or failed before it became a response.
    Refused(Failure),
    /// flashlane's own event after the terminal one: where the turn's time went.
    Timing { response_id: Option<String>, timing: Timing },
    /// Everything else: keepalives, item frames, events of later versions.
    Other,
}

/// How a response ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    pub id: String,
    pub status: Status,
    pub output_tokens: Option<u64>,
    pub service_tier: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    Completed,
    /// Cut short, with the reason that was given.
    Incomplete(String),
    Failed(Failure),
}

/// An error for a person to read.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub code: String,
    pub message: String,
}

impl Failure {
    /// The error of an HTTP answer's body, where it has the API's shape.
    pub fn parse(body: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Body {
            error: RawError,
        }
        let Body { error } = serde_json::from_str(body).ok()?;
        error.message.is_some().then(|| failure(Some(error), None, None))
    }
}

/// Where a turn's time went, in milliseconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Timing {
    pub tier: Option<String>,
    #[serde(default)]
    pub simulated: bool,
    pub ttft_ms: Option<f64>,
    /// The gateway's own share of the turn.
    pub gateway_ms: Option<f64>,
    pub total_ms: Option<f64>,
    /// What the turn's stages took, by `<stage>_ms`: together the total.
    #[serde(default)]
    pub parts: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Raw {
    r#type: String,
    delta: Option<String>,
    response: Option<RawResponse>,
    error: Option<RawError>,
    code: Option<String>,
    message: Option<String>,
    response_id: Option<String>,
    timing: Option<Timing>,
}

#[derive(Deserialize)]
struct RawResponse {
    id: String,
    service_tier: Option<String>,
    usage: Option<RawUsage>,
    error: Option<RawError>,
    incomplete_details: Option<RawIncomplete>,
}

#[derive(Deserialize)]
struct RawUsage {
    output_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct RawError {
    code: Option<String>,
    r#type: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct RawIncomplete {
    reason: Option<String>,
}

impl ServerEvent {
    /// Reads one event. What does not have the shape of its type is [`ServerEvent::Other`]: a client must bear events that
    /// it does not know.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        serde_json::from_str::<Raw>(text).ok().and_then(Self::from_raw).unwrap_or(Self::Other)
    }

    fn from_raw(raw: Raw) -> Option<Self> {
        Some(match raw.r#type.as_str() {
            "response.created" => Self::Created { id: raw.response?.id },
            "response.output_text.delta" | "response.refusal.delta" => Self::Text(raw.delta?),
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => Self::Reasoning(raw.delta?),
            "response.completed" => Self::ended(raw.response?, |_| Status::Completed),
            "response.incomplete" => Self::ended(raw.response?, |response| {
                let reason = response.incomplete_details.take().and_then(|details| details.reason);
                Status::Incomplete(reason.unwrap_or_else(|| "no reason given".to_owned()))
            }),
            "response.failed" => {
                Self::ended(raw.response?, |response| Status::Failed(failure(response.error.take(), None, None)))
            }
            "error" | "response.error" => Self::Refused(failure(raw.error, raw.code, raw.message)),
            "responsesapi.websocket_timing" => Self::Timing { response_id: raw.response_id, timing: raw.timing? },
            _ => Self::Other,
        })
    }

    fn ended(mut response: RawResponse, status: impl FnOnce(&mut RawResponse) -> Status) -> Self {
        let status = status(&mut response);
        Self::Ended(Ended {
            status,
            id: response.id,
            output_tokens: response.usage.and_then(|usage| usage.output_tokens),
            service_tier: response.service_tier,
        })
    }
}

/// Servers nest an error, or spread it flat over the event; the nested one is preferred.
fn failure(nested: Option<RawError>, code: Option<String>, message: Option<String>) -> Failure {
    let (nested_code, nested_message) = nested.map_or((None, None), |e| (e.code.or(e.r#type), e.message));
    Failure {
        code: nested_code.or(code).unwrap_or_else(|| "error".to_owned()),
        message: nested_message.or(message).unwrap_or_else(|| "the server gave no message".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turns_events_are_read() {
        let text = r#"{"type":"response.output_text.delta","delta":"a\n","item_id":"msg_1","sequence_number":4}"#;
        assert_eq!(ServerEvent::parse(text), ServerEvent::Text("a\n".to_owned()));
        let text = r#"{"type":"response.completed","response":{"id":"resp_1","status":"completed","error":null,
            "incomplete_details":null,"service_tier":"priority","usage":{"input_tokens":3,"output_tokens":7}}}"#;
        let ended = Ended {
            id: "resp_1".to_owned(),
            status: Status::Completed,
            output_tokens: Some(7),
            service_tier: Some("priority".to_owned()),
        };
        assert_eq!(ServerEvent::parse(text), ServerEvent::Ended(ended));
    }

    #[test]
    fn the_reason_of_an_incomplete_response_is_kept() {
        let text =
            r#"{"type":"response.incomplete","response":{"id":"r","incomplete_details":{"reason":"interrupted"}}}"#;
        let ServerEvent::Ended(ended) = ServerEvent::parse(text) else { panic!("no end") };
        assert_eq!(ended.status, Status::Incomplete("interrupted".to_owned()));
    }

    #[test]
    fn nested_and_flat_errors_are_both_understood() {
        let nested =
            r#"{"type":"error","status":400,"error":{"type":"invalid_request_error","code":"x","message":"m"}}"#;
        let flat = r#"{"type":"error","code":"x","message":"m","param":null}"#;
        let expected = ServerEvent::Refused(Failure { code: "x".to_owned(), message: "m".to_owned() });
        assert_eq!(ServerEvent::parse(nested), expected);
        assert_eq!(ServerEvent::parse(flat), expected);
    }

    #[test]
    fn a_timing_event_is_read_and_foreign_events_are_borne() {
        let text = r#"{"type":"responsesapi.websocket_timing","response_id":"r","timing":{"tier":"latency","endpoint":"e",
            "simulated":true,"ttft_ms":31.5,"gateway_ms":0.08,"total_ms":90,"parts":{"stream_ms":58.5}}}"#;
        let ServerEvent::Timing { timing, .. } = ServerEvent::parse(text) else { panic!("no timing") };
        assert_eq!((timing.simulated, timing.gateway_ms), (true, Some(0.08)));
        assert_eq!((timing.total_ms, timing.parts.get("stream_ms")), (Some(90.0), Some(&58.5)));
        for foreign in ["", "[]", r#"{"type":"codex.rate_limits"}"#, r#"{"type":"response.created"}"#] {
            assert_eq!(ServerEvent::parse(foreign), ServerEvent::Other);
        }
    }
}
