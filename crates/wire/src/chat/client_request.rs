//! What chat clients send to `POST /v1/chat/completions`: read as far as flashlane must know it, passed on as it is.

use super::request::Field;
use crate::responses::{Fields, ParseError, elements};
use bytes::Bytes;
use std::borrow::Cow;

/// A chat client's request.
#[derive(Debug)]
pub struct ChatRequest<'a> {
    pub model: Cow<'a, str>,
    /// The inside of the `messages` array, raw.
    pub messages: &'a str,
    pub stream: bool,
    /// `stream_options.include_usage`
    pub include_usage: bool,
    pub service_tier: Option<Cow<'a, str>>,
    pub cache_key: Option<Cow<'a, str>>,
    /// All other fields, known or not.
    pub fields: Vec<Field>,
}

/// Fields that flashlane itself writes or answers.
const OWN: [&str; 7] = ["model", "messages", "stream", "stream_options", "service_tier", "store", "metadata"];

const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

impl<'a> ChatRequest<'a> {
    /// Reads a request's body.
    ///
    /// # Errors
    /// No JSON object, or a field that flashlane must know is missing or wrong. What only the engine knows, it refuses itself.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let fields = Fields::parse(body)?;
        let options = fields.object("stream_options")?;
        Ok(Self {
            model: fields.required_string("model")?,
            messages: messages(&fields)?,
            stream: fields.boolean("stream")?.unwrap_or(false),
            include_usage: match &options {
                Some(options) => options.boolean("include_usage")?.unwrap_or(false),
                None => false,
            },
            service_tier: fields.string("service_tier")?,
            cache_key: fields.string("prompt_cache_key")?,
            fields: forwarded(&fields)?,
        })
    }
}

/// The fields that go on as they are; the numbers among them checked, since engines differ in what they make of nonsense.
fn forwarded(fields: &Fields<'_>) -> Result<Vec<Field>, ParseError> {
    fields.number("temperature", 0.0, 2.0)?;
    fields.number("top_p", 0.0, 1.0)?;
    fields.number("presence_penalty", -2.0, 2.0)?;
    fields.number("frequency_penalty", -2.0, 2.0)?;
    fields.integer("n", 1, 128)?;
    fields.integer("max_tokens", 0, u64::from(u32::MAX))?;
    fields.integer("max_completion_tokens", 0, u64::from(u32::MAX))?;
    fields.array("tools")?;
    let others = fields.iter().filter(|(name, raw)| !OWN.contains(name) && raw.get() != "null");
    Ok(others
        .map(|(name, raw)| Field {
            name: Cow::Owned(name.to_owned()),
            value: Bytes::copy_from_slice(raw.get().as_bytes()),
        })
        .collect())
}

fn messages<'a>(fields: &Fields<'a>) -> Result<&'a str, ParseError> {
    let Some(raw) = fields.raw("messages") else { return Err(ParseError::missing("messages")) };
    let messages = elements("messages", raw)?;
    if messages.is_empty() {
        let message =
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
        return Err(ParseError::value("messages", message));
    }
    for (index, message) in messages.into_iter().enumerate() {
        let message = Fields::nested(&format!("messages[{index}]"), message)?;
        if message.choice("role", &ROLES)?.is_none() {
            return Err(ParseError::missing(&message.path("role")));
        }
    }
    let inside = raw.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    Ok(inside.unwrap_or_default().trim())
}
