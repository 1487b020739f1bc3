//! What an upstream sends a running turn: its answer read and handed on, up to its end or its failure.

use super::elsewhere::endpoint_name;
use super::{Session, Shared, TurnId};
use crate::admission::Grant;
use crate::assembler::Assembler;
use crate::error::{ErrorKind, Refusal};
use crate::failure::{refusal_of, refusal_of_error};
use crate::fleet::Speaks;
use crate::time::Now;
use crate::turn::TurnState;
use crate::upstream::{Ended, UpstreamEvent, UpstreamFailure};
use flashlane_wire::chat::{ChunkReader, Read};
use flashlane_wire::sse;

impl Session {
    /// What an upstream stream handed over.
    ///
    /// hot: per token
    pub fn handle_upstream(&mut self, id: TurnId, event: UpstreamEvent<'_>, now: Now) {
        self.speak(id.lane);
        match event {
            UpstreamEvent::Bytes(bytes) => match self.stream(id, bytes, now) {
                // A token moves nothing else.
                Ok(false) => return,
                Ok(true) => self.conclude(id, now),
                Err(refusal) => self.break_off(id, refusal, now),
            },
            UpstreamEvent::Connected => {
                self.lanes.turn(id).into_iter().for_each(|turn| turn.times.stages.sent(now.mono_ns));
                return;
            }
            UpstreamEvent::Opened => self.handle_opened(id, now),
            UpstreamEvent::Ended(ended) => self.handle_ended(id, ended, now),
        }
        self.advance(now);
    }

    fn handle_opened(&mut self, id: TurnId, now: Now) {
        let Some(turn) = self.lanes.turn(id) else {
            self.handle_hedge(id, UpstreamEvent::Opened, now);
            return;
        };
        if let TurnState::Opening { grant, .. } = turn.state {
            turn.times.stages.sent(now.mono_ns);
            if self.may_read(id, grant, now)
                && let Some(turn) = self.lanes.turn(id)
            {
                turn.state = reading(&self.shared, grant);
                self.announce(id, now);
            }
        }
    }

    /// An upstream stream is over. A turn that ended drops what still comes for it.
    fn handle_ended(&mut self, id: TurnId, ended: Ended, now: Now) {
        let Some(turn) = self.lanes.turn(id) else {
            if self.hedged_by(id).is_none() {
                return self.handle_prefill_ended(id, &ended, now);
            }
            self.handle_hedge(id, UpstreamEvent::Ended(ended), now);
            return;
        };
        let Some(ended) = turn.hold_end(ended) else { return };
        match (&turn.state, ended) {
            (TurnState::Opening { .. } | TurnState::Held { .. }, Ended::Failed(failure)) => {
                self.try_elsewhere(id, &failure, now);
            }
            (TurnState::Opening { .. } | TurnState::Held { .. }, Ended::Complete) => {
                let failure = UpstreamFailure::Cut { reason: "it ended before it began".to_owned() };
                self.try_elsewhere(id, &failure, now);
            }
            // The model said why it stopped: the answer is whole, with or without a `[DONE]`.
            (TurnState::Streaming { .. } | TurnState::Passing { .. }, _) if turn.assembler.has_finished() => {
                self.conclude(id, now);
            }
            (TurnState::Streaming { .. } | TurnState::Passing { .. }, ended) => {
                let failure = match ended {
                    Ended::Failed(failure) => failure,
                    Ended::Complete => {
                        UpstreamFailure::Cut { reason: "the stream ended without a finish reason".to_owned() }
                    }
                };
                self.try_elsewhere(id, &failure, now);
            }
            (
                TurnState::Loading
                | TurnState::Finding { .. }
                | TurnState::Joining { .. }
                | TurnState::Counting { .. }
                | TurnState::Cutting(_)
                | TurnState::Enlisting
                | TurnState::Waiting
                | TurnState::Queued { .. }
                | TurnState::Gathering(_)
                | TurnState::Committing { .. },
                _,
            ) => {}
        }
    }

    /// Takes upstream bytes; `true` when the stream said that it is done.
    ///
    /// hot: per token
    fn stream(&mut self, id: TurnId, bytes: &[u8], now: Now) -> Result<bool, Refusal> {
        let Some(mut turn) = self.lanes.turn(id) else {
            if !self.handle_hedge(id, UpstreamEvent::Bytes(bytes), now) {
                self.read_prefill(id, bytes, now);
            }
            return Ok(false);
        };
        let TurnState::Streaming { grant, events, chunks } = &mut turn.state else { return self.pass(id, bytes, now) };
        let (assembler, out) = (&mut turn.assembler, &mut self.outgoing);
        let told_before = out.len();
        let upstream_times = &mut turn.upstream_times;
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
                        *upstream_times = chunk.times.unwrap_or_default().or(*upstream_times);
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
        // A summary, and calls that wait for another, are no sign of life.
        if self.outgoing.len() > told_before {
            self.last_sent_ns = now.mono_ns;
        }
        if turn.heard(deltas, now) {
            self.answers(id, now);
            let Some(again) = self.lanes.turn(id) else { return Ok(false) };
            turn = again;
        }
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

    /// Tells the client that its answer has begun. What steers brought is the model's from here on.
    pub(super) fn announce(&mut self, id: TurnId, now: Now) {
        self.speak(id.lane);
        let Some(turn) = self.lanes.turn(id) else { return };
        if let TurnState::Opening { announce_at, .. } = &mut turn.state {
            *announce_at = None;
        }
        match &mut turn.assembler {
            Assembler::Responses(responses) if !responses.has_begun() => {
                responses.announce(false, &mut self.outgoing);
                turn.steers.clear();
                self.last_sent_ns = now.mono_ns;
                self.tell_children(id);
            }
            // A chat client gets its status and a comment: what lies between may not take silence for the end.
            Assembler::Chat(_) if matches!(turn.state, TurnState::Opening { .. }) => self.send_keepalive(now),
            Assembler::Responses(_) | Assembler::Chat(_) => {}
        }
    }
}

/// An answer of the endpoint is read from here on.
pub(super) fn reading(shared: &Shared, grant: Grant) -> TurnState {
    let events = sse::Decoder::new(shared.settings.event_bytes_max);
    match shared.fleet.contract(grant.endpoint()) {
        Speaks::Chat => TurnState::Streaming { grant, events, chunks: ChunkReader::default() },
        Speaks::Responses => TurnState::Passing { grant, events },
    }
}
