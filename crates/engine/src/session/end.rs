//! The end of a turn: whole, failed, interrupted or left alone; and what is remembered of it.

use super::{Answer, Effect, Life, Outcome, Record, Remembered, Session, Status, Transport, TurnId};
use crate::assembler::{Assembler, Conclusion, Timing};
use crate::draft::Contract;
use crate::error::{ErrorKind, Refusal};
use crate::time::Now;
use crate::tokens;
use crate::turn::{Turn, TurnState};
use bytes::Bytes;
use flashlane_wire::chat::Usage;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Session {
    /// The answer is whole: closes its items, has it stored if it must be, then ends it.
    pub(super) fn conclude(&mut self, now: Now) {
        let Some(turn) = &mut self.running else { return };
        if let Some(grant) = turn.grant() {
            self.effects.push_back(Effect::Park(turn.id));
            self.effects.push_back(Effect::Release(grant));
        }
        let responses = match &mut turn.assembler {
            Assembler::Responses(responses) => responses,
            Assembler::Chat(chat) => {
                if let (None, Contract::Chat(draft)) = (chat.usage(), &turn.draft.contract) {
                    chat.set_usage(estimated(draft.messages.len(), turn.deltas));
                }
                chat.conclude(&mut self.outgoing);
                let object = chat.object();
                self.answer_object(object);
                self.finish(Status::Completed, None, now);
                return;
            }
        };
        if responses.usage().is_none() {
            responses.set_usage(estimated(turn.chain.message_bytes(), turn.deltas));
        }
        let conclusion = responses.conclude(&mut self.outgoing);
        let object = responses.object(conclusion, now);
        let id = responses.response_id();
        turn.chain.append(Arc::new(responses.take_piece()));
        let Contract::Responses(draft) = &turn.draft.contract else { return };
        if !draft.store {
            turn.state = TurnState::Committing { conclusion, object };
            self.end(now);
            return;
        }
        let record = Record {
            id,
            owner: self.owner,
            items: turn.chain.items().cloned().collect(),
            response: Bytes::from(object.clone()),
            created_unix_ms: now.unix_ms,
        };
        turn.state = TurnState::Committing { conclusion, object };
        self.effects.push_back(Effect::Commit(turn.id, Box::new(record)));
    }

    /// The store keeps the response: its client may know. If it cannot be kept, it did not end well.
    pub fn handle_committed(&mut self, turn: TurnId, result: Result<(), Refusal>, now: Now) {
        if self.is_running(turn, |state| matches!(state, TurnState::Committing { .. })) {
            match result {
                Ok(()) => self.end(now),
                Err(refusal) => self.fail(&refusal, now),
            }
        }
        self.advance(now);
    }

    /// Sends the terminal event.
    pub(super) fn end(&mut self, now: Now) {
        let Some(turn) = &mut self.running else { return };
        let TurnState::Committing { conclusion, object } = std::mem::replace(&mut turn.state, TurnState::Waiting)
        else {
            return;
        };
        let (Assembler::Responses(responses), Contract::Responses(draft)) = (&mut turn.assembler, &turn.draft.contract)
        else {
            return;
        };
        responses.terminal(conclusion, &object, &mut self.outgoing);
        let remembered = Remembered { id: responses.response_id(), chain: turn.chain.clone(), warm_up: draft.warm_up };
        let status = match conclusion {
            Conclusion::Completed if draft.warm_up => Status::WarmUp,
            Conclusion::Completed => Status::Completed,
            Conclusion::Incomplete(_) => Status::Incomplete,
        };
        self.remember(remembered);
        self.answer_object(Bytes::from(object));
        self.finish(status, None, now);
    }

    /// The latest response, and the last few warm-ups, can be gone on from.
    fn remember(&mut self, response: Remembered) {
        if matches!(self.transport, Transport::Http { .. }) {
            return;
        }
        if !response.warm_up {
            self.memory.retain(|known| known.warm_up);
        }
        self.memory.push_back(response);
        while self.memory.len() > self.shared.settings.warm_ups_max + 1 {
            let oldest_warm_up = self.memory.iter().position(|known| known.warm_up);
            self.memory.remove(oldest_warm_up.unwrap_or(0));
        }
    }

    fn answer_object(&mut self, object: Bytes) {
        if let Transport::Http { answer, .. } = &mut self.transport
            && self.outgoing.is_collecting()
        {
            *answer = Some(Answer::Json(object));
        }
    }

    /// Ends the running turn by an error: `response.failed` if the client knows of it, an error otherwise.
    pub(super) fn fail(&mut self, refusal: &Refusal, now: Now) {
        let Some(turn) = &mut self.running else { return };
        if let Some(grant) = turn.grant() {
            self.effects.push_back(Effect::Abort(turn.id));
            self.effects.push_back(Effect::Release(grant));
        }
        let status = match (&mut turn.assembler, self.outgoing.is_collecting()) {
            (Assembler::Responses(responses), false) if responses.is_announced() => {
                responses.fail(refusal, &mut self.outgoing);
                Status::Failed
            }
            _ if turn.served.is_some() => {
                self.tell(refusal, now);
                Status::Failed
            }
            _ => {
                self.tell(refusal, now);
                Status::Refused
            }
        };
        self.finish(status, Some(refusal.kind), now);
    }

    /// `response.interrupt`: PROTOCOL clause 3.6.
    pub(super) fn interrupt(&mut self, response_id: &str, now: Now) -> Result<(), Refusal> {
        let running = self.running.as_deref_mut().filter(|turn| match &turn.assembler {
            Assembler::Responses(responses) => responses.is_announced() && responses.response_id() == response_id,
            Assembler::Chat(_) => false,
        });
        let Some(turn) = running else {
            let message = format!("The response '{response_id}' is not running on this connection.");
            return Err(Refusal::new(ErrorKind::ResponseNotActive, message).with_param("response_id"));
        };
        if let Some(grant) = turn.grant() {
            self.effects.push_back(Effect::Abort(turn.id));
            self.effects.push_back(Effect::Release(grant));
        }
        if let Assembler::Responses(responses) = &mut turn.assembler {
            responses.set_usage(estimated(turn.chain.message_bytes(), turn.deltas));
            responses.interrupt(&mut self.outgoing);
            turn.chain.append(Arc::new(responses.take_piece()));
            let remembered = Remembered { id: responses.response_id(), chain: turn.chain.clone(), warm_up: false };
            self.remember(remembered);
        }
        self.finish(Status::Interrupted, None, now);
        self.advance(now);
        Ok(())
    }

    /// The client is gone: nothing generates for nobody.
    pub fn handle_client_gone(&mut self, now: Now) {
        self.queued.clear();
        self.queued_bytes = 0;
        self.life = Life::Closed;
        if let Some(turn) = &self.running {
            if let Some(grant) = turn.grant() {
                self.effects.push_back(Effect::Abort(turn.id));
                self.effects.push_back(Effect::Release(grant));
            }
            self.finish(Status::Cancelled, None, now);
        }
    }

    /// The server wants to end: the session does when nothing runs and nothing is queued.
    pub fn handle_drain(&mut self, now: Now) {
        if self.life == Life::Open && matches!(self.transport, Transport::WebSocket { .. }) {
            self.life = Life::Draining;
            self.advance(now);
        }
    }

    /// Removes the running turn and tells how it went.
    fn finish(&mut self, status: Status, error: Option<ErrorKind>, now: Now) {
        let Some(turn) = self.running.take() else { return };
        self.last_sent_ns = now.mono_ns;
        let outcome = self.outcome(&turn, status, error, now);
        if let (Transport::WebSocket { timing: true }, Some(tier)) = (&self.transport, outcome.tier) {
            let timing = Timing {
                response_id: &outcome.response_id,
                tier: tier.name(),
                endpoint: outcome.endpoint.as_deref().unwrap_or_default(),
                simulated: outcome.simulated,
                ttft_ns: outcome.ttft_ns.unwrap_or(0),
                gateway_ns: outcome.gateway_ns,
                total_ns: outcome.total_ns,
            };
            timing.send(&mut self.outgoing);
        }
        self.effects.push_back(Effect::Finish(turn.id, Box::new(outcome)));
    }

    fn outcome(&self, turn: &Turn, status: Status, error: Option<ErrorKind>, now: Now) -> Outcome {
        let endpoint = turn.served.and_then(|grant| self.shared.fleet.endpoint(grant.endpoint));
        let since = |ns: u64| ns.saturating_sub(turn.times.received_ns);
        let response_id = match &turn.assembler {
            Assembler::Responses(responses) => responses.response_id(),
            Assembler::Chat(chat) => chat.id().to_owned(),
        };
        let carried = turn.chain.tools().map(|tools| tools.set.hosted()).unwrap_or_default();
        let hosted_tools: BTreeSet<&String> = turn.draft.hosted_tools().chain(carried).collect();
        Outcome {
            response_id,
            model: Arc::clone(&turn.draft.model),
            status,
            error,
            tier: turn.served.map(|grant| grant.tier),
            endpoint: endpoint.map(|endpoint| Arc::clone(&endpoint.name)),
            simulated: match endpoint {
                Some(endpoint) => endpoint.simulated,
                None => self
                    .shared
                    .fleet
                    .model(&turn.draft.model)
                    .is_some_and(|model| self.shared.fleet.is_simulated(model)),
            },
            usage: turn.assembler.usage().unwrap_or_default(),
            ttft_ns: turn.times.first_token_ns.map(since),
            total_ns: since(now.mono_ns),
            gateway_ns: turn.times.busy_ns,
            deltas: turn.deltas,
            attempts_failed: turn.attempts_failed.clone(),
            hosted_tools: hosted_tools.into_iter().cloned().collect(),
        }
    }

    pub(super) fn is_running(&self, turn: TurnId, state: impl Fn(&TurnState) -> bool) -> bool {
        self.running.as_ref().is_some_and(|running| running.id == turn && state(&running.state))
    }
}

/// Usage where the engine told none: the prompt by its bytes, a token a delta.
fn estimated(prompt_bytes: usize, deltas: u64) -> Usage {
    Usage { input: tokens::estimate(prompt_bytes), output: deltas, ..Usage::default() }
}
