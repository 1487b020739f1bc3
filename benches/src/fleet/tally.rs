//! What became of the turns, and what that comes to. Knows nothing of where they ran.

use super::fairness::against_even_shares;
use flashlane_engine::Tier;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A turn that was answered. Times are its client's, from when it first asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub key: u8,
    pub session: u64,
    pub tier: Tier,
    /// The tier before had no place for it.
    pub is_spilled: bool,
    pub ttft_us: u64,
    pub whole_us: u64,
    pub tokens_prompt: u64,
    pub tokens_cached: u64,
    pub tokens_output: u64,
}

/// A turn that had no first token when the time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered {
    pub key: u8,
    pub session: u64,
    pub tokens: u64,
    pub waited_us: u64,
}

/// All that was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    pub answers: Vec<Answer>,
    pub unanswered: Vec<Unanswered>,
    /// Times that a client was told to come back later.
    pub turned_away: u64,
    /// Times that an engine refused for load.
    pub refused_upstream: u64,
    /// Tokens still reserved when all had ended.
    pub tokens_reserved_left: u64,
    /// Tokens of all prompts, and of these what had been sent before, to whatever engine.
    pub tokens_asked: u64,
    pub tokens_known: u64,
    /// The measured time.
    pub seconds: f64,
}

impl Tally {
    /// Both, as one; the time stays.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.answers.extend(other.answers);
        self.unanswered.extend(other.unanswered);
        self.turned_away += other.turned_away;
        self.refused_upstream += other.refused_upstream;
        self.tokens_reserved_left += other.tokens_reserved_left;
        self.tokens_asked += other.tokens_asked;
        self.tokens_known += other.tokens_known;
        self
    }

    /// Times to first token in milliseconds, sorted; those without one yet count by what they have waited.
    #[must_use]
    pub fn ttfts_ms(&self, tier: Option<Tier>) -> Vec<f64> {
        let answered = self.answers.iter().filter(|answer| tier.is_none_or(|tier| answer.tier == tier));
        let waiting = self.unanswered.iter().filter(|_| tier.is_none()).map(|waiting| waiting.waited_us);
        let mut all: Vec<f64> =
            answered.map(|answer| answer.ttft_us).chain(waiting).map(|us| us as f64 / 1000.0).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// Times to the last token in milliseconds, sorted.
    fn wholes_ms(&self) -> Vec<f64> {
        let mut all: Vec<f64> = self.answers.iter().map(|answer| answer.whole_us as f64 / 1000.0).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    #[must_use]
    pub fn whole_p50_ms(&self) -> f64 {
        percentile(&self.wholes_ms(), 50)
    }

    /// The share of answers that spilled.
    #[must_use]
    pub fn spill_share(&self) -> f64 {
        share(self.answers.iter().filter(|answer| answer.is_spilled).count() as u64, self.answers.len() as u64)
    }

    /// The share of prompt tokens that engines had cached, of a tier.
    #[must_use]
    pub fn cached_share(&self, tier: Tier) -> f64 {
        let of_tier = || self.answers.iter().filter(|answer| answer.tier == tier);
        share(of_tier().map(|answer| answer.tokens_cached).sum(), of_tier().map(|answer| answer.tokens_prompt).sum())
    }

    /// Jain's index of the tokens that keys had of a tier against their even shares of them: what a key wanted of it is all that it
    /// asked for.
    #[must_use]
    pub fn jain_keys(&self, tier: Tier) -> f64 {
        let parts = self.shares(tier, |key, _| u64::from(key));
        against_even_shares(&parts.into_values().collect::<Vec<_>>())
    }

    /// The same over the sessions of each key; of the keys the mean, by sessions.
    #[must_use]
    pub fn jain_sessions(&self, tier: Tier) -> f64 {
        let mut of_key: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
        let of_session = self.shares(tier, |key, session| session << 8 | u64::from(key));
        of_session.into_iter().for_each(|(name, parts)| of_key.entry(name & 0xff).or_default().push(parts));
        let weighted = of_key.values().map(|parts| (parts.len() as f64, against_even_shares(parts)));
        let (count, sum) = weighted.fold((0.0, 0.0), |(count, sum), (n, jain)| (count + n, sum + n * jain));
        if count > 0.0 { sum / count } else { 1.0 }
    }

    /// Tokens that each wanted and got of a tier.
    fn shares(&self, tier: Tier, name: impl Fn(u8, u64) -> u64) -> BTreeMap<u64, (f64, f64)> {
        let mut parts: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for answer in &self.answers {
            let tokens = (answer.tokens_prompt + answer.tokens_output) as f64;
            let part = parts.entry(name(answer.key, answer.session)).or_default();
            part.0 += tokens;
            part.1 += if answer.tier == tier { tokens } else { 0.0 };
        }
        for waiting in &self.unanswered {
            parts.entry(name(waiting.key, waiting.session)).or_default().0 += waiting.tokens as f64;
        }
        parts
    }

    /// What it comes to, for files.
    #[must_use]
    pub fn summary(&self) -> Value {
        let of = |tier| {
            let ttfts_ms = self.ttfts_ms(tier);
            let [p50, p90, p99] = [50, 90, 99].map(|percent| rounded(percentile(&ttfts_ms, percent)));
            json!({"turns": ttfts_ms.len(), "ttft_p50_ms": p50, "ttft_p90_ms": p90, "ttft_p99_ms": p99})
        };
        let wholes_ms = self.wholes_ms();
        json!({
            "all": of(None),
            "latency": of(Some(Tier::Latency)),
            "throughput": of(Some(Tier::Throughput)),
            "whole_p50_ms": rounded(percentile(&wholes_ms, 50)),
            "whole_p99_ms": rounded(percentile(&wholes_ms, 99)),
            "answered_per_s": rounded(self.answers.len() as f64 / self.seconds),
            "unanswered": self.unanswered.len(),
            "spill_share": rounded(self.spill_share()),
            "turned_away": self.turned_away,
            "refused_upstream": self.refused_upstream,
            "cached_share_latency": rounded(self.cached_share(Tier::Latency)),
            "cached_share_throughput": rounded(self.cached_share(Tier::Throughput)),
            "known_share": rounded(share(self.tokens_known, self.tokens_asked)),
            "jain_keys": rounded(self.jain_keys(Tier::Latency)),
            "jain_sessions": rounded(self.jain_sessions(Tier::Latency)),
            "tokens_reserved_left": self.tokens_reserved_left,
        })
    }
}

/// Of sorted values, the least below or at which so many of a hundred are; NaN of none.
#[must_use]
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}
