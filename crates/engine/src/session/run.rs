//! The life of a turn inside its session: start, grant, stream, end.

use super::{Effect, Life, Outcome, Record, Remembered, Session, Status, Transport, TurnId};
use crate::admission::{Grant, Ticket};
use crate::assembler::{Assembler, ChatAssembler, Conclusion, ResponsesAssembler, Timing};
use crate::chain::{Chain, render_items};
use crate::draft::{Contract, Draft, Tools, tool_fields};
use crate::error::{ErrorKind, Refusal};
use crate::router;
use crate::time::Now;
use crate::tokens;
use crate::turn::{Turn, TurnState, may_try_elsewhere, refusal_of, refusal_of_error};
use crate::upstream::{Ended, UpstreamEvent, UpstreamFailure, UpstreamRequest};
use bytes::Bytes;
use flashlane_wire::chat::{ChunkReader, Read, Usage};
use flashlane_wire::sse;
use serde_json::value::RawValue;
use std::sync::Arc;

impl Session {
    /// Starts the next request, if none runs.
    pub(super) fn advance(&mut self, now: Now) {
        while self.running.is_none() {
            let Some(draft) = self.queued.pop_front() else { break };
            self.start(draft, now);
        }
        if self.running.is_none() && self.life == Life::Draining {
            self.life = Life::Closed;
            self.effects.push_back(Effect::Close { code: 1012, reason: "the server is restarting" });
        }
    }

    fn start(&mut self, draft: Draft, now: Now) {
        let id = TurnId(self.turns_begun);
        self.turns_begun = self.turns_begun.wrapping_add(1);
        let hex = self.ids.draw();
        let mut previous = None;
        let assembler = match &draft.contract {
            Contract::Responses(responses) => {
                previous.clone_from(&responses.previous);
                let tools = Arc::clone(&responses.tools);
                Assembler::Responses(Box::new(ResponsesAssembler::new(hex, responses.frame.clone(), tools, now)))
            }
            Contract::Chat(chat) => {
                Assembler::Chat(Box::new(ChatAssembler::new(&hex, &draft.model, chat.include_usage, now)))
            }
        };
        self.running = Some(Box::new(Turn::new(id, draft, assembler, now)));
        match previous {
            None => self.begin(Chain::default(), now),
            Some(previous) => match self.memory.iter().find(|known| known.id == previous) {
                Some(known) => self.begin(known.chain.clone(), now),
                None => self.effects.push_back(Effect::Load(id, previous)),
            },
        }
    }

    /// The store's answer: the items of the response that was asked for.
    pub fn handle_loaded(&mut self, turn: TurnId, found: Option<Vec<Bytes>>, now: Now) {
        if !self.is_running(turn, |state| matches!(state, TurnState::Loading)) {
            return;
        }
        let chain = match found {
            Some(items) => chain_of(&items),
            None => Err(Refusal::new(ErrorKind::PreviousResponseNotFound, self.not_found_message())
                .with_param("previous_response_id")),
        };
        match chain {
            Ok(chain) => self.begin(chain, now),
            Err(refusal) => self.fail(&refusal, now),
        }
        self.advance(now);
    }

    fn not_found_message(&self) -> String {
        let previous = self.running.as_ref().and_then(|turn| match &turn.draft.contract {
            Contract::Responses(responses) => responses.previous.as_deref(),
            Contract::Chat(_) => None,
        });
        format!("Previous response with id '{}' not found.", previous.unwrap_or_default())
    }

    /// The chain is known: adds the input, and asks for a place or answers the warm-up.
    fn begin(&mut self, mut chain: Chain, now: Now) {
        let Some(turn) = &mut self.running else { return };
        let mut warm_up = false;
        if let Contract::Responses(responses) = &turn.draft.contract {
            chain.append(Arc::clone(&responses.input));
            if let Some(tools) = &responses.added_tools {
                chain.add_tools(tools);
            }
            warm_up = responses.warm_up;
        }
        let bytes = chain.bytes();
        turn.chain = chain;
        turn.state = TurnState::Waiting;
        let max = self.shared.settings.chain_bytes_max;
        if bytes > max {
            let message = format!("The conversation has {bytes} bytes, more than the {max} that this server keeps.");
            let refusal = Refusal::new(ErrorKind::ContextLengthExceeded, message).with_param("input");
            self.fail(&refusal, now);
        } else if warm_up {
            self.answer_warm_up(now);
        } else {
            self.ask();
        }
    }

    fn ask(&mut self) {
        if let Some(turn) = &self.running {
            let ticket = Ticket { model: Arc::clone(&turn.draft.model), tried: turn.tried.clone() };
            self.effects.push_back(Effect::Ask(turn.id, ticket));
        }
    }

