//! A second endpoint for a turn whose first token is late. What it sends is held until it has a token: who gives the first one has the turn,
//! and the other is left in the same call. ROUTING, "Hedging".
//!
//! ```text
//!         late       a grant              its first token, or the first endpoint has failed
//! NotYet -----> Asked -----> Running --------------------------------------------------------> Over: its stream is the turn's (Adopt)
//!                 |             |  the first endpoint's first token; its own failure; the turn's end
//!                 +-- none -----+--> Over
//! ```
//! Not for a summary, which nobody waits to read, and not before a guard has spoken, since nothing could be read. Once a turn.

use super::lane::LaneId;
use super::request::asked;
use super::run::{sending, ticket};
use super::stream::reading;
use super::{Effect, Session, Shared, Transport, TurnId};
use crate::admission::{Ending, Grant};
use crate::compaction::Progress;
use crate::error::Refusal;
use crate::failure;
use crate::fleet::Speaks;
use crate::router::Verdict;
use crate::time::Now;
use crate::turn::{Attempted, Turn, TurnState};
use crate::upstream::{Ended, UpstreamEvent, UpstreamFailure, UpstreamRequest};
use flashlane_wire::chat::{ChunkReader, Read};
use flashlane_wire::sse;
use std::collections::VecDeque;

/// How a turn stands with a second endpoint.
#[derive(Debug, Default)]
pub enum Hedged {
    #[default]
    NotYet,
    /// Admission.
    Asked,
    Running(Box<Hedge>),
    Over {
        end: HedgeEnd,
        /// Whose events are the turn's from here on.
        stream: Option<TurnId>,
    },
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HedgeEnd {
    /// Admission had no room for it, or nothing to spend on it.
    Unstarted,
    /// Its token was the first.
    Won,
    /// The first endpoint's was.
    Lost,
    /// The first endpoint failed meanwhile: it is all that the turn has.
    TookOver,
    /// It failed itself.
    Failed,
    /// The turn ended before either had a token.
    Left,
}

impl HedgeEnd {
    pub const ALL: [Self; 6] = [Self::Unstarted, Self::Won, Self::Lost, Self::TookOver, Self::Failed, Self::Left];

    /// The label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unstarted => "unstarted",
            Self::Won => "won",
            Self::Lost => "lost",
            Self::TookOver => "took_over",
            Self::Failed => "failed",
            Self::Left => "left",
        }
    }
}

/// The same with what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HedgeCost {
    pub end: HedgeEnd,
    /// What a second engine was given to read, beside what the turn's usage tells: an estimate where none has counted it.
    pub tokens: u64,
}

/// The one that runs.
#[derive(Debug)]
pub struct Hedge {
    /// Its stream's.
    id: TurnId,
    grant: Grant,
    attempt: Attempted,
    has_opened: bool,
    /// All that has come, and what it is, up to its first token.
    bytes: Vec<u8>,
    events: sse::Decoder,
}

/// What the bytes of a stream come to that is to have a first token.
enum Heard {
    Nothing,
    Token,
    Failure(UpstreamFailure),
}

impl Hedged {
    /// What became of it, where it was thought of at all.
    #[must_use]
    pub fn end(&self) -> Option<HedgeEnd> {
        match self {
            Self::NotYet | Self::Asked | Self::Running(_) => None,
            Self::Over { end, .. } => Some(*end),
        }
    }

    fn is_of(&self, id: TurnId) -> bool {
        match self {
            Self::NotYet | Self::Asked => false,
            Self::Running(hedge) => hedge.id == id,
            Self::Over { stream, .. } => *stream == Some(id),
        }
    }

    fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }
}

/// When something is to be done for a turn without a token: a second endpoint is due, or has had its time.
pub(super) fn due_at(turn: &Turn, grant: &Grant) -> Option<u64> {
    match &turn.hedged {
        Hedged::NotYet => grant.late_ns.filter(|_| may_be_hedged(turn)),
        Hedged::Running(hedge) => hedge.grant.first_token_ns,
        Hedged::Asked | Hedged::Over { .. } => None,
    }
}

