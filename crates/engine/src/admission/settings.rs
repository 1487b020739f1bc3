//! `[limits]` and `[queue]` of a config: what keys may take of a tier, and how turns wait for one.

use super::limit::Limits;
use super::own::OwnLimits;
use super::window::Bounds;
use crate::fleet::Tier;
use crate::router::Routing;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

const PERCENT_MAX: u32 = 100;

/// Something of each tier's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(bound = "T: Default + JsonSchema + Serialize")]
pub struct PerTier<T> {
    /// Of the latency tier.
    pub latency: T,
    /// Of the throughput tier.
    pub throughput: T,
}

impl<T> PerTier<T> {
    #[must_use]
    pub fn of(&self, tier: Tier) -> &T {
        match tier {
            Tier::Latency => &self.latency,
            Tier::Throughput => &self.throughput,
        }
    }

    #[must_use]
    pub fn of_mut(&mut self, tier: Tier) -> &mut T {
        match tier {
            Tier::Latency => &mut self.latency,
            Tier::Throughput => &mut self.throughput,
        }
    }
}

/// What one tier holds its turns to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Terms {
    pub limits: Limits,
    pub queue: Queueing,
}

/// A field of [`Terms`] that cannot be held to.
#[derive(Debug, PartialEq, Eq)]
pub struct Unfit {
    /// `limits.burst_ms`
    pub field: &'static str,
    /// What is wrong, and what was expected.
    pub problem: String,
}

impl Terms {
    /// # Errors
    /// The first field that would let nothing through, or that another one contradicts.
    pub fn check(&self) -> Result<(), Unfit> {
        let Self { limits, queue } = self;
        // Named one by one, so that a new field is asked for here.
        let Limits { requests_per_minute: _, tokens_per_minute: _, turns_max: _, burst_ms, wait_ms_max: _, keys_max } =
            limits;
        let Queueing {
            // 0: nobody waits.
            turns_max: _,
            wait_ms_max: _,
            background_wait_ms_max,
            concurrency_max,
            concurrency_min: min,
            claimed_percent_max: percent,
            ttft_ms_max,
            first_token_ms_max,
            token_idle_ms_max,
            prefill_on_warm_up: _,
            prefill_on_handover: _,
            handover_tokens_min,
            prefill_tokens_max,
            prefills_per_minute_max,
            prefill_ms_max,
        } = queue;
        let zeros = [
            ("limits.burst_ms", *burst_ms == 0),
            ("limits.keys_max", *keys_max == 0),
            ("queue.background_wait_ms_max", *background_wait_ms_max == 0),
            ("queue.ttft_ms_max", *ttft_ms_max == 0),
            ("queue.first_token_ms_max", *first_token_ms_max == Some(0)),
            ("queue.token_idle_ms_max", *token_idle_ms_max == Some(0)),
            ("queue.handover_tokens_min", *handover_tokens_min == 0),
            ("queue.prefill_tokens_max", *prefill_tokens_max == 0),
            ("queue.prefills_per_minute_max", *prefills_per_minute_max == 0),
            ("queue.prefill_ms_max", *prefill_ms_max == 0),
        ];
        if let Some((field, _)) = zeros.into_iter().find(|(_, is_zero)| *is_zero) {
            let problem = "is 0, which would let nothing through: expected at least 1".to_owned();
            return Err(Unfit { field, problem });
        }
        if let Some(max) = concurrency_max.filter(|max| max < min) {
            let problem = format!("is {min}: expected at most concurrency_max, which is {max}");
            return Err(Unfit { field: "queue.concurrency_min", problem });
        }
        if *percent > PERCENT_MAX {
            let problem = format!("is {percent}: expected at most {PERCENT_MAX}");
            return Err(Unfit { field: "queue.claimed_percent_max", problem });
        }
        Ok(())
    }
}

/// What admission decides by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub limits: PerTier<Limits>,
    pub queue: PerTier<Queueing>,
    /// Of keys that have limits of their own.
    pub own: OwnLimits,
    pub routing: Routing,
}

impl Settings {
    #[must_use]
    pub fn of(&self, tier: Tier) -> Terms {
        Terms { limits: *self.limits.of(tier), queue: self.queue.of(tier).clone() }
    }
}

