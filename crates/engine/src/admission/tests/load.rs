//! Under load, in virtual time: who gets how much, who waits how long, and how well that was foretold.

use super::whole::{fleet, latency, served, slots, ticket};
use super::{Dice, at_ms};
use crate::admission::limit::Limits;
use crate::admission::{Admission, Asked, Grant, Queueing, WaiterId};
use crate::fleet::{Route, Tier};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU32;

/// Somebody's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    key: u8,
    session: u64,
    tokens: u64,
    arrived_ms: u64,
    /// What it was told when it came to wait.
    foretold_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(Job),
    End(u64),
    Look(WaiterId),
}

/// Turns that come, wait and run; a token takes so many microseconds.
struct World {
    admission: Admission,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    numbered: u64,
    running: BTreeMap<u64, (Grant, Job)>,
    waiting: BTreeMap<WaiterId, Job>,
    token_us: u64,
    /// Who was served, and how long it had waited.
    served: Vec<(Job, u64)>,
    refused: Vec<Job>,
}

impl World {
    fn new(queue: Queueing, token_us: u64) -> Self {
        Self {
            admission: Admission::new(&latency(queue, Limits::default()), fleet(Route::LatencyOnly), [5; 32]),
            events: BinaryHeap::new(),
            numbered: 0,
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            token_us,
            served: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn at(&mut self, ms: u64, event: Event) {
        self.numbered += 1;
        self.events.push(Reverse((ms, self.numbered, event)));
    }

    fn arrive(&mut self, ms: u64, key: u8, session: u64, tokens: u64) {
        self.at(ms, Event::Arrive(Job { key, session, tokens, arrived_ms: ms, foretold_ms: None }));
    }

    fn take(&mut self, asked: &Asked, mut job: Job, now_ms: u64) {
        match asked {
            Asked::Granted(grant, _) => {
                self.served.push((job, now_ms - job.arrived_ms));
                self.numbered += 1;
                let number = self.numbered;
                self.running.insert(number, (*grant, job));
                self.at(now_ms + (job.tokens * self.token_us).div_ceil(1000), Event::End(number));
            }
            Asked::Queued(place) => {
                job.foretold_ms.get_or_insert(place.wait_ms);
                self.waiting.insert(place.waiter, job);
                self.at(place.look_ns / 1_000_000, Event::Look(place.waiter));
            }
            Asked::Refused(..) => self.refused.push(job),
        }
    }

    /// Goes on until `until_ms`, or until nothing is left; `after` may bring new turns when one has ended.
    fn run(&mut self, until_ms: u64, mut after: impl FnMut(&mut Self, Job, u64)) {
        while let Some(Reverse((now_ms, _, event))) = self.events.pop() {
            if now_ms > until_ms {
                break;
            }
            let now = at_ms(now_ms);
            match event {
                Event::Arrive(job) => {
                    let asked = self.admission.ask(ticket(job.key, job.session, job.tokens), now);
                    self.take(&asked, job, now_ms);
                }
                Event::End(number) => {
                    let (grant, job) = self.running.remove(&number).unwrap();
                    self.admission.release(grant, &served(job.tokens), now);
                    after(self, job, now_ms);
                }
                Event::Look(id) => self.look(id, now_ms),
            }
            while let Some(id) = self.admission.poll_woken() {
                self.look(id, now_ms);
            }
        }
    }

    fn look(&mut self, id: WaiterId, now_ms: u64) {
        if let Some(job) = self.waiting.remove(&id) {
            let asked = self.admission.look(id, at_ms(now_ms));
            self.take(&asked, job, now_ms);
        }
    }

    fn tokens_of(&self, of: impl Fn(&Job) -> bool) -> u64 {
        self.served.iter().filter(|(job, _)| of(job)).map(|(job, _)| job.tokens).sum()
    }
}

fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), share| (sum + share, squares + share * share));
    sum * sum / (shares.len() as f64 * squares)
}

/// Of sorted values, the one below which so many of a hundred are.
fn percentile(mut values: Vec<u64>, percent: usize) -> u64 {
    values.sort_unstable();
    values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied().unwrap_or(0)
}

fn patient(slots_count: u32) -> Queueing {
    Queueing { wait_ms_max: 3_600_000, turns_max: 4096, ..slots(slots_count) }
}

#[test]
fn sessions_that_always_want_more_get_equal_shares_of_tokens() {
    for seed in 0..4 {
        let mut dice = Dice(seed);
        let mut world = World::new(patient(8), 500);
        // Each session's turns are as long as it likes them, and one has three at once.
        let sizes: Vec<u64> = (0..24).map(|_| 100 << dice.below(5)).collect();
        for (session, size) in (0u64..).zip(&sizes) {
            for _ in 0..=session % 3 {
                world.arrive(session, 1, session, *size);
            }
        }
        world.run(600_000, |world, job, now_ms| world.arrive(now_ms, job.key, job.session, job.tokens));
        let shares: Vec<_> = (0..24).map(|session| world.tokens_of(|job| job.session == session) as f64).collect();
        assert!(jain(&shares) >= 0.95, "{} of {shares:?}", jain(&shares));
    }
}

