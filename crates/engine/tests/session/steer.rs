//! Steering, rule by rule: PROTOCOL clause 3.8.

use crate::peer::{Peers, Step};
use serde_json::{Value, json};

fn types(peers: &Peers) -> Vec<&str> {
    peers.watch.events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

fn last<'a>(peers: &'a Peers, kind: &str) -> &'a Value {
    peers.watch.events.iter().rfind(|event| event["type"] == kind).unwrap()
}

fn messages(peers: &Peers) -> Value {
    let body: Value = serde_json::from_str(&peers.sent.last().unwrap().1).unwrap();
    body["messages"].clone()
}

fn apply(peers: &mut Peers, steps: &[Step]) {
    steps.iter().for_each(|&step| peers.apply(step));
}

#[test]
fn a_steer_cuts_the_answer_keeps_it_and_goes_on_with_the_new_words() {
    let mut peers = Peers::new();
    peers.message(
        r#"{"type":"response.create","model":"m","input":"hi","store":false,"instructions":"be brief","temperature":0.5,"stream_id":"a"}"#,
    );
    apply(&mut peers, &[Step::Opened, Step::Text, Step::Steer]);
    let incomplete = last(&peers, "response.incomplete");
    let parent = incomplete["response"]["id"].clone();
    assert_eq!(incomplete["response"]["incomplete_details"]["reason"], "steered");
    assert_eq!(incomplete["response"]["output"][0]["status"], "incomplete");
    assert_eq!(last(&peers, "response.steer.accepted")["steer"]["previous_response_id"], parent);
    assert!(peers.effects.contains(&"Abort".to_owned()));
    assert_eq!(
        messages(&peers),
        json!([
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "a\n"},
            {"role": "user", "content": "rather this"},
        ])
    );
    let sent: Value = serde_json::from_str(&peers.sent[1].1).unwrap();
    assert_eq!(sent["temperature"], 0.5, "settings are inherited");
    apply(&mut peers, &[Step::Opened, Step::Text, Step::Finish]);
    let completed = last(&peers, "response.completed");
    assert_eq!(completed["response"]["previous_response_id"], parent);
    assert_eq!(completed["stream_id"], "a");
    assert!(peers.watch.steers.is_empty(), "used up");
    let order: Vec<_> =
        types(&peers).into_iter().filter(|kind| !kind.contains("output") && !kind.contains("part")).collect();
    assert_eq!(
        order,
        [
            "response.created",
            "response.in_progress",
            "response.steer.accepted",
            "response.incomplete",
            "response.created",
            "response.in_progress",
            "response.completed"
        ]
    );
}

#[test]
fn a_successor_comes_before_what_waits_and_at_the_same_endpoint() {
    let mut peers = Peers::new();
    apply(&mut peers, &[Step::Create, Step::Unreachable, Step::Opened, Step::Text, Step::Create, Step::Steer]);
    assert_eq!(messages(&peers).as_array().unwrap().len(), 3, "the successor, not the request that waits");
    apply(&mut peers, &[Step::Opened, Step::Text, Step::Finish]);
    let endpoints: Vec<_> = peers.outcomes.iter().map(|outcome| outcome.endpoint.as_deref().unwrap()).collect();
    assert_eq!(endpoints, ["gpu", "gpu"], "the wafer is free, the prefix is not there");
}

#[test]
fn a_stored_parent_is_committed_before_it_ends() {
    let mut peers = Peers::new();
    apply(&mut peers, &[Step::CreateStored, Step::Opened, Step::Text, Step::Steer]);
    assert!(!types(&peers).contains(&"response.incomplete"));
    apply(&mut peers, &[Step::Steer, Step::Committed]);
    assert_eq!(types(&peers).last().unwrap(), &"response.incomplete");
    assert_eq!(messages(&peers).as_array().unwrap().len(), 4, "both steers, in their order");
    apply(&mut peers, &[Step::Opened, Step::Text, Step::Finish, Step::Committed]);
    assert_eq!(types(&peers).last().unwrap(), &"response.completed");
}

#[test]
fn a_call_is_never_cut_and_its_output_comes_before_the_steer() {
    let mut peers = Peers::new();
    apply(&mut peers, &[Step::Create, Step::Opened, Step::Call, Step::Steer]);
    assert!(!types(&peers).contains(&"response.incomplete"), "the call goes on");
    apply(&mut peers, &[Step::Arguments, Step::Finish]);
    let id = peers.watch.ended[0].clone();
    let pending = peers.watch.events.last().unwrap();
    assert_eq!(pending["type"], "response.steer.pending");
    assert_eq!(pending["reason"], "waiting_for_required_input");
    assert_eq!(pending["required_input"], json!([{"type": "function_call_output", "call_id": "c0", "name": "run"}]));
    assert_eq!(peers.sent.len(), 1);
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"previous_response_id":"{id}",
            "input":[{{"type":"function_call_output","call_id":"c0","output":"done"}}]}}"#
    ));
    let messages = messages(&peers);
    let roles: Vec<_> = messages.as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "user"]);
    assert_eq!(messages[3]["content"], "rather this");
    apply(&mut peers, &[Step::Opened, Step::Text, Step::Finish]);
    assert!(peers.watch.steers.is_empty());
}

