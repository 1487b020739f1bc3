//! One chunk of an upstream's Chat Completions stream: read by a learned template where it can be, by the typed parser
//! where it must be. Both hand out the same raw strings.
//!
//! The chunks of one stream differ only in their delta. The reader keeps what stood before and after the delta's text in
//! the last typed chunk; a chunk with the same frame is that text and nothing else, and is not parsed at all.

use super::times::UpstreamTimes;
use crate::json;
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Where a delta's text belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeltaKind {
    Content,
    Reasoning,
    /// Arguments of the tool call with this index, which an earlier chunk named.
    Arguments(u32),
}

/// What one `data:` line says.
#[derive(Debug, PartialEq)]
pub enum Read<'a> {
    /// Text for the only choice, and nothing besides: a raw string in UTF-8, free of surrogate escapes.
    Text(DeltaKind, &'a [u8]),
    Chunk(Box<Chunk<'a>>),
    /// `[DONE]`
    Done,
}

/// A chunk in full.
#[derive(Debug, PartialEq, Default)]
pub struct Chunk<'a> {
    pub choices: Vec<Choice<'a>>,
    /// The array as it came, for chat clients.
    pub choices_raw: Option<&'a str>,
    pub usage: Option<Usage>,
    /// Where the engine's time went, from engines that tell.
    pub times: Option<UpstreamTimes>,
    /// An error inside a stream that began with 200 (Cerebras, vLLM, llama.cpp).
    pub error: Option<StreamError>,
}

#[derive(Debug, PartialEq)]
pub struct Choice<'a> {
    pub index: u32,
    /// Raw strings; empty and absent are alike.
    pub content: &'a str,
    pub reasoning: &'a str,
    pub refusal: &'a str,
    /// The delta names its role.
    pub has_role: bool,
    pub tool_calls: Vec<ToolCallDelta<'a>>,
    pub finish_reason: Option<FinishReason>,
    pub logprobs: Option<&'a str>,
}

#[derive(Debug, PartialEq)]
pub struct ToolCallDelta<'a> {
    pub index: u32,
    pub id: Option<Cow<'a, str>>,
    pub name: Option<Cow<'a, str>>,
    /// A raw string.
    pub arguments: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    Stop,
    Length,
    ToolCalls,
    ContentFilter,
}

impl FinishReason {
    fn parse(text: &str) -> Self {
        match text {
            "length" => Self::Length,
            "tool_calls" | "function_call" => Self::ToolCalls,
            "content_filter" => Self::ContentFilter,
            // `stop`, and what engines add of their own (`eos`, `stop_sequence` ...).
            _ => Self::Stop,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
        }
    }
}

/// Token counts as the engine reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub reasoning: u64,
}

impl Usage {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cached: self.cached.saturating_add(other.cached),
            output: self.output.saturating_add(other.output),
            reasoning: self.reasoning.saturating_add(other.reasoning),
        }
    }

    /// Reads a `usage` object, of a chat completion or of a response.
    #[must_use]
    pub fn parse(raw: &RawValue) -> Option<Self> {
        serde_json::from_str::<UsageShape>(raw.get()).ok().map(UsageShape::usage)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamError {
    pub message: String,
    pub code: Option<String>,
    pub kind: Option<String>,
    /// An HTTP status, where the engine tells one.
    pub status: Option<u16>,
}

/// A `data:` line that is no chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a chat completion chunk: {reason}")]
pub struct ChunkError {
    pub reason: String,
}

/// The parser's own words quote what it found: of a model's answer.
fn unread(error: &serde_json::Error) -> ChunkError {
    let what = match error.classify() {
        Category::Data => "a field is of another type",
        Category::Syntax => "it is no JSON",
        Category::Eof | Category::Io => "it is cut short",
    };
    ChunkError { reason: format!("{what}, at byte {}", error.column()) }
}

/// Reads the chunks of one stream.
#[derive(Debug, Default)]
pub struct ChunkReader {
    template: Option<Template>,
}

/// What stands around the text of a delta.
#[derive(Debug)]
struct Template {
    kind: DeltaKind,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl ChunkReader {
    /// Reads one `data:` line.
    ///
    /// hot: per token
    ///
    /// # Errors
    /// The line is neither `[DONE]` nor a chunk.
    pub fn read<'a>(&mut self, data: &'a [u8]) -> Result<Read<'a>, ChunkError> {
        if let Some(template) = &self.template
            && let Some(rest) = data.strip_prefix(&*template.before)
            && let Some(raw) = rest.strip_suffix(&*template.after)
            && json::is_plain_raw_string(raw)
        {
            return Ok(Read::Text(template.kind, raw));
        }
        self.read_typed(data)
    }

    /// The slow way: parses the line, and learns from it.
    ///
    /// # Errors
    /// The line is neither `[DONE]` nor a chunk.
    pub fn read_typed<'a>(&mut self, data: &'a [u8]) -> Result<Read<'a>, ChunkError> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(Read::Done);
        }
        let text = std::str::from_utf8(data).map_err(|error| ChunkError { reason: error.to_string() })?;
        let typed: ChunkShape<'a> = serde_json::from_str(text).map_err(|error| unread(&error))?;
        let chunk = Chunk::from_shape(&typed)?;
        match chunk.only_text() {
            Some((kind, raw)) if json::is_plain_raw_string(raw.as_bytes()) => {
                self.learn(text, kind, raw);
                Ok(Read::Text(kind, raw.as_bytes()))
            }
            _ => Ok(Read::Chunk(Box::new(chunk))),
        }
    }

    /// `raw` is a part of `line`: what stands around it is the frame.
    fn learn(&mut self, line: &str, kind: DeltaKind, raw: &str) {
        let start = (raw.as_ptr() as usize).wrapping_sub(line.as_ptr() as usize);
        let frame = (line.get(..start), line.get(start.wrapping_add(raw.len())..));
        if let (Some(before), Some(after)) = frame {
            let (before, after) = (before.as_bytes().to_vec(), after.as_bytes().to_vec());
            self.template = Some(Template { kind, before, after });
        }
    }
}

