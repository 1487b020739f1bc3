//! What a client keeps for this server: reasoning that it asked for, sealed, and what becomes of it when it comes back.

use crate::peer::{Peers, Step, ring};
use flashlane_engine::Owner;
use flashlane_engine::seal::Purpose;
use serde_json::{Value, json};

const INCLUDE: &str = r#","include":["reasoning.encrypted_content"]"#;

fn create(peers: &mut Peers, more: &str) {
    peers.message(&format!(r#"{{"type":"response.create","model":"m","store":false,"input":"hi"{more}}}"#));
}

/// A turn that thinks, then answers; its reasoning item as it was done, and as the response has it.
fn thinking(more: &str) -> [Value; 2] {
    let mut peers = Peers::new();
    create(&mut peers, more);
    peers.apply(Step::Opened);
    peers.delta(r#"{"reasoning":"two \"and\" "}"#);
    peers.delta(r#"{"reasoning":"two\né"}"#);
    peers.apply(Step::Text);
    peers.apply(Step::Finish);
    let events = &peers.watch.events;
    let added = events.iter().find(|event| event["type"] == "response.output_item.added").unwrap();
    assert_eq!(added["item"]["encrypted_content"], Value::Null);
    let done = events.iter().find(|event| event["type"] == "response.output_item.done").unwrap()["item"].clone();
    [done, events.last().unwrap()["response"]["output"][0].clone()]
}

/// Sends items back; the error, if there is one.
fn answer_to(items: &Value) -> Option<Value> {
    let mut peers = Peers::new();
    peers.message(&json!({"type": "response.create", "model": "m", "store": false, "input": items}).to_string());
    let last = peers.watch.events.last().cloned();
    assert_eq!(peers.sent.len(), usize::from(last.is_none()));
    last.map(|event| event["error"].clone())
}

fn sealed_for(owner: Owner, text: &str) -> String {
    ring().seal(Purpose::Reasoning, owner, [9; 24], text.as_bytes()).unwrap()
}

#[test]
fn reasoning_is_sealed_where_that_was_asked_for_and_only_there() {
    let [done, in_response] = thinking(INCLUDE);
    assert_eq!(done, in_response);
    let opened = ring().open(Purpose::Reasoning, Owner::default(), done["encrypted_content"].as_str().unwrap());
    assert_eq!(opened.unwrap(), "two \"and\" two\né".as_bytes());
    for more in ["", r#","include":["message.output_text.logprobs"]"#, r#","include":[]"#] {
        assert!(thinking(more).iter().all(|item| item.get("encrypted_content").is_none()), "{more}");
    }
}

#[test]
fn sealed_reasoning_comes_back_and_is_not_told_to_the_engine() {
    let [reasoning, _] = thinking(INCLUDE);
    let user = json!({"role": "user", "content": "and now?"});
    assert_eq!(answer_to(&json!([reasoning, user])), None);
    let without = json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": null});
    assert_eq!(answer_to(&json!([without, user])), None);
}

#[test]
fn anothers_altered_or_foreign_reasoning_is_refused_by_its_path() {
    let good = sealed_for(Owner::default(), "hm");
    let altered = format!("{}{}", &good[..good.len() - 2], if good.ends_with("AA") { "BB" } else { "AA" });
    for sealed in [sealed_for(Owner([3; 32]), "hm"), altered, "gAAAAABo4mF".to_owned(), "not base64!".to_owned()] {
        let item = json!({"type": "reasoning", "summary": [], "encrypted_content": sealed});
        let error = answer_to(&json!([{"role": "user", "content": "a"}, item])).expect("it is refused");
        assert_eq!(error["param"], "input[1].encrypted_content", "{error}");
        assert_eq!(error["code"], "invalid_value", "{error}");
        assert!(!error["message"].as_str().unwrap().contains(&sealed), "{error}");
    }
}

#[test]
fn what_is_stored_is_gone_on_from_whatever_its_keys() {
    let mut peers = Peers::new();
    let lost = json!({"type": "reasoning", "summary": [], "encrypted_content": "of a key that is gone"});
    let items = [json!({"role": "user", "content": "a"}), lost];
    peers.stored.insert("resp_kept".to_owned(), items.iter().map(|item| item.to_string().into()).collect());
    create(&mut peers, r#","previous_response_id":"resp_kept""#);
    assert_eq!(peers.sent.len(), 1);
}
