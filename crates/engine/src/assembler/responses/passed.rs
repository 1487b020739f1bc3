//! A response whose upstream speaks the Responses API itself: its events pass, under our ids, numbers and places. Items that
//! only such an upstream can make (of hosted tools, say) pass with the others.

use super::{ResponsesAssembler, index_of};
use crate::assembler::item::event;
use crate::chain::id_of;
use crate::error::{ErrorKind, Refusal};
use crate::ids::TurnHex;
use crate::outgoing::Outgoing;
use bytes::Bytes;
use flashlane_wire::chat::{FinishReason, StreamError};
use flashlane_wire::json;
use flashlane_wire::responses::{Ending, Fields, Item, Place, Said, ServerEvent, Streamed, push_item};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The items of the upstream's that the response does not have yet, in their order: those that are not done, and what is behind them.
#[derive(Debug, Default)]
pub struct Passing {
    items: Vec<PassingItem>,
}

#[derive(Debug)]
struct PassingItem {
    /// The upstream's own.
    their_index: Option<u64>,
    their_id: Option<Box<str>>,
    id: String,
    output_index: u32,
    /// As it was announced, which is all of it where nothing came.
    announced: Box<RawValue>,
    /// What came of it since.
    streamed: Streamed,
    /// Its JSON, once it is done.
    done: Option<Bytes>,
}

/// What an event that passed brought.
#[derive(Debug)]
pub enum Passed {
    /// Something that the model made.
    Delta,
    Other,
    /// The upstream's response has ended well, or was cut by its limits.
    Whole,
    Failed(StreamError),
}

impl Passing {
    /// `response.output_item.interrupted`, of each item that is open; those that are done stay: PROTOCOL clause 3.6.
    fn interrupt(&mut self, response_id: &str, sequence: &mut u64, out: &mut Outgoing) {
        for item in self.items.extract_if(.., |item| item.done.is_none()) {
            event(out, "response.output_item.interrupted", sequence, |out| {
                out.extend_from_slice(b",\"response_id\":");
                json::push_string(out, response_id);
                out.extend_from_slice(b",\"item_id\":");
                json::push_string(out, &item.id);
                out.extend_from_slice(b",\"output_index\":");
                json::push_u64(out, u64::from(item.output_index));
            });
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.items.is_empty()
    }

    /// Closes what is open as far as it came.
    fn cut(&mut self, sequence: &mut u64, out: &mut Outgoing) {
        for item in self.items.iter_mut().filter(|item| item.done.is_none()) {
            let mut json = Vec::with_capacity(256);
            std::mem::take(&mut item.streamed).push_cut(&mut json, &item.announced, &item.id);
            event(out, "response.output_item.done", sequence, |out| {
                out.extend_from_slice(b",\"output_index\":");
                json::push_u64(out, u64::from(item.output_index));
                out.extend_from_slice(b",\"item\":");
                out.extend_from_slice(&json);
            });
            item.done = Some(Bytes::from(json));
        }
    }

    /// The item that an event is about, by whatever it says of it; one that is announced is the last.
    fn find(&mut self, event: &ServerEvent<'_>) -> Option<&mut PassingItem> {
        if matches!(event.said, Said::ItemAdded(_)) {
            return self.items.last_mut();
        }
        let (index, id) = (event.output_index(), event.item_id());
        let mut items = self.items.iter_mut();
        match index {
            Some(_) => items.find(|item| item.their_index == index),
            None => items.find(|item| id.is_some() && item.their_id.as_deref() == id.as_deref()),
        }
    }
}

impl ResponsesAssembler {
    /// Takes one event of the upstream's.
    ///
    /// hot: per token
    ///
    /// # Errors
    /// It belongs to an item that is not open, or ends a response whose items are.
    pub fn pass(&mut self, event: &ServerEvent<'_>, out: &mut Outgoing) -> Result<Passed, Refusal> {
        match &event.said {
            Said::Nothing => return Ok(Passed::Other),
            Said::Ended(Ending::Failed(error)) => return Ok(Passed::Failed(error.clone())),
            Said::Ended(Ending::Whole { finish, usage }) => {
                if *finish == FinishReason::Stop && self.passing.as_ref().is_some_and(Passing::is_open) {
                    return Err(senseless("the response is complete and an item of it is not"));
                }
                self.finish = Some(*finish);
                self.usage = usage.or(self.usage);
                return Ok(Passed::Whole);
            }
            Said::ItemAdded(_) | Said::ItemDone(_) | Said::Delta | Said::Other => {}
        }
        if let Some(summary) = &mut self.summary {
            let text = event.text();
            summary.extend_from_slice(text.unwrap_or_default().as_bytes());
            return Ok(if text.is_some() { Passed::Delta } else { Passed::Other });
        }
        let passing = self.passing.get_or_insert_default();
        if let Said::ItemAdded(raw) = &event.said {
            let output_index = index_of(self.output.len() + self.dropped + passing.items.len());
            passing.items.push(PassingItem::of(raw, event, &self.hex, output_index));
        }
        let mut item = passing.find(event);
        let is_of_item = event.output_index().is_some() || event.item_id().is_some();
        if item.is_none() && (is_of_item || matches!(event.said, Said::ItemDone(_))) {
            return Err(senseless("an event belongs to no item"));
        }
        let place = item.as_ref().map(|item| Place { id: &item.id, output_index: item.output_index });
        let (sequence, response_id) = (self.sequence, &self.hex);
        out.event(&event.name, |out| event.push(out, sequence, &response_id.response_id(), place));
        self.sequence += 1;
        if let (Said::Delta, Some(item)) = (&event.said, &mut item) {
            item.streamed.take(event);
        }
        if let (Said::ItemDone(raw), Some(item)) = (&event.said, item) {
            let mut json = Vec::with_capacity(raw.get().len());
            push_item(&mut json, raw, &item.id);
            item.done = Some(Bytes::from(json));
            self.keep_done();
        }
        Ok(match event.said {
            // An engine begins an item with its first token, or thinks behind it in silence.
            Said::Delta | Said::ItemAdded(_) => Passed::Delta,
            Said::Nothing | Said::Ended(_) | Said::ItemDone(_) | Said::Other => Passed::Other,
        })
    }

