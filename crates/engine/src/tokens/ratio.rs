//! What an engine's own tokenizer makes of a text: learned from the usage that it reports, for each endpoint and model.
//! Knows no tokenizer but by its numbers.

use crate::fleet::EndpointId;
use crate::tokens::Bounds;
use std::collections::BTreeMap;
use std::sync::Arc;

/// 1 in the fixed point of this file.
const ONE: u64 = 1024;
/// No tokenizer for text is further than four times from another; what says so counts something else.
const MEAN_MIN: u64 = ONE / 4;
const MEAN_MAX: u64 = ONE * 4;
/// Below it the template's own tokens say more than the tokenizer.
const SAMPLE_TOKENS_MIN: u64 = 256;

/// An engine's tokens for each of ours: a moving mean and its mean deviation, as TCP keeps its round trips. 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    mean: u64,
    deviation: u64,
}

impl Default for Ratio {
    /// Nothing known: the engine is taken to count as we do.
    fn default() -> Self {
        Self { mean: ONE, deviation: 0 }
    }
}

impl Ratio {
    /// An engine counted `theirs` where we counted `ours`, of the same text and nothing else.
    pub fn learn(&mut self, ours: u64, theirs: u64) {
        if ours < SAMPLE_TOKENS_MIN || theirs == 0 {
            return;
        }
        let sample = (theirs.saturating_mul(ONE) / ours).clamp(MEAN_MIN, MEAN_MAX);
        if *self == Self::default() {
            *self = Self { mean: sample, deviation: sample.abs_diff(ONE) / 2 };
            return;
        }
        self.deviation = (3 * self.deviation + self.mean.abs_diff(sample)) / 4;
        self.mean = (7 * self.mean + sample + 3) / 8;
    }

    /// What the engine will most likely count.
    #[must_use]
    pub fn likely(&self, ours: u64) -> u64 {
        ours.saturating_mul(self.mean) / ONE
    }

    /// How many of ours the engine will most likely count as so many.
    #[must_use]
    pub fn ours(&self, theirs: u64) -> u64 {
        theirs.saturating_mul(ONE) / self.mean
    }

    /// What the engine will count with some certainty: two mean deviations either way.
    #[must_use]
    pub fn bounds(&self, ours: u64) -> Bounds {
        let least = self.mean.saturating_sub(2 * self.deviation).max(MEAN_MIN);
        let most = (self.mean + 2 * self.deviation).min(MEAN_MAX);
        Bounds { least: ours.saturating_mul(least) / ONE, most: ours.saturating_mul(most).div_ceil(ONE) }
    }
}

/// The ratios of a fleet, at most so many.
#[derive(Debug)]
pub struct Ratios {
    rows: BTreeMap<(EndpointId, Arc<str>), Ratio>,
    rows_max: usize,
}

/// Endpoints and models of a fleet are far fewer.
const ROWS_MAX: usize = 4096;

impl Default for Ratios {
    fn default() -> Self {
        Self::new(ROWS_MAX)
    }
}

impl Ratios {
    #[must_use]
    pub fn new(rows_max: usize) -> Self {
        Self { rows: BTreeMap::new(), rows_max }
    }

    /// Other endpoints have these ids from here on.
    pub fn forget(&mut self, is_other: impl Fn(EndpointId) -> bool) {
        self.rows.retain(|(endpoint, _), _| !is_other(*endpoint));
    }

    #[must_use]
    pub fn of(&self, endpoint: EndpointId, model: &Arc<str>) -> Ratio {
        self.rows.get(&(endpoint, Arc::clone(model))).copied().unwrap_or_default()
    }

    /// As [`Ratio::learn`]. A new row beyond the maximum is not begun.
    pub fn learn(&mut self, endpoint: EndpointId, model: &Arc<str>, ours: u64, theirs: u64) {
        let key = (endpoint, Arc::clone(model));
        if self.rows.len() < self.rows_max || self.rows.contains_key(&key) {
            self.rows.entry(key).or_default().learn(ours, theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::Verdict;

    #[test]
    fn unlearned_it_changes_nothing() {
        let ratio = Ratio::default();
        assert_eq!((ratio.likely(131_072), ratio.bounds(131_072)), (131_072, Bounds::exact(131_072)));
    }

    #[test]
    fn it_comes_to_what_an_engine_reports() {
        let mut ratio = Ratio::default();
        for ours in 1000..1050 {
            ratio.learn(ours, ours * 13 / 10);
        }
        assert!(ratio.likely(100_000).abs_diff(130_000) < 500, "{ratio:?}");
        assert_eq!(ratio.bounds(90_000).decide(131_072), Verdict::Fits, "{ratio:?}");
        assert_eq!(ratio.bounds(110_000).decide(131_072), Verdict::Overflows, "{ratio:?}");
    }

    #[test]
    fn engines_that_vary_are_not_refused_for() {
        let mut ratio = Ratio::default();
        for turn in 0..50 {
            ratio.learn(1000, if turn % 2 == 0 { 800 } else { 1400 });
        }
        assert_eq!(ratio.bounds(125_000).decide(131_072), Verdict::MustCount, "{ratio:?}");
    }

    #[test]
    fn nonsense_moves_it_no_further_than_its_bounds() {
        let mut ratio = Ratio::default();
        ratio.learn(10, 1_000_000);
        ratio.learn(1000, 0);
        assert_eq!(ratio, Ratio::default());
        for _ in 0..100 {
            ratio.learn(1000, u64::MAX);
        }
        assert_eq!(ratio.likely(1000), 4000);
        for _ in 0..100 {
            ratio.learn(u64::MAX, 1);
        }
        assert!((250..270).contains(&ratio.likely(1000)), "{ratio:?}");
    }

    #[test]
    fn rows_have_a_maximum_and_do_not_mix() {
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        let mut ratios = Ratios::new(1);
        ratios.learn(EndpointId(1), &one, 1000, 2000);
        ratios.learn(EndpointId(1), &two, 1000, 2000);
        assert_eq!(ratios.of(EndpointId(1), &one).likely(1000), 2000);
        assert_eq!(ratios.of(EndpointId(1), &two), Ratio::default());
        assert_eq!(ratios.of(EndpointId(2), &one), Ratio::default());
    }
}
