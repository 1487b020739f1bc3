//! Other fleets while turns run and wait: what is retired, added or moved, and that nothing is left behind, whatever happens in between.

use super::whole::{fleet, latency, served, slots, ticket};
use super::{Dice, at_ms};
use crate::admission::limit::Limits;
use crate::admission::{Admission, Asked, Ending, GoesOn, Grant, Place, Queueing, Settings, Ticket};
use crate::error::ErrorKind;
use crate::fleet::{Endpoint, EndpointId, Fleet, Route, Tier};
use crate::router::{Duty, Keys, Order, PickReason, Routing, SessionKey, Verdict};
use std::sync::Arc;

const WAFER: EndpointId = EndpointId(0);
const GPU: EndpointId = EndpointId(1);
const THIRD: EndpointId = EndpointId(2);

fn granted(asked: &Asked) -> Grant {
    let Asked::Granted(grant, _) = asked else { panic!("{asked:?}") };
    *grant
}

fn queued(asked: &Asked) -> Place {
    let Asked::Queued(place) = asked else { panic!("{asked:?}") };
    *place
}

fn refused(asked: &Asked) -> ErrorKind {
    let Asked::Refused(refusal, _) = asked else { panic!("{asked:?}") };
    refusal.kind
}

/// The fleet, changed.
fn with(route: Route, change: impl FnOnce(&mut Fleet)) -> Arc<Fleet> {
    let mut fleet = Arc::unwrap_or_clone(fleet(route));
    change(&mut fleet);
    Arc::new(fleet)
}

fn push(fleet: &mut Fleet, tier: Tier) {
    let endpoint = Endpoint { tier, retired: false, ..fleet.endpoints[0].clone() };
    fleet.endpoints.push(endpoint);
}

fn adopt(admission: &mut Admission, fleet: Arc<Fleet>, ms: u64) {
    admission.adopt_fleet(fleet, &Routing::default(), at_ms(ms));
}

fn woken(admission: &mut Admission) -> usize {
    std::iter::from_fn(|| admission.poll_woken()).count()
}

#[test]
fn what_runs_at_a_retired_endpoint_runs_on_and_the_next_turn_goes_elsewhere() {
    let mut admission = Admission::new(&Settings::default(), fleet(Route::LatencyOnly), [0; 32]);
    let before = granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    assert_eq!(before.endpoint(), WAFER);
    let moved = with(Route::LatencyOnly, |fleet| {
        fleet.endpoints[0].retired = true;
        push(fleet, Tier::Latency);
    });
    adopt(&mut admission, moved, 1);
    assert!(admission.is_in_use(WAFER));
    let after = granted(&admission.ask(ticket(1, 2, 100), at_ms(2)));
    assert_eq!(after.endpoint(), THIRD);
    admission.release(before, &served(100), at_ms(3));
    assert!(!admission.is_in_use(WAFER) && admission.is_in_use(THIRD));
    // It was served well there, and would be again.
    let again = granted(&admission.ask(ticket(1, 1, 100), at_ms(4)));
    assert_eq!((again.endpoint(), again.decision.pick), (THIRD, PickReason::Only));
    for grant in [after, again] {
        admission.release(grant, &served(100), at_ms(5));
    }
    assert_eq!(admission.standing(Tier::Latency).in_flight, 0);
}

#[test]
fn a_conversation_is_not_sent_to_who_has_the_id_of_a_retired_endpoint() {
    let two = |fleet: &mut Fleet| push(fleet, Tier::Latency);
    let mut admission = Admission::new(&Settings::default(), with(Route::LatencyOnly, two), [1; 32]);
    // Of many conversations, some are at each of the two.
    for session in 0..64 {
        let grant = granted(&admission.ask(ticket(1, session, 100), at_ms(session)));
        admission.release(grant, &served(100), at_ms(session));
    }
    let is_known = |admission: &mut Admission, session| {
        let grant = granted(&admission.ask(ticket(1, session, 100), at_ms(100)));
        admission.release(grant, &Ending::NOTHING, at_ms(100));
        (grant.decision.pick == PickReason::Affinity).then_some(grant.endpoint())
    };
    let at: Vec<_> = (0..64).map(|session| is_known(&mut admission, session)).collect();
    assert!(at.contains(&Some(WAFER)) && at.contains(&Some(THIRD)));
    let retired = with(Route::LatencyOnly, |fleet| {
        two(fleet);
        fleet.endpoints[0].retired = true;
    });
    adopt(&mut admission, retired, 100);
    // Another endpoint, in the same place.
    adopt(&mut admission, with(Route::LatencyOnly, two), 100);
    for (session, at) in (0..64).zip(at) {
        let expected = at.filter(|at| *at != WAFER);
        assert_eq!(is_known(&mut admission, session), expected, "only who stays is known");
    }
}

