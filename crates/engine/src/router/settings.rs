//! `[routing]` of a config: how turns find their endpoints.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const PERCENT_MAX: u32 = 100;

/// How turns find their endpoints: `[routing]` of a config. Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Routing {
    /// Conversations whose endpoint is remembered, so that a later turn finds its prefix cached there; the least recently used make room. A
    /// megabyte; 0 remembers none.
    pub affinity_entries_max: usize,
    /// How long one is remembered after its last turn: no engine's cache is known to last longer under load.
    pub affinity_ms_max: u64,
    /// Turns that an endpoint may have beyond twice its tier's least busy before its conversations go elsewhere: reading a prompt anew
    /// costs more than a short wait. 0: none.
    pub affinity_turns_max: u32,
    /// Failures in a row after which an endpoint gets no turns for a while.
    pub breaker_failures_max: u32,
    /// That while, at first. Then one turn tries the endpoint; if that fails too, the while doubles.
    pub breaker_pause_ms_min: u64,
    /// Until this: one failed attempt in ten seconds costs little, and a server that is back is soon used. Both hold for one model where an
    /// endpoint does not have it (404).
    pub breaker_pause_ms_max: u64,
    /// How many times its tier's median an endpoint's time to first token may be, or its share of failures, before it gets no turns for a
    /// while; 0: any. Never more than half of a tier is left out so.
    pub outlier_factor: u32,
    /// Further attempts of turns whose endpoint failed, in percent of all turns: what fails everywhere must not double the load. 0: only
    /// those that `retries_per_second_max` leaves free.
    pub retry_percent_max: u32,
    /// Further attempts in a second that are free besides: where there are few turns, one of them may try again. 0: none.
    pub retries_per_second_max: u32,
    /// What a second endpoint may read and write for turns whose first token is late, in percent of all tokens that are served
    /// ([hedging](ROUTING.md#hedging), for models that have it). 0: no model hedges.
    #[schemars(range(max = PERCENT_MAX))]
    pub hedge_tokens_percent_max: u32,
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
            hedge_tokens_percent_max: 5,
        }
    }
}
