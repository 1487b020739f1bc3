//! What a session has of admission: leave to be at endpoints, places among those that wait. Given back when it is dropped, whatever has become
//! of the session: a panic may have left that without knowing what it has.

use crate::desk::Desk;
use crate::state::State;
use flashlane_engine::admission::{Ending, Grant, Prefill, WaiterId};
use flashlane_engine::{Now, TurnId};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Place(WaiterId),
    Grant(Grant),
    Prefill(Prefill),
}

pub(super) struct Claims {
    state: Arc<State>,
    /// As many as turns run, and a prefill.
    held: Vec<(TurnId, Claim)>,
}

impl Claims {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, held: Vec::new() }
    }

    pub(super) fn take(&mut self, turn: TurnId, claim: Claim) {
        if self.held.is_empty() {
            // Idle connections are counted in bytes.
            self.held.reserve_exact(1);
        }
        self.held.push((turn, claim));
    }

    /// The session gives it back itself.
    pub(super) fn end(&mut self, claim: Claim) {
        if let Some(at) = self.held.iter().position(|(_, held)| *held == claim) {
            self.held.swap_remove(at);
        }
    }

    #[cfg(test)]
    pub(super) fn grants(&self) -> Vec<Grant> {
        let of = |(_, claim): &(TurnId, Claim)| if let Claim::Grant(grant) = claim { Some(*grant) } else { None };
        self.held.iter().filter_map(of).collect()
    }

    /// Gives back what turns have that are no more, and tells which. A prefill outlives its turn.
    pub(super) fn settle(&mut self, is_running: impl Fn(TurnId) -> bool, now: Now) -> Vec<TurnId> {
        let is_lost = |turn, claim: &Claim| !matches!(claim, Claim::Prefill(_)) && !is_running(turn);
        let lost = self.held.extract_if(.., |(turn, claim)| is_lost(*turn, claim));
        let lost = lost.map(|(turn, claim)| {
            give_back(&self.state.desk, claim, now);
            turn
        });
        lost.collect()
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        let now = self.state.clock.now();
        for (_, claim) in std::mem::take(&mut self.held) {
            give_back(&self.state.desk, claim, now);
        }
    }
}

fn give_back(desk: &Desk, claim: Claim, now: Now) {
    match claim {
        Claim::Place(waiter) => desk.forget(waiter, now),
        Claim::Grant(grant) => {
            desk.release(grant, &Ending::NOTHING, now);
        }
        Claim::Prefill(leave) => {
            desk.end_prefill(leave, 0, now);
        }
    }
}
