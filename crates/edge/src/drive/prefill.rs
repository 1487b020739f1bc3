//! Prompts that engines read before their turns come: leave for them, and what they cost. Knows not for what they are read.

use super::{Claim, Drive};
use crate::record::usage_of;
use flashlane_engine::admission::Ahead;
use flashlane_engine::{Now, Prefilled, TurnId, Usage};
use flashlane_telemetry::log;

impl Drive {
    /// A connection is seen to where a turn will go, and its prompt may be read there: whoever needs that room has it stopped by the
    /// signal.
    pub(super) fn prepare(&mut self, turn: TurnId, ahead: &Ahead, now: Now) {
        let (leave, signal) = self.state.prepare(ahead, now).unzip();
        if let Some(leave) = leave {
            self.claims.take(turn, Claim::Prefill(leave));
        }
        self.queued.extend(leave.zip(signal).map(|(leave, signal)| (turn, leave.id, signal)));
        self.has_changed |= leave.is_some();
        self.session.handle_prepared(turn, leave, now);
    }

    /// The prompt was read, or not: what it cost is its owner's.
    pub(super) fn prefilled(&mut self, prefilled: Prefilled, now: Now) {
        self.state.metrics.prefilled(&prefilled);
        let Prefilled { leave, response_id, model, usage, .. } = prefilled;
        self.queued.retain(|(_, known, _)| *known != leave.id);
        self.claims.end(Claim::Prefill(leave));
        if self.state.desk.end_prefill(leave, usage.input.saturating_add(usage.output), now) {
            log::drained(&self.shared.fleet, leave.endpoint);
        }
        if usage != Usage::default() {
            self.state.bill(usage_of(self.owner, leave.tier, (response_id, &model, usage), now));
        }
    }
}
