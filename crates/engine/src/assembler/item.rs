//! One output item while it grows: its events in their order, and what is left of it when it is closed.

use crate::ids::TurnHex;
use crate::outgoing::Outgoing;
use crate::seal::{Purpose, Sealer};
use bytes::Bytes;
use flashlane_wire::chat::{CustomInput, Renderer, ToolName};
use flashlane_wire::json;
use flashlane_wire::responses::{Content, Item, Payload, Role};
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::sync::Arc;

/// An item that is open.
#[derive(Debug)]
pub struct OpenItem {
    kind: ItemKind,
    id: String,
    output_index: u32,
    /// Raw: the text, the arguments or the input so far.
    text: Vec<u8>,
    /// A delta event up to its text, and from there to its sequence number.
    delta_before: Vec<u8>,
    delta_after: &'static [u8],
}

#[derive(Debug)]
pub enum ItemKind {
    Message,
    /// What a child of the response has made: the child's name, and what is told of it, as JSON.
    Result {
        name: Arc<str>,
        child: Bytes,
    },
    Refusal,
    /// With its text once more, sealed for its client, where that was asked for.
    Reasoning {
        sealed: Option<String>,
    },
    Function {
        tool: ToolName,
        call_id: String,
    },
    Custom {
        tool: ToolName,
        call_id: String,
        unwrapping: CustomInput,
    },
}

/// A closed item.
#[derive(Debug)]
pub struct ClosedItem {
    /// Its JSON, as served.
    pub json: Bytes,
}

/// The names of one kind's events.
struct Names {
    prefix: &'static str,
    delta: &'static str,
    done: &'static str,
    /// The field of the done event that holds the whole.
    whole: &'static str,
    /// The part that a content is wrapped in.
    part: Option<&'static str>,
}

const TEXT_AFTER: &[u8] = b"\",\"logprobs\":[],\"sequence_number\":";
const PLAIN_AFTER: &[u8] = b"\",\"sequence_number\":";

impl ItemKind {
    fn names(&self) -> Names {
        let names = |prefix, delta, done, whole, part| Names { prefix, delta, done, whole, part };
        match self {
            Self::Message | Self::Result { .. } => {
                names("msg", "response.output_text.delta", "response.output_text.done", "text", Some("output_text"))
            }
            Self::Refusal => {
                names("msg", "response.refusal.delta", "response.refusal.done", "refusal", Some("refusal"))
            }
            Self::Reasoning { .. } => names(
                "rs",
                "response.reasoning_text.delta",
                "response.reasoning_text.done",
                "text",
                Some("reasoning_text"),
            ),
            Self::Function { .. } => names(
                "fc",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "arguments",
                None,
            ),
            Self::Custom { .. } => names(
                "ctc",
                "response.custom_tool_call_input.delta",
                "response.custom_tool_call_input.done",
                "input",
                None,
            ),
        }
    }

    fn delta_after(&self) -> &'static [u8] {
        match self {
            Self::Message | Self::Result { .. } => TEXT_AFTER,
            Self::Refusal | Self::Reasoning { .. } | Self::Function { .. } | Self::Custom { .. } => PLAIN_AFTER,
        }
    }
}

impl OpenItem {
    /// Opens an item: `output_item.added`, and for contents `content_part.added`.
    pub fn open(kind: ItemKind, hex: &TurnHex, output_index: u32, sequence: &mut u64, out: &mut Outgoing) -> Self {
        let names = kind.names();
        let id = hex.item_id(names.prefix, output_index);
        let mut delta_before = event_head(names.delta);
        push_place(&mut delta_before, &id, output_index, names.part.is_some());
        delta_before.extend_from_slice(b",\"delta\":\"");
        let delta_after = kind.delta_after();
        let item = Self { kind, id, output_index, text: Vec::new(), delta_before, delta_after };
        event(out, "response.output_item.added", sequence, |out| {
            push_index(out, output_index);
            out.extend_from_slice(b",\"item\":");
            item.push_json(out, "in_progress", false);
        });
        if let Some(part) = names.part {
            event(out, "response.content_part.added", sequence, |out| {
                push_place(out, &item.id, output_index, true);
                out.extend_from_slice(b",\"part\":");
                push_part(out, part, b"");
            });
        }
        item
    }

