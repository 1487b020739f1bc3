//! A response that another engine goes on with: what stands of it, and a call that was cut and is made anew. What comes of that is compared with
//! what its client has of it: as long as it repeats that, nothing is sent; where it goes beyond, the item goes on; where it differs, the item is
//! dropped (`response.output_item.interrupted`), and the call is an item of its own. PROTOCOL clause 3.6.

use super::{Open, ResponsesAssembler, Source, Waiting, index_of};
use crate::assembler::item::{ItemKind, OpenItem};
use crate::migration::{Frozen, Part};
use crate::outgoing::Outgoing;
use flashlane_wire::chat::{FinishReason, Usage};
use flashlane_wire::json;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A call that was cut, as its client has it.
#[derive(Debug)]
pub(super) struct Again {
    half: OpenItem,
    /// The same call, made anew. None: it has not begun.
    anew: Option<Anew>,
}

/// A call of which nothing is sent yet.
#[derive(Debug)]
struct Anew {
    index: u32,
    /// Its id, as the engine that makes it has it.
    id: Option<Box<str>>,
    kind: ItemKind,
    /// What the item would have of it.
    text: Vec<u8>,
}

/// An item of the output, as far as it is of interest here.
#[derive(Deserialize)]
struct Closed<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow, default)]
    content: Vec<ClosedPart<'a>>,
}

#[derive(Deserialize)]
struct ClosedPart<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

impl ResponsesAssembler {
    /// The place of the open item, or of the next one.
    pub(super) fn next_index(&self) -> u32 {
        index_of(self.output.len() + self.dropped)
    }

    /// What stands, where another engine can go on from it. None: nothing can be made of it.
    #[must_use]
    pub fn frozen(&self) -> Option<Frozen> {
        // Whole calls, and the rest behind them, make no message that an engine goes on with; hosted items make none at all.
        let is_beyond = self.passing.is_some() || self.summary.is_some() || self.has_finished() || self.steered;
        if is_beyond || !self.calls.is_empty() {
            return None;
        }
        let (mut text, mut has_thoughts) = (Vec::new(), false);
        for item in &self.output {
            let Ok(item) = serde_json::from_slice::<Closed<'_>>(item) else { return None };
            has_thoughts |= item.kind == "reasoning";
            let parts = item.content.iter().filter(|_| item.kind == "message").map(|part| part.text);
            for part in parts {
                // A refusal has no text.
                text.extend_from_slice(part?.get().strip_prefix('"')?.strip_suffix('"')?.as_bytes());
            }
        }
        let half = self.again.as_ref().map(|again| &again.half);
        let open = half.or(self.open.as_ref().map(|open| &open.item));
        let part = match open.map(OpenItem::kind) {
            Some(ItemKind::Refusal | ItemKind::Result { .. }) => return None,
            Some(ItemKind::Function { .. } | ItemKind::Custom { .. }) => Part::Call,
            Some(ItemKind::Reasoning { .. }) => Part::Thought,
            Some(ItemKind::Message) | None if has_thoughts => Part::Thought,
            Some(ItemKind::Message) | None => Part::Text,
        };
        let given = open.map_or(&[][..], OpenItem::text);
        if matches!(open.map(OpenItem::kind), Some(ItemKind::Message)) {
            text.extend_from_slice(given);
        }
        let bytes = std::str::from_utf8(given).ok().and_then(json::unescape).map_or(0, |text| text.len() as u64);
        Some(Frozen { text, output_index: self.next_index(), bytes, part })
    }

    /// Another engine goes on from here: `spent` is what this one cost, where it told nothing. Thoughts that were cut end here.
    pub fn freeze(&mut self, spent: Usage, out: &mut Outgoing) {
        self.spent = self.spent.and(self.usage.take().unwrap_or(spent));
        self.restore();
        self.waiting.clear();
        match self.open.as_ref().map(|open| open.item.kind()) {
            Some(ItemKind::Reasoning { .. }) => self.close_open("incomplete", out),
            Some(ItemKind::Function { .. } | ItemKind::Custom { .. }) => {
                self.again = self.open.take().map(|open| Box::new(Again { half: open.item, anew: None }));
            }
            Some(ItemKind::Message | ItemKind::Refusal | ItemKind::Result { .. }) | None => {}
        }
    }

