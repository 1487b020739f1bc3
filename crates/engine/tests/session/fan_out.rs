//! A request that fans out: its children in lanes of their own, and what their response makes of them.

use crate::peer::{Peers, Step, fleet};
use flashlane_engine::{Endpoint, ErrorKind, Settings, Speaks, Status, Tier};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub fn with(children_max: usize) -> Peers {
    Peers::with(fleet(), Settings { children_max, ..Settings::default() })
}

fn fan_out(peers: &mut Peers, children: &str, more: &str) {
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","input":"all","store":false,"flashlane":{{"fan_out":[{children}]}}{more}}}"#
    ));
}

const A: &str = r#"{"name":"a","input":"for a"}"#;
const B: &str = r#"{"name":"b","input":"for b"}"#;

/// Of one lane (the default lane's name is empty), or of all.
fn types(peers: &Peers, lane: Option<&str>) -> Vec<String> {
    let is_of = |event: &&Value| lane.is_none_or(|lane| event["stream_id"].as_str().unwrap_or_default() == lane);
    peers.watch.events.iter().filter(is_of).map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

fn last(peers: &Peers, lane: &str) -> Value {
    let is_of = |event: &&Value| event["stream_id"].as_str().unwrap_or_default() == lane;
    peers.watch.events.iter().rfind(is_of).unwrap().clone()
}

/// What was said to the engine that was asked as the `index`th.
fn said(peers: &Peers, index: usize) -> Vec<String> {
    let body: Value = serde_json::from_str(&peers.sent[index].1).unwrap();
    let text = |message: &Value| message["content"].as_str().unwrap_or_default().to_owned();
    body["messages"].as_array().unwrap().iter().map(text).collect()
}

fn run(peers: &mut Peers, steps: &[Step]) {
    steps.iter().for_each(|step| peers.apply(*step));
}

/// The response of this lane that was announced last.
fn id_of(peers: &Peers, lane: &str) -> String {
    let is_it =
        |event: &&Value| event["type"] == "response.created" && event["stream_id"].as_str().unwrap_or_default() == lane;
    peers.watch.events.iter().rfind(is_it).unwrap()["response"]["id"].as_str().unwrap().to_owned()
}

const ANSWER: [Step; 3] = [Step::Opened, Step::Text, Step::Finish];

#[test]
fn the_first_reads_what_they_share_and_the_others_follow_it() {
    let mut peers = with(4);
    fan_out(&mut peers, &format!("{A},{B}"), "");
    assert_eq!(types(&peers, None), ["response.created", "response.in_progress"], "the parent's, at once");
    assert_eq!(peers.sent.len(), 1, "the second waits for the first one's first token");
    peers.apply(Step::Opened);
    assert_eq!(peers.sent.len(), 1);
    peers.apply(Step::Text);
    assert_eq!(peers.sent.len(), 2);
    assert_eq!(
        (said(&peers, 0), said(&peers, 1)),
        (vec!["all".into(), "for a".into()], vec!["all".into(), "for b".into()])
    );
    // The second is meant from here on: it ends first.
    run(&mut peers, &ANSWER);
    assert_eq!(last(&peers, "b")["type"], "response.completed");
    assert!(!types(&peers, Some("")).contains(&"response.output_item.added".to_owned()), "its place is the second");
    run(&mut peers, &[Step::Switch, Step::Text, Step::Finish]);
    let response = last(&peers, "")["response"].clone();
    assert_eq!((&response["status"], &response["usage"]["total_tokens"]), (&json!("completed"), &json!(20)), "the sum");
    let output = response["output"].as_array().unwrap();
    let texts: Vec<_> = output.iter().map(|item| item["content"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["a\na\n", "a\n"]);
    let child = &output[1]["flashlane"]["child"];
    assert_eq!(*child, json!({"name":"b","id":id_of(&peers, "b"),"model":"m","tier":"latency","status":"completed"}));
    // Its row says whose it is.
    let (of, parent) = (peers.outcomes[0].child.clone().unwrap(), response["id"].as_str().unwrap());
    assert_eq!((&*of.name, &*of.parent, of.is_branch), ("b", parent, true));
    assert_eq!(peers.outcomes[2].child, None);
    // Each is billed once, as the turn that it is.
    let used: Vec<_> =
        peers.outcomes.iter().map(|outcome| (outcome.status, outcome.usage.input, outcome.tier.is_some())).collect();
    assert_eq!(used, [(Status::Completed, 7, true), (Status::Completed, 7, true), (Status::Completed, 0, false)]);
    peers.finish_and_check();
}

#[test]
fn children_of_other_models_tiers_and_instructions_run_at_once() {
    let mut peers = with(8);
    let others = r#"{"name":"gpu","input":"x","tier":"throughput"},{"name":"small","input":"x","model":"small"},{"name":"own","input":"x","instructions":"be brief"}"#;
    fan_out(&mut peers, &format!("{A},{B},{others}"), "");
    let models: Vec<Value> =
        peers.sent.iter().map(|(_, body)| serde_json::from_str::<Value>(body).unwrap()["model"].clone()).collect();
    // `small` is the same model there as `m` is, and what it shares with it is the same: it follows.
    assert_eq!(models, ["m-wafer", "m", "m-wafer"], "a, gpu, own");
    assert_eq!(said(&peers, 2), ["be brief", "all", "x"]);
    peers.finish_and_check();
}

#[test]
fn the_others_go_where_the_first_went_whatever_else_is_free() {
    let mut fleet = fleet();
    fleet.endpoints.extend((2..6).map(|n| Endpoint::named(&format!("wafer-{n}"), Tier::Latency)));
    let mut peers = Peers::with(fleet, Settings { children_max: 8, ..Settings::default() });
    let children: Vec<_> = (0..6).map(|n| format!(r#"{{"name":"c{n}","input":"x"}}"#)).collect();
    fan_out(&mut peers, &children.join(","), "");
    run(&mut peers, &[Step::Opened, Step::Text]);
    assert_eq!(peers.sent.len(), 6);
    for _ in 0..6 {
        run(&mut peers, &ANSWER);
        peers.apply(Step::Switch);
    }
    let endpoints: BTreeSet<_> = peers.outcomes.iter().filter_map(|outcome| outcome.endpoint.clone()).collect();
    assert_eq!((peers.outcomes.len(), endpoints.len()), (7, 1), "{endpoints:?}");
    peers.finish_and_check();
}

#[test]
fn a_config_that_has_its_model_no_more_fails_the_children_that_wait() {
    let mut peers = with(4);
    fan_out(&mut peers, &format!("{A},{B}"), "");
    peers.apply(Step::Opened);
    let mut other = fleet();
    other.models.retain(|model| &*model.name != "m");
    peers.adopt(other);
    run(&mut peers, &[Step::Text, Step::Switch, Step::Finish]);
    let response = last(&peers, "")["response"].clone();
    let statuses: Vec<_> = response["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["flashlane"]["child"]["status"].clone())
        .collect();
    assert_eq!((&response["status"], statuses), (&json!("completed"), vec![json!("completed"), json!("failed")]));
    peers.finish_and_check();
}

#[test]
fn a_revoked_key_lets_children_end_that_run_and_begins_no_others() {
    let mut peers = with(4);
    fan_out(&mut peers, &format!("{A},{B}"), "");
    run(&mut peers, &[Step::Opened, Step::Revoke, Step::Text, Step::Finish]);
    let response = last(&peers, "")["response"].clone();
    assert_eq!(response["output"][0]["flashlane"]["child"]["status"], "completed");
    assert_eq!(response["output"][1]["flashlane"]["child"]["error"]["code"], "invalid_api_key");
    assert_eq!(peers.sent.len(), 1);
    peers.finish_and_check();
}

#[test]
fn what_they_came_to_is_one_message_to_the_next_turn_however_it_comes_back() {
    let mut peers = with(4);
    fan_out(&mut peers, &format!("{A},{B}"), "");
    run(&mut peers, &[Step::Opened, Step::Text]);
    run(&mut peers, &ANSWER);
    run(&mut peers, &[Step::Switch, Step::Finish]);
    let response = last(&peers, "")["response"].clone();
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"previous_response_id":{},"input":"and?"}}"#,
        response["id"]
    ));
    assert_eq!(said(&peers, 2), ["all", "[a]\na\n\n\n[b]\na\n", "and?"]);
    run(&mut peers, &ANSWER);
    let mut again = with(4);
    let items: Vec<_> = response["output"].as_array().unwrap().iter().map(Value::to_string).collect();
    again.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"input":[{{"role":"user","content":"all"}},{},{{"role":"user","content":"and?"}}]}}"#,
        items.join(",")
    ));
    assert_eq!(again.sent[0], peers.sent[2], "byte for byte");
}

