//! A split model's conversation goes from one tier to the other: who reads it before its turn comes, what waits for that, and that nothing
//! is left behind.

use crate::peer::{Peers, STEPS, Step, fleet};
use crate::scripts::{SEEDS, seeded};
use flashlane_engine::admission::{PerTier, Queueing, Settings};
use flashlane_engine::{Fleet, PrefillEnd, Status};
use serde_json::{Value, json};
use std::num::NonZeroU32;

fn split() -> Fleet {
    let mut fleet = fleet();
    fleet.models.iter_mut().for_each(|model| model.routing.splits = true);
    fleet
}

fn each(queue: &Queueing) -> Settings {
    Settings { queue: PerTier { latency: queue.clone(), throughput: queue.clone() }, ..Settings::default() }
}

fn reading() -> Queueing {
    Queueing { prefill_on_handover: true, handover_tokens_min: 1, prefill_ms_max: 5_000, ..Queueing::default() }
}

const TOOLS: &str = r#""tools":[{"type":"function","name":"run","parameters":{}}]"#;

fn create(peers: &mut Peers, input: &Value, more: &str) {
    let previous = peers.watch.ended.last().map_or("null".to_owned(), |id| format!("\"{id}\""));
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"instructions":"be brief",{TOOLS},"input":{input},
            "previous_response_id":{previous}{more}}}"#
    ));
}

fn ask(peers: &mut Peers) {
    create(peers, &json!("what is there?"), "");
}

fn answer_tools(peers: &mut Peers) {
    create(peers, &json!([{"type": "function_call_output", "call_id": "c0", "output": "a file"}]), "");
}

fn calls(peers: &mut Peers) {
    for step in [Step::Opened, Step::Call, Step::Arguments, Step::Finish] {
        peers.apply(step);
    }
}

fn says(peers: &mut Peers) {
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
}

const USAGE: &str = r#"{"id":"c","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"length"}],"usage":{"prompt_tokens":40,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":4}}}"#;

/// The endpoint ends what it was asked last.
fn read(peers: &mut Peers) {
    peers.chunk(USAGE);
    peers.chunk("[DONE]");
}

fn body(peers: &Peers, index: usize) -> Value {
    serde_json::from_str(&peers.sent[index].1).unwrap()
}

/// The names of the model that were asked for: `m-wafer` is the latency tier's.
fn asked(peers: &Peers) -> Vec<String> {
    (0..peers.sent.len()).map(|index| body(peers, index)["model"].as_str().unwrap().to_owned()).collect()
}

/// The throughput tier has planned, and the latency tier reads that while the tool runs.
fn planned() -> Peers {
    let mut peers = Peers::behind_on(&each(&reading()), split());
    ask(&mut peers);
    calls(&mut peers);
    assert_eq!(asked(&peers), ["m", "m-wafer"]);
    peers
}

#[test]
fn while_a_tool_runs_the_other_tier_reads_the_chain_and_the_next_turn_goes_on_from_that() {
    let mut peers = planned();
    assert_eq!(peers.watch.ended.len(), 1, "the turn before has ended by then");
    read(&mut peers);
    let leave = peers.prefilled[0].leave;
    assert_eq!((peers.prefilled[0].end, leave.cause.name()), (PrefillEnd::Completed, "handover"));
    assert_eq!(peers.prefilled[0].response_id, peers.watch.ended[0]);
    answer_tools(&mut peers);
    assert_eq!(asked(&peers), ["m", "m-wafer", "m-wafer"]);
    let (ahead, turn) = (body(&peers, 1), body(&peers, 2));
    assert_eq!((&ahead["max_completion_tokens"], &ahead["tools"]), (&json!(1), &turn["tools"]));
    let (ahead, turn) = (ahead["messages"].as_array().unwrap(), turn["messages"].as_array().unwrap());
    let roles: Vec<_> = turn.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool"]);
    assert_eq!(ahead[..3], turn[..3], "all but what the tool will give");
    assert_eq!((&ahead[3]["role"], &ahead[3]["tool_call_id"]), (&turn[3]["role"], &turn[3]["tool_call_id"]));
    says(&mut peers);
    let outcome = peers.outcomes.last().unwrap();
    assert_eq!((outcome.status, outcome.read_ahead.0), (Status::Completed, [0, 36, 0]));
    peers.finish_and_check();
}

