//! A turn whose model has a guard: it is asked about what is new while the turn waits and runs, and what the upstream sends meanwhile is
//! held, unread. PROTOCOL clause 13.
//!
//! ```text
//!           asked                       passed
//! NotYet ---------> Asked -----------------------> Passed <- nothing is new, or the model has no guard
//!                     | its time is up, and it          ^ passed
//!                     | may be passed by                |
//!                     +-------------------> Late -------+------> Unjudged: no verdict at all
//! A refusal ends the turn, from Asked and from Late.
//! ```
//! What a guard has passed is marked where it lies: a chain's pieces, shared with what the client may send again.

use super::stream::reading;
use super::{Effect, Session, Shared, TurnId};
use crate::admission::Grant;
use crate::chain::{Chain, Piece};
use crate::draft::Contract;
use crate::guard::{Course, Guard, Guarded, Inquiry, Otherwise, Ruling, Word, no_verdict};
use crate::stages::Stage;
use crate::time::Now;
use crate::turn::{Turn, TurnState};
use crate::upstream::{Ended, UpstreamEvent};
use bytes::Bytes;
use flashlane_wire::json;
use std::sync::Arc;

/// How a turn stands with its model's guard.
#[derive(Debug, Default)]
pub enum Guarding {
    #[default]
    NotYet,
    Asked(Box<Asked>),
    /// Its output flows: the guard took too long, and may be passed by.
    Late(Box<Asked>),
    /// All of it, by the guard of this mark. None: the model had no guard when the turn began.
    Passed(Option<u64>),
    Unjudged,
}

/// What its guard was asked about.
#[derive(Debug)]
pub struct Asked {
    guard: Arc<Guard>,
    pieces: Vec<Arc<Piece>>,
    instructions: Option<Bytes>,
    due_ns: u64,
}

impl Guarding {
    /// Until when its output is held. None: it is not.
    #[must_use]
    pub fn held_until(&self) -> Option<u64> {
        match self {
            Self::Asked(asked) => Some(asked.due_ns),
            Self::NotYet | Self::Late(_) | Self::Passed(_) | Self::Unjudged => None,
        }
    }
}

/// What an upstream has sent that nobody has read.
#[derive(Debug, Default)]
pub struct Held {
    bytes: Vec<u8>,
    ended: Option<Ended>,
}

impl Held {
    /// Something of an answer has come.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }
}

impl Session {
    /// Asks the model's guard, once a turn, about what it has not passed.
    pub(super) fn inquire(&mut self, id: TurnId, now: Now) {
        let shared = Arc::clone(&self.shared);
        let Some(turn) = self.lanes.turn(id).filter(|turn| matches!(turn.guarding, Guarding::NotYet)) else { return };
        let guard = shared.fleet.model(&turn.draft.model).and_then(|model| model.guard.clone());
        turn.guarding = Guarding::Passed(guard.as_ref().map(|guard| guard.mark));
        let Some((guard, body, asked)) = guard.and_then(|guard| question(&shared, turn, guard)) else { return };
        let due_ns = now.after_ms(guard.deadline_ms);
        let (pieces, instructions) = asked;
        let inquiry = Inquiry { guard: guard.mark, body };
        turn.guarded = Some(Box::new(Guarded::begin(Arc::clone(&guard.name), now.mono_ns)));
        turn.guarding = Guarding::Asked(Box::new(Asked { guard, pieces, instructions, due_ns }));
        self.effects.push_back(Effect::Inquire(id, inquiry));
    }

    /// The guard's answer.
    pub fn handle_ruling(&mut self, id: TurnId, ruling: Ruling, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        turn.hear(&ruling, now);
        if turn.is_ending() {
            return;
        }
        let is_held = match &turn.guarding {
            Guarding::Asked(_) => true,
            Guarding::Late(_) => false,
            Guarding::NotYet | Guarding::Passed(_) | Guarding::Unjudged => return,
        };
        match ruling {
            Ruling::Pass => {
                if let Guarding::Asked(asked) | Guarding::Late(asked) = std::mem::take(&mut turn.guarding) {
                    turn.guarding = Guarding::Passed(Some(asked.guard.mark));
                    asked.pass(&self.shared);
                }
                self.release_held(id, now);
            }
            Ruling::Refuse { because, message } => self.give_up(id, &because.refusal(message), now),
            Ruling::Missing { .. } | Ruling::Overdue if is_held => self.go_on_without_verdict(id, now),
            Ruling::Missing { .. } | Ruling::Overdue => turn.guarding = Guarding::Unjudged,
        }
        self.advance(now);
    }

