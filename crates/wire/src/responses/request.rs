//! `response.create` and the body of `POST /v1/responses`: one request, its fields checked, its texts raw.

use super::children::Children;
use super::error::{ParseError, Reason};
use super::fields::Fields;
use super::metadata::metadata;
use super::tool::ToolChoice;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A request for a response.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    pub model: Cow<'a, str>,
    /// Without the items that the reader knew.
    pub input: Input<'a>,
    /// How many it knew, at the front.
    pub known_items: usize,
    /// A raw string.
    pub instructions: Option<&'a str>,
    pub previous_response_id: Option<Cow<'a, str>>,
    /// The id of the conversation that it is to be made in.
    pub conversation: Option<Cow<'a, str>>,
    /// The whole array, for recognition; and its elements.
    pub tools: Option<(&'a RawValue, Vec<&'a RawValue>)>,
    pub tool_choice: ToolChoice<'a>,
    pub stream: bool,
    pub store: bool,
    pub background: bool,
    /// `generate: false` or `prompt_cache_options.prewarm: true`: no tokens are asked for.
    pub warm_up: bool,
    pub stream_id: Option<Cow<'a, str>>,
    pub max_output_tokens: Option<u64>,
    pub parallel_tool_calls: Option<bool>,
    /// `reasoning.effort`.
    pub effort: Option<Cow<'a, str>>,
    /// `reasoning` as it was sent.
    pub reasoning: Option<&'a RawValue>,
    pub text_format: TextFormat<'a>,
    pub verbosity: Option<Cow<'a, str>>,
    pub service_tier: Option<Cow<'a, str>>,
    pub cache_key: Option<Cow<'a, str>>,
    /// What the client tells of itself and of the request: an object, unread.
    pub client_metadata: Option<&'a RawValue>,
    /// `context_management` asks for compaction above so many tokens.
    pub compaction: Option<Threshold>,
    /// `include` has `reasoning.encrypted_content`.
    pub includes_reasoning: bool,
    /// `include` as it was sent: an array of strings.
    pub include: Option<&'a RawValue>,
    /// `flashlane`: children of the response.
    pub children: Option<Box<Children<'a>>>,
    /// `background` and others as they were sent: what the response object repeats.
    pub echo: Echo<'a>,
}

/// From how many tokens on a context is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Threshold {
    Tokens(u64),
    /// The server's own.
    Default,
}

#[derive(Debug, Clone)]
pub enum Input<'a> {
    /// A raw string: one user message.
    Text(&'a str),
    Items(Vec<&'a RawValue>),
}

#[derive(Debug, Clone, Copy, Default)]
pub enum TextFormat<'a> {
    #[default]
    Text,
    JsonObject,
    /// The fields of a `json_schema` format, raw.
    JsonSchema {
        name: &'a RawValue,
        schema: &'a RawValue,
        strict: Option<&'a RawValue>,
        description: Option<&'a RawValue>,
    },
}

/// Fields that the response object repeats as they were sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo<'a> {
    pub metadata: Option<&'a RawValue>,
    pub temperature: Option<&'a RawValue>,
    pub top_p: Option<&'a RawValue>,
    pub top_logprobs: Option<&'a RawValue>,
    pub presence_penalty: Option<&'a RawValue>,
    pub frequency_penalty: Option<&'a RawValue>,
    pub max_tool_calls: Option<&'a RawValue>,
    pub reasoning_summary: Option<&'a RawValue>,
    pub text: Option<&'a RawValue>,
    pub tool_choice: Option<&'a RawValue>,
    pub truncation: Option<&'a RawValue>,
    pub safety_identifier: Option<&'a RawValue>,
    pub prompt_cache_key: Option<&'a RawValue>,
    pub prompt_cache_retention: Option<&'a RawValue>,
    pub user: Option<&'a RawValue>,
}

/// The largest `max_output_tokens`; beyond it no model goes.
pub(super) const OUTPUT_TOKENS_MAX: u64 = 16_777_216;
/// The largest `compact_threshold`; beyond it no context goes.
const THRESHOLD_TOKENS_MAX: u64 = 16_777_216;

pub(super) const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
const SERVICE_TIERS: [&str; 7] = ["auto", "default", "flex", "priority", "fast", "ultrafast", "scale"];

