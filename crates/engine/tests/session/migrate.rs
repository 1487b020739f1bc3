//! A turn that goes on at another endpoint after its first token: one sequence of events, whatever was being made.

mod chat;

use crate::peer::{Peers, Step};
use flashlane_engine::migration::{Exactness, Reason, Splice};
use flashlane_engine::{
    Continues, Ended, Endpoint, EndpointId, Fleet, Now, Session, Status, Tier, UpstreamEvent, UpstreamFailure,
};
use serde_json::{Value, json};

/// A wafer and two GPUs that all have the same model; a turn may migrate so often.
pub fn fleet(migrations_max: u8) -> Fleet {
    let mut fleet = crate::peer::fleet();
    fleet.models.iter_mut().for_each(|model| {
        model.upstream_latency = None;
        model.routing.migrations_max = migrations_max;
    });
    let third = Endpoint { name: "gpu-2".into(), ..fleet.endpoints[1].clone() };
    fleet.endpoints.push(third);
    fleet.endpoints.iter_mut().for_each(|endpoint| {
        endpoint.continues = Continues { by_prefill: true, identity: Some("same".into()) };
    });
    fleet
}

fn on(fleet: Fleet, fields: &str) -> Peers {
    let mut peers = Peers::on(fleet);
    let tools = r#""tools":[{"type":"function","name":"run","parameters":{}},{"type":"custom","name":"patch"},{"type":"function","name":"look","parameters":{}}]"#;
    peers.message(&format!(r#"{{"type":"response.create","model":"m","input":"hi","store":false,{tools}{fields}}}"#));
    peers.apply(Step::Opened);
    peers
}

/// A turn whose answer has begun.
fn begun(fields: &str) -> Peers {
    on(fleet(1), fields)
}

fn last_body(peers: &Peers) -> Value {
    serde_json::from_str(&peers.sent.last().unwrap().1).unwrap()
}

fn kinds(peers: &Peers) -> Vec<&str> {
    peers.watch.events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

fn response(peers: &Peers) -> &Value {
    &peers.watch.events.last().unwrap()["response"]
}

fn splices(peers: &Peers) -> &[Splice] {
    &peers.outcomes.last().unwrap().splices
}

fn text(peers: &mut Peers, text: &str) {
    peers.delta(&json!({"content": text}).to_string());
}

fn call(peers: &mut Peers, id: &str, name: &str, arguments: &str) {
    let call = json!({"index": 0, "id": id, "function": {"name": name, "arguments": arguments}});
    peers.delta(&json!({"tool_calls": [call]}).to_string());
}

fn arguments(peers: &mut Peers, arguments: &str) {
    peers.delta(&json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}).to_string());
}

/// The endpoint is gone, and the next one answers.
fn cut(peers: &mut Peers) {
    peers.apply(Step::Cut);
    peers.apply(Step::Opened);
}

#[test]
fn text_goes_on_in_its_item() {
    let mut peers = begun(r#","temperature":0,"max_output_tokens":40"#);
    text(&mut peers, "Grüße \"a\"\n");
    text(&mut peers, "b ");
    cut(&mut peers);
    let body = last_body(&peers);
    let messages = body["messages"].as_array().unwrap();
    assert_eq!(messages.last().unwrap(), &json!({"role": "assistant", "content": "Grüße \"a\"\nb "}));
    assert_eq!(body["max_completion_tokens"], 38, "what was made is made");
    text(&mut peers, "c");
    peers.finish("stop");
    let peers = peers.finish_and_check();
    assert_eq!(
        kinds(&peers),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let response = response(&peers);
    assert_eq!(response["output"][0]["content"][0]["text"], "Grüße \"a\"\nb c");
    assert_eq!(response["service_tier"], "default", "who served it last");
    let outcome = &peers.outcomes[0];
    assert_eq!((outcome.status, outcome.deltas, outcome.attempts.len()), (Status::Completed, 3, 2));
    let usage = &response["usage"];
    assert_eq!(usage["output_tokens"], 5, "two of the first, three of the second");
    assert!(usage["input_tokens"].as_u64().unwrap() > 7, "both have read it: {usage}");
    assert_eq!((outcome.usage.input, outcome.usage.output), (usage["input_tokens"].as_u64().unwrap(), 5));
    let splice = Splice {
        from: "wafer".into(),
        to: splices(&peers)[0].to.clone(),
        reason: Reason::Cut,
        output_index: 0,
        bytes: 14,
        exactness: Exactness::Whitespace,
    };
    assert_eq!(splices(&peers), [splice]);
    assert!(splices(&peers)[0].to.as_deref().is_some_and(|to| to.starts_with("gpu")));
    assert_eq!(outcome.failed().count(), 1);
}

#[test]
fn what_is_not_exact_says_why() {
    let unlike = || {
        let mut fleet = fleet(1);
        fleet.endpoints[0].continues.identity = Some("other".into());
        fleet
    };
    let unnamed = || {
        let mut fleet = fleet(1);
        fleet.endpoints.iter_mut().for_each(|endpoint| endpoint.continues.identity = None);
        fleet
    };
    let greedy = r#","temperature":0.0"#;
    for (fleet, fields, why) in [
        (fleet(1), greedy, None),
        (fleet(1), "", Some("sampling")),
        (fleet(1), r#","temperature":0.7"#, Some("sampling")),
        (fleet(1), r#","temperature":0,"presence_penalty":0.5"#, Some("sampling")),
        (unlike(), greedy, Some("identity")),
        (unnamed(), greedy, Some("identity")),
    ] {
        let mut peers = on(fleet, fields);
        text(&mut peers, "a");
        cut(&mut peers);
        text(&mut peers, "b");
        peers.finish("stop");
        assert_eq!(splices(&peers)[0].exactness.why(), why, "{fields}");
    }
}

#[test]
fn where_it_may_not_the_turn_fails_as_ever() {
    let fallible = |change: &dyn Fn(&mut Fleet), fields: &str| {
        let mut fleet = fleet(1);
        change(&mut fleet);
        let mut peers = on(fleet, fields);
        text(&mut peers, "a");
        peers.apply(Step::Cut);
        let peers = peers.finish_and_check();
        (kinds(&peers).last().unwrap().to_string(), peers.sent.len(), splices(&peers).len())
    };
    let failed = |sent, splices| ("response.failed".to_owned(), sent, splices);
    assert_eq!(fallible(&|fleet| fleet.models[0].routing.migrations_max = 0, ""), failed(1, 0));
    let mute = |fleet: &mut Fleet| {
        fleet.endpoints.iter_mut().for_each(|endpoint| endpoint.continues.by_prefill = false);
    };
    assert_eq!(fallible(&mute, ""), failed(1, 1), "no engine goes on with a text");
    let other = |fleet: &mut Fleet| fleet.models[0].upstream_latency = Some("smaller".into());
    assert_eq!(fallible(&other, ""), failed(1, 1), "the other tier has another model");
    let shaped = r#","text":{"format":{"type":"json_schema","name":"s","schema":{"type":"object"}}}"#;
    assert_eq!(fallible(&|_| {}, shaped), failed(1, 0), "half of a shape is no beginning of one");
}

#[test]
fn the_same_model_of_one_tier_is_found_in_that_tier() {
    let mut fleet = fleet(1);
    fleet.models[0].upstream_latency = Some("smaller".into());
    fleet.models[0].route = flashlane_engine::Route::ThroughputFirst;
    let mut peers = on(fleet, "");
    text(&mut peers, "a");
    cut(&mut peers);
    text(&mut peers, "b");
    peers.finish("stop");
    assert_eq!(response(&peers)["output"][0]["content"][0]["text"], "ab");
    assert_eq!(peers.outcomes[0].tier, Some(Tier::Throughput));
}

#[test]
fn thoughts_that_were_cut_end_and_are_thought_anew() {
    let mut peers = begun(r#","temperature":0"#);
    peers.apply(Step::Reasoning);
    cut(&mut peers);
    assert_eq!(last_body(&peers)["messages"].as_array().unwrap().len(), 1, "as if nothing had been said");
    peers.apply(Step::Reasoning);
    text(&mut peers, "b");
    peers.finish("stop");
    let peers = peers.finish_and_check();
    let output = &response(&peers)["output"];
    let told: Vec<_> =
        output.as_array().unwrap().iter().map(|item| (item["type"].clone(), item["status"].clone())).collect();
    assert_eq!(
        told,
        [("reasoning", "incomplete"), ("reasoning", "completed"), ("message", "completed")]
            .map(|(a, b)| (json!(a), json!(b)))
    );
    assert_eq!(splices(&peers)[0].exactness.why(), Some("reasoning"));
}

#[test]
fn thoughts_need_no_engine_that_goes_on_with_a_text() {
    let mut fleet = fleet(1);
    fleet.endpoints.iter_mut().for_each(|endpoint| endpoint.continues.by_prefill = false);
    let mut peers = on(fleet, "");
    peers.apply(Step::Reasoning);
    cut(&mut peers);
    text(&mut peers, "b");
    peers.finish("stop");
    assert_eq!(response(&peers)["status"], "completed");
}

/// A call, cut where `given` ends, and made anew.
fn recalled(given: &str, anew: impl FnOnce(&mut Peers)) -> Peers {
    let mut peers = begun("");
    text(&mut peers, "Let me see.");
    call(&mut peers, "c0", "run", "");
    arguments(&mut peers, given);
    cut(&mut peers);
    let messages = last_body(&peers)["messages"].clone();
    assert_eq!(messages.as_array().unwrap().last().unwrap(), &json!({"role": "assistant", "content": "Let me see."}));
    anew(&mut peers);
    peers.finish("tool_calls");
    peers.finish_and_check()
}

/// The calls that a client runs: those that are done.
fn done(peers: &Peers) -> Vec<(String, String)> {
    let done = peers.watch.events.iter().filter(|event| event["type"] == "response.output_item.done");
    let calls = done.map(|event| &event["item"]).filter(|item| item["call_id"].is_string());
    calls
        .map(|item| {
            let body = item["arguments"].as_str().or(item["input"].as_str()).unwrap();
            (item["call_id"].as_str().unwrap().to_owned(), body.to_owned())
        })
        .collect()
}

const ARGUMENTS: &str = r#"{"cmd":"ls é \n -l"}"#;

#[test]
fn a_call_that_is_repeated_goes_on_in_its_item_wherever_it_was_cut() {
    for at in (0..=ARGUMENTS.len()).filter(|at| ARGUMENTS.is_char_boundary(*at)) {
        for step in [1, 3, 100] {
            let peers = recalled(&ARGUMENTS[..at], |peers| {
                call(peers, "c9", "run", "");
                let chars: Vec<char> = ARGUMENTS.chars().collect();
                chars.chunks(step).for_each(|piece| arguments(peers, &piece.iter().collect::<String>()));
            });
            assert_eq!(done(&peers), [("c0".to_owned(), ARGUMENTS.to_owned())], "{at}, {step}");
            assert!(!kinds(&peers).contains(&"response.output_item.interrupted"));
            assert_eq!(response(&peers)["output"].as_array().unwrap().len(), 2);
            assert_eq!(splices(&peers)[0].exactness.why(), Some("tool_call"));
        }
    }
}

#[test]
fn a_call_that_differs_is_an_item_of_its_own_and_the_half_of_it_is_dropped() {
    type Anew = fn(&mut Peers);
    let cases: [(Anew, &str); 3] = [
        (|peers| call(peers, "c9", "run", r#"{"cmd":"pwd"}"#), r#"{"cmd":"pwd"}"#),
        (|peers| call(peers, "c9", "look", r#"{"cmd":"ls"}"#), r#"{"cmd":"ls"}"#),
        (
            |peers| {
                text(peers, "Or rather:");
                call(peers, "c9", "run", r#"{"cmd":"ls -l"}"#);
            },
            r#"{"cmd":"ls -l"}"#,
        ),
    ];
    for (anew, whole) in cases {
        let peers = recalled(r#"{"cmd":"ls "#, anew);
        assert_eq!(done(&peers), [("c9".to_owned(), whole.to_owned())]);
        let dropped = peers.watch.events.iter().find(|event| event["type"] == "response.output_item.interrupted");
        assert_eq!(dropped.unwrap()["output_index"], 1);
        let added: Vec<_> =
            peers.watch.events.iter().filter(|event| event["type"] == "response.output_item.added").collect();
        let ids: std::collections::BTreeSet<_> =
            added.iter().map(|event| event["item"]["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), added.len(), "no two have one id");
        let last = added.last().unwrap();
        assert_eq!(last["output_index"], added.len() - 1);
        assert!(last["item"]["id"].as_str().unwrap().ends_with(&format!("_{}", added.len() - 1)));
        assert_eq!(response(&peers)["output"].as_array().unwrap().len(), added.len() - 1);
    }
}

#[test]
fn a_message_that_ends_in_a_quotation_mark_is_told_as_it_is() {
    let said = r#""ls" or "pwd\" or "id""#;
    let mut peers = begun("");
    text(&mut peers, said);
    call(&mut peers, "c0", "run", "{");
    cut(&mut peers);
    assert_eq!(last_body(&peers)["messages"][1], json!({"role": "assistant", "content": said}));
}

#[test]
fn a_call_that_never_comes_again_is_dropped() {
    let peers = recalled(r#"{"cmd":"#, |peers| text(peers, "No."));
    assert_eq!(done(&peers), []);
    assert_eq!(response(&peers)["status"], "completed");
    let peers = recalled(r#"{"cmd":"#, |_| {});
    assert_eq!(done(&peers), []);
    assert_eq!(kinds(&peers)[kinds(&peers).len() - 2..], ["response.output_item.interrupted", "response.completed"]);
    assert!(splices(&peers)[0].to.is_some(), "it ended well");
}

#[test]
fn a_custom_tools_input_is_compared_as_its_client_has_it() {
    for (rest, dropped) in [(r#"n é\n two"}"#, 0), (r#"n Ende"}"#, 1)] {
        let mut peers = begun("");
        call(&mut peers, "c0", "patch", "");
        arguments(&mut peers, r#"{"input": "Begi"#);
        arguments(&mut peers, r#"n é"#);
        cut(&mut peers);
        call(&mut peers, "c9", "patch", r#"{ "inp"#);
        arguments(&mut peers, r#"ut":"Begi"#);
        arguments(&mut peers, rest);
        peers.finish("tool_calls");
        let peers = peers.finish_and_check();
        let given = format!("Begi{}", rest.trim_end_matches("\"}").replace("\\n", "\n"));
        let id = if dropped == 0 { "c0" } else { "c9" };
        assert_eq!(done(&peers), [(id.to_owned(), given)]);
        let interrupted = kinds(&peers).iter().filter(|kind| **kind == "response.output_item.interrupted").count();
        assert_eq!(interrupted, dropped);
    }
}

#[test]
fn behind_a_whole_call_nothing_goes_on() {
    let mut peers = begun("");
    call(&mut peers, "c0", "run", "{}");
    peers.delta(r#"{"tool_calls":[{"index":1,"id":"c1","function":{"name":"run","arguments":"{"}}]}"#);
    peers.apply(Step::Cut);
    let peers = peers.finish_and_check();
    assert_eq!(kinds(&peers).last(), Some(&"response.failed"));
    assert_eq!(peers.sent.len(), 1);
}

#[test]
fn who_was_to_go_on_and_fails_leaves_it_to_the_next() {
    let mut peers = on(fleet(1), "");
    text(&mut peers, "a");
    peers.apply(Step::Cut);
    peers.apply(Step::Refused400);
    assert_eq!(peers.sent.len(), 3, "what one engine makes of a continuation says nothing of the next");
    assert_eq!(last_body(&peers)["messages"][1]["content"], "a");
    peers.apply(Step::Opened);
    text(&mut peers, "b");
    peers.finish("stop");
    let peers = peers.finish_and_check();
    assert_eq!(response(&peers)["output"][0]["content"][0]["text"], "ab");
    assert_eq!(splices(&peers).len(), 1);
    assert_eq!(peers.outcomes[0].attempts.len(), 3);
}

#[test]
fn what_an_engine_says_of_a_continuation_in_its_stream_is_not_told() {
    let mut peers = on(fleet(1), "");
    text(&mut peers, "a");
    cut(&mut peers);
    let error = r#"data: {"error":{"message":"no continue_final_message here","type":"BadRequestError","code":400}}"#;
    peers.upstream(UpstreamEvent::Bytes(format!("{error}\n\n").as_bytes()));
    assert_eq!((peers.sent.len(), kinds(&peers).contains(&"response.failed")), (3, false));
    peers.upstream(UpstreamEvent::Ended(Ended::Failed(UpstreamFailure::Unreachable { reason: "none".into() })));
    let peers = peers.finish_and_check();
    let error = &response(&peers)["error"];
    assert!(error["message"].as_str().unwrap().contains("'wafer' broke off"), "{error}");
}

#[test]
fn where_nobody_is_left_the_first_failure_is_told() {
    let mut peers = on(fleet(2), "");
    text(&mut peers, "a");
    peers.apply(Step::Cut);
    peers.apply(Step::Unreachable);
    peers.apply(Step::Refused400);
    let peers = peers.finish_and_check();
    let error = &response(&peers)["error"];
    assert!(error["message"].as_str().unwrap().contains("'wafer' broke off"), "{error}");
    assert_eq!(splices(&peers).len(), 1);
    assert_eq!(splices(&peers)[0].to, None);
    assert_eq!(peers.outcomes[0].status, Status::Failed);
}

#[test]
fn it_migrates_as_often_as_it_may() {
    for (max, sent, last) in [(1, 2, "response.failed"), (2, 3, "response.completed")] {
        let mut peers = on(fleet(max), "");
        for piece in ["a", "b"] {
            text(&mut peers, piece);
            cut(&mut peers);
        }
        text(&mut peers, "c");
        peers.finish("stop");
        let peers = peers.finish_and_check();
        assert_eq!((peers.sent.len(), *kinds(&peers).last().unwrap()), (sent, last));
        if max == 2 {
            assert_eq!(response(&peers)["output"][0]["content"][0]["text"], "abc");
            assert_eq!(splices(&peers).iter().map(|splice| splice.bytes).collect::<Vec<_>>(), [1, 2]);
        }
    }
}

#[test]
fn an_answer_that_is_as_long_as_it_may_be_is_whole() {
    let mut peers = begun(r#","max_output_tokens":16"#);
    (0..16).for_each(|_| text(&mut peers, "a"));
    peers.apply(Step::Cut);
    let peers = peers.finish_and_check();
    let response = response(&peers);
    assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!((peers.sent.len(), &response["usage"]["output_tokens"]), (1, &json!(16)));
}

#[test]
fn silence_and_an_error_in_the_stream_are_left_as_well() {
    for (step, reason) in [(Step::StreamError, Reason::Error), (Step::EndOfBody, Reason::Cut)] {
        let mut peers = begun("");
        text(&mut peers, "a");
        peers.apply(step);
        peers.apply(Step::Opened);
        text(&mut peers, "b");
        peers.finish("stop");
        assert_eq!(splices(&peers)[0].reason, reason);
        peers.finish_and_check();
    }
    let mut peers = begun("");
    text(&mut peers, "a");
    peers.upstream(UpstreamEvent::Ended(Ended::Failed(UpstreamFailure::Silent { waited_ms: 7 })));
    peers.apply(Step::Opened);
    text(&mut peers, "b");
    peers.finish("stop");
    assert_eq!(splices(&peers)[0].reason, Reason::Silent);
}

#[test]
fn what_a_client_says_meanwhile_holds() {
    for opened in [false, true] {
        for (step, status) in [
            (Step::Interrupt, Status::Interrupted),
            (Step::Cancel, Status::Cancelled),
            (Step::ClientGone, Status::Cancelled),
        ] {
            for part in [Step::Text, Step::Reasoning, Step::Call] {
                let mut peers = begun("");
                peers.apply(part);
                peers.apply(Step::Cut);
                opened.then(|| peers.apply(Step::Opened));
                peers.apply(step);
                let peers = peers.finish_and_check();
                assert_eq!(peers.outcomes[0].status, status);
                assert_eq!(peers.sent.len(), 2);
            }
        }
        let mut peers = begun("");
        peers.apply(Step::Text);
        peers.apply(Step::Cut);
        opened.then(|| peers.apply(Step::Opened));
        peers.apply(Step::Steer);
        assert!(kinds(&peers).contains(&"response.incomplete"), "{:?}", kinds(&peers));
        peers.apply(Step::Opened);
        peers.apply(Step::Text);
        peers.apply(Step::Finish);
        peers.finish_and_check();
    }
}

#[test]
fn the_next_turn_goes_on_from_all_of_it() {
    let mut peers = begun("");
    text(&mut peers, "a");
    cut(&mut peers);
    text(&mut peers, "b");
    peers.finish("stop");
    peers.apply(Step::Continue);
    assert_eq!(last_body(&peers)["messages"][1], json!({"role": "assistant", "content": "ab"}));
}

fn empty(peers: &mut Peers, endpoint: u16) {
    peers.tell(|session: &mut Session, _, now: Now| session.handle_emptied(EndpointId(endpoint), now));
}

#[test]
fn an_operator_empties_an_endpoint() {
    let mut peers = begun(r#","temperature":0"#);
    text(&mut peers, "a");
    empty(&mut peers, 1);
    assert_eq!(peers.sent.len(), 1, "it runs elsewhere");
    empty(&mut peers, 0);
    assert_eq!(last_body(&peers)["messages"][1]["content"], "a");
    peers.apply(Step::Opened);
    text(&mut peers, "b");
    peers.finish("stop");
    let peers = peers.finish_and_check();
    assert_eq!(response(&peers)["output"][0]["content"][0]["text"], "ab");
    assert_eq!((splices(&peers)[0].reason, splices(&peers)[0].exactness), (Reason::Drained, Exactness::Exact));
}

#[test]
fn a_turn_that_cannot_go_elsewhere_stays_where_it_is() {
    let alone = |fleet: &mut Fleet| fleet.endpoints.truncate(1);
    let mute = |fleet: &mut Fleet| {
        fleet.endpoints.iter_mut().for_each(|endpoint| endpoint.continues.by_prefill = false);
    };
    let changes: [&dyn Fn(&mut Fleet); 3] =
        [&alone, &mute, &|fleet: &mut Fleet| fleet.models[0].routing.migrations_max = 0];
    for change in changes {
        let mut fleet = fleet(1);
        change(&mut fleet);
        let mut peers = on(fleet, "");
        text(&mut peers, "a");
        empty(&mut peers, 0);
        text(&mut peers, "b");
        peers.finish("stop");
        let peers = peers.finish_and_check();
        assert_eq!(response(&peers)["output"][0]["content"][0]["text"], "ab");
        assert_eq!((peers.sent.len(), splices(&peers).len()), (1, 0));
    }
}
