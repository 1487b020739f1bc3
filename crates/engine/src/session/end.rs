//! The end of a turn: whole, failed, interrupted or left alone; and what is remembered of it.

use super::background::record;
use super::guard;
use super::hedge;
use super::lane::{LaneId, Remembered, Succession};
use super::limit;
use super::steer::SteerError;
use super::{Answer, Effect, Life, Outcome, Session, Status, Transport, TurnId, Why};
use crate::assembler::{Assembler, Conclusion};
use crate::compaction::Progress;
use crate::draft::Contract;
use crate::error::{ErrorKind, Refusal};
use crate::fleet::Speaks;
use crate::router::Verdict;
use crate::stages::Stage;
use crate::time::Now;
use crate::tokens;
use crate::turn::{Turn, TurnState};
use bytes::Bytes;
use flashlane_wire::chat::Usage;
use std::collections::VecDeque;
use std::sync::Arc;

impl Session {
    /// The answer is whole: its connection may serve another.
    pub(super) fn conclude(&mut self, id: TurnId, now: Now) {
        if let Some(turn) = self.lanes.turn(id)
            && let Some(grant) = turn.grant()
        {
            turn.end_attempt(None, now);
            hedge::lose(&mut self.effects, turn, now);
            turn.went_on(now);
            let ending = turn.ending(Verdict::Served { ttft_ns: turn.ttft_ns() });
            self.effects.push_back(Effect::Park(id));
            self.effects.push_back(Effect::Release(grant, ending));
        }
        match self.lanes.turn(id).map(|turn| turn.compaction) {
            Some(Progress::Running { tokens_max }) => self.take_summary(id, tokens_max, now),
            Some(Progress::NotYet | Progress::Done) | None => self.wrap_up(id, now),
        }
    }

    /// Drops the turn's stream, or its place among those that wait.
    pub(super) fn leave(&mut self, id: TurnId, verdict: Verdict) {
        if let Some(turn) = self.lanes.turn(id) {
            leave(&mut self.effects, turn, verdict);
        }
    }

    /// Closes the answer's items, has it stored if it must be, then ends it.
    pub(super) fn wrap_up(&mut self, id: TurnId, now: Now) {
        self.speak(id.lane);
        let Some(turn) = self.lanes.turn(id) else { return };
        turn.times.stages.enter(Stage::Gateway, now.mono_ns);
        // An engine that went on has read what another made, too.
        let is_plain = turn.media().is_empty() && turn.migration.is_none();
        let (told_bytes, has_taken_nothing) = (turn.told().message_bytes(), turn.is_going_on());
        let responses = match &mut turn.assembler {
            Assembler::Responses(responses) => responses,
            Assembler::Chat(chat) => {
                if let (None, Contract::Chat(draft)) = (chat.usage(), &turn.draft.contract) {
                    chat.set_usage(estimated(draft.messages.len(), turn.deltas));
                }
                chat.conclude(&mut self.outgoing);
                let object = chat.object();
                self.answer_object(object);
                self.finish(id, Status::Completed, None, now);
                return;
            }
        };
        match (responses.usage(), turn.tokens) {
            // Who was to go on has taken nothing.
            (None, _) if has_taken_nothing => responses.set_usage(Usage::default()),
            (Some(usage), Some(ours)) if is_plain => {
                limit::learn(&self.shared, (turn.served, &turn.draft.model), ours, usage);
            }
            (Some(_), _) => {}
            (None, Some(input)) => responses.set_usage(Usage { input, output: turn.deltas, ..Usage::default() }),
            (None, None) => responses.set_usage(estimated(told_bytes, turn.deltas)),
        }
        let conclusion = responses.conclude(&mut self.outgoing);
        let object = responses.object(conclusion, now);
        let piece = Arc::new(responses.take_piece());
        guard::pass_output(&self.shared, turn, &piece);
        turn.chain.append(Arc::clone(&piece));
        let Contract::Responses(draft) = &turn.draft.contract else { return };
        let (is_kept, is_job) = (draft.store, turn.draft.background().is_some());
        let kept = || Box::new(record(self.owner, turn, piece.items.len(), Bytes::from(object.clone()), now));
        let record = (is_kept || is_job).then(kept);
        turn.state = TurnState::Committing { conclusion, object, output: piece };
        match record {
            // Its journal shows the last event when the record is kept, too.
            Some(record) if is_job => {
                self.effects.push_back(Effect::EndJob(id, record));
                self.end(id, now);
            }
            Some(record) => self.effects.push_back(Effect::Commit(id, record)),
            None => self.end(id, now),
        }
    }