#[test]
fn a_child_that_fails_is_told_of_in_its_place_and_the_others_go_on() {
    let mut peers = with(4);
    fan_out(&mut peers, &format!("{A},{B}"), "");
    // The one that leads: the other leads then.
    run(&mut peers, &[Step::Refused400]);
    assert_eq!((last(&peers, "a")["type"].clone(), peers.sent.len()), (json!("error"), 2));
    run(&mut peers, &ANSWER);
    let response = last(&peers, "")["response"].clone();
    assert_eq!(response["status"], "completed");
    let item = &response["output"][0];
    assert_eq!(
        (&item["status"], &item["content"][0]["text"]),
        (&json!("incomplete"), &json!("(This part failed: no)"))
    );
    let child = &item["flashlane"]["child"];
    assert_eq!(
        (&child["status"], &child["error"]),
        (&json!("failed"), &json!({"code":"invalid_prompt","message":"no"}))
    );
    peers.finish_and_check();
}

#[test]
fn what_a_child_had_said_when_it_broke_off_is_kept() {
    let mut peers = with(4);
    fan_out(&mut peers, &format!("{A},{B}"), "");
    run(&mut peers, &[Step::Opened, Step::Text]);
    run(&mut peers, &ANSWER);
    run(&mut peers, &[Step::Switch, Step::Cut]);
    assert_eq!(last(&peers, "a")["type"], "response.failed");
    let response = last(&peers, "")["response"].clone();
    let text = response["output"][0]["content"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("a\n\n\n(This part failed: "), "{text}");
    assert_eq!((&response["status"], &response["output"][1]["status"]), (&json!("completed"), &json!("completed")));
    peers.finish_and_check();
}