    /// Takes a raw piece and sends it on.
    ///
    /// hot: per token
    pub fn delta(&mut self, raw: &[u8], sequence: &mut u64, out: &mut Outgoing) {
        let start = self.text.len();
        match &mut self.kind {
            ItemKind::Custom { unwrapping, .. } => {
                unwrapping.push(std::str::from_utf8(raw).unwrap_or_default(), &mut self.text);
            }
            ItemKind::Message
            | ItemKind::Result { .. }
            | ItemKind::Refusal
            | ItemKind::Reasoning { .. }
            | ItemKind::Function { .. } => {
                self.text.extend_from_slice(raw);
            }
        }
        self.send_from(start, sequence, out);
    }

    /// What it has so far, raw.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// It has this text by now, which begins with what it had; read as this other kind did, where that is given.
    pub fn go_on(&mut self, kind: Option<ItemKind>, text: Vec<u8>, sequence: &mut u64, out: &mut Outgoing) {
        let start = self.text.len();
        if let (ItemKind::Custom { unwrapping, .. }, Some(ItemKind::Custom { unwrapping: further, .. })) =
            (&mut self.kind, kind)
        {
            *unwrapping = further;
        }
        self.text = text;
        self.send_rest(start, sequence, out);
    }

    /// As [`Self::send_from`], apart from the tokens' way.
    #[cold]
    fn send_rest(&self, start: usize, sequence: &mut u64, out: &mut Outgoing) {
        self.send_from(start, sequence, out);
    }

    /// hot: per token
    #[inline]
    fn send_from(&self, start: usize, sequence: &mut u64, out: &mut Outgoing) {
        let delta = self.text.get(start..).unwrap_or_default();
        if delta.is_empty() {
            return;
        }
        out.event(self.kind.delta_name(), |out| {
            out.extend_from_slice(&self.delta_before);
            out.extend_from_slice(delta);
            out.extend_from_slice(self.delta_after);
            json::push_u64(out, *sequence);
            out.push(b'}');
        });
        *sequence += 1;
    }

    /// A reasoning that is to be closed has its text sealed as well; one that is too large has not.
    pub fn seal(&mut self, sealer: &mut Sealer) {
        if let ItemKind::Reasoning { sealed } = &mut self.kind {
            let text = std::str::from_utf8(&self.text).ok().and_then(json::unescape);
            *sealed = text.and_then(|text| sealer.seal(Purpose::Reasoning, &text).ok());
        }
    }

    /// Closes the item: the done events of its text, part and item. `status` is `completed` or `incomplete`.
    pub fn close(mut self, status: &str, sequence: &mut u64, out: &mut Outgoing) -> (Self, ClosedItem) {
        let start = self.text.len();
        if let ItemKind::Custom { unwrapping, .. } = &mut self.kind {
            unwrapping.finish(&mut self.text);
            self.send_rest(start, sequence, out);
        }
        let names = self.kind.names();
        event(out, names.done, sequence, |out| {
            push_place(out, &self.id, self.output_index, names.part.is_some());
            push_quoted(out, names.whole, &self.text);
            match &self.kind {
                ItemKind::Message | ItemKind::Result { .. } => out.extend_from_slice(b",\"logprobs\":[]"),
                ItemKind::Function { tool, .. } => {
                    out.extend_from_slice(b",\"name\":");
                    json::push_string(out, &tool.name);
                }
                ItemKind::Refusal | ItemKind::Reasoning { .. } | ItemKind::Custom { .. } => {}
            }
        });
        if let Some(part) = names.part {
            event(out, "response.content_part.done", sequence, |out| {
                push_place(out, &self.id, self.output_index, true);
                out.extend_from_slice(b",\"part\":");
                push_part(out, part, &self.text);
            });
        }
        let mut json = Vec::with_capacity(self.text.len() + 256);
        self.push_json(&mut json, status, true);
        let json = Bytes::from(json);
        event(out, "response.output_item.done", sequence, |out| {
            push_index(out, self.output_index);
            out.extend_from_slice(b",\"item\":");
            out.extend_from_slice(&json);
        });
        (self, ClosedItem { json })
    }

