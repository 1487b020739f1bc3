//! The endpoint inside a tier: the one that holds the conversation's prefix, else the less busy of two that are drawn. Composes what
//! is known of endpoints; a turn touches it twice, at its beginning and at its end.

use super::affinity::Affinity;
use super::aside::Asides;
use super::decision::PickReason;
use super::duty::{Duties, Order};
use super::health::{Change, Health, Lately, Standing, Verdict};
use super::load::{Load, Loads};
use super::retry::RetryBudget;
use super::settings::Routing;
use super::traits::Keys;
use crate::fleet::{Endpoint, EndpointId, Fleet, Speaks, Tier};
use crate::time::Now;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::sync::Arc;

/// What is known of endpoints and conversations, and the chance to draw by.
#[derive(Debug)]
pub struct Router {
    affinity: Affinity,
    affinity_turns_max: u32,
    asides: Asides,
    duties: Duties,
    health: Health,
    loads: Loads,
    retries: RetryBudget,
    chance: ChaCha8Rng,
}

/// What a turn asks of a tier.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    pub tier: Tier,
    /// By the name that clients know.
    pub model: &'a str,
    pub keys: Keys,
    /// Endpoints that failed this turn already.
    pub tried: &'a [EndpointId],
    /// Goes before all others, whatever its load: it holds what the turn goes on from.
    pub prefer: Option<EndpointId>,
    /// Goes before others that are as little busy: where nothing is known of the conversation, its client was expected here.
    pub planned: Option<EndpointId>,
    /// No other tier is left: better an endpoint that is out than none.
    pub is_last: bool,
    /// Only an endpoint that speaks Chat Completions will do.
    pub is_chat: bool,
    /// Only one that goes on with what another has begun will do.
    pub continues: bool,
}

impl Wish<'_> {
    fn may_be(&self, id: EndpointId, endpoint: &Endpoint) -> bool {
        let speaks_it = match endpoint.speaks {
            Speaks::Chat => true,
            Speaks::Responses => !self.is_chat,
        };
        speaks_it && (!self.continues || endpoint.continues.by_prefill) && !self.tried.contains(&id)
    }
}

/// A turn's endpoint, counted as in flight until [`Router::give_back`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    pub endpoint: EndpointId,
    pub reason: PickReason,
    /// It was out, and this turn finds out whether it is well again.
    pub is_trial: bool,
}

/// How an endpoint stands, for people who look on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub order: Order,
    /// What holds: the order's, else the config's.
    pub weight: u32,
    /// This gateway's turns there.
    pub in_flight: u32,
    pub standing: Standing,
    pub lately: Lately,
}

/// Why a tier has no endpoint for a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpicked {
    /// Those that are well, or all where no other tier is left, run as many turns as they may: one will have a place.
    Full,
    /// None is left that is well, or was not tried.
    Out,
}

/// How a turn left its endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Return<'a> {
    pub pick: Pick,
    pub tier: Tier,
    pub model: &'a Arc<str>,
    pub keys: Keys,
    pub verdict: Verdict,
}

/// What a wish finds at one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    Free,
    /// Free, and for turns alone that find no other.
    Spare,
    /// Well, but for its places.
    Full,
    /// Out, and its trial is due.
    Due,
    /// Out until then, for all or for this model.
    Out(u64),
    /// The same, and without a place.
    OutFull,
}

/// What it finds in the tier.
#[derive(Debug, Default)]
struct Found {
    free: Vec<EndpointId>,
    spare: Vec<EndpointId>,
    full: usize,
    due: Option<EndpointId>,
    /// The one that is out for the shortest while, of those with a place.
    out: Option<(u64, EndpointId)>,
    out_full: usize,
}

impl Router {
    /// `seed` from the system's generator; fixed in tests.
    #[must_use]
    pub fn new(routing: &Routing, seed: [u8; 32]) -> Self {
        Self {
            affinity: Affinity::new(routing.affinity_entries_max, routing.affinity_ms_max),
            affinity_turns_max: routing.affinity_turns_max,
            asides: Asides::new(routing),
            duties: Duties::default(),
            health: Health::new(routing),
            loads: Loads::default(),
            retries: RetryBudget::new(routing.retry_percent_max, routing.retries_per_second_max),
            chance: ChaCha8Rng::from_seed(seed),
        }
    }

