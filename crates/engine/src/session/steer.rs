//! Steering: a client redirects a response that is being made. PROTOCOL clause 3.8.
//!
//! ```text
//! accepted ── the parent is cut, or ends, without calls ──> successor queued ── announced ──> committed
//!    │                                     further steers join ──┘   └── fails before ──> failed, input handed back
//!    ├── the parent ends in calls ──> pending ── the client's create goes on from it ──> part of that turn
//!    └── the parent fails, or the lane goes another way ──> failed, input handed back
//! ```

use super::end::leave;
use super::lane::{LaneId, Succession};
use super::{Effect, Session, Shared, Status, TurnId};
use crate::assembler::{Assembler, ResponsesAssembler, event};
use crate::chain::{Piece, Rendered, render_items};
use crate::children::Kin;
use crate::compaction::Wanted;
use crate::draft::{self, Contract, Draft};
use crate::error::{ErrorKind, Refusal};
use crate::outgoing::Outgoing;
use crate::router::Verdict;
use crate::seal::{Opener, Takes};
use crate::time::Now;
use crate::turn::Turn;
use bytes::Bytes;
use flashlane_wire::json;
use flashlane_wire::responses::{Fields, Item, Role, elements};
use serde_json::value::RawValue;
use std::sync::Arc;

/// One accepted submission.
#[derive(Debug)]
pub struct Steer {
    id: String,
    /// The response that it steers.
    pub of: String,
    /// As it came, to be handed back.
    input: Box<str>,
    pub piece: Arc<Piece>,
}

impl Steer {
    /// What it holds in memory, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.input.len() + self.piece.weight()
    }
}

/// Why a submission cannot be used: the codes of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SteerError {
    ResponseNotFound,
    InvalidInput,
    TooManyPending,
    AlreadyCompleted,
    NotActive,
    SuccessorFailed,
    NotSupported,
}

impl SteerError {
    fn code(self) -> &'static str {
        match self {
            Self::ResponseNotFound => "response_not_found",
            Self::InvalidInput => "invalid_input",
            Self::TooManyPending => "too_many_pending_steers",
            Self::AlreadyCompleted => "response_already_completed",
            Self::NotActive => "response_not_active",
            Self::SuccessorFailed => "successor_creation_failed",
            Self::NotSupported => "steering_not_supported",
        }
    }
}

impl Session {
    /// `response.steer`.
    pub(super) fn steer(&mut self, previous: &str, input: Option<&RawValue>, now: Now) {
        let running = self.announced(previous);
        let lane = running.map(|turn| turn.lane).or_else(|| self.lanes.succeeding(previous));
        self.speak(lane.unwrap_or_default());
        let accepted = match (running, lane) {
            (Some(id), _) => self.accept(id, previous, input),
            (None, Some(lane)) => self.join(lane, previous, input, now),
            (None, None) => Err(self.absent(previous)),
        };
        if let Err((error, message)) = accepted {
            let raw = input.map_or("null", RawValue::get);
            push_failed(&mut self.outgoing, error, &message, (None, previous, raw));
            return;
        }
        if let Some(id) = running
            && let Some(turn) = self.lanes.turn(id)
            && turn.grant().is_some()
            && let Assembler::Responses(responses) = &mut turn.assembler
            && responses.may_be_steered()
        {
            responses.steer();
            self.leave(id, Verdict::Nothing);
            self.wrap_up(id, now);
        }
        self.advance(now);
    }

    /// Why a response cannot be steered that neither runs nor is about to have a successor.
    fn absent(&self, previous: &str) -> (SteerError, String) {
        if previous.is_empty() {
            return (SteerError::InvalidInput, "Missing required parameter: 'previous_response_id'.".to_owned());
        }
        match self.lanes.knows(previous) {
            true => (
                SteerError::AlreadyCompleted,
                format!("The response '{previous}' has completed: send a 'response.create' that goes on from it."),
            ),
            false => {
                (SteerError::ResponseNotFound, format!("The response '{previous}' is not running on this connection."))
            }
        }
    }

