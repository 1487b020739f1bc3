//! Named lanes, their memory and its eviction, and the end of a connection's time.

use crate::peer::{Peers, Step};
use flashlane_engine::Status;
use serde_json::Value;

/// Type and lane of each event.
fn seen(peers: &Peers) -> Vec<(String, Option<String>)> {
    let text = |event: &Value, name: &str| event[name].as_str().map(str::to_owned);
    peers.watch.events.iter().map(|event| (text(event, "type").unwrap(), text(event, "stream_id"))).collect()
}

fn create(peers: &mut Peers, more: &str) {
    peers.message(&format!(r#"{{"type":"response.create","model":"m","input":"x","store":false{more}}}"#));
}

fn last_error(peers: &Peers) -> Value {
    peers.watch.events.iter().rfind(|event| event["type"] == "error").unwrap().clone()
}

#[test]
fn lanes_run_beside_each_other_and_each_event_says_its_own() {
    let mut peers = Peers::new();
    create(&mut peers, r#","stream_id":"a""#);
    create(&mut peers, r#","stream_id":"b.1""#);
    create(&mut peers, "");
    assert_eq!(peers.sent.len(), 3, "three turns at once");
    // The default lane's is meant first, then that of `a`, then that of `b.1`.
    for _ in 0..3 {
        peers.apply(Step::Opened);
        peers.apply(Step::Switch);
    }
    for _ in 0..3 {
        for step in [Step::Text, Step::Finish, Step::Switch] {
            peers.apply(step);
        }
    }
    let seen = seen(&peers);
    for lane in [None, Some("a"), Some("b.1")] {
        let of = |kind: &str| seen.iter().filter(|(name, of)| name == kind && of.as_deref() == lane).count();
        assert_eq!((of("response.created"), of("response.output_text.delta"), of("response.completed")), (1, 1, 1));
    }
    assert_eq!(seen.iter().filter(|(name, _)| name == "response.created").count(), 3);
}

#[test]
fn a_lane_is_first_in_first_out() {
    let mut peers = Peers::new();
    create(&mut peers, r#","stream_id":"a""#);
    create(&mut peers, r#","stream_id":"a""#);
    assert_eq!(peers.sent.len(), 1);
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!(peers.sent.len(), 2);
}

#[test]
fn sixteen_turns_run_and_the_seventeenth_waits() {
    let mut peers = Peers::new();
    for lane in 0..18 {
        create(&mut peers, &format!(r#","stream_id":"l{lane}""#));
    }
    assert_eq!(peers.sent.len(), 16);
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!(peers.sent.len(), 17);
}

#[test]
fn a_connection_has_32_named_lanes_and_the_error_names_the_33rd() {
    let mut peers = Peers::new();
    for lane in 0..33 {
        create(&mut peers, &format!(r#","generate":false,"stream_id":"l{lane}""#));
    }
    let error = last_error(&peers);
    assert_eq!(
        (&error["error"]["code"], &error["stream_id"]),
        (&"websocket_stream_limit_reached".into(), &"l32".into())
    );
    assert_eq!(peers.watch.ended.len(), 32);
    create(&mut peers, r#","generate":false,"stream_id":"l3""#);
    create(&mut peers, r#","generate":false"#);
    assert_eq!(peers.watch.ended.len(), 34, "known lanes and the default lane still serve");
}

#[test]
fn an_error_is_told_in_its_lane() {
    let mut peers = Peers::new();
    peers.message(r#"{"type":"response.create","model":3,"stream_id":"a"}"#);
    assert_eq!(last_error(&peers)["stream_id"], "a");
    peers.message(r#"{"type":"response.create","model":"absent","input":"x","stream_id":"a"}"#);
    assert_eq!(last_error(&peers)["stream_id"], "a");
    peers.message("{}");
    assert!(last_error(&peers).get("stream_id").is_none());
}

fn run(peers: &mut Peers) {
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
}

#[test]
fn a_fork_goes_on_from_another_lane_and_shares_its_context() {
    let mut peers = Peers::new();
    create(&mut peers, r#","stream_id":"a""#);
    run(&mut peers);
    let id = peers.watch.ended[0].clone();
    for lane in ["b", "c"] {
        create(&mut peers, &format!(r#","stream_id":"{lane}","previous_response_id":"{id}""#));
        let body: Value = serde_json::from_str(&peers.sent.last().unwrap().1).unwrap();
        assert_eq!(body["messages"].as_array().unwrap().len(), 3, "input, answer, input");
        run(&mut peers);
    }
    create(&mut peers, &format!(r#","stream_id":"a","previous_response_id":"{id}""#));
    assert_eq!(peers.sent.len(), 4, "the forked lane still knows its latest response");
}

#[test]
fn a_failed_continuation_evicts_in_its_own_lane_and_not_in_another() {
    let mut peers = Peers::new();
    create(&mut peers, r#","stream_id":"a""#);
    run(&mut peers);
    let id = peers.watch.ended[0].clone();
    let again = |lane: &str| format!(r#","stream_id":"{lane}","previous_response_id":"{id}""#);
    create(&mut peers, &again("b"));
    peers.apply(Step::Refused400);
    create(&mut peers, &again("a"));
    assert_eq!(peers.sent.len(), 3, "a failed fork preserves its parent");
    peers.apply(Step::Refused400);
    create(&mut peers, &again("a"));
    peers.apply(Step::NotLoaded);
    assert_eq!(last_error(&peers)["error"]["code"], "previous_response_not_found");
    assert_eq!(peers.sent.len(), 3);
}

#[test]
fn a_wrong_request_evicts_what_it_would_have_gone_on_from() {
    let mut peers = Peers::new();
    create(&mut peers, "");
    run(&mut peers);
    let id = peers.watch.ended[0].clone();
    peers.message(&format!(r#"{{"type":"response.create","model":"absent","previous_response_id":"{id}"}}"#));
    create(&mut peers, &format!(r#","previous_response_id":"{id}""#));
    peers.apply(Step::NotLoaded);
    assert_eq!(last_error(&peers)["error"]["code"], "previous_response_not_found");
}

#[test]
fn an_hour_ends_a_connection_between_turns() {
    let mut peers = Peers::new();
    create(&mut peers, "");
    peers.apply(Step::Opened);
    create(&mut peers, "");
    peers.apply(Step::PassAnHour);
    assert_eq!(peers.watch.errors, 0, "not while a turn runs");
    create(&mut peers, r#","stream_id":"late""#);
    let error = last_error(&peers);
    assert_eq!(error["error"]["code"], "websocket_connection_limit_reached");
    for step in [Step::Text, Step::Finish, Step::Opened, Step::Text] {
        peers.apply(step);
    }
    assert_eq!(peers.watch.errors, 1, "what waited before is served");
    peers.apply(Step::Finish);
    let error = last_error(&peers);
    assert_eq!(
        (&error["status"], &error["error"]["code"]),
        (&400.into(), &"websocket_connection_limit_reached".into())
    );
    assert!(error.get("stream_id").is_none());
    assert_eq!(peers.effects.last().unwrap(), "Close");
}

#[test]
fn a_cancelled_response_ends_and_cannot_be_gone_on_from() {
    let mut peers = Peers::new();
    for step in [Step::CreateInA, Step::Opened, Step::Text, Step::Cancel] {
        peers.apply(step);
    }
    let last = peers.watch.events.last().unwrap();
    assert_eq!((&last["type"], &last["stream_id"]), (&"response.incomplete".into(), &"a".into()));
    assert_eq!(last["response"]["incomplete_details"]["reason"], "cancelled");
    assert!(peers.effects.contains(&"Abort".to_owned()));
    assert_eq!(peers.outcomes[0].status, Status::Cancelled);
    peers.apply(Step::Continue);
    peers.apply(Step::NotLoaded);
    assert_eq!(last_error(&peers)["error"]["code"], "previous_response_not_found");
    peers.message(r#"{"type":"response.cancel","response_id":"resp_none"}"#);
    assert_eq!(last_error(&peers)["error"]["code"], "response_not_active");
}
