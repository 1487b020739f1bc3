//! A warm-up whose prompt the engine reads before its turn comes: one request of one token beside the turns, in the warm-up's name.
//!
//! ```text
//!             Prepared              [DONE], its end
//! warm-up ------------> reading --------------------> Prefilled: Completed or Failed
//!    |                     |  its time is up; displaced; the client leaves
//!    v                     +-------------------------> Prefilled: Cancelled
//! answered at once
//! ```
//! A turn of the same model that comes meanwhile waits: the engine has to read what they share in any case, and what it has read of it only
//! the one that it reads for.

use super::request::asked;
use super::{Effect, Session, TurnId};
use crate::admission::Prefill;
use crate::error::Refusal;
use crate::fleet::Model;
use crate::router::Urgency;
use crate::stages::Stage;
use crate::time::Now;
use crate::turn::{Turn, TurnState};
use crate::upstream::{Ended, UpstreamRequest};
use flashlane_wire::chat::{ChunkReader, Field, Read, Usage};
use flashlane_wire::sse;
use std::sync::Arc;

/// The one that runs.
#[derive(Debug)]
pub(super) struct Prefilling {
    /// Its stream's.
    id: TurnId,
    warm_up: TurnId,
    leave: Prefill,
    response_id: String,
    model: Arc<str>,
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
    /// The warm-up's.
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
    /// Its time was up, a turn needed its room, or the client left.
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
    /// Admission's answer to a warm-up: with the leave, its prompt is read. The warm-up is answered in any case.
    pub fn handle_prepared(&mut self, id: TurnId, leave: Option<Prefill>, now: Now) {
        if let Some(leave) = leave {
            self.begin_prefill(id, leave);
        }
        if self.lanes.turn(id).is_some_and(|turn| matches!(turn.state, TurnState::Waiting)) {
            self.answer_warm_up(id, now);
        }
        self.advance(now);
    }

    fn begin_prefill(&mut self, id: TurnId, leave: Prefill) {
        let turn = self.lanes.turn(id);
        let (response_id, model) =
            turn.as_ref().map_or_else(Default::default, |turn| (turn.response_id(), Arc::clone(&turn.draft.model)));
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
        let (warm_up, id) = (id, TurnId { number: self.turns_begun, lane: id.lane });
        self.turns_begun = self.turns_begun.wrapping_add(1);
        let events = sse::Decoder::new(self.shared.settings.event_bytes_max);
        let (chunks, usage, waiting) = (ChunkReader::default(), None, Vec::new());
        let prefill = Prefilling { id, warm_up, leave, response_id, model, events, chunks, usage, waiting };
        self.prefill = Some(Box::new(prefill));
        self.effects.push_back(Effect::Open(id, Box::new(request)));
    }

    /// Whether a turn has to wait for the engine to have read its prefix.
    ///
    /// One that another endpoint has failed goes on at once: what is read is not read where it goes.
    pub(super) fn waits_for_prefill(&mut self, id: TurnId, now: Now) -> bool {
        let Some(turn) = self.lanes.turn(id).filter(|turn| turn.tried.is_empty()) else { return false };
        let Some(prefill) = self.prefill.as_mut().filter(|prefill| prefill.model == turn.draft.model) else {
            return false;
        };
        prefill.waiting.push(id);
        turn.times.stages.enter(Stage::Queue, now.mono_ns);
        true
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
    pub(super) fn displace_prefill(&mut self, warm_up: TurnId, now: Now) {
        if self.prefill.as_ref().is_some_and(|prefill| prefill.warm_up == warm_up) {
            self.stop_prefill(now);
        }
    }

    /// It is left before its end.
    pub(super) fn stop_prefill(&mut self, now: Now) {
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
        let Prefilling { leave, response_id, model, usage, waiting, .. } = *prefill;
        self.effects.push_back(match end {
            PrefillEnd::Completed => Effect::Park(id),
            PrefillEnd::Failed | PrefillEnd::Cancelled => Effect::Abort(id),
        });
        let prefilled = Prefilled { leave, response_id, model, end, usage: usage.unwrap_or_default() };
        self.effects.push_back(Effect::Prefilled(Box::new(prefilled)));
        for turn in waiting {
            self.ask(turn, now);
        }
    }
}

/// What the turn after the warm-up will send, as far as it is known, for an answer of one token. None: nothing is.
fn request(turn: &mut Turn, leave: Prefill, model: &Model) -> Result<Option<UpstreamRequest>, Refusal> {
    let (mut fields, messages) = asked(turn, model.profiles.at(leave.tier))?;
    if messages.is_empty() {
        return Ok(None);
    }
    fields.retain(|field| field.name != "max_completion_tokens");
    fields.push(Field::new("max_completion_tokens", "1"));
    let cache_key = turn.draft.cache_key.clone();
    let (endpoint, urgency) = (leave.endpoint, Urgency::Patient);
    let model = Arc::clone(model.upstream(leave.tier));
    let (continues, trace) = (false, None);
    Ok(Some(UpstreamRequest { endpoint, model, fields, messages, continues, cache_key, urgency, trace }))
}
