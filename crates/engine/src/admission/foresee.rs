//! Where a turn would go that nobody has asked for yet: what is to be ready there when it comes. Lets nobody in, and counts nothing.

use super::limit::Allowance;
use super::{Admission, Ticket};
use crate::fleet::EndpointId;
use crate::router::{self, Wish};
use crate::time::Now;
use std::sync::Arc;

/// What a client will find that has come, and has not asked for a turn yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreseen {
    /// Where its turn would go now.
    pub endpoint: EndpointId,
    /// What is left of its limits there.
    pub allowance: Allowance,
}

impl Admission {
    /// Where such a turn would go, so that all is ready there when it comes. None: nowhere, or nobody can tell.
    pub fn foresee(&mut self, ticket: &Ticket, now: Now) -> Option<Foreseen> {
        self.foresee_from(0, ticket, now)
    }

    /// The same, of its plan's tiers from that one on.
    pub(super) fn foresee_from(&mut self, from: usize, ticket: &Ticket, now: Now) -> Option<Foreseen> {
        let fleet = Arc::clone(&self.fleet);
        let plan = router::route(&fleet, fleet.model(&ticket.model)?, &ticket.traits).ok()?;
        let Ticket { model, traits, tried, prefer, planned, .. } = ticket;
        plan.tiers().iter().skip(from).find_map(|&tier| {
            let (prefer, planned, is_chat) = (*prefer, *planned, traits.is_chat);
            let keys = traits.keys;
            let wish = Wish { tier, model, keys, tried, prefer, planned, is_last: false, is_chat, continues: false };
            let endpoint = self.router.foresee(&fleet, &wish, now)?;
            Some(Foreseen { endpoint, allowance: self.allowance(traits.owner, tier, now) })
        })
    }
}
