//! A prompt that an engine reads before its turn comes: one request of one token beside the turns, of a warm-up, of a conversation that goes
//! over to another endpoint, or of a turn that waits (`handover.rs`).
//!
//! ```text
//!             Prepared              [DONE], its end
//! errand  ------------> reading --------------------> Prefilled: Completed or Failed
//!                          |  its time is up; displaced; the client leaves; its turn goes elsewhere, or goes out
//!                          +-------------------------> Prefilled: Cancelled
//! ```
//! A turn that comes meanwhile and goes there waits: the engine has to read what they share in any case, and what it has read of it only the
//! one that it reads for. After a warm-up that is any of its model; after a handover the one that goes on from it, if its plan leads
//! there: any other has it stopped in that lane, and passes it by in others.

use super::handover::Errand;
use super::request::asked;
use super::{Effect, Life, Session, TurnId};
use crate::admission::{Cause, Prefill};
use crate::error::Refusal;
use crate::fleet::Model;
use crate::router::{Traits, Urgency, route};
use crate::stages::Stage;
use crate::time::Now;
use crate::turn::{Turn, TurnState};
use crate::upstream::{Ended, UpstreamRequest};
use bytes::Bytes;
use flashlane_wire::chat::{ChunkReader, Field, Read, Usage};
use flashlane_wire::sse;
use std::sync::Arc;

/// Stands where the user's next words will be: some engines would go on with a last message of the model's own.
const NEXT_WORDS: &[u8] = br#"{"role":"user","content":"Go on."}"#;

/// The one that runs.
#[derive(Debug)]
pub(super) struct Prefilling {
    /// Its stream's.
    id: TurnId,
    /// The name by which admission knows it.
    asked: TurnId,
    /// The turn that it is read for: a warm-up, the one before, or the one that waits.
    pub(super) of: TurnId,
    pub(super) leave: Prefill,
    pub(super) response_id: String,
    model: Arc<str>,
    /// Of all that is read.
    pub(super) bytes: usize,
    events: sse::Decoder,
    chunks: ChunkReader,
    usage: Option<Usage>,
    waiting: Vec<TurnId>,
}

/// How a prefill went: a count, and a row of the ledger. No text is in it.
#[derive(Debug, Clone)]
pub struct Prefilled {
    /// Handed back by it.
    pub leave: Prefill,
    /// Of the warm-up, the turn before, or the one that waits.
    pub response_id: String,
    pub model: Arc<str>,
    pub end: PrefillEnd,
    /// Nothing, where the engine told none.
    pub usage: Usage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrefillEnd {
    Completed,
    Failed,
    /// Its time was up, a turn needed its room, its own turn went elsewhere or could wait no longer, or the client left.
    Cancelled,
}

impl PrefillEnd {
    pub const ALL: [Self; 3] = [Self::Completed, Self::Failed, Self::Cancelled];

    /// The label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Session {
    /// Admission's answer: with the leave, the prompt is read. A warm-up is answered in any case.
    pub fn handle_prepared(&mut self, id: TurnId, leave: Option<Prefill>, now: Now) {
        let errand = self.errand.take_if(|(asked, _)| *asked == id).map_or(Errand::WarmUp, |(_, errand)| errand);
        let is_warm_up = matches!(errand, Errand::WarmUp);
        if let Some(leave) = leave {
            self.begin_prefill(id, errand, leave);
        }
        if is_warm_up && self.lanes.turn(id).is_some_and(|turn| matches!(turn.state, TurnState::Waiting)) {
            self.answer_warm_up(id, now);
        }
        self.advance(now);
    }

    fn begin_prefill(&mut self, asked: TurnId, mut errand: Errand, leave: Prefill) {
        let of = if let Errand::Queue(of) = errand { of } else { asked };
        let turn = match &mut errand {
            Errand::Handover(turn) => Some(&mut **turn),
            Errand::WarmUp | Errand::Queue(_) => self.lanes.turn(of),
        };
        let (response_id, model, bytes) = turn
            .as_ref()
            .map_or_else(Default::default, |turn| (turn.response_id(), Arc::clone(&turn.draft.model), turn.bytes()));
        let begun = turn.and_then(|turn| {
            let model = self.shared.fleet.model(&model)?;
            request(turn, leave, model).ok().flatten()
        });
        let Some(request) = begun.filter(|_| self.prefill.is_none()) else {
            let prefilled =
                Prefilled { leave, response_id, model, end: PrefillEnd::Cancelled, usage: Usage::default() };
            self.effects.push_back(Effect::Prefilled(Box::new(prefilled)));
            return;
        };
        let id = self.next_id(of.lane);
        let events = sse::Decoder::new(self.shared.settings.event_bytes_max);
        let (chunks, usage, waiting) = (ChunkReader::default(), None, Vec::new());
        let prefill = Prefilling { id, asked, of, leave, response_id, model, bytes, events, chunks, usage, waiting };
        self.prefill = Some(Box::new(prefill));
        self.effects.push_back(Effect::Open(id, Box::new(request)));
    }

