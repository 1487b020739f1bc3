//! A Chat Completions request, as far as the simulator heeds it, checked. Knows nothing of what is answered.
//!
//! Only the parts that steer the script are read; contents and schemas stay raw until somebody asks for them, so a long
//! history costs little. What is refused, is refused in the API's form, with status 400 and the parameter's name.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::tokens;

const STOPS_MAX: usize = 4;

/// A request that an engine would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The HTTP status.
    pub status: u16,
    /// The JSON body: `{"error": {message, type, param, code}}`.
    pub body: String,
}

impl Rejection {
    pub(crate) fn new(code: Option<&str>, param: Option<&str>, message: &str) -> Rejection {
        let error = json!({"message": message, "type": "invalid_request_error", "param": param, "code": code});
        Rejection { status: 400, body: json!({ "error": error }).to_string() }
    }

    pub(crate) fn value(param: &str, message: &str) -> Rejection {
        Rejection::new(Some("invalid_value"), Some(param), message)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    Function,
}

#[derive(Deserialize)]
pub(crate) struct Message<'a> {
    pub(crate) role: Role,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

impl Message<'_> {
    /// The texts of the content, joined by line breaks; parts that are no text are left out.
    pub(crate) fn text(&self) -> String {
        self.parts().unwrap_or_default()
    }

    /// Names of the tools that this message calls.
    pub(crate) fn called_tools(&self) -> Vec<String> {
        #[derive(Deserialize)]
        struct Call {
            function: Named,
        }
        let calls: Option<Vec<Call>> = self.tool_calls.and_then(|raw| serde_json::from_str(raw.get()).ok());
        calls.unwrap_or_default().into_iter().map(|call| call.function.name).collect()
    }

    fn parts(&self) -> Result<String, serde_json::Error> {
        let raw = self.content.map_or("null", RawValue::get);
        if raw.starts_with('[') {
            let parts: Vec<Part<'_>> = serde_json::from_str(raw)?;
            let texts: Vec<&str> = parts.iter().filter(|part| part.kind == "text").map(|part| &*part.text).collect();
            return Ok(texts.join("\n"));
        }
        Ok(serde_json::from_str::<Option<String>>(raw)?.unwrap_or_default())
    }

    fn prompt_tokens(&self) -> u64 {
        let bytes = self.content.map_or(0, |raw| raw.get().len()) + self.tool_calls.map_or(0, |raw| raw.get().len());
        tokens::PROMPT_TOKENS_PER_MESSAGE + tokens::of_prompt_bytes(bytes)
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct ToolEntry<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    function: Option<&'a RawValue>,
}

/// One function that the client offers.
#[derive(Deserialize)]
pub(crate) struct Tool<'a> {
    pub(crate) name: String,
    #[serde(borrow, default)]
    pub(crate) parameters: Option<&'a RawValue>,
}

/// Which tool the answer has to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToolChoice {
    Auto,
    None,
    Required,
    Named(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ChoiceField {
    Word(String),
    Function { function: Named },
}

/// What form the answer's text has to have.
pub(crate) enum Format<'a> {
    Text,
    JsonObject,
    JsonSchema(&'a RawValue),
}

#[derive(Deserialize)]
struct FormatField<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    json_schema: Option<SchemaField<'a>>,
}

#[derive(Deserialize)]
struct SchemaField<'a> {
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum StopField {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Body<'a> {
    model: Option<String>,
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    #[serde(borrow)]
    tools: Option<Vec<ToolEntry<'a>>>,
    tool_choice: Option<ChoiceField>,
    #[serde(borrow)]
    response_format: Option<FormatField<'a>>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<u64>,
    stop: Option<StopField>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    reasoning_effort: Option<String>,
}

/// A checked request.
pub(crate) struct Request<'a> {
    pub(crate) model: String,
    /// At least one.
    pub(crate) messages: Vec<Message<'a>>,
    pub(crate) tools: Vec<Tool<'a>>,
    pub(crate) tool_choice: ToolChoice,
    pub(crate) format: Format<'a>,
    /// At least 1 where given.
    pub(crate) tokens_max: Option<u64>,
    /// None of them is empty.
    pub(crate) stops: Vec<String>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// The client asks for reasoning before the answer.
    pub(crate) reasoning: bool,
    pub(crate) prompt_tokens: u64,
}

impl<'a> Request<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// What is no JSON object of the right types, lacks `model` or `messages`, or asks for what the simulator cannot do.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Request<'a>, Rejection> {
        let body: Body<'a> = serde_json::from_slice(body).map_err(|error| {
            let code = error.is_data().then_some("invalid_type");
            Rejection::new(code, None, &format!("The body is not a Chat Completions request: {error}."))
        })?;
        let missing = |param: &str| {
            let message = format!("Missing required parameter: '{param}'.");
            Rejection::new(Some("missing_required_parameter"), Some(param), &message)
        };
        let model = body.model.ok_or_else(|| missing("model"))?;
        let messages = body.messages.ok_or_else(|| missing("messages"))?;
        check_messages(&messages)?;
        if body.n.is_some_and(|n| n != 1) {
            return Err(Rejection::value("n", "The simulator plays one choice: 'n' must be 1."));
        }
        let stream = body.stream.unwrap_or(false);
        if body.stream_options.is_some() && !stream {
            return Err(Rejection::value("stream_options", "'stream_options' is only allowed when 'stream' is true."));
        }
        let entries = body.tools.unwrap_or_default();
        let prompt_tokens = prompt_tokens(&messages, &entries);
        let tools = read_tools(&entries)?;
        Ok(Request {
            model,
            messages,
            tool_choice: read_choice(body.tool_choice, &tools)?,
            tools,
            format: read_format(body.response_format)?,
            tokens_max: read_tokens_max(body.max_completion_tokens, body.max_tokens)?,
            stops: read_stops(body.stop)?,
            stream,
            include_usage: body.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
            reasoning: matches!(body.reasoning_effort.as_deref(), Some("medium" | "high" | "xhigh" | "max")),
            prompt_tokens,
        })
    }

    /// The texts of the user's messages, the newest first.
    pub(crate) fn user_texts(&self) -> impl Iterator<Item = String> {
        self.messages.iter().rev().filter(|message| message.role == Role::User).map(Message::text)
    }

    /// The messages after the user's newest one.
    pub(crate) fn since_user(&self) -> &[Message<'a>] {
        let after = self.messages.iter().rposition(|message| message.role == Role::User).map_or(0, |at| at + 1);
        self.messages.get(after..).unwrap_or_default()
    }
}

