//! What a session does as time passes: announcements, signs of life.

use super::Session;
use crate::assembler::Assembler;
use crate::time::Now;
use crate::turn::TurnState;

impl Session {
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
            Assembler::Chat(_) => {
                matches!(turn.state, TurnState::Streaming { .. } | TurnState::Opening { announce_at: None, .. })
            }
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
}