fn may_be_hedged(turn: &Turn) -> bool {
    let is_summary = matches!(turn.compaction, Progress::Running { .. });
    !is_summary && !turn.is_going_on() && turn.guarding.held_until().is_none() && turn.has_nothing()
}

/// The first endpoint has answered.
pub(super) fn lose(effects: &mut VecDeque<Effect>, turn: &mut Turn, now: Now) {
    give_up(effects, turn, HedgeEnd::Lost, Some(now));
}

/// The turn is over.
pub(super) fn leave(effects: &mut VecDeque<Effect>, turn: &mut Turn) {
    give_up(effects, turn, HedgeEnd::Left, None);
}

fn give_up(effects: &mut VecDeque<Effect>, turn: &mut Turn, end: HedgeEnd, ended: Option<Now>) {
    if !turn.hedged.is_running() {
        return;
    }
    let over = Hedged::Over { end, stream: None };
    let Hedged::Running(hedge) = std::mem::replace(&mut turn.hedged, over) else { return };
    let ended_ns = ended.map(|now| now.mono_ns);
    turn.attempts.push(Attempted { ended_ns, is_outrun: end == HedgeEnd::Lost, ..hedge.attempt });
    effects.push_back(Effect::Abort(hedge.id));
    effects.push_back(Effect::Release(hedge.grant, Ending::NOTHING));
}

impl Session {
    /// A turn without a token may be late, or its second endpoint.
    pub(super) fn handle_hedge_due(&mut self, id: TurnId, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let Some(grant) = turn.grant().filter(|_| turn.deltas == 0) else { return };
        if due_at(turn, &grant).is_none_or(|at| at > now.mono_ns) {
            return;
        }
        if let Hedged::Running(hedge) = &turn.hedged {
            let waited_ms = now.mono_ns.saturating_sub(hedge.attempt.began_ns) / 1_000_000;
            return self.fail_hedge(id, &UpstreamFailure::Silent { waited_ms }, now);
        }
        turn.hedged = Hedged::Asked;
        let ticket = ticket(turn, &self.shared, self.planned);
        self.effects.push_back(Effect::Hedge(id, grant, ticket));
    }

    /// Admission's answer to a turn whose first token is late.
    pub fn handle_hedged(&mut self, id: TurnId, grant: Option<Grant>, now: Now) {
        let turn = self.lanes.turn(id).filter(|turn| matches!(turn.hedged, Hedged::Asked));
        let may_go = turn.as_ref().is_some_and(|turn| turn.grant().is_some() && turn.has_nothing());
        if let (Some(turn), Some(grant), true) = (turn, grant, may_go) {
            let stream = TurnId { number: self.turns_begun, lane: id.lane };
            self.turns_begun = self.turns_begun.wrapping_add(1);
            if let Some((hedge, request)) = open(&self.shared, turn, (stream, grant), now) {
                turn.hedged = Hedged::Running(Box::new(hedge));
                self.effects.push_back(Effect::Open(stream, Box::new(request)));
                return;
            }
        }
        self.effects.extend(grant.map(|grant| Effect::Release(grant, Ending::NOTHING)));
        let turn = self.lanes.turn(id).filter(|turn| matches!(turn.hedged, Hedged::Asked));
        turn.into_iter().for_each(|turn| turn.hedged = Hedged::Over { end: HedgeEnd::Unstarted, stream: None });
    }

    /// The turn whose second endpoint's stream that is, or was.
    pub(super) fn hedged_by(&mut self, stream: TurnId) -> Option<&mut Turn> {
        let running = self.lanes.lane(stream.lane)?.running.as_deref_mut();
        running.filter(|turn| turn.hedged.is_of(stream))
    }

