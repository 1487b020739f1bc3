//! How busy endpoints are: the turns of this gateway, counted, and what the engines say of all of theirs. Knows nothing of health.

use crate::fleet::{EndpointId, Fleet, Share};
use crate::time::Now;
use std::cmp::Ordering;

/// What an engine says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Requests that wait for a place.
    pub waiting: u32,
    pub running: u32,
    /// The share of its KV cache that is in use, from 0 to 1.
    pub kv_usage: Option<f32>,
}

/// What an engine said longer ago says nothing of now.
const AGE_NS_MAX: u64 = 10_000_000_000;
/// From this share of its KV cache on, an engine puts off what it runs.
const KV_USAGE_HIGH: f32 = 0.9;

/// The load of every endpoint.
#[derive(Debug, Default)]
pub struct Loads {
    seats: Vec<Seat>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seat {
    in_flight: u32,
    probed: Option<Probed>,
}

#[derive(Debug, Clone, Copy)]
struct Probed {
    load: Load,
    at_ns: u64,
    /// Ours at that time, which the engine counted as well.
    in_flight: u32,
}

impl Seat {
    /// Turns that a new one would share the endpoint with; those that wait there count twice.
    fn turns(&self, now: Now) -> u32 {
        let Some(probed) = self.probed.filter(|probed| now.mono_ns.saturating_sub(probed.at_ns) <= AGE_NS_MAX) else {
            return self.in_flight;
        };
        let Load { waiting, running, kv_usage } = probed.load;
        let then = running.saturating_add(waiting);
        let turns = then.saturating_add(self.in_flight).saturating_sub(probed.in_flight).max(self.in_flight);
        let turns = turns.saturating_add(waiting);
        match kv_usage {
            Some(usage) if usage >= KV_USAGE_HIGH => turns.saturating_add(turns / 2).saturating_add(1),
            Some(_) | None => turns,
        }
    }
}

impl Loads {
    /// A turn begins there.
    pub fn begin(&mut self, endpoint: EndpointId) {
        if let Some(seat) = self.seat(endpoint) {
            seat.in_flight += 1;
        }
    }

    /// It has left.
    pub fn end(&mut self, endpoint: EndpointId) {
        if let Some(seat) = self.seat(endpoint) {
            debug_assert!(seat.in_flight > 0, "a turn ends once");
            seat.in_flight = seat.in_flight.saturating_sub(1);
        }
    }

    /// An engine has said how busy it is.
    pub fn probed(&mut self, endpoint: EndpointId, load: Load, now: Now) {
        if let Some(seat) = self.seat(endpoint) {
            seat.probed = Some(Probed { load, at_ns: now.mono_ns, in_flight: seat.in_flight });
        }
    }

    /// This gateway's turns there.
    #[must_use]
    pub fn in_flight(&self, endpoint: EndpointId) -> u32 {
        self.seats.get(usize::from(endpoint.0)).map_or(0, |seat| seat.in_flight)
    }

    /// Turns there, as far as is known.
    #[must_use]
    pub fn turns(&self, endpoint: EndpointId, now: Now) -> u32 {
        self.seats.get(usize::from(endpoint.0)).map_or(0, |seat| seat.turns(now))
    }

    /// Whether its own setting allows no more.
    #[must_use]
    pub fn is_full(&self, endpoint: EndpointId, share: Share) -> bool {
        share.concurrency_max.is_some_and(|max| self.in_flight(endpoint) >= max)
    }

    /// The one that is less busy for its weight is less.
    #[must_use]
    pub fn compare(&self, fleet: &Fleet, a: EndpointId, b: EndpointId, now: Now) -> Ordering {
        let part = |id: EndpointId| {
            let weight = fleet.endpoint(id).map_or(1, |endpoint| endpoint.share.weight.max(1));
            (u64::from(self.turns(id, now)) + 1, u64::from(weight))
        };
        let ((a, a_weight), (b, b_weight)) = (part(a), part(b));
        (a * b_weight).cmp(&(b * a_weight))
    }

    fn seat(&mut self, endpoint: EndpointId) -> Option<&mut Seat> {
        let index = usize::from(endpoint.0);
        if index >= self.seats.len() {
            self.seats.resize(index + 1, Seat::default());
        }
        self.seats.get_mut(index)
    }
}
