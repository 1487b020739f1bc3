//! Prompts that are read before their turns come, for whatever [`Cause`]: who may have that, and what it costs. A prefill is no turn. It takes no slot and no place
//! at an endpoint, so that no turn is ever queued or refused for it; it starts only where there is room for it beside those that run; and a
//! turn that needs that room has it stopped.
//!
//! Its tokens are its owner's: reserved when it starts, settled when it ends, and only where as many are left for the turn itself.

use super::limit::Reservation;
use super::waiter::Waiter;
use super::{Admission, Foreseen, Ticket, WaiterId};
use crate::fleet::{EndpointId, Speaks, Tier};
use crate::router::Traits;
use crate::session::Owner;
use crate::time::Now;
use std::collections::BTreeMap;

const MINUTE_NS: u64 = 60_000_000_000;
/// A turn that has waited so long may have its chain read elsewhere: most that wait at all have a place before.
const QUEUE_MS: u64 = 250;

/// Why a prompt is read before its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A warm-up has told it.
    WarmUp,
    /// A turn has ended, and the one after it is expected elsewhere.
    Handover,
    /// Its turn waits here for one tier, and will go on to the next.
    Queue(WaiterId),
}

impl Cause {
    /// Their labels in metrics.
    pub const NAMES: [&str; 3] = ["warm-up", "handover", "queue"];

    /// Its place among [`Self::NAMES`].
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::WarmUp => 0,
            Self::Handover => 1,
            Self::Queue(_) => 2,
        }
    }

    /// The label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.get(self.index()).copied().unwrap_or_default()
    }
}

/// What might be read before its turn comes.
#[derive(Debug, Clone)]
pub struct Ahead {
    /// That turn's, as far as it is known.
    pub ticket: Ticket,
    pub cause: Cause,
    /// Tokens that are new at endpoints which have read the others; to any other all are new.
    pub news: Vec<(EndpointId, u64)>,
}

impl Ahead {
    /// Tokens that an endpoint would have to read.
    fn new_at(&self, endpoint: EndpointId) -> u64 {
        let known = self.news.iter().find(|(at, _)| *at == endpoint);
        known.map_or(self.ticket.traits.tokens_input, |(_, tokens)| *tokens)
    }
}

/// The leave to have a prompt read; handed back by [`Admission::end_prefill`]. Who is woken by its id gives it back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefill {
    pub id: WaiterId,
    pub tier: Tier,
    pub endpoint: EndpointId,
    /// When it has taken too long.
    pub until_ns: u64,
    pub cause: Cause,
}

/// What asking for it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// Where its turn would go: a connection is to be warm there.
    pub endpoint: EndpointId,
    pub prefill: Option<Prefill>,
}

/// The prefills that run, and how many were lately.
#[derive(Debug, Default)]
pub(super) struct Prefills {
    running: BTreeMap<WaiterId, Running>,
    /// When, at an even pace, the next of a tier is due, as [`Tier::ALL`].
    due_ns: [u64; Tier::ALL.len()],
}

#[derive(Debug)]
struct Running {
    owner: Owner,
    tier: Tier,
    endpoint: EndpointId,
    reservation: Option<Reservation>,
    /// Whoever runs it was told to stop.
    is_stopped: bool,
}

impl Prefills {
    /// Those at an endpoint that nobody has told to stop.
    pub(super) fn at(&self, endpoint: EndpointId) -> u32 {
        let at = self.running.values().filter(|running| running.endpoint == endpoint && !running.is_stopped);
        u32::try_from(at.count()).unwrap_or(u32::MAX)
    }

    /// Whether one more keeps to so many a minute, of which a quarter may come at once; if so, it is counted.
    fn spend(&mut self, tier: Tier, per_minute: u32, now: Now) -> bool {
        let Some(due_ns) = Tier::ALL.iter().zip(&mut self.due_ns).find(|(of, _)| **of == tier).map(|(_, due)| due)
        else {
            return false;
        };
        let every_ns = MINUTE_NS / u64::from(per_minute.max(1));
        if *due_ns > now.mono_ns.saturating_add((MINUTE_NS / 4).max(every_ns) - every_ns) {
            return false;
        }
        *due_ns = (*due_ns).max(now.mono_ns).saturating_add(every_ns);
        true
    }
}

impl Admission {
    /// Where the turn would go, and whether its prompt is to be read there.
    pub fn prepare(&mut self, ahead: &Ahead, now: Now) -> Option<Prepared> {
        let from = match ahead.cause {
            Cause::WarmUp | Cause::Handover => 0,
            Cause::Queue(waiter) => self.goes_on_from(waiter, now)?,
        };
        let Foreseen { endpoint, .. } = self.foresee_from(from, &ahead.ticket, now)?;
        Some(Prepared { endpoint, prefill: self.prefill(ahead, endpoint, now) })
    }

    /// Whether a tier reads chains whose turns were elsewhere.
    pub(super) fn hands_over(&self) -> bool {
        Tier::ALL.into_iter().any(|tier| self.gates.of(tier).queueing.prefill_on_handover)
    }

    /// When a turn that waits may have its chain read where it would go on to; None: never, or that was asked already.
    pub(super) fn read_ahead_ns(&self, waiter: &Waiter) -> Option<u64> {
        let Traits { background, is_chat, .. } = waiter.ticket.traits;
        let next = waiter.plan.tiers().get(waiter.index + 1).filter(|_| waiter.has_next())?;
        let may_be = self.gates.of(*next).queueing.prefill_on_handover && !waiter.is_read_ahead;
        let since = Now { mono_ns: waiter.since_ns, unix_ms: 0 };
        (may_be && !background && !is_chat && !waiter.is_retry()).then(|| since.after_ms(QUEUE_MS))
    }

