//! A key that is taken back while its connection is open: nothing more begins, what runs may end for a while, and the connection closes.

use super::{Effect, Life, Session};
use crate::draft::Draft;
use crate::error::{ErrorKind, Refusal};
use crate::time::Now;
use crate::turn::Turn;

/// RFC 6455, 7.4.1: a policy is violated.
const CLOSE_CODE: u16 = 1008;

pub(super) fn refusal() -> Refusal {
    Refusal::new(ErrorKind::InvalidApiKey, "The API key was revoked. Ask whoever runs this server for a key.")
}

impl Session {
    /// The client may use this server no more. What waits is refused, what runs may end until `until_ns`, when it is failed. A WebSocket closes at
    /// `close_ns`, after what runs by then, and at `until_ns` at the latest.
    pub fn handle_revoked(&mut self, close_ns: u64, until_ns: u64, now: Now) {
        let is_open = match self.life {
            Life::Open | Life::Draining(_) => true,
            Life::Revoked { .. } | Life::Expelled | Life::Closed => false,
        };
        if is_open {
            self.life = Life::Revoked { close_ns, until_ns };
            let waits = |turn: &&Turn| turn.grant().is_none() && !turn.is_ending() && !turn.is_gathering();
            let waiting: Vec<_> = self.lanes.running().filter(waits).map(|turn| turn.id).collect();
            for id in waiting {
                self.give_up(id, &refusal(), now);
            }
            self.advance(now);
        }
    }

    /// When the next step of that is due.
    pub(super) fn revoked_at(&self) -> Option<u64> {
        let Life::Revoked { close_ns, until_ns } = self.life else { return None };
        match self.lanes.is_quiet() {
            true => self.is_websocket().then_some(close_ns),
            false => Some(until_ns),
        }
    }

    pub(super) fn unless_revoked(&self, draft: Result<Draft, Refusal>) -> Result<Draft, Refusal> {
        match self.life {
            Life::Revoked { .. } | Life::Expelled => draft.and(Err(refusal())),
            Life::Open | Life::Draining(_) | Life::Closed => draft,
        }
    }

    /// It is due.
    pub(super) fn end_revoked(&mut self, now: Now) {
        let running: Vec<_> = self.lanes.running().map(|turn| turn.id).collect();
        for id in running {
            self.give_up(id, &refusal(), now);
        }
        self.advance(now);
    }

    pub(super) fn close_if_revoked(&mut self, now: Now) {
        let Life::Revoked { close_ns, .. } = self.life else { return };
        if self.is_websocket() && close_ns <= now.mono_ns && self.lanes.is_quiet() {
            self.life = Life::Expelled;
            self.effects.push_back(Effect::Close { code: CLOSE_CODE, reason: "the API key was revoked" });
        }
    }
}
