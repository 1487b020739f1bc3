//! What a session does as time passes: announcements, signs of life, the end of a connection's time.

use super::hedge;
use super::{Effect, Life, Session, TurnId, Why};
use crate::admission::Grant;
use crate::assembler::Assembler;
use crate::time::Now;
use crate::turn::{Turn, TurnState};
use crate::upstream::UpstreamFailure;

/// How often a client of a WebSocket hears of its place in a queue, in milliseconds.
const NEWS_MS: u64 = 1000;

impl Session {
    /// Its life begins, and with it the time until its end.
    pub fn handle_connected(&mut self, now: Now) {
        self.ends_ns = Some(now.after_ms(self.shared.settings.life_ms_max));
    }

    /// When [`Self::handle_tick`] is due, on the monotonic clock.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let turns = self.lanes.running().filter_map(|turn| self.due_at(turn)).min();
        let end = self.ends_ns.filter(|_| self.life == Life::Open);
        [turns, self.keepalive_at(), self.prefill_due_at(), end, self.revoked_at()].into_iter().flatten().min()
    }

    /// Only a client that listens to events needs signs of life, and only once an answer has begun.
    fn keepalive_at(&self) -> Option<u64> {
        let begun = self.lanes.running().any(|turn| match &turn.assembler {
            Assembler::Responses(responses) => responses.is_announced(),
            Assembler::Chat(_) => {
                let is_told = |turn: &Turn| matches!(turn.state, TurnState::Opening { announce_at: None, .. });
                is_told(turn) || matches!(turn.state, TurnState::Streaming { .. } | TurnState::Held { .. })
            }
        });
        let due = self.last_sent_ns.saturating_add(self.shared.settings.keepalive_ms.saturating_mul(1_000_000));
        (begun && self.outgoing.has_listener()).then_some(due)
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Now) {
        // First: a turn that is failed has no place to look for.
        if self.revoked_at().is_some_and(|at| at <= now.mono_ns) {
            self.end_revoked(now);
        }
        let is_due = |turn: &&Turn| self.due_at(turn).is_some_and(|at| at <= now.mono_ns);
        let due: Vec<_> = self.lanes.running().filter(is_due).map(|turn| turn.id).collect();
        for turn in due {
            self.handle_due(turn, now);
        }
        if self.prefill_due_at().is_some_and(|at| at <= now.mono_ns) {
            self.stop_prefill(now);
        }
        if self.keepalive_at().is_some_and(|at| at <= now.mono_ns) {
            self.send_keepalive(now);
        }
        if self.life == Life::Open && self.ends_ns.is_some_and(|at| at <= now.mono_ns) {
            self.life = Life::Draining(Why::Age);
            self.advance(now);
        }
    }

    /// Upstreams are not read, since the client does not read: what they send meanwhile is not missing.
    pub fn handle_unread(&mut self, now: Now) {
        for turn in self.lanes.running_mut() {
            turn.times.last_token_ns = now.mono_ns;
        }
    }

    /// When something is to be done for a turn.
    ///
    /// hot: per token
    fn due_at(&self, turn: &Turn) -> Option<u64> {
        match &turn.state {
            TurnState::Opening { grant, announce_at } => first(*announce_at, token_due_at(turn, grant)),
            TurnState::Streaming { grant, .. } | TurnState::Passing { grant, .. } => token_due_at(turn, grant),
            TurnState::Held { grant, held } => {
                first(turn.guarding.held_until(), grant.first_token_ns.filter(|_| !held.has_begun()))
            }
            TurnState::Gathering(gathering) => gathering.due_ns(),
            TurnState::Queued { place, told_ns } => {
                first(first(Some(place.look_ns), place.read_ahead_ns), self.news_at(*told_ns))
            }
            TurnState::Loading
            | TurnState::Finding { .. }
            | TurnState::Joining { .. }
            | TurnState::Enlisting
            | TurnState::Counting { .. }
            | TurnState::Cutting(_)
            | TurnState::Waiting
            | TurnState::Committing { .. } => None,
        }
    }

    /// When a client that waits in a queue is told of its place again.
    pub(super) fn news_at(&self, told_ns: Option<u64>) -> Option<u64> {
        let every_ms = if self.is_websocket() { NEWS_MS } else { self.shared.settings.keepalive_ms };
        let next = told_ns.map_or(0, |ns| ns.saturating_add(every_ms.saturating_mul(1_000_000)));
        self.outgoing.has_listener().then_some(next)
    }

    fn handle_due(&mut self, id: TurnId, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        if let TurnState::Queued { place, .. } = &mut turn.state {
            let waiter = place.waiter;
            if place.read_ahead_ns.take_if(|at| *at <= now.mono_ns).is_some() {
                self.read_ahead(id, waiter);
            }
            let due_at = self.lanes.running().find(|turn| turn.id == id).and_then(|turn| self.due_at(turn));
            if due_at.is_some_and(|at| at <= now.mono_ns) {
                self.effects.push_back(Effect::Look(id, waiter));
            }
            return;
        }
        if turn.is_gathering() {
            self.follow_late_leaders(id, now);
            self.advance(now);
            return;
        }
        if let TurnState::Held { held, .. } = &turn.state {
            let has_begun = held.has_begun();
            if self.handle_held_due(id, now) || has_begun {
                return;
            }
        }
        let Some(turn) = self.lanes.turn(id) else { return };
        let is_late = turn.grant().and_then(|grant| late_at(turn, &grant)).is_some_and(|at| at <= now.mono_ns);
        if !is_late {
            let is_due = matches!(turn.state, TurnState::Opening { announce_at: Some(at), .. } if at <= now.mono_ns);
            self.handle_hedge_due(id, now);
            if is_due {
                self.announce(id, now);
            }
            return;
        }
        let since_ns = match turn.deltas {
            0 => turn.times.sent_upstream_ns.unwrap_or(now.mono_ns),
            _ => turn.times.last_token_ns,
        };
        match turn.assembler.has_finished() {
            // All that is missing is what it says behind the answer.
            true => self.conclude(id, now),
            false => {
                let waited_ms = now.mono_ns.saturating_sub(since_ns) / 1_000_000;
                self.try_elsewhere(id, &UpstreamFailure::Silent { waited_ms }, now);
            }
        }
        self.advance(now);
    }
}

/// When a turn is late: without its first token, or without another one.
fn late_at(turn: &Turn, grant: &Grant) -> Option<u64> {
    match turn.deltas {
        0 => grant.first_token_ns,
        _ => idle_at(turn, grant),
    }
}

/// When it is that, or has waited so long for its first token that a second endpoint is due.
///
/// hot: per token
fn token_due_at(turn: &Turn, grant: &Grant) -> Option<u64> {
    match turn.deltas {
        0 => first(grant.first_token_ns, hedge::due_at(turn, grant)),
        _ => idle_at(turn, grant),
    }
}

fn idle_at(turn: &Turn, grant: &Grant) -> Option<u64> {
    let idle_ns = grant.token_idle_ms_max?.saturating_mul(1_000_000);
    Some(turn.times.last_token_ns.saturating_add(idle_ns))
}

fn first(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}
