//! Who may have a prompt read before its turn comes, what it costs, and that no turn is held up by it.

use super::at_ms;
use super::whole::{fleet, latency, slots, ticket};
use crate::admission::limit::Limits;
use crate::admission::{Admission, Ahead, Asked, Cause, Ending, Grant, Prefill, Queueing, Settings, Ticket};
use crate::fleet::{EndpointId, Route, Tier};
use crate::router::{Load, PickReason};
use std::num::NonZeroU32;
use std::sync::Arc;

fn reading(queue: &Queueing) -> Queueing {
    Queueing { prefill_on_warm_up: true, ..queue.clone() }
}

fn settings() -> Settings {
    latency(reading(&Queueing::default()), Limits::default())
}

fn admission(settings: &Settings) -> Admission {
    Admission::new(settings, fleet(Route::LatencyFirst), [3; 32])
}

/// A warm-up's.
pub fn warm_up(ticket: Ticket) -> Ahead {
    Ahead { ticket, cause: Cause::WarmUp, news: Vec::new() }
}

/// For a warm-up of a key's session.
fn prefill(admission: &mut Admission, (key, session): (u8, u64), tokens: u64, ms: u64) -> Option<Prefill> {
    let prepared = admission.prepare(&warm_up(ticket(key, session, tokens * 2)), at_ms(ms)).unwrap();
    assert_eq!(prepared.endpoint, EndpointId(0), "a connection is warm there in any case");
    prepared.prefill
}

fn ask(admission: &mut Admission, key: u8, session: u64) -> Grant {
    match admission.ask(ticket(key, session, 100), at_ms(1_000)) {
        Asked::Granted(grant, _) => grant,
        asked @ (Asked::Queued(_) | Asked::Refused(..)) => panic!("{asked:?}"),
    }
}

#[test]
fn it_is_for_tiers_that_have_it_switched_on() {
    let mut off = admission(&latency(Queueing::default(), Limits::default()));
    assert_eq!(prefill(&mut off, (1, 1), 100, 1_000), None);
    let leave = prefill(&mut admission(&settings()), (1, 1), 100, 1_000).unwrap();
    assert_eq!((leave.tier, leave.endpoint, leave.until_ns), (Tier::Latency, EndpointId(0), 11_000_000_000));
}

#[test]
fn its_turn_goes_there_whatever_became_of_it() {
    let mut whole = (*fleet(Route::LatencyFirst)).clone();
    (0..8).for_each(|_| whole.endpoints.push(whole.endpoints[0].clone()));
    let mut admission = Admission::new(&settings(), Arc::new(whole), [3; 32]);
    for session in 0..8 {
        let prepared = admission.prepare(&warm_up(ticket(1, session, 100)), at_ms(1_000)).unwrap();
        admission.end_prefill(prepared.prefill.unwrap().id, 0, at_ms(1_000));
        let grant = ask(&mut admission, 1, session);
        assert_eq!((grant.endpoint(), grant.decision.pick), (prepared.endpoint, PickReason::Affinity));
    }
}

#[test]
fn it_has_a_maximum_of_tokens_and_a_rate() {
    let queue = Queueing { prefill_tokens_max: 500, prefills_per_minute_max: 8, ..Queueing::default() };
    let mut admission = admission(&latency(reading(&queue), Limits::default()));
    assert_eq!(prefill(&mut admission, (1, 1), 501, 1_000), None);
    // A quarter of a minute's at once, then one in 7.5 s.
    let at = [1_000, 1_000, 1_000, 8_400, 8_500, 8_500, 16_000];
    let given = at.map(|ms| prefill(&mut admission, (1, 1), 500, ms).is_some());
    assert_eq!(given, [true, true, false, false, true, false, true]);
}

#[test]
fn it_never_starts_where_turns_have_half_of_the_slots_or_wait() {
    let mut busy = admission(&latency(reading(&slots(4)), Limits::default()));
    let first = ask(&mut busy, 1, 1);
    assert!(prefill(&mut busy, (1, 9), 100, 1_000).is_some());
    ask(&mut busy, 1, 2);
    assert_eq!(prefill(&mut busy, (1, 9), 100, 1_000), None);
    busy.release(first, &Ending::NOTHING, at_ms(1_000));
    assert!(prefill(&mut busy, (1, 9), 100, 1_000).is_some());
    busy.probed(EndpointId(0), Load { waiting: 1, running: 9, kv_usage: None }, at_ms(1_000));
    assert_eq!(prefill(&mut busy, (1, 9), 100, 1_000), None, "the engine has others that wait");
}

#[test]
fn a_turn_that_needs_its_room_has_it_stopped_and_waits_for_nothing() {
    // The last slot of the tier, or the last place at the endpoint.
    let mut whole = (*fleet(Route::LatencyFirst)).clone();
    whole.endpoints[0].share.concurrency_max = Some(1);
    for (queue, fleet) in [(slots(1), fleet(Route::LatencyFirst)), (Queueing::default(), Arc::new(whole))] {
        let mut admission = Admission::new(&latency(reading(&queue), Limits::default()), fleet, [3; 32]);
        let leave = prefill(&mut admission, (1, 1), 100, 1_000).unwrap();
        assert_eq!(admission.poll_woken(), None);
        let grant = ask(&mut admission, 2, 2);
        assert_eq!(grant.endpoint(), leave.endpoint);
        assert_eq!((admission.poll_woken(), admission.poll_woken()), (Some(leave.id), None));
        assert!(matches!(admission.look(leave.id, at_ms(1_000)), Asked::Refused(..)), "it is to stop");
        admission.end_prefill(leave.id, 0, at_ms(1_000));
        admission.release(grant, &Ending::NOTHING, at_ms(1_000));
    }
}