#[test]
fn with_the_setting_off_nobody_is_asked() {
    let mut peers = Peers::behind_on(&each(&Queueing::default()), split());
    ask(&mut peers);
    calls(&mut peers);
    answer_tools(&mut peers);
    says(&mut peers);
    assert_eq!(asked(&peers), ["m", "m-wafer"]);
    let peers = peers.finish_and_check();
    assert!(!peers.effects.iter().any(|effect| effect == "Prepare"), "{:?}", peers.effects);
}

#[test]
fn who_has_read_it_already_and_who_is_not_to_reads_nothing() {
    let mut peers = planned();
    read(&mut peers);
    answer_tools(&mut peers);
    // One more tool: it stays where it is.
    calls(&mut peers);
    assert_eq!(peers.sent.len(), 3);
    answer_tools(&mut peers);
    assert_eq!(asked(&peers), ["m", "m-wafer", "m-wafer", "m-wafer"]);
    peers.finish_and_check();
    // The tier that would read has it off.
    let mut settings = each(&reading());
    settings.queue.latency.prefill_on_handover = false;
    let mut peers = Peers::behind_on(&settings, split());
    ask(&mut peers);
    calls(&mut peers);
    assert_eq!(asked(&peers), ["m"]);
    peers.finish_and_check();
}

#[test]
fn before_the_user_speaks_again_the_first_tier_reads_what_is_new_to_it() {
    let mut peers = planned();
    read(&mut peers);
    answer_tools(&mut peers);
    says(&mut peers);
    assert_eq!(asked(&peers), ["m", "m-wafer", "m-wafer", "m"]);
    read(&mut peers);
    ask(&mut peers);
    let (ahead, turn) = (body(&peers, 3), body(&peers, 4));
    let (ahead, turn) = (ahead["messages"].as_array().unwrap(), turn["messages"].as_array().unwrap());
    assert_eq!(ahead[..5], turn[..5]);
    assert_eq!((&ahead[4]["role"], &ahead[5]["role"]), (&json!("assistant"), &json!("user")));
    says(&mut peers);
    assert_eq!(peers.outcomes.last().unwrap().read_ahead.0, [0, 36, 0]);
    peers.finish_and_check();
}

#[test]
fn what_is_new_has_a_minimum_and_a_maximum() {
    // The first plan is some 80 tokens, what is new to the first tier behind the tool's output some 40.
    for (tokens_min, tokens_max, expected) in [
        (60, 10_000, vec!["m", "m-wafer", "m-wafer"]),
        (1, 60, vec!["m", "m-wafer", "m"]),
        (1_000, 10_000, vec!["m", "m-wafer"]),
    ] {
        let queue = Queueing { handover_tokens_min: tokens_min, prefill_tokens_max: tokens_max, ..reading() };
        let mut peers = Peers::behind_on(&each(&queue), split());
        ask(&mut peers);
        calls(&mut peers);
        if peers.sent.len() > 1 {
            read(&mut peers);
        }
        answer_tools(&mut peers);
        says(&mut peers);
        assert_eq!(asked(&peers), expected, "{tokens_min}");
        peers.finish_and_check();
    }
}

#[test]
fn the_turn_that_goes_there_waits_for_it_and_no_longer_than_it_may_take() {
    for is_read in [true, false] {
        let mut peers = planned();
        answer_tools(&mut peers);
        assert_eq!(peers.sent.len(), 2, "the engine reads what they share, once");
        match is_read {
            true => read(&mut peers),
            false => peers.apply(Step::Pass6S),
        }
        let end = if is_read { PrefillEnd::Completed } else { PrefillEnd::Cancelled };
        assert_eq!(peers.prefilled[0].end, end);
        assert_eq!(asked(&peers)[2..], ["m-wafer"]);
        says(&mut peers);
        assert_eq!(peers.outcomes.last().unwrap().read_ahead.0, [0, if is_read { 36 } else { 0 }, 0]);
        peers.finish_and_check();
    }
}

