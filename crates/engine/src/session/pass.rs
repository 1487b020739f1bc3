//! A turn whose endpoint speaks the Responses API itself: what it is asked, and how its events pass.

use super::{Session, TurnId};
use crate::assembler::{Assembler, Passed};
use crate::compaction::{self, Progress};
use crate::draft::Contract;
use crate::error::{ErrorKind, Refusal};
use crate::failure::refusal_of_error;
use crate::passing;
use crate::profile::Profile;
use crate::seal::Opener;
use crate::time::Now;
use crate::turn::{Turn, TurnState};
use bytes::Bytes;
use flashlane_wire::chat::Field;

impl Session {
    /// Takes upstream bytes; `true` when the upstream's response has ended.
    ///
    /// hot: per token
    pub(super) fn pass(&mut self, id: TurnId, bytes: &[u8], now: Now) -> Result<bool, Refusal> {
        let Some(mut turn) = self.lanes.turn(id) else { return Ok(false) };
        let TurnState::Passing { grant, events } = &mut turn.state else {
            self.hold(id, bytes, now);
            return Ok(false);
        };
        let endpoint = self.shared.fleet.endpoint(grant.endpoint()).map_or("unknown", |endpoint| &endpoint.name);
        let (assembler, out) = (&mut turn.assembler, &mut self.outgoing);
        let told_before = out.len();
        let (mut deltas, mut done, mut outcome) = (0, false, Ok(()));
        let decoded = events.decode(bytes, |event| {
            if done || outcome.is_err() {
                return;
            }
            match assembler.pass(event.data, out) {
                Ok(Passed::Delta) => deltas += 1,
                Ok(Passed::Other) => {}
                Ok(Passed::Whole) => done = true,
                Ok(Passed::Failed(error)) => outcome = Err(refusal_of_error(&error, endpoint, None)),
                Err(refusal) => outcome = Err(refusal),
            }
        });
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
        Ok(done)
    }
}

/// What the turn asks such an endpoint now, at a tier where this is its profile: the fields of its request, and the items.
pub(super) fn asked(
    turn: &mut Turn,
    profile: &Profile,
    opener: Opener<'_>,
) -> Result<(Vec<Field>, Vec<Bytes>), Refusal> {
    let (Contract::Responses(draft), Assembler::Responses(assembler)) = (&turn.draft.contract, &mut turn.assembler)
    else {
        return Err(Refusal::new(ErrorKind::Internal, "a chat completion was placed where none is spoken"));
    };
    let mut fields = draft.passing.as_deref().cloned().unwrap_or_default();
    profile.add_to_responses(&mut fields);
    let mut input = passing::input(turn.chain.items().chain(assembler.output()), opener)?;
    let fields = match turn.compaction {
        Progress::Running { tokens_max } => {
            assembler.begin_summary();
            input.push(compaction::question(tokens_max));
            passing::summary_fields(&fields, tokens_max)
        }
        Progress::NotYet | Progress::Done => fields,
    };
    Ok((fields, input))
}