    /// The place in its plan of the tier that a turn will go on to, since it is foretold to wait here as long as it may. That is asked once.
    fn goes_on_from(&mut self, id: WaiterId, now: Now) -> Option<usize> {
        let mut waiter = self.waiters.remove(&id)?;
        let may_go_on = waiter.decided.is_none() && waiter.has_next() && !waiter.is_read_ahead;
        waiter.is_read_ahead = true;
        let goes_on = may_go_on && now.after_ms(self.place(id, &waiter, now).wait_ms) >= self.deadline_ns(&waiter);
        let next = waiter.index + 1;
        self.waiters.insert(id, waiter);
        goes_on.then_some(next)
    }

    fn prefill(&mut self, ahead: &Ahead, endpoint: EndpointId, now: Now) -> Option<Prefill> {
        // The question is one of Chat Completions.
        let tier = self.fleet.endpoint(endpoint).filter(|at| at.speaks == Speaks::Chat)?.tier;
        let (traits, tokens_new) = (&ahead.ticket.traits, ahead.new_at(endpoint));
        let tokens = traits.tokens_input.saturating_add(1);
        let gate = self.gates.of_mut(tier);
        let queueing = &gate.queueing;
        let (per_minute, ms_max) = (queueing.prefills_per_minute_max, queueing.prefill_ms_max);
        let (is_on, tokens_min) = match ahead.cause {
            Cause::WarmUp => (queueing.prefill_on_warm_up, 0),
            Cause::Handover | Cause::Queue(_) => (queueing.prefill_on_handover, queueing.handover_tokens_min),
        };
        if !is_on || tokens_new < tokens_min || tokens_new > queueing.prefill_tokens_max {
            return None;
        }
        // Half of a tier's slots are for turns that may come.
        let is_busy = gate.window.slots().is_some_and(|slots| gate.window.in_flight() >= slots.div_ceil(2));
        if is_busy || !gate.queue.is_empty() {
            return None;
        }
        gate.accounts.check(&traits.owner, tokens, now).ok()?;
        let left = gate.accounts.allowance(&traits.owner, now).tokens.map_or(u64::MAX, |tokens| tokens.remaining);
        if left < tokens.saturating_mul(2) {
            return None;
        }
        let has_room = self.router.has_room(&self.fleet, endpoint, self.prefills.at(endpoint), now);
        if !has_room || !self.prefills.spend(tier, per_minute, now) {
            return None;
        }
        let reservation = self.gates.of_mut(tier).accounts.reserve_tokens(&traits.owner, tokens, now);
        self.asked += 1;
        let id = WaiterId(self.asked);
        self.asked += 1;
        let running = Running { owner: traits.owner, tier, endpoint, reservation, is_stopped: false };
        self.prefills.running.insert(id, running);
        // Its turn goes there, whatever becomes of it: what was read of its prompt is there.
        self.router.remember(traits.keys, tier, endpoint, now);
        Some(Prefill { id, tier, endpoint, until_ns: now.after_ms(ms_max), cause: ahead.cause })
    }

    /// A prefill is over, and so many tokens were used.
    pub fn end_prefill(&mut self, id: WaiterId, tokens_used: u64, now: Now) {
        let Some(running) = self.prefills.running.remove(&id) else { return };
        if let Some(reservation) = running.reservation {
            let accounts = &mut self.gates.of_mut(running.tier).accounts;
            accounts.settle(&running.owner, reservation, tokens_used, now);
            self.serve(running.tier, now);
        }
    }

    /// Prefills at endpoints that are retired now are told to stop.
    pub(super) fn stop_retired(&mut self) {
        for (id, running) in &mut self.prefills.running {
            let is_retired = self.fleet.live(running.endpoint).is_none();
            if is_retired && !std::mem::replace(&mut running.is_stopped, true) {
                self.woken.push_back(*id);
            }
        }
    }

    /// Whether none runs at an endpoint, not even one that was told to stop.
    pub(super) fn is_without_prefill(&self, endpoint: EndpointId) -> bool {
        self.prefills.running.values().all(|running| running.endpoint != endpoint)
    }

    /// A turn has got a place: prefills that are in its way are told to stop, those at its endpoint where that runs as many as it may, or
    /// those of the tier where its slots are taken.
    pub(super) fn make_room(&mut self, tier: Tier, endpoint: EndpointId) {
        if self.prefills.running.is_empty() {
            return;
        }
        let is_tier_full = self.gates.of(tier).window.free() == 0;
        let at = self.fleet.endpoint(endpoint).map(|at| at.share.concurrency_max.unwrap_or(u32::MAX));
        let turns = self.router.in_flight(endpoint).saturating_add(self.prefills.at(endpoint));
        let is_endpoint_full = at.is_some_and(|max| turns > max);
        for (id, running) in &mut self.prefills.running {
            let is_in_its_way =
                (is_endpoint_full && running.endpoint == endpoint) || (is_tier_full && running.tier == tier);
            if is_in_its_way && !std::mem::replace(&mut running.is_stopped, true) {
                self.woken.push_back(*id);
            }
        }
    }
}