#[test]
fn where_all_fail_the_response_fails_and_says_of_each_why() {
    let mut peers = with(4);
    fan_out(&mut peers, &format!("{A},{B}"), "");
    run(&mut peers, &[Step::Refused400, Step::Refused400]);
    let response = last(&peers, "")["response"].clone();
    assert_eq!((&response["status"], response["output"].as_array().unwrap().len()), (&json!("failed"), 2));
    assert_eq!(response["error"]["message"], "All children have failed. 'a': no");
    assert_eq!(peers.outcomes.last().unwrap().error, Some(ErrorKind::UpstreamInvalidRequest));
    peers.finish_and_check();
}

#[test]
fn a_child_is_cancelled_or_interrupted_by_its_own_id() {
    for how in ["cancel", "interrupt"] {
        let mut peers = with(4);
        fan_out(&mut peers, &format!("{A},{B}"), "");
        run(&mut peers, &[Step::Opened, Step::Text]);
        let id = id_of(&peers, "a");
        peers.message(&format!(r#"{{"type":"response.{how}","response_id":"{id}"}}"#));
        assert_eq!(last(&peers, "a")["type"], "response.incomplete");
        run(&mut peers, &ANSWER);
        let response = last(&peers, "")["response"].clone();
        assert_eq!(response["output"][0]["flashlane"]["child"]["status"], "cancelled");
        assert_eq!(response["output"][0]["content"][0]["text"], "(This part was cancelled.)");
        assert_eq!(response["output"][1]["flashlane"]["child"]["status"], "completed");
        peers.finish_and_check();
    }
}

#[test]
fn a_parent_that_is_cancelled_or_interrupted_takes_its_children_along() {
    for how in ["cancel", "interrupt"] {
        let mut peers = with(4);
        fan_out(&mut peers, &format!("{A},{B},{}", A.replace("\"a\"", "\"c\"").replace("for a", "x")), "");
        run(&mut peers, &[Step::Opened, Step::Text]);
        let id = id_of(&peers, "");
        peers.message(&format!(r#"{{"type":"response.{how}","response_id":"{id}"}}"#));
        assert_eq!(last(&peers, "a")["response"]["incomplete_details"]["reason"], "cancelled");
        assert_eq!(last(&peers, "")["type"], "response.incomplete");
        assert_eq!(peers.outcomes.len(), 4);
        // What was interrupted can be gone on from, and the lanes are free.
        fan_out(&mut peers, &format!("{A},{B}"), "");
        assert_eq!(last(&peers, "")["type"], "response.in_progress", "{:?}", last(&peers, ""));
        peers.finish_and_check();
    }
}

#[test]
fn a_steered_child_is_what_its_successor_makes_of_it() {
    let mut peers = with(4);
    fan_out(&mut peers, &format!("{A},{B}"), "");
    run(&mut peers, &[Step::Opened, Step::Text]);
    run(&mut peers, &ANSWER);
    let steer =
        |id: &str| format!(r#"{{"type":"response.steer","previous_response_id":"{id}","input":"rather this"}}"#);
    peers.message(&steer(&id_of(&peers, "")));
    assert_eq!(last(&peers, "")["error"]["code"], "steering_not_supported");
    peers.message(&steer(&id_of(&peers, "a")));
    assert_eq!(peers.sent.len(), 3, "its successor has begun");
    assert_ne!(last(&peers, "")["type"], "response.completed");
    run(&mut peers, &[Step::Opened, Step::Text, Step::Text, Step::Finish]);
    let response = last(&peers, "")["response"].clone();
    let first = &response["output"][0];
    assert_eq!(
        (&first["flashlane"]["child"]["status"], &first["content"][0]["text"]),
        (&json!("completed"), &json!("a\na\n"))
    );
    peers.finish_and_check();
}

#[test]
fn lanes_of_children_are_theirs_alone_and_given_back() {
    let mut peers = with(4);
    peers.message(
        r#"{"type":"response.create","model":"m","input":"x","store":false,"generate":false,"stream_id":"b"}"#,
    );
    fan_out(&mut peers, &format!("{A},{B}"), "");
    assert_eq!(last(&peers, "")["error"]["code"], "invalid_stream_id", "a lane that the client has used");
    for _ in 0..40 {
        fan_out(&mut peers, A, "");
        peers.message(r#"{"type":"response.create","model":"m","input":"x","store":false,"stream_id":"a"}"#);
        assert_eq!(last(&peers, "")["error"]["code"], "invalid_stream_id", "a lane of a child that runs");
        run(&mut peers, &ANSWER);
        assert_eq!(last(&peers, "")["response"]["status"], "completed");
    }
    assert_eq!(peers.session.lanes(), 3);
    peers.finish_and_check();
}

#[test]
fn children_run_where_one_turn_may_run_at_once_and_a_parent_holds_no_place() {
    let mut peers = Peers::with(fleet(), Settings { children_max: 4, running_turns_max: 1, ..Settings::default() });
    fan_out(&mut peers, &format!("{A},{B}"), "");
    run(&mut peers, &[Step::Opened, Step::Text]);
    assert_eq!(peers.sent.len(), 1, "the second waits in its lane");
    run(&mut peers, &[Step::Finish]);
    run(&mut peers, &ANSWER);
    assert_eq!(last(&peers, "")["response"]["status"], "completed");
    peers.finish_and_check();
}

#[test]
fn more_children_than_may_run_at_once_are_refused_whoevers_they_are() {
    let mut peers = with(2);
    fan_out(&mut peers, A, "");
    fan_out(&mut peers, &format!("{},{}", B, B.replace("\"b\"", "\"c\"")), r#","stream_id":"other""#);
    assert_eq!(last(&peers, "other")["error"]["code"], "websocket_stream_limit_reached");
    fan_out(&mut peers, B, r#","stream_id":"other""#);
    assert_eq!(last(&peers, "other")["type"], "response.in_progress");
    peers.finish_and_check();
}

#[test]
fn it_hands_out_work_beside_its_children() {
    let mut peers = with(4);
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","input":"all","store":false,
            "flashlane":{{"delegate":[{{"name":"d","input":"later"}}],"fan_out":[{A},{B}]}}}}"#
    ));
    assert!(
        types(&peers, Some("")).contains(&"response.flashlane.child.created".to_owned()),
        "{:?}",
        peers.watch.events
    );
    assert_eq!(peers.sent.len(), 1, "who waits for what was handed out is the parent alone: {:?}", peers.effects);
    run(&mut peers, &[Step::Opened, Step::Text]);
    run(&mut peers, &ANSWER);
    run(&mut peers, &[Step::Switch, Step::Finish]);
    assert_eq!(last(&peers, "")["response"]["status"], "completed");
    assert!(!peers.effects.contains(&"Join".to_owned()), "{:?}", peers.effects);
    peers.finish_and_check();
}

#[test]
fn a_leader_is_not_waited_for_forever() {
    let mut peers = with(4);
    fan_out(&mut peers, &format!("{A},{B}"), "");
    for _ in 0..4 {
        peers.apply(Step::Pass6S);
    }
    assert_eq!(peers.sent.len(), 1);
    for _ in 0..2 {
        peers.apply(Step::Pass6S);
    }
    assert_eq!(peers.sent.len(), 2);
    peers.finish_and_check();
}

#[test]
fn what_cannot_fan_out_is_refused_by_its_path() {
    let mut peers = with(4);
    for (children, more, code, param) in [
        (r#"{"name":"a","input":"x","model":"absent"}"#, "", "model_not_found", "flashlane.fan_out[0].model"),
        (
            r#"{"name":"a","input":[{"role":"nobody","content":"x"}]}"#,
            "",
            "invalid_value",
            "flashlane.fan_out[0].input[0].role",
        ),
        (A, r#","context_management":[{"type":"compaction"}]"#, "invalid_value", "flashlane.fan_out"),
    ] {
        fan_out(&mut peers, children, more);
        let error = &last(&peers, "")["error"];
        assert_eq!((&error["code"], &error["param"]), (&json!(code), &json!(param)));
    }
    assert!(peers.sent.is_empty());
}

#[test]
fn a_drain_waits_for_children_and_a_server_that_waits_no_longer_fails_them() {
    let mut peers = with(4);
    fan_out(&mut peers, &format!("{A},{B}"), "");
    run(&mut peers, &[Step::Opened, Step::Text, Step::Drain]);
    assert!(!peers.effects.contains(&"Close".to_owned()));
    run(&mut peers, &ANSWER);
    run(&mut peers, &[Step::Switch, Step::Finish]);
    assert_eq!(last(&peers, "")["response"]["status"], "completed");
    assert!(peers.effects.contains(&"Close".to_owned()));
    peers.finish_and_check();
    let mut peers = with(4);
    fan_out(&mut peers, &format!("{A},{B}"), "");
    run(&mut peers, &[Step::Opened, Step::Text, Step::Over]);
    for lane in ["", "a"] {
        assert_eq!(last(&peers, lane)["type"], "response.failed", "{lane}");
    }
    peers.finish_and_check();
}

#[test]
fn tools_are_told_and_not_called() {
    let mut peers = with(4);
    fan_out(&mut peers, A, r#","tools":[{"type":"function","name":"run","parameters":{}}],"tool_choice":"required""#);
    let fields = &peers.sent[0].0;
    assert!(fields.contains(&("tool_choice".into(), "\"none\"".into())), "{fields:?}");
    assert!(fields.iter().any(|(name, _)| name == "tools"));
    peers.finish_and_check();
}

#[test]
fn a_server_of_the_responses_api_is_asked_in_its_own_words() {
    let mut fleet = fleet();
    fleet.endpoints.iter_mut().for_each(|endpoint| endpoint.speaks = Speaks::Responses);
    let mut peers = Peers::with(fleet, Settings { children_max: 4, ..Settings::default() });
    let own = r#"{"name":"a","input":"for a","reasoning":{"effort":"low"},"instructions":"own"}"#;
    fan_out(&mut peers, own, r#","instructions":"all","reasoning":{"effort":"high"},"tools":[{"type":"web_search"}]"#);
    let body: Value = serde_json::from_str(&peers.sent[0].1).unwrap();
    assert_eq!(
        (&body["instructions"], &body["reasoning"], &body["tool_choice"], &body["tools"][0]["type"]),
        (&json!("own"), &json!({"effort":"low"}), &json!("none"), &json!("web_search"))
    );
    assert_eq!(body["input"].as_array().unwrap().len(), 2);
    // What this server alone says of an item is not passed on.
    peers.message(
        r#"{"type":"response.create","model":"m","store":false,"stream_id":"x","input":[{"role":"user","content":"all"},
            {"type":"message","role":"assistant","status":"completed","id":"msg_1","flashlane":{"child":{"name":"a"}},
             "content":[{"type":"output_text","text":"said"}]},{"role":"user","content":"and?"}]}"#,
    );
    let body: Value = serde_json::from_str(&peers.sent[1].1).unwrap();
    let item = json!({"type":"message","role":"assistant","status":"completed","id":"msg_1","content":[{"type":"output_text","text":"said"}]});
    assert_eq!(body["input"][1], item);
    peers.finish_and_check();
}

#[test]
fn what_fans_out_from_what_was_stored_is_stored_whole() {
    let mut peers = with(4);
    peers
        .message(&format!(r#"{{"type":"response.create","model":"m","input":"all","flashlane":{{"fan_out":[{A}]}}}}"#));
    run(&mut peers, &ANSWER);
    assert_eq!(peers.stored.len(), 1, "the parent alone");
    run(&mut peers, &[Step::Committed]);
    let id = last(&peers, "")["response"]["id"].as_str().unwrap().to_owned();
    let mut later = with(4);
    later.stored = std::mem::take(&mut peers.stored);
    later.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"previous_response_id":"{id}","input":"and?"}}"#
    ));
    assert_eq!(said(&later, 0), ["all", "[a]\na\n", "and?"]);
    later.finish_and_check();
    peers.finish_and_check();
}