    /// What a stream brings that is no turn's own. False: it is no second endpoint's.
    pub(super) fn handle_hedge(&mut self, stream: TurnId, event: UpstreamEvent<'_>, now: Now) -> bool {
        let bytes_max = self.shared.settings.output_bytes_max;
        let Some(turn) = self.hedged_by(stream) else { return false };
        let (id, has_nothing) = (turn.id, turn.has_nothing());
        let Hedged::Running(hedge) = &mut turn.hedged else {
            // It is the turn's, under the name that the driver still knows it by.
            self.handle_upstream(id, event, now);
            return true;
        };
        match event {
            UpstreamEvent::Connected => {}
            UpstreamEvent::Opened => hedge.has_opened = true,
            UpstreamEvent::Bytes(bytes) => match hedge.hear(bytes, bytes_max) {
                Heard::Token if has_nothing => self.win(id, now),
                // The first has begun, if not with a token.
                Heard::Token => self.lanes.turn(id).into_iter().for_each(|turn| lose(&mut self.effects, turn, now)),
                Heard::Failure(failure) => self.fail_hedge(id, &failure, now),
                Heard::Nothing => {}
            },
            UpstreamEvent::Ended(Ended::Failed(failure)) => self.fail_hedge(id, &failure, now),
            UpstreamEvent::Ended(Ended::Complete) => self.fail_hedge(id, &ended_early(), now),
        }
        true
    }

    fn fail_hedge(&mut self, id: TurnId, failure: &UpstreamFailure, now: Now) {
        let Some(turn) = self.lanes.turn(id).filter(|turn| turn.hedged.is_running()) else { return };
        let over = Hedged::Over { end: HedgeEnd::Failed, stream: None };
        let Hedged::Running(hedge) = std::mem::replace(&mut turn.hedged, over) else { return };
        let (ended_ns, words) = (Some(now.mono_ns), Some(failure::words(failure)));
        turn.attempts.push(Attempted { ended_ns, failure: words, ..hedge.attempt });
        turn.tried.push(hedge.grant.endpoint());
        self.effects.push_back(Effect::Abort(hedge.id));
        let ending = Ending { verdict: Verdict::of(failure), ..Ending::NOTHING };
        self.effects.push_back(Effect::Release(hedge.grant, ending));
    }

    /// The second endpoint's token is the first.
    fn win(&mut self, id: TurnId, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let Some(first) = turn.grant() else { return };
        turn.attempts.last_mut().into_iter().for_each(|attempt| attempt.is_outrun = true);
        turn.end_attempt(None, now);
        let waited_ns = now.mono_ns.saturating_sub(turn.times.sent_upstream_ns.unwrap_or(now.mono_ns));
        let ending = Ending { verdict: Verdict::Outrun { waited_ns }, ..Ending::NOTHING };
        self.effects.push_back(Effect::Abort(id));
        self.effects.push_back(Effect::Release(first, ending));
        self.take_over(id, HedgeEnd::Won, now);
    }

    /// The first endpoint has failed: the turn goes on at the second one, where there is one.
    pub(super) fn go_on_hedged(&mut self, id: TurnId, refusal: &Refusal, verdict: Verdict, now: Now) -> bool {
        let Some(turn) = self.lanes.turn(id).filter(|turn| turn.hedged.is_running()) else { return false };
        let Some(first) = turn.grant() else { return false };
        turn.tried.push(first.endpoint());
        turn.failure = Some(refusal.clone());
        self.effects.push_back(Effect::Abort(id));
        self.effects.push_back(Effect::Release(first, turn.ending(verdict)));
        self.take_over(id, HedgeEnd::TookOver, now);
        true
    }

