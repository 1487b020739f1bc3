//! A model's guard: what it is asked about, what is held for it, and how its word ends or frees a turn.

use crate::peer::{Peers, STEPS, Step, fleet};
use crate::scripts::{SEEDS, seeded};
use flashlane_engine::guard::{Course, Guard, Otherwise, Policy, Ruling, Word};
use flashlane_engine::{Ended, ErrorKind, Fleet, Stage, UpstreamEvent, UpstreamFailure};
use serde_json::{Value, json};
use std::sync::Arc;

fn guarded(otherwise: Otherwise) -> Peers {
    Peers::on(guarded_fleet(otherwise))
}

fn guarded_fleet(otherwise: Otherwise) -> Fleet {
    let mut fleet = fleet();
    let guard = Guard { name: "policy".into(), mark: mark(), deadline_ms: 1_000, otherwise };
    // `small` has none.
    fleet.models[0].guard = Some(Arc::new(guard));
    fleet
}

fn mark() -> u64 {
    Guard::mark_of("policy", "http://guard")
}

const REFUSE: Ruling = Ruling::Refuse { because: Policy::CyberPolicy, message: None };

fn missing() -> Ruling {
    Ruling::Missing { reason: "cannot connect".to_owned() }
}

fn create(model: &str, text: &str, more: &str) -> String {
    format!(
        r#"{{"type":"response.create","model":"{model}","input":[{{"role":"user","content":"{text}"}}],"store":false{more}}}"#
    )
}

fn previous(peers: &Peers) -> String {
    format!(r#","previous_response_id":"{}""#, peers.watch.ended.last().unwrap())
}

/// What the guard was asked last about: the texts of the input.
fn asked(peers: &Peers) -> Vec<String> {
    let body: Value = serde_json::from_slice(&peers.inquiries.last().unwrap().1.body).unwrap();
    let text = |item: &Value| {
        let content = &item["content"];
        content.as_str().or(content[0]["text"].as_str()).unwrap_or("?").to_owned()
    };
    body["input"].as_array().unwrap().iter().map(text).collect()
}

/// A turn after these steps, of a model whose guard has said nothing yet.
fn turn(otherwise: Otherwise, steps: &[Step]) -> Peers {
    let mut peers = guarded(otherwise);
    peers.message(&create("m", "hi", ""));
    steps.iter().for_each(|&step| peers.apply(step));
    peers
}

/// Its answer has begun.
const HELD: &[Step] = &[Step::Opened, Step::Text];
/// The same, and its guard has had its time.
const LATE: &[Step] = &[Step::Opened, Step::Text, Step::Pass6S];

fn deltas(peers: &Peers) -> usize {
    peers.watch.events.iter().filter(|event| event["type"] == "response.output_text.delta").count()
}

fn answer(peers: &mut Peers) {
    for step in [Step::Opened, Step::Text, Step::Text, Step::Finish] {
        peers.apply(step);
    }
}

fn failed(peers: &Peers) -> &Value {
    let event = peers.watch.events.last().unwrap();
    if event["type"] == "response.failed" { &event["response"]["error"] } else { &event["error"] }
}

#[test]
fn the_request_goes_out_at_once_and_its_answer_is_held_until_the_verdict() {
    let mut peers = turn(Otherwise::Refuse, &[]);
    assert_eq!((peers.inquiries.len(), peers.sent.len()), (1, 1));
    let body: Value = serde_json::from_slice(&peers.inquiries[0].1.body).unwrap();
    assert_eq!((&body["model"], &body["input"]), (&json!("m"), &json!([{"role": "user", "content": "hi"}])));
    answer(&mut peers);
    assert_eq!((deltas(&peers), peers.watch.ended.len()), (0, 0), "nothing of it is told");
    peers.rule(Ruling::Pass);
    assert_eq!((deltas(&peers), peers.watch.ended.len()), (2, 1), "all of it is");
    assert_eq!(peers.inquiries[0].1.guard, mark());
    peers.finish_and_check();
}

#[test]
fn a_verdict_that_is_there_first_holds_nothing() {
    let mut peers = turn(Otherwise::Refuse, &[]);
    peers.rule(Ruling::Pass);
    peers.apply(Step::Opened);
    peers.apply(Step::Text);
    assert_eq!(deltas(&peers), 1);
    peers.apply(Step::Finish);
    assert_eq!(peers.outcomes[0].parts.of(Stage::Guard), 0);
    peers.finish_and_check();
}

#[test]
fn what_it_was_held_for_is_a_stage_of_its_own() {
    let mut peers = turn(Otherwise::Refuse, &[Step::Opened, Step::Text, Step::Pass300Ms]);
    peers.rule(Ruling::Pass);
    peers.apply(Step::Finish);
    assert!(peers.outcomes[0].parts.of(Stage::Guard) >= 300_000_000, "{:?}", peers.outcomes[0].parts);
    assert!(peers.outcomes[0].ttft_ns.unwrap() >= 300_000_000);
    peers.finish_and_check();
}

#[test]
fn a_refusal_ends_the_turn_wherever_it_stands_and_stops_the_upstream() {
    let before: [&[Step]; 4] =
        [&[], &[Step::Opened], &[Step::Opened, Step::Text], &[Step::Opened, Step::Text, Step::Finish, Step::EndOfBody]];
    for steps in before {
        for (because, code, kind) in [
            (Policy::CyberPolicy, "cyber_policy", ErrorKind::CyberPolicy),
            (Policy::InvalidPrompt, "invalid_prompt", ErrorKind::InvalidPrompt),
        ] {
            let mut peers = turn(Otherwise::Pass, steps);
            peers.rule(Ruling::Refuse { because, message: Some("not this".to_owned()) });
            assert_eq!(peers.outcomes[0].error, Some(kind), "{steps:?}");
            assert_eq!(deltas(&peers), 0);
            assert_eq!((&failed(&peers)["code"], &failed(&peers)["message"]), (&json!(code), &json!("not this")));
            assert!(peers.effects.iter().any(|effect| effect == "Abort"), "{steps:?}");
            peers.finish_and_check();
        }
    }
}

#[test]
fn a_refused_turn_whose_answer_had_begun_pays_for_its_input() {
    for (step, input) in [(Step::Opened, 0), (Step::Text, 1)] {
        let mut peers = turn(Otherwise::Refuse, &[Step::Opened]);
        peers.apply(step);
        peers.rule(REFUSE);
        assert_eq!(u64::from(peers.endings[0].tokens_input > 0), input, "{step:?}");
        assert_eq!(peers.outcomes[0].usage.input, peers.endings[0].tokens_input, "the ledger has what its limits have");
        peers.finish_and_check();
    }
}

#[test]
fn without_a_verdict_in_time_the_config_decides() {
    for ruling in [None, Some(missing())] {
        let mut peers = turn(Otherwise::Refuse, HELD);
        match ruling.clone() {
            Some(ruling) => peers.rule(ruling),
            None => peers.apply(Step::Pass6S),
        }
        assert_eq!(peers.outcomes[0].error, Some(ErrorKind::GuardUnavailable));
        peers.finish_and_check();

        let mut peers = turn(Otherwise::Pass, HELD);
        match ruling {
            Some(ruling) => peers.rule(ruling),
            None => peers.apply(Step::Pass6S),
        }
        assert_eq!(deltas(&peers), 1);
        peers.apply(Step::Finish);
        assert_eq!(peers.watch.ended.len(), 1);
        peers.finish_and_check();
    }
}

/// A turn up to its ruling, what comes then, and what is told of it.
type Case<'a> = (Otherwise, &'a [Step], Option<Ruling>, Step, (Word, Course));

