//! Children of a response: what a session hands out, and what it takes back.

use crate::peer::{Peers, fleet};
use flashlane_engine::Settings;

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