    /// The store keeps the response: its client may know. If it cannot be kept, it did not end well.
    pub fn handle_committed(&mut self, turn: TurnId, result: Result<(), Refusal>, now: Now) {
        if self.lanes.turn(turn).is_some_and(|turn| matches!(turn.state, TurnState::Committing { .. })) {
            match result {
                Ok(()) => self.end(turn, now),
                Err(refusal) => self.fail(turn, &refusal, now),
            }
        }
        self.advance(now);
    }

    /// Sends the terminal event.
    fn end(&mut self, id: TurnId, now: Now) {
        self.speak(id.lane);
        self.foretell_timing(id, now);
        let warm_ups_max = self.shared.settings.warm_ups_max;
        let Some(turn) = self.lanes.turn(id) else { return };
        let TurnState::Committing { conclusion, object, output } =
            std::mem::replace(&mut turn.state, TurnState::Waiting)
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
        self.remember(id.lane, remembered, warm_ups_max);
        self.keep_output(id.lane, &output.items);
        self.settle_steers(id, &output.items);
        self.answer_object(Bytes::from(object));
        // Nothing goes on from a child but its parent.
        let is_childs = self.lanes.lane(id.lane).is_some_and(|lane| lane.kinship.is_some());
        let ended = self.finish(id, status, None, now);
        if let (Status::Completed | Status::Incomplete, Some(turn), false) = (status, ended, is_childs) {
            self.hand_over(turn);
        }
    }

    fn remember(&mut self, lane: LaneId, response: Remembered, warm_ups_max: usize) {
        if let (Transport::WebSocket { .. }, Some(lane)) = (&self.transport, self.lanes.lane(lane)) {
            lane.remember(response, warm_ups_max);
        }
    }

    /// What a failed turn of this lane went on from is forgotten: PROTOCOL clause 3.4.
    pub(super) fn evict(&mut self, lane: LaneId, previous: Option<&str>) {
        if let (Some(lane), Some(previous)) = (self.lanes.lane(lane), previous) {
            lane.forget(previous);
        }
    }

    /// The input's tokens were all that was asked for.
    pub(super) fn answer_count(&mut self, id: TurnId, tokens: u64, now: Now) {
        let object = format!("{{\"object\":\"response.input_tokens\",\"input_tokens\":{tokens}}}");
        self.answer_object(Bytes::from(object));
        self.finish(id, Status::Counted, None, now);
    }

    pub(super) fn answer_object(&mut self, object: Bytes) {
        if self.is_muted() {
            return;
        }
        if let Transport::Http { answer, .. } = &mut self.transport
            && self.outgoing.is_collecting()
        {
            *answer = Some(Answer::Json(object));
        }
    }

    /// Ends a turn by an error: `response.failed` if the client knows of it, an error otherwise.
    pub(super) fn fail(&mut self, id: TurnId, refusal: &Refusal, now: Now) {
        if !self.go_on_uncompacted(id, verdict_of(refusal.kind), now) {
            self.give_up(id, refusal, now);
        }
    }

