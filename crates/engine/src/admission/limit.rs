//! What one owner may take of one tier: requests and tokens a minute, and turns at once.
//!
//! A rate is GCRA, kept as the level of a bucket that leaks: what was taken fills it, time empties it at the rate, and nothing is let
//! in that would overflow it. So a rate can change while it holds, and no fraction is ever lost.
//!
//! A request fills its bucket when its turn begins. The tokens that a running turn has reserved stand beside the level and do not
//! leak: only at its end is known what it took. As long as no turn takes more than it reserved, no span of time sees more than the
//! rate times its length and one burst.
//!
//! Knows nothing of who else waits.

use super::own::KeyLimits;
use crate::fleet::Tier;
use crate::session::Owner;
use crate::time::Now;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

const MINUTE_MS: u64 = 60_000;
/// How often a full table is looked through for owners that have nothing in it.
const SWEEP_MS: u64 = 1_000;

/// `[limits.latency]` and `[limits.throughput]`: what each key may take of a tier that has no limits of its own. Each field may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Turns that a key may begin a minute.
    ///
    /// Default: none; no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens that a key may use a minute, input and output together. Reserved when a turn begins (its input, and its `max_output_tokens`
    /// or what answers had lately), settled by the engine's count when it ends. A turn that had no token gives all of it back.
    ///
    /// Default: none; no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Turns that a key may have running at once.
    ///
    /// Default: none; no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns_max: Option<NonZeroU32>,
    /// How much of both rates may be used at once after a rest, as the time in which it comes back: a minute's worth, as OpenAI's. A turn
    /// larger than that waits until nothing is used, and is paid for afterwards.
    #[schemars(range(min = 1))]
    pub burst_ms: u64,
    /// How long a turn may have to wait for its key's limit where another tier of its route is left; what would take longer goes on there
    /// at once. Two seconds for a wafer are less than a GPU takes for 150 tokens, so the queue's bound is the quicker for most answers; a
    /// lower one keeps idle GPUs busy. 0: nobody waits for a limit where there is another tier.
    ///
    /// Default: none; the queue's `wait_ms_max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms_max: Option<u64>,
    /// Keys that are told apart at once; those beyond share one allowance until others have rested. Keys with limits of their own do not
    /// count.
    #[schemars(range(min = 1))]
    pub keys_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_minute: None,
            tokens_per_minute: None,
            turns_max: None,
            burst_ms: MINUTE_MS,
            wait_ms_max: None,
            keys_max: 10_000,
        }
    }
}

impl Limits {
    /// Whether there is anything to hold.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.requests_per_minute.is_none() && self.tokens_per_minute.is_none() && self.turns_max.is_none()
    }

    fn rates(&self) -> [Option<Rate>; 2] {
        let rate = |per_minute: Option<NonZeroU32>| {
            per_minute.map(|per_minute| Rate { per_minute: u64::from(per_minute.get()), burst_ms: self.burst_ms })
        };
        [rate(self.requests_per_minute), rate(self.tokens_per_minute)]
    }
}

/// Which limit is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bound {
    Requests,
    Tokens,
    Turns,
}

impl Bound {
    pub const ALL: [Self; 3] = [Self::Requests, Self::Tokens, Self::Turns];

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Turns => "turns",
        }
    }

    /// What a client is told that it has reached.
    #[must_use]
    pub fn told(self) -> &'static str {
        match self {
            Self::Requests => "requests per minute (RPM)",
            Self::Tokens => "tokens per minute (TPM)",
            Self::Turns => "responses running at once",
        }
    }
}

/// Why nothing is let in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    pub bound: Bound,
    pub limit: u64,
    /// Not before so long, in milliseconds; None: when a turn of the owner's ends.
    pub wait_ms: Option<u64>,
}

/// What others of the same owner will take before a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Before {
    pub turns: u64,
    pub tokens: u64,
}

/// What a turn holds until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    tokens: u64,
    /// 0: it is no turn of the client's.
    turns: u64,
    /// In the account of those who came when the table was full.
    is_shared: bool,
}

/// One limit as a client is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headroom {
    pub limit: u64,
    pub remaining: u64,
    /// Until all of it is there again, in milliseconds.
    pub reset_ms: u64,
    /// The time that a whole burst takes to come back, in milliseconds.
    pub window_ms: u64,
    /// Of a whole burst, in percent.
    pub used_percent: u8,
}

/// The headroom of one owner in one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// None: no tier had a say.
    pub tier: Option<Tier>,
    pub requests: Option<Headroom>,
    pub tokens: Option<Headroom>,
}

impl Allowance {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.requests.is_none() && self.tokens.is_none()
    }
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    per_minute: u64,
    burst_ms: u64,
}

