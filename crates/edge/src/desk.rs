//! Admission, shared by all connections behind one short lock, and how those are woken that wait for it. Decides nothing.
//!
//! Whoever waits has a signal of its own. A turn that ends, or a look, may let others in: theirs is given within the same call.

use crate::revised::revised;
use flashlane_engine::admission::{
    Admission, Ahead, Asked, Ending, Foreseen, Grant, Prefill, Prepared, Settings, Standing, Terms, Ticket, WaiterId,
};
use flashlane_engine::router::{Change, Load, Order, Seen};
use flashlane_engine::{EndpointId, Fleet, Now, Tier};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Given when the turn that waits is to look how it stands.
pub(crate) type Signal = oneshot::Receiver<()>;

pub(crate) struct Desk(Mutex<Held>);

struct Held {
    admission: Admission,
    /// As many as wait: the queues' bounds are theirs.
    signals: BTreeMap<WaiterId, oneshot::Sender<()>>,
    /// That operators want empty: no more than there are endpoints.
    emptied: BTreeSet<EndpointId>,
}

impl Desk {
    pub(crate) fn new(admission: Admission) -> Self {
        Self(Mutex::new(Held { admission, signals: BTreeMap::new(), emptied: BTreeSet::new() }))
    }

    /// A turn that has to wait gets a signal. `loads` is what engines have said of themselves since it was asked for last.
    pub(crate) fn ask(
        &self,
        ticket: Ticket,
        loads: impl Iterator<Item = (EndpointId, Load)>,
        now: Now,
    ) -> (Asked, Option<Signal>) {
        let mut held = self.held();
        loads.for_each(|(endpoint, load)| held.admission.probed(endpoint, load, now));
        let asked = held.admission.ask(ticket, now);
        held.settle(asked)
    }

    /// Where such a turn would go now.
    pub(crate) fn foresee(&self, ticket: &Ticket, now: Now) -> Option<Foreseen> {
        self.held().admission.foresee(ticket, now)
    }

    /// A second endpoint for a turn whose first token is late at this one.
    pub(crate) fn hedge(
        &self,
        ticket: &Ticket,
        late: Grant,
        loads: impl Iterator<Item = (EndpointId, Load)>,
        now: Now,
    ) -> Option<Grant> {
        let mut held = self.held();
        loads.for_each(|(endpoint, load)| held.admission.probed(endpoint, load, now));
        held.admission.hedge(ticket, late, now)
    }

    /// Where a turn would go, and the leave to have its prompt read there, with what tells when that has to make room.
    pub(crate) fn prepare(
        &self,
        ahead: &Ahead,
        loads: impl Iterator<Item = (EndpointId, Load)>,
        now: Now,
    ) -> Option<(EndpointId, Option<(Prefill, Signal)>)> {
        let mut held = self.held();
        loads.for_each(|(endpoint, load)| held.admission.probed(endpoint, load, now));
        let Prepared { endpoint, prefill } = held.admission.prepare(ahead, now)?;
        let prefill = prefill.map(|prefill| (prefill, held.signal(prefill.id)));
        Some((endpoint, prefill))
    }

    /// Tells whether the endpoint was drained, and this was the last that ran there.
    pub(crate) fn end_prefill(&self, leave: Prefill, tokens: u64, now: Now) -> bool {
        let mut held = self.held();
        held.signals.remove(&leave.id);
        held.admission.end_prefill(leave.id, tokens, now);
        held.wake();
        held.admission.is_drained(leave.endpoint)
    }

    /// How a turn that waits stands; its signal before is worth nothing any more.
    pub(crate) fn look(&self, waiter: WaiterId, now: Now) -> (Asked, Option<Signal>) {
        let mut held = self.held();
        held.signals.remove(&waiter);
        let asked = held.admission.look(waiter, now);
        held.settle(asked)
    }

    pub(crate) fn forget(&self, waiter: WaiterId, now: Now) {
        let mut held = self.held();
        held.signals.remove(&waiter);
        held.admission.forget(waiter, now);
        held.wake();
    }

    /// Tells where the endpoint's standing has changed by it, and whether it was drained and this was the last that ran there.
    pub(crate) fn release(&self, grant: Grant, ending: &Ending, now: Now) -> (Option<Change>, bool) {
        let mut held = self.held();
        let change = held.admission.release(grant, ending, now);
        held.wake();
        (change, held.admission.is_drained(grant.endpoint()))
    }

