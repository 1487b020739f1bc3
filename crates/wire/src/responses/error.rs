//! What is wrong with a client's bytes, and where.

/// The rule that the client's bytes broke. The engine's table gives it a status and a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Not JSON, or not an object.
    Json,
    Missing,
    Type,
    Value,
    Unsupported,
    UnknownEvent,
    Exclusive,
}

/// A client's mistake, told so that the client can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    pub reason: Reason,
    pub message: String,
    /// The parameter as a path: `input[2].content[0].type`.
    pub param: Option<String>,
}

impl ParseError {
    pub(crate) fn json(detail: impl std::fmt::Display) -> Self {
        let message = format!("We could not parse the JSON body of your request: {detail}");
        Self { reason: Reason::Json, message, param: None }
    }

    pub(crate) fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self { reason: Reason::Missing, message, param: Some(param.to_owned()) }
    }

    /// `found` is the raw JSON of what stood there.
    pub(crate) fn wrong_type(param: &str, expected: &str, found: &str) -> Self {
        let found = json_type(found);
        let message = format!("Invalid type for '{param}': expected {expected}, but got {found} instead.");
        Self { reason: Reason::Type, message, param: Some(param.to_owned()) }
    }

    pub(crate) fn value(param: &str, message: impl Into<String>) -> Self {
        Self { reason: Reason::Value, message: message.into(), param: Some(param.to_owned()) }
    }

    pub(crate) fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self { reason: Reason::Unsupported, message: message.into(), param: Some(param.to_owned()) }
    }
}

/// The JSON type that a raw value has, with its article.
fn json_type(raw: &str) -> &'static str {
    match raw.trim_start().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}
