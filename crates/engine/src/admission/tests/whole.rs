//! The machine as a whole: who is let in, told to wait, sent on or refused, and that nothing is left behind.

use super::{at_ms, owner, scripts};
use crate::admission::limit::Limits;
use crate::admission::{
    Admission, Asked, Ending, Grant, KeyLimits, OwnLimits, PerTier, Place, Queueing, Settings, Terms, Ticket, Unfit,
    WaiterId, Why,
};
use crate::error::{ErrorKind, Refusal};
use crate::fleet::{Endpoint, EndpointId, Fleet, Model, Route, Speaks, Tier};
use crate::router::{Attempt, Duty, Keys, Order, SessionKey, Standing, Traits, Verdict};
use std::num::NonZeroU32;
use std::sync::Arc;

pub fn fleet(route: Route) -> Arc<Fleet> {
    let model = Model { context_tokens_max: 1_000_000, route, ..Model::named("m") };
    let endpoints = vec![Endpoint::named("wafer", Tier::Latency), Endpoint::named("gpu", Tier::Throughput)];
    Arc::new(Fleet { endpoints, models: vec![model], ..Fleet::default() })
}

/// A latency tier of so many slots, none of which adapts.
pub fn slots(slots: u32) -> Queueing {
    let slots = NonZeroU32::new(slots);
    Queueing { concurrency_max: slots, concurrency_min: slots.unwrap(), ..Queueing::default() }
}

pub fn latency(queue: Queueing, limits: Limits) -> Settings {
    Settings {
        queue: PerTier { latency: queue, ..PerTier::default() },
        limits: PerTier { latency: limits, ..PerTier::default() },
        ..Settings::default()
    }
}

pub fn ticket(key: u8, session: u64, tokens: u64) -> Ticket {
    let keys = Keys { thread: None, session: Some(SessionKey(session)) };
    let traits = Traits {
        owner: owner(key),
        keys,
        tokens_input: tokens / 2,
        tokens_output_max: Some(tokens / 2),
        ..Traits::default()
    };
    Ticket { model: "m".into(), traits, tried: Vec::new(), prefer: None, planned: None, goes_on: None }
}

/// It took what it was thought to.
pub fn served(tokens: u64) -> Ending {
    let verdict = Verdict::Served { ttft_ns: Some(1_000_000) };
    Ending { verdict, tokens_input: tokens / 2, tokens_output: tokens / 2 }
}

fn granted(asked: &Asked) -> Grant {
    match asked {
        Asked::Granted(grant, _) => *grant,
        Asked::Queued(_) | Asked::Refused(..) => panic!("{asked:?}"),
    }
}

fn queued(asked: &Asked) -> Place {
    match asked {
        Asked::Queued(place) => *place,
        Asked::Granted(..) | Asked::Refused(..) => panic!("{asked:?}"),
    }
}

