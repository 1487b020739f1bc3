//! Chunks become the events of one response, in the order that PROTOCOL clause 2 gives.
//!
//! ```text
//! New --enlist--> created, queued --announce--> in_progress --chunks--> ... (in the background)
//! New --announce--> created, in_progress --chunks--> items --conclude--> (commit) --terminal--> completed | incomplete
//!                                             \--fail--> failed      \--interrupt--> interrupted, incomplete
//! ```

mod again;
mod compact;
mod passed;
mod result;

use super::frame::{Frame, ResponseStatus, Variable};
use super::item::{ItemKind, OpenItem, event};
use crate::chain::{Piece, id_of};
use crate::error::{ErrorKind, Refusal};
use crate::ids::TurnHex;
use crate::outgoing::Outgoing;
use crate::seal::Sealer;
use crate::time::Now;
use crate::tools::{Choice as ToolChoice, Tools};
use bytes::Bytes;
use flashlane_wire::chat::{Choice, Chunk, CustomInput, DeltaKind, FinishReason, Renderer, ToolCallDelta, Usage};
use flashlane_wire::json;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use again::Again;
pub use passed::Passed;
use passed::Passing;
pub use result::ChildResult;

/// One response in the making.
#[derive(Debug)]
pub struct ResponsesAssembler {
    hex: TurnHex,
    frame: Frame,
    tools: Arc<Tools>,
    /// The only tools that may be called, by the backend's names; None: any.
    callable: Option<BTreeSet<String>>,
    created_at: u64,
    sequence: u64,
    service_tier: &'static str,
    open: Option<Open>,
    /// Calls that began before the open one was whole, in the order in which they follow it.
    waiting: VecDeque<Waiting>,
    /// A call that was cut, and that another engine makes anew.
    again: Option<Box<Again>>,
    /// What the engine calls the open call, where its client has another id of it.
    alias: Option<Box<str>>,
    /// Items that were dropped where they stood: their places are nobody else's.
    dropped: usize,
    /// The open items of an upstream whose events pass, from its first event on.
    passing: Option<Passing>,
    /// Finished items' JSON.
    output: Vec<Bytes>,
    /// Ids of the calls among them.
    calls: Vec<Arc<str>>,
    renderer: Renderer<'static>,
    usage: Option<Usage>,
    finish: Option<FinishReason>,
    /// Its client has redirected the model: PROTOCOL clause 3.8.
    steered: bool,
    /// Seals its reasoning, where the client asked for that.
    sealer: Option<Box<Sealer>>,
    /// A summary of the context, while that is made in the place of an answer: raw. Its client sees it when it is whole, and sealed.
    summary: Option<Vec<u8>>,
    /// What a summary has cost, before the answer.
    spent: Usage,
    stage: Stage,
}

/// What its client was told so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// That it waits, in the background.
    Queued,
    Begun,
}

#[derive(Debug)]
struct Open {
    item: OpenItem,
    source: Source,
}

/// Which part of the upstream's answer feeds the open item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Content,
    Reasoning,
    Refusal,
    Call(u32),
    /// A call that others wait for. Apart from [`Source::Call`], so that a token need not ask whether any do.
    Ahead(u32),
}

impl Source {
    fn call(self) -> Option<u32> {
        match self {
            Self::Call(index) | Self::Ahead(index) => Some(index),
            Self::Content | Self::Reasoning | Self::Refusal => None,
        }
    }
}

/// A call that nobody was told of yet: items come one after the other, and an engine may send two calls at once.
#[derive(Debug)]
struct Waiting {
    index: u32,
    kind: ItemKind,
    /// Its arguments so far.
    raw: Vec<u8>,
}

/// How a response ended that was not cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    Completed,
    Incomplete(&'static str),
}

impl Conclusion {
    fn status(self) -> ResponseStatus<'static> {
        match self {
            Self::Completed => ResponseStatus::Completed,
            Self::Incomplete(reason) => ResponseStatus::Incomplete(reason),
        }
    }
}

impl ResponsesAssembler {
    #[must_use]
    pub fn new(hex: TurnHex, frame: Frame, tools: Arc<Tools>, now: Now) -> Self {
        Self {
            hex,
            frame,
            tools,
            callable: None,
            created_at: now.unix_s(),
            sequence: 0,
            // What serves it is not known yet.
            service_tier: "auto",
            open: None,
            waiting: VecDeque::new(),
            again: None,
            alias: None,
            dropped: 0,
            passing: None,
            output: Vec::new(),
            calls: Vec::new(),
            renderer: Renderer::default(),
            usage: None,
            finish: None,
            steered: false,
            sealer: None,
            summary: None,
            spent: Usage::default(),
            stage: Stage::New,
        }
    }

