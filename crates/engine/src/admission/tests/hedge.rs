//! Who may have a second endpoint where the first token is late, from when on, what it may cost, and that nothing is left behind.

use super::whole::{fleet, latency, slots, ticket};
use super::{Dice, at_ms};
use crate::admission::limit::Limits;
use crate::admission::{Admission, Asked, Ending, Grant, PerTier, Queueing, Settings, Ticket};
use crate::fleet::{Fleet, Route, Tier};
use crate::router::{Attempt, Duty, Order, Routing, Verdict};
use std::num::NonZeroU32;
use std::sync::Arc;

const MS: u64 = 1_000_000;

fn hedging(route: Route) -> Arc<Fleet> {
    let mut fleet = (*fleet(route)).clone();
    fleet.models[0].routing.hedges = true;
    Arc::new(fleet)
}

fn granted(admission: &mut Admission, ticket: &Ticket, ms: u64) -> Grant {
    match admission.ask(ticket.clone(), at_ms(ms)) {
        Asked::Granted(grant, _) => grant,
        asked @ (Asked::Queued(_) | Asked::Refused(..)) => panic!("{asked:?}"),
    }
}

fn served(ttft_ms: u64, tokens: u64) -> Ending {
    let verdict = Verdict::Served { ttft_ns: Some(ttft_ms * MS) };
    Ending { verdict, tokens_input: tokens, tokens_output: 0 }
}

/// A hundred turns were served within 100 ms, of so many tokens each.
fn taught_on(fleet: Arc<Fleet>, settings: &Settings, tokens: u64) -> Admission {
    let mut admission = Admission::new(settings, fleet, [3; 32]);
    for turn in 0..100 {
        let grant = granted(&mut admission, &ticket(9, turn, 10), 1_000);
        assert_eq!(grant.late_ns, None, "nobody knows yet");
        admission.release(grant, &served(100, tokens), at_ms(1_000));
    }
    admission
}

fn taught(settings: &Settings, tokens: u64) -> Admission {
    taught_on(hedging(Route::LatencyFirst), settings, tokens)
}

fn throughput(queue: Queueing, limits: Limits) -> Settings {
    Settings {
        queue: PerTier { throughput: queue, ..PerTier::default() },
        limits: PerTier { throughput: limits, ..PerTier::default() },
        ..Settings::default()
    }
}

/// Whether a turn of 100 tokens of input has a second endpoint.
fn is_hedged(admission: &mut Admission, key: u8) -> bool {
    let ticket = ticket(key, 1, 200);
    let late = granted(admission, &ticket, 2_000);
    let hedge = admission.hedge(&ticket, late, at_ms(2_200));
    let is_hedged = hedge.is_some();
    for grant in hedge.into_iter().chain([late]) {
        admission.release(grant, &Ending::NOTHING, at_ms(2_300));
    }
    for tier in Tier::ALL {
        let standing = admission.standing(tier);
        assert_eq!((standing.queued, standing.in_flight, standing.tokens_reserved), (0, 0, 0));
    }
    is_hedged
}

#[test]
fn a_turn_of_both_tiers_is_late_at_the_latency_tier_alone() {
    let mut admission = taught(&Settings::default(), 1_000);
    let late = granted(&mut admission, &ticket(1, 1, 200), 2_000);
    let after_ns = late.late_ns.unwrap() - at_ms(2_000).mono_ns;
    assert!((100 * MS..113 * MS).contains(&after_ns), "{after_ns}");
    let hedge = admission.hedge(&ticket(1, 1, 200), late, at_ms(2_200)).unwrap();
    assert_eq!((hedge.tier(), hedge.decision.attempt, hedge.late_ns), (Tier::Throughput, Attempt::Hedge, None));
    let in_flight = Tier::ALL.map(|tier| admission.standing(tier).in_flight);
    assert_eq!(in_flight, [1, 1]);
    // Nobody waits for it.
    let mut background = ticket(1, 2, 200);
    background.traits.background = true;
    assert_eq!(granted(&mut admission, &background, 2_000).late_ns, None);
    for route in [Route::LatencyOnly, Route::ThroughputFirst] {
        let mut admission = taught_on(hedging(route), &Settings::default(), 1_000);
        let grant = granted(&mut admission, &ticket(1, 1, 200), 2_000);
        assert_eq!((grant.late_ns, admission.hedge(&ticket(1, 1, 200), grant, at_ms(2_200))), (None, None));
    }
}

#[test]
fn a_model_that_does_not_hedge_costs_nothing_and_has_none() {
    let mut admission = taught_on(fleet(Route::LatencyFirst), &Settings::default(), 1_000);
    assert!(admission.hedging.is_none() && !is_hedged(&mut admission, 1));
    // Another config changes that, and back.
    let routing = Routing::default();
    admission.adopt_fleet(hedging(Route::LatencyFirst), &routing, at_ms(1_500));
    assert!(admission.hedging.is_some());
    admission.adopt_fleet(fleet(Route::LatencyFirst), &routing, at_ms(1_500));
    assert!(admission.hedging.is_none());
    let mut admission = taught(&Settings::default(), 1_000);
    admission.adopt_fleet(hedging(Route::LatencyFirst), &routing, at_ms(1_500));
    assert!(is_hedged(&mut admission, 1), "what was learned is known still");
    admission.adopt_fleet(
        hedging(Route::LatencyFirst),
        &Routing { hedge_tokens_percent_max: 0, ..routing },
        at_ms(1_500),
    );
    assert!(!is_hedged(&mut admission, 1));
}

