//! The waits between a turn's tokens, as a histogram of plain counters. Knows no clock and no turn.
//!
//! A gap lies between two looks at the clock that each brought text: tokens that come together have one gap before them, not one each.

/// The first bound. Each further one is twice the one before.
const FIRST_BOUND_NS: u64 = 50_000;
/// Up to 50 µs · 2^19: 26 s. Beyond is one more.
const BOUNDS: usize = 20;

/// How many gaps were how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gaps {
    counts: [u32; BOUNDS + 1],
    sum_ns: u64,
}

impl Gaps {
    pub const BUCKETS: usize = BOUNDS + 1;

    // hot: per token
    pub fn add(&mut self, gap_ns: u64) {
        let doublings = u64::BITS - (gap_ns.saturating_sub(1) / FIRST_BOUND_NS).leading_zeros();
        if let Some(count) = self.counts.get_mut((doublings as usize).min(BOUNDS)) {
            *count += 1;
        }
        self.sum_ns += gap_ns;
    }

    /// By bucket; the last is for what is longer than every bound.
    #[must_use]
    pub fn counts(&self) -> [u32; Self::BUCKETS] {
        self.counts
    }

    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// The upper bounds of all buckets but the last, which has none.
    pub fn bounds_ns() -> impl Iterator<Item = u64> {
        (0..BOUNDS).map(|doublings| FIRST_BOUND_NS << doublings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_lies_under_the_first_bound_that_is_not_below_it() {
        let bounds = || Gaps::bounds_ns().enumerate();
        for gap_ns in bounds().flat_map(|(_, bound)| [bound - 1, bound, bound + 1]).chain([0, 1, u64::MAX / 2]) {
            let mut gaps = Gaps::default();
            gaps.add(gap_ns);
            let bucket = gaps.counts().iter().position(|count| *count == 1);
            let expected = bounds().find(|(_, bound)| gap_ns <= *bound).map_or(BOUNDS, |(index, _)| index);
            assert_eq!((bucket, gaps.sum_ns()), (Some(expected), gap_ns), "{gap_ns}");
        }
        assert_eq!(Gaps::bounds_ns().last(), Some(26_214_400_000));
    }
}