#[test]
fn its_tokens_are_its_keys_and_leave_as_many_for_the_turn() {
    let limits =
        Limits { tokens_per_minute: NonZeroU32::new(1_000), turns_max: NonZeroU32::new(1), ..Limits::default() };
    let mut admission = admission(&latency(reading(&Queueing::default()), limits));
    assert_eq!(prefill(&mut admission, (1, 1), 500, 1_000), None, "its turn would find nothing left");
    let leave = prefill(&mut admission, (1, 1), 400, 1_000).unwrap();
    assert_eq!(admission.standing(Tier::Latency).tokens_reserved, 401);
    let grant = ask(&mut admission, 1, 1);
    assert!(prefill(&mut admission, (1, 2), 100, 1_000).is_none(), "it has as many turns as it may");
    admission.release(grant, &Ending::NOTHING, at_ms(1_000));
    admission.end_prefill(leave.id, 300, at_ms(1_000));
    assert_eq!(admission.standing(Tier::Latency).tokens_reserved, 0);
    let remaining = admission.allowance(super::owner(1), Tier::Latency, at_ms(1_000)).tokens.unwrap().remaining;
    assert_eq!(remaining, 700);
    admission.end_prefill(leave.id, 300, at_ms(1_000));
    assert_eq!(admission.allowance(super::owner(1), Tier::Latency, at_ms(1_000)).tokens.unwrap().remaining, 700);
}

/// Of a conversation that goes over to the latency tier, or waits there to go on to the other.
fn ahead(cause: Cause, ticket: Ticket, new: u64) -> Ahead {
    Ahead { ticket, cause, news: vec![(EndpointId(0), new), (EndpointId(1), new)] }
}

#[test]
fn a_conversation_that_goes_over_is_read_where_that_is_on_and_enough_is_new() {
    let queue = Queueing { prefill_on_handover: true, prefill_tokens_max: 500, ..Queueing::default() };
    let mut on = admission(&latency(queue.clone(), Limits::default()));
    // The whole is longer than what may be read.
    let read = |admission: &mut Admission, cause, new| {
        admission.prepare(&ahead(cause, ticket(1, 1, 2_000), new), at_ms(1_000)).unwrap().prefill
    };
    let leave = read(&mut on, Cause::Handover, 256).unwrap();
    assert_eq!((leave.cause, leave.endpoint), (Cause::Handover, EndpointId(0)));
    assert!(read(&mut on, Cause::Handover, 500).is_some());
    assert_eq!((read(&mut on, Cause::Handover, 255), read(&mut on, Cause::Handover, 501)), (None, None));
    assert_eq!(read(&mut on, Cause::WarmUp, 256), None, "warm-ups have a setting of their own");
    let mut off = admission(&latency(reading(&Queueing::default()), Limits::default()));
    assert_eq!(read(&mut off, Cause::Handover, 256), None);
    assert!(read(&mut off, Cause::WarmUp, 256).is_some());
    let granted = |admission: &mut Admission| ask(admission, 1, 1).hands_over;
    assert_eq!((granted(&mut on), granted(&mut off)), (true, false));
}

#[test]
fn a_turn_that_waits_is_read_once_where_it_will_go_on_to_if_it_waits_in_vain() {
    let on = Queueing { prefill_on_handover: true, ..Queueing::default() };
    for (begun_ms, is_vain) in [(1_000, true), (9_000, false)] {
        let mut settings = latency(slots(1), Limits::default());
        settings.queue.throughput = on.clone();
        let mut admission = admission(&settings);
        let Asked::Granted(first, _) = admission.ask(ticket(1, 1, 100), at_ms(begun_ms)) else { panic!("it is free") };
        let Asked::Queued(place) = admission.ask(ticket(2, 2, 2_000), at_ms(9_100)) else { panic!("it is full") };
        assert_eq!(place.read_ahead_ns, Some(9_350_000_000));
        let prepared = admission.prepare(&ahead(Cause::Queue(place.waiter), ticket(2, 2, 2_000), 900), at_ms(9_350));
        assert_eq!(
            prepared.and_then(|prepared| prepared.prefill).map(|leave| leave.endpoint),
            is_vain.then_some(EndpointId(1))
        );
        let Asked::Queued(place) = admission.look(place.waiter, at_ms(9_400)) else { panic!("it waits still") };
        assert_eq!(place.read_ahead_ns, None);
        let again = admission.prepare(&ahead(Cause::Queue(place.waiter), ticket(2, 2, 2_000), 900), at_ms(9_400));
        assert_eq!(again, None);
        admission.release(first, &Ending::NOTHING, at_ms(9_500));
    }
}

#[test]
fn nobody_is_read_ahead_who_may_wait_for_no_other_tier_or_whom_nobody_listens_to() {
    let on = Queueing { prefill_on_handover: true, ..Queueing::default() };
    let is_read = |route, change: fn(&mut Ticket)| {
        let mut settings = latency(slots(1), Limits::default());
        settings.queue.throughput = on.clone();
        let mut admission = Admission::new(&settings, fleet(route), [3; 32]);
        let first = admission.ask(ticket(1, 1, 100), at_ms(1_000));
        let mut second = ticket(2, 2, 2_000);
        change(&mut second);
        let Asked::Queued(place) = admission.ask(second, at_ms(1_000)) else { panic!("{first:?} holds the slot") };
        place.read_ahead_ns.is_some()
    };
    assert!(is_read(Route::LatencyFirst, |_| {}));
    assert!(!is_read(Route::LatencyOnly, |_| {}));
    assert!(!is_read(Route::LatencyFirst, |ticket| ticket.traits.background = true));
    assert!(!is_read(Route::LatencyFirst, |ticket| ticket.traits.is_chat = true));
}
