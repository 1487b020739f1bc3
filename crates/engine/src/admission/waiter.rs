//! A turn that is on its way to a grant: how long it may wait where it stands, and what it is told of that. Lets nobody in.

use super::gate::Blocked;
use super::limit::Exceeded;
use super::queue::{Party, Waiting};
use super::{Admission, Grant, Place, Ticket, WaiterId, Why, forecast};
use crate::error::Refusal;
use crate::fleet::Tier;
use crate::router::Plan;
use crate::session::Owner;
use crate::time::Now;

/// See the module.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ticket: Ticket,
    pub(super) plan: Plan,
    pub(super) party: Party,
    /// Which of the plan's tiers it waits for.
    pub(super) index: usize,
    /// What it is thought to take there.
    pub(super) tokens: u64,
    pub(super) asked_ns: u64,
    /// When it came to wait where it stands.
    pub(super) since_ns: u64,
    /// No tier of its plan has an endpoint that is well: it waits for a place at one that is out.
    pub(super) takes_any: bool,
    /// Whether its chain is read where it would go on to was asked.
    pub(super) is_read_ahead: bool,
    /// Known, and not yet told.
    pub(super) decided: Option<Result<Grant, Refusal>>,
}

impl Waiter {
    pub(super) fn tier(&self) -> Tier {
        self.plan.tiers().get(self.index).copied().unwrap_or(Tier::Throughput)
    }

    /// Whether another tier may be had, where it waits in vain.
    pub(super) fn has_next(&self) -> bool {
        !self.takes_any && self.index + 1 < self.plan.tiers().len()
    }

    /// Whether it waits for this tier, and nothing is decided.
    pub(super) fn waits_at(&self, tier: Tier) -> bool {
        self.tier() == tier && self.decided.is_none()
    }

    pub(super) fn is_retry(&self) -> bool {
        !self.ticket.tried.is_empty()
    }
}

impl Admission {
    /// Why a turn that is blocked need not wait here, and when it could start; None: it may wait.
    pub(super) fn turned_away(&mut self, waiter: &Waiter, blocked: Blocked, now: Now) -> Option<(Why, u64)> {
        let (tier, owner) = (waiter.tier(), waiter.party.owner);
        let wait_ms_max = self.wait_ms_max(waiter);
        let gate = self.gates.of_mut(tier);
        let is_open = !gate.is_full() || gate.queue.last_of_longest(&owner).is_some();
        let is_away = wait_ms_max == 0 || gate.queueing.turns_max == 0 || !is_open;
        match blocked {
            Blocked::Limit(exceeded) => {
                let ahead = gate.queue.len_of(&owner);
                let behind = gate.accounts.check_behind(&owner, gate.queue.before(&owner, ahead), waiter.tokens, now);
                let exceeded = behind.err().unwrap_or(exceeded);
                let limit_ms_max = gate.accounts.limits_of(&owner).wait_ms_max.filter(|_| waiter.has_next());
                let wait_ms = self.limit_wait_ms(waiter, exceeded, ahead, now);
                // The refill is certain: who knows that it comes too late need not wait for it.
                let is_vain = exceeded.wait_ms.is_some_and(|wait_ms| wait_ms > wait_ms_max)
                    || limit_ms_max.is_some_and(|limit_ms_max| wait_ms > limit_ms_max);
                (is_vain || is_away).then_some((Why::Limit(exceeded.bound, exceeded.limit), wait_ms))
            }
            Blocked::Slots => {
                let ahead = gate.queue.len();
                is_away.then(|| (Why::QueueFull, self.slot_wait_ms(tier, ahead, now)))
            }
        }
    }

    /// How long a turn may wait where it stands.
    fn wait_ms_max(&self, waiter: &Waiter) -> u64 {
        let queueing = &self.gates.of(waiter.tier()).queueing;
        match waiter.ticket.traits.background && !waiter.has_next() {
            true => queueing.background_wait_ms_max,
            false => queueing.wait_ms_max,
        }
    }

    /// When its waiting ends, by what holds now.
    pub(super) fn deadline_ns(&self, waiter: &Waiter) -> u64 {
        let since = Now { mono_ns: waiter.since_ns, unix_ms: 0 };
        since.after_ms(self.wait_ms_max(waiter))
    }

    pub(super) fn enqueue(&mut self, id: WaiterId, mut waiter: Waiter, now: Now) -> Place {
        waiter.since_ns = now.mono_ns;
        let queue = &mut self.gates.of_mut(waiter.tier()).queue;
        queue.push(waiter.party, Waiting { id, tokens: waiter.tokens });
        let place = self.place(id, &waiter, now);
        self.waiters.insert(id, waiter);
        place
    }

    pub(super) fn place(&mut self, id: WaiterId, waiter: &Waiter, now: Now) -> Place {
        let (tier, deadline_ns) = (waiter.tier(), self.deadline_ns(waiter));
        let gate = self.gates.of_mut(tier);
        let ahead = gate.queue.ahead(waiter.party, id);
        let owner = waiter.party.owner;
        let exceeded = gate.accounts.check(&owner, waiter.tokens, now).err();
        let before = gate.queue.before(&owner, ahead.of_key);
        let behind = gate.accounts.check_behind(&owner, before, waiter.tokens, now).err();
        let wants_slot = exceeded.is_none() || gate.window.free() == 0;
        let limit_ms = behind.map_or(0, |exceeded| self.limit_wait_ms(waiter, exceeded, ahead.of_key, now));
        let slot_ms = if wants_slot { self.slot_wait_ms(tier, ahead.of_all, now) } else { 0 };
        let refill_ns = exceeded.and_then(|e| e.wait_ms).map_or(u64::MAX, |ms| now.after_ms(ms.max(1)));
        Place {
            waiter: id,
            tier,
            number: u32::try_from(ahead.of_all).unwrap_or(u32::MAX).saturating_add(1),
            wait_ms: limit_ms.max(slot_ms).max(1),
            look_ns: deadline_ns.min(refill_ns),
            read_ahead_ns: self.read_ahead_ns(waiter),
        }
    }

    /// When a turn whose key is at a limit could start, behind so many others of the key.
    fn limit_wait_ms(&self, waiter: &Waiter, exceeded: Exceeded, ahead: usize, now: Now) -> u64 {
        exceeded.wait_ms.unwrap_or_else(|| {
            let (tier, owner) = (waiter.tier(), waiter.party.owner);
            let places = usize::try_from(exceeded.limit).unwrap_or(usize::MAX);
            let ages_ms = self.ages_ms(tier, now).filter(|(of, _)| *of == owner).map(|(_, age_ms)| age_ms);
            forecast::wait_ms(ages_ms, places, self.gates.of(tier).turn_ms(), ahead)
        })
    }

    /// When a turn behind so many others could start.
    pub(super) fn slot_wait_ms(&self, tier: Tier, ahead: usize, now: Now) -> u64 {
        let gate = self.gates.of(tier);
        let places = gate.window.slots().map_or(usize::MAX, |slots| slots as usize);
        let ages_ms = self.ages_ms(tier, now).map(|(_, age_ms)| age_ms);
        forecast::wait_ms(ages_ms, places, gate.turn_ms(), ahead)
    }

    /// How long those have run by now that run at a tier.
    fn ages_ms(&self, tier: Tier, now: Now) -> impl Iterator<Item = (Owner, u64)> {
        let running = self.granted.values().filter(move |granted| granted.tier == tier).map(|granted| &granted.running);
        running.map(move |running| (running.party.owner, now.mono_ns.saturating_sub(running.began_ns) / 1_000_000))
    }
}