    /// As [`Self::fail`], whatever else could be done.
    pub(super) fn give_up(&mut self, id: TurnId, refusal: &Refusal, now: Now) {
        self.disband(id, Some(refusal), now);
        self.speak(id.lane);
        let Some(turn) = self.lanes.turn(id) else { return };
        let previous = turn.previous().map(str::to_owned);
        let steers = std::mem::take(&mut turn.steers);
        let is_silent = turn.parent_sequence.is_some() && !steers.is_empty();
        // A comment has settled the status of a stream that waited: it ends as one that was announced.
        if let (Transport::Http { streaming, .. }, Assembler::Responses(responses)) =
            (&self.transport, &mut turn.assembler)
            && (*streaming || !self.outgoing.is_empty())
            && !responses.is_announced()
        {
            responses.announce(false, &mut self.outgoing);
        }
        // What a child has said stays its parent's, whoever hears it.
        let is_collecting = self.outgoing.is_collecting() && id.lane == LaneId::default();
        let status = match (&mut turn.assembler, is_collecting) {
            (Assembler::Responses(responses), false) if responses.is_announced() => {
                let request_id = self.request_id.as_deref();
                responses.fail(refusal, request_id, &mut self.outgoing);
                let object = Bytes::from(responses.object_failed(refusal, request_id));
                self.end_job(id, object, now);
                Status::Failed
            }
            _ => {
                let status = if turn.served.is_some() { Status::Failed } else { Status::Refused };
                // Nobody asked for a successor by a request: its steers' failure is the answer.
                if !is_silent {
                    self.tell(refusal, now);
                }
                status
            }
        };
        self.leave(id, verdict_of(refusal.kind));
        self.evict(id.lane, previous.as_deref());
        self.fail_steers(id.lane, steers, SteerError::SuccessorFailed, &refusal.message);
        self.drop_steers(id.lane, &refusal.message);
        self.keep_refusal(id.lane, refusal);
        self.finish(id, status, Some(refusal.kind), now);
    }

    /// The running response of that id, once its client knows of it; its stream is dropped.
    fn stop(&mut self, response_id: &str, now: Now) -> Result<TurnId, Refusal> {
        // What is being stored has ended already, but for its last event.
        let is_ending = |id: &TurnId| self.lanes.running().any(|turn| turn.id == *id && turn.is_ending());
        let Some(id) = self.announced(response_id).filter(|id| !is_ending(id)) else {
            let message = format!("The response '{response_id}' is not running on this connection.");
            return Err(Refusal::new(ErrorKind::ResponseNotActive, message).with_param("response_id"));
        };
        self.release(id, now);
        Ok(id)
    }

    /// Drops the turn's stream, before the engine got to count; or those of its children.
    pub(super) fn release(&mut self, id: TurnId, now: Now) {
        if self.disband(id, None, now) {
            self.speak(id.lane);
            return;
        }
        self.leave(id, Verdict::Nothing);
        self.speak(id.lane);
        let Some(turn) = self.lanes.turn(id) else { return };
        let usage = match turn.is_going_on() {
            true => Usage::default(),
            false => estimated(turn.told().message_bytes(), turn.deltas),
        };
        if let Assembler::Responses(responses) = &mut turn.assembler {
            responses.set_usage(usage);
        }
    }

    /// `response.interrupt`: PROTOCOL clause 3.6.
    pub(super) fn interrupt(&mut self, response_id: &str, now: Now) -> Result<(), Refusal> {
        let id = self.stop(response_id, now)?;
        let warm_ups_max = self.shared.settings.warm_ups_max;
        if let Some(turn) = self.lanes.turn(id)
            && let Assembler::Responses(responses) = &mut turn.assembler
        {
            responses.interrupt(&mut self.outgoing);
            let piece = Arc::new(responses.take_piece());
            turn.chain.append(Arc::clone(&piece));
            let remembered = Remembered { id: responses.response_id(), chain: turn.chain.clone(), warm_up: false };
            self.remember(id.lane, remembered, warm_ups_max);
            self.keep_output(id.lane, &piece.items);
        }
        self.drop_steers(id.lane, "The response was interrupted.");
        self.finish(id, Status::Interrupted, None, now);
        self.advance(now);
        Ok(())
    }