#[test]
fn keys_share_equally_however_many_sessions_they_have() {
    let mut world = World::new(patient(8), 500);
    for (key, sessions) in [(1, 1), (2, 4), (3, 20)] {
        for session in 0..sessions {
            for _ in 0..16 / sessions.min(16) {
                world.arrive(0, key, u64::from(key) * 100 + session, 400);
            }
        }
    }
    world.run(300_000, |world, job, now_ms| world.arrive(now_ms, job.key, job.session, job.tokens));
    let shares: Vec<_> = (1..4).map(|key| world.tokens_of(|job| job.key == key) as f64).collect();
    assert!(jain(&shares) >= 0.98, "{} of {shares:?}", jain(&shares));
}

/// When the quiet key's turns come, five a second in the mean.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// One after the other: one session's.
    InTurn,
    /// Those of four sessions, up to three at once.
    Spaced,
    /// As chance has it, four times as many where there is four times the room: up to ten at once.
    ByChance,
}

impl Pace {
    fn slots(self) -> u32 {
        match self {
            Self::InTurn | Self::Spaced => 8,
            Self::ByChance => 32,
        }
    }

    fn gap_ms(self, dice: &mut Dice) -> u64 {
        match self {
            Self::InTurn => 200 + dice.below(100),
            Self::Spaced => 100 + dice.below(200),
            Self::ByChance => (-((1 + dice.below(1 << 20)) as f64 / f64::from(1 << 20)).ln() * 50.0) as u64,
        }
    }
}

/// How long the quiet key's turns wait at the 99th percentile, in milliseconds, beside a heavy one or alone; and of all the slots' time,
/// how much was used, in percent. A turn of 400 tokens holds a slot for 200 ms: forty turns a second are all that eight slots give. The
/// heavy key sends ten for one.
fn quiet_wait_ms(heavy: bool, pace: Pace, seed: u64) -> (u64, u64) {
    let mut dice = Dice(seed);
    let mut world = World::new(Queueing { wait_ms_max: 5_000, turns_max: 256, ..patient(pace.slots()) }, 500);
    let (mut at_ms, mut quiet) = (0, 0);
    while at_ms < 60_000 {
        at_ms += pace.gap_ms(&mut dice);
        world.arrive(at_ms, 2, dice.below(4), 400);
        quiet += 1;
    }
    for _ in 0..if heavy { quiet * 10 } else { 0 } {
        world.arrive(dice.below(60_000), 1, dice.below(40), 400);
    }
    world.run(u64::MAX, |_, _, _| {});
    let waits: Vec<_> = world.served.iter().filter(|(job, _)| job.key == 2).map(|(_, wait_ms)| *wait_ms).collect();
    assert_eq!(waits.len() as u64, quiet, "all of the quiet key's turns are served");
    let used_percent = world.served.len() as u64 * 200 * 100 / (60_000 * u64::from(pace.slots()));
    (percentile(waits, 99), used_percent)
}

#[test]
fn a_quiet_key_hardly_notices_one_with_ten_times_its_load() {
    for pace in [Pace::InTurn, Pace::Spaced, Pace::ByChance] {
        for seed in 0..4 {
            let ((alone, _), (beside, used_percent)) =
                (quiet_wait_ms(false, pace, seed), quiet_wait_ms(true, pace, seed));
            // A first token after 50 ms, in itself.
            assert!((50 + beside) * 2 <= (50 + alone) * 3, "{pace:?}: {beside} ms instead of {alone}");
            assert!(used_percent >= 70, "{pace:?}: {used_percent} % of the slots, where one and a quarter may be kept");
        }
    }
}

#[test]
fn nine_of_ten_waits_are_foretold_within_a_quarter() {
    for seed in 0..4 {
        let mut dice = Dice(seed);
        let mut world = World::new(patient(8), 500);
        // Three turns for two that can be served, each 100 to 300 ms long.
        let mut at_ms = 0;
        for number in 0..1_500 {
            at_ms += 10 + dice.below(14);
            world.arrive(at_ms, 1, number, 200 + dice.below(401));
        }
        world.run(u64::MAX, |_, _, _| {});
        let errors: Vec<_> = world
            .served
            .iter()
            .filter_map(|(job, wait_ms)| Some(job.foretold_ms?.abs_diff(*wait_ms) * 1000 / (*wait_ms).max(1)))
            .collect();
        assert!(errors.len() > 1_000, "most have waited: {}", errors.len());
        let error = percentile(errors, 90);
        assert!(error <= 250, "{error} in a thousand");
    }
}

#[test]
fn a_window_that_first_tokens_hold_open_lets_all_in() {
    let queue = Queueing {
        concurrency_max: NonZeroU32::new(64),
        concurrency_min: NonZeroU32::MIN,
        wait_ms_max: 60_000,
        turns_max: 4096,
        ..Queueing::default()
    };
    let mut world = World::new(queue, 500);
    (0..64).for_each(|session| world.arrive(session, 1, session, 400));
    world.run(60_000, |world, job, now_ms| world.arrive(now_ms, job.key, job.session, job.tokens));
    assert_eq!(world.admission.standing(Tier::Latency).slots, Some(64));
    assert_eq!(world.refused, []);
}
