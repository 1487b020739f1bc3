//! Items become chat messages, in one canonical form: the same items give the same bytes, so that an engine's prefix cache
//! serves them again.

use crate::json;
use crate::responses::{Content, Item, Part, Payload, Role};

/// Renders items into messages that lie comma by comma: the inside of a `messages` array.
///
/// What one turn of a model gave (a text, calls) becomes one assistant message, as the model's template expects it.
#[derive(Debug, Default)]
pub struct Renderer {
    out: Vec<u8>,
    open: Open,
    /// Content that not every model takes.
    pub images: bool,
    pub files: bool,
}

/// The assistant message that may still grow.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Open {
    #[default]
    Nothing,
    /// Its text is written.
    Text,
    /// Its array of calls is open.
    Calls,
}

impl Renderer {
    pub fn push(&mut self, item: &Item<'_>) {
        match item {
            Item::Message { role, content } => {
                self.close();
                self.begin(*role);
                self.content(content, if *role == Role::Assistant { "" } else { "\\n\\n" });
                if *role == Role::Assistant {
                    self.open = Open::Text;
                } else {
                    self.out.push(b'}');
                }
            }
            Item::Call { call_id, name, namespace, payload } => {
                self.begin_call();
                self.call(call_id, &chat_name(namespace.as_deref(), name), *payload);
            }
            Item::CallOutput { call_id, output } => {
                self.close();
                self.comma();
                self.out.extend_from_slice(b"{\"role\":\"tool\",\"tool_call_id\":\"");
                self.out.extend_from_slice(call_id.as_bytes());
                self.out.extend_from_slice(b"\",\"content\":");
                self.content(output, "\\n");
                self.out.push(b'}');
            }
            Item::AdditionalTools { .. } | Item::Reference { .. } | Item::NotForwarded => {}
        }
    }

    /// Whether the last message may still grow: what follows would not begin a message of its own.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open != Open::Nothing
    }

    /// The rendered messages.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.close();
        self.out
    }

    fn comma(&mut self) {
        if !self.out.is_empty() {
            self.out.push(b',');
        }
    }

    fn begin(&mut self, role: Role) {
        self.comma();
        self.out.extend_from_slice(b"{\"role\":\"");
        self.out.extend_from_slice(role.name().as_bytes());
        self.out.extend_from_slice(b"\",\"content\":");
    }

    fn close(&mut self) {
        match self.open {
            Open::Nothing => {}
            Open::Text => self.out.push(b'}'),
            Open::Calls => self.out.extend_from_slice(b"]}"),
        }
        self.open = Open::Nothing;
    }

    fn begin_call(&mut self) {
        match self.open {
            Open::Calls => self.out.push(b','),
            Open::Text => self.out.extend_from_slice(b",\"tool_calls\":["),
            Open::Nothing => {
                self.begin(Role::Assistant);
                self.out.extend_from_slice(b"null,\"tool_calls\":[");
            }
        }
        self.open = Open::Calls;
    }

    fn call(&mut self, call_id: &str, name: &str, payload: Payload<'_>) {
        let out = &mut self.out;
        out.extend_from_slice(b"{\"id\":\"");
        out.extend_from_slice(call_id.as_bytes());
        out.extend_from_slice(b"\",\"type\":\"function\",\"function\":{\"name\":");
        json::push_string(out, name);
        out.extend_from_slice(b",\"arguments\":\"");
        match payload {
            Payload::Arguments(raw) => json::push_raw_text(out, raw),
            // The free text is the one field of a JSON text that itself stands in a string: escaped once more.
            Payload::Input(raw) => {
                out.extend_from_slice(b"{\\\"input\\\":\\\"");
                json::push_escaped(out, raw);
                out.extend_from_slice(b"\\\"}");
            }
        }
        out.extend_from_slice(b"\"}}");
    }

    /// A string where there is nothing but text, an array of parts otherwise. `joint` is raw.
    fn content(&mut self, content: &Content<'_>, joint: &str) {
        let parts = match content {
            Content::Text(raw) => {
                self.quoted(raw);
                return;
            }
            Content::Parts(parts) => parts,
        };
        if parts.iter().all(|part| matches!(part, Part::Text(_))) {
            self.out.push(b'"');
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    self.out.extend_from_slice(joint.as_bytes());
                }
                if let Part::Text(raw) = part {
                    json::push_raw_text(&mut self.out, raw);
                }
            }
            self.out.push(b'"');
            return;
        }
        self.out.push(b'[');
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.part(part);
        }
        self.out.push(b']');
    }

    fn part(&mut self, part: &Part<'_>) {
        match part {
            Part::Text(raw) => {
                self.out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
                self.quoted(raw);
            }
            Part::Image { url, detail } => {
                self.images = true;
                self.out.extend_from_slice(b"{\"type\":\"image_url\",\"image_url\":{\"url\":");
                self.quoted(url);
                if let Some(detail) = detail {
                    self.out.extend_from_slice(b",\"detail\":");
                    self.quoted(detail);
                }
                self.out.push(b'}');
            }
            Part::File { raw } => {
                self.files = true;
                self.out.extend_from_slice(b"{\"type\":\"file\",\"file\":");
                self.out.extend_from_slice(raw.get().as_bytes());
            }
        }
        self.out.push(b'}');
    }

    fn quoted(&mut self, raw: &str) {
        self.out.push(b'"');
        json::push_raw_text(&mut self.out, raw);
        self.out.push(b'"');
    }
}

/// The name that a tool has at the backend: chat backends know no namespaces.
#[must_use]
pub fn chat_name(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}__{name}"),
        None => name.to_owned(),
    }
}

/// `instructions` as the leading system message.
#[must_use]
pub fn instructions(raw: &str) -> Vec<u8> {
    let mut renderer = Renderer::default();
    renderer.push(&Item::Message { role: Role::System, content: Content::Text(raw) });
    renderer.finish()
}
