//! A client's tools as a chat backend takes them, and the way back from the backend's names.

use super::render::chat_name;
use crate::json;
use crate::responses::{Function, Grammar, Tool};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a backend's function name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolName {
    pub name: Arc<str>,
    pub namespace: Option<Arc<str>>,
    /// A custom tool: its one argument is unwrapped.
    pub custom: bool,
}

/// The tools that hold for a turn.
#[derive(Debug, Clone, Default)]
pub struct ToolSet {
    /// Backend name and rendering, in the client's order: a stable prefix for the engine's cache.
    rendered: Vec<(String, Bytes)>,
    names: BTreeMap<String, Named>,
    /// Types of the hosted tools that were offered: accepted, and not forwarded.
    hosted: BTreeSet<&'static str>,
}

#[derive(Debug, Clone)]
struct Named {
    tool: ToolName,
    /// Where its rendering is.
    place: usize,
}

impl ToolSet {
    /// Adds a tool. A later tool of the same name takes the place of the earlier.
    pub fn push(&mut self, tool: &Tool<'_>) {
        self.push_in(None, tool);
    }

    fn push_in(&mut self, namespace: Option<&str>, tool: &Tool<'_>) {
        match tool {
            Tool::Function(function) => {
                let name = chat_name(namespace, &function.name);
                let rendered = function_tool(&name, function);
                self.put(name, tool_name(namespace, &function.name, false), rendered.into());
            }
            Tool::Custom { name, description, grammar } => {
                let chat = chat_name(namespace, name);
                let rendered = custom_tool(&chat, description.as_deref(), grammar.as_ref());
                self.put(chat, tool_name(namespace, name, true), rendered.into());
            }
            Tool::Namespace { name, tools } => {
                for tool in tools {
                    self.push_in(Some(name), tool);
                }
            }
            Tool::Hosted { kind } => {
                self.hosted.insert(kind);
            }
        }
    }

    fn put(&mut self, chat: String, tool: ToolName, rendered: Bytes) {
        let place = match self.names.get(&chat) {
            Some(known) => known.place,
            None => self.rendered.len(),
        };
        match self.rendered.get_mut(place) {
            Some(known) => known.1 = rendered,
            None => self.rendered.push((chat.clone(), rendered)),
        }
        self.names.insert(chat, Named { tool, place });
    }

    /// This set with `other`'s tools after its own.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (chat, rendered) in &other.rendered {
            both.put(chat.clone(), other.resolve(chat), rendered.clone());
        }
        both.hosted.extend(&other.hosted);
        both
    }

    /// The tools that a backend is told of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rendered.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rendered.is_empty() && self.hosted.is_empty()
    }

    /// Whether a tool has this name at the backend.
    #[must_use]
    pub fn contains(&self, chat: &str) -> bool {
        self.names.contains_key(chat)
    }

    /// What a backend's name stands for; a name that no tool has is a function of that name.
    #[must_use]
    pub fn resolve(&self, chat: &str) -> ToolName {
        self.names.get(chat).map(|known| known.tool.clone()).unwrap_or_else(|| ToolName {
            name: Arc::from(chat),
            namespace: None,
            custom: false,
        })
    }

    #[must_use]
    pub fn hosted(&self) -> &BTreeSet<&'static str> {
        &self.hosted
    }

    /// The `tools` array, of all tools or of those that `allowed` names; `None` when it would be empty.
    #[must_use]
    pub fn array(&self, allowed: Option<&BTreeSet<String>>) -> Option<Vec<u8>> {
        let mut out = vec![b'['];
        for (name, rendered) in &self.rendered {
            if allowed.is_some_and(|allowed| !allowed.contains(name)) {
                continue;
            }
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(rendered);
        }
        out.push(b']');
        (out.len() > 2).then_some(out)
    }
}

fn tool_name(namespace: Option<&str>, name: &str, custom: bool) -> ToolName {
    ToolName { name: Arc::from(name), namespace: namespace.map(Arc::from), custom }
}

fn begin(name: &str) -> Vec<u8> {
    let mut out = b"{\"type\":\"function\",\"function\":{\"name\":".to_vec();
    json::push_string(&mut out, name);
    out
}

fn function_tool(name: &str, function: &Function<'_>) -> Vec<u8> {
    let mut out = begin(name);
    let fields =
        [("description", function.description), ("parameters", function.parameters), ("strict", function.strict)];
    for (field, value) in fields {
        if let Some(value) = value {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(field.as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(value.get().as_bytes());
        }
    }
    out.extend_from_slice(b"}}");
    out
}

/// A custom tool is a function with one string, `input`.
fn custom_tool(name: &str, description: Option<&str>, grammar: Option<&Grammar<'_>>) -> Vec<u8> {
    let mut text = description.unwrap_or_default().to_owned();
    if let Some(grammar) = grammar {
        let joint = if text.is_empty() { "" } else { "\n\n" };
        text.push_str(&format!("{joint}The input must match this {} grammar:\n{}", grammar.syntax, grammar.definition));
    }
    let mut out = begin(name);
    if !text.is_empty() {
        out.extend_from_slice(b",\"description\":");
        json::push_string(&mut out, &text);
    }
    out.extend_from_slice(
        b",\"parameters\":{\"type\":\"object\",\"properties\":{\"input\":{\"type\":\"string\",\"description\":\"The tool's whole input, as free text.\"}},\"required\":[\"input\"],\"additionalProperties\":false}}}",
    );
    out
}
