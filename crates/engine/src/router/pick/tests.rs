//! The endpoint inside a tier: affinity, load, health and places together, in short scripts and a long seeded one. Opens nothing.

use super::super::fixture::{at, fleet};
use super::super::traits::SessionKey;
use super::*;
use std::collections::BTreeMap;

const SERVED: Verdict = Verdict::Served { ttft_ns: None };

fn keys(number: u64) -> Keys {
    let key = SessionKey(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Keys { thread: Some(key), session: None }
}

struct Rig {
    router: Router,
    fleet: Fleet,
}

impl Rig {
    fn new(tiers: &[Tier]) -> Self {
        Self::with(tiers, &Routing { breaker_failures_max: 2, affinity_turns_max: 4, ..Routing::default() })
    }

    fn with(tiers: &[Tier], routing: &Routing) -> Self {
        Self { router: Router::new(routing, [9; 32]), fleet: fleet(tiers) }
    }

    fn gpus(count: usize) -> Self {
        Self::new(&vec![Tier::Throughput; count])
    }

    fn take(&mut self, wish: &Wish<'_>, ms: u64) -> Result<Pick, Unpicked> {
        self.router.take(&self.fleet, wish, at(ms))
    }

    fn give_back(&mut self, pick: Pick, keys: Keys, verdict: Verdict, ms: u64) {
        let returned = Return { pick, tier: Tier::Throughput, model: &Arc::from("m"), keys, verdict };
        self.router.give_back(&self.fleet, &returned, at(ms));
    }

    /// Puts an endpoint out for a second.
    fn break_down(&mut self, endpoint: u16, ms: u64) {
        for _ in 0..2 {
            let pick = Pick { endpoint: EndpointId(endpoint), reason: PickReason::Only, is_trial: false };
            self.router.loads.begin(pick.endpoint);
            self.give_back(pick, Keys::default(), Verdict::Failed, ms);
        }
        assert!(matches!(self.router.health.standing(EndpointId(endpoint), at(ms)), Standing::Out { .. }));
    }
}

fn wish(keys: Keys) -> Wish<'static> {
    Wish {
        tier: Tier::Throughput,
        model: "m",
        keys,
        tried: &[],
        prefer: None,
        planned: None,
        is_last: false,
        is_chat: false,
        continues: false,
    }
}

fn any() -> Wish<'static> {
    wish(Keys::default())
}

#[test]
fn a_conversation_stays_where_its_turn_ended_well() {
    let mut rig = Rig::gpus(5);
    for conversation in 0..50 {
        let keys = keys(conversation);
        let first = rig.take(&wish(keys), 0).unwrap();
        assert_eq!(first.reason, PickReason::LeastLoaded);
        rig.give_back(first, keys, SERVED, 1);
        for ms in 2..5 {
            let next = rig.take(&wish(keys), ms).unwrap();
            assert_eq!((next.endpoint, next.reason), (first.endpoint, PickReason::Affinity));
            rig.give_back(next, keys, Verdict::Nothing, ms);
        }
    }
}

#[test]
fn a_new_conversation_of_a_session_goes_where_the_session_was() {
    let mut rig = Rig::gpus(5);
    let (parent, child) = (keys(1), Keys { thread: keys(2).thread, session: keys(1).thread });
    let first = rig.take(&wish(parent), 0).unwrap();
    rig.give_back(first, parent, SERVED, 0);
    let of_child = rig.take(&wish(child), 1).unwrap();
    assert_eq!((of_child.endpoint, of_child.reason), (first.endpoint, PickReason::Affinity));
}

