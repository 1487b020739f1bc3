//! `[routing]` of a config: how turns find their endpoints.

use serde::{Deserialize, Serialize};

/// How turns find their endpoints: `[routing]` of a config. Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Routing {
    /// Conversations whose endpoint is remembered, so that a later turn finds its prefix cached there. Default 65,536: a megabyte.
    /// The least recently used make room; 0 remembers none.
    pub affinity_entries_max: usize,
    /// How long one is remembered after its last turn, in milliseconds. Default an hour: no engine's cache is known to last longer
    /// under load.
    pub affinity_ms_max: u64,
    /// Turns that an endpoint may have more than twice its tier's least loaded before its conversations go elsewhere. Default 8:
    /// reading a prompt anew costs more than a short wait.
    pub affinity_turns_max: u32,
    /// Failures in a row after which an endpoint gets no turns for a while. Default 5.
    pub breaker_failures_max: u32,
    /// That while, in milliseconds, at first. Default 1,000. Then one turn tries it; if that fails too, the while doubles.
    pub breaker_pause_ms_min: u64,
    /// Until this, in milliseconds. Default 10,000.
    pub breaker_pause_ms_max: u64,
    /// How many times its tier's median an endpoint's time to first token may be, or its share of failures, before it gets no turns
    /// for a while. Default 4; 0: any. Never more than half of a tier is left out so.
    pub outlier_factor: u32,
    /// Further attempts of turns whose endpoint failed, in percent of all turns. Default 10: what fails everywhere must not double the
    /// load.
    pub retry_percent_max: u32,
    /// Further attempts in a second that are free besides. Default 10: where there are few turns, one of them may try again.
    pub retries_per_second_max: u32,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            affinity_entries_max: 65_536,
            affinity_ms_max: 60 * 60 * 1000,
            affinity_turns_max: 8,
            breaker_failures_max: 5,
            breaker_pause_ms_min: 1_000,
            breaker_pause_ms_max: 10_000,
            outlier_factor: 4,
            retry_percent_max: 10,
            retries_per_second_max: 10,
        }
    }
}
