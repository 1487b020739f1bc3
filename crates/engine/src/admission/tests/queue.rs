//! Who is next, and who is told how many are before it.

use super::{Dice, at_ms, owner};
use crate::admission::queue::{Party, Queue, Slots, WaiterId, Waiting};

fn party(key: u8, session: u64) -> Party {
    Party { owner: owner(key), session }
}

/// Serves the queue to its end, one at a time.
fn drain(queue: &mut Queue) -> Vec<(Party, WaiterId)> {
    std::iter::from_fn(|| {
        let (party, waiting) = queue.next(|_| true, |_, _| true)?;
        assert!(queue.remove(party, waiting.id));
        queue.start(party, waiting.tokens);
        queue.end(party, waiting.tokens, waiting.tokens);
        Some((party, waiting.id))
    })
    .collect()
}

#[test]
fn places_are_told_as_they_will_be_served() {
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let mut queue = Queue::default();
        // A past: some were served already.
        for _ in 0..dice.below(6) {
            let who = party(dice.below(3) as u8, dice.below(3));
            queue.start(who, 10);
            queue.end(who, 10, 10);
        }
        let count = 1 + dice.below(8);
        let waiting: Vec<_> = (0..count).map(|id| (party(dice.below(3) as u8, dice.below(3)), WaiterId(id))).collect();
        for (party, id) in &waiting {
            queue.push(*party, Waiting { id: *id, tokens: 10 });
        }
        let told: Vec<_> = waiting.iter().map(|(party, id)| queue.ahead(*party, *id)).collect();
        let order = drain(&mut queue);
        for (ahead, waiter) in told.into_iter().zip(&waiting) {
            let served = order.iter().position(|served| served == waiter).unwrap();
            let of_key = order[..served].iter().filter(|(party, _)| party.owner == waiter.0.owner).count();
            assert_eq!(ahead.of_key, of_key, "seed {seed}, {waiter:?} of {order:?}");
            assert_eq!(ahead.of_all, served, "seed {seed}, {waiter:?} of {order:?}");
        }
        assert!(queue.is_empty());
    }
}

#[test]
fn the_least_served_is_next_and_a_rest_saves_nothing_up() {
    let mut queue = Queue::default();
    let (heavy, light, late) = (party(1, 0), party(2, 0), party(3, 0));
    for _ in 0..10 {
        queue.start(heavy, 100);
    }
    for id in 0..20 {
        let who = if id % 2 == 0 { heavy } else { light };
        queue.push(who, Waiting { id: WaiterId(id), tokens: 100 });
    }
    let served: Vec<_> = (0..6)
        .map(|_| {
            let (who, waiting) = queue.next(|_| true, |_, _| true).unwrap();
            queue.remove(who, waiting.id);
            queue.start(who, waiting.tokens);
            who
        })
        .collect();
    // The light one was at rest while the heavy one was served: it begins where that stands, not ten turns behind.
    assert_eq!(served.iter().filter(|who| **who == light).count(), 3, "{served:?}");
    queue.push(late, Waiting { id: WaiterId(99), tokens: 100 });
    let order = drain(&mut queue);
    let place = order.iter().position(|(who, _)| *who == late).unwrap();
    assert!(place <= 2, "who comes new does not wait for all of those before: {order:?}");
}

#[test]
fn what_a_turn_really_took_counts() {
    let mut queue = Queue::default();
    let (a, b) = (party(1, 0), party(1, 1));
    for (who, used) in [(a, 10), (b, 500)] {
        queue.start(who, 100);
        queue.end(who, 100, used);
    }
    for (id, who) in [(0, b), (1, a)] {
        queue.push(who, Waiting { id: WaiterId(id), tokens: 100 });
    }
    assert_eq!(queue.next(|_| true, |_, _| true).unwrap().0, a);
}

#[test]
fn the_last_slot_is_for_a_key_that_holds_none() {
    let mut queue = Queue::default();
    let may =
        |queue: &Queue, key, all, free| queue.may_start(&owner(key), Slots { all: Some(all), free, claimed_max: 0 });
    assert!(may(&queue, 1, 4, 1));
    queue.start(party(1, 0), 10);
    assert!(may(&queue, 1, 4, 2));
    assert!(!may(&queue, 1, 4, 1));
    assert!(may(&queue, 2, 4, 1));
    assert!(may(&queue, 1, 1, 1), "of one slot none can be kept");
    assert!(!may(&queue, 2, 4, 0));
    queue.end(party(1, 0), 10, 10);
    assert!(may(&queue, 1, 4, 1));
}

