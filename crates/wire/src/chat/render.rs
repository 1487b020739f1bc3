//! Items become chat messages, in one canonical form: the same items give the same bytes, so that an engine's prefix cache
//! serves them again.
//!
//! And in an order that every engine takes: the outputs of calls stand right behind the message that calls, whatever stood between; what
//! nobody answered is answered by [`UNANSWERED`](super::UNANSWERED); what comes too late, or twice, is the user's word; and no two calls
//! have one id.

use super::ends::{Ends, OpenCall, push_answer_head, push_unanswered};
use crate::json;
use crate::responses::{Content, Item, Part, Payload, Role};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// Renders items into messages that lie comma by comma: the inside of a `messages` array.
///
/// What one turn of a model gave (a text, calls) becomes one assistant message, as the model's template expects it.
#[derive(Debug, Default)]
pub struct Renderer<'a> {
    /// The outputs at the front, whose calls came earlier. The next one belongs at its end.
    front: Vec<u8>,
    /// Up to the last message that calls, and its outputs. The next of these belongs at its end.
    answered: Vec<u8>,
    /// What follows, and is written to.
    out: Vec<u8>,
    open: Open,
    before: Before<'a>,
    called: BTreeSet<Box<str>>,
    /// Of each id that was called more than once, the next number that may be free.
    numbers: BTreeMap<Box<str>, usize>,
    waiting: Waiting,
    ends: Ends,
}

/// What was called before these items: `None` where that is not known, and may be anything.
#[derive(Default)]
struct Before<'a>(Option<&'a (dyn Fn(&str) -> bool + Sync)>);

impl fmt::Debug for Before<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Before").field(&self.0.is_some()).finish()
    }
}

/// The calls that wait for their outputs, in their order.
#[derive(Debug, Default)]
struct Waiting {
    calls: BTreeMap<usize, OpenCall>,
    /// The places of those that share an id.
    places: BTreeMap<Box<str>, VecDeque<usize>>,
    place_next: usize,
}

impl Waiting {
    fn push(&mut self, call: OpenCall) {
        self.places.entry(call.id.clone()).or_default().push_back(self.place_next);
        self.calls.insert(self.place_next, call);
        self.place_next += 1;
    }

    /// The first that waits under this id.
    fn take(&mut self, id: &str) -> Option<OpenCall> {
        self.calls.remove(&self.places.get_mut(id)?.pop_front()?)
    }

    fn into_calls(self) -> impl Iterator<Item = OpenCall> {
        self.calls.into_values()
    }
}

/// The assistant message that may still grow.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Open {
    #[default]
    Nothing,
    /// Its text is written.
    Text,
    /// The same, of children of a response: another's result goes on in it.
    Results,
    /// Its array of calls is open.
    Calls,
}

