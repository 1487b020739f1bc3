//! How fast the simulated engine is. Knows nothing of what it says.

use serde::{Deserialize, Serialize};

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;

/// The pace of one simulated engine. Token `k` (from 0) is due at `first_token_ms + k / tokens_per_second`; a chunk of
/// several tokens is due with its last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Time from the request to the first token, in milliseconds.
    pub first_token_ms: u32,
    /// Tokens a second after the first. 0: all the rest is due with the first.
    pub tokens_per_second: u32,
    /// Tokens in the largest chunk. Above 1, about every fourth chunk has more than one token; the first never has.
    pub tokens_per_chunk_max: u32,
    /// Prompt tokens read a second, added to the time of the first token. 0: the prompt costs nothing more.
    pub prefill_tokens_per_second: u32,
}

impl Profile {
    /// Wafer-scale hardware: first token after 30 ms, 1,500 tokens a second, several tokens a chunk at times.
    pub const WAFER: Profile =
        Profile { first_token_ms: 30, tokens_per_second: 1_500, tokens_per_chunk_max: 4, prefill_tokens_per_second: 0 };

    /// One GPU server: first token after 250 ms, 65 tokens a second, one token a chunk.
    pub const GPU: Profile =
        Profile { first_token_ms: 250, tokens_per_second: 65, tokens_per_chunk_max: 1, prefill_tokens_per_second: 0 };

    /// When token `index` (from 0) is due after a prompt of `prompt_tokens`, in nanoseconds since the request.
    pub(crate) fn due_ns(&self, prompt_tokens: u64, index: u64) -> u64 {
        let first = u64::from(self.first_token_ms).saturating_mul(NS_PER_MS);
        let prefill = per_second(prompt_tokens, self.prefill_tokens_per_second);
        first.saturating_add(prefill).saturating_add(per_second(index, self.tokens_per_second))
    }
}

/// Nanoseconds for `count` at `rate` a second; no time at rate 0.
fn per_second(count: u64, rate: u32) -> u64 {
    count.saturating_mul(NS_PER_S).checked_div(u64::from(rate)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_due_at_the_first_plus_its_index_over_the_rate() {
        assert_eq!(Profile::WAFER.due_ns(1_000, 0), 30_000_000);
        assert_eq!(Profile::WAFER.due_ns(0, 1_500), 1_030_000_000);
        assert_eq!(Profile::GPU.due_ns(0, 1), 250_000_000 + 15_384_615);
    }

    #[test]
    fn prefill_delays_the_first_token_and_rate_0_costs_nothing() {
        let profile = Profile { prefill_tokens_per_second: 1_000, tokens_per_second: 0, ..Profile::WAFER };
        assert_eq!(profile.due_ns(500, 0), 530_000_000);
        assert_eq!(profile.due_ns(500, 99), 530_000_000);
    }
}
