//! Turns that wait for a slot of a tier: bounded, and served in the order of what their keys, and within a key its sessions, have
//! been served already.
//!
//! One slot is only for keys that hold none, so that nobody waits for a heavy key's long turns to end before a first one starts. And
//! who lately held several at once has a claim on as many, up to an equal share: who holds more than such a share leaves them free, as
//! far as settings allow.
//!
//! Holds nobody to a limit, and knows no endpoints: who may not start now is told to it.

use super::limit::Before;
use super::shares::Shares;
use crate::session::Owner;
use crate::time::Now;
use std::collections::{BTreeMap, VecDeque};

/// Keys that are remembered, and sessions of each.
const KEYS_MAX: usize = 1024;
const SESSIONS_MAX: usize = 1024;
/// A key's claim is what it held at most in this span of time and the one before.
const SPAN_NS: u64 = 5_000_000_000;

/// A turn that waits, among all that ever did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WaiterId(pub u64);

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    pub owner: Owner,
    /// Turns of one session are served one after the other; those without are one.
    pub session: u64,
}

/// A turn in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub id: WaiterId,
    /// What it is thought to take.
    pub tokens: u64,
}

/// How a tier's slots stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// None: as many as are wanted.
    pub all: Option<u32>,
    pub free: u32,
    /// Of all, those that claims may keep free.
    pub claimed_max: u32,
}

/// How many are served before a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ahead {
    /// Of its own key.
    pub of_key: usize,
    pub of_all: usize,
}

/// What is known of one key.
#[derive(Debug)]
struct Key {
    /// Its sessions with turns that wait.
    waiting: BTreeMap<u64, VecDeque<Waiting>>,
    len: usize,
    /// What they are thought to take.
    tokens: u64,
    /// Slots that its turns hold.
    held: u32,
    /// The most that they held in this span, and in the one before.
    most: [u32; 2],
    served: Shares<u64>,
}

impl Key {
    fn is_busy(&self) -> bool {
        self.len > 0 || self.held > 0
    }

    /// Slots that are its own, where `share` is an equal part. A single one is there for it anyway.
    fn claim(&self, share: u32) -> u32 {
        let [now, before] = self.most;
        Some(now.max(before).min(share)).filter(|claim| *claim > 1).unwrap_or(0)
    }
}

impl Default for Key {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), len: 0, tokens: 0, held: 0, most: [0; 2], served: Shares::new(SESSIONS_MAX) }
    }
}

/// The queue of one tier.
#[derive(Debug)]
pub struct Queue {
    keys: BTreeMap<Owner, Key>,
    served: Shares<Owner>,
    len: usize,
    /// What all that wait are thought to take.
    tokens: u64,
    /// When this span of time ends.
    span_ends_ns: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self { keys: BTreeMap::new(), served: Shares::new(KEYS_MAX), len: 0, tokens: 0, span_ends_ns: 0 }
    }
}

impl Queue {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Those of one key.
    #[must_use]
    pub fn len_of(&self, owner: &Owner) -> usize {
        self.keys.get(owner).map_or(0, |key| key.len)
    }

    /// What so many of a key's turns that wait will take, if all take as much as their mean.
    #[must_use]
    pub fn before(&self, owner: &Owner, turns: usize) -> Before {
        let Some(key) = self.keys.get(owner).filter(|key| key.len > 0) else { return Before::default() };
        let turns = turns as u64;
        Before { turns, tokens: (key.tokens / key.len as u64).saturating_mul(turns) }
    }

    /// A turn comes to wait.
    pub fn push(&mut self, party: Party, waiting: Waiting) {
        let key = self.key(&party.owner);
        key.waiting.entry(party.session).or_default().push_back(waiting);
        key.len += 1;
        key.tokens = key.tokens.saturating_add(waiting.tokens);
        self.len += 1;
        self.tokens = self.tokens.saturating_add(waiting.tokens);
    }

    /// A turn waits no more. Returns whether it did.
    pub fn remove(&mut self, party: Party, id: WaiterId) -> bool {
        let Some(key) = self.keys.get_mut(&party.owner) else { return false };
        let Some(session) = key.waiting.get_mut(&party.session) else { return false };
        let Some(index) = session.iter().position(|waiting| waiting.id == id) else { return false };
        let tokens = session.remove(index).map_or(0, |waiting| waiting.tokens);
        if session.is_empty() {
            key.waiting.remove(&party.session);
        }
        key.len -= 1;
        key.tokens = key.tokens.saturating_sub(tokens);
        self.len -= 1;
        self.tokens = self.tokens.saturating_sub(tokens);
        true
    }

    /// Claims that are too old are forgotten.
    pub fn pass(&mut self, now: Now) {
        if now.mono_ns < self.span_ends_ns {
            return;
        }
        let is_two = now.mono_ns >= self.span_ends_ns.saturating_add(SPAN_NS);
        self.span_ends_ns = now.mono_ns.saturating_add(SPAN_NS);
        self.keys.retain(|_, key| {
            let [most, _] = key.most;
            key.most = [key.held, if is_two { key.held } else { most }];
            key.is_busy() || key.most != [0; 2]
        });
    }