fn check_messages(messages: &[Message<'_>]) -> Result<(), Rejection> {
    if messages.is_empty() {
        let message = "'messages' must hold at least one message.";
        return Err(Rejection::new(Some("empty_array"), Some("messages"), message));
    }
    for (index, message) in messages.iter().enumerate() {
        message.parts().map_err(|error| {
            let param = format!("messages[{index}].content");
            let message = format!("'{param}' must be a string, an array of content parts or null: {error}.");
            Rejection::new(Some("invalid_type"), Some(&param), &message)
        })?;
    }
    Ok(())
}

fn prompt_tokens(messages: &[Message<'_>], tools: &[ToolEntry<'_>]) -> u64 {
    let messages: u64 = messages.iter().map(Message::prompt_tokens).sum();
    let bytes_of = |tool: &ToolEntry<'_>| tool.function.map_or(0, |raw| raw.get().len());
    let tools: u64 = tools.iter().map(|tool| tokens::of_prompt_bytes(bytes_of(tool))).sum();
    messages + tools + tokens::PROMPT_TOKENS_PER_ANSWER
}

fn read_tools<'a>(entries: &[ToolEntry<'a>]) -> Result<Vec<Tool<'a>>, Rejection> {
    let read = |(index, entry): (usize, &ToolEntry<'a>)| {
        if entry.kind != "function" {
            let message = format!("Tools of type '{}' are not supported: only 'function'.", entry.kind);
            return Err(Rejection::value(&format!("tools[{index}].type"), &message));
        }
        let raw = entry.function.map_or("null", RawValue::get);
        serde_json::from_str(raw).map_err(|error| {
            let message = format!("'tools[{index}].function' is not a function's definition: {error}.");
            Rejection::value(&format!("tools[{index}].function"), &message)
        })
    };
    entries.iter().enumerate().map(read).collect()
}

fn read_choice(field: Option<ChoiceField>, tools: &[Tool<'_>]) -> Result<ToolChoice, Rejection> {
    let choice = match field {
        None => return Ok(ToolChoice::Auto),
        Some(ChoiceField::Function { function }) => ToolChoice::Named(function.name),
        Some(ChoiceField::Word(word)) => match word.as_str() {
            "auto" => return Ok(ToolChoice::Auto),
            "none" => return Ok(ToolChoice::None),
            "required" => ToolChoice::Required,
            other => {
                let message = format!("'tool_choice' is 'auto', 'none', 'required' or a function, not '{other}'.");
                return Err(Rejection::value("tool_choice", &message));
            }
        },
    };
    let known = match &choice {
        ToolChoice::Named(name) => tools.iter().any(|tool| tool.name == *name),
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Required => !tools.is_empty(),
    };
    if !known {
        return Err(Rejection::value("tool_choice", "'tool_choice' asks for a tool that is not in 'tools'."));
    }
    Ok(choice)
}

fn read_format(field: Option<FormatField<'_>>) -> Result<Format<'_>, Rejection> {
    let Some(field) = field else { return Ok(Format::Text) };
    match field.kind.as_str() {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::JsonObject),
        "json_schema" => field.json_schema.and_then(|field| field.schema).map(Format::JsonSchema).ok_or_else(|| {
            Rejection::value("response_format", "'response_format.json_schema.schema' is required for 'json_schema'.")
        }),
        other => {
            let message = format!("'response_format.type' is 'text', 'json_object' or 'json_schema', not '{other}'.");
            Err(Rejection::value("response_format", &message))
        }
    }
}

fn read_tokens_max(newer: Option<u64>, older: Option<u64>) -> Result<Option<u64>, Rejection> {
    let (param, tokens_max) = match newer {
        Some(_) => ("max_completion_tokens", newer),
        None => ("max_tokens", older),
    };
    if tokens_max == Some(0) {
        return Err(Rejection::value(param, &format!("'{param}' must be at least 1.")));
    }
    Ok(tokens_max)
}

fn read_stops(field: Option<StopField>) -> Result<Vec<String>, Rejection> {
    let stops = match field {
        None => Vec::new(),
        Some(StopField::One(stop)) => vec![stop],
        Some(StopField::Many(stops)) => stops,
    };
    if stops.len() > STOPS_MAX || stops.iter().any(String::is_empty) {
        return Err(Rejection::value("stop", "'stop' is a text or up to 4 of them, none of them empty."));
    }
    Ok(stops)
}