    /// A warm-up costs no upstream turn: its input is kept, and a connection is seen to.
    fn answer_warm_up(&mut self, now: Now) {
        let Some(turn) = &mut self.running else { return };
        if let Some(model) = self.shared.fleet.model(&turn.draft.model)
            && let Some(endpoint) = router::first(&self.shared.fleet, model)
        {
            self.effects.push_back(Effect::Warm(endpoint));
        }
        if let Assembler::Responses(responses) = &mut turn.assembler {
            responses.set_usage(Usage { input: tokens::estimate(turn.chain.bytes()), ..Usage::default() });
            responses.announce(true, &mut self.outgoing);
        }
        self.conclude(now);
    }

    /// Admission's answer.
    pub fn handle_granted(&mut self, turn: TurnId, result: Result<Grant, Refusal>, now: Now) {
        if !self.is_running(turn, |state| matches!(state, TurnState::Waiting)) {
            self.effects.extend(result.ok().map(Effect::Release));
            return;
        }
        let opened = match result {
            Ok(grant) => self.open(grant, now),
            // Where endpoints were tried, what the last of them said is the better answer.
            Err(refusal) => Err(self.running.as_mut().and_then(|turn| turn.failure.take()).unwrap_or(refusal)),
        };
        if let Err(refusal) = opened {
            self.fail(&refusal, now);
        }
        self.advance(now);
    }

    fn open(&mut self, grant: Grant, now: Now) -> Result<(), Refusal> {
        let Some(turn) = &mut self.running else { return Ok(()) };
        let announce_at = now.after_ms(self.shared.settings.announce_after_ms);
        turn.state = TurnState::Opening { grant, announce_at: Some(announce_at) };
        let Some(model) = self.shared.fleet.model(&turn.draft.model) else {
            return Err(Refusal::new(ErrorKind::Internal, "the turn's model left the fleet"));
        };
        let mut fields = turn.draft.fields.clone();
        let messages = match &turn.draft.contract {
            Contract::Responses(responses) => {
                let tools = tools_of(&turn.chain, &responses.tools);
                fields.extend(tool_fields(&tools, &responses.choice, responses.parallel_tool_calls)?);
                if let Assembler::Responses(assembler) = &mut turn.assembler {
                    assembler.resolve_with(&tools);
                }
                responses.instructions.iter().chain(turn.chain.messages()).cloned().collect()
            }
            Contract::Chat(chat) => vec![chat.messages.clone()],
        };
        turn.assembler.serve_from(grant.tier.service_tier());
        turn.times.sent_upstream_ns = Some(now.mono_ns);
        turn.served = Some(grant);
        let request = UpstreamRequest {
            endpoint: grant.endpoint,
            model: Arc::clone(model.upstream(grant.tier)),
            fields,
            messages,
            cache_key: turn.draft.cache_key.clone(),
        };
        self.effects.push_back(Effect::Open(turn.id, Box::new(request)));
        Ok(())
    }

    /// What an upstream stream handed over.
    ///
    /// hot: per token
    pub fn handle_upstream(&mut self, turn: TurnId, event: UpstreamEvent<'_>, now: Now) {
        // A turn that ended drops what still comes for it.
        let Some(running) = self.running.as_deref_mut().filter(|running| running.id == turn) else { return };
        match (&mut running.state, event) {
            (TurnState::Streaming { .. }, UpstreamEvent::Bytes(bytes)) => {
                self.last_sent_ns = now.mono_ns;
                match self.stream(bytes, now) {
                    Ok(false) => {}
                    Ok(true) => self.conclude(now),
                    Err(refusal) => self.fail(&refusal, now),
                }
            }
            (TurnState::Opening { grant, .. }, UpstreamEvent::Opened) => {
                let events = sse::Decoder::new(self.shared.settings.event_bytes_max);
                running.state = TurnState::Streaming { grant: *grant, events, chunks: ChunkReader::default() };
                self.announce(now);
            }
            (TurnState::Opening { .. }, UpstreamEvent::Ended(Ended::Failed(failure))) => {
                self.try_elsewhere(&failure, now)
            }
            (TurnState::Opening { .. }, UpstreamEvent::Ended(Ended::Complete)) => {
                let failure = UpstreamFailure::Cut { reason: "it ended before it began".to_owned() };
                self.try_elsewhere(&failure, now);
            }
            // The model said why it stopped: the answer is whole, with or without a `[DONE]`.
            (TurnState::Streaming { .. }, UpstreamEvent::Ended(_)) if running.assembler.has_finished() => {
                self.conclude(now)
            }
            (TurnState::Streaming { grant, .. }, UpstreamEvent::Ended(ended)) => {
                let failure = match ended {
                    Ended::Failed(failure) => failure,
                    Ended::Complete => {
                        UpstreamFailure::Cut { reason: "the stream ended without a finish reason".to_owned() }
                    }
                };
                let refusal = refusal_of(&failure, endpoint_name(&self.shared, *grant));
                self.fail(&refusal, now);
            }
            (TurnState::Streaming { .. }, UpstreamEvent::Opened)
            | (TurnState::Opening { .. }, UpstreamEvent::Bytes(_))
            | (TurnState::Loading | TurnState::Waiting | TurnState::Committing { .. }, _) => {}
        }
        self.advance(now);
    }

