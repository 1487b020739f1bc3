//! A conversation goes over from one endpoint to another: what is to be read there before its next turn comes, and what endpoints have read
//! of it already. Two occasions: a turn has ended, and the one after it is expected elsewhere; and a turn waits for a place that it may not
//! get. Whether there is leave to, admission says; how it is read, is `prefill.rs`'s.
//!
//! ```text
//! a turn ends well ──> Prepare(Handover) ──> read while the client runs tools ──> its next turn: goes on there, or elsewhere
//! Queued for long ──> Prepare(Queue) ──> read while it waits ──> Granted there, or here, or neither
//! ```

use super::prefill::Prefilling;
use super::run::ticket;
use super::traits::traits;
use super::{Effect, Life, Session, TurnId};
use crate::admission::{Ahead, Cause, Ticket, WaiterId};
use crate::compaction::Progress;
use crate::draft::Contract;
use crate::fleet::{EndpointId, Fleet};
use crate::router::Follows;
use crate::tokens;
use crate::turn::Turn;

/// Endpoints of one chain that are remembered.
const READINGS_MAX: usize = 4;
/// What a turn to come is thought to bring, where a rule asks for that.
const TOKENS_EXPECTED: u64 = 256;

/// Tokens that engines have read before their turns came, by cause, as [`Cause::NAMES`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadAhead(pub [u64; Cause::NAMES.len()]);

impl ReadAhead {
    fn add(&mut self, cause: Cause, tokens: u64) {
        if let Some(of_cause) = self.0.get_mut(cause.index()) {
            *of_cause += tokens;
        }
    }

    fn take_over(&mut self, other: &mut Self) {
        for (sum, tokens) in self.0.iter_mut().zip(std::mem::take(other).0) {
            *sum += tokens;
        }
    }
}

/// What was read for a turn before it went out.
#[derive(Debug, Default)]
pub struct Before {
    /// While it waited in a queue, and where.
    read_at: Option<(EndpointId, u64)>,
    /// Where it went: that was of use.
    pub used: ReadAhead,
}

/// What endpoints have read of a lane's chain, as far as its session knows.
#[derive(Debug, Default)]
pub(super) struct Readings {
    /// The response that the chain goes up to.
    of: String,
    at: Vec<Reading>,
}

#[derive(Debug)]
struct Reading {
    endpoint: EndpointId,
    /// Of all that the model reads.
    bytes: usize,
    /// Read ahead, and no turn went on from it yet.
    unused: ReadAhead,
}

impl Readings {
    /// The endpoint has read so many bytes of it by now.
    fn note(&mut self, endpoint: EndpointId, bytes: usize) -> Option<&mut Reading> {
        let place = self.at.iter().position(|reading| reading.endpoint == endpoint).unwrap_or_else(|| {
            if self.at.len() >= READINGS_MAX {
                let least = self.at.iter().enumerate().min_by_key(|(_, reading)| reading.bytes);
                let least = least.map_or(0, |(place, _)| place);
                self.at.swap_remove(least);
            }
            self.at.push(Reading { endpoint, bytes, unused: ReadAhead::default() });
            self.at.len() - 1
        });
        let reading = self.at.get_mut(place)?;
        reading.bytes = bytes;
        Some(reading)
    }

    /// Of so many bytes, the tokens that are new to each.
    fn news(&self, bytes: usize) -> Vec<(EndpointId, u64)> {
        let new_at = |reading: &Reading| tokens::estimate(bytes.saturating_sub(reading.bytes));
        self.at.iter().map(|reading| (reading.endpoint, new_at(reading))).collect()
    }
}

/// For what admission was asked whether it is to be read.
#[derive(Debug)]
pub(super) enum Errand {
    WarmUp,
    /// A turn that has ended.
    Handover(Box<Turn>),
    Queue(TurnId),
}

impl Session {
    /// A turn has ended well. Where the one after it is expected elsewhere, that endpoint may read the chain meanwhile.
    pub(super) fn hand_over(&mut self, mut turn: Box<Turn>) {
        let is_listening = self.is_websocket() && self.life == Life::Open;
        let Some(lane) = self.lanes.lane(turn.id.lane) else { return };
        let Some(grant) = turn.served.filter(|grant| grant.hands_over && is_listening) else {
            lane.readings = None;
            return;
        };
        let bytes = turn.bytes();
        // A summary has taken the place of what was read.
        let is_same = |known: &Readings| Some(&*known.of) == turn.previous() && turn.compaction == Progress::NotYet;
        let mut readings = lane.readings.take().filter(|known| is_same(known)).unwrap_or_default();
        readings.of = turn.response_id();
        readings.note(grant.endpoint(), bytes);
        let news = readings.news(bytes);
        lane.readings = Some(readings);
        // Who is told less of it is told other things by the next turn. And one that is here already need not be expected.
        if self.prefill.is_some() || self.errand.is_some() || turn.told.is_some() || !lane.is_free() {
            return;
        }
        let (id, cause) = (turn.id, Cause::Handover);
        let ticket = expected(&mut turn, &self.shared.fleet, self.planned);
        self.errand = Some((id, Errand::Handover(turn)));
        self.effects.push_back(Effect::Prepare(id, Box::new(Ahead { ticket, cause, news })));
    }