impl<'a> Renderer<'a> {
    /// Goes on where `open` is not answered, behind messages of which `called` knows each call's id, as written.
    #[must_use]
    pub fn after(open: Vec<OpenCall>, called: &'a (dyn Fn(&str) -> bool + Sync)) -> Self {
        let mut waiting = Waiting::default();
        open.into_iter().for_each(|call| waiting.push(call));
        Self { before: Before(Some(called)), waiting, ..Self::default() }
    }

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
            Item::Result { name, content } => self.result(name, content),
            Item::Call { call_id, name, namespace, payload } => {
                if self.open != Open::Calls {
                    self.settle();
                }
                self.begin_call();
                let written = self.unused(call_id);
                self.call(&written, &chat_name(namespace.as_deref(), name), *payload);
                self.ends.called.push(written.clone());
                self.waiting.push(OpenCall { id: Box::from(*call_id), written });
            }
            Item::CallOutput { call_id, output } => {
                self.close();
                self.output(call_id, output);
            }
            // What is sealed, its maker renders.
            Item::AdditionalTools { .. }
            | Item::Reference { .. }
            | Item::Reasoning { .. }
            | Item::Compaction { .. }
            | Item::CompactionTrigger
            | Item::NotForwarded => {}
        }
    }

    /// Whether the last message may still grow, or one before it be answered: what follows would not begin a message of its own.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open != Open::Nothing || self.is_overtaken()
    }

    /// The rendered messages.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.finish_with_ends().0
    }

    /// The rendered messages, and what they have to do with those before and after them.
    #[must_use]
    pub fn finish_with_ends(mut self) -> (Vec<u8>, Ends) {
        self.close();
        if self.is_overtaken() {
            self.settle();
        }
        self.ends.open = std::mem::take(&mut self.waiting).into_calls().collect();
        append(&mut self.answered, &mut self.out);
        self.ends.has_more = !self.answered.is_empty();
        append(&mut self.front, &mut self.answered);
        (self.front, self.ends)
    }

    /// Something stands behind calls that are not answered.
    fn is_overtaken(&self) -> bool {
        self.open != Open::Calls && !self.waiting.calls.is_empty() && !self.out.is_empty()
    }

    /// Answers what nobody answered.
    fn settle(&mut self) {
        for call in std::mem::take(&mut self.waiting).into_calls() {
            self.answer(call, |this, id| push_unanswered(&mut this.out, id));
        }
    }

    /// The id that a call has in its message: its own, unless another call had it.
    fn unused(&mut self, call_id: &str) -> Box<str> {
        let mut written: Box<str> = Box::from(call_id);
        if self.was_called(call_id) {
            let mut number = self.numbers.get(call_id).copied().unwrap_or(2);
            written = loop {
                let name = format!("{call_id}_{number}");
                number += 1;
                if !self.was_called(&name) {
                    break name.into();
                }
            };
            self.numbers.insert(call_id.into(), number);
        }
        self.called.insert(written.clone());
        written
    }

    fn was_called(&self, id: &str) -> bool {
        self.called.contains(id) || self.before.0.is_some_and(|called| called(id))
    }

    fn output(&mut self, call_id: &str, output: &Content<'_>) {
        let write = |this: &mut Self, id: &str| {
            push_answer_head(&mut this.out, id);
            this.content(output, "\\n");
            this.out.push(b'}');
        };
        if let Some(call) = self.waiting.take(call_id) {
            self.answer(call, write);
        } else if self.before.0.is_some() || self.called.contains(call_id) {
            // Late, or a second one.
            self.begin(Role::User);
            self.content(output, "\\n");
            self.out.push(b'}');
        } else {
            self.write_behind(|this| &mut this.front, |this| write(this, call_id));
            self.ends.answers.push(OpenCall { id: call_id.into(), written: call_id.into() });
        }
    }

    /// Answers an open call, behind the other answers.
    fn answer(&mut self, call: OpenCall, write: impl FnOnce(&mut Self, &str)) {
        if self.called.contains(&call.written) {
            self.write_behind(|this| &mut this.answered, |this| write(this, &call.written));
        } else {
            self.write_behind(|this| &mut this.front, |this| write(this, &call.written));
            self.ends.answers.push(call);
        }
    }

    /// Has a message written at the end of `part`, before all that lies behind it.
    fn write_behind(&mut self, part: fn(&mut Self) -> &mut Vec<u8>, write: impl FnOnce(&mut Self)) {
        let behind = std::mem::take(&mut self.out);
        self.out = std::mem::take(part(self));
        self.comma();
        write(self);
        *part(self) = std::mem::replace(&mut self.out, behind);
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
            Open::Text | Open::Results => self.out.push(b'}'),
            Open::Calls => {
                self.out.extend_from_slice(b"]}");
                append(&mut self.answered, &mut self.out);
            }
        }
        self.open = Open::Nothing;
    }

    /// The results of children are one message, each under its name: not every model's template takes two messages of the assistant in a row.
    fn result(&mut self, name: &str, content: &Content<'_>) {
        if self.open == Open::Results {
            self.out.pop();
            self.out.extend_from_slice(b"\\n\\n");
        } else {
            self.close();
            self.begin(Role::Assistant);
            self.out.push(b'"');
        }
        self.out.push(b'[');
        json::push_escaped(&mut self.out, name);
        self.out.extend_from_slice(b"]\\n");
        let parts = match content {
            Content::Text(raw) => &[Part::Text(raw)][..],
            Content::Parts(parts) => parts,
        };
        for part in parts {
            if let Part::Text(raw) = part {
                json::push_raw_text(&mut self.out, raw);
            }
        }
        self.out.push(b'"');
        self.open = Open::Results;
    }

    fn begin_call(&mut self) {
        match self.open {
            Open::Calls => self.out.push(b','),
            Open::Text | Open::Results => self.out.extend_from_slice(b",\"tool_calls\":["),
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
                self.out.extend_from_slice(b"{\"type\":\"image_url\",\"image_url\":{\"url\":");
                self.quoted(url);
                if let Some(detail) = detail {
                    self.out.extend_from_slice(b",\"detail\":");
                    self.quoted(detail);
                }
                self.out.push(b'}');
            }
            Part::File { raw } => {
                self.out.extend_from_slice(b"{\"type\":\"file\",\"file\":");
                self.out.extend_from_slice(raw.get().as_bytes());
            }
        }
        self.out.push(b'}');
    }

    fn quoted(&mut self, raw: &str) {
        // A long text is moved once, not again for what stands behind it.
        self.out.reserve(raw.len() + 3);
        self.out.push(b'"');
        json::push_raw_text(&mut self.out, raw);
        self.out.push(b'"');
    }
}

/// Moves messages behind others.
fn append(to: &mut Vec<u8>, messages: &mut Vec<u8>) {
    if to.is_empty() {
        std::mem::swap(to, messages);
    } else if !messages.is_empty() {
        to.push(b',');
        to.append(messages);
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
