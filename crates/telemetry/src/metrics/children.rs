//! Of children of responses: how many run, and how they ended.

use super::Metrics;
use super::family::counters;
use crate::label::{ChildEnd, ChildKind};
use flashlane_engine::Status;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

#[derive(Debug)]
pub(super) struct Children {
    running: IntGaugeVec,
    ended: IntCounterVec,
}

impl Children {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let running = IntGaugeVec::new(Opts::new("flashlane_children", "Children of responses that run"), &["kind"])?;
        registry.register(Box::new(running.clone()))?;
        let ended = "Children of responses that have ended, or were refused";
        Ok(Self { running, ended: counters(registry, "flashlane_children_total", ended, &["kind", "outcome"])? })
    }
}

impl Metrics {
    /// A child begins; it ends by [`Self::child_ended`].
    pub fn child_began(&self, kind: ChildKind) {
        self.children.running.with_label_values(&[kind.name()]).inc();
    }

    /// One that had begun has ended.
    pub fn child_ended(&self, kind: ChildKind, end: ChildEnd) {
        self.children.running.with_label_values(&[kind.name()]).dec();
        self.children.ended.with_label_values(&[kind.name(), end.name()]).inc();
    }

    /// A turn of a child has ended that its parent has waited for.
    pub(super) fn branch_done(&self, status: Status) {
        let end = match status {
            Status::Completed | Status::WarmUp | Status::Counted => ChildEnd::Completed,
            Status::Incomplete => ChildEnd::Incomplete,
            Status::Failed => ChildEnd::Failed,
            Status::Refused => ChildEnd::Refused,
            Status::Interrupted | Status::Cancelled => ChildEnd::Cancelled,
        };
        self.children.ended.with_label_values(&[ChildKind::FanOut.name(), end.name()]).inc();
    }

    /// One was asked for that does not begin.
    pub fn child_refused(&self, kind: ChildKind) {
        self.children.ended.with_label_values(&[kind.name(), ChildEnd::Refused.name()]).inc();
    }
}
