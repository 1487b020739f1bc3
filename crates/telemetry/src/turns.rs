//! The last turns that have ended, each as one record: what `flashlane explain`, the status page and the exporter of traces read. Knows no
//! socket and no clock, and nothing of any prompt.
//!
//! A record costs one short lock at its turn's end. Readers hold the lock for so many records at once and no more.

mod record;

pub use record::{Guarded, Name, Part, Queued, Route, Spliced, Stepped, Tokens, Traced, Tried, TurnRecord, Whose};

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Records that are looked at in one go.
const LOOK_RECORDS_MAX: usize = 256;

/// The last turns of one process, each under its number: from 1, in the order in which they ended.
#[derive(Debug)]
pub struct Turns {
    kept_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    records: VecDeque<Arc<TurnRecord>>,
    /// The number of the next one.
    next: u64,
}

impl Turns {
    /// Keeps `kept_max` at most; 0: none.
    #[must_use]
    pub fn new(kept_max: usize) -> Self {
        Self { kept_max, kept: Mutex::new(Kept { records: VecDeque::with_capacity(kept_max), next: 1 }) }
    }

    #[must_use]
    pub fn kept_max(&self) -> usize {
        self.kept_max
    }

    /// Whether a record would be kept: who makes one need not where it is not.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kept_max > 0
    }

    /// Keeps one more, and forgets the oldest where there is no room.
    pub fn keep(&self, mut record: TurnRecord) {
        if self.kept_max == 0 {
            return;
        }
        let mut kept = self.kept();
        record.number = kept.next;
        kept.next += 1;
        let oldest = if kept.records.len() >= self.kept_max { kept.records.pop_front() } else { None };
        kept.records.push_back(Arc::new(record));
        drop(kept);
        // Outside of the lock: it may be the last to hold it.
        drop(oldest);
    }

    /// Those that came after the one of this number, oldest first, at most so many. Where the first of them is not the next number,
    /// those between are forgotten. Ask again with the last one's number: that is how news are followed.
    #[must_use]
    pub fn since(&self, number: u64, count_max: usize) -> Vec<Arc<TurnRecord>> {
        let kept = self.kept();
        let oldest = kept.records.front().map_or(kept.next, |record| record.number);
        let skipped = usize::try_from(number.saturating_add(1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        kept.records.iter().skip(skipped).take(count_max.min(LOOK_RECORDS_MAX)).cloned().collect()
    }

    /// The newest, newest first, at most so many.
    #[must_use]
    pub fn latest(&self, count_max: usize) -> Vec<Arc<TurnRecord>> {
        self.matching(count_max, |_| true)
    }

    /// Those of a request or a response, newest first, at most so many: over one WebSocket many turns have one request id.
    #[must_use]
    pub fn of(&self, id: &str, count_max: usize) -> Vec<Arc<TurnRecord>> {
        self.matching(count_max, |record| record.has_id(id))
    }

    /// How many are kept now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept().records.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The oldest that is kept.
    #[must_use]
    pub fn oldest(&self) -> Option<Arc<TurnRecord>> {
        self.kept().records.front().cloned()
    }

    fn matching(&self, count_max: usize, is_wanted: impl Fn(&TurnRecord) -> bool) -> Vec<Arc<TurnRecord>> {
        let mut found = Vec::new();
        let mut before = u64::MAX;
        loop {
            let some = self.before(before);
            let Some(last) = some.last() else { return found };
            before = last.number;
            let wanted = some.into_iter().filter(|record| is_wanted(record));
            found.extend(wanted.take(count_max - found.len()));
            if found.len() == count_max {
                return found;
            }
        }
    }

    /// Some that came before the one of this number, newest first.
    fn before(&self, number: u64) -> Vec<Arc<TurnRecord>> {
        let kept = self.kept();
        let skipped = usize::try_from(kept.next.saturating_sub(number)).unwrap_or(usize::MAX);
        kept.records.iter().rev().skip(skipped).take(LOOK_RECORDS_MAX).cloned().collect()
    }

    /// A panic while it was held left at worst a record out.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome;
    use flashlane_engine::Outcome;

    fn record(request: &str, response: u64) -> TurnRecord {
        let outcome = Outcome { response_id: format!("resp_{response}"), ..outcome() };
        TurnRecord::new(
            &outcome,
            Whose { request_id: &request.into(), key: None, owner: 0xabab },
            1_700_000_000_000_000,
        )
    }

    fn numbers(records: &[Arc<TurnRecord>]) -> Vec<u64> {
        records.iter().map(|record| record.number).collect()
    }

    #[test]
    fn the_last_so_many_are_kept_and_found_by_both_ids() {
        let turns = Turns::new(600);
        (1..=1000).for_each(|n| turns.keep(record(if n % 2 == 0 { "req_even" } else { "req_odd" }, n)));
        assert_eq!((turns.len(), turns.oldest().unwrap().number), (600, 401));
        assert_eq!(numbers(&turns.latest(3)), [1000, 999, 998]);
        assert_eq!(turns.latest(10_000).len(), 600);
        assert_eq!(numbers(&turns.of("resp_700", 10)), [700]);
        assert_eq!(numbers(&turns.of("req_odd", 2)), [999, 997]);
        assert_eq!(turns.of("req_even", 10_000).len(), 300);
        assert!(turns.of("resp_400", 10).is_empty() && turns.of("", 10).is_empty());
    }

    #[test]
    fn news_are_followed_by_number_and_a_gap_shows() {
        let turns = Turns::new(4);
        assert!(turns.since(0, 10).is_empty());
        (1..=3).for_each(|n| turns.keep(record("req_1", n)));
        assert_eq!(numbers(&turns.since(0, 2)), [1, 2]);
        assert_eq!(numbers(&turns.since(2, 10)), [3]);
        assert!(turns.since(3, 10).is_empty() && turns.since(u64::MAX, 10).is_empty());
        (4..=9).for_each(|n| turns.keep(record("req_1", n)));
        assert_eq!(numbers(&turns.since(3, 10)), [6, 7, 8, 9]);
    }

    #[test]
    fn none_are_kept_where_that_is_asked_for() {
        let turns = Turns::new(0);
        turns.keep(record("req_1", 1));
        assert!(turns.is_empty() && !turns.is_kept() && turns.latest(1).is_empty() && turns.since(0, 1).is_empty());
    }
}