    /// A turn has waited for a while: where it would go on to, its chain may be read meanwhile.
    pub(super) fn read_ahead(&mut self, id: TurnId, waiter: WaiterId) {
        let is_busy = self.prefill.is_some() || self.errand.is_some();
        let Some(lane) = self.lanes.lane(id.lane) else { return };
        let Some(turn) = lane.running.as_deref_mut().filter(|turn| turn.id == id && !is_busy) else { return };
        // A summary comes first, by a request of its own.
        let is_answer = !matches!(turn.compaction, Progress::Running { .. });
        if !is_answer || matches!(turn.draft.contract, Contract::Chat(_)) {
            return;
        }
        let known = lane.readings.as_ref().filter(|known| Some(&*known.of) == turn.previous());
        let news = known.map(|known| known.news(turn.bytes())).unwrap_or_default();
        let ticket = *ticket(turn, &self.shared, self.planned);
        // Not by the turn's name: that is asked for a place by it.
        let asked = self.next_id(id.lane);
        self.errand = Some((asked, Errand::Queue(id)));
        let cause = Cause::Queue(waiter);
        self.effects.push_back(Effect::Prepare(asked, Box::new(Ahead { ticket, cause, news })));
    }

    /// An endpoint has read what it was to.
    pub(super) fn note_read(&mut self, prefill: &Prefilling, tokens: u64) {
        let (cause, endpoint) = (prefill.leave.cause, prefill.leave.endpoint);
        let Some(lane) = self.lanes.lane(prefill.of.lane) else { return };
        let readings = match cause {
            Cause::WarmUp => {
                let (of, at) = (prefill.response_id.clone(), Vec::new());
                Some(lane.readings.insert(Box::new(Readings { of, at })))
            }
            Cause::Handover => lane.readings.as_mut().filter(|known| known.of == prefill.response_id),
            Cause::Queue(_) => {
                if let Some(turn) = lane.running.as_deref_mut().filter(|turn| turn.id == prefill.of) {
                    turn.before.get_or_insert_default().read_at = Some((endpoint, tokens));
                }
                return;
            }
        };
        if let Some(reading) = readings.and_then(|known| known.note(endpoint, prefill.bytes)) {
            reading.unused.add(cause, tokens);
        }
    }

    /// A turn goes to an endpoint: what was read of its chain there was of use.
    pub(super) fn use_read(&mut self, id: TurnId, endpoint: EndpointId) {
        let Some(lane) = self.lanes.lane(id.lane) else { return };
        let Some(turn) = lane.running.as_deref_mut() else { return };
        let known = lane.readings.as_mut().filter(|known| Some(&*known.of) == turn.previous());
        let reading = known.and_then(|known| known.at.iter_mut().find(|reading| reading.endpoint == endpoint));
        if let Some(reading) = reading.filter(|reading| reading.unused != ReadAhead::default()) {
            turn.before.get_or_insert_default().used.take_over(&mut reading.unused);
        }
        if let Some(before) = &mut turn.before
            && let Some((_, tokens)) = before.read_at.take_if(|(at, _)| *at == endpoint)
        {
            before.used.add(Cause::Queue(WaiterId::default()), tokens);
        }
    }
}

/// The turn after one that has ended, as far as that can be known: what it answers, tools where the model has called some, and no text.
fn expected(turn: &mut Turn, fleet: &Fleet, planned: Option<EndpointId>) -> Ticket {
    // What was counted of it was its input.
    turn.tokens = None;
    let mut traits = traits(turn, fleet);
    if fleet.asks_for_the_step(&turn.draft.model) {
        traits.follows = Some(if turn.chain.has_open_calls() { Follows::Tool } else { Follows::User });
        traits.tokens_new = TOKENS_EXPECTED;
    }
    Ticket { model: turn.draft.model.clone(), traits, tried: Vec::new(), prefer: None, planned, goes_on: None }
}