    /// Its time is up.
    fn go_on_without_waiting(&mut self, id: TurnId, now: Now) {
        if let Some(turn) = self.lanes.turn(id) {
            turn.wait_no_longer(now);
        }
        self.go_on_without_verdict(id, now);
    }

    fn go_on_without_verdict(&mut self, id: TurnId, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let Guarding::Asked(asked) = std::mem::take(&mut turn.guarding) else { return };
        match asked.guard.otherwise {
            Otherwise::Refuse => self.give_up(id, &no_verdict(), now),
            Otherwise::Pass => {
                turn.guarding = Guarding::Late(asked);
                self.release_held(id, now);
            }
        }
    }

    /// The upstream has answered. False: what it sends is held, since the guard has not spoken; or its time was up already.
    pub(super) fn may_read(&mut self, id: TurnId, grant: Grant, now: Now) -> bool {
        let Some(turn) = self.lanes.turn(id) else { return false };
        let Some(due_ns) = turn.guarding.held_until() else { return true };
        turn.state = TurnState::Held { grant, held: Held::default() };
        if due_ns <= now.mono_ns {
            self.go_on_without_waiting(id, now);
        }
        self.announce(id, now);
        false
    }

    /// Bytes of an answer, where that is held.
    pub(super) fn hold(&mut self, id: TurnId, bytes: &[u8], now: Now) {
        let bytes_max = self.shared.settings.output_bytes_max;
        let Some(turn) = self.lanes.turn(id) else { return };
        let TurnState::Held { held, .. } = &mut turn.state else { return };
        if !held.has_begun() {
            turn.times.stages.enter(Stage::Guard, now.mono_ns);
        }
        // What is beyond it is refused when it is read: as much as this was sent already.
        if held.bytes.len() <= bytes_max {
            held.bytes.extend_from_slice(bytes);
        }
    }

    /// What was held is read as if it came now.
    fn release_held(&mut self, id: TurnId, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let TurnState::Held { grant, held } = &mut turn.state else { return };
        let (grant, held) = (*grant, std::mem::take(held));
        turn.state = reading(&self.shared, grant);
        if held.has_begun() {
            turn.times.stages.enter(Stage::UpstreamTtft, now.mono_ns);
            self.handle_upstream(id, UpstreamEvent::Bytes(&held.bytes), now);
        }
        if let Some(ended) = held.ended {
            self.handle_upstream(id, UpstreamEvent::Ended(ended), now);
        }
    }

    /// A held answer's time is up: that of its guard, or that of its first token. False: neither.
    pub(super) fn handle_held_due(&mut self, id: TurnId, now: Now) -> bool {
        let due_ns = self.lanes.turn(id).and_then(|turn| turn.guarding.held_until());
        let is_due = due_ns.is_some_and(|due_ns| due_ns <= now.mono_ns);
        if is_due {
            self.go_on_without_waiting(id, now);
            self.advance(now);
        }
        is_due
    }
}

impl Turn {
    /// Notes what its guard has said, for those who look on.
    fn hear(&mut self, ruling: &Ruling, now: Now) {
        let is_over = self.is_ending();
        let (Some(guarded), Guarding::Asked(asked) | Guarding::Late(asked)) = (&mut self.guarded, &self.guarding)
        else {
            return;
        };
        match (ruling, guarded.word) {
            (Ruling::Refuse { .. }, _) => {
                let course = if is_over { Course::WentOn } else { Course::Refused };
                (guarded.word, guarded.course, guarded.reason) = (Word::Refused, course, None);
            }
            // What it says behind its deadline changes nothing else.
            (Ruling::Pass | Ruling::Missing { .. } | Ruling::Overdue, Word::TimedOut) => {}
            (Ruling::Pass, _) => (guarded.word, guarded.course) = (Word::Passed, Course::WentOn),
            (Ruling::Missing { reason }, _) => {
                (guarded.word, guarded.course) = (Word::Failed, asked.guard.otherwise.into());
                guarded.reason = Some(reason.clone());
            }
            (Ruling::Overdue, _) => return self.wait_no_longer(now),
        }
        guarded.ended_ns = Some(now.mono_ns);
    }

