//! The life of a turn inside its session: start, grant, stream, end.

use super::{Effect, Life, Session, TurnId};
use crate::admission::{Grant, Ticket};
use crate::assembler::{Assembler, ChatAssembler, ResponsesAssembler};
use crate::chain::{Chain, render_items};
use crate::draft::{Contract, Draft};
use crate::error::{ErrorKind, Refusal};
use crate::router;
use crate::time::Now;
use crate::tokens;
use crate::tools::{Tools, tool_fields};
use crate::turn::{FailedAttempt, Turn, TurnState, may_try_elsewhere, refusal_of, refusal_of_error};
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
            self.queued_bytes -= draft.as_ref().map_or(0, Draft::weight);
            match draft {
                Ok(draft) => self.start(draft, now),
                Err(refusal) => self.refuse(&refusal, now),
            }
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

    /// The store's answer: the items of the response that was asked for, or why they cannot be had.
    pub fn handle_loaded(&mut self, turn: TurnId, found: Result<Option<Vec<Bytes>>, Refusal>, now: Now) {
        if !self.is_running(turn, |state| matches!(state, TurnState::Loading)) {
            return;
        }
        let chain = match found {
            Ok(Some(items)) => chain_of(&items),
            Ok(None) => Err(Refusal::new(ErrorKind::PreviousResponseNotFound, self.not_found_message())
                .with_param("previous_response_id")),
            Err(refusal) => Err(refusal),
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
        let mut orphan = None;
        if let Contract::Responses(responses) = &turn.draft.contract {
            let known = |id: &Arc<str>| responses.input.calls.contains(id) || chain.has_call(id);
            orphan = responses.outputs.iter().find(|id| !known(id)).cloned();
            chain.append(Arc::clone(&responses.input));
            if let Some(tools) = &responses.added_tools {
                chain.add_tools(tools);
            }
            warm_up = responses.warm_up;
        }
        let bytes = chain.weight();
        turn.chain = chain;
        turn.state = TurnState::Waiting;
        let max = self.shared.settings.chain_bytes_max;
        if bytes > max {
            let message = format!("The conversation has {bytes} bytes, more than the {max} that this server keeps.");
            let refusal = Refusal::new(ErrorKind::ContextLengthExceeded, message).with_param("input");
            self.fail(&refusal, now);
        } else if turn.chain.message_bytes() == 0 && !warm_up && matches!(turn.draft.contract, Contract::Responses(_)) {
            let message =
                "Invalid 'input': it holds nothing that a model could answer, and neither does what it is chained to.";
            let refusal = Refusal::new(ErrorKind::InvalidValue, message).with_param("input");
            self.fail(&refusal, now);
        } else if let Some(id) = orphan {
            let message = format!("No tool call found for function call output with call_id {id}.");
            let refusal = Refusal::new(ErrorKind::OrphanOutput, message).with_param("input");
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
            responses.set_usage(Usage { input: tokens::estimate(turn.chain.message_bytes()), ..Usage::default() });
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
            Ok(grant) => self.open(grant, now).inspect_err(|_| self.effects.push_back(Effect::Release(grant))),
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
        let announce_at = now.after_ms(self.shared.settings.announce_after_ms);
        turn.state = TurnState::Opening { grant, announce_at: Some(announce_at) };
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
                    // A token moves nothing else.
                    Ok(false) => return,
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
                let endpoint = endpoint_name(&self.shared, *grant);
                let refusal = refusal_of(&failure, endpoint);
                running.attempts_failed.push(FailedAttempt::new(endpoint, &failure));
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

    pub(super) fn announce(&mut self, now: Now) {
        let Some(turn) = &mut self.running else { return };
        if let TurnState::Opening { announce_at, .. } = &mut turn.state {
            *announce_at = None;
        }
        match &mut turn.assembler {
            Assembler::Responses(responses) if !responses.is_announced() => {
                responses.announce(false, &mut self.outgoing);
                self.last_sent_ns = now.mono_ns;
            }
            // A chat client gets its status and a comment: what lies between may not take silence for the end.
            Assembler::Chat(_) if matches!(turn.state, TurnState::Opening { .. }) => self.send_keepalive(now),
            Assembler::Responses(_) | Assembler::Chat(_) => {}
        }
    }

    /// An endpoint failed before it gave a token: another may serve the turn.
    fn try_elsewhere(&mut self, failure: &UpstreamFailure, now: Now) {
        let Some(turn) = &mut self.running else { return };
        let Some(grant) = turn.grant() else { return };
        let endpoint = endpoint_name(&self.shared, grant);
        let refusal = refusal_of(failure, endpoint);
        turn.attempts_failed.push(FailedAttempt::new(endpoint, failure));
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
}

fn endpoint_name(shared: &super::Shared, grant: Grant) -> &str {
    shared.fleet.endpoint(grant.endpoint).map_or("unknown", |endpoint| &endpoint.name)
}

/// The request's tools, after those that came with the chain.
fn tools_of(chain: &Chain, own: &Arc<Tools>) -> Arc<Tools> {
    match chain.tools() {
        None => Arc::clone(own),
        Some(carried) if own.set.is_empty() => Arc::clone(carried),
        Some(carried) => Arc::new(Tools::new(carried.set.with(&own.set))),
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
        chain.add_tools(&tools);
    }
    Ok(chain)
}