    /// The response ends where it stands: its open items are cut.
    pub(super) fn close_passing(&mut self, out: &mut Outgoing) {
        if let Some(passing) = &mut self.passing {
            passing.cut(&mut self.sequence, out);
            self.keep_done();
        }
    }

    /// The response ends where it stands, and its open items are dropped.
    pub(super) fn interrupt_passing(&mut self, out: &mut Outgoing) {
        if let Some(passing) = &mut self.passing {
            passing.interrupt(&self.hex.response_id(), &mut self.sequence, out);
            self.keep_done();
        }
    }

    /// Items that are whole, and behind no other, are the response's, and the chain's.
    fn keep_done(&mut self) {
        let Some(passing) = &mut self.passing else { return };
        let done = passing.items.iter().take_while(|item| item.done.is_some()).count();
        for json in passing.items.drain(..done).filter_map(|item| item.done) {
            // An item of a kind that is not known here is told to no chat engine.
            if let Ok(raw) = serde_json::from_slice::<&RawValue>(&json)
                && let Ok(item) = Item::parse("item", raw)
            {
                if let Item::Call { call_id, .. } = &item {
                    self.calls.push(id_of(call_id));
                }
                self.renderer.push(&item);
            }
            self.output.push(json);
        }
    }
}

impl PassingItem {
    fn of(raw: &RawValue, event: &ServerEvent<'_>, hex: &TurnHex, output_index: u32) -> Self {
        let fields = Fields::nested("item", raw).ok();
        let text = |name: &str| fields.as_ref()?.string(name).ok().flatten();
        let (kind, their_id) = (text("type"), text("id"));
        let id = match &their_id {
            // What is sealed of it is bound to its id.
            Some(id) if kind.as_deref() == Some("reasoning") => id.clone().into_owned(),
            id => hex.item_id(prefix(id.as_deref()), output_index),
        };
        let their_id = their_id.map(|id: Cow<'_, str>| id.into());
        let (announced, streamed) = (raw.to_owned(), Streamed::default());
        Self { their_index: event.output_index(), their_id, id, output_index, announced, streamed, done: None }
    }
}

/// What an id begins with says of what it is, and clients look at it.
fn prefix(id: Option<&str>) -> &str {
    let is_prefix = |prefix: &&str| (1..=8).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_lowercase());
    id.and_then(|id| id.split_once('_')).map(|(prefix, _)| prefix).filter(is_prefix).unwrap_or("item")
}

fn senseless(reason: &str) -> Refusal {
    Refusal::new(ErrorKind::UpstreamFailed, format!("The upstream's events make no sense: {reason}."))
}