#[test]
fn what_came_of_asking_is_told_when_the_turn_ends() {
    use Otherwise::{Pass, Refuse};
    let cases: [Case<'_>; 11] = [
        (Refuse, HELD, Some(Ruling::Pass), Step::Finish, (Word::Passed, Course::WentOn)),
        (Pass, HELD, Some(REFUSE), Step::Finish, (Word::Refused, Course::Refused)),
        (Refuse, HELD, Some(missing()), Step::Finish, (Word::Failed, Course::Refused)),
        (Pass, HELD, Some(missing()), Step::Finish, (Word::Failed, Course::WentOn)),
        (Refuse, LATE, None, Step::Finish, (Word::TimedOut, Course::Refused)),
        (Refuse, &[], Some(Ruling::Overdue), Step::Finish, (Word::TimedOut, Course::Refused)),
        (Pass, LATE, None, Step::Finish, (Word::TimedOut, Course::WentOn)),
        (Pass, LATE, Some(Ruling::Pass), Step::Finish, (Word::TimedOut, Course::WentOn)),
        (Pass, LATE, Some(Ruling::Overdue), Step::Finish, (Word::TimedOut, Course::WentOn)),
        (Pass, LATE, Some(REFUSE), Step::Finish, (Word::Refused, Course::Refused)),
        (Refuse, HELD, None, Step::Interrupt, (Word::NotAwaited, Course::Ended)),
    ];
    for (otherwise, steps, ruling, last, (word, course)) in cases {
        let told = format!("{otherwise:?} {steps:?} {ruling:?}");
        let mut peers = turn(otherwise, steps);
        ruling.into_iter().for_each(|ruling| peers.rule(ruling));
        peers.apply(last);
        let guarded = peers.outcomes[0].guard.as_deref().unwrap();
        assert_eq!((&*guarded.guard, guarded.word, guarded.course), ("policy", word, course), "{told}");
        assert_eq!(guarded.reason.is_some(), word.is_missing(), "{told}");
        let late_ns = if steps == LATE { 6_000_000_000 } else { 0 };
        assert!((late_ns..late_ns + 1_000_000_000).contains(&guarded.took_ns()), "{told}: {}", guarded.took_ns());
        peers.finish_and_check();
    }
}