#[test]
fn a_slot_a_place_and_as_much_again_of_the_key_is_left_to_others() {
    let none = Limits::default();
    let limits = |requests_per_minute, tokens_per_minute| Limits {
        requests_per_minute: NonZeroU32::new(requests_per_minute),
        tokens_per_minute: NonZeroU32::new(tokens_per_minute),
        ..Limits::default()
    };
    for (settings, hedges) in [
        (throughput(slots(2), none), true),
        (throughput(slots(1), none), false),
        (throughput(Queueing::default(), limits(2, 400)), true),
        (throughput(Queueing::default(), limits(1, 400)), false),
        (throughput(Queueing::default(), limits(2, 399)), false),
        (latency(slots(1), none), true),
    ] {
        assert_eq!(is_hedged(&mut taught(&settings, 1_000), 1), hedges, "{settings:?}");
    }
    for (places, hedges) in [(1, false), (2, true)] {
        let mut fleet = (*hedging(Route::LatencyFirst)).clone();
        fleet.endpoints[1].share.concurrency_max = Some(places);
        assert_eq!(is_hedged(&mut taught_on(Arc::new(fleet), &Settings::default(), 1_000), 1), hedges);
    }
}

#[test]
fn an_endpoint_that_is_out_or_cordoned_or_waited_for_is_no_second_one() {
    let gpu = crate::fleet::EndpointId(1);
    let mut admission = taught(&Settings::default(), 1_000);
    admission.obey(gpu, Order { duty: Duty::Cordoned, weight: None, migrate: false }, at_ms(1_500));
    assert!(!is_hedged(&mut admission, 1));
    admission.obey(gpu, Order::default(), at_ms(1_500));
    assert!(is_hedged(&mut admission, 1));
    admission.probed(gpu, crate::router::Load { waiting: 1, running: 9, kv_usage: None }, at_ms(2_000));
    assert!(!is_hedged(&mut admission, 1));
    let mut admission = taught(&Settings::default(), 1_000);
    for _ in 0..5 {
        let first = granted(&mut admission, &ticket(1, 1, 200), 2_000);
        let grant = admission.hedge(&ticket(1, 1, 200), first, at_ms(2_200)).unwrap();
        admission.release(grant, &Ending { verdict: Verdict::Failed, ..Ending::NOTHING }, at_ms(2_200));
        admission.release(first, &Ending::NOTHING, at_ms(2_200));
    }
    assert!(!is_hedged(&mut admission, 1), "it was asked, and failed five times");
}

#[test]
fn who_was_outrun_was_late_and_raises_what_is_late() {
    let mut admission = taught(&Settings::default(), 1_000);
    for turn in 0..20 {
        let late = granted(&mut admission, &ticket(1, turn, 200), 2_000);
        let ending = Ending { verdict: Verdict::Outrun { waited_ns: 400 * MS }, ..Ending::NOTHING };
        admission.release(late, &ending, at_ms(2_400));
    }
    let late = granted(&mut admission, &ticket(1, 99, 200), 3_000);
    let after_ns = late.late_ns.unwrap() - at_ms(3_000).mono_ns;
    assert!((400 * MS..450 * MS).contains(&after_ns), "{after_ns}");
}

/// Where a few first tokens of a hundred are late, and where all of them are: 5 % at most, by what engines count, though what is thought before
/// is too little by a half.
#[test]
fn what_second_endpoints_read_stays_within_the_share() {
    for late_percent in [3, 5, 30, 100] {
        let (mut admission, mut dice) = (taught(&Settings::default(), 0), Dice(late_percent));
        let (mut served_tokens, mut extra, mut hedges) = (0_u64, 0_u64, 0);
        for turn in 0..20_000_u64 {
            let now_ms = 2_000 + turn * 10;
            let tokens = 500 + dice.below(8_000);
            // Half of what the engine will count.
            let ticket = ticket(1, turn % 50, tokens);
            let late = granted(&mut admission, &ticket, now_ms);
            let is_late = dice.below(100) < late_percent;
            let hedge = late.late_ns.filter(|_| is_late).and_then(|_| admission.hedge(&ticket, late, at_ms(now_ms)));
            if let Some(hedge) = hedge {
                hedges += 1;
                extra += tokens;
                let outrun = Ending { verdict: Verdict::Outrun { waited_ns: 150 * MS }, ..Ending::NOTHING };
                admission.release(late, &outrun, at_ms(now_ms));
                admission.release(hedge, &served(40, tokens), at_ms(now_ms));
            } else {
                admission.release(late, &served(if is_late { 2_000 } else { 100 }, tokens), at_ms(now_ms));
            }
            served_tokens += tokens;
            assert!(extra * 100 <= served_tokens * 5 + 8_500 * 100, "{extra} of {served_tokens}");
        }
        assert!(extra * 100 <= served_tokens * 5, "{late_percent}: {extra} of {served_tokens}");
        assert!(hedges > 100, "{late_percent}: {hedges}");
    }
}
