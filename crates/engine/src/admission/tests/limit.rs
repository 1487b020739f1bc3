//! No span of time sees more than its share and one burst, and what was reserved comes to nothing.

use super::{Dice, at_ms, owner, scripts};
use crate::admission::KeyLimits;
use crate::admission::limit::{Accounts, Bound, Exceeded, Limits, Reservation};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

fn limits(requests: u32, tokens: u32, turns: u32, burst_ms: u64) -> Limits {
    Limits {
        requests_per_minute: NonZeroU32::new(requests),
        tokens_per_minute: NonZeroU32::new(tokens),
        turns_max: NonZeroU32::new(turns),
        burst_ms,
        ..Limits::default()
    }
}

/// An owner at work, and all that it has come to.
struct Peer {
    accounts: Accounts,
    limits: Limits,
    now_ms: u64,
    running: Vec<(Reservation, u64)>,
    begun_ms: Vec<u64>,
    /// When how many tokens were settled.
    used: Vec<(u64, u64)>,
}

impl Peer {
    fn new(limits: Limits) -> Self {
        let accounts = Accounts::new(limits, BTreeMap::new());
        Self { accounts, limits, now_ms: 5_000, running: Vec::new(), begun_ms: Vec::new(), used: Vec::new() }
    }

    fn begin(&mut self, tokens: u64) -> Result<(), Exceeded> {
        let now = at_ms(self.now_ms);
        self.accounts.check(&owner(1), tokens, now)?;
        if let Some(reservation) = self.accounts.reserve(&owner(1), tokens, now) {
            self.running.push((reservation, tokens));
            self.begun_ms.push(self.now_ms);
        }
        Ok(())
    }

    /// Ends a running turn that has used so many hundredths of what it reserved.
    fn end(&mut self, index: usize, percent: u64) {
        if index < self.running.len() {
            let (reservation, tokens) = self.running.remove(index);
            let used = tokens * percent / 100;
            self.accounts.settle(&owner(1), reservation, used, at_ms(self.now_ms));
            self.used.push((self.now_ms, used));
        }
    }

    fn check(&mut self) {
        let burst = |rate: Option<NonZeroU32>| u64::from(rate.map_or(0, NonZeroU32::get)) * self.limits.burst_ms;
        if let Some(rate) = self.limits.requests_per_minute {
            let begun: Vec<_> = self.begun_ms.iter().map(|at_ms| (*at_ms, 1)).collect();
            assert_within(&begun, u64::from(rate.get()), burst(Some(rate)).max(60_000));
        }
        if let Some(rate) = self.limits.tokens_per_minute {
            assert_within(&self.used, u64::from(rate.get()), burst(Some(rate)).max(60_000));
        }
        if let Some(max) = self.limits.turns_max {
            assert!(self.running.len() <= max.get() as usize);
        }
        let held: u64 = self.running.iter().map(|(_, tokens)| tokens).sum();
        assert_eq!(self.accounts.reserved(), (held, self.running.len() as u64));
    }
}