    #[must_use]
    pub fn response_id(&self) -> String {
        self.hex.response_id()
    }

    /// Its reasoning is to be sealed for its client.
    pub fn seal_with(&mut self, sealer: Sealer) {
        self.sealer = Some(Box::new(sealer));
    }

    pub fn serve_from(&mut self, service_tier: &'static str) {
        self.service_tier = service_tier;
    }

    /// The items that it has so far, each its JSON.
    #[must_use]
    pub fn output(&self) -> &[Bytes] {
        &self.output
    }

    /// It will not be stored: what it goes on from was not to be.
    pub fn forget(&mut self) {
        self.frame.forget();
    }

    /// The tools that the upstream's names are to be found in: the request's, and those of the chain. Engines do not always
    /// keep to the choice.
    pub fn resolve_with(&mut self, tools: &Arc<Tools>, choice: &ToolChoice) {
        self.tools = Arc::clone(tools);
        self.callable = choice.callable();
    }

    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.stage != Stage::New
    }

    /// Whether its client knows that it is being made.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.stage == Stage::Begun
    }

    /// Whether nothing of an answer has come yet: another upstream may still give it.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        let is_begun = self.open.is_some() || self.passing.is_some() || self.again.is_some() || self.dropped > 0;
        !is_begun && self.output.is_empty() && self.finish.is_none()
    }

    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// What all of it cost, so far as that is known: a summary also where the answer behind it failed.
    #[must_use]
    pub fn usage_of_all(&self) -> Option<Usage> {
        let spent = (self.spent != Usage::default()).then_some(self.spent);
        self.usage.map(|usage| usage.and(self.spent)).or(spent)
    }

    /// What the engine told of the request that went out last: a summary's, or the answer's.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// `response.created` and `response.in_progress`; the latter not for a warm-up, which has no progress.
    pub fn announce(&mut self, warm_up: bool, out: &mut Outgoing) {
        let before = std::mem::replace(&mut self.stage, Stage::Begun);
        if before == Stage::New {
            self.lifecycle("response.created", ResponseStatus::InProgress, None, out);
        }
        if before != Stage::Begun && !warm_up {
            self.lifecycle("response.in_progress", ResponseStatus::InProgress, None, out);
        }
    }

    /// `response.created` and `response.queued`.
    pub fn enlist(&mut self, out: &mut Outgoing) {
        self.stage = Stage::Queued;
        self.lifecycle("response.created", ResponseStatus::Queued, None, out);
        self.lifecycle("response.queued", ResponseStatus::Queued, None, out);
    }

    /// Takes plain text of the stream.
    ///
    /// hot: per token
    ///
    /// # Errors
    /// Arguments for a call that is not open.
    pub fn text(&mut self, kind: DeltaKind, raw: &[u8], out: &mut Outgoing) -> Result<(), Refusal> {
        let source = match kind {
            DeltaKind::Content => Source::Content,
            DeltaKind::Reasoning => Source::Reasoning,
            DeltaKind::Arguments(index) => Source::Call(index),
        };
        if let Some(open) = &mut self.open
            && open.source == source
        {
            open.item.delta(raw, &mut self.sequence, out);
            return Ok(());
        }
        self.switch(source, raw, out)
    }

    /// Closes what is open and opens what `raw` belongs to.
    fn switch(&mut self, source: Source, raw: &[u8], out: &mut Outgoing) -> Result<(), Refusal> {
        if let Some(summary) = &mut self.summary {
            match source {
                Source::Content => summary.extend_from_slice(raw),
                Source::Reasoning | Source::Refusal | Source::Call(_) | Source::Ahead(_) => {}
            }
            return Ok(());
        }
        let kind = match source {
            Source::Content => ItemKind::Message,
            Source::Reasoning => ItemKind::Reasoning { sealed: None },
            Source::Refusal => ItemKind::Refusal,
            Source::Call(index) | Source::Ahead(index) => return self.arguments_apart(index, raw, out),
        };
        self.close("completed", out);
        self.open(kind, source, out);
        if let Some(open) = &mut self.open {
            open.item.delta(raw, &mut self.sequence, out);
        }
        Ok(())
    }

    /// Takes a chunk that is more than plain text.
    ///
    /// # Errors
    /// An error inside the stream, or calls that cannot be put in order.
    pub fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut Outgoing) -> Result<(), Refusal> {
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage);
        }
        for choice in chunk.choices.iter().filter(|choice| choice.index == 0) {
            self.choice(choice, out)?;
        }
        Ok(())
    }

    fn choice(&mut self, choice: &Choice<'_>, out: &mut Outgoing) -> Result<(), Refusal> {
        let texts = [
            (Source::Reasoning, choice.reasoning),
            (Source::Content, choice.content),
            (Source::Refusal, choice.refusal),
        ];
        for (source, raw) in texts {
            if raw.is_empty() {
                continue;
            }
            let mut mended = Vec::with_capacity(raw.len());
            json::push_raw_mended(&mut mended, raw);
            let raw = mended.as_slice();
            match &mut self.open {
                Some(open) if open.source == source => open.item.delta(raw, &mut self.sequence, out),
                _ => self.switch(source, raw, out)?,
            }
        }
        for call in &choice.tool_calls {
            self.call(call, out)?;
        }
        if let Some(reason) = choice.finish_reason {
            self.finish = Some(reason);
        }
        Ok(())
    }

    fn call(&mut self, call: &ToolCallDelta<'_>, out: &mut Outgoing) -> Result<(), Refusal> {
        if self.summary.is_some() {
            return Ok(());
        }
        if let (Some(name), false) = (&call.name, self.knows(call)) {
            self.begin_call(call, name, out)?;
        }
        if call.arguments.is_empty() {
            return Ok(());
        }
        let mut mended = Vec::with_capacity(call.arguments.len());
        json::push_raw_mended(&mut mended, call.arguments);
        self.text(DeltaKind::Arguments(call.index), &mended, out)
    }

    /// Whether the call has begun. Some engines give every call the same index: a new id is a new call.
    fn knows(&self, call: &ToolCallDelta<'_>) -> bool {
        let is_alias = |id: &str| self.alias.as_deref() == Some(id);
        let is_same = |kind: &ItemKind| !call.id.as_deref().is_some_and(|id| kind.is_other_call(id) && !is_alias(id));
        let is_open = |open: &Open| open.source.call() == Some(call.index) && is_same(open.item.kind());
        self.is_anew(call.index, call.id.as_deref())
            || self.open.as_ref().is_some_and(is_open)
            || self.waiting.iter().any(|waiting| waiting.index == call.index && is_same(&waiting.kind))
    }

    /// Opens the call, unless the one before it is not whole: then it waits.
    fn begin_call(&mut self, call: &ToolCallDelta<'_>, name: &str, out: &mut Outgoing) -> Result<(), Refusal> {
        if self.callable.as_ref().is_some_and(|callable| !callable.contains(name)) {
            let name = &self.tools.set.resolve(name).name;
            let message = format!("The model called the tool '{name}', which 'tool_choice' does not allow.");
            return Err(Refusal::new(ErrorKind::UpstreamFailed, message));
        }
        let tool = self.tools.set.resolve(name);
        let before = self.output.len() + self.dropped + usize::from(self.open.is_some()) + self.waiting.len();
        let mut call_id = Vec::new();
        match &call.id {
            Some(id) => json::push_escaped(&mut call_id, id),
            None => json::push_escaped(&mut call_id, &self.hex.item_id("call", index_of(before))),
        }
        let call_id = String::from_utf8(call_id).unwrap_or_default();
        let kind = match tool.custom {
            true => ItemKind::Custom { tool, call_id, unwrapping: CustomInput::default() },
            false => ItemKind::Function { tool, call_id },
        };
        let waiting = Waiting { index: call.index, kind, raw: Vec::new() };
        let Some(waiting) = self.begin_anew(call.id.as_deref(), waiting, out) else { return Ok(()) };
        self.waiting.push_back(waiting);
        // Of two calls of one index, only the later gets more.
        let ahead = self.open.as_ref().and_then(|open| open.source.call()).filter(|index| *index != call.index);
        match (&mut self.open, ahead) {
            (Some(open), Some(index)) if !open.item.is_whole() => open.source = Source::Ahead(index),
            (Some(_) | None, _) => self.follow_on(out),
        }
        Ok(())
    }

    /// Arguments of a call that others wait for, or that waits itself.
    fn arguments_apart(&mut self, index: u32, raw: &[u8], out: &mut Outgoing) -> Result<(), Refusal> {
        if self.compare(index, raw, out) {
            return Ok(());
        }
        if let Some(waiting) = self.waiting.iter_mut().rfind(|waiting| waiting.index == index) {
            waiting.raw.extend_from_slice(raw);
            return Ok(());
        }
        match &mut self.open {
            Some(open) if open.source == Source::Ahead(index) => {
                open.item.delta(raw, &mut self.sequence, out);
                if raw.ends_with(b"}") && open.item.is_whole() {
                    self.follow_on(out);
                }
                Ok(())
            }
            Some(_) | None => {
                let message = format!("the upstream sent arguments for tool call {index}, which is not open");
                Err(Refusal::new(ErrorKind::UpstreamFailed, message))
            }
        }
    }

    /// What is open has ended: the calls that waited follow, up to one that is not whole, or the last.
    fn follow_on(&mut self, out: &mut Outgoing) {
        self.close_open("completed", out);
        while let Some(next) = self.waiting.pop_front() {
            let is_last = self.waiting.is_empty();
            self.open_waiting(next, out);
            if is_last || self.open.as_ref().is_some_and(|open| !open.item.is_whole()) {
                return;
            }
            self.close_open("completed", out);
        }
    }

    fn open_waiting(&mut self, next: Waiting, out: &mut Outgoing) {
        let is_last = self.waiting.is_empty();
        let source = if is_last { Source::Call(next.index) } else { Source::Ahead(next.index) };
        self.open(next.kind, source, out);
        if let Some(open) = &mut self.open {
            open.item.delta(&next.raw, &mut self.sequence, out);
        }
    }

    fn open(&mut self, kind: ItemKind, source: Source, out: &mut Outgoing) {
        let index = self.next_index();
        self.open = Some(Open { item: OpenItem::open(kind, &self.hex, index, &mut self.sequence, out), source });
    }

    /// Closes what is open, and after it the calls that wait. Of a response that was cut, nobody hears of those.
    fn close(&mut self, status: &str, out: &mut Outgoing) {
        self.close_passing(out);
        match status {
            "completed" => self.settle_anew(out),
            _ => self.restore(),
        }
        self.close_open(status, out);
        for next in std::mem::take(&mut self.waiting).into_iter().filter(|_| status == "completed") {
            self.open_waiting(next, out);
            self.close_open(status, out);
        }
    }

    fn close_open(&mut self, status: &str, out: &mut Outgoing) {
        let Some(mut open) = self.open.take() else { return };
        if let Some(sealer) = &mut self.sealer {
            open.item.seal(sealer);
        }
        let (item, closed) = open.item.close(status, &mut self.sequence, out);
        // Arguments that were cut are no JSON: the next turn's upstream must not see them.
        if status == "completed" || item.call_id().is_none() {
            item.render(&mut self.renderer);
            self.calls.extend(item.call_id().map(id_of));
        }
        self.output.push(closed.json);
    }

    /// The upstream has said all: closes the last item and says how the response ended.
    pub fn conclude(&mut self, out: &mut Outgoing) -> Conclusion {
        let conclusion = match self.finish {
            None if self.steered => Conclusion::Incomplete("steered"),
            Some(FinishReason::Length) => Conclusion::Incomplete("max_output_tokens"),
            Some(FinishReason::ContentFilter) => Conclusion::Incomplete("content_filter"),
            Some(FinishReason::Stop | FinishReason::ToolCalls) | None => Conclusion::Completed,
        };
        let status = if conclusion == Conclusion::Completed { "completed" } else { "incomplete" };
        self.close(status, out);
        conclusion
    }

    /// The response object as it stands at its end.
    #[must_use]
    pub fn object(&self, conclusion: Conclusion, now: Now) -> Vec<u8> {
        let done = (conclusion == Conclusion::Completed).then(|| now.unix_s());
        self.object_as(conclusion.status(), done)
    }

    /// The response object while it waits.
    #[must_use]
    pub fn object_queued(&self) -> Vec<u8> {
        self.object_as(ResponseStatus::Queued, None)
    }

    /// The response object of [`Self::fail`].
    #[must_use]
    pub fn object_failed(&self, refusal: &Refusal, request_id: Option<&str>) -> Vec<u8> {
        self.object_as(ResponseStatus::Failed { refusal, request_id }, None)
    }

    /// The response object of one that nobody wants any more, with the items that were finished.
    #[must_use]
    pub fn object_cancelled(&self) -> Vec<u8> {
        self.object_as(ResponseStatus::Cancelled, None)
    }

    fn object_as(&self, status: ResponseStatus<'_>, completed_at: Option<u64>) -> Vec<u8> {
        let mut out = Vec::with_capacity(2048);
        self.frame.push(&mut out, &self.variable(status, completed_at));
        out
    }

    /// `response.completed` or `response.incomplete`, around the object.
    pub fn terminal(&mut self, conclusion: Conclusion, object: &[u8], out: &mut Outgoing) {
        let name = match conclusion {
            Conclusion::Completed => "response.completed",
            Conclusion::Incomplete(_) => "response.incomplete",
        };
        event(out, name, &mut self.sequence, |out| {
            out.extend_from_slice(b",\"response\":");
            out.extend_from_slice(object);
        });
        out.end();
    }

    /// Ends an announced response by `response.failed`, which names the request.
    pub fn fail(&mut self, refusal: &Refusal, request_id: Option<&str>, out: &mut Outgoing) {
        self.close("incomplete", out);
        self.lifecycle("response.failed", ResponseStatus::Failed { refusal, request_id }, None, out);
        out.end();
    }

    /// Whether it may end here for a steer: a call is never cut, and one that was made waits for its output.
    #[must_use]
    pub fn may_be_steered(&self) -> bool {
        self.finish.is_none()
            && !self.passing.as_ref().is_some_and(Passing::is_open)
            && self.calls.is_empty()
            && self.again.is_none()
            && self.open.as_ref().is_none_or(|open| open.item.call_id().is_none())
    }

    /// [`Self::conclude`] will end it where it stands.
    pub fn steer(&mut self) {
        self.steered = true;
    }

    /// The number of its next event.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// One more event of this response's numbering, around the fields that `write` appends, each after a comma.
    pub fn aside(&mut self, name: &str, out: &mut Outgoing, write: impl FnOnce(&mut Vec<u8>)) {
        event(out, name, &mut self.sequence, write);
    }

    /// Ends the response where it stands, and keeps nothing of what was open: PROTOCOL clause 3.6.
    pub fn cancel(&mut self, out: &mut Outgoing) {
        let id = self.response_id();
        self.restore();
        self.waiting.clear();
        if let Some(open) = self.open.take() {
            open.item.interrupt(&id, &mut self.sequence, out);
        }
        self.interrupt_passing(out);
        self.lifecycle("response.incomplete", ResponseStatus::Incomplete("cancelled"), None, out);
        out.end();
    }

    /// Ends the response where it stands: PROTOCOL clause 3.6.
    pub fn interrupt(&mut self, out: &mut Outgoing) {
        let id = self.response_id();
        event(out, "response.interrupt.accepted", &mut self.sequence, |out| {
            out.extend_from_slice(b",\"response_id\":");
            json::push_string(out, &id);
        });
        self.restore();
        self.waiting.clear();
        if let Some(open) = self.open.take() {
            open.item.interrupt(&id, &mut self.sequence, out);
        }
        self.interrupt_passing(out);
        self.lifecycle("response.incomplete", ResponseStatus::Incomplete("interrupted"), None, out);
        out.end();
    }

    /// Answers a warm-up: the tokens that its input comes to, and no output.
    pub fn set_usage(&mut self, usage: Usage) {
        self.usage = Some(usage);
    }

    /// The output as a piece of the chain.
    #[must_use]
    pub fn take_piece(&mut self) -> Piece {
        let (messages, ends) = std::mem::take(&mut self.renderer).finish_with_ends();
        let (items, calls) = (Arc::new(std::mem::take(&mut self.output)), std::mem::take(&mut self.calls));
        Piece { messages: Bytes::from(messages), items, calls, ends, ..Piece::default() }
    }

    fn variable<'a>(&'a self, status: ResponseStatus<'a>, completed_at: Option<u64>) -> Variable<'a> {
        Variable {
            hex: &self.hex,
            created_at: self.created_at,
            completed_at,
            status,
            output: &self.output,
            usage: self.usage_of_all(),
            service_tier: self.service_tier,
        }
    }

    fn lifecycle(&mut self, name: &str, status: ResponseStatus<'_>, completed_at: Option<u64>, out: &mut Outgoing) {
        let mut sequence = self.sequence;
        let variable = self.variable(status, completed_at);
        event(out, name, &mut sequence, |out| {
            out.extend_from_slice(b",\"response\":");
            self.frame.push(out, &variable);
        });
        self.sequence = sequence;
    }
}

fn index_of(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}
