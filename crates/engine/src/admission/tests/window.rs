//! The window follows the load, within its bounds.

use super::{Dice, at_ms, scripts};
use crate::admission::window::{Bounds, Signal, Window};
use std::num::NonZeroU32;

fn bounds(min: u32, max: u32) -> Bounds {
    Bounds { min: NonZeroU32::new(min).unwrap(), max: NonZeroU32::new(max).unwrap(), ttft_ms_max: 100 }
}

#[test]
fn no_short_script_leaves_the_bounds_or_loses_a_turn() {
    #[derive(Clone, Copy)]
    enum Step {
        Enter,
        Leave(Signal),
        Pass,
        Adopt(u32, u32),
    }
    let steps = [
        Step::Enter,
        Step::Leave(Signal::FirstToken(50)),
        Step::Leave(Signal::FirstToken(500)),
        Step::Leave(Signal::Refused),
        Step::Leave(Signal::Nothing),
        Step::Pass,
        Step::Adopt(3, 4),
    ];
    scripts(&steps, 6, |script| {
        let mut window = Window::new(Some(bounds(1, 6)));
        let (mut now_ms, mut running, mut limits) = (1000, Vec::new(), (1, 6));
        for step in script {
            match *step {
                Step::Enter => {
                    window.enter();
                    running.push(now_ms);
                }
                Step::Leave(signal) => {
                    if let Some(began_ms) = running.pop() {
                        window.leave(signal, at_ms(began_ms).mono_ns, at_ms(now_ms));
                    }
                }
                Step::Pass => now_ms += 10,
                Step::Adopt(min, max) => {
                    limits = (min, max);
                    window.adopt(Some(bounds(min, max)));
                }
            }
            let slots = window.slots().unwrap();
            assert!((limits.0..=limits.1).contains(&slots), "{slots}");
            assert_eq!(window.in_flight() as usize, running.len());
        }
    });
}

/// First tokens come late from so many turns at once on.
fn settles_at(capacity: u32, seed: u64) -> (u32, u32) {
    let mut dice = Dice(seed);
    let mut window = Window::new(Some(bounds(2, 256)));
    let (mut running, mut low, mut high) = (Vec::new(), u32::MAX, 0);
    for round in 0..40_000u64 {
        while window.free() > 0 {
            window.enter();
            running.push((round, window.in_flight()));
        }
        let (began, beside) = running.swap_remove(dice.below(running.len() as u64) as usize);
        let ttft_ms = if beside > capacity { 200 } else { 40 };
        window.leave(Signal::FirstToken(ttft_ms), at_ms(began).mono_ns, at_ms(round));
        if round > 20_000 {
            low = low.min(window.slots().unwrap());
            high = high.max(window.slots().unwrap());
        }
    }
    (low, high)
}

#[test]
fn it_settles_around_what_the_hardware_takes() {
    for (seed, capacity) in [(1, 12), (2, 40), (3, 150)] {
        let (low, high) = settles_at(capacity, seed);
        assert!(low * 2 >= capacity, "{low} to {high} of {capacity}");
        assert!(high <= capacity + capacity / 4 + 2, "{low} to {high} of {capacity}");
    }
}

#[test]
fn a_window_that_is_not_full_does_not_grow() {
    let mut window = Window::new(Some(bounds(2, 100)));
    let before = window.slots();
    for round in 0..1000 {
        window.enter();
        window.leave(Signal::FirstToken(1), at_ms(round).mono_ns, at_ms(round));
    }
    assert_eq!(window.slots(), before);
}

#[test]
fn one_round_of_late_tokens_is_one_cut() {
    let mut window = Window::new(Some(bounds(1, 200)));
    let before = window.slots().unwrap();
    for _ in 0..50 {
        window.enter();
    }
    for _ in 0..50 {
        window.leave(Signal::FirstToken(999), at_ms(1).mono_ns, at_ms(20));
    }
    assert_eq!(window.slots().unwrap(), before * 3 / 4);
}

#[test]
fn without_bounds_there_is_always_a_slot() {
    let mut window = Window::default();
    for _ in 0..1000 {
        window.enter();
    }
    assert_eq!((window.slots(), window.free()), (None, u32::MAX));
}
