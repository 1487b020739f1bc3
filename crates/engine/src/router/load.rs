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
    /// In the place of the config's.
    weight: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Probed {
    load: Load,
    at_ns: u64,
    /// Ours at that time, which the engine counted as well.
    in_flight: u32,
}

impl Seat {
    /// What the engine said, if that was not too long ago.
    fn told(&self, now: Now) -> Option<Probed> {
        self.probed.filter(|probed| now.mono_ns.saturating_sub(probed.at_ns) <= AGE_NS_MAX)
    }

    /// Turns that a new one would share the endpoint with; those that wait there count twice.
    fn turns(&self, now: Now) -> u32 {
        let Some(probed) = self.told(now) else { return self.in_flight };
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

    /// What the engine said, if that was not too long ago.
    #[must_use]
    pub fn told(&self, endpoint: EndpointId, now: Now) -> Option<Load> {
        self.seats.get(usize::from(endpoint.0))?.told(now).map(|probed| probed.load)
    }

    /// An engine has said how busy it is.
    pub fn probed(&mut self, endpoint: EndpointId, load: Load, now: Now) {
        if let Some(seat) = self.seat(endpoint) {
            seat.probed = Some(Probed { load, at_ns: now.mono_ns, in_flight: seat.in_flight });
        }
    }

    /// What these engines said is forgotten; turns that run there still are counted.
    pub fn forget(&mut self, is_gone: impl Fn(EndpointId) -> bool) {
        let seats = (0u16..).map(EndpointId).zip(&mut self.seats);
        seats.filter(|(id, _)| is_gone(*id)).for_each(|(_, seat)| seat.probed = None);
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

    /// Whether requests wait there for a place, as far as the engine tells.
    #[must_use]
    pub fn is_waited_for(&self, endpoint: EndpointId, now: Now) -> bool {
        let told = self.seats.get(usize::from(endpoint.0)).and_then(|seat| seat.told(now));
        told.is_some_and(|probed| probed.load.waiting > 0)
    }

    /// Whether its own setting allows no more.
    #[must_use]
    pub fn is_full(&self, endpoint: EndpointId, share: Share) -> bool {
        share.concurrency_max.is_some_and(|max| self.in_flight(endpoint) >= max)
    }

    /// The weight that an operator gave it in the place of the config's.
    #[must_use]
    pub fn weight_ordered(&self, endpoint: EndpointId) -> Option<u32> {
        self.seats.get(usize::from(endpoint.0)).and_then(|seat| seat.weight)
    }

    /// Gives it one; None: the config's.
    pub fn weigh(&mut self, endpoint: EndpointId, weight: Option<u32>) {
        if let Some(seat) = self.seat(endpoint) {
            seat.weight = weight;
        }
    }

    /// What holds of the two.
    #[must_use]
    pub fn weight(&self, fleet: &Fleet, endpoint: EndpointId) -> u32 {
        let of_config = || fleet.endpoint(endpoint).map_or(1, |endpoint| endpoint.share.weight.max(1));
        self.weight_ordered(endpoint).unwrap_or_else(of_config)
    }

    /// The one that is less busy for its weight is less.
    #[must_use]
    pub fn compare(&self, fleet: &Fleet, a: EndpointId, b: EndpointId, now: Now) -> Ordering {
        let part = |id: EndpointId| (u64::from(self.turns(id, now)) + 1, u64::from(self.weight(fleet, id)));
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

#[cfg(test)]
mod tests {
    use super::super::fixture::{at, fleet};
    use super::*;
    use crate::fleet::Tier;

    const A: EndpointId = EndpointId(0);
    const B: EndpointId = EndpointId(1);

    fn load(waiting: u32, running: u32) -> Load {
        Load { waiting, running, kv_usage: None }
    }

    #[test]
    fn own_turns_are_counted_where_the_engine_says_nothing() {
        let mut loads = Loads::default();
        (0..3).for_each(|_| loads.begin(B));
        loads.end(B);
        assert_eq!((loads.turns(A, at(0)), loads.turns(B, at(0)), loads.in_flight(B)), (0, 2, 2));
    }

    #[test]
    fn what_the_engine_says_is_brought_up_to_date_by_own_turns() {
        let mut loads = Loads::default();
        (0..4).for_each(|_| loads.begin(A));
        // Four of the ten are ours.
        loads.probed(A, load(0, 10), at(0));
        assert_eq!(loads.turns(A, at(1)), 10);
        loads.begin(A);
        assert_eq!(loads.turns(A, at(1)), 11);
        (0..3).for_each(|_| loads.end(A));
        assert_eq!(loads.turns(A, at(1)), 8);
        // It did not know of ours yet.
        loads.probed(A, load(0, 0), at(2));
        assert_eq!(loads.turns(A, at(2)), 2);
        loads.probed(A, load(0, 50), at(3));
        assert_eq!((loads.turns(A, at(10_003)), loads.turns(A, at(10_004))), (50, 2));
    }

    #[test]
    fn those_that_wait_count_twice_and_a_full_cache_half_as_much_again() {
        let mut loads = Loads::default();
        loads.probed(A, load(3, 5), at(0));
        assert_eq!(loads.turns(A, at(0)), 11);
        let kv_usage = |usage| Load { kv_usage: Some(usage), ..load(0, 10) };
        loads.probed(A, kv_usage(0.89), at(0));
        assert_eq!(loads.turns(A, at(0)), 10);
        loads.probed(A, kv_usage(0.95), at(0));
        assert_eq!(loads.turns(A, at(0)), 16);
        loads.probed(A, load(u32::MAX, u32::MAX), at(0));
        assert_eq!(loads.turns(A, at(0)), u32::MAX);
    }

    #[test]
    fn a_heavier_endpoint_takes_more() {
        let mut fleet = fleet(&[Tier::Latency, Tier::Latency]);
        fleet.endpoints[0].share.weight = 3;
        let mut loads = Loads::default();
        let mut shares = [0; 2];
        for _ in 0..40 {
            let less = if loads.compare(&fleet, B, A, at(0)).is_lt() { B } else { A };
            loads.begin(less);
            shares[usize::from(less.0)] += 1;
        }
        assert_eq!(shares, [30, 10]);
        assert_eq!(loads.compare(&fleet, A, A, at(0)), Ordering::Equal);
    }

    #[test]
    fn an_endpoint_is_full_by_own_turns_alone() {
        let mut loads = Loads::default();
        let share = Share { concurrency_max: Some(2), weight: 1 };
        loads.probed(A, load(9, 9), at(0));
        loads.begin(A);
        assert!(!loads.is_full(A, share));
        loads.begin(A);
        assert!(loads.is_full(A, share) && !loads.is_full(A, Share::default()));
    }
}
