//! Endpoints as operators want them while the server runs: who waits for a tier that has none left goes elsewhere at once, and who waits
//! for one that has more looks again. Which endpoint a turn gets then, the router says.

use super::Admission;
use crate::fleet::{EndpointId, Tier};
use crate::router::{Duty, Order, Seen};
use crate::time::Now;

impl Admission {
    /// What an operator has said of an endpoint.
    #[must_use]
    pub fn order(&self, endpoint: EndpointId) -> Order {
        self.router.order(endpoint)
    }

    /// How an endpoint stands, for people who look on.
    #[must_use]
    pub fn seen(&self, endpoint: EndpointId, now: Now) -> Seen {
        self.router.seen(&self.fleet, endpoint, now)
    }

    /// An operator says something else of an endpoint. What runs there goes on.
    pub fn obey(&mut self, endpoint: EndpointId, order: Order, now: Now) {
        let Some(tier) = self.fleet.endpoint(endpoint).map(|at| at.tier) else { return };
        self.router.obey(endpoint, order);
        if self.router.is_closed(&self.fleet, tier) {
            return self.send_on(tier, now);
        }
        self.serve(tier, now);
        self.woken.extend(self.waiters.iter().filter(|(_, waiter)| waiter.waits_at(tier)).map(|(id, _)| *id));
    }

    /// Whether an endpoint that drains has nothing left that runs.
    #[must_use]
    pub fn is_drained(&self, endpoint: EndpointId) -> bool {
        let is_idle = || self.router.in_flight(endpoint) == 0 && self.prefills.at(endpoint) == 0;
        self.router.order(endpoint).duty == Duty::Draining && is_idle()
    }

    /// All that wait for a tier look for a place elsewhere, in the order in which they came.
    pub(super) fn send_on(&mut self, tier: Tier, now: Now) {
        let waiting = self.waiters.iter().filter(|(_, waiter)| waiter.waits_at(tier));
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(mut waiter) = self.waiters.remove(&id) else { continue };
            self.gates.of_mut(tier).queue.remove(waiter.party, id);
            self.woken.push_back(id);
            (waiter.index, waiter.takes_any) = (0, false);
            self.go_on(id, waiter, now);
        }
    }
}
