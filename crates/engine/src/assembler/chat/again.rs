//! A completion that another engine goes on with. Its client has one sequence of chunks: the role is not told twice, and a call that was cut is
//! made anew, of which nothing is sent as long as it repeats what the client has. Chunks have no way to drop a call: one that differs is an
//! error.

use super::{Call, ChatAssembler, Choices, push_end};
use crate::error::{ErrorKind, Refusal};
use crate::migration::{Frozen, Part};
use crate::outgoing::Outgoing;
use flashlane_wire::chat::{Choice, Chunk, DeltaKind, FinishReason, ToolCallDelta, Usage};
use flashlane_wire::json;

/// What the engine that goes on is held to.
#[derive(Debug)]
pub(super) struct Again {
    call: CallAgain,
}

/// A call that was cut.
#[derive(Debug)]
enum CallAgain {
    /// None was, or it has been gone on with.
    No,
    /// So much of it has come anew, and is what the client has: `None` where not even its name has.
    Repeats(Call, Option<usize>),
    /// Another was made; this is what the client has.
    Differs(Call),
}

impl ChatAssembler {
    /// What stands, where another engine can go on from it; `is_told` where the client has it already.
    #[must_use]
    pub fn frozen(&self, is_told: bool) -> Option<Frozen> {
        let mut only = Choices::default();
        only.add(0);
        let choice = self.choices.get(&0)?;
        let is_one = self.seen == only && self.finished == Choices::default() && choice.refusal.is_empty();
        // Of what nobody has read, calls can be made anew without a word.
        if !is_one || (choice.calls.len() > 1 && is_told) {
            return None;
        }
        let is_cut = self.again.as_ref().is_some_and(|again| !matches!(again.call, CallAgain::No));
        let part = match (choice.calls.is_empty() && !is_cut, choice.reasoning.is_empty()) {
            (false, _) => Part::Call,
            (true, false) => Part::Thought,
            (true, true) => Part::Text,
        };
        let text = choice.content.clone().unwrap_or_default();
        let bytes = std::str::from_utf8(&text).ok().and_then(json::unescape).map_or(0, |text| text.len() as u64);
        Some(Frozen { text, output_index: 0, bytes, part })
    }

    /// Another engine goes on from here: `spent` is what this one cost, where it told nothing.
    pub fn freeze(&mut self, spent: Usage, out: &Outgoing) {
        self.spent = self.spent.and(self.usage.take().unwrap_or(spent));
        let calls = self.choices.get_mut(&0).map(|choice| std::mem::take(&mut choice.calls)).unwrap_or_default();
        let cut = self.again.take().and_then(|mut again| again.call.take());
        if out.is_collecting() {
            // Nobody has read what was thought in vain.
            self.choices
                .values_mut()
                .filter(|choice| choice.content.is_none())
                .for_each(|choice| choice.reasoning.clear());
        } else {
            let cut = cut.or_else(|| calls.into_values().next());
            let call = cut.map_or(CallAgain::No, |call| CallAgain::Repeats(call, None));
            self.again = Some(Box::new(Again { call }));
        }
    }

    /// As much was made as the request allows: there is nothing to go on with.
    pub fn end_by_length(&mut self, out: &mut Outgoing) {
        self.finished.add(0);
        self.usage = Some(Usage::default());
        if let Some(choice) = self.choices.get_mut(&0) {
            choice.finish = Some(FinishReason::Length);
        }
        if !out.is_collecting() {
            self.send(0, |_| {}, (None, Some(FinishReason::Length)), out);
        }
    }

    /// Whether who goes on has made another call than the one that was cut.
    pub fn has_differed(&self) -> bool {
        self.again.as_ref().is_some_and(|again| matches!(again.call, CallAgain::Differs(_)))
    }

    /// Collects what a streaming client gets. True: it gets nothing of this.
    #[cold]
    pub(super) fn hold_back(&mut self, kind: DeltaKind, raw: &[u8], out: &mut Outgoing) -> bool {
        if out.is_collecting() {
            return false;
        }
        if let (Some(again), DeltaKind::Arguments(index)) = (&mut self.again, kind)
            && let CallAgain::Repeats(..) | CallAgain::Differs(_) = again.call
        {
            let rest = again.call.repeat(raw);
            self.send_rest(index, rest, out);
            return true;
        }
        self.choices.entry(0).or_default().text(kind).extend_from_slice(raw);
        false
    }

    /// A chunk of the engine that goes on, in our own words: the client knows who speaks, and has some of a call.
    pub(super) fn go_on(&mut self, chunk: &Chunk<'_>, out: &mut Outgoing) -> Result<(), Refusal> {
        for choice in chunk.choices.iter().filter(|choice| choice.index == 0) {
            let calls: Vec<_> = choice.tool_calls.iter().filter(|call| !self.repeats(call, out)).collect();
            let again = self.again.as_deref_mut();
            let is_cut = again.is_some_and(|again| match &again.call {
                CallAgain::No => false,
                // Unless it was whole, and has come again.
                CallAgain::Repeats(call, come) => choice.finish_reason.is_some() && *come != Some(call.arguments.len()),
                CallAgain::Differs(_) => true,
            });
            if is_cut {
                self.again.iter_mut().for_each(|again| again.call.differ());
                let message = "The endpoint that went on made another call than the one that was cut.";
                return Err(Refusal::new(ErrorKind::UpstreamFailed, message));
            }
            let collected = self.choices.entry(0).or_default();
            collected.parts(choice);
            calls.iter().for_each(|call| collected.call_delta(call));
            let has_parts = !choice.content.is_empty() || !choice.reasoning.is_empty() || !choice.refusal.is_empty();
            if has_parts || !calls.is_empty() || choice.finish_reason.is_some() {
                let write = |out: &mut Vec<u8>| push_delta(out, choice, &calls);
                self.send(0, write, (choice.logprobs, choice.finish_reason), out);
            }
        }
        Ok(())
    }

