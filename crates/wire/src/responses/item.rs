//! The items of a request's `input`, typed as far as a Chat Completions backend can be told of them. Texts stay raw.

use super::error::{ParseError, Reason};
use super::fields::{Fields, elements};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One input item.
#[derive(Debug)]
pub enum Item<'a> {
    Message {
        role: Role,
        content: Content<'a>,
    },
    /// What a child of a response made of its input: an assistant's message that says whose it is. PROTOCOL clause 15.
    Result {
        name: Cow<'a, str>,
        content: Content<'a>,
    },
    /// A call of a function or of a custom tool, as the model made it.
    Call {
        call_id: &'a str,
        name: Cow<'a, str>,
        namespace: Option<Cow<'a, str>>,
        payload: Payload<'a>,
    },
    /// The output of either.
    CallOutput {
        call_id: &'a str,
        output: Content<'a>,
    },
    /// Tools that hold from here on.
    AdditionalTools {
        tools: Vec<&'a RawValue>,
    },
    /// An item that was said before, by its id.
    Reference {
        id: Cow<'a, str>,
    },
    /// A model's own thoughts: kept in the chain, not sent to a chat backend. What is sealed of them is a string that only its maker
    /// can read.
    Reasoning {
        sealed: Option<Cow<'a, str>>,
    },
    /// What a compaction left of the items that it stands for, sealed.
    Compaction {
        sealed: Cow<'a, str>,
    },
    /// That all before it is to be compacted.
    CompactionTrigger,
    /// The trace of a hosted tool: kept in the chain, not sent to a chat backend.
    NotForwarded,
}

/// What a tool was called with: both are raw strings.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// A JSON text in a string.
    Arguments(&'a str),
    /// Free text, of a custom tool.
    Input(&'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    User,
    Assistant,
    /// `system` and `developer`: chat backends know the first.
    System,
}

impl Role {
    /// The chat backend's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::System => "system",
        }
    }
}

#[derive(Debug)]
pub enum Content<'a> {
    /// A raw string.
    Text(&'a str),
    Parts(Vec<Part<'a>>),
}

#[derive(Debug)]
pub enum Part<'a> {
    /// A raw string.
    Text(&'a str),
    Image {
        url: &'a str,
        detail: Option<&'a str>,
    },
    /// The part's own fields, passed on as they are.
    File {
        raw: &'a RawValue,
    },
}

/// Item types that a chat backend cannot be told of and that do no harm when left out.
const NOT_FORWARDED: [&str; 14] = [
    "web_search_call",
    "file_search_call",
    "computer_call",
    "image_generation_call",
    "code_interpreter_call",
    "local_shell_call",
    "local_shell_call_output",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "tool_search_call",
    "tool_search_output",
    "agent_message",
];

/// Item types that need what flashlane does not serve yet.
const UNSUPPORTED: [&str; 2] = ["computer_call_output", "shell_call_output"];

impl<'a> Item<'a> {
    /// The field that holds its content, and the parts of that, where they are more than one text.
    #[must_use]
    pub fn parts(&self) -> Option<(&'static str, &[Part<'a>])> {
        match self {
            Self::Message { content: Content::Parts(parts), .. }
            | Self::Result { content: Content::Parts(parts), .. } => Some(("content", parts)),
            Self::CallOutput { output: Content::Parts(parts), .. } => Some(("output", parts)),
            Self::Message { .. }
            | Self::Result { .. }
            | Self::CallOutput { .. }
            | Self::Call { .. }
            | Self::AdditionalTools { .. }
            | Self::Reference { .. }
            | Self::Reasoning { .. }
            | Self::Compaction { .. }
            | Self::CompactionTrigger
            | Self::NotForwarded => None,
        }
    }

    /// Reads an item of which the type may be another's: what is not known here, or not served, is not forwarded to a chat backend.
    ///
    /// # Errors
    /// A field is missing or of the wrong type.
    pub fn parse_any(path: &str, raw: &'a RawValue) -> Result<Self, ParseError> {
        Self::parse(path, raw).or_else(|error| Self::of_another(path, error, &[Reason::Value, Reason::Unsupported]))
    }

    /// As [`Self::parse_any`], where a chat backend may be asked: what would be missed there is refused.
    ///
    /// # Errors
    /// A field is missing or of the wrong type, or the item is known and not served.
    pub fn parse_unknown(path: &str, raw: &'a RawValue) -> Result<Self, ParseError> {
        Self::parse(path, raw).or_else(|error| Self::of_another(path, error, &[Reason::Value]))
    }

    fn of_another(path: &str, error: ParseError, reasons: &[Reason]) -> Result<Self, ParseError> {
        let is_of_type = error.param.as_deref().and_then(|param| param.strip_prefix(path)) == Some(".type");
        if is_of_type && reasons.contains(&error.reason) { Ok(Self::NotForwarded) } else { Err(error) }
    }

    /// Reads the item that stands at `path`.
    ///
    /// # Errors
    /// A field is missing or of the wrong type, or the item's type is not known.
    pub fn parse(path: &str, raw: &'a RawValue) -> Result<Self, ParseError> {
        let fields = Fields::nested(path, raw)?;
        let kind = match fields.string("type")? {
            Some(kind) => kind,
            // OpenAI's shorthand: a role and a content are a message.
            None if fields.raw("role").is_some() => Cow::Borrowed("message"),
            // So is an id alone a reference.
            None if fields.iter().all(|(name, _)| name == "id") && fields.raw("id").is_some() => {
                Cow::Borrowed("item_reference")
            }
            None => return Err(ParseError::missing(&fields.path("type"))),
        };
        match &*kind {
            "message" => Self::message(&fields),
            "function_call" => Self::call(&fields, |f| Ok(Payload::Arguments(f.required_raw_string("arguments")?))),
            "custom_tool_call" => Self::call(&fields, |f| Ok(Payload::Input(f.required_raw_string("input")?))),
            "function_call_output" | "custom_tool_call_output" => {
                let call_id = fields.required_raw_string("call_id")?;
                let output = Content::required(&fields, "output")?;
                Ok(Self::CallOutput { call_id, output })
            }
            "additional_tools" => {
                let tools = fields.array("tools")?.ok_or_else(|| ParseError::missing(&fields.path("tools")))?;
                Ok(Self::AdditionalTools { tools })
            }
            "item_reference" => Ok(Self::Reference { id: fields.required_string("id")? }),
            "reasoning" => Ok(Self::Reasoning { sealed: fields.string("encrypted_content")? }),
            "compaction" => Ok(Self::Compaction { sealed: fields.required_string("encrypted_content")? }),
            "compaction_trigger" => Ok(Self::CompactionTrigger),
            other if NOT_FORWARDED.contains(&other) => Ok(Self::NotForwarded),
            other if UNSUPPORTED.contains(&other) => {
                let path = fields.path("type");
                Err(ParseError::unsupported(
                    &path,
                    format!("Input items of type '{other}' are not supported by this server yet."),
                ))
            }
            other => {
                let path = fields.path("type");
                Err(ParseError::value(
                    &path,
                    format!("Invalid value: '{other}'. '{path}' names no type of input item."),
                ))
            }
        }
    }

    fn message(fields: &Fields<'a>) -> Result<Self, ParseError> {
        let role = match fields.choice("role", &["user", "assistant", "system", "developer"])? {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some(_) => Role::System,
            None => return Err(ParseError::missing(&fields.path("role"))),
        };
        let content = Content::required(fields, "content")?;
        Ok(match child_of(fields).filter(|_| role == Role::Assistant) {
            Some(name) => Self::Result { name, content },
            None => Self::Message { role, content },
        })
    }

    fn call(
        fields: &Fields<'a>,
        payload: impl FnOnce(&Fields<'a>) -> Result<Payload<'a>, ParseError>,
    ) -> Result<Self, ParseError> {
        // Arguments that were cut are no JSON: an engine must not see them.
        if fields.string("status")?.as_deref() == Some("incomplete") {
            return Ok(Self::NotForwarded);
        }
        Ok(Self::Call {
            call_id: fields.required_raw_string("call_id")?,
            name: fields.required_string("name")?,
            namespace: fields.string("namespace")?,
            payload: payload(fields)?,
        })
    }
}

/// The child whose result a message is: `flashlane.child.name`. What says it otherwise is a message like others.
fn child_of<'a>(fields: &Fields<'a>) -> Option<Cow<'a, str>> {
    let raw = fields.raw("flashlane")?;
    let child = Fields::nested("flashlane", raw).ok()?.object("child").ok()??;
    child.string("name").ok()?
}