    /// `response.cancel`: PROTOCOL clause 3.6.
    pub(super) fn cancel(&mut self, response_id: &str, now: Now) -> Result<(), Refusal> {
        let id = self.stop(response_id, now)?;
        if let Some(turn) = self.lanes.turn(id)
            && let Assembler::Responses(responses) = &mut turn.assembler
        {
            responses.cancel(&mut self.outgoing);
        }
        self.drop_steers(id.lane, "The response was cancelled.");
        self.finish(id, Status::Cancelled, None, now);
        self.advance(now);
        Ok(())
    }

    /// The client is gone: nothing generates for nobody.
    pub fn handle_client_gone(&mut self, now: Now) {
        self.lanes.clear();
        self.life = Life::Closed;
        let running: Vec<_> = self.lanes.running().map(|turn| turn.id).collect();
        for id in running {
            self.leave(id, Verdict::Nothing);
            self.finish(id, Status::Cancelled, None, now);
        }
        self.stop_prefill(now);
    }

    /// The server wants to end: the session does when nothing runs and nothing is queued.
    pub fn handle_drain(&mut self, now: Now) {
        if self.life == Life::Open && matches!(self.transport, Transport::WebSocket { .. }) {
            self.life = Life::Draining(Why::Restart);
            self.advance(now);
        }
    }

    /// The server can wait no longer: all that runs and all that waits is failed, so that its client can ask elsewhere.
    pub fn handle_over(&mut self, now: Now) {
        self.fail_all(&Why::Restart.refusal(), now);
        self.handle_drain(now);
        self.advance(now);
    }

    /// Nothing is sure of this session's turns any more: all that runs and all that waits is failed.
    pub fn handle_broken(&mut self, refusal: &Refusal, now: Now) {
        self.fail_all(refusal, now);
        self.advance(now);
    }

    /// How many turns have begun.
    #[must_use]
    pub fn turns_begun(&self) -> u32 {
        self.turns_begun
    }

    /// What the client sent last came to nothing by a mistake of ours, and so did the turns that it had begun: those from `number` on.
    pub fn handle_lost(&mut self, number: u32, refusal: &Refusal, now: Now) {
        let begun: Vec<_> = self.lanes.running().map(|turn| turn.id).filter(|id| id.number >= number).collect();
        if begun.is_empty() {
            self.refuse(refusal, now);
        }
        for id in begun {
            self.give_up(id, refusal, now);
        }
        self.advance(now);
    }

    fn fail_all(&mut self, refusal: &Refusal, now: Now) {
        let running: Vec<_> = self.lanes.running().map(|turn| turn.id).collect();
        for id in running {
            self.give_up(id, refusal, now);
        }
        while let Some((lane, queued)) = self.lanes.pop(usize::MAX) {
            self.speak(lane);
            self.turn_away((lane, queued.previous.as_deref()), queued.succession, refusal, now);
        }
        self.stop_prefill(now);
    }

    /// A request that waited is not served; of one that nobody sent, its steers' failure is the answer.
    pub(super) fn turn_away(
        &mut self,
        (lane, previous): (LaneId, Option<&str>),
        succession: Option<Succession>,
        refusal: &Refusal,
        now: Now,
    ) {
        self.evict(lane, previous);
        match succession {
            Some(Succession { steers, .. }) => {
                self.fail_steers(lane, steers, SteerError::SuccessorFailed, &refusal.message);
            }
            None => self.refuse(refusal, now),
        }
        self.turn_child_away(lane, refusal, now);
    }

    /// Removes the running turn and tells how it went.
    pub(super) fn finish(
        &mut self,
        id: TurnId,
        status: Status,
        error: Option<ErrorKind>,
        now: Now,
    ) -> Option<Box<Turn>> {
        let turn = self.lanes.lane(id.lane).and_then(|lane| lane.running.take())?;
        self.last_sent_ns = now.mono_ns;
        let outcome = self.outcome(&turn, status, error, now);
        if self.is_heard(id.lane) {
            self.tell_timing(&outcome);
        }
        self.effects.push_back(Effect::Finish(turn.id, Box::new(outcome)));
        self.end_child(&turn, status, now);
        Some(turn)
    }