    /// Takes upstream bytes; `true` when the stream said that it is done.
    ///
    /// hot: per token
    fn stream(&mut self, bytes: &[u8], now: Now) -> Result<bool, Refusal> {
        let Some(turn) = self.running.as_deref_mut() else { return Ok(false) };
        let TurnState::Streaming { grant, events, chunks } = &mut turn.state else { return Ok(false) };
        let (assembler, out) = (&mut turn.assembler, &mut self.outgoing);
        let mut deltas = 0;
        let mut done = false;
        let mut outcome = Ok(());
        let decoded = events.decode(bytes, |event| {
            if done || outcome.is_err() {
                return;
            }
            outcome = match chunks.read(event.data) {
                Ok(Read::Text(kind, raw)) => {
                    deltas += 1;
                    assembler.text(kind, raw, out)
                }
                Ok(Read::Chunk(chunk)) => match &chunk.error {
                    Some(error) => Err(refusal_of_error(error, endpoint_name(&self.shared, *grant), None)),
                    None => {
                        deltas += u64::from(chunk.choices.iter().any(|choice| choice.has_text()));
                        assembler.chunk(&chunk, out)
                    }
                },
                Ok(Read::Done) => {
                    done = true;
                    Ok(())
                }
                Err(error) => {
                    let failure = UpstreamFailure::Cut { reason: error.to_string() };
                    Err(refusal_of(&failure, endpoint_name(&self.shared, *grant)))
                }
            };
        });
        if deltas > 0 && turn.deltas == 0 {
            turn.times.first_token_ns = Some(now.mono_ns);
        }
        turn.deltas += deltas;
        turn.output_bytes += bytes.len();
        outcome?;
        if decoded.is_err() || turn.output_bytes > self.shared.settings.output_bytes_max {
            return Err(Refusal::new(ErrorKind::UpstreamFailed, "The upstream sent more than this server takes."));
        }
        if done && !turn.assembler.has_finished() {
            return Err(Refusal::new(ErrorKind::UpstreamFailed, "The upstream ended its answer without saying why."));
        }
        Ok(done)
    }

    fn announce(&mut self, now: Now) {
        let Some(turn) = &mut self.running else { return };
        if let TurnState::Opening { announce_at, .. } = &mut turn.state {
            *announce_at = None;
        }
        if let Assembler::Responses(responses) = &mut turn.assembler
            && !responses.is_announced()
        {
            responses.announce(false, &mut self.outgoing);
            self.last_sent_ns = now.mono_ns;
        }
    }

    /// An endpoint failed before it gave a token: another may serve the turn.
    fn try_elsewhere(&mut self, failure: &UpstreamFailure, now: Now) {
        let Some(turn) = &mut self.running else { return };
        let Some(grant) = turn.grant() else { return };
        let refusal = refusal_of(failure, endpoint_name(&self.shared, grant));
        if !may_try_elsewhere(failure) {
            self.fail(&refusal, now);
            return;
        }
        turn.tried.push(grant.endpoint);
        turn.failure = Some(refusal);
        turn.state = TurnState::Waiting;
        self.effects.push_back(Effect::Abort(turn.id));
        self.effects.push_back(Effect::Release(grant));
        self.ask();
    }