    /// Tells that the item was dropped where it stood.
    pub fn interrupt(self, response_id: &str, sequence: &mut u64, out: &mut Outgoing) {
        event(out, "response.output_item.interrupted", sequence, |out| {
            out.extend_from_slice(b",\"response_id\":");
            json::push_string(out, response_id);
            push_place(out, &self.id, self.output_index, false);
        });
    }

    /// Renders the closed item for the next turn's upstream.
    pub fn render(&self, renderer: &mut Renderer<'_>) {
        let text = std::str::from_utf8(&self.text).unwrap_or_default();
        let item = match &self.kind {
            ItemKind::Message | ItemKind::Refusal => {
                Item::Message { role: Role::Assistant, content: Content::Text(text) }
            }
            ItemKind::Result { name, .. } => {
                Item::Result { name: Cow::Borrowed(&**name), content: Content::Text(text) }
            }
            ItemKind::Reasoning { .. } => Item::NotForwarded,
            ItemKind::Function { tool, call_id } => call(tool, call_id, Payload::Arguments(text)),
            ItemKind::Custom { tool, call_id, .. } => call(tool, call_id, Payload::Input(text)),
        };
        renderer.push(&item);
    }

    /// The id of a tool's call, raw; none of another item.
    #[must_use]
    pub fn call_id(&self) -> Option<&str> {
        self.kind.call_id()
    }

    #[must_use]
    pub fn kind(&self) -> &ItemKind {
        &self.kind
    }

    /// Whether no more can come for it: the arguments of a call are one JSON text.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match &self.kind {
            ItemKind::Function { .. } => {
                let text = std::str::from_utf8(&self.text).ok().and_then(json::unescape);
                text.is_some_and(|text| serde_json::from_str::<IgnoredAny>(&text).is_ok())
            }
            ItemKind::Custom { unwrapping, .. } => unwrapping.is_whole(),
            ItemKind::Message | ItemKind::Result { .. } | ItemKind::Refusal | ItemKind::Reasoning { .. } => false,
        }
    }

    /// The item's own JSON; without its content while it is only announced.
    fn push_json(&self, out: &mut Vec<u8>, status: &str, whole: bool) {
        let names = self.kind.names();
        out.extend_from_slice(b"{\"id\":");
        json::push_string(out, &self.id);
        let kind = match &self.kind {
            ItemKind::Message | ItemKind::Result { .. } | ItemKind::Refusal => "message",
            ItemKind::Reasoning { .. } => "reasoning",
            ItemKind::Function { .. } => "function_call",
            ItemKind::Custom { .. } => "custom_tool_call",
        };
        out.extend_from_slice(b",\"type\":");
        json::push_string(out, kind);
        out.extend_from_slice(b",\"status\":");
        json::push_string(out, status);
        match &self.kind {
            ItemKind::Message | ItemKind::Refusal => out.extend_from_slice(b",\"role\":\"assistant\""),
            ItemKind::Result { child, .. } => {
                out.extend_from_slice(b",\"role\":\"assistant\",\"flashlane\":{\"child\":");
                out.extend_from_slice(child);
                out.push(b'}');
            }
            ItemKind::Reasoning { sealed } => {
                out.extend_from_slice(b",\"summary\":[]");
                if let Some(sealed) = sealed {
                    out.extend_from_slice(b",\"encrypted_content\":");
                    json::push_string(out, sealed);
                }
            }
            ItemKind::Function { tool, call_id } | ItemKind::Custom { tool, call_id, .. } => {
                out.extend_from_slice(b",\"call_id\":\"");
                out.extend_from_slice(call_id.as_bytes());
                out.extend_from_slice(b"\",\"name\":");
                json::push_string(out, &tool.name);
                if let Some(namespace) = &tool.namespace {
                    out.extend_from_slice(b",\"namespace\":");
                    json::push_string(out, namespace);
                }
            }
        }
        match names.part {
            Some(part) => {
                out.extend_from_slice(b",\"content\":[");
                if whole {
                    push_part(out, part, &self.text);
                }
                out.push(b']');
            }
            None => push_quoted(out, names.whole, if whole { &self.text } else { b"" }),
        }
        out.push(b'}');
    }
}

