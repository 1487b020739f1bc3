//! Children of a response: what a session hands out, and what it takes back.

use crate::peer::{Peers, Step, fleet};
use flashlane_engine::{Fate, Settings};
use serde_json::{Value, json};

const DELEGATE: &str = r#"{"type":"response.create","model":"m","input":"hi","store":false,"flashlane":{"delegate":[{"name":"a","input":"x"}]}}"#;

fn with(children_max: usize) -> Peers {
    Peers::with(fleet(), Settings { children_max, ..Settings::default() })
}

fn last_error(peers: &Peers) -> (&str, &str) {
    let error = &peers.watch.events.last().unwrap()["error"];
    (error["code"].as_str().unwrap(), error["param"].as_str().unwrap())
}

#[test]
fn children_are_refused_where_the_config_has_none() {
    let mut peers = with(0);
    peers.message(DELEGATE);
    assert_eq!(last_error(&peers), ("unsupported_parameter", "flashlane"));
    assert!(peers.sent.is_empty());
    peers.message(&DELEGATE.replace(r#""delegate":[{"name":"a","input":"x"}]"#, ""));
    assert_eq!(peers.sent.len(), 1, "who asks for no child is served");
}

#[test]
fn more_children_than_run_at_once_are_refused() {
    let mut peers = with(1);
    peers.message(&DELEGATE.replace("[{", r#"[{"name":"b","input":"y"},{"#));
    assert_eq!(last_error(&peers), ("invalid_value", "flashlane"));
}

#[test]
fn a_warm_up_has_no_children() {
    let mut peers = with(4);
    peers.message(&DELEGATE.replace(r#""store":false"#, r#""store":false,"generate":false"#));
    assert_eq!(last_error(&peers), ("invalid_value", "flashlane"));
}

#[test]
fn a_child_of_either_kind_makes_no_summary() {
    for kind in ["delegate", "fan_out"] {
        let mut peers = with(4);
        let asked = DELEGATE.replace("delegate", kind);
        peers.message(&asked.replace(r#""input":"x""#, r#""input":[{"type":"compaction_trigger"}]"#));
        assert_eq!(last_error(&peers), ("invalid_value", &*format!("flashlane.{kind}[0].input")));
        assert!(peers.sent.is_empty());
    }
}

#[test]
fn what_children_have_of_their_parents_request_is_bounded_for_all_of_them_together() {
    let child = |kind: &str, n: usize| {
        let children: Vec<_> = (0..n).map(|n| format!(r#"{{"name":"{kind}{n}","input":"x"}}"#)).collect();
        format!(r#""{kind}":[{}]"#, children.join(","))
    };
    let long = "i".repeat(20_000);
    for (more, is_served) in [
        (child("delegate", 1), true),
        (child("fan_out", 1), true),
        (child("delegate", 3), false),
        (child("fan_out", 3), false),
        (format!("{},{}", child("delegate", 2), child("fan_out", 1)), false),
    ] {
        // Each has them as a message and in its object.
        let settings = Settings { children_max: 8, queued_bytes_max: 100_000, ..Settings::default() };
        let mut peers = Peers::with(fleet(), settings);
        peers.message(&format!(
            r#"{{"type":"response.create","model":"m","input":"hi","store":false,"instructions":"{long}","flashlane":{{{more}}}}}"#
        ));
        assert_eq!(!peers.sent.is_empty(), is_served, "{more}");
        if !is_served {
            assert_eq!(last_error(&peers), ("payload_too_large", "flashlane"));
        }
    }
}

/// A turn that has handed work to `a` and `b`, and has answered.
fn delegated() -> Peers {
    let mut peers = with(4);
    for step in [Step::CreateDelegating, Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    peers
}

fn go_on(peers: &mut Peers) -> Value {
    for step in [Step::Continue, Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    serde_json::from_str(&peers.sent.last().unwrap().1).unwrap()
}

fn of_type<'a>(peers: &'a Peers, kind: &str) -> Vec<&'a Value> {
    peers.watch.events.iter().filter(|event| event["type"] == kind).collect()
}

fn contents(body: &Value) -> Vec<&str> {
    body["messages"].as_array().unwrap().iter().map(|message| message["content"].as_str().unwrap()).collect()
}

#[test]
fn children_begin_when_their_parent_is_announced_and_it_streams_on() {
    let mut peers = with(4);
    peers.apply(Step::CreateDelegating);
    assert!(peers.nursery.parents.is_empty(), "not for a response that may still be refused");
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    let types: Vec<_> = peers.watch.events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types[..2], ["response.created", "response.in_progress"]);
    assert_eq!(types[2..4], ["response.flashlane.child.created"; 2]);
    assert_eq!(types.last(), Some(&"response.completed"));
    let id = peers.watch.ended.last().unwrap();
    assert_eq!(*peers.nursery.parents, [id.as_str().into()]);
    let children: Vec<_> = of_type(&peers, "response.flashlane.child.created").iter().map(|e| &e["child"]).collect();
    let shown = |child: &Value| (child["name"].clone(), child["model"].clone(), child["status"].clone());
    assert_eq!(shown(children[0]), (json!("a"), json!("m"), json!("queued")));
    assert_eq!(shown(children[1]), (json!("b"), json!("small"), json!("queued")));
    assert_eq!(peers.nursery.asked, 2, "each asks for a place of its own");
    peers.finish_and_check();
}

#[test]
fn a_child_goes_on_from_what_its_parent_was_asked_with_its_own_input_and_calls_no_tool() {
    let peers = delegated();
    let id = of_type(&peers, "response.flashlane.child.created")[1]["child"]["id"].as_str().unwrap();
    let (items, object) = &peers.nursery.kept[id];
    let items: Vec<Value> = items.iter().map(|item| serde_json::from_str(item).unwrap()).collect();
    assert_eq!(items.iter().map(|item| item["content"].as_str().unwrap()).collect::<Vec<_>>(), ["hi", "y"]);
    let object: Value = serde_json::from_str(object).unwrap();
    assert_eq!(
        (&object["tool_choice"], &object["background"], &object["store"]),
        (&json!("none"), &json!(true), &json!(false))
    );
    assert_eq!((&object["status"], &object["model"]), (&json!("queued"), &json!("small")));
    let parent = &peers.watch.ended[0];
    assert_eq!(object["flashlane"], json!({"child": {"name": "b", "parent": parent}}));
}

#[test]
fn what_has_ended_joins_the_next_input_once_and_what_runs_joins_later() {
    let mut peers = delegated();
    peers.nursery.end_next(Fate::Completed);
    let id = of_type(&peers, "response.flashlane.child.created")[0]["child"]["id"].as_str().unwrap().to_owned();
    let body = go_on(&mut peers);
    let said = format!("The background task \"a\" ({id}) has completed. Its result:\n\nresult of \"a\"");
    assert_eq!(contents(&body), ["hi", "a\n", &said, "hi"]);
    let joined = of_type(&peers, "response.flashlane.child.joined");
    assert_eq!(joined.len(), 1);
    assert_eq!((&joined[0]["child"]["id"], &joined[0]["child"]["status"]), (&json!(id), &json!("completed")));
    assert_eq!(joined[0]["item"]["content"], said.as_str());

    peers.nursery.end_next(Fate::Failed("it broke".into()));
    let body = go_on(&mut peers);
    let contents = contents(&body);
    assert_eq!(contents.iter().filter(|content| content.contains("\"a\"")).count(), 1, "{contents:?}");
    assert!(contents[contents.len() - 2].contains("\"b\""), "{contents:?}");
    assert!(contents[contents.len() - 2].contains("has failed: it broke"), "{contents:?}");
    assert_eq!(of_type(&peers, "response.flashlane.child.joined").len(), 2);
    let asked = peers.effects.iter().filter(|effect| *effect == "Join").count();
    go_on(&mut peers);
    assert_eq!(peers.effects.iter().filter(|effect| *effect == "Join").count(), asked, "nobody waits any more");
    peers.finish_and_check();
}

#[test]
fn a_result_stands_behind_the_tool_outputs_of_the_input() {
    let mut peers = with(4);
    for step in [Step::CreateDelegating, Step::Opened, Step::Call, Step::Arguments, Step::Finish] {
        peers.apply(step);
    }
    peers.nursery.end_next(Fate::Cancelled);
    let previous = peers.watch.ended.last().unwrap();
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"previous_response_id":"{previous}",
            "input":[{{"type":"function_call_output","call_id":"c0","output":"done"}}]}}"#
    ));
    let body: Value = serde_json::from_str(&peers.sent.last().unwrap().1).unwrap();
    let roles: Vec<_> =
        body["messages"].as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "user"]);
}

#[test]
fn a_fork_has_the_results_as_well_and_a_warm_up_has_none() {
    let mut peers = delegated();
    peers.nursery.end_next(Fate::Completed);
    let previous = peers.watch.ended.last().unwrap().clone();
    let warm_up = format!(
        r#"{{"type":"response.create","model":"m","input":"w","store":false,"generate":false,"previous_response_id":"{previous}"}}"#
    );
    peers.message(&warm_up);
    assert!(of_type(&peers, "response.flashlane.child.joined").is_empty());
    let warm = peers.watch.ended.last().unwrap().clone();
    for (lane, of) in [("x", &previous), ("y", &warm)] {
        peers.message(&format!(
            r#"{{"type":"response.create","model":"m","input":"z","store":false,"stream_id":"{lane}","previous_response_id":"{of}"}}"#
        ));
        peers.apply(Step::Opened);
        let body: Value = serde_json::from_str(&peers.sent.last().unwrap().1).unwrap();
        assert!(contents(&body).iter().any(|content| content.contains("task \"a\"")), "{lane}: {body}");
    }
    peers.finish_and_check();
}

#[test]
fn a_child_that_fails_joins_with_its_failure_and_an_answer_in_one_piece_has_begun_it() {
    let mut peers = with(4);
    peers.apply(Step::CreateDelegating);
    // As a driver may have it from one read: nothing runs between the beginning and the end.
    let stream = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"yes\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    peers.upstream_at_once(stream);
    assert_eq!(of_type(&peers, "response.flashlane.child.created").len(), 2);
    peers.nursery.end_next(Fate::Failed("it broke".into()));
    let body = go_on(&mut peers);
    assert!(contents(&body)[2].contains("has failed: it broke"), "{body}");
}

#[test]
fn a_compacted_chain_still_waits_for_its_children() {
    let mut peers = delegated();
    let previous = peers.watch.ended.last().unwrap();
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"previous_response_id":"{previous}",
            "input":[{{"role":"user","content":"c"}}],"context_management":[{{"type":"compaction","compact_threshold":1}}]}}"#
    ));
    for step in [Step::Counted, Step::Opened, Step::Text, Step::Finish, Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    peers.nursery.end_next(Fate::Completed);
    let body = go_on(&mut peers);
    assert!(contents(&body).iter().any(|content| content.contains("task \"a\"")), "{body}");
}

#[test]
fn what_is_wrong_with_a_child_refuses_its_parents_request_by_its_path() {
    let mut peers = with(4);
    for (child, code, param) in [
        (r#""input":"x","model":"none""#, "model_not_found", "flashlane.delegate[0].model"),
        (r#""input":[{"role":"user"}]"#, "missing_required_parameter", "flashlane.delegate[0].input[0].content"),
        (
            r#""input":[{"role":"user","content":[{"type":"input_image","image_url":"data:,"}]}]"#,
            "invalid_value",
            "flashlane.delegate[0].input[0].content[0]",
        ),
    ] {
        peers.message(&DELEGATE.replace(r#""input":"x""#, child));
        assert_eq!(last_error(&peers), (code, param), "{child}");
    }
    assert!(peers.sent.is_empty());
}
