//! Of traces: which of the turns that were to be exported were.

use super::Metrics;
use super::family::counters;
use prometheus::{IntCounterVec, Registry};

#[derive(Debug)]
pub(super) struct Traces {
    ended: IntCounterVec,
}

/// What became of a turn's trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceEnd {
    /// The collector took it.
    Exported,
    /// The collector refused it for good.
    Refused,
    /// Its turn was forgotten before the collector took it.
    Dropped,
}

impl TraceEnd {
    pub const ALL: [Self; 3] = [Self::Exported, Self::Refused, Self::Dropped];

    /// The label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

impl Traces {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let what = "Turns that were to be exported as traces, by what became of that";
        Ok(Self { ended: counters(registry, "flashlane_traces_total", what, &["outcome"])? })
    }
}

impl Metrics {
    /// So many turns' traces were exported, or not.
    pub fn traces(&self, end: TraceEnd, turns: u64) {
        self.traces.ended.with_label_values(&[end.name()]).inc_by(turns);
    }
}