#[test]
fn what_was_learned_of_an_endpoint_holds_for_as_long_as_it_stays() {
    let mut admission = Admission::new(&Settings::default(), fleet(Route::LatencyFirst), [0; 32]);
    let failed = Ending { verdict: Verdict::Failed, ..Ending::NOTHING };
    for session in 0..5 {
        let grant = granted(&admission.ask(ticket(1, session, 100), at_ms(0)));
        admission.release(grant, &failed, at_ms(0));
    }
    let tier = |admission: &mut Admission| {
        let grant = granted(&admission.ask(ticket(1, 9, 100), at_ms(1)));
        admission.release(grant, &Ending::NOTHING, at_ms(1));
        grant.tier()
    };
    assert_eq!(tier(&mut admission), Tier::Throughput, "it is out");
    adopt(&mut admission, with(Route::LatencyFirst, |fleet| push(fleet, Tier::Throughput)), 1);
    assert_eq!(tier(&mut admission), Tier::Throughput, "and still is, beside a new one");
    adopt(&mut admission, with(Route::LatencyFirst, |fleet| fleet.endpoints[0].retired = true), 1);
    adopt(&mut admission, fleet(Route::LatencyFirst), 1);
    assert_eq!(tier(&mut admission), Tier::Latency, "who comes after it is well");
}

#[test]
fn an_operators_order_holds_for_the_endpoint_of_that_name() {
    let mut admission = Admission::new(&Settings::default(), fleet(Route::LatencyFirst), [0; 32]);
    let cordoned = Order { duty: Duty::Cordoned, weight: Some(7), migrate: false };
    admission.obey(WAFER, cordoned, at_ms(0));
    let changed = with(Route::LatencyFirst, |fleet| {
        fleet.endpoints[0].retired = true;
        push(fleet, Tier::Latency);
    });
    adopt(&mut admission, changed, 1);
    assert_eq!(granted(&admission.ask(ticket(1, 1, 100), at_ms(1))).tier(), Tier::Throughput);
    // Another one, by another name, in its place.
    let other = with(Route::LatencyFirst, |fleet| {
        fleet.endpoints[0].name = "other".into();
        push(fleet, Tier::Latency);
    });
    adopt(&mut admission, other, 2);
    assert_eq!(granted(&admission.ask(ticket(1, 2, 100), at_ms(2))).endpoint(), WAFER);
}

#[test]
fn who_waits_for_a_model_that_is_gone_is_refused_at_once() {
    let settings = latency(slots(1), Limits::default());
    let mut admission = Admission::new(&settings, fleet(Route::LatencyOnly), [0; 32]);
    let running = granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    let place = queued(&admission.ask(ticket(1, 2, 100), at_ms(0)));
    adopt(&mut admission, with(Route::LatencyOnly, |fleet| fleet.models.clear()), 1);
    assert_eq!(admission.poll_woken(), Some(place.waiter));
    assert_eq!(refused(&admission.look(place.waiter, at_ms(1))), ErrorKind::ModelNotFound);
    admission.release(running, &served(100), at_ms(2));
    assert_eq!(admission.standing(Tier::Latency).queued, 0);
    assert!(admission.waiters.is_empty() && admission.granted.is_empty());
}