#[test]
fn what_cannot_be_used_comes_back() {
    let failed = |peers: &Peers| last(peers, "response.steer.failed")["error"]["code"].as_str().unwrap().to_owned();
    let mut peers = Peers::new();
    peers.apply(Step::Steer);
    assert_eq!(failed(&peers), "invalid_input", "there is no id in it");
    peers.message(r#"{"type":"response.steer","previous_response_id":"resp_none","input":"rather this"}"#);
    assert_eq!(failed(&peers), "response_not_found");
    apply(&mut peers, &[Step::Create, Step::Opened, Step::Text, Step::Finish, Step::SteerEnded]);
    assert_eq!(failed(&peers), "response_already_completed");
    // Once the successor is announced, it is the one to be steered.
    apply(&mut peers, &[Step::Create, Step::Opened, Step::Text, Step::Steer, Step::Opened, Step::SteerEnded]);
    assert_eq!(failed(&peers), "response_already_completed");
    apply(&mut peers, &[Step::Text, Step::Finish]);
    // The successor cannot be made: both endpoints refuse.
    apply(&mut peers, &[Step::Create, Step::Opened, Step::Text, Step::Steer, Step::Unreachable, Step::Unreachable]);
    assert_eq!(failed(&peers), "successor_creation_failed");
    assert!(last(&peers, "response.steer.failed")["steer"]["id"].is_string());
    assert_eq!(peers.watch.errors, 0, "the steer's failure is the answer");
    // The parent fails, is interrupted, or the lane goes another way.
    for end in [Step::Cut, Step::Interrupt, Step::Cancel] {
        apply(&mut peers, &[Step::Create, Step::Opened, Step::Call, Step::Steer, end]);
        assert_eq!(failed(&peers), "response_not_active", "{end:?}");
        assert!(peers.watch.steers.is_empty());
    }
    apply(&mut peers, &[Step::Create, Step::Opened, Step::Call, Step::Steer, Step::Arguments, Step::Finish]);
    assert_eq!(peers.watch.steers.len(), 1);
    peers.apply(Step::Create);
    assert_eq!(failed(&peers), "response_not_active");
    assert!(peers.watch.steers.is_empty());
}

#[test]
fn a_steer_that_comes_before_the_successor_begins_joins_it() {
    let mut peers = Peers::new();
    apply(&mut peers, &[Step::Create, Step::Opened, Step::Text, Step::Steer]);
    let first = peers.sent.len();
    apply(&mut peers, &[Step::SteerEnded, Step::SteerEnded]);
    assert_eq!(peers.sent.len(), first + 2, "what was begun is made anew, with all of them");
    let words: Vec<_> = messages(&peers).as_array().unwrap().iter().map(|message| message["content"].clone()).collect();
    assert_eq!(words, ["hi", "a\n", "rather this", "rather this", "rather this"]);
    let accepted: Vec<_> = peers.watch.events.iter().filter(|e| e["type"] == "response.steer.accepted").collect();
    assert_eq!(accepted.len(), 3);
    assert!(accepted.iter().all(|event| event["steer"]["previous_response_id"] == peers.watch.ended[0]));
    apply(&mut peers, &[Step::Opened, Step::Text, Step::Finish]);
    assert_eq!(types(&peers).iter().filter(|kind| **kind == "response.created").count(), 2, "one successor");
    assert!(peers.watch.steers.is_empty());
    let status: Vec<_> = peers.outcomes.iter().map(|outcome| outcome.status.name()).collect();
    assert_eq!(status, ["incomplete", "cancelled", "cancelled", "completed"]);
    peers.finish_and_check();
}

#[test]
fn a_successor_takes_so_many_steers_and_hands_all_of_them_back_together() {
    let mut peers = Peers::new();
    apply(&mut peers, &[Step::Create, Step::Opened, Step::Text, Step::Steer]);
    (0..16).for_each(|_| peers.apply(Step::SteerEnded));
    assert_eq!(last(&peers, "response.steer.failed")["error"]["code"], "too_many_pending_steers");
    assert_eq!(peers.watch.steers.len(), 16);
    apply(&mut peers, &[Step::Unreachable, Step::Unreachable]);
    assert_eq!(last(&peers, "response.steer.failed")["error"]["code"], "successor_creation_failed");
    assert!(peers.watch.steers.is_empty(), "each is handed back");
    peers.finish_and_check();
}

#[test]
fn only_words_of_the_user_steer_and_only_so_many() {
    let mut peers = Peers::new();
    apply(&mut peers, &[Step::Create, Step::Opened, Step::Call]);
    let id = peers.watch.events[0]["response"]["id"].as_str().unwrap().to_owned();
    let steer = |peers: &mut Peers, input: &str| {
        peers.session.handle_message(
            format!(r#"{{"type":"response.steer","previous_response_id":"{id}","input":{input}}}"#).as_bytes(),
            flashlane_engine::Now::default(),
        );
        let out = peers.session.outgoing();
        let text = String::from_utf8_lossy(out.ready()).into_owned();
        out.consume(text.len() + 16);
        text
    };
    for bad in [
        "null",
        "3",
        r#""""#,
        "[]",
        r#"[{"role":"assistant","content":"x"}]"#,
        r#"[{"type":"function_call_output","call_id":"c0","output":"x"}]"#,
        r#"[{"role":"user","content":"x","phase":"commentary"}]"#,
        r#"[{"role":"user","content":[{"type":"input_image","image_url":"https://e/x.png"}]}]"#,
    ] {
        let said = steer(&mut peers, bad);
        assert!(
            said.contains(r#""code":"invalid_input""#) && said.contains(&format!(r#""input":{bad}"#)),
            "{bad}: {said}"
        );
    }
    for _ in 0..16 {
        assert!(steer(&mut peers, r#"[{"role":"user","content":"say \"this\""}]"#).contains("response.steer.accepted"));
    }
    assert!(steer(&mut peers, r#""one more""#).contains("too_many_pending_steers"));
}
