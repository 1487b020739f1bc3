//! Warm-ups whose prompts are read before their turns come: what is sent for them, what they hold up, and that nothing is left behind.

use crate::peer::{Peers, STEPS, Step};
use crate::scripts::{SEEDS, seeded};
use flashlane_engine::admission::{PerTier, Queueing, Settings};
use flashlane_engine::{Ended, PrefillEnd, Stage, UpstreamEvent, UpstreamFailure};
use serde_json::Value;

fn reading() -> Settings {
    let queue = || Queueing { prefill_on_warm_up: true, prefill_ms_max: 1_000, ..Queueing::default() };
    Settings { queue: PerTier { latency: queue(), throughput: queue() }, ..Settings::default() }
}

fn create(more: &str) -> String {
    format!(
        r#"{{"type":"response.create","model":"m","instructions":"be brief","store":false{more},"max_output_tokens":9,
            "tools":[{{"type":"function","name":"run","parameters":{{}}}}]}}"#
    )
}

/// A warm-up, whose prompt is being read.
fn warmed() -> Peers {
    let mut peers = Peers::behind(&reading());
    peers.message(&create(r#","input":"first words","generate":false"#));
    assert_eq!(peers.watch.ended.len(), 1, "it is answered at once");
    assert_eq!(peers.sent.len(), 1);
    peers
}

/// The turn after it.
fn go_on(peers: &mut Peers) {
    let warm = peers.watch.ended[0].clone();
    peers.message(&create(&format!(r#","input":"and then","previous_response_id":"{warm}""#)));
}

fn body(peers: &Peers, index: usize) -> Value {
    serde_json::from_str(&peers.sent[index].1).unwrap()
}

const USAGE: &str = r#"{"id":"c","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"length"}],"usage":{"prompt_tokens":40,"completion_tokens":1}}"#;

#[test]
fn its_prompt_is_read_and_its_turn_waits_for_that() {
    let mut peers = warmed();
    go_on(&mut peers);
    assert_eq!(peers.sent.len(), 1, "the engine reads what they share, once");
    peers.upstream(UpstreamEvent::Opened);
    peers.chunk(USAGE);
    peers.chunk("[DONE]");
    assert_eq!(peers.prefilled[0].end, PrefillEnd::Completed);
    assert_eq!((peers.prefilled[0].usage.input, peers.prefilled[0].usage.output), (40, 1));
    assert_eq!(peers.prefilled[0].response_id, peers.watch.ended[0]);
    assert_eq!(peers.sent.len(), 2);
    let (read, asked) = (body(&peers, 0), body(&peers, 1));
    let (read_messages, messages) = (read["messages"].as_array().unwrap(), asked["messages"].as_array().unwrap());
    assert_eq!(messages[..read_messages.len()], read_messages[..], "it is a prefix of what its turn sends");
    assert_eq!((&read["tools"], &read["max_completion_tokens"]), (&asked["tools"], &Value::from(1)));
    assert_eq!(asked["max_completion_tokens"], 9);
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!(peers.watch.ended.len(), 2);
    peers.finish_and_check();
}

#[test]
fn a_turn_that_comes_later_finds_it_read() {
    let mut peers = warmed();
    for data in [USAGE, "[DONE]"] {
        peers.chunk(data);
    }
    go_on(&mut peers);
    assert_eq!(peers.sent.len(), 2);
    peers.finish_and_check();
}

#[test]
fn what_takes_too_long_is_left_and_its_turn_goes_on() {
    let mut peers = warmed();
    go_on(&mut peers);
    peers.apply(Step::Pass6S);
    assert_eq!(peers.prefilled[0].end, PrefillEnd::Cancelled);
    assert_eq!(peers.sent.len(), 2);
    peers.finish_and_check();
}

#[test]
fn what_a_turn_waits_for_it_is_its_queue() {
    let mut peers = warmed();
    go_on(&mut peers);
    peers.apply(Step::Pass6S);
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    let parts = &peers.outcomes.last().unwrap().parts;
    assert!(parts.of(Stage::Queue) >= 5_000_000_000, "{parts:?}");
    assert!(parts.of(Stage::Validate) < 1_000_000_000, "{parts:?}");
    peers.finish_and_check();
}

#[test]
fn what_fails_holds_up_nobody() {
    let failures = [
        UpstreamEvent::Ended(Ended::Failed(UpstreamFailure::Cut { reason: "gone".to_owned() })),
        UpstreamEvent::Bytes(b"data: {\"error\":{\"message\":\"no\",\"code\":500}}\n\n"),
        UpstreamEvent::Bytes(b"data: nonsense\n\n"),
    ];
    for failure in failures {
        let mut peers = warmed();
        go_on(&mut peers);
        peers.upstream(failure);
        assert_eq!(peers.prefilled[0].end, PrefillEnd::Failed);
        assert_eq!(peers.sent.len(), 2);
        peers.finish_and_check();
    }
}

#[test]
fn a_client_that_leaves_ends_it() {
    let peers = warmed().finish_and_check();
    assert_eq!(peers.prefilled[0].end, PrefillEnd::Cancelled);
}

#[test]
fn a_turn_of_another_model_waits_for_nothing() {
    let mut peers = warmed();
    peers.message(r#"{"type":"response.create","model":"small","input":"hi","store":false}"#);
    assert_eq!(peers.sent.len(), 2);
    peers.finish_and_check();
}

#[test]
fn a_second_warm_up_waits_for_nothing_and_is_not_read() {
    let mut peers = warmed();
    peers.message(&create(r#","input":"other words","generate":false"#));
    assert_eq!((peers.watch.ended.len(), peers.sent.len()), (2, 1));
    peers.finish_and_check();
}

#[test]
fn every_short_script_of_warm_ups_leaves_nothing_behind() {
    for first in STEPS {
        for second in STEPS {
            let mut peers = Peers::behind(&reading());
            for step in [Step::WarmUp, first, Step::Create, second] {
                peers.apply(step);
            }
            peers.finish_and_check();
        }
    }
}

#[test]
fn seeded_long_scripts_with_warm_ups_leave_nothing_behind() {
    let mut read = 0;
    for seed in 0..SEEDS / 10 {
        let mut peers = Peers::behind(&reading());
        for (index, step) in seeded(seed).into_iter().enumerate() {
            if index % 20 == 0 {
                peers.apply(Step::WarmUp);
            }
            peers.apply(step);
        }
        read += peers.finish_and_check().prefilled.iter().filter(|one| one.end == PrefillEnd::Completed).count();
    }
    assert!(read > 0, "no script let one end well");
}