/// In any span the rate times its length and one burst; both counted in 60,000ths.
fn assert_within(events: &[(u64, u64)], per_minute: u64, burst: u64) {
    for (index, (from_ms, _)) in events.iter().enumerate() {
        let mut sum = 0;
        for (at_ms, units) in &events[index..] {
            sum += units * 60_000;
            let most = per_minute * (at_ms - from_ms) + burst;
            assert!(sum <= most, "{sum} in {} ms, where {most} are allowed", at_ms - from_ms);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(u64),
    EndFirst(u64),
    EndLast(u64),
    Pass(u64),
}

#[test]
fn no_short_script_gets_more_than_its_share_and_one_burst() {
    let steps = [
        Step::Begin(3),
        Step::Begin(7),
        Step::EndFirst(100),
        Step::EndLast(0),
        Step::Pass(1),
        Step::Pass(7_000),
        Step::Pass(60_000),
    ];
    scripts(&steps, 6, |script| {
        let mut peer = Peer::new(limits(4, 10, 3, 60_000));
        for step in script {
            match *step {
                Step::Begin(tokens) => drop(peer.begin(tokens)),
                Step::EndFirst(percent) => peer.end(0, percent),
                Step::EndLast(percent) => peer.end(peer.running.len().saturating_sub(1), percent),
                Step::Pass(ms) => peer.now_ms += ms,
            }
            peer.check();
        }
        while !peer.running.is_empty() {
            peer.end(0, 100);
        }
        peer.check();
        assert_eq!(peer.accounts.reserved(), (0, 0));
    });
}

#[test]
fn sixty_four_tasks_at_once_stay_within_the_limit_and_one_burst() {
    for seed in 0..8 {
        let mut dice = Dice(seed);
        let mut peer = Peer::new(limits(600, 40_000, 48, 10_000 + 10_000 * seed));
        let mut refused = 0;
        for _ in 0..4_000 {
            match dice.below(8) {
                0..=4 if peer.running.len() < 64 => {
                    let amount = 20 + dice.below(400);
                    refused += u32::from(peer.begin(amount).is_err());
                }
                5 => peer.now_ms += dice.below(300),
                _ => {
                    let (index, percent) = (dice.below(64) as usize, dice.below(101));
                    peer.end(index % peer.running.len().max(1), percent);
                }
            }
        }
        peer.check();
        assert!(refused > 100, "the limits were reached: {refused}");
        let used: u64 = peer.used.iter().map(|(_, used)| used).sum();
        let allowed = 40_000 * (peer.now_ms - 5_000) / 60_000;
        assert!(used > allowed / 2, "{used} of {allowed}: not much less than the rate is reached");
        while !peer.running.is_empty() {
            peer.end(0, 0);
        }
        assert_eq!(peer.accounts.reserved(), (0, 0), "reservations reconcile to nothing");
    }
}

#[test]
fn what_is_told_to_wait_fits_after_that_time_and_not_before() {
    let mut dice = Dice(7);
    for _ in 0..500 {
        let mut peer = Peer::new(limits(30, 900, 0, 20_000));
        let exceeded = loop {
            let amount = 1 + dice.below(200);
            if let Err(exceeded) = peer.begin(amount) {
                break (exceeded, amount);
            }
            peer.end(0, 100);
            peer.now_ms += dice.below(900);
        };
        let (exceeded, amount) = exceeded;
        let wait_ms = exceeded.wait_ms.expect("a rate comes back with time");
        peer.now_ms += wait_ms - 1;
        assert_eq!(peer.begin(amount), Err(Exceeded { wait_ms: Some(1), ..exceeded }));
        peer.now_ms += 1;
        assert_eq!(peer.begin(amount), Ok(()));
    }
}

#[test]
fn turns_at_once_are_limited_until_one_ends() {
    let mut peer = Peer::new(limits(0, 0, 2, 60_000));
    assert_eq!((peer.begin(5), peer.begin(5)), (Ok(()), Ok(())));
    let exceeded = Exceeded { bound: Bound::Turns, limit: 2, wait_ms: None };
    assert_eq!(peer.begin(5), Err(exceeded));
    peer.now_ms += 600_000;
    assert_eq!(peer.begin(5), Err(exceeded), "time does not help");
    peer.end(0, 100);
    assert_eq!(peer.begin(5), Ok(()));
}

#[test]
fn a_turn_larger_than_a_burst_gets_a_full_bucket_and_is_paid_for_afterwards() {
    let mut peer = Peer::new(limits(0, 100, 0, 60_000));
    assert_eq!(peer.begin(250), Ok(()));
    peer.end(0, 100);
    let wait = |peer: &mut Peer| peer.begin(1).unwrap_err().wait_ms;
    assert_eq!(wait(&mut peer), Some(151 * 600));
}

#[test]
fn limits_change_while_turns_run_and_what_was_taken_counts_on() {
    let mut peer = Peer::new(limits(0, 100, 0, 60_000));
    peer.begin(60).unwrap();
    peer.end(0, 100);
    peer.begin(40).unwrap();
    peer.accounts.adopt(limits(0, 50, 0, 60_000), at_ms(peer.now_ms));
    assert_eq!(peer.begin(1).unwrap_err().limit, 50);
    // 60 settled and 40 reserved, of 50: 51 too many.
    assert_eq!(peer.begin(1).unwrap_err().wait_ms, Some(51 * 1200));
    peer.accounts.adopt(limits(0, 6000, 0, 60_000), at_ms(peer.now_ms));
    assert_eq!(peer.begin(1), Ok(()));
    peer.accounts.adopt(Limits::default(), at_ms(peer.now_ms));
    assert_eq!(peer.begin(1_000_000), Ok(()), "nothing is limited");
    peer.end(0, 100);
    peer.end(0, 100);
    assert_eq!(peer.accounts.reserved(), (0, 0));
}

#[test]
fn an_allowance_says_what_is_left_and_when_all_is_back() {
    let mut peer = Peer::new(limits(60, 600, 0, 60_000));
    peer.begin(100).unwrap();
    let allowance = peer.accounts.allowance(&owner(1), at_ms(peer.now_ms));
    let (requests, tokens) = (allowance.requests.unwrap(), allowance.tokens.unwrap());
    assert_eq!((requests.limit, requests.remaining, requests.reset_ms, requests.used_percent), (60, 59, 1_000, 2));
    assert_eq!((tokens.limit, tokens.remaining, tokens.reset_ms, tokens.used_percent), (600, 500, 10_000, 17));
    let other = peer.accounts.allowance(&owner(2), at_ms(peer.now_ms));
    assert_eq!(other.tokens.unwrap().remaining, 600, "another key has its own");
    assert_eq!(Accounts::default().allowance(&owner(1), at_ms(0)).requests, None);
}

#[test]
fn keys_beyond_the_table_share_an_account_until_others_have_rested() {
    let mut limits = limits(0, 60, 0, 60_000);
    limits.keys_max = 2;
    let mut accounts = Accounts::new(limits, BTreeMap::new());
    let now = at_ms(10_000);
    let held: Vec<_> = (1..=2).map(|key| accounts.reserve(&owner(key), 60, now).unwrap()).collect();
    let shared = accounts.reserve(&owner(3), 60, now).unwrap();
    assert_eq!(accounts.check(&owner(4), 1, now).unwrap_err().bound, Bound::Tokens, "the third key's is the fourth's");
    for (key, reservation) in (1..=2).zip(held) {
        accounts.settle(&owner(key), reservation, 0, now);
    }
    let later = at_ms(12_000);
    assert_eq!(accounts.check(&owner(4), 60, later), Ok(()), "the rested made room");
    accounts.settle(&owner(3), shared, 60, later);
    assert_eq!(accounts.reserved(), (0, 0), "a reservation is settled where it was made");
}

fn own(requests: u32, tokens: u32, turns: u32) -> KeyLimits {
    let (requests, tokens, turns) = (NonZeroU32::new(requests), NonZeroU32::new(tokens), NonZeroU32::new(turns));
    KeyLimits { requests_per_minute: requests, tokens_per_minute: tokens, turns_max: turns }
}

#[test]
fn a_key_has_more_or_less_than_others_and_theirs_where_it_has_none() {
    let owns = [(owner(1), own(0, 1_000, 0)), (owner(2), own(0, 10, 0))].into_iter().collect();
    let mut accounts = Accounts::new(limits(3, 100, 0, 60_000), owns);
    let now = at_ms(5_000);
    let refused = |accounts: &mut Accounts, key, tokens| {
        accounts.check(&owner(key), tokens, now).err().map(|exceeded| (exceeded.bound, exceeded.limit))
    };
    let held = [(1, 1_000), (2, 10), (3, 100)].map(|(key, tokens)| {
        assert_eq!(refused(&mut accounts, key, tokens), None);
        let reservation = accounts.reserve(&owner(key), tokens, now).unwrap();
        assert_eq!(refused(&mut accounts, key, 1), Some((Bound::Tokens, tokens)));
        let allowance = accounts.allowance(&owner(key), now);
        assert_eq!((allowance.tokens.unwrap().limit, allowance.requests.unwrap().limit), (tokens, 3));
        (key, reservation)
    });
    for (key, reservation) in held {
        accounts.settle(&owner(key), reservation, 0, now);
    }
    for _ in 0..2 {
        let reservation = accounts.reserve(&owner(1), 0, now).unwrap();
        accounts.settle(&owner(1), reservation, 0, now);
    }
    assert_eq!(refused(&mut accounts, 1, 0), Some((Bound::Requests, 3)), "what it does not set is the tier's");
}

#[test]
fn a_key_alone_may_be_limited() {
    let mut accounts = Accounts::new(Limits::default(), [(owner(1), own(0, 0, 1))].into_iter().collect());
    let now = at_ms(5_000);
    assert_eq!(accounts.reserve(&owner(2), 1_000_000, now), None, "nothing limits the others");
    let reservation = accounts.reserve(&owner(1), 5, now).unwrap();
    assert_eq!(accounts.check(&owner(1), 5, now).unwrap_err().bound, Bound::Turns);
    // Its turns that run are its own when it is limited no more, and again.
    accounts.adopt_own(BTreeMap::new(), now);
    assert_eq!(accounts.check(&owner(1), 5, now), Ok(()));
    accounts.adopt_own([(owner(1), own(0, 0, 1))].into_iter().collect(), now);
    assert!(accounts.check(&owner(1), 5, now).is_err());
    accounts.settle(&owner(1), reservation, 5, now);
    assert_eq!((accounts.check(&owner(1), 5, now), accounts.reserved()), (Ok(()), (0, 0)));
}

#[test]
fn a_key_with_limits_of_its_own_shares_no_account_in_a_full_table() {
    let of_all = Limits { keys_max: 1, ..limits(0, 60, 0, 60_000) };
    let mut accounts = Accounts::new(of_all, [(owner(9), own(0, 60, 0))].into_iter().collect());
    let now = at_ms(5_000);
    for key in [1, 2] {
        accounts.reserve(&owner(key), 60, now).unwrap();
    }
    assert!(accounts.check(&owner(3), 1, now).is_err(), "the second key's is the third's");
    assert_eq!(accounts.check(&owner(9), 60, now), Ok(()));
    assert!(accounts.reserve(&owner(9), 60, now).is_some());
    assert!(accounts.check(&owner(9), 1, now).is_err());
}

#[test]
fn what_was_taken_counts_on_by_the_rate_that_held_then() {
    let mut accounts = Accounts::new(limits(0, 60, 0, 60_000), BTreeMap::new());
    let reservation = accounts.reserve(&owner(1), 60, at_ms(0)).unwrap();
    accounts.settle(&owner(1), reservation, 60, at_ms(0));
    // Half of it is back, one a second; the other half comes back at the new rate.
    accounts.adopt_own([(owner(1), own(0, 600, 0))].into_iter().collect(), at_ms(30_000));
    let tokens = accounts.allowance(&owner(1), at_ms(30_000)).tokens.unwrap();
    assert_eq!((tokens.limit, tokens.remaining, tokens.reset_ms), (600, 570, 3_000));
    assert!(!accounts.adopt_own([(owner(1), own(0, 600, 0))].into_iter().collect(), at_ms(31_000)), "as it is");
}