impl<'a> CreateRequest<'a> {
    /// Reads the body of a request, or the frame of a `response.create`.
    ///
    /// # Errors
    /// The first field that is missing, of the wrong type, out of range or not served, by name.
    pub fn parse(fields: &Fields<'a>) -> Result<Self, ParseError> {
        Self::read(fields, false)
    }

    /// Reads the body of `POST /v1/responses/compact`: a request whose input may lie in what it is chained to.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_compact(fields: &Fields<'a>) -> Result<Self, ParseError> {
        Self::read(fields, true)
    }

    fn read(fields: &Fields<'a>, may_lack_input: bool) -> Result<Self, ParseError> {
        refuse_unserved(fields)?;
        let prewarm = match fields.object("prompt_cache_options")? {
            Some(options) => options.boolean("prewarm")?.unwrap_or(false),
            None => false,
        };
        let warm_up = prewarm || fields.boolean("generate")? == Some(false);
        let reasoning = fields.object("reasoning")?;
        let text = fields.object("text")?;
        let tools = match fields.raw("tools") {
            Some(raw) => fields.array("tools")?.map(|elements| (raw, elements)),
            None => None,
        };
        Ok(Self {
            model: fields.required_string("model")?,
            input: Input::parse(fields, warm_up || may_lack_input)?,
            known_items: fields.input().map_or(0, |input| input.known),
            instructions: fields.raw_string("instructions")?,
            previous_response_id: fields.string("previous_response_id")?,
            conversation: conversation(fields)?,
            tools,
            tool_choice: ToolChoice::parse(fields)?,
            stream: fields.boolean("stream")?.unwrap_or(false),
            store: fields.boolean("store")?.unwrap_or(true),
            background: fields.boolean("background")?.unwrap_or(false),
            warm_up,
            stream_id: fields.string("stream_id")?,
            max_output_tokens: fields.integer("max_output_tokens", 1, OUTPUT_TOKENS_MAX)?,
            parallel_tool_calls: fields.boolean("parallel_tool_calls")?,
            effort: match &reasoning {
                Some(reasoning) => reasoning.choice("effort", &EFFORTS)?.map(Cow::Borrowed),
                None => None,
            },
            reasoning: fields.raw("reasoning"),
            text_format: TextFormat::parse(text.as_ref())?,
            verbosity: match &text {
                Some(text) => text.choice("verbosity", &["low", "medium", "high"])?.map(Cow::Borrowed),
                None => None,
            },
            service_tier: fields.choice("service_tier", &SERVICE_TIERS)?.map(Cow::Borrowed),
            cache_key: fields.string("prompt_cache_key")?,
            client_metadata: fields.raw("client_metadata"),
            compaction: compaction(fields)?,
            includes_reasoning: includes(fields, "reasoning.encrypted_content")?,
            include: fields.raw("include"),
            children: Children::parse(fields)?,
            echo: Echo::parse(fields, reasoning.as_ref())?,
        })
    }
}

/// `context_management`: an array of what is to be done with the context. The lowest threshold counts.
fn compaction(fields: &Fields<'_>) -> Result<Option<Threshold>, ParseError> {
    let mut lowest = None;
    for (index, entry) in fields.array("context_management")?.unwrap_or_default().into_iter().enumerate() {
        let entry = Fields::nested(&format!("context_management[{index}]"), entry)?;
        if entry.choice("type", &["compaction"])?.is_none() {
            return Err(ParseError::missing(&entry.path("type")));
        }
        let tokens = entry.integer("compact_threshold", 1, THRESHOLD_TOKENS_MAX)?;
        let threshold = tokens.map_or(Threshold::Default, Threshold::Tokens);
        lowest = Some(lowest.map_or(threshold, |lowest: Threshold| lowest.min(threshold)));
    }
    Ok(lowest)
}

/// Whether `include`, an array of strings, has `what` in it.
fn includes(fields: &Fields<'_>, what: &str) -> Result<bool, ParseError> {
    let mut is_there = false;
    for (index, member) in fields.array("include")?.unwrap_or_default().into_iter().enumerate() {
        match crate::json::raw_string(member) {
            Some(member) => is_there |= member == what,
            None => return Err(ParseError::wrong_type(&format!("include[{index}]"), "a string", member.get())),
        }
    }
    Ok(is_there)
}