    /// Whether one of the key's turns may start now.
    #[must_use]
    pub fn may_start(&self, owner: &Owner, Slots { all, free, claimed_max }: Slots) -> bool {
        let Some(all) = all.filter(|all| *all > 1) else { return free > 0 };
        let Some(key) = self.keys.get(owner).filter(|key| key.held > 0) else { return free > 0 };
        // The last one is for those that hold none.
        let Some(free) = free.checked_sub(1).filter(|free| *free > 0) else { return false };
        let share = all / u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        key.held < share || free > claimed_max || free > self.claimed(owner, share).min(claimed_max)
    }

    /// The turn that is next among those that `may` start, of keys that `may_key`; it waits on until it is removed.
    pub fn next(
        &self,
        may_key: impl Fn(&Owner) -> bool,
        mut may: impl FnMut(&Party, &Waiting) -> bool,
    ) -> Option<(Party, Waiting)> {
        let mut keys: Vec<_> = self.keys.iter().filter(|(owner, key)| key.len > 0 && may_key(owner)).collect();
        keys.sort_by_key(|(owner, _)| self.served.counter(owner));
        keys.into_iter().find_map(|(owner, key)| {
            let fronts = key.waiting.iter().filter_map(|(session, waiting)| {
                let party = Party { owner: *owner, session: *session };
                let front = *waiting.front()?;
                may(&party, &front).then(|| ((key.served.counter(session), front.id), party, front))
            });
            fronts.min_by_key(|(order, ..)| *order).map(|(_, party, front)| (party, front))
        })
    }

    /// The last turn of the key that has the most of them waiting, if that leaves it with no fewer than `owner` would have.
    #[must_use]
    pub fn last_of_longest(&self, owner: &Owner) -> Option<(Party, WaiterId)> {
        let (longest, key) = self.keys.iter().max_by_key(|(_, key)| key.len)?;
        if key.len <= self.len_of(owner) + 1 {
            return None;
        }
        let lasts =
            key.waiting.iter().filter_map(|(session, waiting)| Some((waiting.len(), waiting.back()?.id, *session)));
        lasts.max().map(|(_, id, session)| (Party { owner: *longest, session }, id))
    }

    /// A turn starts: its key holds a slot, and is charged what the turn is thought to take.
    pub fn start(&mut self, party: Party, tokens: u64) {
        let key = self.key(&party.owner);
        key.held += 1;
        let [most, _] = &mut key.most;
        *most = key.held.max(*most);
        key.served.charge(party.session, tokens);
        self.served.charge(party.owner, tokens);
    }

    /// A turn that was thought to take so many tokens has ended, and took others.
    pub fn end(&mut self, party: Party, thought: u64, used: u64) {
        if let Some(key) = self.keys.get_mut(&party.owner) {
            key.held = key.held.saturating_sub(1);
            key.served.correct(&party.session, thought, used);
        }
        self.served.correct(&party.owner, thought, used);
    }

    /// How many of those that wait are served before this one, if nobody else comes and all take as much as the mean.
    #[must_use]
    pub fn ahead(&self, party: Party, id: WaiterId) -> Ahead {
        let Some(key) = self.keys.get(&party.owner) else { return Ahead::default() };
        let Some(own) = key.waiting.get(&party.session) else { return Ahead::default() };
        let mean = (self.tokens / self.len.max(1) as u64).max(1);
        let index = own.iter().take_while(|waiting| waiting.id != id).count();
        let starts = key.served.counter(&party.session).saturating_add(mean.saturating_mul(index as u64));
        let others = key.waiting.iter().filter(|(session, _)| **session != party.session);
        let of_key = others.map(|(session, waiting)| {
            let is_first = |turn: usize| waiting.get(turn).is_some_and(|waiting| waiting.id < id);
            turns_before(starts, key.served.counter(session), mean, is_first).min(waiting.len())
        });
        let of_key = of_key.sum::<usize>() + index;
        let starts = self.served.counter(&party.owner).saturating_add(mean.saturating_mul(of_key as u64));
        let others = self.keys.iter().filter(|(owner, _)| **owner != party.owner);
        let of_others = others.map(|(owner, key)| {
            turns_before(starts, self.served.counter(owner), mean, |_| *owner < party.owner).min(key.len)
        });
        Ahead { of_key, of_all: of_key + of_others.sum::<usize>() }
    }

    /// Counters that are kept.
    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        self.served.len() + self.keys.values().map(|key| key.served.len()).sum::<usize>()
    }

    /// Slots that are others' own, and that they do not hold.
    fn claimed(&self, owner: &Owner, share: u32) -> u32 {
        if share < 2 {
            return 0;
        }
        let others = self.keys.iter().filter(|(other, _)| *other != owner);
        others.map(|(_, key)| key.claim(share).saturating_sub(key.held)).sum()
    }

    fn key(&mut self, owner: &Owner) -> &mut Key {
        if self.keys.len() >= KEYS_MAX && !self.keys.contains_key(owner) {
            self.keys.retain(|_, key| key.is_busy());
        }
        self.keys.entry(*owner).or_default()
    }
}

/// Turns of somebody who stands at `counter` and takes `mean` for each, before one that starts at `starts`. Where one of them would
/// start just then, `is_first` tells whether it does.
fn turns_before(starts: u64, counter: u64, mean: u64, is_first: impl Fn(usize) -> bool) -> usize {
    let Some(gap) = starts.checked_sub(counter) else { return 0 };
    let whole = usize::try_from(gap / mean).unwrap_or(usize::MAX);
    let has_one_more = !gap.is_multiple_of(mean) || is_first(whole);
    whole.saturating_add(usize::from(has_one_more))
}