fn refused(asked: Asked) -> Refusal {
    match asked {
        Asked::Refused(refusal, _) => refusal,
        Asked::Granted(..) | Asked::Queued(_) => panic!("{asked:?}"),
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(u8),
    EndFirst,
    FailLast,
    Forget,
    Pass(u64),
    /// So many slots from here on.
    Adopt(u32),
    Order(Tier, Duty),
}

fn endpoint_of(tier: Tier) -> EndpointId {
    EndpointId(match tier {
        Tier::Latency => 0,
        Tier::Throughput => 1,
    })
}

struct Peer {
    admission: Admission,
    now_ms: u64,
    running: Vec<Grant>,
    waiting: Vec<Place>,
    /// The most slots that there ever were, in each tier that counts them.
    slots_max: u32,
}

impl Peer {
    fn new(settings: &Settings, route: Route) -> Self {
        let admission = Admission::new(settings, fleet(route), [3; 32]);
        let slots_max = settings.queue.latency.concurrency_max.map_or(0, NonZeroU32::get);
        Self { admission, now_ms: 1_000, running: Vec::new(), waiting: Vec::new(), slots_max }
    }

    fn take(&mut self, asked: Asked) {
        match asked {
            Asked::Granted(grant, _) => {
                assert!(self.takes_turns(grant.tier()), "{grant:?}");
                self.running.push(grant);
            }
            Asked::Queued(place) => {
                assert!(self.takes_turns(place.tier), "nobody waits where nothing will come: {place:?}");
                self.waiting.push(place);
            }
            Asked::Refused(refusal, _) if refusal.kind == ErrorKind::Overloaded => {
                assert!(!self.takes_turns(Tier::Latency), "{refusal}");
            }
            Asked::Refused(refusal, _) => {
                assert_eq!(refusal.kind, ErrorKind::RateLimited, "{refusal}");
                assert!(refusal.retry_after_ms.is_some_and(|ms| ms > 0));
            }
        }
    }

    /// Of each tier there is one endpoint.
    fn takes_turns(&self, tier: Tier) -> bool {
        self.admission.order(endpoint_of(tier)).duty.takes_turns()
    }

    fn look(&mut self, id: WaiterId) {
        let now = at_ms(self.now_ms);
        self.waiting.retain(|place| place.waiter != id);
        let asked = self.admission.look(id, now);
        if let Asked::Queued(place) = &asked {
            assert!(place.look_ns > now.mono_ns, "who is told to look again is told a time to come");
        }
        self.take(asked);
    }

    fn apply(&mut self, step: Step) {
        let now = at_ms(self.now_ms);
        match step {
            Step::Ask(key) => {
                let asked = self.admission.ask(ticket(key, u64::from(key), 100), now);
                self.take(asked);
            }
            Step::EndFirst if !self.running.is_empty() => {
                let grant = self.running.remove(0);
                self.admission.release(grant, &served(100), now);
            }
            Step::FailLast => {
                if let Some(grant) = self.running.pop() {
                    self.admission.release(grant, &Ending::NOTHING, now);
                }
            }
            Step::Forget if !self.waiting.is_empty() => {
                let place = self.waiting.remove(0);
                self.admission.forget(place.waiter, now);
            }
            Step::Pass(ms) => self.now_ms += ms,
            Step::Adopt(count) => {
                let queue = Queueing { turns_max: count, ..slots(count) };
                self.admission.adopt(Tier::Latency, Terms { queue, ..Terms::default() }, now);
                self.slots_max = self.slots_max.max(count);
            }
            Step::Order(tier, duty) => {
                self.admission.obey(endpoint_of(tier), Order { duty, weight: None, migrate: false }, now)
            }
            Step::EndFirst | Step::Forget => {}
        }
        self.settle();
    }

    /// Looks as drivers do: where they are woken, and where it is time.
    fn settle(&mut self) {
        for _ in 0..100 {
            let due = self.waiting.iter().find(|place| place.look_ns <= at_ms(self.now_ms).mono_ns);
            let due = due.map(|place| place.waiter);
            match self.admission.poll_woken().or(due) {
                Some(id) if self.waiting.iter().any(|place| place.waiter == id) => self.look(id),
                Some(_) => {}
                None => return,
            }
        }
        panic!("it never comes to rest");
    }

    fn check(&mut self) {
        assert!(self.waiting.iter().all(|place| self.takes_turns(place.tier)));
        let (queued, running) = Tier::ALL.map(|tier| self.admission.standing(tier)).iter().fold((0, 0), |sum, tier| {
            assert!(tier.slots.is_none() || tier.in_flight <= self.slots_max, "{tier:?}");
            (sum.0 + tier.queued as usize, sum.1 + tier.in_flight as usize)
        });
        assert_eq!((queued, running), (self.waiting.len(), self.running.len()));
    }

    fn end(mut self) {
        while !self.waiting.is_empty() || !self.running.is_empty() {
            self.apply(if self.waiting.len() % 2 == 1 { Step::Forget } else { Step::EndFirst });
            if self.running.is_empty() {
                self.apply(Step::Pass(5_000));
            }
            self.check();
        }
        for tier in Tier::ALL {
            let standing = self.admission.standing(tier);
            assert_eq!((standing.queued, standing.in_flight, standing.tokens_reserved), (0, 0, 0));
        }
        assert!(self.admission.waiters.is_empty() && self.admission.granted.is_empty());
    }
}

#[test]
fn no_short_script_loses_a_turn_or_runs_one_too_many() {
    let steps = [Step::Ask(1), Step::Ask(2), Step::EndFirst, Step::FailLast, Step::Forget, Step::Pass(2_500)];
    let limits = Limits { tokens_per_minute: NonZeroU32::new(6_000), burst_ms: 3_000, ..Limits::default() };
    let queue = Queueing { turns_max: 2, ..slots(2) };
    let settings = [
        (latency(queue.clone(), Limits::default()), Route::LatencyOnly),
        (latency(queue.clone(), limits), Route::LatencyOnly),
        (latency(queue, limits), Route::LatencyFirst),
    ];
    for (settings, route) in settings {
        scripts(&steps, 5, |script| {
            let mut peer = Peer::new(&settings, route);
            for step in script {
                peer.apply(*step);
                peer.check();
            }
            peer.end();
        });
    }
}

#[test]
fn no_change_of_slots_at_any_time_loses_a_turn() {
    let steps = [Step::Ask(1), Step::Ask(2), Step::EndFirst, Step::Adopt(1), Step::Adopt(3), Step::Pass(2_500)];
    let bounded = latency(Queueing { turns_max: 2, ..slots(2) }, Limits::default());
    for (settings, route) in
        [(&bounded, Route::LatencyOnly), (&bounded, Route::LatencyFirst), (&Settings::default(), Route::LatencyFirst)]
    {
        scripts(&steps, 4, |script| {
            let mut peer = Peer::new(settings, route);
            // With nothing counted, all are let in.
            peer.slots_max = 4;
            for step in script {
                peer.apply(*step);
                peer.check();
            }
            peer.end();
        });
    }
}

#[test]
fn no_order_at_any_time_loses_a_turn_or_leaves_one_waiting_where_nothing_will_come() {
    let order = Step::Order;
    let steps = [
        Step::Ask(1),
        Step::Ask(2),
        Step::EndFirst,
        Step::Pass(2_500),
        order(Tier::Latency, Duty::Cordoned),
        order(Tier::Latency, Duty::Active),
        order(Tier::Throughput, Duty::Draining),
        order(Tier::Throughput, Duty::Active),
    ];
    let both = PerTier { latency: slots(1), throughput: slots(1) };
    let settings = Settings { queue: both, ..Settings::default() };
    for route in [Route::LatencyOnly, Route::LatencyFirst] {
        scripts(&steps, 4, |script| {
            let mut peer = Peer::new(&settings, route);
            // Before each script: one runs, and one waits.
            for step in [Step::Ask(1), Step::Ask(3)].iter().chain(script) {
                peer.apply(*step);
                peer.check();
            }
            for (tier, endpoint) in Tier::ALL.map(|tier| (tier, endpoint_of(tier))) {
                let is_idle = peer.running.iter().all(|grant| grant.tier() != tier);
                let is_draining = peer.admission.order(endpoint).duty == Duty::Draining;
                assert_eq!(peer.admission.is_drained(endpoint), is_idle && is_draining);
            }
            peer.end();
        });
    }
}

#[test]
fn who_waits_goes_elsewhere_when_the_last_endpoint_is_cordoned_and_comes_in_when_it_is_back() {
    let cordoned = Order { duty: Duty::Cordoned, weight: None, migrate: false };
    let both = PerTier { latency: slots(1), throughput: slots(1) };
    let settings = Settings { queue: both, ..Settings::default() };
    let mut admission = Admission::new(&settings, fleet(Route::LatencyFirst), [0; 32]);
    let running = granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    let [second, third] = [2, 3].map(|session| queued(&admission.ask(ticket(1, session, 100), at_ms(0))));
    admission.obey(EndpointId(0), cordoned, at_ms(10));
    assert_eq!(admission.poll_woken(), Some(second.waiter));
    let spilled = granted(&admission.look(second.waiter, at_ms(10)));
    assert_eq!((spilled.tier(), spilled.decision.attempt), (Tier::Throughput, Attempt::Spill));
    assert_eq!(queued(&admission.look(third.waiter, at_ms(10))).tier, Tier::Throughput);
    assert_eq!(admission.in_flight(EndpointId(0)), 1, "what runs, runs on");
    admission.obey(EndpointId(1), Order { duty: Duty::Draining, weight: None, migrate: false }, at_ms(20));
    let refusal = refused(admission.look(third.waiter, at_ms(20)));
    assert_eq!((refusal.kind, refusal.retry_after_ms), (ErrorKind::Overloaded, Some(1000)));
    assert_eq!(refused(admission.ask(ticket(1, 4, 100), at_ms(20))).kind, ErrorKind::Overloaded);
    assert_eq!(admission.standing(Tier::Latency).refused[Why::NoEndpoint.index()], 2);
    assert!(!admission.is_drained(EndpointId(1)));
    admission.release(spilled, &served(100), at_ms(30));
    assert!(admission.is_drained(EndpointId(1)) && !admission.is_drained(EndpointId(0)));
    admission.obey(EndpointId(0), Order::default(), at_ms(40));
    let waiting = queued(&admission.ask(ticket(1, 5, 100), at_ms(40)));
    admission.release(running, &served(100), at_ms(50));
    granted(&admission.look(waiting.waiter, at_ms(50)));
}

#[test]
fn turns_wait_for_a_place_at_endpoints_that_are_all_out_and_full() {
    for route in [Route::LatencyOnly, Route::LatencyFirst] {
        let mut fleet = Arc::unwrap_or_clone(fleet(route));
        fleet.endpoints[0].share.concurrency_max = Some(2);
        // The other tier has no endpoint that it could go to.
        fleet.endpoints[1].speaks = Speaks::Responses;
        let mut admission = Admission::new(&Settings::default(), Arc::new(fleet), [0; 32]);
        let chat = |session| {
            let ticket = ticket(1, session, 100);
            Ticket { traits: Traits { is_chat: true, ..ticket.traits }, ..ticket }
        };
        let [first, second] = [1, 2].map(|session| granted(&admission.ask(chat(session), at_ms(0))));
        let at_its_limit = Ending { verdict: Verdict::Refused { wait_ms: Some(60_000) }, ..Ending::NOTHING };
        admission.release(first, &at_its_limit, at_ms(1));
        let third = granted(&admission.ask(chat(3), at_ms(2)));
        let waiting = [4, 5, 6].map(|session| queued(&admission.ask(chat(session), at_ms(2))));
        assert_eq!(admission.in_flight(EndpointId(0)), 2);
        for (running, next) in [second, third].into_iter().zip(waiting) {
            admission.release(running, &at_its_limit, at_ms(3));
            granted(&admission.look(next.waiter, at_ms(3)));
            assert_eq!(admission.in_flight(EndpointId(0)), 2);
        }
        let in_vain = admission.look(waiting[2].waiter, at_ms(1 + waiting[2].look_ns / 1_000_000));
        assert_eq!(refused(in_vain).kind, ErrorKind::RateLimited, "{route:?}");
        assert!(admission.waiters.is_empty());
    }
}

#[test]
fn a_spill_is_a_turn_that_another_tier_took_whatever_kept_the_first() {
    let mut admission = Admission::new(&Settings::default(), fleet(Route::LatencyFirst), [0; 32]);
    let failed = Ending { verdict: Verdict::Failed, ..Ending::NOTHING };
    let mut session = 0;
    while admission.seen(EndpointId(0), at_ms(0)).standing == Standing::In {
        session += 1;
        let grant = granted(&admission.ask(ticket(1, session, 100), at_ms(0)));
        admission.release(grant, &failed, at_ms(0));
    }
    assert_eq!(admission.standing(Tier::Latency).spilled, 0);
    let grant = granted(&admission.ask(ticket(1, 0, 100), at_ms(1)));
    assert_eq!((grant.tier(), grant.decision.attempt), (Tier::Throughput, Attempt::Spill), "no endpoint is well");
    assert_eq!(admission.standing(Tier::Latency).spilled, 1);

    // Both are full: it is refused, and no spill.
    let queue = Queueing { turns_max: 0, ..slots(1) };
    let both = PerTier { latency: queue.clone(), throughput: queue };
    let mut admission =
        Admission::new(&Settings { queue: both, ..Settings::default() }, fleet(Route::LatencyFirst), [0; 32]);
    granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    granted(&admission.ask(ticket(1, 2, 100), at_ms(0)));
    refused(admission.ask(ticket(1, 3, 100), at_ms(0)));
    assert_eq!(Tier::ALL.map(|tier| admission.standing(tier).spilled), [1, 0]);
}

#[test]
fn other_terms_hold_at_once_for_those_that_wait() {
    let mut admission = Admission::new(&latency(slots(1), Limits::default()), fleet(Route::LatencyOnly), [0; 32]);
    let running = granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    let [second, third] = [2, 3].map(|session| queued(&admission.ask(ticket(1, session, 100), at_ms(0))));
    let mut terms = admission.terms(Tier::Latency);
    assert_eq!(terms, latency(slots(1), Limits::default()).of(Tier::Latency));
    terms.queue = Queueing { turns_max: 1, wait_ms_max: 3_000, ..slots(3) };
    admission.adopt(Tier::Latency, terms.clone(), at_ms(10));
    assert!(!admission.adopt(Tier::Latency, terms.clone(), at_ms(10)), "what is the same is no change");
    assert_eq!(admission.standing(Tier::Latency).changes, 1);
    let woken: Vec<_> = std::iter::from_fn(|| admission.poll_woken()).collect();
    assert_eq!(woken, [second.waiter, third.waiter], "one is let in, the other learns its new place");
    let grant = granted(&admission.look(second.waiter, at_ms(10)));
    let place = queued(&admission.look(third.waiter, at_ms(10)));
    assert_eq!((place.number, place.look_ns), (1, at_ms(3_000).mono_ns), "since it came");
    refused(admission.ask(ticket(1, 4, 100), at_ms(20)));

    terms.queue = Queueing { turns_max: 0, wait_ms_max: 100, ..slots(1) };
    admission.adopt(Tier::Latency, terms, at_ms(200));
    assert_eq!(admission.standing(Tier::Latency).in_flight, 2, "what runs, runs on");
    assert_eq!(admission.poll_woken(), Some(third.waiter));
    let refusal = refused(admission.look(third.waiter, at_ms(200)));
    assert_eq!(refusal.kind, ErrorKind::RateLimited, "it has waited longer than one may by now");
    for grant in [running, grant] {
        refused(admission.ask(ticket(1, 5, 100), at_ms(300)));
        admission.release(grant, &served(100), at_ms(300));
    }
    granted(&admission.ask(ticket(1, 5, 100), at_ms(300)));
}

#[test]
fn limits_may_come_and_go_while_turns_run() {
    let mut admission = Admission::new(&latency(slots(4), Limits::default()), fleet(Route::LatencyOnly), [0; 32]);
    let before = granted(&admission.ask(ticket(1, 1, 600), at_ms(0)));
    let limits = Limits { tokens_per_minute: NonZeroU32::new(600), ..Limits::default() };
    admission.adopt(Tier::Latency, Terms { limits, queue: slots(4) }, at_ms(0));
    let within = granted(&admission.ask(ticket(1, 2, 600), at_ms(0)));
    assert_eq!(admission.standing(Tier::Latency).tokens_reserved, 600);
    refused(admission.ask(ticket(1, 3, 600), at_ms(0)));
    admission.adopt(Tier::Latency, Terms::default(), at_ms(0));
    let after = granted(&admission.ask(ticket(1, 3, 600), at_ms(0)));
    for grant in [before, within, after] {
        admission.release(grant, &served(600), at_ms(100));
    }
    assert_eq!(admission.standing(Tier::Latency).tokens_reserved, 0);
}

#[test]
fn terms_that_cannot_be_held_to_name_their_field() {
    let with = |queue| Terms { queue, ..Terms::default() };
    let more =
        Queueing { concurrency_max: NonZeroU32::new(4), concurrency_min: NonZeroU32::new(5).unwrap(), ..slots(1) };
    for (terms, unfit) in [
        (with(Queueing { ttft_ms_max: 0, ..Queueing::default() }), "queue.ttft_ms_max"),
        (with(Queueing { background_wait_ms_max: 0, ..Queueing::default() }), "queue.background_wait_ms_max"),
        (with(Queueing { first_token_ms_max: Some(0), ..Queueing::default() }), "queue.first_token_ms_max"),
        (with(Queueing { claimed_percent_max: 101, ..Queueing::default() }), "queue.claimed_percent_max"),
        (with(more), "queue.concurrency_min"),
        (Terms { limits: Limits { burst_ms: 0, ..Limits::default() }, ..Terms::default() }, "limits.burst_ms"),
        (Terms { limits: Limits { keys_max: 0, ..Limits::default() }, ..Terms::default() }, "limits.keys_max"),
    ] {
        assert_eq!(terms.check().map_err(|Unfit { field, .. }| field), Err(unfit));
    }
    let off = Queueing { turns_max: 0, wait_ms_max: 0, claimed_percent_max: 0, ..Queueing::default() };
    assert_eq!(with(off).check(), Ok(()));
}

#[test]
fn a_key_that_fills_the_queue_keeps_nobody_out() {
    for (route, is_last) in [(Route::LatencyOnly, true), (Route::LatencyFirst, false)] {
        let queue = Queueing { turns_max: 3, ..slots(1) };
        let mut admission = Admission::new(&latency(queue, Limits::default()), fleet(route), [0; 32]);
        granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
        let waiting = [2, 3, 4].map(|session| queued(&admission.ask(ticket(1, session, 100), at_ms(0))));
        let place = queued(&admission.ask(ticket(2, 1, 100), at_ms(1)));
        assert_eq!((place.number, admission.poll_woken()), (1, Some(waiting[2].waiter)), "its last one goes");
        match admission.look(waiting[2].waiter, at_ms(1)) {
            Asked::Refused(refusal, _) => {
                assert!(is_last);
                assert_eq!(refusal.retry_after_ms, Some(2_999), "the third of turns that take a second");
                assert_eq!(admission.standing(Tier::Latency).refused[Why::QueueFull.index()], 1);
            }
            Asked::Granted(grant, _) => {
                assert!(!is_last);
                assert_eq!((grant.tier(), grant.decision.attempt), (Tier::Throughput, Attempt::Spill));
                assert_eq!(admission.standing(Tier::Latency).spilled, 1);
            }
            Asked::Queued(place) => panic!("{place:?}"),
        }
        // One has two, the other one: with a second it would have more.
        assert!(!matches!(admission.ask(ticket(2, 2, 100), at_ms(3)), Asked::Queued(_)));
        assert_eq!(admission.standing(Tier::Latency).queued, 3);
    }
}

#[test]
fn where_nothing_is_limited_nobody_waits() {
    let mut admission = Admission::new(&Settings::default(), fleet(Route::LatencyFirst), [0; 32]);
    for session in 0..1000 {
        let grant = granted(&admission.ask(ticket(1, session, 100), at_ms(session)));
        assert_eq!((grant.tier(), grant.decision.attempt), (Tier::Latency, Attempt::First));
    }
    assert_eq!(admission.standing(Tier::Latency).in_flight, 1000);
}

#[test]
fn who_waits_is_told_its_place_and_let_in_by_who_ends() {
    let mut admission = Admission::new(&latency(slots(1), Limits::default()), fleet(Route::LatencyOnly), [0; 32]);
    let running = granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    let places: Vec<_> = (2..5).map(|session| queued(&admission.ask(ticket(1, session, 100), at_ms(1)))).collect();
    assert_eq!(places.iter().map(|place| place.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(admission.poll_woken().is_none());
    admission.release(running, &served(100), at_ms(400));
    assert_eq!(admission.poll_woken(), Some(places[0].waiter));
    let again = queued(&admission.look(places[1].waiter, at_ms(401)));
    assert_eq!((again.number, again.wait_ms), (1, 399), "as long as the last turn took, of which 1 ms has passed");
    let grant = granted(&admission.look(places[0].waiter, at_ms(401)));
    assert_eq!(grant.decision.queued_ms, 399, "up to when its place was free");
    admission.forget(places[1].waiter, at_ms(402));
    admission.release(grant, &served(100), at_ms(500));
    assert_eq!(admission.poll_woken(), Some(places[2].waiter), "who has left is passed over");
    admission.forget(places[2].waiter, at_ms(501));
    assert_eq!(admission.standing(Tier::Latency).in_flight, 0, "a grant that nobody fetched is given back");
}

#[test]
fn at_its_deadline_a_turn_goes_on_to_the_next_tier_or_is_refused_with_a_time() {
    let settings = latency(slots(1), Limits::default());
    let mut admission = Admission::new(&settings, fleet(Route::LatencyFirst), [0; 32]);
    let held = granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    let place = queued(&admission.ask(ticket(1, 2, 100), at_ms(0)));
    assert_eq!(place.look_ns, at_ms(2_000).mono_ns);
    queued(&admission.look(place.waiter, at_ms(1_999)));
    let grant = granted(&admission.look(place.waiter, at_ms(2_000)));
    let decision = grant.decision;
    assert_eq!((decision.tier, decision.attempt, decision.queued_ms), (Tier::Throughput, Attempt::Spill, 2_000));
    assert_eq!(admission.standing(Tier::Latency).spilled, 1);
    for grant in [held, grant] {
        admission.release(grant, &served(100), at_ms(2_500));
    }

    let mut admission = Admission::new(&settings, fleet(Route::LatencyOnly), [0; 32]);
    granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    let place = queued(&admission.ask(ticket(1, 2, 100), at_ms(0)));
    let refusal = refused(admission.look(place.waiter, at_ms(2_000)));
    assert_eq!(
        (refusal.kind, refusal.retry_after_ms),
        (ErrorKind::RateLimited, Some(2_000)),
        "as long again as it has run"
    );
    assert!(refusal.message.ends_with("Please try again in 2.0s."), "{refusal}");
    assert_eq!(admission.standing(Tier::Latency).refused[Why::Deadline.index()], 1);
}

#[test]
fn a_wait_is_foretold_by_the_turns_that_are_in_the_way() {
    let limits = Limits { turns_max: NonZeroU32::new(2), ..Limits::default() };
    let settings = latency(Queueing { turns_max: 3, ..Queueing::default() }, limits);
    let mut admission = Admission::new(&settings, fleet(Route::LatencyOnly), [0; 32]);
    let short = granted(&admission.ask(ticket(2, 1, 100), at_ms(0)));
    admission.release(short, &served(100), at_ms(100));
    for ms in [100, 160] {
        granted(&admission.ask(ticket(1, 1, 100), at_ms(ms)));
    }
    // Another key's turn, that will end sooner, is in nobody's way.
    granted(&admission.ask(ticket(2, 1, 100), at_ms(150)));
    let places = [1, 2, 3].map(|session| queued(&admission.ask(ticket(1, session, 100), at_ms(170))));
    assert_eq!(places.map(|place| place.wait_ms), [70, 90, 170], "a mean of 100 ms, and what has run of it");
    let refusal = refused(admission.ask(ticket(1, 4, 100), at_ms(170)));
    assert_eq!(refusal.retry_after_ms, Some(190), "behind three");
    let place = queued(&admission.look(places[0].waiter, at_ms(1_000)));
    assert_eq!(place.wait_ms, 840, "what has run long may run as long again");

    let mut full = fleet(Route::LatencyOnly);
    Arc::make_mut(&mut full).endpoints[0].share.concurrency_max = Some(1);
    let mut admission = Admission::new(&Settings::default(), full, [0; 32]);
    granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    let place = queued(&admission.ask(ticket(1, 2, 100), at_ms(300)));
    assert_eq!(place.wait_ms, 700, "an endpoint that has all it may");
}

#[test]
fn who_would_wait_in_vain_or_in_a_crowd_goes_on_at_once() {
    let queue = Queueing { turns_max: 1, ..slots(1) };
    let mut admission = Admission::new(&latency(queue, Limits::default()), fleet(Route::LatencyOnly), [0; 32]);
    granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    queued(&admission.ask(ticket(1, 2, 100), at_ms(0)));
    let refusal = refused(admission.ask(ticket(1, 3, 100), at_ms(0)));
    assert_eq!(refusal.retry_after_ms, Some(2_000), "one runs, one waits");

    let limits = Limits { tokens_per_minute: NonZeroU32::new(600), ..Limits::default() };
    let settings = latency(Queueing::default(), limits);
    let mut admission = Admission::new(&settings, fleet(Route::LatencyFirst), [0; 32]);
    let first = granted(&admission.ask(ticket(1, 1, 600), at_ms(0)));
    admission.release(first, &served(600), at_ms(0));
    let second = granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    assert_eq!((second.tier(), second.decision.queued_ms), (Tier::Throughput, 0), "10 s are longer than any wait");
    let third = queued(&admission.ask(ticket(1, 1, 10), at_ms(0)));
    assert_eq!((third.wait_ms, third.look_ns), (1_000, at_ms(1_000).mono_ns), "a refill that comes in time");
    let grant = granted(&admission.look(third.waiter, at_ms(1_000)));
    assert_eq!((grant.tier(), grant.decision.queued_ms), (Tier::Latency, 1_000));
    let other = granted(&admission.ask(ticket(2, 9, 600), at_ms(1_000)));
    assert_eq!(other.tier(), Tier::Latency, "another key has limits of its own");
}

/// A key that has used up its 600 tokens a minute of the latency tier; the other tier is free.
fn spent(limits: Limits) -> Admission {
    let settings = latency(Queueing::default(), limits);
    let mut admission = Admission::new(&settings, fleet(Route::LatencyFirst), [0; 32]);
    let first = granted(&admission.ask(ticket(1, 1, 600), at_ms(0)));
    admission.release(first, &served(600), at_ms(0));
    admission
}

#[test]
fn who_knows_that_its_keys_others_leave_too_little_goes_on_at_once() {
    let limits = Limits { tokens_per_minute: NonZeroU32::new(600), ..Limits::default() };
    let mut admission = spent(limits);
    // A second each: behind two of them the third would come too late, although it alone would not.
    let waits = [2, 3].map(|session| queued(&admission.ask(ticket(1, session, 10), at_ms(0))).wait_ms);
    assert_eq!(waits, [1_000, 2_000]);
    let third = granted(&admission.ask(ticket(1, 4, 10), at_ms(0)));
    assert_eq!((third.tier(), third.decision.attempt, third.decision.queued_ms), (Tier::Throughput, Attempt::Spill, 0));
    assert_eq!(admission.standing(Tier::Latency).spilled, 1);
}

#[test]
fn a_turn_waits_no_longer_for_its_limit_than_it_may_where_another_tier_is_left() {
    let limits = Limits {
        tokens_per_minute: NonZeroU32::new(600),
        turns_max: NonZeroU32::new(1),
        wait_ms_max: Some(500),
        ..Limits::default()
    };
    let mut admission = spent(limits);
    assert_eq!(granted(&admission.ask(ticket(1, 2, 10), at_ms(0))).tier(), Tier::Throughput, "a second away");
    assert_eq!(queued(&admission.ask(ticket(1, 2, 4), at_ms(0))).wait_ms, 400, "near enough");
    // Turns take 0 ms so far, so one that has run for long is what is waited for.
    let running = granted(&admission.ask(ticket(2, 1, 10), at_ms(0)));
    assert_eq!(running.tier(), Tier::Latency);
    assert_eq!(granted(&admission.ask(ticket(2, 2, 10), at_ms(900))).tier(), Tier::Throughput, "of one turn at once");

    let only = Settings { limits: PerTier { latency: limits, ..PerTier::default() }, ..Settings::default() };
    let mut admission = Admission::new(&only, fleet(Route::LatencyOnly), [0; 32]);
    let first = granted(&admission.ask(ticket(1, 1, 600), at_ms(0)));
    admission.release(first, &served(600), at_ms(0));
    assert_eq!(queued(&admission.ask(ticket(1, 2, 10), at_ms(0))).wait_ms, 1_000, "there is nowhere else to go");
}

#[test]
fn a_keys_own_limits_come_and_go_while_others_wait_for_theirs() {
    let own = |tokens: u32| {
        let latency = KeyLimits { tokens_per_minute: NonZeroU32::new(tokens), ..KeyLimits::default() };
        OwnLimits::from([(owner(1), PerTier { latency, ..PerTier::default() })])
    };
    let settings = Settings { own: own(60), ..Settings::default() };
    let mut admission = Admission::new(&settings, fleet(Route::LatencyOnly), [0; 32]);
    let first = granted(&admission.ask(ticket(1, 1, 60), at_ms(0)));
    admission.release(first, &served(60), at_ms(0));
    granted(&admission.ask(ticket(2, 1, 1_000), at_ms(0)));
    let waits = queued(&admission.ask(ticket(1, 1, 2), at_ms(0)));
    assert!(!admission.adopt_own(&own(60), at_ms(10)), "nothing changes");
    assert_eq!((admission.poll_woken(), admission.standing(Tier::Latency).changes), (None, 0));
    assert!(admission.adopt_own(&own(6_000), at_ms(10)));
    assert_eq!(admission.limits_of(&owner(1), Tier::Latency).tokens_per_minute, NonZeroU32::new(6_000));
    assert_eq!(admission.poll_woken(), Some(waits.waiter), "there is room at once");
    granted(&admission.look(waits.waiter, at_ms(10)));
    let changes = Tier::ALL.map(|tier| admission.standing(tier).changes);
    assert_eq!(changes, [1, 0], "of the tier where it is");
}

#[test]
fn a_background_turn_waits_long_where_no_other_tier_is_left() {
    let limits = Limits { requests_per_minute: NonZeroU32::new(1), ..Limits::default() };
    let settings = latency(Queueing::default(), limits);
    let in_background = |session| {
        let ticket = ticket(1, session, 100);
        Ticket { traits: Traits { background: true, ..ticket.traits }, ..ticket }
    };
    let mut admission = Admission::new(&settings, fleet(Route::LatencyOnly), [0; 32]);
    granted(&admission.ask(in_background(1), at_ms(0)));
    let refusal = refused(admission.ask(ticket(1, 2, 100), at_ms(500)));
    assert_eq!(refusal.retry_after_ms, Some(59_500), "a client that waits is told at once");
    let place = queued(&admission.ask(in_background(3), at_ms(500)));
    assert_eq!((place.wait_ms, place.look_ns), (59_500, at_ms(60_000).mono_ns));
    granted(&admission.look(place.waiter, at_ms(60_000)));

    let mut admission = Admission::new(&latency(slots(1), Limits::default()), fleet(Route::LatencyOnly), [0; 32]);
    granted(&admission.ask(in_background(1), at_ms(0)));
    let place = queued(&admission.ask(in_background(2), at_ms(0)));
    queued(&admission.look(place.waiter, at_ms(599_999)));
    refused(admission.look(place.waiter, at_ms(600_000)));

    let mut admission = Admission::new(&settings, fleet(Route::LatencyFirst), [0; 32]);
    granted(&admission.ask(in_background(1), at_ms(0)));
    let grant = granted(&admission.ask(in_background(2), at_ms(500)));
    assert_eq!((grant.tier(), grant.decision.attempt), (Tier::Throughput, Attempt::Spill), "the next tier is sooner");
}

#[test]
fn a_refused_turn_names_its_limit_in_words_that_clients_read() {
    let limits = Limits { requests_per_minute: NonZeroU32::new(1), ..Limits::default() };
    let mut admission = Admission::new(&latency(Queueing::default(), limits), fleet(Route::LatencyOnly), [0; 32]);
    granted(&admission.ask(ticket(1, 1, 100), at_ms(0)));
    let refusal = refused(admission.ask(ticket(1, 1, 100), at_ms(500)));
    let message =
        "Rate limit reached for the model 'm' on requests per minute (RPM): Limit 1. Please try again in 59.5s.";
    assert_eq!((refusal.message.as_str(), refusal.retry_after_ms), (message, Some(59_500)));
}

#[test]
fn a_failed_turn_tries_the_next_endpoint_without_waiting_within_the_budget() {
    let settings = Settings { routing: crate::router::Routing::default(), ..latency(slots(1), Limits::default()) };
    let mut admission = Admission::new(&settings, fleet(Route::LatencyFirst), [0; 32]);
    let failed = Ending { verdict: Verdict::Failed, ..Ending::NOTHING };
    let mut retried = 0;
    for session in 0..100 {
        let grant = match admission.ask(ticket(1, session, 100), at_ms(1)) {
            Asked::Granted(grant, _) => grant,
            Asked::Queued(_) | Asked::Refused(..) => break,
        };
        admission.release(grant, &failed, at_ms(1));
        let ticket = Ticket { tried: vec![grant.endpoint()], ..ticket(1, session, 100) };
        match admission.ask(ticket, at_ms(1)) {
            Asked::Granted(again, _) => {
                assert_ne!(again.endpoint(), grant.endpoint());
                assert_eq!(again.decision.attempt, Attempt::Retry);
                admission.release(again, &failed, at_ms(1));
                retried += 1;
            }
            Asked::Refused(refusal, _) => assert_eq!(refusal.kind, ErrorKind::Overloaded),
            Asked::Queued(place) => panic!("{place:?}"),
        }
    }
    assert!((10..=20).contains(&retried), "a floor of ten and a tenth of a hundred: {retried}");
}
