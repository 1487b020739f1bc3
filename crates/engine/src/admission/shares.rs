//! Who has been served how much: a counter of tokens each, by which the least served is next (virtual token counters).
//!
//! Whoever comes back after a rest begins at the floor, where the one served last began: a rest saves nothing up, and is not held
//! against anybody. A counter at the floor or below need not be kept, since that is where its owner would begin anyway.

use std::collections::BTreeMap;

/// The counters of those that share something.
#[derive(Debug)]
pub struct Shares<K> {
    floor: u64,
    counters: BTreeMap<K, u64>,
    /// Counters kept at once.
    max: usize,
}

impl<K: Ord + Copy> Shares<K> {
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { floor: 0, counters: BTreeMap::new(), max: max.max(1) }
    }

    /// Where `key` stands: the lowest is next.
    #[must_use]
    pub fn counter(&self, key: &K) -> u64 {
        self.counters.get(key).copied().unwrap_or(0).max(self.floor)
    }

    /// `key` is served, with so many tokens as is thought.
    pub fn charge(&mut self, key: K, tokens: u64) {
        let start = self.counter(&key);
        self.floor = self.floor.max(start);
        if self.counters.len() >= self.max && !self.counters.contains_key(&key) {
            self.forget();
        }
        self.counters.insert(key, start.saturating_add(tokens));
    }

    /// What was charged as `thought` was `used`.
    pub fn correct(&mut self, key: &K, thought: u64, used: u64) {
        if let Some(counter) = self.counters.get_mut(key) {
            *counter = counter.saturating_add(used).saturating_sub(thought);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.counters.len()
    }

    /// Forgets those for whom it makes no difference; where that is nobody, those for whom it makes the least.
    fn forget(&mut self) {
        let floor = self.floor;
        self.counters.retain(|_, counter| *counter > floor);
        if self.counters.len() < self.max {
            return;
        }
        let mut counters: Vec<u64> = self.counters.values().copied().collect();
        let (_, middle, _) = counters.select_nth_unstable(self.max / 2);
        let middle = *middle;
        self.counters.retain(|_, counter| *counter > middle);
    }
}