    /// Takes the submission into the lane of the response that it steers.
    fn accept(&mut self, id: TurnId, previous: &str, input: Option<&RawValue>) -> Result<(), Unused> {
        let (steer, needs) = self.read(previous, input)?;
        let not_active = || (SteerError::NotActive, format!("The response '{previous}' takes no steers."));
        let Some(lane) = self.lanes.lane(id.lane) else { return Err(not_active()) };
        let Some(turn) = lane.running.as_deref_mut() else { return Err(not_active()) };
        if turn.is_gathering() {
            let message = "A response that fans out cannot be steered: steer its children.".to_owned();
            return Err((SteerError::NotSupported, message));
        }
        let Assembler::Responses(responses) = &mut turn.assembler else { return Err(not_active()) };
        if matches!(&turn.draft.contract, Contract::Responses(draft) if draft.compaction != Wanted::Never) {
            let message = "A response whose context may be compacted cannot be steered.".to_owned();
            return Err((SteerError::NotSupported, message));
        }
        may_take(&self.shared, &lane.steers, &turn.draft.model, &needs)?;
        responses.aside("response.steer.accepted", &mut self.outgoing, |out| push_steer(out, &steer));
        lane.steers.push(steer);
        Ok(())
    }

    /// Takes the submission into the successor of the response that it steers, which is made anew if it was begun.
    fn join(&mut self, lane: LaneId, previous: &str, input: Option<&RawValue>, now: Now) -> Result<(), Unused> {
        let (steer, needs) = self.read(previous, input)?;
        let successor = self.lanes.lane(lane).and_then(|lane| lane.successor_of(previous));
        let Some(successor) = successor else { return Err(self.absent(previous)) };
        may_take(&self.shared, successor.steers, successor.model, &needs)?;
        event(&mut self.outgoing, "response.steer.accepted", successor.sequence, |out| push_steer(out, &steer));
        successor.steers.push(steer);
        let sequence = *successor.sequence;
        let Some(mut turn) = self.lanes.lane(lane).and_then(|lane| lane.running.take()) else { return Ok(()) };
        leave(&mut self.effects, &mut turn, Verdict::Nothing);
        // Under another id: what was asked for the one before may still be answered.
        let outcome = self.outcome(&turn, Status::Cancelled, None, now);
        self.effects.push_back(Effect::Finish(turn.id, Box::new(outcome)));
        let Turn { draft, steers, prefer, .. } = *turn;
        self.lanes.push_successor(lane, draft, Succession { steers, prefer, sequence });
        Ok(())
    }

    /// The submission, and what a model needs to take it.
    fn read(&mut self, previous: &str, input: Option<&RawValue>) -> Result<(Steer, Rendered), Unused> {
        let opener = self.shared.opener(self.owner, Takes::Own);
        let mut rendered = read_input(input, opener).map_err(|refusal| (SteerError::InvalidInput, refusal.message))?;
        let piece = std::mem::take(&mut rendered.piece);
        let id = self.ids.draw().steer_id();
        let input: Box<str> = input.map_or("null", RawValue::get).into();
        let steer = Steer { id, of: previous.to_owned(), input, piece: Arc::new(piece) };
        let waiting = self.lanes.queued_bytes() + self.lanes.steer_bytes();
        if waiting + steer.weight() > self.shared.settings.queued_bytes_max {
            return Err((SteerError::TooManyPending, "Too many bytes wait on this connection already.".to_owned()));
        }
        Ok((steer, rendered))
    }

    /// The running turn that makes the announced response of that id.
    pub(super) fn announced(&self, response_id: &str) -> Option<TurnId> {
        self.lanes.running().find_map(|turn| match &turn.assembler {
            Assembler::Responses(responses) => {
                (responses.is_announced() && responses.response_id() == response_id).then_some(turn.id)
            }
            Assembler::Chat(_) => None,
        })
    }

