//! Prompts that are read before their turns come: who may have that, and what it costs. A prefill is no turn. It takes no slot and no place
//! at an endpoint, so that no turn is ever queued or refused for it; it starts only where there is room for it beside those that run; and a
//! turn that needs that room has it stopped.
//!
//! Its tokens are its owner's: reserved when it starts, settled when it ends, and only where as many are left for the turn itself.

use super::limit::Reservation;
use super::{Admission, Foreseen, Ticket, WaiterId};
use crate::fleet::{EndpointId, Speaks, Tier};
use crate::session::Owner;
use crate::time::Now;
use std::collections::BTreeMap;

const MINUTE_NS: u64 = 60_000_000_000;

/// The leave to have a prompt read; handed back by [`Admission::end_prefill`]. Who is woken by its id gives it back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefill {
    pub id: WaiterId,
    pub tier: Tier,
    pub endpoint: EndpointId,
    /// When it has taken too long.
    pub until_ns: u64,
}

/// What a warm-up comes to.
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
    /// Where a warm-up's turn would go, and whether its prompt is to be read there.
    pub fn prepare(&mut self, ticket: &Ticket, now: Now) -> Option<Prepared> {
        let Foreseen { endpoint, .. } = self.foresee(ticket, now)?;
        Some(Prepared { endpoint, prefill: self.prefill(ticket, endpoint, now) })
    }

    fn prefill(&mut self, ticket: &Ticket, endpoint: EndpointId, now: Now) -> Option<Prefill> {
        // The question is one of Chat Completions.
        let tier = self.fleet.endpoint(endpoint).filter(|at| at.speaks == Speaks::Chat)?.tier;
        let traits = &ticket.traits;
        let tokens = traits.tokens_input.saturating_add(1);
        let gate = self.gates.of_mut(tier);
        let queueing = &gate.queueing;
        let (per_minute, ms_max) = (queueing.prefills_per_minute_max, queueing.prefill_ms_max);
        if !queueing.prefill_on_warm_up || traits.tokens_input > queueing.prefill_tokens_max {
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
        Some(Prefill { id, tier, endpoint, until_ns: now.after_ms(ms_max) })
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