    /// Whether a turn has to wait for the engine to have read its prefix.
    ///
    /// One that another endpoint has failed goes on at once: what is read is not read where it goes.
    pub(super) fn waits_for_prefill(&mut self, id: TurnId, traits: &Traits, now: Now) -> bool {
        let Some(prefill) = self.prefill.as_mut() else { return false };
        let Some(turn) = self.lanes.turn(id).filter(|turn| turn.tried.is_empty()) else { return false };
        let is_alike = prefill.model == turn.draft.model;
        let waits = match prefill.leave.cause {
            Cause::WarmUp => is_alike,
            Cause::Handover if prefill.of.lane == id.lane => {
                let fleet = &self.shared.fleet;
                let plan = fleet.model(&prefill.model).and_then(|model| route(fleet, model, traits).ok());
                let goes_there = plan.is_some_and(|plan| plan.tiers().first() == Some(&prefill.leave.tier));
                let waits = is_alike && goes_there && turn.previous() == Some(&prefill.response_id);
                if !waits {
                    self.stop_prefill(now);
                    return false;
                }
                waits
            }
            Cause::Handover | Cause::Queue(_) => false,
        };
        if waits {
            prefill.waiting.push(id);
            turn.times.stages.enter(Stage::Queue, now.mono_ns);
        }
        waits
    }

    /// The turn that it is read for waits no longer. Where the engine is at it still, it goes on with the turn where it is.
    pub(super) fn end_reading_for(&mut self, id: TurnId, now: Now) {
        if self
            .prefill
            .as_ref()
            .is_some_and(|prefill| prefill.of == id && matches!(prefill.leave.cause, Cause::Queue(_)))
        {
            self.stop_prefill(now);
        }
    }

    /// What is read for nobody any more is left.
    pub(super) fn leave_prefill(&mut self, now: Now) {
        let Some(prefill) = &self.prefill else { return };
        let is_waiting = |turn: &Turn| turn.id == prefill.of && matches!(turn.state, TurnState::Queued { .. });
        let is_for_somebody = match prefill.leave.cause {
            Cause::WarmUp => true,
            Cause::Handover => self.life == Life::Open,
            Cause::Queue(_) => self.lanes.running().any(is_waiting),
        };
        if !is_for_somebody {
            self.stop_prefill(now);
        }
    }

    /// What its stream brings.
    pub(super) fn read_prefill(&mut self, id: TurnId, bytes: &[u8], now: Now) {
        let Some(prefill) = self.prefill.as_deref_mut().filter(|prefill| prefill.id == id) else { return };
        let Prefilling { events, chunks, usage, .. } = prefill;
        let (mut is_done, mut is_broken) = (false, false);
        let decoded = events.decode(bytes, |event| match chunks.read_typed(event.data) {
            Ok(Read::Chunk(chunk)) => {
                is_broken |= chunk.error.is_some();
                *usage = chunk.usage.or(*usage);
            }
            Ok(Read::Text(..)) => {}
            Ok(Read::Done) => is_done = true,
            Err(_) => is_broken = true,
        });
        if decoded.is_err() || is_broken {
            self.end_prefill(id, PrefillEnd::Failed, now);
        } else if is_done {
            self.end_prefill(id, PrefillEnd::Completed, now);
        }
    }

    /// Its stream is over.
    pub(super) fn handle_prefill_ended(&mut self, id: TurnId, ended: &Ended, now: Now) {
        let end = match ended {
            Ended::Complete => PrefillEnd::Completed,
            Ended::Failed(_) => PrefillEnd::Failed,
        };
        self.end_prefill(id, end, now);
    }

    /// A turn needs its room.
    pub(super) fn displace_prefill(&mut self, asked: TurnId, now: Now) {
        if self.prefill.as_ref().is_some_and(|prefill| prefill.asked == asked) {
            self.stop_prefill(now);
        }
    }

    /// It is left before its end.
    pub(super) fn stop_prefill(&mut self, now: Now) {
        self.errand = None;
        if let Some(id) = self.prefill.as_ref().map(|prefill| prefill.id) {
            self.end_prefill(id, PrefillEnd::Cancelled, now);
        }
    }

    /// When it has taken too long.
    pub(super) fn prefill_due_at(&self) -> Option<u64> {
        self.prefill.as_ref().map(|prefill| prefill.leave.until_ns)
    }

    fn end_prefill(&mut self, id: TurnId, end: PrefillEnd, now: Now) {
        let Some(prefill) = self.prefill.take_if(|prefill| prefill.id == id) else { return };
        let usage = prefill.usage.unwrap_or_default();
        if end == PrefillEnd::Completed {
            self.note_read(&prefill, usage.input.saturating_sub(usage.cached));
        }
        let Prefilling { leave, response_id, model, waiting, .. } = *prefill;
        self.effects.push_back(match end {
            PrefillEnd::Completed => Effect::Park(id),
            PrefillEnd::Failed | PrefillEnd::Cancelled => Effect::Abort(id),
        });
        self.effects.push_back(Effect::Prefilled(Box::new(Prefilled { leave, response_id, model, end, usage })));
        for turn in waiting {
            self.ask(turn, now);
        }
    }
}

/// What the turn to come will send, as far as it is known, for an answer of one token. None: nothing is.
fn request(turn: &mut Turn, leave: Prefill, model: &Model) -> Result<Option<UpstreamRequest>, Refusal> {
    let (mut fields, mut messages) = asked(turn, model.profiles.at(leave.tier))?;
    if messages.is_empty() {
        return Ok(None);
    }
    if leave.cause == Cause::Handover && !turn.chain.has_open_calls() {
        messages.push(Bytes::from_static(NEXT_WORDS));
    }
    fields.retain(|field| field.name != "max_completion_tokens");
    fields.push(Field::new("max_completion_tokens", "1"));
    let cache_key = turn.draft.cache_key.clone();
    let (endpoint, urgency) = (leave.endpoint, Urgency::Patient);
    let model = Arc::clone(model.upstream(leave.tier));
    let (continues, trace) = (false, None);
    Ok(Some(UpstreamRequest { endpoint, model, fields, messages, continues, cache_key, urgency, trace }))
}
