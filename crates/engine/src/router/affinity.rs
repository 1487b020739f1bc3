//! Which endpoint has a conversation's prefix in its cache. A table of a fixed size: a key has eight places, and takes the one that was
//! used least recently. Knows nothing of health and load.

use super::traits::SessionKey;
use crate::fleet::{EndpointId, Tier};
use crate::time::Now;

/// Places of one key: two lines of a processor's cache.
const WAYS: usize = 8;
/// Ticks are 2^24 ns (16.8 ms) long: 32 bits of them are two years.
const TICK_BITS: u32 = 24;

/// Endpoints of conversations, bounded in number and age.
#[derive(Debug, Default)]
pub struct Affinity {
    /// Made when the first is remembered.
    entries: Vec<Entry>,
    sets: usize,
    ticks_max: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    key: u64,
    /// Never 0 in an entry that is used.
    used: u32,
    /// By tier, its id and 1; 0: none.
    endpoints: [u16; 2],
}

impl Affinity {
    /// For so many conversations, in whole rows of eight; 0 remembers none.
    #[must_use]
    pub fn new(entries_max: usize, age_ms_max: u64) -> Self {
        let ticks_max = (age_ms_max.saturating_mul(1_000_000) >> TICK_BITS).clamp(1, u64::from(u32::MAX));
        Self {
            entries: Vec::new(),
            sets: entries_max.div_ceil(WAYS),
            ticks_max: u32::try_from(ticks_max).unwrap_or(u32::MAX),
        }
    }

    /// Other bounds from here on. A table of another size begins anew.
    pub fn adopt(&mut self, entries_max: usize, age_ms_max: u64) {
        let other = Self::new(entries_max, age_ms_max);
        match other.sets == self.sets {
            true => self.ticks_max = other.ticks_max,
            false => *self = other,
        }
    }

    /// No conversation is at these endpoints any more.
    pub fn forget(&mut self, is_gone: impl Fn(EndpointId) -> bool) {
        for endpoint in self.entries.iter_mut().flat_map(|entry| &mut entry.endpoints) {
            if endpoint.checked_sub(1).map(EndpointId).is_some_and(&is_gone) {
                *endpoint = 0;
            }
        }
    }

    /// Where a conversation's turn ended well last, if that is not too long ago.
    #[must_use]
    pub fn find(&self, key: SessionKey, tier: Tier, now: Now) -> Option<EndpointId> {
        let entry = self.set(key).iter().find(|entry| entry.used != 0 && entry.key == key.0)?;
        if tick(now).saturating_sub(entry.used) > self.ticks_max {
            return None;
        }
        let [latency, throughput] = entry.endpoints;
        let endpoint = match tier {
            Tier::Latency => latency,
            Tier::Throughput => throughput,
        };
        endpoint.checked_sub(1).map(EndpointId)
    }

    /// A turn of this conversation has ended well there.
    pub fn remember(&mut self, key: SessionKey, tier: Tier, endpoint: EndpointId, now: Now) {
        if self.entries.is_empty() {
            self.entries = vec![Entry::default(); self.sets * WAYS];
        }
        let (tick, ticks_max) = (tick(now), self.ticks_max);
        let range = self.range(key);
        let Some(set) = self.entries.get_mut(range) else { return };
        let is_known = |entry: &Entry| entry.used != 0 && entry.key == key.0;
        let place = set.iter().position(is_known).or_else(|| {
            let oldest = set.iter().enumerate().min_by_key(|(_, entry)| entry.used);
            oldest.map(|(place, _)| place)
        });
        let Some(entry) = place.and_then(|place| set.get_mut(place)) else { return };
        if !is_known(entry) || tick.saturating_sub(entry.used) > ticks_max {
            *entry = Entry { key: key.0, ..Entry::default() };
        }
        entry.used = tick;
        let [latency, throughput] = &mut entry.endpoints;
        *match tier {
            Tier::Latency => latency,
            Tier::Throughput => throughput,
        } = endpoint.0.saturating_add(1);
    }