    pub(super) fn outcome(&self, turn: &Turn, status: Status, error: Option<ErrorKind>, now: Now) -> Outcome {
        let endpoint = turn.served.and_then(|grant| self.shared.fleet.endpoint(grant.endpoint()));
        let since = |ns: u64| ns.saturating_sub(turn.times.received_ns);
        let carried = turn.chain.tools().into_iter().flat_map(|tools| tools.set.hosted());
        // A server of the Responses API is told of them.
        let is_passed =
            turn.served.is_some_and(|grant| self.shared.fleet.contract(grant.endpoint()) == Speaks::Responses);
        let hosted_tools = turn.draft.hosted_tools().chain(carried.copied()).filter(|_| !is_passed).collect();
        let mut stages = turn.times.stages.clone();
        stages.enter(Stage::Gateway, now.mono_ns);
        let (parts, traits) = (stages.over(), &turn.draft.traits);
        Outcome {
            response_id: turn.response_id(),
            model: Arc::clone(&turn.draft.model),
            status,
            error,
            tier: turn.served.map(|grant| grant.tier()),
            endpoint: endpoint.map(|endpoint| Arc::clone(&endpoint.name)),
            decision: turn.served.map(|grant| grant.decision),
            simulated: match endpoint {
                Some(endpoint) => endpoint.simulated,
                None => self
                    .shared
                    .fleet
                    .model(&turn.draft.model)
                    .is_some_and(|model| self.shared.fleet.is_simulated(model)),
            },
            usage: turn.usage(),
            upstream_times: turn.upstream_times,
            began_ns: turn.times.received_ns,
            ttft_ns: turn.times.first_token_ns.map(since),
            total_ns: parts.total_ns(),
            parts,
            steps: stages.steps().to_vec(),
            gateway_ns: turn.times.busy_ns,
            origin: traits.origin,
            child: turn.draft.kin.of().cloned().or_else(|| self.branch_of(turn)).map(Box::new),
            session: traits.origin.session.or(traits.keys.session),
            deltas: turn.deltas + turn.migration.as_ref().map_or(0, |migration| migration.deltas),
            gaps: turn.gaps,
            // Of what brought no token, nothing was of use.
            read_ahead: turn.before.as_ref().filter(|_| turn.deltas > 0).map(|before| before.used).unwrap_or_default(),
            place: turn.place,
            attempts: turn.attempts.clone(),
            hedge: turn.hedge_cost(),
            splices: turn.migration.as_ref().map(|migration| migration.told()).unwrap_or_default(),
            hosted_tools,
            guard: turn.guarded.clone().map(|guarded| Box::new(guarded.ended(now))),
            trace: turn.trace.clone(),
        }
    }
}

/// What the turn holds is given back: its stream is dropped, or its place among those that wait.
pub(super) fn leave(effects: &mut VecDeque<Effect>, turn: &mut Turn, verdict: Verdict) {
    hedge::leave(effects, turn);
    if let Some(grant) = turn.grant() {
        effects.push_back(Effect::Abort(turn.id));
        effects.push_back(Effect::Release(grant, turn.ending(verdict)));
    } else if let TurnState::Queued { place, .. } = turn.state {
        effects.push_back(Effect::Forget(place.waiter));
    }
}

/// What a failure says of the endpoint that had the turn: nothing, where the request or this server is at fault.
pub(super) fn verdict_of(kind: ErrorKind) -> Verdict {
    if kind == ErrorKind::RateLimited {
        Verdict::Refused { wait_ms: None }
    } else if matches!(kind, ErrorKind::UpstreamFailed | ErrorKind::UpstreamTimeout) {
        Verdict::Failed
    } else {
        Verdict::Nothing
    }
}

/// Usage where the engine told none: the prompt by its bytes, a token a delta.
pub(super) fn estimated(prompt_bytes: usize, deltas: u64) -> Usage {
    Usage { input: tokens::estimate(prompt_bytes), output: deltas, ..Usage::default() }
}