#[test]
fn what_a_turn_prefers_goes_before_what_is_remembered() {
    let mut rig = Rig::gpus(3);
    let first = rig.take(&wish(keys(1)), 0).unwrap();
    rig.give_back(first, keys(1), SERVED, 0);
    let other = (0..3).map(EndpointId).find(|&id| id != first.endpoint);
    // Whatever its load, but not beyond its places.
    (0..50).for_each(|_| rig.router.loads.begin(other.unwrap()));
    let pick = rig.take(&Wish { prefer: other, ..wish(keys(1)) }, 1).unwrap();
    assert_eq!((Some(pick.endpoint), pick.reason), (other, PickReason::Affinity));
    rig.fleet.endpoints.iter_mut().for_each(|endpoint| endpoint.share.concurrency_max = Some(51));
    assert_eq!(rig.take(&Wish { prefer: other, ..wish(keys(1)) }, 1).unwrap().endpoint, first.endpoint);
}

#[test]
fn a_crowded_endpoint_loses_its_conversations() {
    let mut rig = Rig::gpus(2);
    rig.router.affinity.remember(keys(1).thread.unwrap(), Tier::Throughput, EndpointId(0), at(0));
    for turns in 0..10 {
        let pick = rig.take(&wish(keys(1)), 0).unwrap();
        let expected = if turns < 5 { EndpointId(0) } else { EndpointId(1) };
        assert_eq!(pick.endpoint, expected, "turn {turns}");
        if turns == 5 {
            break;
        }
    }
    // Where the others are as busy, it keeps them.
    (0..4).for_each(|_| rig.router.loads.begin(EndpointId(1)));
    assert_eq!(rig.take(&wish(keys(1)), 0).unwrap().endpoint, EndpointId(0));
}

#[test]
fn a_place_at_an_engine_with_a_queue_is_crowded_too() {
    let mut rig = Rig::gpus(2);
    rig.router.affinity.remember(keys(1).thread.unwrap(), Tier::Throughput, EndpointId(0), at(0));
    rig.router.probed(EndpointId(0), Load { waiting: 6, running: 8, kv_usage: None }, at(0));
    assert_eq!(rig.take(&wish(keys(1)), 1).unwrap().endpoint, EndpointId(1));
}

#[test]
fn the_busiest_of_many_is_never_drawn() {
    let mut rig = Rig::gpus(6);
    (0..100).for_each(|_| rig.router.loads.begin(EndpointId(3)));
    for _ in 0..300 {
        assert_ne!(rig.take(&any(), 0).unwrap().endpoint, EndpointId(3));
    }
}