    /// A turn starts: it brings the steers that wait for what it goes on from. Those that wait for another wait in vain.
    pub(super) fn claim_steers(&mut self, id: TurnId, previous: Option<&str>) {
        let Some(lane) = self.lanes.lane(id.lane) else { return };
        let waiting = std::mem::take(&mut lane.steers);
        let (claimed, left): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|steer| Some(&*steer.of) == previous);
        if let Some(turn) = lane.running.as_deref_mut() {
            turn.steers.extend(claimed);
        }
        self.fail_steers(id.lane, left, SteerError::NotActive, "The lane went on without it.");
    }

    /// The lane's running response will not have a successor.
    pub(super) fn drop_steers(&mut self, lane: LaneId, why: &str) {
        let steers = self.lanes.lane(lane).map(|lane| std::mem::take(&mut lane.steers)).unwrap_or_default();
        self.fail_steers(lane, steers, SteerError::NotActive, why);
    }

    /// The parent has ended as it should: what becomes of its steers. `output` is what it came to.
    pub(super) fn settle_steers(&mut self, turn: TurnId, output: &[Bytes]) {
        let Some(lane) = self.lanes.lane(turn.lane) else { return };
        if lane.steers.is_empty() {
            return;
        }
        let Some(running) = lane.running.as_deref_mut() else { return };
        let Assembler::Responses(responses) = &mut running.assembler else { return };
        let required = required_input(output);
        if !required.is_empty() {
            for steer in &lane.steers {
                push_pending(responses, &mut self.outgoing, steer, &required);
            }
            return;
        }
        let Contract::Responses(parent) = &running.draft.contract else { return };
        let successor = Draft {
            model: Arc::clone(&running.draft.model),
            contract: Contract::Responses(Box::new(parent.successor(&responses.response_id()))),
            fields: running.draft.fields.clone(),
            cache_key: running.draft.cache_key.clone(),
            appended: running.draft.appended.clone(),
            traits: running.draft.traits,
            trace: running.draft.trace.clone(),
            branches: Vec::new(),
            kin: Kin::None,
        };
        let (prefer, sequence) = (running.served.map(|grant| grant.endpoint()), responses.sequence());
        let steers = std::mem::take(&mut lane.steers);
        self.lanes.push_successor(turn.lane, successor, Succession { steers, prefer, sequence });
    }

    /// Hands back the input of steers that cannot be used any more.
    pub(super) fn fail_steers(&mut self, lane: LaneId, steers: Vec<Steer>, error: SteerError, message: &str) {
        if !steers.is_empty() {
            self.speak(lane);
        }
        for steer in steers {
            push_failed(&mut self.outgoing, error, message, (Some(&steer.id), &steer.of, &steer.input));
        }
    }
}

/// Why a submission is not accepted, and what its client is told.
type Unused = (SteerError, String);

/// Whether one more steer may wait with these, for a response of this model.
fn may_take(shared: &Shared, waiting: &[Steer], model: &str, needs: &Rendered) -> Result<(), Unused> {
    let max = shared.settings.steers_max;
    if waiting.len() >= max {
        let message = format!("{max} steers wait for this response already, and it takes no more.");
        return Err((SteerError::TooManyPending, message));
    }
    match shared.fleet.model(model) {
        Some(model) => {
            draft::refuse_modalities(needs, model).map_err(|refusal| (SteerError::InvalidInput, refusal.message))
        }
        None => Ok(()),
    }
}