impl<'a> Chunk<'a> {
    /// The text of this chunk, if text is all that it brings.
    fn only_text(&self) -> Option<(DeltaKind, &'a str)> {
        let [choice] = self.choices.as_slice() else { return None };
        let plain = self.usage.is_none()
            && self.error.is_none()
            && choice.index == 0
            && choice.finish_reason.is_none()
            && choice.logprobs.is_none()
            && choice.refusal.is_empty();
        if !plain {
            return None;
        }
        match (choice.content, choice.reasoning, choice.tool_calls.as_slice()) {
            (raw, "", []) if !raw.is_empty() => Some((DeltaKind::Content, raw)),
            ("", raw, []) if !raw.is_empty() => Some((DeltaKind::Reasoning, raw)),
            ("", "", [ToolCallDelta { index, id: None, name: None, arguments }]) if !arguments.is_empty() => {
                Some((DeltaKind::Arguments(*index), arguments))
            }
            _ => None,
        }
    }

    fn from_shape(shape: &ChunkShape<'a>) -> Result<Self, ChunkError> {
        if let Some(error) = shape.error {
            let error = StreamError::parse(error, shape.status_code);
            return Ok(Self { error: Some(error), ..Self::default() });
        }
        let mut chunk = Self { times: shape.times(), ..Self::default() };
        chunk.usage = match shape.usage {
            Some(raw) => {
                let usage: UsageShape = serde_json::from_str(raw.get()).map_err(|error| unread(&error))?;
                Some(usage.usage())
            }
            None => None,
        };
        let Some(choices) = shape.choices else {
            return if chunk.usage.is_some() { Ok(chunk) } else { Err(ChunkError { reason: "no choices".to_owned() }) };
        };
        chunk.choices_raw = Some(choices.get());
        let shapes: Vec<ChoiceShape<'a>> = serde_json::from_str(choices.get()).map_err(|error| unread(&error))?;
        chunk.choices = shapes.into_iter().map(Choice::from_shape).collect::<Result<_, _>>()?;
        Ok(chunk)
    }
}

impl<'a> Choice<'a> {
    /// Whether the choice brings anything that a model generated.
    #[must_use]
    pub fn has_text(&self) -> bool {
        !(self.content.is_empty() && self.reasoning.is_empty() && self.refusal.is_empty() && self.tool_calls.is_empty())
    }

    fn from_shape(shape: ChoiceShape<'a>) -> Result<Self, ChunkError> {
        let delta = shape.delta.unwrap_or_default();
        let reasoning = text_of("reasoning", delta.reasoning)?;
        let calls = delta.tool_calls.unwrap_or_default();
        Ok(Self {
            index: shape.index.unwrap_or(0),
            content: text_of("content", delta.content)?,
            reasoning: if reasoning.is_empty() {
                text_of("reasoning_content", delta.reasoning_content)?
            } else {
                reasoning
            },
            refusal: text_of("refusal", delta.refusal)?,
            has_role: delta.role.is_some_and(|role| role.get() != "null"),
            tool_calls: (0..).zip(calls).map(ToolCallDelta::from_shape).collect::<Result<_, _>>()?,
            finish_reason: shape.finish_reason.as_deref().filter(|reason| !reason.is_empty()).map(FinishReason::parse),
            logprobs: shape.logprobs.map(RawValue::get).filter(|raw| *raw != "null"),
        })
    }
}

