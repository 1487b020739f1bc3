//! Who may start now, and where. One machine for all connections, touched once or twice a turn.

pub mod limit;
pub mod queue;
mod shares;
#[cfg(test)]
mod tests;
pub mod window;

use crate::error::{ErrorKind, Refusal};
use crate::fleet::{EndpointId, Fleet, Tier};
use crate::router::{self, Traits};
use std::sync::Arc;

/// A turn's wish to start.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub model: Arc<str>,
    /// Endpoints that already failed this turn.
    pub tried: Vec<EndpointId>,
    /// Taken whatever its load, where the plan has it: its prefix cache holds what this turn goes on from.
    pub prefer: Option<EndpointId>,
    /// What routing looks at.
    pub traits: Traits,
}

/// The leave to start at an endpoint; handed back by [`Admission::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    pub endpoint: EndpointId,
    pub tier: Tier,
}

/// Counts what is in flight at each endpoint.
#[derive(Debug, Default)]
pub struct Admission {
    in_flight: Vec<u32>,
}

impl Admission {
    /// Grants the turn an endpoint of the first tier of its plan that has one left.
    ///
    /// # Errors
    /// The model is not of this fleet, or every endpoint of its tiers was tried.
    pub fn ask(&mut self, fleet: &Fleet, ticket: &Ticket) -> Result<Grant, Refusal> {
        let Some(model) = fleet.model(&ticket.model) else {
            return Err(Refusal::new(
                ErrorKind::ModelNotFound,
                format!("The model '{}' does not exist.", ticket.model),
            ));
        };
        self.in_flight.resize(self.in_flight.len().max(fleet.endpoints.len()), 0);
        let preferred = ticket.prefer.filter(|id| !ticket.tried.contains(id)).and_then(|endpoint| {
            let tier = fleet.endpoint(endpoint)?.tier;
            router::plan(model, fleet).any(|planned| planned == tier).then_some(Grant { endpoint, tier })
        });
        let grant = preferred.or_else(|| {
            router::plan(model, fleet).find_map(|tier| {
                let endpoint = router::pick(fleet, tier, &ticket.tried, |id| self.in_flight(id))?;
                Some(Grant { endpoint, tier })
            })
        });
        let Some(grant) = grant else {
            let message =
                format!("No endpoint can serve the model '{}' right now. Please try again later.", ticket.model);
            return Err(Refusal::new(ErrorKind::Overloaded, message).with_retry_after_ms(Some(1000)));
        };
        if let Some(count) = self.in_flight.get_mut(usize::from(grant.endpoint.0)) {
            *count += 1;
        }
        Ok(grant)
    }

    /// The turn has left its endpoint.
    pub fn release(&mut self, grant: Grant) {
        if let Some(count) = self.in_flight.get_mut(usize::from(grant.endpoint.0)) {
            debug_assert!(*count > 0, "a grant is released once");
            *count = count.saturating_sub(1);
        }
    }

    /// Turns in flight at an endpoint.
    #[must_use]
    pub fn in_flight(&self, endpoint: EndpointId) -> u32 {
        self.in_flight.get(usize::from(endpoint.0)).copied().unwrap_or(0)
    }
}