#[test]
fn who_waits_for_a_tier_that_does_not_serve_the_model_any_more_goes_to_the_other() {
    let settings = latency(slots(1), Limits::default());
    let mut admission = Admission::new(&settings, fleet(Route::LatencyOnly), [0; 32]);
    let running = granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    let place = queued(&admission.ask(ticket(1, 2, 100), at_ms(0)));
    adopt(&mut admission, fleet(Route::ThroughputOnly), 1);
    let moved = granted(&admission.look(place.waiter, at_ms(1)));
    assert_eq!((moved.endpoint(), running.endpoint()), (GPU, WAFER));
    for grant in [running, moved] {
        admission.release(grant, &served(100), at_ms(2));
    }
    let [wafer, gpu] = Tier::ALL.map(|tier| admission.standing(tier));
    assert_eq!((wafer.queued, wafer.in_flight, gpu.in_flight), (0, 0, 0));
}

#[test]
fn who_goes_on_with_what_one_tier_has_begun_is_never_sent_to_another_tiers_model() {
    let settings = latency(slots(1), Limits::default());
    let mut admission = Admission::new(&settings, fleet(Route::LatencyOnly), [0; 32]);
    let running = granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    let goes_on = Some(GoesOn { tier: Some(Tier::Latency), by_prefill: false, is_ordered: false });
    let ticket = Ticket { goes_on, ..ticket(1, 2, 100) };
    let place = queued(&admission.ask(ticket.clone(), at_ms(0)));
    adopt(&mut admission, fleet(Route::ThroughputOnly), 1);
    assert_eq!(refused(&admission.look(place.waiter, at_ms(1))), ErrorKind::Overloaded);
    assert_eq!(refused(&admission.ask(ticket, at_ms(1))), ErrorKind::Overloaded);
    admission.release(running, &served(100), at_ms(2));
    let standings = Tier::ALL.map(|tier| admission.standing(tier)).map(|it| (it.queued, it.in_flight));
    assert_eq!(standings, [(0, 0); 2]);
}

#[test]
fn an_operators_wish_is_no_retry() {
    let mut two = Arc::unwrap_or_clone(fleet(Route::LatencyOnly));
    push(&mut two, Tier::Latency);
    let mut routing = Routing::default();
    (routing.retry_percent_max, routing.retries_per_second_max) = (0, 0);
    let settings = Settings { routing, ..Settings::default() };
    let mut admission = Admission::new(&settings, Arc::new(two), [0; 32]);
    for (is_ordered, is_granted) in [(true, true), (false, false)] {
        let goes_on = Some(GoesOn { tier: None, by_prefill: false, is_ordered });
        let ticket = Ticket { goes_on, tried: vec![WAFER], ..ticket(1, 1, 100) };
        let asked = admission.ask(ticket, at_ms(0));
        assert_eq!(matches!(asked, Asked::Granted(..)), is_granted, "{asked:?}");
    }
}

#[test]
fn who_waits_and_may_be_served_there_still_keeps_place_and_deadline() {
    let settings = latency(slots(1), Limits::default());
    let mut admission = Admission::new(&settings, fleet(Route::LatencyOnly), [0; 32]);
    let running = granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    let [first, second] = [2, 3].map(|session| queued(&admission.ask(ticket(1, session, 100), at_ms(0))));
    for ms in 1..100 {
        adopt(&mut admission, with(Route::LatencyFirst, |fleet| push(fleet, Tier::Latency)), ms);
        assert_eq!(woken(&mut admission), 2);
    }
    let places = [first, second].map(|place| queued(&admission.look(place.waiter, at_ms(100))));
    assert_eq!(places.map(|place| (place.number, place.look_ns)), [(1, first.look_ns), (2, first.look_ns)]);
    admission.release(running, &served(100), at_ms(101));
    let next = granted(&admission.look(first.waiter, at_ms(101)));
    let spilled = granted(&admission.look(second.waiter, at_ms(2_000)));
    assert_eq!(spilled.tier(), Tier::Throughput, "the plan has another tier by now");
    admission.forget(first.waiter, at_ms(2_000));
    for grant in [next, spilled] {
        admission.release(grant, &served(100), at_ms(2_001));
    }
    assert!(admission.waiters.is_empty() && admission.granted.is_empty());
}