impl<'a> ToolCallDelta<'a> {
    fn from_shape((position, shape): (u32, CallShape<'a>)) -> Result<Self, ChunkError> {
        let function = shape.function.unwrap_or_default();
        Ok(Self {
            index: shape.index.unwrap_or(position),
            id: shape.id.filter(|id| !id.is_empty()),
            name: function.name.filter(|name| !name.is_empty()),
            arguments: text_of("arguments", function.arguments)?,
        })
    }
}

fn text_of<'a>(name: &str, raw: Option<&'a RawValue>) -> Result<&'a str, ChunkError> {
    match raw {
        None => Ok(""),
        Some(raw) if raw.get() == "null" => Ok(""),
        Some(raw) => json::raw_string(raw).ok_or_else(|| ChunkError { reason: format!("'{name}' is no string") }),
    }
}

impl StreamError {
    /// Reads an error object, or whatever stands in its place.
    #[must_use]
    pub fn parse(raw: &RawValue, status: Option<u16>) -> Self {
        let shape: ErrorShape = serde_json::from_str(raw.get()).unwrap_or_default();
        let (code, status_in_code) = match shape.code {
            Some(serde_json::Value::String(code)) => (Some(code), None),
            Some(serde_json::Value::Number(number)) => (None, number.as_u64().and_then(|n| u16::try_from(n).ok())),
            _ => (None, None),
        };
        let message = shape.message.or_else(|| serde_json::from_str(raw.get()).ok());
        Self {
            message: message.unwrap_or_else(|| raw.get().chars().take(500).collect()),
            code,
            kind: shape.kind,
            status: status.or(status_in_code),
        }
    }

    /// Reads the body of an upstream's error answer: OpenAI's shape, or `{"message"}`, or plain text.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body<'a> {
            #[serde(borrow)]
            error: &'a RawValue,
        }
        let text = String::from_utf8_lossy(body);
        match serde_json::from_str::<Body<'_>>(&text) {
            Ok(body) => Self::parse(body.error, None),
            Err(_) => match serde_json::from_str::<&RawValue>(&text) {
                Ok(raw) => Self::parse(raw, None),
                Err(_) => {
                    Self { message: text.trim().chars().take(500).collect(), code: None, kind: None, status: None }
                }
            },
        }
    }
}

#[derive(Deserialize)]
struct ChunkShape<'a> {
    #[serde(borrow, default)]
    choices: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    time_info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timings: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metrics: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(default)]
    status_code: Option<u16>,
}

impl ChunkShape<'_> {
    fn times(&self) -> Option<UpstreamTimes> {
        let seconds = [self.time_info, self.usage].into_iter().flatten().map(UpstreamTimes::of_seconds);
        let milliseconds = [self.timings, self.metrics].into_iter().flatten().map(UpstreamTimes::of_milliseconds);
        let told = seconds.chain(milliseconds).reduce(UpstreamTimes::or)?;
        (told != UpstreamTimes::default()).then_some(told)
    }
}

#[derive(Deserialize)]
struct ChoiceShape<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    delta: Option<DeltaShape<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    logprobs: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct DeltaShape<'a> {
    #[serde(borrow, default)]
    role: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<CallShape<'a>>>,
}

#[derive(Deserialize)]
struct CallShape<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<FunctionShape<'a>>,
}

#[derive(Deserialize, Default)]
struct FunctionShape<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct ErrorShape {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    code: Option<serde_json::Value>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize, Default)]
struct UsageShape {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
    /// The Responses API's names. Some engines send both: an alias would be a field that comes twice.
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    input_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    output_tokens_details: Option<CompletionDetails>,
    /// Where SGLang has it.
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

/// Of one turn.
const TOKENS_MAX: u64 = 1 << 40;

impl UsageShape {
    fn usage(self) -> Usage {
        // No model reads or writes as many; sums of what is left do not overflow.
        let tokens = |count: Option<u64>| count.unwrap_or(0).min(TOKENS_MAX);
        let prompt_details = self.prompt_tokens_details.or(self.input_tokens_details);
        let completion_details = self.completion_tokens_details.or(self.output_tokens_details);
        Usage {
            input: tokens(self.prompt_tokens.or(self.input_tokens)),
            cached: tokens(prompt_details.and_then(|details| details.cached_tokens)),
            output: tokens(self.completion_tokens.or(self.output_tokens)),
            reasoning: tokens(
                completion_details.and_then(|details| details.reasoning_tokens).or(self.reasoning_tokens),
            ),
        }
    }
}