impl<'a> Content<'a> {
    fn required(fields: &Fields<'a>, name: &str) -> Result<Self, ParseError> {
        let Some(raw) = fields.raw(name) else { return Err(ParseError::missing(&fields.path(name))) };
        if let Some(text) = crate::json::raw_string(raw) {
            return Ok(Self::Text(text));
        }
        let path = fields.path(name);
        if !raw.get().starts_with('[') {
            return Err(ParseError::wrong_type(&path, "a string or an array", raw.get()));
        }
        if let Some(parts) = Fields::objects(&path, raw) {
            return parts.iter().map(|(raw, fields)| Part::of(raw, fields)).collect::<Result<_, _>>().map(Self::Parts);
        }
        let parts = elements(&path, raw)?;
        let parts = parts.into_iter().enumerate().map(|(index, part)| {
            let fields = Fields::nested(&format!("{path}[{index}]"), part)?;
            Part::of(part, &fields)
        });
        parts.collect::<Result<_, _>>().map(Self::Parts)
    }
}

impl<'a> Part<'a> {
    fn of(raw: &'a RawValue, fields: &Fields<'a>) -> Result<Self, ParseError> {
        let kind = fields.required_string("type")?;
        match &*kind {
            "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => {
                Ok(Self::Text(fields.required_raw_string("text")?))
            }
            "refusal" => Ok(Self::Text(fields.required_raw_string("refusal")?)),
            "input_image" => match fields.raw_string("image_url")? {
                Some(url) => Ok(Self::Image { url, detail: fields.raw_string("detail")? }),
                None => Err(ParseError::unsupported(
                    &fields.path("image_url"),
                    "Images are taken as 'image_url' (a URL or a data URL); uploaded files are not served here.",
                )),
            },
            "input_file" => {
                for name in ["file_data", "file_id", "file_url", "filename"] {
                    fields.raw_string(name)?;
                }
                Ok(Self::File { raw })
            }
            other => {
                let path = fields.path("type");
                let message = format!(
                    "Invalid value: '{other}'. Supported values for '{path}' are: 'input_text', 'input_image', 'input_file', 'output_text' and 'refusal'."
                );
                Err(ParseError::value(&path, message))
            }
        }
    }
}
