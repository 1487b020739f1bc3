//! Profiles: what is added to a model's instructions at a tier, and how hard it thinks there. The prefix stays what its engine has cached.

use crate::peer::{Peers, Step, fleet};
use flashlane_engine::admission::{self, Admission, PerTier, Queueing};
use flashlane_engine::router::Effort;
use flashlane_engine::{Appended, Effect, Fleet, IdSource, Now, Owner, Profile, Session, Settings, Shared, Speaks};
use serde_json::{Value, json};
use std::sync::Arc;

const LIGHT: &str = "Small targeted edits.\nTests only when asked.";

fn profile(text: &str, effort: Option<Effort>) -> Profile {
    Profile { appended: Appended::new(text).map(Arc::new), effort }
}

/// A split model: a user's words go to the throughput tier, tools' outputs to the latency tier, whose profile is light.
fn split() -> Fleet {
    let mut fleet = fleet();
    for model in &mut fleet.models {
        model.routing.splits = true;
        model.profiles.latency = profile(LIGHT, Some(Effort::Low));
    }
    fleet
}

fn body(peers: &Peers, index: usize) -> Value {
    serde_json::from_str(&peers.sent[index].1).unwrap()
}

fn create(peers: &mut Peers, more: &str) {
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"instructions":"be \"brief\""{more},
            "tools":[{{"type":"function","name":"run","parameters":{{}}}}]}}"#
    ));
}

/// The model calls the tool.
fn call(peers: &mut Peers, id: &str) {
    peers.apply(Step::Opened);
    peers.delta(&format!(
        r#"{{"tool_calls":[{{"index":0,"id":"{id}","function":{{"name":"run","arguments":"{{}}"}}}}]}}"#
    ));
    peers.finish("tool_calls");
}

