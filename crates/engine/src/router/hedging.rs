//! When a second endpoint is asked for a first token that is late, and how much of that there may be: the learned 95th percentile of a
//! model's first tokens, and a budget of tokens, a share of all that are served. Knows no endpoint and no turn.

use super::settings::Routing;
use crate::fleet::Fleet;
use crate::time::Now;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A first token later than those of so many in a hundred is late.
const PERCENTILE: u64 = 95;
/// Fewer first tokens than these say nothing of the others: five of them were later than what is late.
const SEEN_MIN: u64 = 100;
/// A half of what is remembered ends after so many of them,
const HALF_MAX: u64 = 500;
/// or when it is so old.
const HALF_NS: u64 = 10 * 60 * 1_000_000_000;
/// Eight buckets for each doubling, from 2^20 ns (a millisecond) to 2^36 (a minute): an eighth is as exact as it has to be.
const BUCKETS: usize = 128;
const FIRST_EXPONENT: u32 = 20;
const STEPS: u64 = 8;
/// Tokens that may be saved up: some of the largest prompts.
const SAVED_MAX: i64 = 1_000_000;

/// Of all models that hedge. See the module.
#[derive(Debug)]
pub struct Hedging {
    percent: u32,
    /// In hundredths of a token. Below 0: more was taken than was thought.
    saved: i64,
    models: BTreeMap<Arc<str>, FirstTokens>,
}

impl Hedging {
    /// None where no model hedges.
    #[must_use]
    pub fn of(fleet: &Fleet, routing: &Routing) -> Option<Self> {
        let mut hedging = Self { percent: 0, saved: 0, models: BTreeMap::new() };
        hedging.adopt(fleet, routing).then_some(hedging)
    }

    /// Other models or another share from here on; what is known of those that stay is kept, and so is what was saved up. False: no model
    /// hedges any more.
    pub fn adopt(&mut self, fleet: &Fleet, routing: &Routing) -> bool {
        self.percent = routing.hedge_tokens_percent_max;
        let names = || fleet.models.iter().filter(|model| model.routing.hedges).map(|model| &model.name);
        self.models.retain(|known, _| names().any(|name| name == known));
        for name in names() {
            self.models.entry(Arc::clone(name)).or_default();
        }
        self.percent > 0 && !self.models.is_empty()
    }

    /// So many tokens were served: a share of them may be spent.
    pub fn earn(&mut self, tokens: u64) {
        let earned = tokens.saturating_mul(u64::from(self.percent));
        self.saved = self.saved.saturating_add(signed(earned)).min(SAVED_MAX * 100);
    }

    /// Whether so many tokens may be spent.
    #[must_use]
    pub fn has(&self, tokens: u64) -> bool {
        self.saved >= signed(tokens).saturating_mul(100)
    }

    /// So many are, or were more than was thought.
    pub fn spend(&mut self, tokens: u64) {
        self.saved = self.saved.saturating_sub(signed(tokens).saturating_mul(100));
    }

    /// A first token of the model's came after so long, or it had not come by then.
    pub fn learn(&mut self, model: &str, ns: u64, now: Now) {
        if let Some(seen) = self.models.get_mut(model) {
            seen.add(ns, now);
        }
    }

    /// After how long a first token of the model's is late. None: nobody knows yet.
    #[must_use]
    pub fn late_after_ns(&self, model: &str, now: Now) -> Option<u64> {
        self.models.get(model)?.late_after_ns(now)
    }
}

/// When first tokens came, lately.
#[derive(Debug)]
struct FirstTokens {
    recent: Half,
    before: Half,
    /// Told by what was seen when it last changed.
    late_after_ns: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Half {
    begun_ns: u64,
    seen: u64,
    /// [`HALF_MAX`] at most.
    counts: [u16; BUCKETS],
}

impl Default for FirstTokens {
    fn default() -> Self {
        Self { recent: Half::begun(0), before: Half::begun(0), late_after_ns: None }
    }
}

impl Half {
    fn begun(begun_ns: u64) -> Self {
        Self { begun_ns, seen: 0, counts: [0; BUCKETS] }
    }
}

impl FirstTokens {
    fn add(&mut self, ns: u64, now: Now) {
        let age_ns = now.mono_ns.saturating_sub(self.recent.begun_ns);
        if self.recent.seen >= HALF_MAX || age_ns > HALF_NS {
            self.before = if age_ns > 2 * HALF_NS { Half::begun(0) } else { self.recent };
            self.recent = Half::begun(now.mono_ns);
        }
        if let Some(count) = self.recent.counts.get_mut(bucket(ns)) {
            *count += 1;
            self.recent.seen += 1;
        }
        self.late_after_ns = self.percentile();
    }

    fn late_after_ns(&self, now: Now) -> Option<u64> {
        let age_ns = now.mono_ns.saturating_sub(self.recent.begun_ns);
        self.late_after_ns.filter(|_| age_ns <= 2 * HALF_NS)
    }

