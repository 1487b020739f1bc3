//! Long scripts of turns that go on elsewhere: endpoints fail them and are emptied far more often than others.

use super::{SEEDS, seeded};
use crate::migrate::fleet;
use crate::peer::{Peers, Step};
use flashlane_engine::EndpointId;
use serde_json::Value;
use std::collections::BTreeMap;

const MIGRATIONS_MAX: u8 = 3;

#[derive(Debug, Clone, Copy)]
enum Event {
    Step(Step),
    /// An operator wants it empty.
    Empty(u16),
}

/// A long one.
fn script(seed: u64) -> Vec<Event> {
    const FAULTS: [Event; 12] = [
        Event::Step(Step::Cut),
        Event::Step(Step::Cut),
        Event::Step(Step::EndOfBody),
        Event::Step(Step::StreamError),
        Event::Step(Step::Opened),
        Event::Step(Step::Opened),
        Event::Step(Step::Text),
        Event::Step(Step::Call),
        Event::Step(Step::CustomCall),
        Event::Empty(0),
        Event::Empty(1),
        Event::Empty(2),
    ];
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95) | 1;
    let first = [Step::Text, Step::Call, Step::Reasoning][usize::try_from(seed % 3).unwrap()];
    let mut events = [Step::Create, Step::Opened, first].map(Event::Step).to_vec();
    for step in seeded(seed) {
        events.push(Event::Step(step));
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Of two steps, one is followed by trouble.
        events.extend(FAULTS.get(usize::try_from(state % 24).unwrap()));
    }
    events
}

/// The texts of the responses that run, by their lanes.
fn texts(peers: &Peers) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for event in &peers.watch.events {
        let lane = event["stream_id"].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str().unwrap() {
            "response.created" => drop(texts.insert(lane, String::new())),
            "response.output_text.delta" => *texts.get_mut(&lane).unwrap() += event["delta"].as_str().unwrap(),
            _ => {}
        }
    }
    texts
}

/// Whoever goes on is told all that the client has read, and nothing else.
fn assert_told(peers: &Peers, body: &str) {
    let body: Value = serde_json::from_str(body).unwrap();
    let last = body["messages"].as_array().unwrap().last().unwrap().clone();
    let told = last["content"].as_str().unwrap_or_default();
    assert_eq!(last["role"], "assistant");
    assert!(texts(peers).values().any(|text| text == told), "{told:?} is none of {:?}", texts(peers));
}

fn run(events: &[Event]) -> usize {
    let mut peers = Peers::on(fleet(MIGRATIONS_MAX));
    for &event in events {
        let before = peers.continued.len();
        match event {
            Event::Step(step) => peers.apply(step),
            Event::Empty(endpoint) => peers.tell(|session, _, now| session.handle_emptied(EndpointId(endpoint), now)),
        }
        for body in peers.continued.get(before..).unwrap_or_default() {
            assert_told(&peers, body);
        }
    }
    let peers = peers.finish_and_check();
    for outcome in &peers.outcomes {
        let splices = &outcome.splices;
        assert!(splices.iter().filter(|splice| splice.to.is_some()).count() <= usize::from(MIGRATIONS_MAX));
        assert!(outcome.attempts.len() <= peers_max(splices.len()), "{:?}", outcome.attempts);
    }
    peers.outcomes.iter().map(|outcome| outcome.splices.len()).sum()
}

/// Each endpoint fails a turn once, a summary is asked for besides, and who is told less is asked again.
fn peers_max(splices: usize) -> usize {
    2 * 3 + splices + 2
}

#[test]
fn seeded_long_scripts_of_turns_that_go_on_elsewhere_keep_the_invariants() {
    let mut spliced = 0;
    let seeds = SEEDS / if cfg!(debug_assertions) { 5 } else { 1 };
    for seed in 0..seeds {
        let events = script(seed);
        match std::panic::catch_unwind(|| run(&events)) {
            Ok(splices) => spliced += splices,
            Err(panic) => {
                eprintln!("seed {seed} broke it: {events:?}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(spliced as u64 > seeds / 2, "{spliced} splices show little");
}
