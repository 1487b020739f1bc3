//! Items that an input refers to by their ids: of the chain, or of the store.

use crate::peer::{Peers, Step};
use serde_json::{Value, json};

fn apply(peers: &mut Peers, steps: &[Step]) {
    steps.iter().for_each(|&step| peers.apply(step));
}

fn create(peers: &mut Peers, more: &Value, input: &Value) {
    let mut create = json!({"type": "response.create", "model": "m", "input": input, "store": false});
    create.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    peers.message(&create.to_string());
}

fn messages(peers: &Peers) -> Value {
    let body: Value = serde_json::from_str(&peers.sent.last().unwrap().1).unwrap();
    body["messages"].clone()
}

fn last(peers: &Peers) -> &Value {
    peers.watch.events.last().unwrap()
}

/// A reference to an item of the response that ended last.
fn reference(peers: &Peers, item: usize) -> Value {
    let id = last(peers)["response"]["output"][item]["id"].clone();
    assert!(id.is_string());
    json!({"type": "item_reference", "id": id})
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[test]
fn a_reference_stands_for_the_stored_item_in_its_place() {
    let mut peers = Peers::new();
    apply(&mut peers, &[Step::CreateStored, Step::Opened, Step::Text, Step::Call, Step::Arguments, Step::Finish]);
    apply(&mut peers, &[Step::Committed]);
    let (text, call) = (reference(&peers, 0), reference(&peers, 1));
    let output = json!({"type": "function_call_output", "call_id": "c0", "output": "done"});
    create(
        &mut peers,
        &json!({"store": true}),
        &json!([user("again"), text, {"id": call["id"]}, output, user("and?")]),
    );
    let told = messages(&peers);
    let roles: Vec<_> = told.as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "user"], "the call finds its output");
    assert_eq!((&told[1]["content"], &told[1]["tool_calls"][0]["id"]), (&json!("a\n"), &json!("c0")));
    // What is kept of it is whole: it does not hang on the other response.
    apply(&mut peers, &[Step::Opened, Step::Text, Step::Finish, Step::Committed]);
    let kept = &peers.stored[last(&peers)["response"]["id"].as_str().unwrap()];
    let kept: Vec<Value> = kept.iter().map(|item| serde_json::from_slice(item).unwrap()).collect();
    assert_eq!(kept.len(), 6);
    assert!(kept.iter().all(|item| item["type"] != "item_reference"), "{kept:?}");
}

#[test]
fn what_the_chain_has_is_not_told_twice() {
    let mut peers = Peers::new();
    apply(&mut peers, &[Step::Create, Step::Opened, Step::Text, Step::Finish]);
    let (id, reference) = (last(&peers)["response"]["id"].clone(), reference(&peers, 0));
    create(&mut peers, &json!({"previous_response_id": id}), &json!([reference, user("more")]));
    assert_eq!(messages(&peers).as_array().unwrap().len(), 3);
    assert!(!peers.effects.contains(&"Find".to_owned()), "nobody is asked");
}

#[test]
fn an_item_that_is_nowhere_is_named() {
    let mut peers = Peers::new();
    create(&mut peers, &json!({}), &json!([user("hi"), {"type": "item_reference", "id": "msg_gone"}]));
    peers.apply(Step::NotFound);
    let error = &last(&peers)["error"];
    assert_eq!((&last(&peers)["status"], &error["param"]), (&json!(404), &json!("input")));
    assert_eq!(error["message"], "Item with id 'msg_gone' not found.");
    // Without a chain, what was not stored is nowhere.
    apply(&mut peers, &[Step::Create, Step::Opened, Step::Text, Step::Finish, Step::Refer, Step::NotFound]);
    assert_eq!(last(&peers)["status"], 404);
    let many: Vec<_> = (0..1001).map(|n| json!({"id": format!("msg_{n}")})).collect();
    create(&mut peers, &json!({}), &json!(many));
    assert_eq!(last(&peers)["error"]["code"], "invalid_value");
    peers.finish_and_check();
}

#[test]
fn a_chain_that_holds_an_unanswered_trigger_can_be_gone_on_from() {
    let mut peers = Peers::new();
    let items = [user("a"), json!({"type": "compaction_trigger"}), user("b")];
    let items = items.iter().map(|item| item.to_string().into()).collect();
    peers.stored.insert("resp_kept".to_owned(), items);
    create(&mut peers, &json!({"previous_response_id": "resp_kept"}), &json!([user("c")]));
    assert_eq!(messages(&peers), json!([user("a"), user("b"), user("c")]));
    peers.finish_and_check();
}

#[test]
fn references_may_not_multiply_an_item_beyond_what_is_kept() {
    let mut peers = Peers::new();
    create(&mut peers, &json!({"store": true}), &json!("x"));
    apply(&mut peers, &[Step::Opened]);
    let word = "a".repeat(1 << 20);
    (0..2).for_each(|_| peers.delta(&json!({"content": word}).to_string()));
    apply(&mut peers, &[Step::Finish, Step::Committed]);
    let (item, bytes) = (reference(&peers, 0), last(&peers)["response"]["output"][0].to_string().len());
    create(&mut peers, &json!({}), &Value::from(vec![item; 100]));
    let error = &last(&peers)["error"];
    assert_eq!(error["code"], "context_length_exceeded");
    let said = error["message"].as_str().unwrap();
    assert!(said.contains(&format!("has {} bytes", 100 * bytes)), "counted before anything is rendered: {said}");
}
