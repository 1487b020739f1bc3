//! The fleet in virtual time, small enough for every build: what two tiers promise, and that a run repeats.

#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

use flashlane_benches::fleet::scene::{Policy, Scene};
use flashlane_benches::fleet::tally::{Tally, percentile};
use flashlane_benches::fleet::world::{Choice, Plan, simulate};
use flashlane_engine::{Route, Tier};

/// A few of the large fleet's agents, before a wafer that carries some ten turns a second and GPU servers that carry twenty.
fn scene(turns_per_s: f64) -> Scene {
    let mut scene = Scene::large();
    (scene.wafer.slots, scene.gpus) = (2, 3);
    scene.settings.queue.latency.concurrency_max = std::num::NonZeroU32::new(4);
    scene.settings.queue.latency.concurrency_min = std::num::NonZeroU32::MIN;
    scene.workload.sessions = 400;
    scene.workload = scene.workload.at_load(turns_per_s);
    scene
}

fn played(scene: &Scene, policy: Policy, seed: u64) -> Tally {
    let choice = Choice::Gateway;
    simulate(&Plan { scene, route: policy.route(), choice, seed, warm_ms: 60_000, measured_ms: 240_000 })
}

fn p50_ms(tally: &Tally) -> f64 {
    percentile(&tally.ttfts_ms(None), 50)
}

#[test]
fn at_a_middle_load_spilling_is_no_worse_than_either_tier_alone() {
    let scene = scene(6.0);
    for seed in 0..3 {
        let [both, wafer, gpu] = Policy::ALL.map(|policy| p50_ms(&played(&scene, policy, seed)));
        assert!(both <= wafer && both <= gpu, "{both} ms, wafer {wafer}, GPU {gpu}");
    }
}

#[test]
fn beyond_what_the_wafer_carries_alone_both_tiers_together_answer_more_and_sooner() {
    let scene = scene(24.0);
    let [both, wafer, gpu] = Policy::ALL.map(|policy| played(&scene, policy, 1));
    let [of_both, of_wafer, of_gpu] = [&both, &wafer, &gpu].map(|tally| (tally.answers.len(), tally.whole_p50_ms()));
    assert!(both.spill_share() > 0.1, "{}", both.spill_share());
    for alone in [of_wafer, of_gpu] {
        assert!(of_both.0 > alone.0 && of_both.1 < alone.1, "both {of_both:?}, wafer {of_wafer:?}, GPU {of_gpu:?}");
    }
}

#[test]
fn keys_of_different_loads_share_the_wafer_evenly() {
    let scene = scene(40.0);
    for seed in 0..3 {
        let both = played(&scene, Policy::Spill, seed);
        assert!(both.spill_share() > 0.4, "there is too little for all: {}", both.spill_share());
        let keys = both.jain_keys(Tier::Latency);
        assert!(keys >= 0.95, "{keys}");
    }
}

#[test]
fn what_turns_reserved_comes_to_nothing_when_all_have_ended() {
    for policy in Policy::ALL {
        let tally = played(&scene(16.0), policy, 5);
        assert!(tally.answers.len() > 500, "{}", tally.answers.len());
        assert_eq!(tally.tokens_reserved_left, 0, "{}", policy.name());
    }
}

#[test]
fn a_seed_gives_the_same_run_and_another_one_another() {
    let scene = scene(14.0);
    let [once, again, other] = [3, 3, 4].map(|seed| played(&scene, Policy::Spill, seed));
    assert_eq!(once, again);
    assert_ne!(once, other);
}

#[test]
fn affinity_finds_nearly_all_of_the_cache_that_can_be_found() {
    let scene = scene(6.0);
    let cached = |scene: &Scene, choice| {
        let route = Route::ThroughputOnly;
        simulate(&Plan { scene, route, choice, seed: 1, warm_ms: 60_000, measured_ms: 240_000 })
            .cached_share(Tier::Throughput)
    };
    let mut without = scene.clone();
    without.settings.routing.affinity_entries_max = 0;
    let [affinity, knowing] = [Choice::Gateway, Choice::Knowing].map(|choice| cached(&scene, choice));
    let drawn = cached(&without, Choice::Gateway);
    assert!(affinity >= knowing - 0.02 && affinity > drawn + 0.05, "{affinity}, all known {knowing}, drawn {drawn}");
}
