//! What a session does as time passes: announcements, signs of life, the end of a connection's time.

use super::{Life, Session, Why};
use crate::assembler::Assembler;
use crate::time::Now;
use crate::turn::{Turn, TurnState};

impl Session {
    /// When [`Self::handle_tick`] is due, on the monotonic clock.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let announce = self.lanes.running().filter_map(announce_at).min();
        let end = self.ends_ns.filter(|_| self.life == Life::Open);
        [announce, self.keepalive_at(), end].into_iter().flatten().min()
    }

    /// Only a client that listens to events needs signs of life, and only once an answer has begun.
    fn keepalive_at(&self) -> Option<u64> {
        let begun = self.lanes.running().any(|turn| match &turn.assembler {
            Assembler::Responses(responses) => responses.is_announced(),
            Assembler::Chat(_) => {
                matches!(turn.state, TurnState::Streaming { .. } | TurnState::Opening { announce_at: None, .. })
            }
        });
        let due = self.last_sent_ns.saturating_add(self.shared.settings.keepalive_ms.saturating_mul(1_000_000));
        (begun && self.outgoing.has_listener()).then_some(due)
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Now) {
        let is_due = |turn: &&Turn| announce_at(turn).is_some_and(|at| at <= now.mono_ns);
        let due: Vec<_> = self.lanes.running().filter(is_due).map(|turn| turn.id).collect();
        for turn in due {
            self.announce(turn, now);
        }
        if self.keepalive_at().is_some_and(|at| at <= now.mono_ns) {
            self.send_keepalive(now);
        }
        if self.life == Life::Open && self.ends_ns.is_some_and(|at| at <= now.mono_ns) {
            self.life = Life::Draining(Why::Age);
            self.advance(now);
        }
    }

    /// The driver was at work for the running turns: each has its share.
    pub fn handle_busy(&mut self, ns: u64) {
        let share = ns / u64::try_from(self.lanes.running().count().max(1)).unwrap_or(1);
        for turn in self.lanes.running_mut() {
            turn.times.busy_ns += share;
        }
    }
}

fn announce_at(turn: &Turn) -> Option<u64> {
    match &turn.state {
        TurnState::Opening { announce_at, .. } => *announce_at,
        TurnState::Loading
        | TurnState::Finding { .. }
        | TurnState::Enlisting
        | TurnState::Counting { .. }
        | TurnState::Cutting(_)
        | TurnState::Waiting
        | TurnState::Streaming { .. }
        | TurnState::Committing { .. } => None,
    }
}