impl Rate {
    /// A bucket's size, as its level is counted. One unit always fits.
    fn burst(self) -> u64 {
        self.per_minute.saturating_mul(self.burst_ms).max(MINUTE_MS)
    }
}

/// A bucket that leaks. Its level is in units times the milliseconds of a minute, so that one millisecond leaks `per_minute`.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    level: u64,
    /// By running turns, in units.
    reserved: u64,
    at_ms: u64,
}

impl Bucket {
    fn leak(&mut self, rate: Rate, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.at_ms);
        self.level = self.level.saturating_sub(passed.saturating_mul(rate.per_minute));
        self.at_ms = self.at_ms.max(now_ms);
    }

    fn filled(&self) -> u64 {
        self.level.saturating_add(self.reserved.saturating_mul(MINUTE_MS))
    }

    /// Milliseconds until `units` fit behind those `before` them, 0 if they do now. What is larger than a whole burst asks for an empty bucket.
    fn wait_ms(&self, rate: Rate, before: u64, units: u64) -> u64 {
        let wanted = units.saturating_mul(MINUTE_MS).min(rate.burst());
        let filled = self.filled().saturating_add(before.saturating_mul(MINUTE_MS));
        filled.saturating_add(wanted).saturating_sub(rate.burst()).div_ceil(rate.per_minute)
    }

    fn settle(&mut self, reserved: u64, taken: u64) {
        debug_assert!(self.reserved >= reserved, "a reservation is settled once");
        self.reserved = self.reserved.saturating_sub(reserved);
        self.level = self.level.saturating_add(taken.saturating_mul(MINUTE_MS));
    }

    fn headroom(&self, rate: Rate) -> Headroom {
        let burst = rate.burst();
        let filled = self.filled();
        let percent = filled.saturating_mul(100).div_ceil(burst).min(100);
        Headroom {
            limit: rate.per_minute,
            remaining: burst.saturating_sub(filled) / MINUTE_MS,
            reset_ms: filled.div_ceil(rate.per_minute),
            window_ms: burst / rate.per_minute,
            used_percent: u8::try_from(percent).unwrap_or(100),
        }
    }

    fn is_empty(&self) -> bool {
        self.level == 0 && self.reserved == 0
    }
}

/// What one owner has taken.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    requests: Bucket,
    tokens: Bucket,
    turns: u64,
}