    fn percentile(&self) -> Option<u64> {
        let seen = self.recent.seen + self.before.seen;
        if seen < SEEN_MIN {
            return None;
        }
        let wanted = (seen * PERCENTILE).div_ceil(100);
        let counts = self.recent.counts.iter().zip(&self.before.counts);
        let sums = counts.scan(0, |sum, (recent, before)| {
            *sum += u64::from(*recent) + u64::from(*before);
            Some(*sum)
        });
        let at = sums.take_while(|sum| *sum < wanted).count();
        Some(end_ns(at))
    }
}

fn bucket(ns: u64) -> usize {
    let exponent = ns.max(1).ilog2();
    let Some(doublings) = exponent.checked_sub(FIRST_EXPONENT) else { return 0 };
    let step = (ns >> (exponent - STEPS.ilog2())) % STEPS;
    let bucket = u64::from(doublings) * STEPS + step;
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// Where a bucket ends.
fn end_ns(bucket: usize) -> u64 {
    let (doublings, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    ((STEPS + step + 1) << (u64::from(FIRST_EXPONENT) + doublings)) / STEPS
}

fn signed(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{at, fleet, model};
    use super::*;
    use crate::fleet::Route;

    const MS: u64 = 1_000_000;

    fn hedging(percent: u32) -> Option<Hedging> {
        let mut model = model(Route::LatencyFirst);
        model.routing.hedges = true;
        let fleet = Fleet { models: vec![model], ..fleet(&[]) };
        Hedging::of(&fleet, &Routing { hedge_tokens_percent_max: percent, ..Routing::default() })
    }

    #[test]
    fn where_no_model_hedges_or_nothing_may_be_spent_there_is_none() {
        let plain = Fleet { models: vec![model(Route::LatencyFirst)], ..fleet(&[]) };
        assert!(Hedging::of(&plain, &Routing::default()).is_none());
        assert!(hedging(0).is_none());
        let mut one = hedging(5).unwrap();
        (0..200).for_each(|_| one.learn("m", 50 * MS, at(1)));
        assert!(one.late_after_ns("m", at(2)).is_some());
        assert!(!one.adopt(&plain, &Routing::default()));
        assert_eq!(one.late_after_ns("m", at(2)), None);
    }

    #[test]
    fn what_is_late_is_the_95th_percentile_within_an_eighth() {
        let mut hedging = hedging(5).unwrap();
        for first in 0..99 {
            hedging.learn("m", if first % 20 == 19 { 2_000 * MS } else { 100 * MS }, at(1));
        }
        assert_eq!(hedging.late_after_ns("m", at(1)), None, "too few to say");
        hedging.learn("m", 100 * MS, at(1));
        let late = hedging.late_after_ns("m", at(1)).unwrap();
        assert!((100 * MS..=113 * MS).contains(&late), "{late}");
        // Of one more in twenty, the slow ones are usual.
        (0..3).for_each(|_| hedging.learn("m", 2_000 * MS, at(1)));
        let late = hedging.late_after_ns("m", at(1)).unwrap();
        assert!((2_000 * MS..=2_250 * MS).contains(&late), "{late}");
        assert_eq!(hedging.late_after_ns("other", at(1)), None);
    }

    #[test]
    fn what_was_long_ago_is_forgotten_by_number_and_by_time() {
        let mut hedging = hedging(5).unwrap();
        (0..1_000).for_each(|_| hedging.learn("m", 2_000 * MS, at(1)));
        (0..1_001).for_each(|_| hedging.learn("m", 50 * MS, at(2)));
        let late = hedging.late_after_ns("m", at(2)).unwrap();
        assert!(late <= 57 * MS, "{late}");
        assert!(hedging.late_after_ns("m", at(20 * 60 * 1000)).is_some());
        assert_eq!(hedging.late_after_ns("m", at(20 * 60 * 1000 + 3)), None);
        (0..100).for_each(|_| hedging.learn("m", 400 * MS, at(30 * 60 * 1000)));
        let late = hedging.late_after_ns("m", at(30 * 60 * 1000)).unwrap();
        assert!((400 * MS..=450 * MS).contains(&late), "{late}");
    }

    #[test]
    fn each_time_is_in_its_bucket() {
        for ns in [0, 1, MS, 1 << 20, (1 << 20) + 1, 100 * MS, 101 * MS, 1_999 * MS, 60_000 * MS, (1 << 36) - 1] {
            let end = end_ns(bucket(ns));
            assert!(ns < end || ns == 0, "{ns} {end}");
            assert!(ns < 1 << 20 || end - end / 8 <= ns + 1, "{ns} {end}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        let ends: Vec<_> = (0..BUCKETS).map(end_ns).collect();
        assert!(ends.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn no_more_is_spent_than_the_share_of_what_was_served() {
        let mut hedging = hedging(5).unwrap();
        assert!(!hedging.has(1), "nothing was served");
        let (mut served, mut spent) = (0_u64, 0_u64);
        for turn in 0..10_000_u64 {
            hedging.earn(1_000 + turn % 700);
            served += 1_000 + turn % 700;
            if hedging.has(900) {
                hedging.spend(900);
                spent += 900;
            }
            assert!(spent * 100 <= served * 5, "{spent} of {served}");
        }
        assert!(spent * 100 >= served * 5 - 100_000, "{spent} of {served}");
        // What was thought too little is made good for.
        hedging.spend(10_000);
        (0..100).for_each(|_| hedging.earn(1_000));
        assert!(!hedging.has(1));
        (0..120).for_each(|_| hedging.earn(1_000));
        assert!(hedging.has(1));
    }

    #[test]
    fn what_is_saved_has_a_bound() {
        let mut hedging = hedging(5).unwrap();
        (0..100).for_each(|_| hedging.earn(u64::MAX));
        assert!(hedging.has(1_000_000) && !hedging.has(1_000_001));
        hedging.spend(u64::MAX);
        assert!(!hedging.has(0));
    }
}
