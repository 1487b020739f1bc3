//! What operators have said of endpoints while the server runs: whether they get new turns. The config says nothing of it, and a restart
//! forgets it. Knows nothing of health and load: an endpoint that gets no turns by its duty is as well as it is.
//!
//! ```text
//! Active <──> Cordoned: no new turns, those that run go on
//!    ^            ^
//!    └> Draining <┘: the same, and who asked is told when the last of them has left
//! ```

use crate::fleet::{EndpointId, Fleet, Tier};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whether an endpoint gets new turns, by an operator's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Duty {
    #[default]
    Active,
    /// No new ones. Conversations go on elsewhere.
    Cordoned,
    /// The same, and it is told when nothing runs there any more.
    Draining,
}

impl Duty {
    pub const ALL: [Self; 3] = [Self::Active, Self::Cordoned, Self::Draining];

    /// The name in the admin interface, in logs and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
        }
    }

    #[must_use]
    pub fn takes_turns(self) -> bool {
        match self {
            Self::Active => true,
            Self::Cordoned | Self::Draining => false,
        }
    }
}

/// What an operator may say of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Order {
    #[serde(rename = "state")]
    pub duty: Duty,
    /// In the place of the config's weight, at most [`WEIGHT_MAX`]; at 0 it gets turns only where no other has room.
    pub weight: Option<u32>,
    /// Of one that drains: turns whose answers have begun there go on elsewhere, where they can. What cannot stays; it is asked
    /// again at a reload, until the next order.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub migrate: bool,
}

/// The most that an endpoint may weigh.
pub const WEIGHT_MAX: u32 = 1_000;

/// The duties of all endpoints; those that are active need no entry.
#[derive(Debug, Default)]
pub struct Duties(BTreeMap<EndpointId, Duty>);

impl Duties {
    #[must_use]
    pub fn of(&self, endpoint: EndpointId) -> Duty {
        // The usual case costs no search.
        if self.0.is_empty() { Duty::Active } else { self.0.get(&endpoint).copied().unwrap_or_default() }
    }

    pub fn set(&mut self, endpoint: EndpointId, duty: Duty) {
        match duty {
            Duty::Active => self.0.remove(&endpoint),
            Duty::Cordoned | Duty::Draining => self.0.insert(endpoint, duty),
        };
    }

    /// Whether none of a tier's endpoints gets turns, for this reason alone.
    #[must_use]
    pub fn is_closed(&self, fleet: &Fleet, tier: Tier) -> bool {
        !self.0.is_empty() && fleet.tier(tier).all(|(id, _)| !self.of(id).takes_turns())
    }
}

#[cfg(test)]
mod tests;
