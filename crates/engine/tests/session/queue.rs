//! A turn that waits for its place: what its client hears, and that nothing is left behind however it ends.

use crate::peer::{Peers, STEPS, Step};
use flashlane_engine::Status;
use flashlane_engine::admission::{PerTier, Queueing, Settings};
use std::num::NonZeroU32;

/// One slot of the latency tier and one of the throughput tier, so that a third turn has to wait.
fn narrow() -> Settings {
    let queue = || Queueing { concurrency_max: NonZeroU32::new(1), wait_ms_max: 1_000, ..Queueing::default() };
    Settings { queue: PerTier { latency: queue(), throughput: queue() }, ..Settings::default() }
}

#[test]
fn a_turn_that_waits_hears_its_place_and_starts_when_another_ends() {
    let mut peers = Peers::behind(&narrow());
    for step in [Step::Create, Step::Opened, Step::Text, Step::CreateInA] {
        peers.apply(step);
    }
    assert_eq!(peers.watch.places, [1], "it waits for the tier that goes first, and is told at once");
    peers.apply(Step::Switch);
    peers.apply(Step::Finish);
    assert_eq!(peers.sent.len(), 2, "the end of the first has let it in");
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    let peers = peers.finish_and_check();
    assert!(peers.outcomes.iter().all(|outcome| outcome.status == Status::Completed));
}

#[test]
fn at_its_deadline_it_goes_to_the_next_tier() {
    let mut peers = Peers::behind(&narrow());
    for step in [Step::Create, Step::Opened, Step::Text, Step::CreateInA, Step::Pass300Ms] {
        peers.apply(step);
    }
    assert_eq!(peers.sent.len(), 1);
    for _ in 0..3 {
        peers.apply(Step::Pass300Ms);
    }
    assert_eq!(peers.sent.len(), 2);
    peers.finish_and_check();
}

#[test]
fn every_short_script_of_turns_that_wait_leaves_nothing_behind() {
    let steps: Vec<_> = STEPS
        .into_iter()
        .filter(|step| {
            let alike = [Step::Reasoning, Step::CustomCall, Step::FinishByLength, Step::Nonsense, Step::EndOfBody];
            !alike.contains(step)
        })
        .collect();
    for first in &steps {
        for second in &steps {
            let mut peers = Peers::behind(&narrow());
            for step in [Step::Create, Step::CreateInA, Step::ForkIntoB, *first, *second] {
                peers.apply(step);
            }
            peers.finish_and_check();
        }
    }
}