    /// Another fleet in the place of the one before, and other bounds. What is known of endpoints that both have holds; of all others nothing
    /// is, but for the turns that run there.
    pub fn adopt(&mut self, before: &Fleet, fleet: &Fleet, routing: &Routing) {
        self.affinity.adopt(routing.affinity_entries_max, routing.affinity_ms_max);
        self.affinity_turns_max = routing.affinity_turns_max;
        self.asides.adopt(routing);
        self.health.adopt(routing);
        self.retries.adopt(routing.retry_percent_max, routing.retries_per_second_max);
        let ids = (0u16..).map(EndpointId).take(before.endpoints.len().max(fleet.endpoints.len()));
        let other: Vec<_> = ids.filter(|id| before.live(*id).is_some() != fleet.live(*id).is_some()).collect();
        if other.is_empty() {
            return;
        }
        // An operator means an endpoint by its name, whatever the config makes of it.
        let live_named = |name: &str| fleet.all_live().find(|(_, endpoint)| &*endpoint.name == name).map(|(id, _)| id);
        let ordered = other.iter().filter_map(|id| Some((live_named(&before.live(*id)?.name)?, self.order(*id))));
        let ordered: Vec<_> = ordered.collect();
        other.iter().for_each(|id| self.obey(*id, Order::default()));
        ordered.into_iter().for_each(|(id, order)| self.obey(id, order));
        let is_other = |id| other.contains(&id);
        self.affinity.forget(is_other);
        self.asides.forget(is_other);
        self.health.forget(is_other);
        self.loads.forget(is_other);
    }

    /// Takes an endpoint of a tier for a turn.
    ///
    /// # Errors
    /// None can be had now.
    pub fn take(&mut self, fleet: &Fleet, wish: &Wish<'_>, now: Now) -> Result<Pick, Unpicked> {
        let near = self.near(fleet, wish, wish.prefer, now).or_else(|| self.due(fleet, wish, now));
        let near = near.or_else(|| self.known(fleet, wish, now));
        let pick = near.map_or_else(|| self.draw(fleet, wish, now), Ok)?;
        if pick.is_trial {
            self.health.try_out(pick.endpoint, now);
        }
        self.asides.try_out(pick.endpoint, wish.model, now);
        if wish.tried.is_empty() {
            self.retries.begin();
        }
        self.loads.begin(pick.endpoint);
        Ok(pick)
    }

    /// Takes an endpoint for a second request of a turn: one that is well, has room beside its turns and these others, and needs no trial.
    pub fn take_second(
        &mut self,
        fleet: &Fleet,
        wish: &Wish<'_>,
        others_at: impl Fn(EndpointId) -> u32,
        now: Now,
    ) -> Option<Pick> {
        let pick = self.known(fleet, wish, now).or_else(|| self.draw(fleet, wish, now).ok())?;
        let has_room = self.has_room(fleet, pick.endpoint, others_at(pick.endpoint), now);
        if pick.is_trial || !has_room {
            return None;
        }
        self.loads.begin(pick.endpoint);
        Some(pick)
    }

    /// Where a turn would go now, for what is to be ready there when it comes. Nothing is counted, and no trial is made.
    pub fn foresee(&mut self, fleet: &Fleet, wish: &Wish<'_>, now: Now) -> Option<EndpointId> {
        let pick = self.known(fleet, wish, now).or_else(|| self.draw(fleet, wish, now).ok())?;
        (!pick.is_trial).then_some(pick.endpoint)
    }

    /// Whether one more would find room at an endpoint beside its turns and so many others, and nobody waits there.
    #[must_use]
    pub fn has_room(&self, fleet: &Fleet, endpoint: EndpointId, others: u32, now: Now) -> bool {
        let Some(at) = fleet.endpoint(endpoint) else { return false };
        let max = at.share.concurrency_max.unwrap_or(u32::MAX);
        self.loads.in_flight(endpoint).saturating_add(others) < max && !self.loads.is_waited_for(endpoint, now)
    }

    /// Where a conversation's prefix is being cached.
    pub fn remember(&mut self, keys: Keys, tier: Tier, endpoint: EndpointId, now: Now) {
        keys.iter().for_each(|key| self.affinity.remember(key, tier, endpoint, now));
    }

    /// A turn has left its endpoint.
    pub fn give_back(&mut self, fleet: &Fleet, returned: &Return<'_>, now: Now) -> Option<Change> {
        let Return { pick, tier, model, keys, verdict } = *returned;
        self.loads.end(pick.endpoint);
        fleet.live(pick.endpoint)?;
        self.asides.learn(pick.endpoint, model, verdict, now);
        match verdict {
            Verdict::Served { .. } => self.remember(keys, tier, pick.endpoint, now),
            Verdict::Failed | Verdict::Refused { .. } | Verdict::Absent | Verdict::Outrun { .. } | Verdict::Nothing => {
            }
        }
        self.health.observe(fleet, (pick.endpoint, pick.is_trial), verdict, now)
    }

