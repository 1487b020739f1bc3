//! Calls that a model makes: several at once, and such as it may not make.

use crate::peer::{Peers, Step};
use serde_json::{Value, json};

const TOOLS: &str = r#""tools":[{"type":"function","name":"run","parameters":{}},{"type":"custom","name":"patch"}]"#;

fn begin(more: &str) -> Peers {
    let mut peers = Peers::new();
    peers.message(&format!(r#"{{"type":"response.create","model":"m","input":"go","store":false,{TOOLS}{more}}}"#));
    peers.apply(Step::Opened);
    peers
}

fn call(peers: &mut Peers, index: u32, name: &str, arguments: &str) {
    let function = json!({"name": name, "arguments": arguments});
    let call = json!({"index": index, "id": format!("c{index}"), "function": function});
    peers.delta(&json!({"tool_calls": [call]}).to_string());
}

fn arguments(peers: &mut Peers, index: u32, piece: &str) {
    peers.delta(&json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}).to_string());
}

/// The last event, and its items as names, payloads and statuses.
fn end(peers: &Peers) -> (String, Vec<(String, String, String)>) {
    let event = peers.watch.events.last().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = event["response"]["output"].as_array().unwrap().iter().map(|item| {
        let payload = item.get("arguments").or(item.get("input")).unwrap_or(&item["content"][0]["text"]);
        (text(&item["name"]), text(payload), text(&item["status"]))
    });
    (text(&event["type"]), items.collect())
}

fn whole(name: &str, payload: &str) -> (String, String, String) {
    (name.into(), payload.into(), "completed".into())
}

fn deltas(peers: &Peers) -> usize {
    peers.watch.events.iter().filter(|event| event["type"].as_str().unwrap().ends_with("arguments.delta")).count()
}

#[test]
fn calls_that_come_at_once_are_told_one_after_the_other() {
    let mut peers = begin("");
    call(&mut peers, 0, "run", "{\"a\":");
    call(&mut peers, 1, "patch", "");
    call(&mut peers, 2, "run", "");
    for (index, piece) in [(1, "{\"input\":"), (2, "{\"c\""), (0, "\"}\""), (1, "\"x\""), (2, ":3}"), (1, "}")] {
        arguments(&mut peers, index, piece);
    }
    assert_eq!(deltas(&peers), 2, "the first is told as it comes, and the others wait");
    arguments(&mut peers, 0, "}");
    assert_eq!(deltas(&peers), 4, "its end is their beginning");
    peers.finish("tool_calls");
    let expected = vec![whole("run", "{\"a\":\"}\"}"), whole("patch", "x"), whole("run", "{\"c\":3}")];
    assert_eq!(end(&peers), ("response.completed".into(), expected));
    let ids: Vec<_> = peers.watch.events.last().unwrap()["response"]["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| &i["call_id"])
        .collect();
    assert_eq!(ids, ["c0", "c1", "c2"]);
    let messages = json!([{"role": "user", "content": "go"}]);
    assert_eq!(serde_json::from_str::<Value>(&peers.sent[0].1).unwrap()["messages"], messages);
}

#[test]
fn the_last_of_them_is_told_as_it_comes_and_a_finish_ends_them_all() {
    let mut peers = begin("");
    call(&mut peers, 0, "run", "{");
    call(&mut peers, 1, "run", "{\"b\":");
    arguments(&mut peers, 0, "}");
    let told = deltas(&peers);
    arguments(&mut peers, 1, "1");
    assert_eq!(deltas(&peers), told + 1);
    arguments(&mut peers, 1, "}");
    // Nothing ever comes for the third, which the fourth waits for.
    call(&mut peers, 2, "run", "");
    call(&mut peers, 3, "run", "{}");
    peers.finish("tool_calls");
    let expected = ["{}", "{\"b\":1}", "", "{}"].map(|payload| whole("run", payload)).to_vec();
    assert_eq!(end(&peers), ("response.completed".into(), expected));
}

#[test]
fn of_a_response_that_is_cut_the_calls_that_waited_are_never_heard_of() {
    for cut in [Step::FinishByLength, Step::Cut, Step::Interrupt, Step::Cancel] {
        let mut peers = begin("");
        call(&mut peers, 0, "run", "{");
        call(&mut peers, 1, "run", "{}");
        peers.apply(cut);
        let added = peers.watch.events.iter().filter(|event| event["type"] == "response.output_item.added");
        assert_eq!(added.count(), 1, "{cut:?}");
        peers.finish_and_check();
    }
}

#[test]
fn a_text_behind_them_ends_them_and_what_comes_later_fails() {
    let mut peers = begin("");
    call(&mut peers, 0, "run", "{");
    call(&mut peers, 1, "run", "{}");
    peers.apply(Step::Text);
    arguments(&mut peers, 0, "}");
    let (kind, items) = end(&peers);
    assert_eq!((kind.as_str(), items.len()), ("response.failed", 3));
}

#[test]
fn a_tool_that_the_choice_does_not_allow_is_not_called() {
    let allowed = r#","tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"run"}]}"#;
    for choice in [allowed, r#","tool_choice":"none""#] {
        let mut peers = begin(choice);
        peers.apply(Step::Text);
        call(&mut peers, 0, "patch", "{\"input\":\"x\"}");
        let failed = peers.watch.events.last().unwrap();
        assert_eq!(
            (&failed["type"], &failed["response"]["error"]["code"]),
            (&json!("response.failed"), &json!("server_error"))
        );
        assert!(failed["response"]["error"]["message"].as_str().unwrap().contains("'patch'"), "{failed}");
        assert_eq!(failed["response"]["output"].as_array().unwrap().len(), 1, "the text, and no call");
        peers.finish_and_check();
    }
    let mut peers = begin(allowed);
    let sent: Value = serde_json::from_str(&peers.sent[0].1).unwrap();
    assert_eq!(sent["tools"].as_array().unwrap().len(), 1, "only what is allowed is offered");
    call(&mut peers, 0, "run", "{}");
    peers.finish("tool_calls");
    assert_eq!(end(&peers).0, "response.completed");
}
