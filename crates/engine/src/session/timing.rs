//! Where a turn's time goes: what the driver tells of it, and what its client is told. PROTOCOL clause 3.9.

use super::{Outcome, Session, Status, Transport, TurnId};
use crate::assembler::Timing;
use crate::migration;
use crate::stages::Stage;
use crate::time::Now;
use crate::turn::TurnState;

impl Session {
    /// An HTTP client is told at the end of its stream, too.
    #[must_use]
    pub fn with_timing_told(mut self, is_told: bool) -> Self {
        match &mut self.transport {
            Transport::WebSocket { timing, .. } | Transport::Http { timing, .. } => *timing = is_told,
        }
        self
    }

    /// A WebSocket's client is told before the last event of a response, and not behind it.
    #[must_use]
    pub fn with_timing_within(mut self, is_told: bool) -> Self {
        if let Transport::WebSocket { timing_within, .. } = &mut self.transport {
            *timing_within = is_told;
        }
        self
    }

    /// The request that comes next has begun to come at `began_ns`, on the monotonic clock.
    pub fn handle_arriving(&mut self, began_ns: u64) {
        self.arriving_ns = Some(began_ns);
    }

    /// The backend has the request of an [`super::Effect::Open`].
    pub fn handle_sending(&mut self, id: TurnId, now: Now) {
        if let Some(turn) = self.lanes.turn(id)
            && matches!(turn.state, TurnState::Opening { .. })
        {
            turn.times.stages.enter(Stage::Connect, now.mono_ns);
        }
    }

    /// The driver was at work for the running turns, from then to then on the monotonic clock: each has its share.
    ///
    /// hot: per token
    pub fn handle_busy(&mut self, began_ns: u64, ended_ns: u64) {
        let running = u64::try_from(self.lanes.running().count().max(1)).unwrap_or(1);
        let share_ns = ended_ns.saturating_sub(began_ns) / running;
        for turn in self.lanes.running_mut() {
            turn.times.busy_ns += share_ns;
            turn.times.stages.work(began_ns, ended_ns, share_ns);
        }
    }

    /// The value of `Server-Timing` for the head of an HTTP answer, as far as it is known: the whole once the turn has ended.
    #[must_use]
    pub fn server_timing(&self) -> Option<String> {
        match &self.transport {
            Transport::WebSocket { .. } => None,
            Transport::Http { parts: Some(parts), .. } => Some(parts.server_timing()),
            Transport::Http { parts: None, .. } => {
                self.lanes.running().next().map(|turn| turn.times.stages.server_timing())
            }
        }
    }

    /// A response is about to end well.
    pub(super) fn foretell_timing(&mut self, id: TurnId, now: Now) {
        if !matches!(self.transport, Transport::WebSocket { timing_within: true, .. }) {
            return;
        }
        let Some(turn) = self.lanes.lane(id.lane).and_then(|lane| lane.running.take()) else { return };
        self.send_timing(&self.outcome(&turn, Status::Completed, None, now));
        if let Some(lane) = self.lanes.lane(id.lane) {
            lane.running = Some(turn);
        }
    }

    /// A turn has ended.
    pub(super) fn tell_timing(&mut self, outcome: &Outcome) {
        match &mut self.transport {
            Transport::WebSocket { timing: false, .. } => {}
            Transport::WebSocket { timing: true, .. } => self.send_timing(outcome),
            Transport::Http { answer, timing, parts, .. } => {
                *parts = Some(Box::new(outcome.parts));
                if *timing && answer.is_none() {
                    self.outgoing.comment(&format!("server-timing: {}", outcome.parts.server_timing()));
                    if !outcome.splices.is_empty() {
                        let mut told = Vec::new();
                        migration::push(&mut told, &outcome.splices);
                        self.outgoing.comment(&format!("splices: {}", String::from_utf8_lossy(&told)));
                    }
                }
            }
        }
    }

    fn send_timing(&mut self, outcome: &Outcome) {
        let Some(tier) = outcome.tier else { return };
        let route = outcome.decision.map(|decision| decision.header(&self.shared.fleet)).unwrap_or_default();
        let timing = Timing {
            response_id: &outcome.response_id,
            tier: tier.name(),
            endpoint: outcome.endpoint.as_deref().unwrap_or_default(),
            simulated: outcome.simulated,
            route: &route,
            ttft_ns: outcome.ttft_ns.unwrap_or(0),
            gateway_ns: outcome.gateway_ns,
            parts: outcome.parts,
            output_tokens: outcome.usage.output,
            splices: &outcome.splices,
        };
        timing.send(&mut self.outgoing);
    }
}