    /// The turn goes on at the second endpoint, with what that has sent so far. Its first one is left already.
    fn take_over(&mut self, id: TurnId, end: HedgeEnd, now: Now) {
        let Some(turn) = self.lanes.turn(id).filter(|turn| turn.hedged.is_running()) else { return };
        let announce_at = if let TurnState::Opening { announce_at, .. } = turn.state { announce_at } else { None };
        let Hedged::Running(hedge) = std::mem::take(&mut turn.hedged) else { return };
        let Hedge { id: stream, grant, attempt, has_opened, bytes, .. } = *hedge;
        turn.hedged = Hedged::Over { end, stream: Some(stream) };
        turn.assembler.serve_from(grant.tier().service_tier());
        turn.times.sent_upstream_ns = Some(attempt.began_ns);
        turn.times.stages.sent(now.mono_ns);
        turn.attempts.push(attempt);
        turn.served = Some(grant);
        (turn.upstream_times, turn.output_bytes) = (Default::default(), 0);
        turn.state = match has_opened {
            true => reading(&self.shared, grant),
            false => TurnState::Opening { grant, announce_at },
        };
        if let Transport::Http { routed, .. } = &mut self.transport
            && id.lane == LaneId::default()
        {
            routed.decision = Some(grant.decision);
        }
        self.effects.push_back(Effect::Adopt(id, stream, grant));
        if has_opened {
            self.announce(id, now);
            self.handle_upstream(id, UpstreamEvent::Bytes(&bytes), now);
        }
    }
}

impl Turn {
    /// What a second endpoint came to.
    pub(super) fn hedge_cost(&self) -> Option<HedgeCost> {
        let end = self.hedged.end()?;
        let tokens = match end {
            HedgeEnd::Unstarted => 0,
            HedgeEnd::Won | HedgeEnd::Lost | HedgeEnd::TookOver | HedgeEnd::Failed | HedgeEnd::Left => {
                self.assembler.usage().map_or_else(|| self.estimated_input(), |usage| usage.input)
            }
        };
        Some(HedgeCost { end, tokens })
    }
}

/// The request for the same answer at another endpoint. None: it cannot be made.
fn open(shared: &Shared, turn: &mut Turn, (id, grant): (TurnId, Grant), now: Now) -> Option<(Hedge, UpstreamRequest)> {
    if shared.fleet.contract(grant.endpoint()) != Speaks::Chat {
        return None;
    }
    let model = shared.fleet.model(&turn.draft.model)?;
    let asked = asked(turn, model.profiles.at(grant.tier())).ok()?;
    let (attempt, request) = sending(shared, turn, (grant, model.upstream(grant.tier())), asked, now);
    let events = sse::Decoder::new(shared.settings.event_bytes_max);
    Some((Hedge { id, grant, attempt, has_opened: false, bytes: Vec::new(), events }, request))
}

/// What an event says to somebody who waits for a token. An answer without any is one, too.
fn hear(data: &[u8]) -> Heard {
    match ChunkReader::default().read_typed(data) {
        Ok(Read::Text(..)) => Heard::Token,
        Ok(Read::Chunk(chunk)) if chunk.error.is_some() => {
            Heard::Failure(UpstreamFailure::Cut { reason: "told of an error in its stream".to_owned() })
        }
        Ok(Read::Chunk(chunk)) => {
            let mut choices = chunk.choices.iter();
            match choices.any(|choice| choice.has_text() || choice.finish_reason.is_some()) {
                true => Heard::Token,
                false => Heard::Nothing,
            }
        }
        Ok(Read::Done) => Heard::Failure(ended_early()),
        Err(error) => Heard::Failure(UpstreamFailure::Cut { reason: error.to_string() }),
    }
}

fn ended_early() -> UpstreamFailure {
    UpstreamFailure::Cut { reason: "it ended before it began".to_owned() }
}

impl Hedge {
    /// Reads, and keeps, what its stream brings.
    fn hear(&mut self, bytes: &[u8], bytes_max: usize) -> Heard {
        self.has_opened = true;
        let mut heard = Heard::Nothing;
        let decoded = self.events.decode(bytes, |event| {
            if let Heard::Nothing = heard {
                heard = hear(event.data);
            }
        });
        self.bytes.extend_from_slice(bytes);
        match heard {
            Heard::Nothing if decoded.is_err() || self.bytes.len() > bytes_max => {
                Heard::Failure(UpstreamFailure::Cut { reason: "it sent more than this server takes".to_owned() })
            }
            Heard::Nothing | Heard::Token | Heard::Failure(_) => heard,
        }
    }
}