impl Account {
    fn leak(&mut self, [requests, tokens]: [Option<Rate>; 2], now_ms: u64) {
        for (bucket, rate) in [(&mut self.requests, requests), (&mut self.tokens, tokens)] {
            match rate {
                Some(rate) => bucket.leak(rate, now_ms),
                // What is not limited is not remembered.
                None => bucket.level = 0,
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.tokens.is_empty() && self.turns == 0
    }
}

/// The accounts of one tier.
#[derive(Debug, Default)]
pub struct Accounts {
    limits: Limits,
    own: BTreeMap<Owner, KeyLimits>,
    accounts: BTreeMap<Owner, Account>,
    /// Of all who came when the table was full.
    others: Account,
    swept_ms: u64,
}

impl Accounts {
    #[must_use]
    pub fn new(limits: Limits, own: BTreeMap<Owner, KeyLimits>) -> Self {
        Self { limits, own, ..Self::default() }
    }

    /// New limits, for what is asked from here on. What was taken is counted on; turns that began while nothing was limited are not.
    pub fn adopt(&mut self, limits: Limits, now: Now) {
        self.leak_all(now);
        self.limits = limits;
    }

    /// The same of limits that owners have of their own; who is not among them has none any more. Returns whether that changes anything.
    pub fn adopt_own(&mut self, own: BTreeMap<Owner, KeyLimits>, now: Now) -> bool {
        if self.own == own {
            return false;
        }
        self.leak_all(now);
        self.own = own;
        true
    }

    /// Of all who have none of their own.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Of one owner.
    #[must_use]
    pub fn limits_of(&self, owner: &Owner) -> Limits {
        limits_of(&self.own, &self.limits, owner)
    }

    /// Whether the owner may begin a turn of so many tokens.
    ///
    /// # Errors
    /// The limit that is in the way the longest.
    pub fn check(&mut self, owner: &Owner, tokens: u64, now: Now) -> Result<(), Exceeded> {
        self.check_behind(owner, Before::default(), tokens, now)
    }

    /// The same behind others of the owner that will begin first.
    ///
    /// # Errors
    /// The limit that is in the way the longest.
    pub fn check_behind(&mut self, owner: &Owner, before: Before, tokens: u64, now: Now) -> Result<(), Exceeded> {
        let limits = self.limits_of(owner);
        if limits.is_none() {
            return Ok(());
        }
        let account = self.account(owner, now);
        if let Some(turns_max) = limits.turns_max.map(|max| u64::from(max.get()))
            && account.turns >= turns_max
        {
            return Err(Exceeded { bound: Bound::Turns, limit: turns_max, wait_ms: None });
        }
        let [requests, of_tokens] = limits.rates();
        let waits = [
            (Bound::Requests, requests, &account.requests, before.turns, 1),
            (Bound::Tokens, of_tokens, &account.tokens, before.tokens, tokens),
        ];
        let waits = waits.into_iter().filter_map(|(bound, rate, bucket, before, units)| {
            let rate = rate?;
            Some((bound, rate.per_minute, bucket.wait_ms(rate, before, units)))
        });
        match waits.max_by_key(|(_, _, wait_ms)| *wait_ms).filter(|(_, _, wait_ms)| *wait_ms > 0) {
            Some((bound, limit, wait_ms)) => Err(Exceeded { bound, limit, wait_ms: Some(wait_ms) }),
            None => Ok(()),
        }
    }

    /// Takes what [`Self::check`] allowed; None where nothing is limited.
    pub fn reserve(&mut self, owner: &Owner, tokens: u64, now: Now) -> Option<Reservation> {
        let reservation = self.reserve_tokens(owner, tokens, now)?;
        let account = self.account(owner, now);
        account.turns += 1;
        account.requests.level = account.requests.level.saturating_add(MINUTE_MS);
        Some(Reservation { turns: 1, ..reservation })
    }

    /// Takes tokens alone, for what is no turn and no request of the client's.
    pub fn reserve_tokens(&mut self, owner: &Owner, tokens: u64, now: Now) -> Option<Reservation> {
        if self.limits_of(owner).is_none() {
            return None;
        }
        let is_shared = self.is_shared(owner, now);
        let account = self.account(owner, now);
        account.tokens.reserved = account.tokens.reserved.saturating_add(tokens);
        Some(Reservation { tokens, turns: 0, is_shared })
    }

    /// The turn is over, and so many tokens were used.
    pub fn settle(&mut self, owner: &Owner, reservation: Reservation, used: u64, now: Now) {
        let (account, limits) = match reservation.is_shared {
            true => (&mut self.others, self.limits),
            false => (self.accounts.entry(*owner).or_default(), limits_of(&self.own, &self.limits, owner)),
        };
        account.leak(limits.rates(), ms(now));
        account.turns = account.turns.saturating_sub(reservation.turns);
        account.tokens.settle(reservation.tokens, used);
    }

    /// What the owner may still take.
    pub fn allowance(&mut self, owner: &Owner, now: Now) -> Allowance {
        let [requests, tokens] = self.limits_of(owner).rates();
        if requests.is_none() && tokens.is_none() {
            return Allowance::default();
        }
        let account = *self.account(owner, now);
        Allowance {
            tier: None,
            requests: requests.map(|rate| account.requests.headroom(rate)),
            tokens: tokens.map(|rate| account.tokens.headroom(rate)),
        }
    }

    /// What is held by the running turns of all: tokens, turns.
    #[must_use]
    pub fn reserved(&self) -> (u64, u64) {
        let all = self.accounts.values().chain([&self.others]);
        all.fold((0, 0), |(tokens, turns), account| (tokens + account.tokens.reserved, turns + account.turns))
    }

    /// The owner's account, as it is now.
    fn account(&mut self, owner: &Owner, now: Now) -> &mut Account {
        let rates = self.limits_of(owner).rates();
        let account = match self.is_shared(owner, now) {
            true => &mut self.others,
            false => self.accounts.entry(*owner).or_default(),
        };
        account.leak(rates, ms(now));
        account
    }

    /// Whether the table is full of others, after those that have rested are gone. Who has limits of its own has an account of its own.
    fn is_shared(&mut self, owner: &Owner, now: Now) -> bool {
        let is_full = |table: &Self| table.accounts.len() >= table.limits.keys_max;
        if !is_full(self) || self.accounts.contains_key(owner) || self.own.contains_key(owner) {
            return false;
        }
        if ms(now).saturating_sub(self.swept_ms) >= SWEEP_MS {
            self.swept_ms = ms(now);
            self.leak_all(now);
            self.accounts.retain(|_, account| !account.is_empty());
        }
        is_full(self)
    }

    /// By what holds until now.
    fn leak_all(&mut self, now: Now) {
        let Self { limits, own, accounts, others, .. } = self;
        for (owner, account) in accounts {
            account.leak(limits_of(own, limits, owner).rates(), ms(now));
        }
        others.leak(limits.rates(), ms(now));
    }
}

fn limits_of(own: &BTreeMap<Owner, KeyLimits>, all: &Limits, owner: &Owner) -> Limits {
    own.get(owner).map_or(*all, |own| own.over(all))
}

fn ms(now: Now) -> u64 {
    now.mono_ns / 1_000_000
}