    /// Whether a turn whose endpoint failed may try another; if so, that is counted.
    pub fn may_retry(&mut self, now: Now) -> bool {
        self.retries.spend(now)
    }

    /// An engine has said how busy it is.
    pub fn probed(&mut self, endpoint: EndpointId, load: Load, now: Now) {
        self.loads.probed(endpoint, load, now);
    }

    /// What an operator has said of an endpoint.
    #[must_use]
    pub fn order(&self, endpoint: EndpointId) -> Order {
        Order { duty: self.duties.of(endpoint), weight: self.loads.weight_ordered(endpoint), migrate: false }
    }

    /// How it stands.
    #[must_use]
    pub fn seen(&self, fleet: &Fleet, endpoint: EndpointId, now: Now) -> Seen {
        Seen {
            order: self.order(endpoint),
            weight: self.loads.weight(fleet, endpoint),
            in_flight: self.loads.in_flight(endpoint),
            standing: self.health.standing(endpoint, now),
            lately: self.health.lately(endpoint, now),
        }
    }

    /// An operator says something else of it.
    pub fn obey(&mut self, endpoint: EndpointId, order: Order) {
        self.duties.set(endpoint, order.duty);
        self.loads.weigh(endpoint, order.weight);
    }

    /// Whether operators have left a tier without endpoints.
    #[must_use]
    pub fn is_closed(&self, fleet: &Fleet, tier: Tier) -> bool {
        self.duties.is_closed(fleet, tier)
    }

    /// This gateway's turns at an endpoint.
    #[must_use]
    pub fn in_flight(&self, endpoint: EndpointId) -> u32 {
        self.loads.in_flight(endpoint)
    }

    /// What the engine has said of its load, if that was not too long ago.
    #[must_use]
    pub fn load_told(&self, endpoint: EndpointId, now: Now) -> Option<Load> {
        self.loads.told(endpoint, now)
    }

    /// An endpoint that holds the turn's prefix, if it can take it.
    fn near(&self, fleet: &Fleet, wish: &Wish<'_>, endpoint: Option<EndpointId>, now: Now) -> Option<Pick> {
        let endpoint = endpoint?;
        let at = fleet.live(endpoint).filter(|at| at.tier == wish.tier && self.may_be(wish, endpoint, at))?;
        let is_trial = match self.health.standing(endpoint, now) {
            Standing::In => false,
            Standing::Due => true,
            Standing::Out { .. } => return None,
        };
        if self.loads.is_full(endpoint, at.share) || self.asides.until(endpoint, wish.model, now).is_some() {
            return None;
        }
        Some(Pick { endpoint, reason: PickReason::Affinity, is_trial })
    }

    /// Where the conversation was before, unless it is better off elsewhere.
    fn known(&self, fleet: &Fleet, wish: &Wish<'_>, now: Now) -> Option<Pick> {
        let known = wish.keys.iter().find_map(|key| self.affinity.find(key, wish.tier, now));
        let is_better_off = |pick: &Pick| !self.is_spare(pick.endpoint) && !self.is_crowded(fleet, pick.endpoint, now);
        self.near(fleet, wish, known, now).filter(is_better_off)
    }

    /// The endpoint whose trial is due. Conversations try it as well: where all of them have their endpoints, nobody else would. A turn
    /// that failed once is not made to fail again.
    fn due(&self, fleet: &Fleet, wish: &Wish<'_>, now: Now) -> Option<Pick> {
        if self.health.is_all_in() || !wish.tried.is_empty() {
            return None;
        }
        let (endpoint, _) = self.seats(fleet, wish, now).find(|(_, seat)| *seat == Seat::Due)?;
        Some(Pick { endpoint, reason: PickReason::Trial, is_trial: true })
    }

    /// Whether it is for turns alone that find no other.
    fn is_spare(&self, endpoint: EndpointId) -> bool {
        self.loads.weight_ordered(endpoint) == Some(0)
    }

    fn may_be(&self, wish: &Wish<'_>, id: EndpointId, endpoint: &Endpoint) -> bool {
        wish.may_be(id, endpoint) && self.duties.of(id).takes_turns()
    }

    /// Whether a conversation is better off elsewhere than with its cache.
    fn is_crowded(&self, fleet: &Fleet, endpoint: EndpointId, now: Now) -> bool {
        let turns = self.loads.turns(endpoint, now);
        if turns <= self.affinity_turns_max {
            return false;
        }
        let Some(at) = fleet.endpoint(endpoint) else { return false };
        let open = fleet.tier(at.tier).map(|(id, _)| id).filter(|&id| self.duties.of(id).takes_turns());
        let well = open.filter(|&id| !self.is_spare(id) && self.health.standing(id, now) == Standing::In);
        let least = well.min_by(|&a, &b| self.loads.compare(fleet, a, b, now));
        least.is_some_and(|least| {
            let weight = |id| u64::from(self.loads.weight(fleet, id));
            let fair = u64::from(self.loads.turns(least, now)) * weight(endpoint) / weight(least).max(1);
            u64::from(turns) > 2 * fair + u64::from(self.affinity_turns_max)
        })
    }