#[test]
fn what_a_key_held_lately_is_left_free_for_it_by_who_holds_more_than_a_share() {
    let mut queue = Queue::default();
    let (heavy, light) = (owner(1), owner(2));
    let slots = |free, claimed_max| Slots { all: Some(12), free, claimed_max };
    queue.pass(at_ms(0));
    (0..3).for_each(|session| queue.start(party(2, session), 10));
    (0..6).for_each(|session| queue.start(party(1, session), 10));
    assert!(queue.may_start(&heavy, slots(2, 4)), "it is held, so nothing more is kept");
    (0..3).for_each(|session| queue.end(party(2, session), 10, 10));
    let free: Vec<_> = (0..8).filter(|free| queue.may_start(&heavy, slots(*free, 4))).collect();
    assert_eq!(free, [5, 6, 7], "one for who holds none, and three");
    assert!(queue.may_start(&heavy, slots(4, 2)), "no more than settings allow");
    assert!(queue.may_start(&heavy, slots(2, 0)), "none where they say so");
    assert!(queue.may_start(&light, slots(1, 4)));
    queue.start(party(2, 0), 10);
    assert!(queue.may_start(&light, slots(2, 4)), "its own");
    assert!(queue.may_start(&owner(3), slots(1, 4)));
    queue.end(party(1, 0), 10, 10);
    assert!(queue.may_start(&heavy, slots(2, 4)), "who holds less than an equal share leaves nothing");
    queue.start(party(1, 0), 10);
    queue.end(party(2, 0), 10, 10);
    for (ms, kept) in [(4_999, 4), (5_000, 4), (9_999, 4), (10_000, 1)] {
        queue.pass(at_ms(ms));
        let least = (0..12).find(|free| queue.may_start(&heavy, slots(*free, 4)));
        assert_eq!(least, Some(kept + 1), "after {ms} ms");
    }
}

#[test]
fn a_span_in_which_nothing_happened_forgets_claims_too() {
    let mut queue = Queue::default();
    (0..3).for_each(|session| queue.start(party(2, session), 10));
    (0..3).for_each(|session| queue.end(party(2, session), 10, 10));
    (0..8).for_each(|session| queue.start(party(1, session), 10));
    queue.pass(at_ms(60_000));
    assert!(queue.may_start(&owner(1), Slots { all: Some(12), free: 2, claimed_max: 4 }));
}

#[test]
fn the_last_of_who_has_the_most_gives_its_place_to_who_has_fewer() {
    let mut queue = Queue::default();
    for (id, (key, session)) in (0..).zip([(1, 0), (1, 1), (1, 1), (1, 0), (2, 0), (1, 0)]) {
        queue.push(party(key, session), Waiting { id: WaiterId(id), tokens: 10 });
    }
    assert_eq!(queue.last_of_longest(&owner(3)), Some((party(1, 0), WaiterId(5))), "of its longest session");
    assert!(queue.last_of_longest(&owner(2)).is_some());
    assert_eq!(queue.last_of_longest(&owner(1)), None);
    queue.remove(party(1, 1), WaiterId(1));
    queue.remove(party(1, 1), WaiterId(2));
    queue.remove(party(1, 0), WaiterId(3));
    assert_eq!(queue.last_of_longest(&owner(2)), None, "it would have more than the other is left with");
    assert_eq!(queue.last_of_longest(&owner(3)), Some((party(1, 0), WaiterId(5))));
}

#[test]
fn who_may_not_start_is_passed_over_and_keeps_its_place() {
    let mut queue = Queue::default();
    for (id, key) in [(0, 1), (1, 2)] {
        queue.push(party(key, 0), Waiting { id: WaiterId(id), tokens: 10 });
    }
    let next = queue.next(|key| *key != owner(1), |_, _| true);
    assert_eq!(next.unwrap().1.id, WaiterId(1));
    assert_eq!(queue.next(|_| true, |_, _| true).unwrap().1.id, WaiterId(0));
    assert!(!queue.remove(party(2, 0), WaiterId(0)), "another's turn");
    assert_eq!(queue.len(), 2);
}

#[test]
fn counters_are_bounded_whoever_comes() {
    let mut queue = Queue::default();
    for number in 0..200_000u64 {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        let who = Party { owner: crate::session::Owner(key), session: number };
        queue.start(who, 1 + number % 7);
        queue.end(who, 1 + number % 7, 3);
    }
    assert!(queue.remembered() <= 2 * 1024 + 2, "{}", queue.remembered());
    let who = party(1, 0);
    for session in 0..200_000u64 {
        queue.start(Party { session, ..who }, 5);
    }
    assert!(queue.remembered() <= 3 * 1024 + 3, "{}", queue.remembered());
}