/// An id, or an object that has it.
fn conversation<'a>(fields: &Fields<'a>) -> Result<Option<Cow<'a, str>>, ParseError> {
    match fields.raw("conversation") {
        Some(raw) if raw.get().starts_with('{') => match fields.object("conversation")? {
            Some(conversation) => conversation.required_string("id").map(Some),
            None => Ok(None),
        },
        Some(_) | None => fields.string("conversation"),
    }
}

/// Fields that change what an answer means and that are not served: better a clear word than a wrong answer.
fn refuse_unserved(fields: &Fields<'_>) -> Result<(), ParseError> {
    if fields.raw("conversation").is_some() && fields.raw("previous_response_id").is_some() {
        let message =
            "Mutually exclusive parameters: 'previous_response_id' and 'conversation' cannot be used together.";
        let param = Some("previous_response_id".to_owned());
        return Err(ParseError { reason: Reason::Exclusive, message: message.to_owned(), param });
    }
    for (name, instead) in
        [("prompt", "send the prompt's text as 'instructions' or 'input' instead"), ("moderation", "leave it out")]
    {
        if fields.raw(name).is_some_and(|raw| raw.get() != "[]") {
            return Err(ParseError::unsupported(
                name,
                format!("'{name}' is not supported by this server yet: {instead}."),
            ));
        }
    }
    Ok(())
}

impl<'a> Input<'a> {
    pub(super) fn parse(fields: &Fields<'a>, may_be_absent: bool) -> Result<Self, ParseError> {
        if let Some(items) = fields.input() {
            return Ok(Self::Items(items.new.clone()));
        }
        let Some(raw) = fields.raw("input") else {
            // A warm-up may have nothing but instructions and tools to say.
            return if may_be_absent {
                Ok(Self::Items(Vec::new()))
            } else {
                Err(ParseError::missing(&fields.path("input")))
            };
        };
        if let Some(text) = crate::json::raw_string(raw) {
            return Ok(Self::Text(text));
        }
        if !raw.get().starts_with('[') {
            return Err(ParseError::wrong_type(&fields.path("input"), "a string or an array", raw.get()));
        }
        Ok(Self::Items(fields.array("input")?.unwrap_or_default()))
    }
}

impl<'a> TextFormat<'a> {
    fn parse(text: Option<&Fields<'a>>) -> Result<Self, ParseError> {
        let Some(text) = text else { return Ok(Self::Text) };
        let Some(format) = text.object("format")? else { return Ok(Self::Text) };
        match format.choice("type", &["text", "json_object", "json_schema"])? {
            None => Err(ParseError::missing("text.format.type")),
            Some("json_object") => Ok(Self::JsonObject),
            Some("json_schema") => Ok(Self::JsonSchema {
                name: {
                    format.required_raw_string("name")?;
                    format.raw("name").ok_or_else(|| ParseError::missing("text.format.name"))?
                },
                schema: {
                    format.object("schema")?;
                    format.raw("schema").ok_or_else(|| ParseError::missing("text.format.schema"))?
                },
                strict: format.boolean("strict")?.and(format.raw("strict")),
                description: format.raw_string("description")?.and(format.raw("description")),
            }),
            Some(_) => Ok(Self::Text),
        }
    }
}

impl<'a> Echo<'a> {
    fn parse(fields: &Fields<'a>, reasoning: Option<&Fields<'a>>) -> Result<Self, ParseError> {
        fields.choice("truncation", &["auto", "disabled"])?;
        fields.string("safety_identifier")?;
        fields.string("user")?;
        fields.integer("max_tool_calls", 0, u64::MAX)?;
        fields.integer("top_logprobs", 0, 20)?;
        Ok(Self {
            metadata: metadata(fields)?,
            temperature: fields.number("temperature", 0.0, 2.0)?,
            top_p: fields.number("top_p", 0.0, 1.0)?,
            top_logprobs: fields.raw("top_logprobs"),
            presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?,
            frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?,
            max_tool_calls: fields.raw("max_tool_calls"),
            reasoning_summary: reasoning.and_then(|reasoning| reasoning.raw("summary")),
            text: fields.raw("text"),
            tool_choice: fields.raw("tool_choice"),
            truncation: fields.raw("truncation"),
            safety_identifier: fields.raw("safety_identifier"),
            prompt_cache_key: fields.raw("prompt_cache_key"),
            prompt_cache_retention: fields.raw("prompt_cache_retention"),
            user: fields.raw("user"),
        })
    }
}