    /// The less busy of two that are drawn, of those that can take the turn. The one where it was expected needs no drawing.
    fn draw(&mut self, fleet: &Fleet, wish: &Wish<'_>, now: Now) -> Result<Pick, Unpicked> {
        let found = self.look(fleet, wish, now);
        let free = match (&*found.free, &*found.spare, found.due) {
            ([], [], Some(endpoint)) => return Ok(Pick { endpoint, reason: PickReason::Trial, is_trial: true }),
            ([], [], None) => return self.last_resort(&found, wish, now),
            ([], spare, _) => spare,
            (free, _, _) => free,
        };
        let chance = self.chance.next_u64();
        if let [endpoint] = free {
            return Ok(Pick { endpoint: *endpoint, reason: PickReason::Only, is_trial: false });
        }
        let planned = wish.planned.and_then(|planned| free.iter().position(|id| *id == planned));
        let first = planned.unwrap_or(below(chance, free.len()));
        let second = (first + 1 + below(chance.rotate_left(32), free.len() - 1)) % free.len();
        let endpoint = match (free.get(first), free.get(second)) {
            (Some(first), Some(second)) if self.loads.compare(fleet, *second, *first, now).is_lt() => *second,
            (Some(first), _) => *first,
            (None, _) => return Err(Unpicked::Out),
        };
        Ok(Pick { endpoint, reason: PickReason::LeastLoaded, is_trial: false })
    }

    /// One that is out is better than none, and has no more places than one that is well.
    fn last_resort(&self, found: &Found, wish: &Wish<'_>, now: Now) -> Result<Pick, Unpicked> {
        match found.out {
            _ if found.full > 0 => Err(Unpicked::Full),
            Some((_, endpoint)) if wish.is_last => {
                // It may be well, and only without this model or at its limit.
                let is_trial = self.health.standing(endpoint, now) != Standing::In;
                Ok(Pick { endpoint, reason: PickReason::LastResort, is_trial })
            }
            None if wish.is_last && found.out_full > 0 => Err(Unpicked::Full),
            Some(_) | None => Err(Unpicked::Out),
        }
    }

    fn look(&self, fleet: &Fleet, wish: &Wish<'_>, now: Now) -> Found {
        let mut found = Found { free: Vec::with_capacity(fleet.endpoints.len()), ..Found::default() };
        for (id, seat) in self.seats(fleet, wish, now) {
            match seat {
                Seat::Free => found.free.push(id),
                Seat::Spare => found.spare.push(id),
                Seat::Full => found.full += 1,
                Seat::Due => found.due = found.due.or(Some(id)),
                Seat::Out(until_ns) => {
                    found.out = Some(found.out.map_or((until_ns, id), |out| out.min((until_ns, id))))
                }
                Seat::OutFull => found.out_full += 1,
            }
        }
        found
    }

    /// The endpoints of the wish's tier that get turns and that it has not tried, in the config's order.
    fn seats(&self, fleet: &Fleet, wish: &Wish<'_>, now: Now) -> impl Iterator<Item = (EndpointId, Seat)> {
        let untried = fleet.tier(wish.tier).filter(|(id, endpoint)| self.may_be(wish, *id, endpoint));
        untried.map(move |(id, endpoint)| {
            let is_full = self.loads.is_full(id, endpoint.share);
            let seat = match (self.health.standing(id, now), self.asides.until(id, wish.model, now)) {
                (Standing::Out { .. }, _) | (Standing::In | Standing::Due, Some(_)) if is_full => Seat::OutFull,
                (Standing::Out { until_ns }, _) | (Standing::In | Standing::Due, Some(until_ns)) => Seat::Out(until_ns),
                (Standing::In | Standing::Due, None) if is_full => Seat::Full,
                (Standing::Due, None) => Seat::Due,
                (Standing::In, None) if self.is_spare(id) => Seat::Spare,
                (Standing::In, None) => Seat::Free,
            };
            (id, seat)
        })
    }
}

/// A number below `n`, of the lower half of what was drawn.
fn below(chance: u64, n: usize) -> usize {
    (((chance & 0xffff_ffff) * n as u64) >> 32) as usize
}

#[cfg(test)]
mod tests;
