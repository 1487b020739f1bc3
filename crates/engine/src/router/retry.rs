//! How often turns may try again: a share of all turns, and a few each second besides. One layer of retries in the whole gateway, so
//! that what fails everywhere does not multiply the load. Knows nothing of why a turn failed.

use crate::time::Now;

/// One further attempt, in the budget's unit.
const ATTEMPT: u64 = 100_000_000_000;
/// How many seconds of the free attempts may be saved up.
const SAVED_S_MAX: u64 = 10;
/// How many attempts the turns' share may save up beside.
const SAVED_MIN: u64 = 10;

/// A bucket that turns and time fill, and further attempts empty.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u64,
    per_second: u64,
    /// In 1/100,000,000,000 of an attempt: a percent of a turn and a nanosecond of a rate are whole numbers of it.
    saved: u64,
    seen_ns: u64,
}

impl RetryBudget {
    #[must_use]
    pub fn new(percent: u32, per_second: u32) -> Self {
        let mut budget = Self { percent: u64::from(percent), per_second: u64::from(per_second), saved: 0, seen_ns: 0 };
        budget.saved = budget.per_second.saturating_mul(ATTEMPT);
        budget
    }

    /// Other shares from here on; what is saved up is kept.
    pub fn adopt(&mut self, percent: u32, per_second: u32) {
        (self.percent, self.per_second) = (u64::from(percent), u64::from(per_second));
    }

    /// A turn makes its first attempt.
    pub fn begin(&mut self) {
        self.fill(self.percent.saturating_mul(ATTEMPT / 100));
    }

    /// Whether a turn may try once more; if so, it has.
    pub fn spend(&mut self, now: Now) -> bool {
        let passed = now.mono_ns.saturating_sub(self.seen_ns);
        self.seen_ns = self.seen_ns.max(now.mono_ns);
        // A second's worth in nanoseconds is `ATTEMPT / 1e9` each.
        self.fill(passed.saturating_mul(self.per_second).saturating_mul(ATTEMPT / 1_000_000_000));
        match self.saved.checked_sub(ATTEMPT) {
            Some(left) => {
                self.saved = left;
                true
            }
            None => false,
        }
    }

    fn fill(&mut self, by: u64) {
        let most = (self.per_second.saturating_mul(SAVED_S_MAX)).max(SAVED_MIN).saturating_mul(ATTEMPT);
        self.saved = self.saved.saturating_add(by).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::at;
    use super::*;

    fn spent(budget: &mut RetryBudget, now: Now) -> usize {
        std::iter::repeat_with(|| budget.spend(now)).take(1000).take_while(|spent| *spent).count()
    }

    #[test]
    fn a_share_of_all_turns_may_try_again() {
        let mut budget = RetryBudget::new(10, 0);
        assert!(!budget.spend(at(0)));
        (0..50).for_each(|_| budget.begin());
        assert_eq!(spent(&mut budget, at(1)), 5);
        (0..9).for_each(|_| budget.begin());
        assert!(!budget.spend(at(2)));
        budget.begin();
        assert!(budget.spend(at(2)));
    }

    #[test]
    fn a_few_each_second_are_free() {
        let mut budget = RetryBudget::new(10, 10);
        assert_eq!(spent(&mut budget, at(0)), 10);
        assert_eq!(spent(&mut budget, at(99)), 0);
        assert_eq!(spent(&mut budget, at(100)), 1);
        assert_eq!(spent(&mut budget, at(1100)), 10);
    }

    #[test]
    fn what_is_saved_has_a_bound() {
        let mut budget = RetryBudget::new(10, 10);
        (0..1_000_000).for_each(|_| budget.begin());
        assert_eq!(spent(&mut budget, at(10_000_000)), 100);
        let mut budget = RetryBudget::new(10, 0);
        (0..1_000_000).for_each(|_| budget.begin());
        assert_eq!(spent(&mut budget, at(0)), 10);
        let mut budget = RetryBudget::new(u32::MAX, u32::MAX);
        budget.begin();
        assert!(budget.spend(at(u64::MAX / 1_000_000)));
    }

    #[test]
    fn attempts_stay_below_the_share_and_the_floor() {
        let mut budget = RetryBudget::new(10, 10);
        let mut retries = 0_u64;
        for ms in 0..60_000 {
            budget.begin();
            retries += u64::from(budget.spend(at(ms)));
            assert!(retries <= 10 + (10 * (ms + 1) + ms) / 100, "{retries} after {ms} ms");
        }
        assert!(retries >= 6000 + 590, "{retries}");
    }
}
