//! An endpoint has failed a turn: whether another one may serve it, or the turn ends by that.

use super::end::verdict_of;
use super::migrate::reason_of;
use super::{Session, Shared, TurnId};
use crate::admission::Grant;
use crate::error::{ErrorKind, Refusal};
use crate::failure::{may_try_elsewhere, refusal_of};
use crate::migration::Reason;
use crate::router::Verdict;
use crate::stages::Stage;
use crate::time::Now;
use crate::turn::TurnState;
use crate::upstream::UpstreamFailure;

impl Session {
    /// An endpoint failed: before it gave a token, another may serve the turn.
    pub(super) fn try_elsewhere(&mut self, id: TurnId, failure: &UpstreamFailure, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let Some(grant) = turn.grant() else { return };
        let endpoint = endpoint_name(&self.shared, grant);
        let mut refusal = refusal_of(failure, endpoint);
        hide(&self.shared, grant, &mut refusal);
        turn.fail_attempt(failure, now);
        let is_too_long = refusal.kind == ErrorKind::ContextLengthExceeded && !turn.is_going_on();
        if is_too_long && turn.may_be_told_less() {
            turn.failure = Some(refusal);
            turn.times.stages.enter(Stage::Validate, now.mono_ns);
            self.leave(id, Verdict::of(failure));
            self.measure(id, now);
            return;
        }
        if may_try_elsewhere(failure) && turn.has_nothing() {
            self.ask_again(id, refusal, Verdict::of(failure), now);
        } else if !self.migrate(id, reason_of(failure), (refusal.clone(), Verdict::of(failure)), now) {
            self.fail(id, &refusal, now);
        }
    }

    /// An endpoint failed inside of a stream that it had begun.
    pub(super) fn break_off(&mut self, id: TurnId, mut refusal: Refusal, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let verdict = verdict_of(refusal.kind);
        if let Some(grant) = turn.grant() {
            hide(&self.shared, grant, &mut refusal);
        }
        if turn.assembler.has_differed() {
            // Its endpoint is well: no more than a model's whim.
            self.leave(id, Verdict::Nothing);
            self.lanes.turn(id).into_iter().for_each(|turn| turn.state = TurnState::Waiting);
            self.fail(id, &refusal, now);
            return;
        }
        // What an engine says of a continuation before it goes on is not the client's affair.
        let is_unbegun = turn.is_going_on() && turn.deltas == 0;
        if verdict == Verdict::Nothing && !is_unbegun {
            self.fail(id, &refusal, now);
            return;
        }
        let reason = format!("told of an error in its stream ({})", refusal.kind.row().label);
        turn.end_attempt(Some(reason.into()), now);
        if turn.has_nothing() {
            self.ask_again(id, refusal, verdict, now);
        } else if !self.migrate(id, Reason::Error, (refusal.clone(), verdict), now) {
            self.fail(id, &refusal, now);
        }
    }

    /// Leaves the endpoint, and asks for another, if that was not done already. What this one said is the answer where there is none.
    fn ask_again(&mut self, id: TurnId, refusal: Refusal, verdict: Verdict, now: Now) {
        if self.go_on_hedged(id, &refusal, verdict, now) {
            return;
        }
        self.leave(id, verdict);
        let Some(turn) = self.lanes.turn(id) else { return };
        turn.tried.extend(turn.grant().map(|grant| grant.endpoint()));
        turn.failure = Some(refusal);
        turn.times.stages.enter(Stage::Route, now.mono_ns);
        turn.state = TurnState::Waiting;
        self.ask(id, now);
    }
}

/// What an endpoint says of the key that it was asked with is not for the client.
fn hide(shared: &Shared, grant: Grant, refusal: &mut Refusal) {
    if let Some(endpoint) = shared.fleet.endpoint(grant.endpoint()) {
        endpoint.hidden.mask(&mut refusal.message);
    }
}

pub(super) fn endpoint_name(shared: &Shared, grant: Grant) -> &str {
    shared.fleet.endpoint(grant.endpoint()).map_or("unknown", |endpoint| &endpoint.name)
}