    fn set(&self, key: SessionKey) -> &[Entry] {
        self.entries.get(self.range(key)).unwrap_or_default()
    }

    /// The key is a hash already: its upper half, scaled, names the row.
    fn range(&self, key: SessionKey) -> std::ops::Range<usize> {
        let row = ((key.0 >> 32) as usize * self.sets) >> 32;
        row * WAYS..(row + 1) * WAYS
    }
}

fn tick(now: Now) -> u32 {
    u32::try_from(now.mono_ns >> TICK_BITS).unwrap_or(u32::MAX - 1).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::at;
    use super::*;
    use std::collections::BTreeMap;

    /// Spread as XXH3 would.
    fn key(number: u64) -> SessionKey {
        SessionKey(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn a_conversation_is_found_at_each_tier_by_itself() {
        let mut affinity = Affinity::new(64, 1000);
        assert_eq!(affinity.find(key(1), Tier::Latency, at(0)), None);
        affinity.remember(key(1), Tier::Latency, EndpointId(0), at(0));
        affinity.remember(key(1), Tier::Throughput, EndpointId(7), at(0));
        assert_eq!(affinity.find(key(1), Tier::Latency, at(0)), Some(EndpointId(0)));
        assert_eq!(affinity.find(key(1), Tier::Throughput, at(0)), Some(EndpointId(7)));
        assert_eq!(affinity.find(key(2), Tier::Latency, at(0)), None);
        affinity.remember(key(1), Tier::Latency, EndpointId(3), at(10));
        assert_eq!(affinity.find(key(1), Tier::Latency, at(10)), Some(EndpointId(3)));
    }

    #[test]
    fn what_is_too_old_is_forgotten_for_both_tiers() {
        let mut affinity = Affinity::new(64, 1000);
        affinity.remember(key(1), Tier::Latency, EndpointId(2), at(0));
        assert!(affinity.find(key(1), Tier::Latency, at(1000)).is_some());
        assert!(affinity.find(key(1), Tier::Latency, at(1100)).is_none());
        affinity.remember(key(1), Tier::Throughput, EndpointId(4), at(1100));
        assert!(affinity.find(key(1), Tier::Latency, at(1100)).is_none());
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut affinity = Affinity::new(WAYS, 1_000_000);
        for number in 0..8 {
            affinity.remember(key(number), Tier::Latency, EndpointId(1), at(number * 100));
        }
        affinity.remember(key(0), Tier::Latency, EndpointId(1), at(900));
        affinity.remember(key(8), Tier::Latency, EndpointId(1), at(1000));
        let known = (0..9).filter(|&number| affinity.find(key(number), Tier::Latency, at(1000)).is_some());
        assert_eq!(known.collect::<Vec<_>>(), [0, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_table_of_none_remembers_none() {
        let mut affinity = Affinity::new(0, 1000);
        affinity.remember(key(1), Tier::Latency, EndpointId(0), at(0));
        assert_eq!(affinity.find(key(1), Tier::Latency, at(0)), None);
    }

    #[test]
    fn it_never_names_an_endpoint_that_the_conversation_was_not_at() {
        let mut affinity = Affinity::new(4096, 1_000_000);
        let mut model = BTreeMap::new();
        for step in 0..20_000_u64 {
            let number = step.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 51;
            let endpoint = EndpointId((step % 13) as u16);
            affinity.remember(key(number), Tier::Throughput, endpoint, at(step));
            model.insert(number, endpoint);
        }
        let found = model.iter().filter_map(|(&number, &endpoint)| {
            affinity.find(key(number), Tier::Throughput, at(20_000)).inspect(|&found| assert_eq!(found, endpoint))
        });
        let (found, all) = (found.count(), model.len());
        assert!(found <= 4096 && found * 100 >= 4096 * 90, "{found} of {all}");
    }
}