#[test]
fn a_prompt_is_read_no_further_where_its_turn_will_not_go() {
    let queue = Queueing { prefill_on_warm_up: true, ..Queueing::default() };
    let mut admission = Admission::new(&latency(queue, Limits::default()), fleet(Route::LatencyFirst), [0; 32]);
    let prefill = admission.prepare(&super::prefill::warm_up(ticket(1, 1, 100)), at_ms(0)).unwrap().prefill.unwrap();
    assert_eq!(prefill.endpoint, WAFER);
    adopt(&mut admission, with(Route::LatencyFirst, |fleet| fleet.endpoints[0].retired = true), 1);
    assert_eq!(admission.poll_woken(), Some(prefill.id));
    assert!(admission.is_in_use(WAFER), "until it has stopped");
    admission.end_prefill(prefill.id, 0, at_ms(2));
    assert!(!admission.is_in_use(WAFER));
}

/// With few places for what is remembered: the table is searched at each reload.
fn routing() -> Routing {
    Routing { affinity_entries_max: 64, ..Routing::default() }
}

/// What a process's life may be, drawn from a seed: turns of two models and four sessions, and configs that come and go.
struct Life {
    admission: Admission,
    /// As the backends have them: whether a connection table is there for each id.
    fleet: Fleet,
    chance: Dice,
    now_ms: u64,
    running: Vec<Grant>,
    waiting: Vec<Place>,
    retired_max: usize,
}

impl Life {
    fn new(seed: u64) -> Self {
        let queue = Queueing { turns_max: 4, ..slots(3) };
        let mut fleet = Arc::unwrap_or_clone(fleet(Route::LatencyFirst));
        let second = crate::fleet::Model { name: "n".into(), route: Route::ThroughputFirst, ..fleet.models[0].clone() };
        fleet.models.push(second);
        let settings = Settings { routing: routing(), ..latency(queue, Limits::default()) };
        let admission = Admission::new(&settings, Arc::new(fleet.clone()), [7; 32]);
        let chance = Dice(seed);
        Self { admission, fleet, chance, now_ms: 1_000, running: Vec::new(), waiting: Vec::new(), retired_max: 0 }
    }

    fn draw(&mut self, below: u32) -> u32 {
        self.chance.below(u64::from(below)) as u32
    }

    fn take(&mut self, asked: Asked) {
        match asked {
            Asked::Granted(grant, _) => self.running.push(grant),
            Asked::Queued(place) => self.waiting.push(place),
            Asked::Refused(refusal, _) => assert!(
                matches!(refusal.kind, ErrorKind::RateLimited | ErrorKind::ModelNotFound | ErrorKind::Overloaded),
                "{refusal}"
            ),
        }
    }

    fn ask(&mut self) {
        let model = if self.draw(2) == 0 { "m" } else { "n" };
        let session = u64::from(self.draw(4));
        let mut ticket = Ticket { model: model.into(), ..ticket(1 + (session as u8 % 2), session, 100) };
        ticket.traits.keys = Keys { thread: None, session: Some(SessionKey(session << 40)) };
        // A hint of any age, and a failure before.
        let stale = self.draw(self.fleet.endpoints.len() as u32 + 2) as u16;
        ticket.prefer = (self.draw(3) == 0).then_some(EndpointId(stale));
        ticket.tried = if self.draw(6) == 0 { vec![EndpointId(stale)] } else { Vec::new() };
        let asked = self.admission.ask(ticket, at_ms(self.now_ms));
        if let Asked::Granted(grant, _) = &asked {
            assert!(self.fleet.live(grant.endpoint()).is_some(), "nobody is let in where all are to leave");
        }
        self.take(asked);
    }

