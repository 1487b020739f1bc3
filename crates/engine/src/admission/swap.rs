//! Another config's fleet in the place of the one before, while turns run and wait. Reads no config, and changes no limits.
//!
//! What runs keeps its endpoint and its place; what is retired by the new fleet gets no more. What waits is planned anew.

use super::{Admission, WaiterId, refused};
use crate::fleet::{EndpointId, Fleet, Tier};
use crate::router::{self, Routing};
use crate::time::Now;
use std::sync::Arc;

impl Admission {
    /// Ids are the caller's affair: an endpoint that both fleets have has the same one in both, and one that only the old fleet has is retired in
    /// the new one, for as long as it [`Self::is_in_use`]. All that wait are woken to look what became of them.
    pub fn adopt_fleet(&mut self, fleet: Arc<Fleet>, routing: &Routing, now: Now) {
        self.router.adopt(&self.fleet, &fleet, routing);
        self.fleet = fleet;
        self.adopt_hedging(routing);
        self.stop_retired();
        let waiting: Vec<WaiterId> = self.waiters.keys().copied().collect();
        for id in &waiting {
            self.plan_anew(*id, now);
        }
        for tier in Tier::ALL {
            match self.router.is_closed(&self.fleet, tier) {
                true => self.send_on(tier, now),
                false => self.serve(tier, now),
            }
        }
        self.woken.extend(waiting);
    }

    /// Whether a turn or a prefill has leave to be at an endpoint.
    #[must_use]
    pub fn is_in_use(&self, endpoint: EndpointId) -> bool {
        self.in_flight(endpoint) > 0 || !self.is_without_prefill(endpoint)
    }

    /// A turn that waits stays where it stands, if it may be served there still; otherwise it looks for a place as if it had come now, or is
    /// refused for what is not there any more.
    fn plan_anew(&mut self, id: WaiterId, now: Now) {
        let fleet = Arc::clone(&self.fleet);
        let Some(mut waiter) = self.waiters.remove(&id) else { return };
        if waiter.decided.is_some() {
            self.waiters.insert(id, waiter);
            return;
        }
        let tier = waiter.tier();
        let model = fleet.model(&waiter.ticket.model).ok_or_else(|| refused::no_model(&waiter.ticket.model));
        let planned = model.and_then(|model| {
            let unroutable = |why| refused::unroutable(&waiter.ticket.model, why);
            router::route(&fleet, model, &waiter.ticket.traits)
                .and_then(|plan| waiter.ticket.within(plan))
                .map_err(unroutable)
        });
        waiter.takes_any = false;
        let at = planned.as_ref().ok().and_then(|plan| plan.tiers().iter().position(|of| *of == tier));
        if at.is_none() {
            self.gates.of_mut(tier).queue.remove(waiter.party, id);
        }
        match (planned, at) {
            (Ok(plan), Some(index)) => {
                (waiter.plan, waiter.index) = (plan, index);
                self.waiters.insert(id, waiter);
            }
            (Ok(plan), None) => {
                (waiter.plan, waiter.index) = (plan, 0);
                self.go_on(id, waiter, now);
            }
            (Err(refusal), _) => {
                waiter.decided = Some(Err(refusal));
                self.waiters.insert(id, waiter);
            }
        }
    }
}