/// `[queue.latency]` and `[queue.throughput]`: how many turns a tier runs at once, and how the others wait. Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Queueing {
    /// Turns that wait for the tier at once; one more, or one of the key that has the most, goes on to the next tier of its route, or is
    /// refused. 0: nobody waits.
    pub turns_max: u32,
    /// How long one waits at most: then the next tier answers sooner. 0: nobody waits.
    pub wait_ms_max: u64,
    /// How long a background response waits at most where no other tier is left for it: nobody listens, it was promised to run, and a minute's
    /// allowance comes back in that time.
    #[schemars(range(min = 1))]
    pub background_wait_ms_max: u64,
    /// Turns that the tier runs at once, at most. With it the number adapts: one more for each round of turns that used all slots and had
    /// their first tokens in time, a quarter less when a first token comes late or an endpoint refuses for load.
    ///
    /// Default: none; as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_max: Option<NonZeroU32>,
    /// What it does not shrink below; with `concurrency_max` of the same value it does not move at all.
    pub concurrency_min: NonZeroU32,
    /// How many of the slots may be kept free for keys that held several at once in the last 5 to 10 seconds and hold fewer now, in
    /// percent: what a key with ten times their load leaves them. 0: the one for keys that hold none, alone.
    #[schemars(range(max = PERCENT_MAX))]
    pub claimed_percent_max: u32,
    /// A first token later than this, from the request's going out, is late: too many turns run.
    #[schemars(range(min = 1))]
    pub ttft_ms_max: u64,
    /// A turn without its first token for so long is taken from its endpoint and goes to another one or to the next tier. Silence after the
    /// first token is the endpoint's `idle_ms_max`.
    ///
    /// Default: none; what the endpoint's `first_byte_ms_max` allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub first_token_ms_max: Option<u64>,
    /// A turn without another token for so long after its last one ends in `response.failed`, whatever else its endpoint sends: engines
    /// that hang may go on with comments. Longer than a model that is told to may pause.
    ///
    /// Default: none; what the endpoint's `idle_ms_max` allows, which any byte satisfies.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub token_idle_ms_max: Option<u64>,
    /// A warm-up over a WebSocket has the endpoint where its turn will go read its prompt, by a request of one token
    /// ([ROUTING](ROUTING.md#prefill)): the first token comes sooner, and the prompt is paid for whether or not the turn comes.
    pub prefill_on_warm_up: bool,
    /// An endpoint of this tier reads a conversation before a turn of it comes over from another one: over a WebSocket while the client runs
    /// the tools that were called, or its user thinks, where the turn after that is expected here; and while a turn waits for a place of
    /// the tier before this one ([ROUTING](ROUTING.md#handover)). It is paid for whether or not the turn comes.
    pub prefill_on_handover: bool,
    /// A conversation of which less is new to the endpoint is left to its turn, in tokens, estimated.
    #[schemars(range(min = 1))]
    pub handover_tokens_min: u64,
    /// Tokens that are new to the endpoint in such a request, or one for a warm-up, at most, estimated: twice an agent's instructions and
    /// tools.
    #[schemars(range(min = 1))]
    pub prefill_tokens_max: u64,
    /// Such requests a minute, of all keys together; a quarter of them may come at once.
    #[schemars(range(min = 1))]
    pub prefills_per_minute_max: u32,
    /// How long one may take: a turn that comes meanwhile waits for it, and no longer than that.
    #[schemars(range(min = 1))]
    pub prefill_ms_max: u64,
}

impl Default for Queueing {
    fn default() -> Self {
        Self {
            turns_max: 256,
            wait_ms_max: 2_000,
            background_wait_ms_max: 600_000,
            concurrency_max: None,
            concurrency_min: NonZeroU32::MIN,
            claimed_percent_max: 25,
            ttft_ms_max: 2_000,
            first_token_ms_max: None,
            token_idle_ms_max: None,
            prefill_on_warm_up: false,
            prefill_on_handover: false,
            handover_tokens_min: 256,
            prefill_tokens_max: 32_768,
            prefills_per_minute_max: 60,
            prefill_ms_max: 10_000,
        }
    }
}

impl Queueing {
    /// The bounds of the tier's window, where it has one.
    #[must_use]
    pub fn bounds(&self) -> Option<Bounds> {
        let max = self.concurrency_max?;
        Some(Bounds { min: self.concurrency_min.min(max), max, ttft_ms_max: self.ttft_ms_max })
    }
}