    /// Whether it is of the call that was cut; what the client has not of it is sent.
    fn repeats(&mut self, call: &ToolCallDelta<'_>, out: &mut Outgoing) -> bool {
        let Some(again) = self.again.as_deref_mut() else { return false };
        match &mut again.call {
            CallAgain::No => return false,
            CallAgain::Differs(_) => return true,
            CallAgain::Repeats(known, come) => match (&call.name, &come) {
                (Some(name), None) if **name == *known.name => *come = Some(0),
                (None, Some(_)) => {}
                // Another call, before this one was whole.
                (Some(_) | None, _) => again.call.differ(),
            },
        }
        let mut raw = Vec::with_capacity(call.arguments.len());
        json::push_raw_mended(&mut raw, call.arguments);
        let rest = again.call.repeat(&raw);
        self.send_rest(call.index, rest, out);
        true
    }

    /// What goes beyond what the client has of the call that was cut; with it, the call is as any other.
    fn send_rest(&mut self, index: u32, rest: Option<(Call, Vec<u8>)>, out: &mut Outgoing) {
        let Some((mut call, rest)) = rest else { return };
        call.arguments.extend_from_slice(&rest);
        self.choices.entry(0).or_default().calls.insert((index, 0), call);
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
            json::push_u64(out, u64::from(index));
            out.extend_from_slice(b",\"function\":{\"arguments\":\"");
            out.extend_from_slice(&rest);
            out.extend_from_slice(b"\"}}]");
        };
        self.send(0, write, (None, None), out);
    }

    /// One chunk of ours.
    fn send(
        &self,
        index: u32,
        delta: impl FnOnce(&mut Vec<u8>),
        (logprobs, finish): (Option<&str>, Option<FinishReason>),
        out: &mut Outgoing,
    ) {
        out.event("", |out| {
            out.extend_from_slice(&self.chunk_head);
            out.extend_from_slice(b",\"choices\":[{\"index\":");
            json::push_u64(out, u64::from(index));
            out.extend_from_slice(b",\"delta\":{");
            delta(out);
            out.extend_from_slice(b"},\"logprobs\":");
            out.extend_from_slice(logprobs.unwrap_or("null").as_bytes());
            out.extend_from_slice(b",\"finish_reason\":");
            json::push_optional_string(out, finish.map(FinishReason::name));
            out.extend_from_slice(b"}]");
            push_end(out, self.include_usage);
        });
    }
}

impl CallAgain {
    /// Arguments have come. Given back, once they go beyond what the client has: the call, and the rest.
    fn repeat(&mut self, raw: &[u8]) -> Option<(Call, Vec<u8>)> {
        let Self::Repeats(call, Some(come)) = self else {
            self.differ();
            return None;
        };
        let known = call.arguments.get(*come..).unwrap_or_default();
        if known.starts_with(raw) {
            *come += raw.len();
            return None;
        }
        let Some(rest) = raw.strip_prefix(known).map(<[u8]>::to_vec) else {
            self.differ();
            return None;
        };
        self.take().map(|call| (call, rest))
    }

    fn take(&mut self) -> Option<Call> {
        match std::mem::replace(self, Self::No) {
            Self::Repeats(call, _) | Self::Differs(call) => Some(call),
            Self::No => None,
        }
    }

    /// What comes is another call.
    fn differ(&mut self) {
        *self = self.take().map_or(Self::No, Self::Differs);
    }
}

fn push_delta(out: &mut Vec<u8>, choice: &Choice<'_>, calls: &[&ToolCallDelta<'_>]) {
    let mut before = "";
    for (name, raw) in
        [("content", choice.content), ("reasoning_content", choice.reasoning), ("refusal", choice.refusal)]
    {
        if !raw.is_empty() {
            for part in [before, "\"", name, "\":\""] {
                out.extend_from_slice(part.as_bytes());
            }
            json::push_raw_mended(out, raw);
            out.push(b'"');
            before = ",";
        }
    }
    if calls.is_empty() {
        return;
    }
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(b"\"tool_calls\":[");
    for (position, call) in calls.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        push_call(out, call);
    }
    out.push(b']');
}

fn push_call(out: &mut Vec<u8>, call: &ToolCallDelta<'_>) {
    out.extend_from_slice(b"{\"index\":");
    json::push_u64(out, u64::from(call.index));
    // An engine may name it in each piece, and a client adds up what comes.
    if let (Some(id), Some(_)) = (&call.id, &call.name) {
        out.extend_from_slice(b",\"id\":");
        json::push_string(out, id);
        out.extend_from_slice(b",\"type\":\"function\"");
    }
    out.extend_from_slice(b",\"function\":{");
    if let Some(name) = &call.name {
        out.extend_from_slice(b"\"name\":");
        json::push_string(out, name);
        out.push(b',');
    }
    out.extend_from_slice(b"\"arguments\":\"");
    json::push_raw_mended(out, call.arguments);
    out.extend_from_slice(b"\"}}");
}