/// A string, or an array of messages of the user.
fn read_input(input: Option<&RawValue>, opener: Opener<'_>) -> Result<Rendered, Refusal> {
    let invalid = |message: &str| Refusal::new(ErrorKind::InvalidValue, message);
    let raw = input.ok_or_else(|| invalid("Missing required parameter: 'input'."))?;
    if let Some(text) = raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        return if text.is_empty() {
            Err(invalid("Invalid 'input': it is empty."))
        } else {
            Ok(draft::text_input(text))
        };
    }
    let items = elements("input", raw)?;
    if items.is_empty() {
        return Err(invalid("Invalid 'input': it is empty."));
    }
    for (index, item) in items.iter().enumerate() {
        let path = format!("input[{index}]");
        let fields = Fields::nested(&path, item)?;
        if let Some((name, _)) = fields.iter().find(|(name, _)| !STEER_FIELDS.contains(name)) {
            return Err(invalid(&format!("Invalid '{path}': a steer's message has no '{name}'.")));
        }
        if !matches!(Item::parse(&path, item)?, Item::Message { role: Role::User, .. }) {
            return Err(invalid(&format!("Invalid '{path}': a steer takes messages of the role 'user' alone.")));
        }
    }
    Ok(render_items("input", &items, opener)?)
}

const STEER_FIELDS: [&str; 5] = ["type", "role", "content", "id", "status"];

/// What a client must supply before the conversation can go on: a stub for each call.
fn required_input(output: &[Bytes]) -> Vec<Vec<u8>> {
    let mut stubs = Vec::new();
    for item in output {
        let Ok(raw) = serde_json::from_slice::<&RawValue>(item) else { continue };
        let Ok(fields) = Fields::nested("output", raw) else { continue };
        let kind = match fields.raw("type").map(RawValue::get) {
            Some("\"function_call\"") => "function_call_output",
            Some("\"custom_tool_call\"") => "custom_tool_call_output",
            Some(_) | None => continue,
        };
        let mut stub = b"{\"type\":\"".to_vec();
        stub.extend_from_slice(kind.as_bytes());
        stub.extend_from_slice(b"\",\"call_id\":");
        stub.extend_from_slice(fields.raw("call_id").map_or("null", RawValue::get).as_bytes());
        if kind == "function_call_output" {
            stub.extend_from_slice(b",\"name\":");
            stub.extend_from_slice(fields.raw("name").map_or("null", RawValue::get).as_bytes());
        }
        stub.push(b'}');
        stubs.push(stub);
    }
    stubs
}

fn push_steer(out: &mut Vec<u8>, steer: &Steer) {
    out.extend_from_slice(b",\"steer\":{\"id\":");
    json::push_string(out, &steer.id);
    out.extend_from_slice(b",\"previous_response_id\":");
    json::push_string(out, &steer.of);
    out.push(b'}');
}

fn push_pending(responses: &mut ResponsesAssembler, out: &mut Outgoing, steer: &Steer, required: &[Vec<u8>]) {
    responses.aside("response.steer.pending", out, |out| {
        push_steer(out, steer);
        out.extend_from_slice(b",\"reason\":\"waiting_for_required_input\",\"required_input\":[");
        out.extend_from_slice(&required.join(&b','));
        out.push(b']');
    });
}

fn push_failed(
    out: &mut Outgoing,
    error: SteerError,
    message: &str,
    (id, previous, input): (Option<&str>, &str, &str),
) {
    out.event("response.steer.failed", |out| {
        out.extend_from_slice(
            b"{\"type\":\"response.steer.failed\",\"error\":{\"type\":\"invalid_request_error\",\"code\":",
        );
        json::push_string(out, error.code());
        out.extend_from_slice(b",\"message\":");
        json::push_string(out, message);
        out.extend_from_slice(b"},\"steer\":{");
        if let Some(id) = id {
            out.extend_from_slice(b"\"id\":");
            json::push_string(out, id);
            out.push(b',');
        }
        out.extend_from_slice(b"\"previous_response_id\":");
        json::push_string(out, previous);
        out.extend_from_slice(b",\"input\":");
        out.extend_from_slice(input.as_bytes());
        out.extend_from_slice(b"},\"sequence_number\":0}");
    });
}