    /// The answer is whole: closes its items, has it stored if it must be, then ends it.
    fn conclude(&mut self, now: Now) {
        let Some(turn) = &mut self.running else { return };
        if let Some(grant) = turn.grant() {
            self.effects.push_back(Effect::Park(turn.id));
            self.effects.push_back(Effect::Release(grant));
        }
        let responses = match &mut turn.assembler {
            Assembler::Responses(responses) => responses,
            Assembler::Chat(chat) => {
                chat.conclude(&mut self.outgoing);
                let object = chat.object();
                self.answer_object(object);
                self.finish(Status::Completed, None, now);
                return;
            }
        };
        if responses.usage().is_none() {
            let input = tokens::estimate(turn.chain.bytes());
            responses.set_usage(Usage { input, output: turn.deltas, ..Usage::default() });
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

    /// The store keeps the response: its client may know.
    pub fn handle_committed(&mut self, turn: TurnId, now: Now) {
        if self.is_running(turn, |state| matches!(state, TurnState::Committing { .. })) {
            self.end(now);
        }
        self.advance(now);
    }

    /// Sends the terminal event.
    fn end(&mut self, now: Now) {
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
            *answer = Some(super::Answer::Json(object));
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

    /// When [`Self::handle_tick`] is due, on the monotonic clock.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let turn = self.running.as_ref()?;
        let announce = match &turn.state {
            TurnState::Opening { announce_at, .. } => *announce_at,
            TurnState::Loading | TurnState::Waiting | TurnState::Streaming { .. } | TurnState::Committing { .. } => {
                None
            }
        };
        let keepalive = self.keepalive_at();
        match (announce, keepalive) {
            (Some(announce), Some(keepalive)) => Some(announce.min(keepalive)),
            (announce, keepalive) => announce.or(keepalive),
        }
    }

    /// Only a client that listens to events needs signs of life, and only once its answer has begun.
    fn keepalive_at(&self) -> Option<u64> {
        let turn = self.running.as_ref()?;
        let begun = match &turn.assembler {
            Assembler::Responses(responses) => responses.is_announced(),
            Assembler::Chat(_) => matches!(turn.state, TurnState::Streaming { .. }),
        };
        let due = self.last_sent_ns.saturating_add(self.shared.settings.keepalive_ms.saturating_mul(1_000_000));
        (begun && !self.outgoing.is_collecting()).then_some(due)
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Now) {
        let announce = self.running.as_ref().is_some_and(|turn| match &turn.state {
            TurnState::Opening { announce_at: Some(at), .. } => *at <= now.mono_ns,
            TurnState::Opening { .. }
            | TurnState::Loading
            | TurnState::Waiting
            | TurnState::Streaming { .. }
            | TurnState::Committing { .. } => false,
        });
        if announce {
            self.announce(now);
        }
        if self.keepalive_at().is_some_and(|at| at <= now.mono_ns) {
            self.send_keepalive(now);
        }
    }

    /// The driver was at work for the running turn.
    pub fn handle_busy(&mut self, ns: u64) {
        if let Some(turn) = &mut self.running {
            turn.times.busy_ns += ns;
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
        let (response_id, hosted_tools) = match (&turn.assembler, &turn.draft.contract) {
            (Assembler::Responses(responses), Contract::Responses(draft)) => {
                (responses.response_id(), draft.tools.set.hosted().to_vec())
            }
            (Assembler::Responses(responses), Contract::Chat(_)) => (responses.response_id(), Vec::new()),
            (Assembler::Chat(chat), _) => (chat.id().to_owned(), Vec::new()),
        };
        Outcome {
            response_id,
            model: Arc::clone(&turn.draft.model),
            status,
            error,
            tier: turn.served.map(|grant| grant.tier),
            endpoint: endpoint.map(|endpoint| Arc::clone(&endpoint.name)),
            simulated: endpoint.is_some_and(|endpoint| endpoint.simulated),
            usage: turn.assembler.usage().unwrap_or_default(),
            ttft_ns: turn.times.first_token_ns.map(since),
            total_ns: since(now.mono_ns),
            gateway_ns: turn.times.busy_ns,
            deltas: turn.deltas,
            hosted_tools,
        }
    }

    fn is_running(&self, turn: TurnId, state: impl Fn(&TurnState) -> bool) -> bool {
        self.running.as_ref().is_some_and(|running| running.id == turn && state(&running.state))
    }
}

fn endpoint_name(shared: &super::Shared, grant: Grant) -> &str {
    shared.fleet.endpoint(grant.endpoint).map_or("unknown", |endpoint| &endpoint.name)
}

/// The request's tools, after those that came with the chain.
fn tools_of(chain: &Chain, own: &Arc<Tools>) -> Arc<Tools> {
    match chain.tools() {
        None => Arc::clone(own),
        Some(carried) => Arc::new(Tools::new(carried.with(&own.set))),
    }
}

/// A chain from the items that the store kept.
fn chain_of(items: &[Bytes]) -> Result<Chain, Refusal> {
    let broken = || Refusal::new(ErrorKind::Internal, "The stored conversation cannot be read.");
    let raw: Vec<&RawValue> =
        items.iter().map(|item| serde_json::from_slice(item)).collect::<Result<_, _>>().map_err(|_| broken())?;
    let rendered = render_items("input", &raw).map_err(|_| broken())?;
    let mut chain = Chain::default();
    chain.append(Arc::new(rendered.piece));
    if let Some(tools) = rendered.tools {
        chain.add_tools(&Arc::new(tools));
    }
    Ok(chain)
}