#[test]
fn a_turn_that_goes_elsewhere_waits_for_nothing_and_has_it_stopped() {
    let others: [fn(&mut Peers); 3] = [
        // The user speaks while the tool runs.
        ask,
        // The client begins anew.
        |peers| peers.apply(Step::Create),
        |peers| peers.message(r#"{"type":"response.create","model":"small","input":"hi","store":false}"#),
    ];
    for other in others {
        let mut peers = planned();
        other(&mut peers);
        assert_eq!(peers.prefilled[0].end, PrefillEnd::Cancelled);
        assert_eq!(peers.sent.len(), 3);
        says(&mut peers);
        let peers = peers.finish_and_check();
        assert!(peers.outcomes.iter().all(|outcome| outcome.read_ahead.0 == [0; 3]));
    }
}

#[test]
fn a_turn_of_another_lane_waits_for_nothing_and_leaves_it_alone() {
    let mut peers = planned();
    peers.apply(Step::CreateInA);
    assert_eq!((peers.sent.len(), peers.prefilled.len()), (3, 0));
    peers.finish_and_check();
}

#[test]
fn one_that_is_not_used_at_once_is_used_when_its_turn_comes() {
    let mut peers = planned();
    read(&mut peers);
    ask(&mut peers);
    calls(&mut peers);
    // Some of what the latency tier lacks now came since.
    assert_eq!(asked(&peers), ["m", "m-wafer", "m", "m-wafer"]);
    read(&mut peers);
    answer_tools(&mut peers);
    says(&mut peers);
    assert_eq!(peers.outcomes.last().unwrap().read_ahead.0, [0, 72, 0]);
    peers.finish_and_check();
}

#[test]
fn who_has_its_next_request_waiting_and_who_leaves_has_nothing_read() {
    let mut peers = Peers::behind_on(&each(&reading()), split());
    ask(&mut peers);
    peers.apply(Step::Opened);
    peers.apply(Step::Create);
    peers.apply(Step::Call);
    peers.apply(Step::Finish);
    assert!(!peers.effects.iter().any(|effect| effect == "Prepare"), "{:?}", peers.effects);
    peers.finish_and_check();
    for end in [Step::Drain, Step::Revoke, Step::ClientGone] {
        let mut peers = planned();
        peers.apply(end);
        assert_eq!(peers.prefilled.first().map(|one| one.end), Some(PrefillEnd::Cancelled), "{end:?}");
        peers.finish_and_check();
    }
}

/// The only slot of the latency tier is held for long, and another turn waits for it.
fn waits() -> Peers {
    let narrow = |queue: Queueing| Queueing { concurrency_max: NonZeroU32::new(1), wait_ms_max: 1_000, ..queue };
    let queue = PerTier { latency: narrow(Queueing::default()), throughput: narrow(reading()) };
    let mut peers = Peers::behind(&Settings { queue, ..Settings::default() });
    for step in [Step::Create, Step::Opened, Step::Text, Step::Pass6S, Step::CreateInA] {
        peers.apply(step);
    }
    assert_eq!((peers.sent.len(), peers.watch.places.len()), (1, 1));
    peers
}

#[test]
fn a_turn_that_waits_long_enough_is_read_where_it_would_go_on_to() {
    let mut peers = waits();
    peers.apply(Step::Pass300Ms);
    assert_eq!(asked(&peers), ["m-wafer", "m"]);
    assert_eq!(body(&peers, 1)["max_completion_tokens"], 1);
    read(&mut peers);
    assert_eq!((peers.prefilled[0].end, peers.prefilled[0].leave.cause.name()), (PrefillEnd::Completed, "queue"));
    for _ in 0..3 {
        peers.apply(Step::Pass300Ms);
    }
    assert_eq!(asked(&peers), ["m-wafer", "m", "m"], "and there it goes");
    assert_eq!(body(&peers, 1)["messages"], body(&peers, 2)["messages"]);
    says(&mut peers);
    assert_eq!(peers.outcomes.last().unwrap().read_ahead.0, [0, 0, 36]);
    peers.finish_and_check();
}

#[test]
fn a_turn_that_waits_no_longer_ends_its_reading() {
    let ends: [fn(&mut Peers); 4] = [
        // It goes on there while that is read still, or has its place after all.
        |peers| (0..3).for_each(|_| peers.apply(Step::Pass300Ms)),
        |peers| {
            peers.apply(Step::Switch);
            peers.apply(Step::Finish);
        },
        |peers| peers.apply(Step::Revoke),
        |peers| peers.apply(Step::ClientGone),
    ];
    for (index, end) in ends.into_iter().enumerate() {
        let mut peers = waits();
        peers.apply(Step::Pass300Ms);
        assert_eq!(peers.sent.len(), 2);
        end(&mut peers);
        assert_eq!(peers.prefilled.first().map(|one| one.end), Some(PrefillEnd::Cancelled), "{index}");
        let went = asked(&peers).get(2).cloned();
        assert_eq!(went.as_deref(), [Some("m"), Some("m-wafer"), None, None][index]);
        let peers = peers.finish_and_check();
        assert!(peers.outcomes.iter().all(|outcome| outcome.read_ahead.0 == [0; 3]));
    }
}

#[test]
fn a_turn_that_is_foretold_to_have_its_place_in_time_is_read_nowhere() {
    let narrow = |queue: Queueing| Queueing { concurrency_max: NonZeroU32::new(1), wait_ms_max: 60_000, ..queue };
    let queue = PerTier { latency: narrow(Queueing::default()), throughput: narrow(reading()) };
    let mut peers = Peers::behind(&Settings { queue, ..Settings::default() });
    for step in [Step::Create, Step::Opened, Step::Text, Step::CreateInA, Step::Pass300Ms, Step::Pass300Ms] {
        peers.apply(step);
    }
    assert_eq!(peers.sent.len(), 1);
    assert_eq!(peers.effects.iter().filter(|effect| *effect == "Prepare").count(), 1, "it is asked once");
    peers.finish_and_check();
}

/// With handovers, and with one slot of each tier, so that turns wait as well.
fn narrow() -> Settings {
    each(&Queueing { concurrency_max: NonZeroU32::new(1), wait_ms_max: 1_000, ..reading() })
}

#[test]
fn every_short_script_of_conversations_that_go_over_leaves_nothing_behind() {
    for settings in [each(&reading()), narrow()] {
        for first in STEPS {
            for second in STEPS {
                let mut peers = Peers::behind_on(&settings, split());
                ask(&mut peers);
                calls(&mut peers);
                peers.apply(first);
                answer_tools(&mut peers);
                peers.apply(second);
                peers.finish_and_check();
            }
        }
    }
}

#[test]
fn seeded_long_scripts_of_conversations_that_go_over_leave_nothing_behind() {
    let (mut completed, mut used) = ([0_usize; 3], [0_u64; 3]);
    let settings = [each(&reading()), narrow()];
    for seed in 0..SEEDS / 10 {
        let mut peers = Peers::behind_on(&settings[usize::from(seed % 2 == 0)], split());
        for (index, step) in seeded(seed).into_iter().enumerate() {
            match index % 12 {
                3 => ask(&mut peers),
                5 => calls(&mut peers),
                6 if seed % 3 != 0 => read(&mut peers),
                8 => answer_tools(&mut peers),
                _ => {}
            }
            peers.apply(step);
        }
        let peers = peers.finish_and_check();
        let mut tokens = [0; 3];
        for one in peers.prefilled.iter().filter(|one| one.end == PrefillEnd::Completed) {
            completed[one.leave.cause.index()] += 1;
            tokens[one.leave.cause.index()] += one.usage.input - one.usage.cached;
        }
        for outcome in &peers.outcomes {
            for (cause, of_turn) in outcome.read_ahead.0.into_iter().enumerate() {
                used[cause] += of_turn;
                tokens[cause] = tokens[cause].checked_sub(of_turn).expect("no more is used than was read");
            }
        }
    }
    println!("read to the end by cause {completed:?}, tokens of it used {used:?}");
    assert!(completed[1] > 0 && used[1] > 0 && completed[2] > 0, "no script let one end well");
}
