//! The tools of a request, and the choice among them.

use super::error::ParseError;
use super::fields::Fields;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One tool that a client offers to the model.
#[derive(Debug)]
pub enum Tool<'a> {
    Function(Function<'a>),
    /// A tool that takes one free text, perhaps bound by a grammar.
    Custom {
        name: Cow<'a, str>,
        description: Option<Cow<'a, str>>,
        grammar: Option<Grammar<'a>>,
    },
    /// Functions under a common name.
    Namespace {
        name: Cow<'a, str>,
        tools: Vec<Tool<'a>>,
    },
    /// A tool that OpenAI would run itself (`web_search`, `file_search`, `mcp` ...): accepted and not forwarded.
    Hosted {
        kind: &'static str,
    },
}

/// The types of OpenAI's hosted tools. What is kept of one is its name here: a client's own word for it goes nowhere.
const HOSTED: [&str; 14] = [
    "apply_patch",
    "code_interpreter",
    "computer",
    "computer_use_preview",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "shell",
    "tool_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
];
/// Every hosted tool of no known type.
const OTHER: &str = "other";
/// The longest type of a tool, in bytes.
const TYPE_BYTES_MAX: usize = 64;

#[derive(Debug)]
pub struct Function<'a> {
    pub name: Cow<'a, str>,
    /// Raw values, passed on as they are.
    pub description: Option<&'a RawValue>,
    pub parameters: Option<&'a RawValue>,
    pub strict: Option<&'a RawValue>,
}

#[derive(Debug)]
pub struct Grammar<'a> {
    pub syntax: Cow<'a, str>,
    pub definition: Cow<'a, str>,
}

impl<'a> Tool<'a> {
    /// How many it is: a namespace is as many as it holds.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Function(_) | Self::Custom { .. } | Self::Hosted { .. } => 1,
            Self::Namespace { tools, .. } => tools.len().max(1),
        }
    }

    /// Reads the tool that stands at `path`.
    ///
    /// # Errors
    /// A field is missing or of the wrong type.
    pub fn parse(path: &str, raw: &'a RawValue) -> Result<Self, ParseError> {
        let fields = Fields::nested(path, raw)?;
        if fields.string("type")?.as_deref() != Some("namespace") {
            return Self::single(&fields);
        }
        let tools = fields.array("tools")?.unwrap_or_default();
        let tools = tools.into_iter().enumerate().map(|(index, tool)| {
            let fields = Fields::nested(&format!("{path}.tools[{index}]"), tool)?;
            Self::single(&fields)
        });
        Ok(Self::Namespace { name: fields.required_string("name")?, tools: tools.collect::<Result<_, _>>()? })
    }

    /// A tool that stands for itself. Namespaces have one level: deeper ones would be a stack that a client decides the depth of.
    fn single(fields: &Fields<'a>) -> Result<Self, ParseError> {
        let kind = fields.required_string("type")?;
        if kind.len() > TYPE_BYTES_MAX {
            let path = fields.path("type");
            let message = format!("Invalid '{path}': it has more than {TYPE_BYTES_MAX} bytes.");
            return Err(ParseError::value(&path, message));
        }
        match &*kind {
            "function" => Ok(Self::Function(Function {
                name: fields.required_string("name")?,
                description: fields.raw_string("description")?.and(fields.raw("description")),
                parameters: schema(fields)?,
                strict: fields.boolean("strict")?.and(fields.raw("strict")),
            })),
            "custom" => {
                let format = fields.object("format")?;
                let grammar = match &format {
                    Some(format) if format.string("type")?.as_deref() == Some("grammar") => Some(Grammar {
                        syntax: format.required_string("syntax")?,
                        definition: format.required_string("definition")?,
                    }),
                    _ => None,
                };
                Ok(Self::Custom {
                    name: fields.required_string("name")?,
                    description: fields.string("description")?,
                    grammar,
                })
            }
            "namespace" => Err(ParseError::value(
                &fields.path("type"),
                "A namespace cannot hold another namespace: list its tools in one level.",
            )),
            kind => Ok(Self::Hosted { kind: HOSTED.into_iter().find(|known| *known == kind).unwrap_or(OTHER) }),
        }
    }
}

/// `tool_choice`.
#[derive(Debug, Default)]
pub enum ToolChoice<'a> {
    #[default]
    Auto,
    None,
    Required,
    /// One function or custom tool by name.
    Named {
        name: Cow<'a, str>,
        namespace: Option<Cow<'a, str>>,
    },
    /// Any (`required: true`: at least one) of the tools named.
    Allowed {
        required: bool,
        names: Vec<(Option<Cow<'a, str>>, Cow<'a, str>)>,
    },
}

impl<'a> ToolChoice<'a> {
    /// Reads `tool_choice`.
    ///
    /// # Errors
    /// Neither a mode nor a tool; or a hosted tool, which cannot be forced here since it is not forwarded.
    pub fn parse(fields: &Fields<'a>) -> Result<Self, ParseError> {
        let Some(raw) = fields.raw("tool_choice") else { return Ok(Self::Auto) };
        if raw.get().starts_with('"') {
            return Ok(match fields.choice("tool_choice", &["auto", "none", "required"])? {
                Some("none") => Self::None,
                Some("required") => Self::Required,
                _ => Self::Auto,
            });
        }
        if !raw.get().starts_with('{') {
            return Err(ParseError::wrong_type("tool_choice", "a string or an object", raw.get()));
        }
        let choice = Fields::nested("tool_choice", raw)?;
        match &*choice.required_string("type")? {
            "function" | "custom" => {
                Ok(Self::Named { name: choice.required_string("name")?, namespace: choice.string("namespace")? })
            }
            "allowed_tools" => Self::allowed(&choice),
            hosted => Err(ParseError::unsupported(
                "tool_choice.type",
                format!("The hosted tool '{hosted}' cannot be forced: this server does not run hosted tools."),
            )),
        }
    }

    fn allowed(choice: &Fields<'a>) -> Result<Self, ParseError> {
        let required = choice.choice("mode", &["auto", "required"])? == Some("required");
        let tools = choice.array("tools")?.ok_or_else(|| ParseError::missing("tool_choice.tools"))?;
        let mut names = Vec::with_capacity(tools.len());
        for (index, tool) in tools.into_iter().enumerate() {
            let tool = Fields::nested(&format!("tool_choice.tools[{index}]"), tool)?;
            // A hosted tool has no name here: allowing it changes nothing, since it is not forwarded.
            if let Some(name) = tool.string("name")? {
                names.push((tool.string("namespace")?, name));
            }
        }
        Ok(Self::Allowed { required, names })
    }
}

/// A function's `parameters`: a JSON schema, of which only is looked at that it is an object.
fn schema<'a>(fields: &Fields<'a>) -> Result<Option<&'a RawValue>, ParseError> {
    match fields.raw("parameters") {
        Some(raw) if !raw.get().starts_with('{') => {
            Err(ParseError::wrong_type(&fields.path("parameters"), "an object", raw.get()))
        }
        parameters => Ok(parameters),
    }
}
