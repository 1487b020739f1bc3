//! A response in the background: the same turn, with a journal in the place of the client. It is kept before its client is told, and
//! ends by one record that is kept together with its last events. PROTOCOL clause 10.
//!
//! Knows nothing of who writes the journal, or reads it.

use super::{Answer, Effect, Owner, Record, Session, Status, Transport, TurnId};
use crate::assembler::Assembler;
use crate::draft::Contract;
use crate::error::{ErrorKind, Refusal};
use crate::time::Now;
use crate::turn::{Turn, TurnState};
use bytes::Bytes;
use flashlane_wire::responses::CreateRequest;
use std::sync::Arc;

/// A background response that waits to be kept.
#[derive(Debug)]
pub struct Enlisting {
    pub turn: TurnId,
    /// As it is now: its context without output, and the response object, queued.
    pub record: Record,
    /// The request's body.
    pub request: Bytes,
    /// Its events can be read, while it runs and after.
    pub is_streamed: bool,
    /// Where not, it is kept in memory alone: it goes on from what was not to be stored.
    pub is_stored: bool,
}

impl Session {
    /// # Errors
    /// A request that cannot run in the background.
    pub(super) fn may_run_in_background(&self, request: &CreateRequest<'_>) -> Result<(), Refusal> {
        if matches!(self.transport, Transport::WebSocket { .. }) {
            let message =
                "'background' is not supported over a WebSocket: POST the request, or leave 'background' out.";
            return Err(Refusal::new(ErrorKind::UnsupportedParameter, message).with_param("background"));
        }
        if !request.store {
            let message = "Invalid 'store': a background response must be kept until it is asked for. \
                           Leave 'store' out, or send true.";
            return Err(Refusal::new(ErrorKind::InvalidValue, message).with_param("store"));
        }
        Ok(())
    }

    /// Has the response kept before anybody hears of it.
    pub(super) fn enlist(&mut self, id: TurnId, now: Now) {
        let owner = self.owner;
        let Some(turn) = self.lanes.turn(id) else { return };
        turn.state = TurnState::Enlisting;
        let Assembler::Responses(responses) = &turn.assembler else { return };
        let object = Bytes::from(responses.object_queued());
        let Some(background) = turn.draft.background() else { return };
        let (request, is_streamed) = (background.request.clone(), background.is_streamed);
        let is_stored = matches!(&turn.draft.contract, Contract::Responses(responses) if responses.store);
        let record = record(owner, turn, 0, object, now);
        let enlisting = Enlisting { turn: id, record, request, is_streamed, is_stored };
        if let Transport::Http { answer, .. } = &mut self.transport {
            *answer = Some(Answer::Background(Box::new(enlisting)));
        }
    }

    /// The response is kept, and runs from here on without a client; or why it is not.
    pub fn handle_enlisted(&mut self, id: TurnId, result: Result<(), Refusal>, now: Now) {
        let enlisting = self.lanes.turn(id).filter(|turn| matches!(turn.state, TurnState::Enlisting));
        let Some(turn) = enlisting else { return };
        match result {
            Ok(()) => {
                turn.state = TurnState::Waiting;
                if let Assembler::Responses(responses) = &mut turn.assembler {
                    responses.enlist(&mut self.outgoing);
                }
                // A child is measured where its parent cannot be refused for it any more.
                match turn.is_child() {
                    true => self.measure(id, now),
                    false => self.ask(id, now),
                }
            }
            // Whatever else it might have done: what is not kept does not run.
            Err(refusal) => self.give_up(id, &refusal, now),
        }
        self.advance(now);
    }

    /// Nobody wants the background response any more: its upstream is cancelled, and what was finished is kept.
    pub fn handle_cancelled(&mut self, id: TurnId, now: Now) {
        self.release(id, now);
        let Some(turn) = self.lanes.turn(id).filter(|turn| turn.draft.background().is_some()) else { return };
        let Assembler::Responses(responses) = &turn.assembler else { return };
        let object = Bytes::from(responses.object_cancelled());
        self.end_job(id, object, now);
        self.finish(id, Status::Cancelled, None, now);
        self.advance(now);
    }

    /// The server cannot go on with the background response, or with the turn that this stream is for.
    pub fn handle_stopped(&mut self, id: TurnId, refusal: &Refusal, now: Now) {
        let id = self.hedged_by(id).map_or(id, |turn| turn.id);
        self.give_up(id, refusal, now);
        self.advance(now);
    }

    /// The last record of a background response that has no output to go on from.
    pub(super) fn end_job(&mut self, id: TurnId, object: Bytes, now: Now) {
        let owner = self.owner;
        if let Some(turn) = self.lanes.turn(id).filter(|turn| turn.draft.background().is_some()) {
            // What was not answered is not added to a conversation.
            let record = Record { conversation: None, ..record(owner, turn, 0, object, now) };
            self.effects.push_back(Effect::EndJob(id, Box::new(record)));
        }
    }
}

/// A turn as the store keeps it; the last `outputs` of its chain's items are output.
pub(super) fn record(owner: Owner, turn: &Turn, outputs: usize, response: Bytes, now: Now) -> Record {
    let (id, previous) = match (&turn.assembler, &turn.draft.contract) {
        (Assembler::Responses(responses), Contract::Responses(draft)) => {
            (responses.response_id(), draft.previous.clone())
        }
        (Assembler::Responses(_) | Assembler::Chat(_), _) => (String::new(), None),
    };
    Record {
        id,
        owner,
        previous,
        conversation: turn.conversation().map(str::to_owned),
        children: turn.chain.children().to_vec(),
        settled: turn.children.as_ref().map(|children| children.settled.clone()).unwrap_or_default(),
        inherited: turn.items_inherited,
        outputs,
        runs: turn.chain.pieces().iter().map(|piece| Arc::clone(&piece.items)).collect(),
        response,
        created_unix_ms: now.unix_ms,
    }
}
