//! What stands before one tier: its keys' limits, its window and its queue. Knows no endpoints.

use super::limit::{Accounts, Exceeded, Reservation};
use super::own::KeyLimits;
use super::queue::{Party, Queue, Slots, Waiting};
use super::settings::{Queueing, Terms};
use super::window::{Signal, Window};
use crate::session::Owner;
use crate::time::Now;
use std::collections::BTreeMap;

/// A mean follows what it sees by one sixteenth.
const SMOOTHING: u64 = 16;
/// Tokens that an answer is thought to have before any was seen.
const OUTPUT_TOKENS_FIRST: u64 = 512;
/// Milliseconds that a turn is thought to take before any has ended.
const TURN_MS_FIRST: u64 = 1000;

/// A turn that runs.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    pub party: Party,
    /// What it is thought to take.
    thought: u64,
    reservation: Option<Reservation>,
    /// Slots were counted when it began: it holds one, and its key's share is charged.
    is_counted: bool,
    pub began_ns: u64,
}

/// What became of a turn, as far as its tier's load is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Input and output.
    pub tokens_used: u64,
    pub tokens_output: u64,
    pub signal: Signal,
    /// It was served to its end: its tokens say how many others will take.
    pub is_whole: bool,
}

/// Why a turn does not start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// All slots are taken, or kept for others.
    Slots,
    /// Its key has had its share.
    Limit(Exceeded),
}

#[derive(Debug, Default)]
pub struct Gate {
    pub queueing: Queueing,
    pub accounts: Accounts,
    pub window: Window,
    pub queue: Queue,
    output_tokens_mean: Option<u64>,
    turn_ns_mean: Option<u64>,
}

impl Gate {
    #[must_use]
    pub fn new(Terms { limits, queue: queueing }: Terms, own: BTreeMap<Owner, KeyLimits>) -> Self {
        let window = Window::new(queueing.bounds());
        Self { queueing, accounts: Accounts::new(limits, own), window, ..Self::default() }
    }

    /// Other terms from here on. What was taken, learned or charged is counted on.
    pub fn adopt(&mut self, Terms { limits, queue: queueing }: Terms, now: Now) {
        self.window.adopt(queueing.bounds());
        self.accounts.adopt(limits, now);
        self.queueing = queueing;
    }

    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms { limits: *self.accounts.limits(), queue: self.queueing.clone() }
    }

    /// What a turn is thought to take: its input, and as much output as it allows, or as others had.
    #[must_use]
    pub fn estimate(&self, tokens_input: u64, tokens_output_max: Option<u64>) -> u64 {
        let output = tokens_output_max.or(self.output_tokens_mean).unwrap_or(OUTPUT_TOKENS_FIRST);
        tokens_input.saturating_add(output)
    }

    /// Whether a turn may start now. One that comes while others wait has to look at them first.
    ///
    /// # Errors
    /// What is in the way.
    pub fn check(&mut self, party: &Party, tokens: u64, now: Now) -> Result<(), Blocked> {
        self.accounts.check(&party.owner, tokens, now).map_err(Blocked::Limit)?;
        self.queue.pass(now);
        match self.queue.may_start(&party.owner, self.slots()) {
            true => Ok(()),
            false => Err(Blocked::Slots),
        }
    }

    /// The next of those that wait and may start.
    pub fn next(&mut self, now: Now) -> Option<(Party, Waiting)> {
        self.queue.pass(now);
        let slots = self.slots();
        let Self { accounts, queue, .. } = self;
        queue.next(
            |owner| queue.may_start(owner, slots),
            |party, waiting| accounts.check(&party.owner, waiting.tokens, now).is_ok(),
        )
    }

    /// A turn starts, checked or not.
    pub fn start(&mut self, party: Party, tokens: u64, now: Now) -> Running {
        let reservation = self.accounts.reserve(&party.owner, tokens, now);
        self.window.enter();
        let is_counted = self.window.slots().is_some();
        if is_counted {
            self.queue.start(party, tokens);
        }
        Running { party, thought: tokens, reservation, is_counted, began_ns: now.mono_ns }
    }

    /// A turn has ended.
    pub fn end(&mut self, running: Running, ended: Ended, now: Now) {
        let Running { party, thought, reservation, is_counted, began_ns } = running;
        if let Some(reservation) = reservation {
            self.accounts.settle(&party.owner, reservation, ended.tokens_used, now);
        }
        self.window.leave(ended.signal, began_ns, now);
        if is_counted {
            self.queue.end(party, thought, ended.tokens_used);
        }
        follow(&mut self.turn_ns_mean, now.mono_ns.saturating_sub(began_ns));
        if ended.is_whole {
            follow(&mut self.output_tokens_mean, ended.tokens_output);
        }
    }

    /// How long turns have taken lately, in milliseconds.
    #[must_use]
    pub fn turn_ms(&self) -> u64 {
        self.turn_ns_mean.map_or(TURN_MS_FIRST, |ns| ns / 1_000_000)
    }

    fn slots(&self) -> Slots {
        let all = self.window.slots();
        let claimed_max = all.unwrap_or(0).saturating_mul(self.queueing.claimed_percent_max) / 100;
        Slots { all, free: self.window.free(), claimed_max }
    }

    /// As many wait as may.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queue.len() >= self.queueing.turns_max as usize
    }
}

fn follow(mean: &mut Option<u64>, seen: u64) {
    *mean = Some(match *mean {
        None => seen,
        Some(mean) => mean - mean / SMOOTHING + seen / SMOOTHING,
    });
}