fn go_on(peers: &mut Peers, id: &str) {
    let previous = peers.watch.ended.last().unwrap().clone();
    let output = format!(r#"[{{"type":"function_call_output","call_id":"{id}","output":"ok"}}]"#);
    create(peers, &format!(r#","previous_response_id":"{previous}","input":{output}"#));
}

#[test]
fn each_tier_is_told_its_own_and_a_prefix_grows_byte_for_byte() {
    let mut peers = Peers::on(split());
    create(&mut peers, r#","input":"do it""#);
    for (id, next) in [("c0", "c1"), ("c1", "c2"), ("c2", "c3")] {
        call(&mut peers, id);
        go_on(&mut peers, id);
        assert!(next > id);
    }
    let bodies: Vec<_> = (0..4).map(|at| body(&peers, at)).collect();
    assert_eq!(bodies[0]["model"], "m", "the throughput tier has no profile");
    assert_eq!(bodies[0]["messages"][0], json!({"role":"system","content":"be \"brief\""}));
    assert_eq!(bodies[0]["reasoning_effort"], Value::Null);
    let system = json!({"role":"system","content":format!("be \"brief\"\n\n{LIGHT}")});
    for body in &bodies[1..] {
        assert_eq!((&body["model"], &body["reasoning_effort"]), (&json!("m-wafer"), &json!("low")));
        assert_eq!(body["messages"][0], system);
        assert_eq!(body["messages"].as_array().unwrap().iter().filter(|m| m["role"] == "system").count(), 1);
    }
    // Tools, settings and all messages of the turn before lead, byte for byte.
    for (before, after) in [(1, 2), (2, 3)] {
        let prefix = peers.sent[before].1.strip_suffix("]}").unwrap();
        assert!(peers.sent[after].1.starts_with(prefix), "{prefix}\nis not how this begins:\n{}", peers.sent[after].1);
    }
    peers.finish_and_check();
}

#[test]
fn what_the_request_says_of_effort_goes_before() {
    let mut peers = Peers::on(split());
    for (said, effort) in [("\"high\"", "high"), ("null", "low")] {
        create(&mut peers, &format!(r#","input":"x","service_tier":"priority","reasoning":{{"effort":{said}}}"#));
        let sent = body(&peers, peers.sent.len() - 1);
        assert_eq!((&sent["model"], &sent["reasoning_effort"]), (&json!("m-wafer"), &json!(effort)));
        peers.apply(Step::Opened);
        peers.apply(Step::Text);
        peers.finish("stop");
    }
    peers.finish_and_check();
}

#[test]
fn without_instructions_it_joins_the_systems_words_or_leads() {
    let mut peers = Peers::on(split());
    let user = json!({"role":"user","content":"x"});
    for (input, expected) in [
        (r#"[{"role":"user","content":"x"}]"#, json!([{"role":"system","content":LIGHT}, user])),
        (
            r#"[{"role":"developer","content":"d"},{"role":"user","content":"x"}]"#,
            json!([{"role":"system","content":format!("d\n\n{LIGHT}")}, user]),
        ),
    ] {
        peers.message(&format!(
            r#"{{"type":"response.create","model":"m","store":false,"service_tier":"priority","input":{input}}}"#
        ));
        assert_eq!(body(&peers, peers.sent.len() - 1)["messages"], expected);
        peers.apply(Step::Opened);
        peers.finish("stop");
    }
    peers.finish_and_check();
}

#[test]
fn a_warm_ups_prompt_is_read_with_it() {
    let queue = || Queueing { prefill_on_warm_up: true, ..Queueing::default() };
    let queue = PerTier { latency: queue(), throughput: queue() };
    let mut fleet = fleet();
    fleet.models[0].profiles.latency = profile(LIGHT, Some(Effort::Low));
    let mut peers = Peers::before(&admission::Settings { queue, ..admission::Settings::default() }, fleet);
    create(&mut peers, r#","input":"first words","generate":false"#);
    let warm = peers.watch.ended[0].clone();
    peers.chunk("[DONE]");
    create(&mut peers, &format!(r#","input":"and then","previous_response_id":"{warm}""#));
    let (read, asked) = (body(&peers, 0), body(&peers, 1));
    assert_eq!(read["messages"][0]["content"], format!("be \"brief\"\n\n{LIGHT}"));
    let messages = read["messages"].as_array().unwrap();
    assert_eq!(asked["messages"].as_array().unwrap()[..messages.len()], messages[..]);
    assert_eq!((&read["reasoning_effort"], &asked["reasoning_effort"]), (&json!("low"), &json!("low")));
    peers.finish_and_check();
}

#[test]
fn a_server_of_the_responses_api_has_it_in_its_instructions() {
    let mut fleet = fleet();
    fleet.endpoints.iter_mut().for_each(|endpoint| endpoint.speaks = Speaks::Responses);
    fleet.models[0].profiles.latency = profile(LIGHT, Some(Effort::Low));
    let mut peers = Peers::on(fleet);
    create(&mut peers, r#","input":"x""#);
    create(&mut peers, r#","input":"x","stream_id":"a","reasoning":{"summary":"auto"}"#);
    for at in 0..2 {
        let sent = body(&peers, at);
        assert_eq!(sent["instructions"], format!("be \"brief\"\n\n{LIGHT}"));
        assert_eq!(sent["reasoning"]["effort"], "low");
        assert_eq!(sent["include"], json!(["reasoning.encrypted_content"]));
        assert_eq!(sent["input"].as_array().unwrap().len(), 1);
    }
    assert_eq!(body(&peers, 1)["reasoning"]["summary"], "auto");
}

#[test]
fn a_chat_request_has_it_in_its_first_message() {
    let fleet = Arc::new(split());
    let shared = Arc::new(Shared::new(Settings::default(), Arc::clone(&fleet), crate::peer::ring()));
    let mut admission = Admission::new(&admission::Settings::default(), Arc::clone(&fleet), [7; 32]);
    let mut sent = |last: &str| {
        let mut session = Session::http(Arc::clone(&shared), IdSource::new([1; 32]), Owner::default());
        let request = format!(
            r#"{{"model":"m","temperature":0,"messages":[ {{"role":"system","content":[{{"type":"text","text":"s"}}]}},
                {{"role":"user","content":"u"}},{{"role":"assistant","tool_calls":[]}}{last}]}}"#
        );
        session.handle_chat_body(request.as_bytes(), Now::default());
        loop {
            let effect = session.poll_effect().unwrap();
            if let Effect::Open(_, request) = &effect {
                let body = flashlane_wire::chat::body(&request.model, &request.fields, &request.messages).concat();
                break serde_json::from_slice::<Value>(&body).unwrap();
            }
            if let Effect::Ask(turn, ticket) = effect {
                let asked = admission.ask(*ticket, Now::default());
                session.handle_asked(turn, asked, Now::default());
            }
        }
    };
    let work = sent(r#",{"role":"tool","tool_call_id":"c","content":"o"}"#);
    let parts = json!([{"type":"text","text":"s"}, {"type":"text","text":format!("\n\n{LIGHT}")}]);
    assert_eq!((&work["model"], &work["reasoning_effort"]), (&json!("m-wafer"), &json!("low")));
    assert_eq!(work["messages"][0], json!({"role":"system","content":parts}));
    assert_eq!(work["messages"].as_array().unwrap().len(), 4);
    let plan = sent(r#",{"role":"user","content":"then"}"#);
    assert_eq!(plan["messages"][0], json!({"role":"system","content":[{"type":"text","text":"s"}]}));
    assert_eq!(plan["reasoning_effort"], Value::Null);
}

#[test]
fn it_is_counted_once_and_there_is_room_for_the_longest() {
    let mut fleet = fleet();
    let long = "word ".repeat(150);
    fleet.models[1].profiles.latency = profile("short", None);
    fleet.models[1].profiles.throughput = profile(&long, None);
    let mut peers = Peers::on(fleet);
    let input = "word ".repeat(90);
    let create = format!(r#"{{"type":"response.create","model":"small","store":false,"input":"{input}"}}"#);
    peers.message(&create);
    peers.count();
    let error = &peers.watch.events.last().unwrap()["error"];
    assert_eq!(error["code"], "context_length_exceeded", "90 and 150 are more than 200: {error}");
    assert_eq!(peers.jobs[0].texts.len(), 2);
    peers.message(&create);
    assert_eq!(peers.jobs[1].texts.len(), 1, "its count is known");
}