#[test]
fn a_refusal_behind_an_answer_that_is_being_stored_is_noted_and_ends_nothing() {
    let mut peers = guarded(Otherwise::Pass);
    let steps = [Step::CreateStored, Step::Opened, Step::Text, Step::Pass6S, Step::Finish];
    steps.into_iter().for_each(|step| peers.apply(step));
    peers.rule(REFUSE);
    peers.apply(Step::Committed);
    let asked = peers.outcomes[0].guard.as_deref().unwrap();
    assert_eq!((asked.word, asked.course, peers.watch.ended.len()), (Word::Refused, Course::WentOn, 1));
    peers.finish_and_check();
}

#[test]
fn who_has_no_guard_has_nothing_of_one() {
    let mut peers = guarded(Otherwise::Refuse);
    peers.message(&create("small", "no guard", ""));
    answer(&mut peers);
    assert!(peers.outcomes[0].guard.is_none());
    peers.finish_and_check();
}

#[test]
fn a_refusal_that_comes_late_still_ends_the_turn() {
    let mut peers = turn(Otherwise::Pass, LATE);
    assert_eq!(deltas(&peers), 1);
    peers.rule(REFUSE);
    assert_eq!(failed(&peers)["code"], "cyber_policy");
    peers.finish_and_check();
}

#[test]
fn a_guard_that_is_late_in_the_queue_is_late_when_the_upstream_answers() {
    let peers = turn(Otherwise::Pass, &[Step::Pass6S, Step::Opened, Step::Text]);
    assert_eq!(deltas(&peers), 1);
    peers.finish_and_check();
}

#[test]
fn it_is_given_what_is_new_alone() {
    let mut peers = guarded(Otherwise::Refuse);
    peers.message(&create("m", "one", ""));
    peers.rule(Ruling::Pass);
    answer(&mut peers);
    peers.message(&create("m", "two", &previous(&peers)));
    assert_eq!(asked(&peers), ["two"], "neither what it passed nor the model's own answer");
    peers.rule(Ruling::Pass);
    answer(&mut peers);
    peers.message(&create("m", "three", &previous(&peers)));
    assert_eq!(asked(&peers), ["three"]);
    peers.finish_and_check();
}