impl ItemKind {
    fn call_id(&self) -> Option<&str> {
        match self {
            Self::Function { call_id, .. } | Self::Custom { call_id, .. } => Some(call_id),
            Self::Message | Self::Result { .. } | Self::Refusal | Self::Reasoning { .. } => None,
        }
    }

    /// Adds a raw piece to what the item has.
    pub fn take(&mut self, raw: &[u8], text: &mut Vec<u8>) {
        if let Self::Custom { unwrapping, .. } = self {
            unwrapping.push(std::str::from_utf8(raw).unwrap_or_default(), text);
        } else {
            text.extend_from_slice(raw);
        }
    }

    /// Whether both call the same tool.
    #[must_use]
    pub fn is_same_tool(&self, other: &Self) -> bool {
        if let (Self::Function { tool, .. }, Self::Function { tool: other, .. })
        | (Self::Custom { tool, .. }, Self::Custom { tool: other, .. }) = (self, other)
        {
            return tool == other;
        }
        false
    }

    /// Whether it is a call of another id.
    #[must_use]
    pub fn is_other_call(&self, id: &str) -> bool {
        self.call_id().is_some_and(|own| {
            let mut raw = Vec::with_capacity(id.len());
            json::push_escaped(&mut raw, id);
            raw != own.as_bytes()
        })
    }

    /// hot: per token
    fn delta_name(&self) -> &'static str {
        match self {
            Self::Message | Self::Result { .. } => "response.output_text.delta",
            Self::Refusal => "response.refusal.delta",
            Self::Reasoning { .. } => "response.reasoning_text.delta",
            Self::Function { .. } => "response.function_call_arguments.delta",
            Self::Custom { .. } => "response.custom_tool_call_input.delta",
        }
    }
}

fn call<'a>(tool: &'a ToolName, call_id: &'a str, payload: Payload<'a>) -> Item<'a> {
    Item::Call { call_id, name: (&*tool.name).into(), namespace: tool.namespace.as_deref().map(Into::into), payload }
}

/// Sends an event that is not a delta: `write` appends the fields between `type` and `sequence_number`.
pub fn event(out: &mut Outgoing, name: &str, sequence: &mut u64, write: impl FnOnce(&mut Vec<u8>)) {
    out.event(name, |out| {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
        write(out);
        out.extend_from_slice(b",\"sequence_number\":");
        json::push_u64(out, *sequence);
        out.push(b'}');
    });
    *sequence += 1;
}

fn event_head(name: &str) -> Vec<u8> {
    let mut out = b"{\"type\":\"".to_vec();
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
    out
}

pub fn push_index(out: &mut Vec<u8>, output_index: u32) {
    out.extend_from_slice(b",\"output_index\":");
    json::push_u64(out, u64::from(output_index));
}

pub fn push_place(out: &mut Vec<u8>, id: &str, output_index: u32, content: bool) {
    out.extend_from_slice(b",\"item_id\":");
    json::push_string(out, id);
    push_index(out, output_index);
    if content {
        out.extend_from_slice(b",\"content_index\":0");
    }
}

fn push_quoted(out: &mut Vec<u8>, name: &str, raw: &[u8]) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    out.extend_from_slice(raw);
    out.push(b'"');
}

fn push_part(out: &mut Vec<u8>, part: &str, raw: &[u8]) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(part.as_bytes());
    out.push(b'"');
    match part {
        "output_text" => {
            out.extend_from_slice(b",\"annotations\":[],\"logprobs\":[]");
            push_quoted(out, "text", raw);
        }
        "refusal" => push_quoted(out, "refusal", raw),
        _ => push_quoted(out, "text", raw),
    }
    out.push(b'}');
}