    /// As much was made as the request allows: there is nothing to go on with.
    pub fn end_by_length(&mut self) {
        self.restore();
        (self.finish, self.usage) = (Some(FinishReason::Length), Some(Usage::default()));
    }

    /// Nobody made the call anew: it stands as it was cut.
    pub(super) fn restore(&mut self) {
        if let Some(again) = self.again.take() {
            self.open = Some(Open { item: again.half, source: Source::Call(u32::MAX) });
        }
    }

    /// Whether it is the call that is made anew.
    pub(super) fn is_anew(&self, index: u32, id: Option<&str>) -> bool {
        let anew = self.again.as_ref().and_then(|again| again.anew.as_ref());
        let is_same = |known: &Option<Box<str>>| id.is_none() || known.as_deref() == id;
        anew.is_some_and(|anew| anew.index == index && is_same(&anew.id))
    }

    /// A call begins while one is to be made anew. Given back: it is another.
    pub(super) fn begin_anew(&mut self, id: Option<&str>, call: Waiting, out: &mut Outgoing) -> Option<Waiting> {
        let Some(again) = &mut self.again else { return Some(call) };
        if again.anew.is_none() && again.half.kind().is_same_tool(&call.kind) {
            self.alias = id.map(Box::from);
            again.anew = Some(Anew { index: call.index, id: self.alias.clone(), kind: call.kind, text: Vec::new() });
            return None;
        }
        self.settle_anew(out);
        Some(call)
    }

    /// Arguments of a call that is made anew. False: they are another's.
    pub(super) fn compare(&mut self, index: u32, raw: &[u8], out: &mut Outgoing) -> bool {
        let Some(again) = &mut self.again else { return false };
        let Some(anew) = again.anew.as_mut().filter(|anew| anew.index == index) else { return false };
        let start = anew.text.len();
        anew.kind.take(raw, &mut anew.text);
        let known = again.half.text().get(start..).unwrap_or_default();
        let new = anew.text.get(start..).unwrap_or_default();
        if known.starts_with(new) {
            return true;
        }
        match new.starts_with(known) {
            true => self.go_on_anew(out),
            false => self.replace_half(out),
        }
        true
    }

    /// What comes is no more of a call that is made anew: it is whole, or it never came.
    pub(super) fn settle_anew(&mut self, out: &mut Outgoing) {
        let Some(again) = &self.again else { return };
        match &again.anew {
            Some(anew) if anew.text == again.half.text() => self.go_on_anew(out),
            Some(_) => self.replace_half(out),
            None => self.drop_half(out),
        }
    }

    /// It has come as far as its client is.
    fn go_on_anew(&mut self, out: &mut Outgoing) {
        let Some(again) = self.again.take() else { return };
        let Again { mut half, anew } = *again;
        let Some(Anew { index, kind, text, .. }) = anew else { return };
        half.go_on(Some(kind), text, &mut self.sequence, out);
        self.open = Some(Open { item: half, source: Source::Call(index) });
    }

    /// It is not what its client has.
    fn replace_half(&mut self, out: &mut Outgoing) {
        let anew = self.again.as_mut().and_then(|again| again.anew.take());
        self.drop_half(out);
        let Some(Anew { index, kind, text, .. }) = anew else { return };
        self.open(kind, Source::Call(index), out);
        if let Some(open) = &mut self.open {
            open.item.go_on(None, text, &mut self.sequence, out);
        }
    }

    /// Its client is told to forget it. Its place stays its own: clients count by it.
    fn drop_half(&mut self, out: &mut Outgoing) {
        let Some(again) = self.again.take() else { return };
        again.half.interrupt(&self.response_id(), &mut self.sequence, out);
        self.dropped += 1;
    }
}
