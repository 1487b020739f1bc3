//! The tools of a turn: read once, rendered once, and chosen among.

use crate::error::{ErrorKind, Refusal};
use crate::tokens::Tally;
use bytes::Bytes;
use flashlane_wire::chat::{Field, ToolSet, chat_name};
use flashlane_wire::json;
use flashlane_wire::responses::{ParseError, Reason, Tool, ToolChoice};
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::ops::Range;

/// A set of tools and its array, rendered once for as long as the client sends the same.
#[derive(Debug, Default)]
pub struct Tools {
    pub set: ToolSet,
    pub array: Option<Bytes>,
    /// The tokens of the array, once they were counted.
    pub tally: Tally,
}

impl Tools {
    pub fn new(set: ToolSet) -> Self {
        let array = set.array(None).map(Bytes::from);
        Self { set, array, tally: Tally::default() }
    }

    /// Reads a request's tools, of which there may be `tools_max`.
    ///
    /// # Errors
    /// There are too many, or the first one that is wrong.
    pub fn parse(tools: &[&RawValue], tools_max: usize) -> Result<Self, ParseError> {
        let mut set = ToolSet::default();
        read_tools(&mut set, "tools", tools, 0..tools_max)?;
        Ok(Self::new(set))
    }
}

/// Reads the array `path` into `set`, where `places` are free. Returns those that are left.
///
/// # Errors
/// There are more tools than places, or the first one that is wrong.
pub fn read_tools(
    set: &mut ToolSet,
    path: &str,
    tools: &[&RawValue],
    places: Range<usize>,
) -> Result<Range<usize>, ParseError> {
    let Range { start: mut count, end: tools_max } = places;
    let too_many = || ParseError {
        reason: Reason::Value,
        message: format!("Invalid '{path}': a request may have at most {tools_max} tools."),
        param: Some(path.to_owned()),
    };
    // Before one of them is read.
    if tools.len() > places.len() {
        return Err(too_many());
    }
    for (index, raw) in tools.iter().enumerate() {
        let tool = Tool::parse(&format!("{path}[{index}]"), raw)?;
        count += tool.count();
        if count > tools_max {
            return Err(too_many());
        }
        set.push(&tool);
    }
    Ok(count..tools_max)
}

/// `tool_choice` in the backend's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Auto,
    None,
    Required,
    Named(String),
    Allowed { required: bool, names: BTreeSet<String> },
}

impl Choice {
    /// The only tools that may be called; None: any.
    #[must_use]
    pub fn callable(&self) -> Option<BTreeSet<String>> {
        match self {
            Self::Auto | Self::Required | Self::Named(_) => None,
            Self::None => Some(BTreeSet::new()),
            Self::Allowed { names, .. } => Some(names.clone()),
        }
    }
}

impl From<&ToolChoice<'_>> for Choice {
    fn from(choice: &ToolChoice<'_>) -> Self {
        match choice {
            ToolChoice::Auto => Self::Auto,
            ToolChoice::None => Self::None,
            ToolChoice::Required => Self::Required,
            ToolChoice::Named { name, namespace } => Self::Named(chat_name(namespace.as_deref(), name)),
            ToolChoice::Allowed { required, names } => Self::Allowed {
                required: *required,
                names: names.iter().map(|(namespace, name)| chat_name(namespace.as_deref(), name)).collect(),
            },
        }
    }
}

/// The fields that say which tools there are and how they may be used.
///
/// # Errors
/// A choice that the tools cannot fulfil.
pub fn tool_fields(tools: &Tools, choice: &Choice, parallel: Option<bool>) -> Result<Vec<Field>, Refusal> {
    let absent = |name: &str| {
        let message = format!("Tool choice '{name}' not found in 'tools' parameter.");
        Err(Refusal::new(ErrorKind::InvalidValue, message).with_param("tool_choice"))
    };
    let Some(all) = &tools.array else {
        return match choice {
            Choice::Auto | Choice::None | Choice::Allowed { required: false, .. } => Ok(Vec::new()),
            Choice::Named(name) => absent(name),
            Choice::Required | Choice::Allowed { required: true, .. } => absent("required"),
        };
    };
    let mut fields = Vec::with_capacity(3);
    match choice {
        Choice::Auto => fields.push(Field::new("tools", all.clone())),
        Choice::None => fields.extend([Field::new("tools", all.clone()), Field::new("tool_choice", "\"none\"")]),
        Choice::Required => {
            fields.extend([Field::new("tools", all.clone()), Field::new("tool_choice", "\"required\"")])
        }
        Choice::Named(name) => {
            if !tools.set.contains(name) {
                return absent(name);
            }
            let mut value = b"{\"type\":\"function\",\"function\":{\"name\":".to_vec();
            json::push_string(&mut value, name);
            value.extend_from_slice(b"}}");
            fields.extend([Field::new("tools", all.clone()), Field::new("tool_choice", value)]);
        }
        Choice::Allowed { required, names } => {
            if let Some(name) = names.iter().find(|name| !tools.set.contains(name)) {
                return absent(name);
            }
            let mode = if *required { "\"required\"" } else { "\"auto\"" };
            let allowed = tools.set.array(Some(names)).map(|array| Field::new("tools", array));
            let Some(allowed) = allowed else { return Ok(Vec::new()) };
            fields.extend([allowed, Field::new("tool_choice", mode)]);
        }
    }
    fields.extend(parallel.map(|parallel| Field::new("parallel_tool_calls", if parallel { "true" } else { "false" })));
    Ok(fields)
}