#[test]
fn what_it_has_not_seen_is_not_hidden_by_a_warm_up_or_another_model() {
    let mut peers = guarded(Otherwise::Refuse);
    peers.message(&create("m", "warm", r#","generate":false"#));
    assert!(peers.inquiries.is_empty(), "nothing is made of it yet");
    peers.message(&create("m", "then", &previous(&peers)));
    assert_eq!(asked(&peers), ["warm", "then"]);
    peers.finish_and_check();

    let mut peers = guarded(Otherwise::Refuse);
    peers.message(&create("small", "elsewhere", ""));
    answer(&mut peers);
    assert!(peers.inquiries.is_empty(), "that model has no guard");
    peers.message(&create("m", "here", &previous(&peers)));
    assert_eq!(asked(&peers), ["elsewhere", "a\na\n", "here"]);
    peers.finish_and_check();
}

#[test]
fn what_was_passed_over_is_asked_about_again() {
    let mut peers = guarded(Otherwise::Pass);
    peers.message(&create("m", "one", ""));
    peers.rule(missing());
    answer(&mut peers);
    peers.message(&create("m", "two", &previous(&peers)));
    assert_eq!(asked(&peers).first().map(String::as_str), Some("one"));
    peers.finish_and_check();
}

#[test]
fn a_whole_history_that_comes_again_is_known_and_a_refused_one_is_not() {
    let long = "x".repeat(5_000);
    let history = |more: &str| {
        format!(
            r#"{{"type":"response.create","model":"m","store":false,"input":[{{"role":"user","content":"{long}"}}{more}]}}"#
        )
    };
    for (ruling, known) in [(Ruling::Pass, true), (REFUSE, false)] {
        let mut peers = guarded(Otherwise::Refuse);
        peers.message(&history(""));
        peers.rule(ruling);
        answer(&mut peers);
        peers.message(&history(r#",{"role":"assistant","content":"yes"},{"role":"user","content":"more"}"#));
        let texts = asked(&peers);
        assert_eq!(texts.len(), if known { 2 } else { 3 }, "{known}");
        assert_eq!(texts.last().map(String::as_str), Some("more"));
        peers.finish_and_check();
    }
}

#[test]
fn instructions_are_new_once() {
    let mut peers = guarded(Otherwise::Refuse);
    let with = |text: &str| create("m", "hi", &format!(r#","instructions":"{text}""#));
    for (text, is_new) in [("be brief", true), ("be brief", false), ("be loud", true)] {
        peers.message(&with(text));
        let body: Value = serde_json::from_slice(&peers.inquiries.last().unwrap().1.body).unwrap();
        assert_eq!(body.get("instructions").is_some(), is_new, "{text}");
        peers.rule(Ruling::Pass);
        answer(&mut peers);
    }
    peers.finish_and_check();
}

#[test]
fn a_stored_response_that_it_passed_is_known_when_it_is_loaded() {
    let mut peers = guarded(Otherwise::Refuse);
    peers.apply(Step::CreateStored);
    peers.rule(Ruling::Pass);
    answer(&mut peers);
    peers.apply(Step::Committed);
    let stored = previous(&peers);
    // The connection remembers the latest response, and has others loaded.
    peers.message(&create("m", "between", ""));
    peers.rule(Ruling::Pass);
    answer(&mut peers);
    peers.message(&create("m", "then", &stored));
    assert!(peers.effects.iter().any(|effect| effect == "Load"), "{:?}", peers.effects);
    assert_eq!(asked(&peers), ["then"]);
    peers.finish_and_check();
}

#[test]
fn an_endpoint_that_fails_while_nothing_came_is_left_for_another() {
    let mut peers = turn(Otherwise::Refuse, &[Step::Opened]);
    peers.upstream(UpstreamEvent::Ended(Ended::Failed(UpstreamFailure::Cut { reason: "gone".to_owned() })));
    assert_eq!((peers.sent.len(), peers.inquiries.len()), (2, 1), "another endpoint, and no second question");
    answer(&mut peers);
    peers.rule(Ruling::Pass);
    assert_eq!(peers.watch.ended.len(), 1);
    peers.finish_and_check();
}

#[test]
fn a_cut_within_what_is_held_is_found_when_it_is_read() {
    let mut peers = turn(Otherwise::Refuse, &[Step::Opened, Step::Text, Step::Cut]);
    peers.rule(Ruling::Pass);
    assert_eq!(deltas(&peers), 1);
    assert_eq!(failed(&peers)["code"], "server_error", "what was cut is never whole");
    peers.finish_and_check();
}

/// Steps with a verdict before one of them, and the same once more at the end.
fn run(otherwise: Otherwise, steps: [Step; 3], (ruling, at): (&Ruling, usize)) {
    let mut peers = guarded(otherwise);
    for (index, step) in steps.into_iter().enumerate() {
        if index == at {
            peers.rule(ruling.clone());
        }
        peers.apply(step);
    }
    peers.rule(ruling.clone());
    peers.finish_and_check();
}

#[test]
fn every_short_script_with_any_verdict_at_any_time_leaves_nothing_behind() {
    let last = [Step::Opened, Step::Text, Step::Finish, Step::Cut, Step::Pass6S, Step::Interrupt];
    let scripts = STEPS.into_iter().flat_map(|first| last.map(|last| [Step::CreateStored, first, last]));
    for steps in scripts {
        for ruling in [Ruling::Pass, REFUSE, missing()] {
            for at in 0..=3 {
                run(Otherwise::Pass, steps, (&ruling, at));
                run(Otherwise::Refuse, steps, (&ruling, at));
            }
        }
    }
}

#[test]
fn seeded_long_scripts_with_verdicts_leave_nothing_behind() {
    let mut ended = 0;
    for seed in 0..SEEDS / 10 {
        let mut peers = guarded(if seed % 2 == 0 { Otherwise::Pass } else { Otherwise::Refuse });
        for (index, step) in seeded(seed).into_iter().enumerate() {
            peers.apply(step);
            match (seed as usize).wrapping_mul(31).wrapping_add(index * 7) % 11 {
                0 | 1 => peers.rule(Ruling::Pass),
                2 => peers.rule(REFUSE),
                3 => peers.rule(missing()),
                _ => {}
            }
        }
        ended += peers.finish_and_check().watch.ended.len();
    }
    assert!(ended > 0, "no script let a turn end well");
}

#[test]
fn a_guard_that_a_config_brings_meanwhile_has_passed_nothing() {
    let mut peers = Peers::new();
    peers.apply(Step::CreateStored);
    peers.adopt(guarded_fleet(Otherwise::Refuse));
    answer(&mut peers);
    peers.apply(Step::Committed);
    let stored = previous(&peers);
    peers.message(&create("m", "between", ""));
    peers.rule(Ruling::Pass);
    answer(&mut peers);
    peers.message(&create("m", "then", &stored));
    assert_eq!(asked(&peers), ["hi", "a\na\n", "then"], "what was answered without it is new to it");
    peers.finish_and_check();
}