    /// Another config: an endpoint more, less, or in another tier; a model that is there or not. A slot is another's only when nothing is in
    /// it, and its leaving was adopted before.
    fn reload(&mut self) {
        let free = (0..self.fleet.endpoints.len()).find(|&id| {
            let id = EndpointId(id as u16);
            self.fleet.live(id).is_none() && !self.admission.is_in_use(id)
        });
        let tier = Tier::ALL[self.draw(2) as usize];
        match (self.draw(4), free) {
            (0, Some(id)) => {
                self.fleet.endpoints[id] = Endpoint { tier, retired: false, ..self.fleet.endpoints[id].clone() }
            }
            (0, None) => push(&mut self.fleet, tier),
            (1, _) => {
                let id = self.draw(self.fleet.endpoints.len() as u32) as usize;
                self.fleet.endpoints[id].retired = true;
            }
            (2, _) if self.fleet.models.len() == 2 => drop(self.fleet.models.pop()),
            (2, _) => {
                let model = crate::fleet::Model { name: "n".into(), ..self.fleet.models[0].clone() };
                self.fleet.models.push(model);
            }
            _ => {
                let routes = [Route::LatencyFirst, Route::ThroughputOnly, Route::LatencyOnly, Route::ThroughputFirst];
                self.fleet.models[0].route = routes[self.draw(4) as usize];
            }
        }
        let retired = self.fleet.endpoints.iter().filter(|endpoint| endpoint.retired).count();
        self.retired_max = self.retired_max.max(retired);
        let fleet = Arc::new(self.fleet.clone());
        self.admission.adopt_fleet(fleet, &routing(), at_ms(self.now_ms));
    }

    fn end(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let index = self.draw(self.running.len() as u32) as usize;
        let grant = self.running.swap_remove(index);
        let ending = match self.draw(4) {
            0 => Ending { verdict: Verdict::Failed, ..Ending::NOTHING },
            1 => Ending::NOTHING,
            _ => served(100),
        };
        self.admission.release(grant, &ending, at_ms(self.now_ms));
    }

    /// Looks as drivers do: where they are woken, and where it is time.
    fn settle(&mut self) {
        for _ in 0..200 {
            let now = at_ms(self.now_ms);
            let due = self.waiting.iter().find(|place| place.look_ns <= now.mono_ns).map(|place| place.waiter);
            let Some(id) = self.admission.poll_woken().or(due) else { return };
            let Some(index) = self.waiting.iter().position(|place| place.waiter == id) else { continue };
            self.waiting.swap_remove(index);
            let asked = self.admission.look(id, now);
            self.take(asked);
        }
        panic!("it never comes to rest");
    }

    fn step(&mut self) {
        match self.draw(8) {
            0..3 => self.ask(),
            3..5 => self.end(),
            5 if !self.waiting.is_empty() => {
                let place = self.waiting.swap_remove(0);
                self.admission.forget(place.waiter, at_ms(self.now_ms));
            }
            6 => self.now_ms += u64::from(self.draw(700)),
            _ => self.reload(),
        }
        self.settle();
    }

    fn check(&self) {
        let standings = Tier::ALL.map(|tier| self.admission.standing(tier));
        let queued: u32 = standings.iter().map(|standing| standing.queued).sum();
        let in_flight: u32 = standings.iter().map(|standing| standing.in_flight).sum();
        assert_eq!((queued as usize, in_flight as usize), (self.waiting.len(), self.running.len()));
        for id in (0..self.fleet.endpoints.len() as u16).map(EndpointId) {
            let running = self.running.iter().filter(|grant| grant.endpoint() == id).count();
            assert_eq!(self.admission.in_flight(id) as usize, running);
        }
    }
}

#[test]
fn no_turn_is_lost_and_no_slot_stays_taken_whatever_is_reloaded_when() {
    let mut retired_max = 0;
    for seed in 0..200 {
        let mut life = Life::new(seed);
        for _ in 0..150 {
            life.step();
            life.check();
        }
        while let Some(place) = life.waiting.pop() {
            life.admission.forget(place.waiter, at_ms(life.now_ms));
            life.settle();
        }
        while !life.running.is_empty() {
            life.end();
            life.settle();
            life.check();
        }
        let ids = (0..life.fleet.endpoints.len() as u16).map(EndpointId);
        assert!(ids.into_iter().all(|id| !life.admission.is_in_use(id)), "seed {seed}");
        assert!(life.admission.waiters.is_empty() && life.admission.granted.is_empty(), "seed {seed}");
        assert!(Tier::ALL.iter().all(|tier| life.admission.standing(*tier).tokens_reserved == 0));
        retired_max = retired_max.max(life.retired_max);
    }
    assert!(retired_max >= 3, "the scripts retire endpoints");
}