    /// Its guard has had its time.
    fn wait_no_longer(&mut self, now: Now) {
        let (Some(guarded), Guarding::Asked(asked)) = (&mut self.guarded, &self.guarding) else { return };
        let Guard { otherwise, deadline_ms, .. } = *asked.guard;
        (guarded.word, guarded.course) = (Word::TimedOut, otherwise.into());
        guarded.reason = Some(format!("no answer within {deadline_ms} ms"));
        // Where it is passed by, its word is waited for on.
        guarded.ended_ns = (otherwise == Otherwise::Refuse).then_some(now.mono_ns);
    }

    /// The stream of its answer is over. Given back, but where the answer is held that has begun.
    pub(super) fn hold_end(&mut self, ended: Ended) -> Option<Ended> {
        if let TurnState::Held { held, .. } = &mut self.state
            && held.has_begun()
        {
            held.ended = Some(ended);
            return None;
        }
        Some(ended)
    }
}

impl Asked {
    fn pass(&self, shared: &Shared) {
        let mark = self.guard.mark;
        self.pieces.iter().for_each(|piece| piece.passed.set(mark));
        if let Some(instructions) = &self.instructions {
            shared.vetted.add(mark, instructions);
        }
    }
}

type Question = (Arc<Guard>, Bytes, (Vec<Arc<Piece>>, Option<Bytes>));

/// What the guard is told. None: it knows all of it.
fn question(shared: &Shared, turn: &Turn, guard: Arc<Guard>) -> Option<Question> {
    let mut body = b"{\"model\":".to_vec();
    json::push_string(&mut body, &turn.draft.model);
    body.extend_from_slice(b",\"response_id\":");
    json::push_string(&mut body, &turn.response_id());
    let responses = match &turn.draft.contract {
        Contract::Chat(chat) => {
            body.extend_from_slice(b",\"messages\":[");
            body.extend_from_slice(&chat.messages);
            body.extend_from_slice(b"]}");
            return Some((guard, Bytes::from(body), (Vec::new(), None)));
        }
        Contract::Responses(responses) => responses,
    };
    let is_new = |instructions: &&Bytes| !shared.vetted.has(guard.mark, instructions);
    let instructions = responses.instructions.as_ref().filter(is_new).cloned();
    let pieces = turn.chain.pieces().iter().filter(|piece| !piece.passed.is_by(guard.mark));
    let pieces: Vec<_> = pieces.cloned().collect();
    if pieces.is_empty() && instructions.is_none() {
        return None;
    }
    if let Some(instructions) = &instructions {
        body.extend_from_slice(b",\"instructions\":");
        body.extend_from_slice(instructions);
    }
    body.extend_from_slice(b",\"input\":[");
    for (index, item) in pieces.iter().flat_map(|piece| piece.items.iter()).enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item);
    }
    body.extend_from_slice(b"]}");
    Some((guard, Bytes::from(body), (pieces, instructions)))
}

/// A turn has its answer: where its guard has passed all before it, that is no news to it when it comes back.
pub(super) fn pass_output(shared: &Shared, turn: &Turn, output: &Piece) {
    // Not the guard that the model has by now: a config may have come meanwhile.
    let Guarding::Passed(Some(mark)) = turn.guarding else { return };
    output.passed.set(mark);
    if let Contract::Responses(draft) = &turn.draft.contract
        && draft.store
    {
        shared.vetted.add(mark, turn.response_id().as_bytes());
    }
}

/// A turn goes on from a stored response: what its guard has passed of that it is not asked again.
pub(super) fn recall(shared: &Shared, turn: &Turn, chain: &Chain) {
    if let (Some(mark), Some(previous)) = (mark(shared, turn), turn.previous())
        && shared.vetted.has(mark, previous.as_bytes())
    {
        chain.pieces().iter().for_each(|piece| piece.passed.set(mark));
    }
}

fn mark(shared: &Shared, turn: &Turn) -> Option<u64> {
    shared.fleet.model(&turn.draft.model)?.guard.as_ref().map(|guard| guard.mark)
}