#[test]
fn draws_are_even_and_a_seed_replays() {
    let drawn = |seed| {
        let mut rig = Rig::gpus(4);
        rig.router = Router::new(&Routing::default(), [seed; 32]);
        let mut drawn = Vec::new();
        for _ in 0..4000 {
            let pick = rig.take(&any(), 0).unwrap();
            rig.give_back(pick, Keys::default(), SERVED, 0);
            drawn.push(pick.endpoint);
        }
        drawn
    };
    let counts = drawn(1).into_iter().fold(BTreeMap::new(), |mut counts, endpoint| {
        *counts.entry(endpoint).or_insert(0) += 1;
        counts
    });
    assert!(counts.len() == 4 && counts.values().all(|&count| (900..1100).contains(&count)), "{counts:?}");
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn two_choices_keep_load_even() {
    let mut rig = Rig::gpus(16);
    (0..1600).for_each(|_| _ = rig.take(&any(), 0));
    let turns: Vec<_> = (0..16).map(|id| rig.router.in_flight(EndpointId(id))).collect();
    let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
    assert!(most - least <= 6, "{turns:?}");
}

#[test]
fn what_was_tried_is_not_tried_again() {
    let mut rig = Rig::gpus(3);
    let mut tried = Vec::new();
    rig.router.affinity.remember(keys(1).thread.unwrap(), Tier::Throughput, EndpointId(2), at(0));
    while let Ok(pick) = rig.take(&Wish { tried: &tried, is_last: true, ..wish(keys(1)) }, 0) {
        assert!(!tried.contains(&pick.endpoint));
        tried.push(pick.endpoint);
    }
    assert_eq!(tried.len(), 3);
    assert_eq!(rig.take(&Wish { tried: &tried, ..any() }, 0), Err(Unpicked::Out));
}

#[test]
fn a_tier_whose_places_are_taken_is_full_and_not_out() {
    let mut rig = Rig::gpus(2);
    rig.fleet.endpoints.iter_mut().for_each(|endpoint| endpoint.share.concurrency_max = Some(1));
    let first = rig.take(&wish(keys(1)), 0).unwrap();
    assert_eq!(rig.take(&any(), 0).unwrap().reason, PickReason::Only);
    for is_last in [false, true] {
        assert_eq!(rig.take(&Wish { is_last, ..any() }, 0), Err(Unpicked::Full));
    }
    rig.give_back(first, keys(1), SERVED, 0);
    assert_eq!(rig.take(&any(), 0).map(|pick| pick.endpoint), Ok(first.endpoint));
    // Affinity takes no place that is not there.
    assert_eq!(rig.take(&wish(keys(1)), 0), Err(Unpicked::Full));
}

#[test]
fn an_endpoint_that_is_out_gets_one_trial_and_never_of_a_turn_that_failed_once() {
    let mut rig = Rig::gpus(3);
    rig.break_down(1, 0);
    for _ in 0..50 {
        assert_ne!(rig.take(&any(), 999).unwrap().endpoint, EndpointId(1));
    }
    let again = rig.take(&Wish { tried: &[EndpointId(0)], ..any() }, 1000).unwrap();
    assert_eq!((again.endpoint, again.reason), (EndpointId(2), PickReason::Only));
    let trial = rig.take(&any(), 1000).unwrap();
    assert_eq!((trial.endpoint, trial.reason, trial.is_trial), (EndpointId(1), PickReason::Trial, true));
    assert_ne!(rig.take(&any(), 1001).unwrap().endpoint, EndpointId(1));
    rig.give_back(trial, Keys::default(), SERVED, 1002);
    assert_eq!(rig.router.health.standing(EndpointId(1), at(1002)), Standing::In);
}

#[test]
fn a_conversation_of_an_endpoint_that_is_out_goes_elsewhere() {
    let mut rig = Rig::gpus(2);
    rig.router.affinity.remember(keys(1).thread.unwrap(), Tier::Throughput, EndpointId(0), at(0));
    rig.break_down(0, 0);
    let pick = rig.take(&wish(keys(1)), 1).unwrap();
    assert_eq!((pick.endpoint, pick.reason), (EndpointId(1), PickReason::Only));
    rig.give_back(pick, keys(1), SERVED, 2);
    // When it is due, a conversation tries it too, wherever it was.
    let trial = rig.take(&wish(keys(1)), 1000).unwrap();
    assert_eq!((trial.endpoint, trial.reason, trial.is_trial), (EndpointId(0), PickReason::Trial, true));
}

#[test]
fn the_last_endpoints_are_better_than_none() {
    let mut rig = Rig::gpus(2);
    rig.break_down(0, 0);
    rig.break_down(1, 10);
    assert_eq!(rig.take(&any(), 20), Err(Unpicked::Out));
    let pick = rig.take(&Wish { is_last: true, ..any() }, 20).unwrap();
    assert_eq!((pick.endpoint, pick.reason, pick.is_trial), (EndpointId(0), PickReason::LastResort, true));
    rig.give_back(pick, Keys::default(), SERVED, 30);
    assert_eq!(rig.take(&any(), 31).map(|pick| pick.endpoint), Ok(EndpointId(0)));
}

#[test]
fn the_last_endpoints_have_no_more_places_for_being_out() {
    let mut rig = Rig::gpus(2);
    rig.fleet.endpoints.iter_mut().for_each(|endpoint| endpoint.share.concurrency_max = Some(1));
    let last = Wish { is_last: true, ..any() };
    let picks: [Pick; 2] = std::array::from_fn(|_| rig.take(&last, 0).unwrap());
    // One fails, and takes a turn all the same when the other is set aside.
    rig.router.asides.learn(EndpointId(0), &Arc::from("m"), Verdict::Refused { wait_ms: Some(900) }, at(0));
    rig.router.loads.end(EndpointId(1));
    rig.break_down(1, 0);
    let pick = rig.take(&last, 1).unwrap();
    assert_eq!((pick.endpoint, pick.reason, pick.is_trial), (EndpointId(1), PickReason::LastResort, true));
    // Both are out, and full: where there is another tier they are passed over, else one will have a place.
    assert_eq!(rig.take(&any(), 1), Err(Unpicked::Out));
    assert_eq!(rig.take(&last, 1), Err(Unpicked::Full));
    let first = picks.into_iter().find(|pick| pick.endpoint == EndpointId(0)).unwrap();
    rig.give_back(first, Keys::default(), Verdict::Nothing, 2);
    let pick = rig.take(&last, 2).unwrap();
    // It is well, and only set aside: there is nothing to find out.
    assert_eq!((pick.endpoint, pick.reason, pick.is_trial), (EndpointId(0), PickReason::LastResort, false));
}

#[test]
fn a_tier_takes_none_of_another() {
    let mut rig = Rig::new(&[Tier::Latency, Tier::Throughput]);
    rig.router.affinity.remember(keys(1).thread.unwrap(), Tier::Throughput, EndpointId(0), at(0));
    for prefer in [None, Some(EndpointId(0))] {
        assert_eq!(rig.take(&Wish { prefer, ..wish(keys(1)) }, 0).map(|pick| pick.endpoint), Ok(EndpointId(1)));
    }
}

/// 40,000 turns of 200 conversations at four endpoints, one of which is dead for the middle third, retried once by the budget.
#[test]
fn a_dead_endpoint_costs_few_attempts_and_no_place_is_lost() {
    let routing = Routing { affinity_turns_max: 4, ..Routing::default() };
    let mut rig = Rig::with(&[Tier::Throughput; 4], &routing);
    let mut chance = ChaCha8Rng::from_seed([3; 32]);
    let (mut served, mut attempts) = (0_u32, 0_u32);
    let mut running: Vec<(u64, Pick, Keys)> = Vec::new();
    for ms in 0..40_000 {
        let is_dead = (10_000..30_000).contains(&ms);
        while let Some(at) = running.iter().position(|(ends_ms, ..)| *ends_ms <= ms) {
            let (_, pick, keys) = running.swap_remove(at);
            rig.give_back(pick, keys, SERVED, ms);
        }
        let keys = keys(chance.next_u64() % 200);
        let mut tried = Vec::new();
        while let Ok(pick) = rig.take(&Wish { tried: &tried, is_last: true, ..wish(keys) }, ms) {
            attempts += 1;
            if !(is_dead && pick.endpoint == EndpointId(2)) {
                running.push((ms + 5 + chance.next_u64() % 30, pick, keys));
                served += 1;
                break;
            }
            rig.give_back(pick, keys, Verdict::Failed, ms);
            tried.push(pick.endpoint);
            if !rig.router.may_retry(at(ms)) {
                break;
            }
        }
    }
    for (_, pick, keys) in std::mem::take(&mut running) {
        rig.give_back(pick, keys, SERVED, 40_000);
    }
    assert!(served * 1000 >= 40_000 * 999, "{served}");
    assert!(attempts * 10 <= 40_000 * 11, "{attempts}");
    assert!((0..4).all(|id| rig.router.in_flight(EndpointId(id)) == 0));
    let share = |id: u16| {
        (0..200)
            .filter(|&n| {
                rig.router.affinity.find(keys(n).thread.unwrap(), Tier::Throughput, at(40_000)) == Some(EndpointId(id))
            })
            .count()
    };
    assert!(share(2) > 20, "{:?}", [0, 1, 2, 3].map(share));
}

#[test]
fn a_turn_goes_where_it_was_foreseen_unless_another_is_less_busy() {
    let mut rig = Rig::gpus(5);
    for ms in 0..20 {
        let planned = rig.router.foresee(&rig.fleet, &any(), at(ms));
        assert!(planned.is_some());
        assert_eq!(rig.router.foresee(&rig.fleet, &Wish { planned, ..any() }, at(ms)), planned);
        let pick = rig.take(&Wish { planned, ..any() }, ms).unwrap();
        assert_eq!((Some(pick.endpoint), pick.reason), (planned, PickReason::LeastLoaded));
        assert_eq!(rig.router.in_flight(pick.endpoint), 1, "to foresee counts nothing");
        // Whatever other one is drawn, it is less busy.
        let other = rig.take(&Wish { planned, ..any() }, ms).unwrap();
        assert_ne!(other.endpoint, pick.endpoint);
        rig.give_back(pick, Keys::default(), Verdict::Nothing, ms);
        rig.give_back(other, Keys::default(), Verdict::Nothing, ms);
    }
}

#[test]
fn a_conversation_that_is_known_is_foreseen_where_it_was_and_never_where_all_are_out() {
    let mut rig = Rig::gpus(2);
    let first = rig.take(&wish(keys(1)), 0).unwrap();
    rig.give_back(first, keys(1), SERVED, 0);
    let other = (0..2).map(EndpointId).find(|&id| id != first.endpoint);
    assert_eq!(rig.router.foresee(&rig.fleet, &Wish { planned: other, ..wish(keys(1)) }, at(1)), Some(first.endpoint));
    (0..2).for_each(|endpoint| rig.break_down(endpoint, 2));
    assert_eq!(rig.router.foresee(&rig.fleet, &wish(keys(1)), at(3)), None);
}

#[test]
fn a_chat_completion_goes_where_it_is_spoken_and_nowhere_else() {
    let mut rig = Rig::gpus(3);
    rig.fleet.endpoints[0].speaks = Speaks::Responses;
    rig.fleet.endpoints[2].speaks = Speaks::Responses;
    let prefer = Some(EndpointId(2));
    for _ in 0..5 {
        let pick = rig.take(&Wish { is_chat: true, prefer, ..any() }, 0).unwrap();
        assert_eq!(pick.endpoint, EndpointId(1));
    }
    assert_eq!(rig.take(&Wish { prefer, ..any() }, 0).unwrap().endpoint, EndpointId(2));
    rig.fleet.endpoints[1].speaks = Speaks::Responses;
    assert_eq!(rig.take(&Wish { is_chat: true, is_last: true, ..any() }, 0), Err(Unpicked::Out));
}

#[test]
fn a_model_that_an_endpoint_does_not_have_is_asked_for_elsewhere_and_others_are_not() {
    let mut rig = Rig::gpus(2);
    let pick = rig.take(&wish(keys(1)), 0).unwrap();
    let elsewhere = EndpointId(1 - pick.endpoint.0);
    rig.give_back(pick, keys(1), SERVED, 1);
    let pick = rig.take(&wish(keys(1)), 2).unwrap();
    rig.give_back(pick, keys(1), Verdict::Absent, 3);
    for ms in 4..20 {
        // Its conversation, too, whose endpoint it was.
        let taken = rig.take(&wish(keys(1)), ms).unwrap();
        assert_eq!(taken.endpoint, elsewhere);
        rig.router.loads.end(taken.endpoint);
    }
    assert_eq!(rig.take(&Wish { model: "other", ..wish(keys(1)) }, 20).unwrap().endpoint, pick.endpoint);
    let tried = [elsewhere];
    assert_eq!(rig.take(&Wish { tried: &tried, ..any() }, 20), Err(Unpicked::Out));
    let last = rig.take(&Wish { tried: &tried, is_last: true, ..any() }, 20).unwrap();
    assert_eq!((last.endpoint, last.reason), (pick.endpoint, PickReason::LastResort));
    let later: Vec<_> = (0..8).map(|_| rig.take(&any(), 3000).unwrap().endpoint).collect();
    assert_eq!(later.iter().filter(|endpoint| **endpoint == pick.endpoint).count(), 1, "one turn finds out: {later:?}");
}