    /// How an endpoint stands, and whether it is drained.
    pub(crate) fn seen(&self, endpoint: EndpointId, now: Now) -> (Seen, bool) {
        let held = self.held();
        (held.admission.seen(endpoint, now), held.admission.is_drained(endpoint))
    }

    /// What an operator has said of an endpoint.
    pub(crate) fn order(&self, endpoint: EndpointId) -> Order {
        self.held().admission.order(endpoint)
    }

    /// Another order for an endpoint, made of the one that it has; whoever waits in vain is woken to look elsewhere.
    pub(crate) fn obey<E>(
        &self,
        endpoint: EndpointId,
        make: impl FnOnce(Order) -> Result<Order, E>,
        now: Now,
    ) -> Result<Order, E> {
        let mut held = self.held();
        let order = make(held.admission.order(endpoint))?;
        held.admission.obey(endpoint, order, now);
        held.wake();
        match order.migrate {
            true => held.emptied.insert(endpoint),
            false => held.emptied.remove(&endpoint),
        };
        Ok(order)
    }

    /// Endpoints whose turns are to go on elsewhere, where they can.
    pub(crate) fn emptied(&self) -> Vec<EndpointId> {
        self.held().emptied.iter().copied().collect()
    }

    /// What a tier holds its turns to.
    pub(crate) fn terms(&self, tier: Tier) -> Terms {
        self.held().admission.terms(tier)
    }

    /// Other terms for a tier, made of those that it has; whoever waits is woken to look. Tells whether they differ.
    pub(crate) fn adopt<E>(
        &self,
        tier: Tier,
        make: impl FnOnce(Terms) -> Result<Terms, E>,
        now: Now,
    ) -> Result<(Terms, bool), E> {
        let mut held = self.held();
        let terms = make(held.admission.terms(tier))?;
        let is_change = held.admission.adopt(tier, terms.clone(), now);
        held.wake();
        Ok((terms, is_change))
    }

    /// Another config's fleet, and what its `settings` are now and were before. `publish` is called in between: whoever knows the new config asks the
    /// new fleet, and whoever is answered by it finds the new config.
    pub(crate) fn renew(
        &self,
        fleet: &Arc<Fleet>,
        (before, after): (&Settings, &Settings),
        publish: impl FnOnce(),
        now: Now,
    ) {
        let mut held = self.held();
        publish();
        let admission = &mut held.admission;
        for tier in Tier::ALL {
            let terms = admission.terms(tier);
            let revised = revised(&terms, &before.of(tier), &after.of(tier));
            if revised != terms {
                admission.adopt(tier, revised, now);
            }
        }
        admission.adopt_own(&after.own, now);
        admission.adopt_fleet(Arc::clone(fleet), &after.routing, now);
        held.wake();
    }

    /// Whether a turn or a prefill has leave to be at an endpoint.
    pub(crate) fn is_in_use(&self, endpoint: EndpointId) -> bool {
        self.held().admission.is_in_use(endpoint)
    }

    /// What an engine has said of its load lately.
    pub(crate) fn load_told(&self, endpoint: EndpointId, now: Now) -> Option<Load> {
        self.held().admission.load_told(endpoint, now)
    }

    pub(crate) fn standings(&self) -> [(Tier, Standing); 2] {
        let held = self.held();
        Tier::ALL.map(|tier| (tier, held.admission.standing(tier)))
    }

    /// A panic while it was held left at worst a wrong count, so the next turn goes on.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn settle(&mut self, asked: Asked) -> (Asked, Option<Signal>) {
        let signal = match &asked {
            Asked::Queued(place) => Some(self.signal(place.waiter)),
            Asked::Granted(..) | Asked::Refused(..) => None,
        };
        self.wake();
        (asked, signal)
    }

    fn signal(&mut self, waiter: WaiterId) -> Signal {
        let (sender, signal) = oneshot::channel();
        self.signals.insert(waiter, sender);
        signal
    }

    fn wake(&mut self) {
        while let Some(waiter) = self.admission.poll_woken() {
            if let Some(signal) = self.signals.remove(&waiter) {
                // Who is gone meanwhile says so by `forget`.
                let _ = signal.send(());
            }
        }
    }
}
