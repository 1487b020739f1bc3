//! Compaction: the summary is asked of the model, sealed for its owner, and takes the place of what it stands for; over all three ways.

use crate::peer::{Peers, Step, ring};
use flashlane_engine::admission::Grant;
use flashlane_engine::seal::Purpose;
use flashlane_engine::{
    Answer, Effect, EndpointId, IdSource, Now, Owner, Session, Settings, Shared, Tier, TurnId, UpstreamEvent,
};
use serde_json::{Value, json};
use std::sync::Arc;

const ABOVE_50: &str = r#""context_management":[{"type":"compaction","compact_threshold":50}]"#;

fn create(peers: &mut Peers, input: &Value, more: &str) {
    let more = if more.is_empty() { String::new() } else { format!(",{more}") };
    peers.message(&format!(r#"{{"type":"response.create","model":"m","input":{input}{more}}}"#));
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// What the engine answers, at a price.
fn answer(peers: &mut Peers, text: &str, [input, output]: [u64; 2]) {
    peers.apply(Step::Opened);
    peers.delta(&json!({"content": text}).to_string());
    peers.chunk(r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
    let usage = json!({"id": "c", "choices": [], "usage": {"prompt_tokens": input, "completion_tokens": output}});
    peers.chunk(&usage.to_string());
    peers.chunk("[DONE]");
}

/// The messages of the request that was sent last.
fn messages(peers: &Peers) -> Vec<Value> {
    let body: Value = serde_json::from_str(&peers.sent.last().unwrap().1).unwrap();
    body["messages"].as_array().unwrap().clone()
}

fn field(peers: &Peers, name: &str) -> Option<String> {
    peers.sent.last().unwrap().0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

fn last(peers: &Peers) -> &Value {
    peers.watch.events.last().unwrap()
}

fn kinds(peers: &Peers) -> Vec<&str> {
    let kinds = peers.watch.events.iter().map(|event| event["type"].as_str().unwrap());
    kinds.filter(|kind| *kind != "keepalive").collect()
}

fn opened(blob: &Value) -> String {
    let content = ring().open(Purpose::Compaction, Owner::default(), blob.as_str().unwrap()).unwrap();
    String::from_utf8(content).unwrap()
}

fn going_on(peers: &Peers) -> String {
    format!(r#""previous_response_id":"{}""#, peers.watch.ended.last().unwrap())
}

/// A long first turn, and a second one that passes the threshold and waits for its summary.
fn at_its_summary(store: bool) -> Peers {
    let mut peers = Peers::new();
    let history = json!([{"role": "developer", "content": "be brief"}, user(&"word ".repeat(200))]);
    create(&mut peers, &history, &format!(r#""store":{store}"#));
    answer(&mut peers, "done", [210, 2]);
    if store {
        peers.apply(Step::Committed);
    }
    let more = format!(
        r#""store":{store},"temperature":0.5,"max_output_tokens":9,"instructions":"now",{},{ABOVE_50}"#,
        going_on(&peers)
    );
    create(&mut peers, &json!([user("and what next?")]), &more);
    peers.count();
    peers
}

#[test]
fn beyond_the_threshold_a_summary_comes_first_and_the_turn_goes_on_with_it() {
    let mut peers = at_its_summary(false);
    let asked = messages(&peers);
    let roles: Vec<_> = asked.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "system", "user", "assistant", "user", "user"]);
    assert!(asked[5]["content"].as_str().unwrap().contains("notes to yourself"), "{}", asked[5]);
    assert_eq!(field(&peers, "temperature").as_deref(), Some("0.5"), "its settings hold");
    assert_eq!(field(&peers, "max_completion_tokens").as_deref(), Some("64"), "but for the length of its answer");
    answer(&mut peers, " the \"summary\" ", [260, 40]);

    let asked = messages(&peers);
    let texts: Vec<_> = asked.iter().map(|message| message["content"].as_str().unwrap()).collect();
    assert_eq!((asked.len(), texts[0], texts[1], texts[3]), (4, "now", "be brief", "and what next?"));
    assert!(texts[2].ends_with("the \"summary\""), "{}", texts[2]);
    assert_eq!(field(&peers, "max_completion_tokens").as_deref(), Some("9"));
    answer(&mut peers, "this", [60, 3]);

    let tail = kinds(&peers).split_off(kinds(&peers).iter().rposition(|kind| *kind == "response.created").unwrap());
    assert_eq!(
        tail[..6],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.compaction.compacting",
            "response.output_item.done",
            "response.output_item.added",
        ]
    );
    let response = &last(&peers)["response"];
    assert_eq!((&response["status"], response["output"].as_array().unwrap().len()), (&json!("completed"), 2));
    let compaction = &response["output"][0];
    assert_eq!(opened(&compaction["encrypted_content"]), "athe \"summary\"");
    assert_eq!(compaction["id"], format!("cmp_{}_0", &response["id"].as_str().unwrap()[5..]));
    assert_eq!(response["usage"]["input_tokens"], 320, "the summary is charged, too");
    assert_eq!(response["usage"]["output_tokens"], 43);
    assert_eq!(peers.outcomes.last().unwrap().usage.input, 320);

    let more = format!(r#""store":false,{}"#, going_on(&peers));
    create(&mut peers, &json!([user("more")]), &more);
    let contents: Vec<_> = messages(&peers).into_iter().map(|message| message["content"].clone()).collect();
    assert_eq!((contents.len(), &contents[3], &contents[4]), (5, &json!("this"), &json!("more")), "{contents:?}");
    peers.finish_and_check();
}

#[test]
fn what_is_stored_is_the_compacted_chain_and_comes_back_the_same() {
    let mut peers = at_its_summary(true);
    answer(&mut peers, "sum", [260, 40]);
    answer(&mut peers, "this", [60, 3]);
    peers.apply(Step::Committed);
    let id = peers.watch.ended.last().unwrap().clone();
    let stored = peers.stored[&id].clone();
    assert!(stored.iter().all(|item| item.len() < 400), "the long text is gone");

    let mut other = Peers::new();
    other.stored.insert(id.clone(), stored);
    let more = format!(r#""store":false,"previous_response_id":"{id}""#);
    create(&mut other, &json!([user("more")]), &more);
    create(&mut peers, &json!([user("more")]), &more);
    assert_eq!(messages(&other), messages(&peers));
    assert_eq!(messages(&other).len(), 5);
}

#[test]
fn a_client_that_sends_all_of_it_again_is_answered_from_the_summary() {
    let mut peers = at_its_summary(false);
    answer(&mut peers, "sum", [260, 40]);
    answer(&mut peers, "this", [60, 3]);
    let output = last(&peers)["response"]["output"].as_array().unwrap().clone();
    let more = format!(r#""store":false,{}"#, going_on(&peers));
    create(&mut peers, &json!([user("more")]), &more);
    let expected = messages(&peers);

    // Long enough to be recognised when it comes a second time.
    let said = json!({"role": "assistant", "content": "x".repeat(5000)});
    let before = json!([{"role": "developer", "content": "be brief"}, user("long"), said, user("and what next?")]);
    let all = |more: &[Value]| Value::from([before.as_array().unwrap(), &output[..], more].concat());
    let mut whole = Peers::new();
    create(&mut whole, &before, r#""store":false"#);
    answer(&mut whole, "not this", [1, 1]);
    for _ in 0..2 {
        create(&mut whole, &all(&[user("more")]), r#""store":false"#);
        assert_eq!(messages(&whole), expected);
        answer(&mut whole, "yes", [1, 1]);
    }
    let longer = all(&[user("more"), json!({"role": "assistant", "content": "yes"}), user("on")]);
    create(&mut whole, &longer, r#""store":false"#);
    assert_eq!(messages(&whole)[..5], expected);
    assert_eq!(messages(&whole).len(), 7);
}

#[test]
fn an_unanswered_tool_output_stays_with_its_call() {
    let mut peers = Peers::new();
    let long = "word ".repeat(100);
    let call = json!({"type": "function_call", "call_id": "c1", "name": "run", "arguments": "{}"});
    let output = json!({"type": "function_call_output", "call_id": "c1", "output": "fresh"});
    let early = [
        json!({"type": "function_call", "call_id": "c0", "name": "run", "arguments": "{}"}),
        json!({"type": "function_call_output", "call_id": "c0", "output": long}),
    ];
    let input = Value::from([vec![user("go")], early.to_vec(), vec![call, output]].concat());
    let tools = r#""tools":[{"type":"function","name":"run","parameters":{}}]"#;
    create(&mut peers, &input, &format!(r#""store":false,{tools},{ABOVE_50}"#));
    peers.count();
    assert_eq!(field(&peers, "tool_choice").as_deref(), Some("\"none\""));
    // A model that calls a tool all the same is not heard.
    peers.apply(Step::Opened);
    peers.apply(Step::Call);
    peers.apply(Step::Reasoning);
    answer(&mut peers, "sum", [1, 1]);
    let roles: Vec<_> = messages(&peers).into_iter().map(|message| message["role"].clone()).collect();
    assert_eq!(roles, ["user", "assistant", "tool"]);
    assert_eq!(field(&peers, "tool_choice"), None);
    answer(&mut peers, "good", [1, 1]);
    // What was cut away has no call any more.
    let more = format!(r#""store":false,{}"#, going_on(&peers));
    create(&mut peers, &json!([{"type": "function_call_output", "call_id": "c0", "output": "late"}]), &more);
    assert_eq!(last(&peers)["error"]["message"].as_str().unwrap().split(' ').next(), Some("No"));
    peers.finish_and_check();
}

#[test]
fn below_the_threshold_and_where_nothing_can_be_cut_nothing_is_compacted() {
    let mut peers = Peers::new();
    create(&mut peers, &json!("hi"), &format!(r#""store":false,{ABOVE_50}"#));
    assert_eq!((peers.jobs.len(), peers.sent.len()), (0, 1), "bytes decide");
    answer(&mut peers, "a", [1, 1]);
    create(&mut peers, &json!([user(&"word ".repeat(200))]), &format!(r#""store":false,{ABOVE_50}"#));
    peers.count();
    assert_eq!(messages(&peers).len(), 1, "all of it is the question");
    answer(&mut peers, "a", [1, 1]);
    let default = r#""store":false,"context_management":[{"type":"compaction"}]"#;
    create(
        &mut peers,
        &json!([user("a"), json!({"role": "assistant", "content": "word ".repeat(200)}), user("b")]),
        default,
    );
    assert_eq!(messages(&peers).len(), 3, "the server's own threshold is far");
}

#[test]
fn without_a_summary_the_turn_goes_on_as_it_is() {
    for how in [Step::Cut, Step::Refused400, Step::StreamError] {
        let mut peers = at_its_summary(false);
        if how != Step::Refused400 {
            peers.apply(Step::Opened);
            peers.apply(Step::Text);
        }
        peers.apply(how);
        assert_eq!(messages(&peers).len(), 5, "{how:?}");
        answer(&mut peers, "this", [300, 3]);
        let response = &last(&peers)["response"];
        assert_eq!((&response["status"], &response["output"][0]["type"]), (&json!("completed"), &json!("message")));
        let input = response["usage"]["input_tokens"].as_u64().unwrap();
        // A summary that was begun is paid for by an estimate; one that was refused cost nothing.
        assert_eq!((input > 500, input == 300), (how != Step::Refused400, how == Step::Refused400), "{how:?}: {input}");
        peers.finish_and_check();
    }
    let mut peers = at_its_summary(false);
    answer(&mut peers, "  ", [260, 1]);
    assert_eq!(messages(&peers).len(), 5, "blanks are no summary");
    answer(&mut peers, "this", [300, 3]);
    assert_eq!(last(&peers)["response"]["usage"]["input_tokens"], 560, "and are paid for once");
    peers.finish_and_check();
}

#[test]
fn a_turn_that_gets_no_place_for_its_summary_does_not_ask_as_if_it_were_new() {
    let mut peers = at_its_summary(false);
    let asked = peers.effects.iter().filter(|effect| *effect == "Ask").count();
    peers.apply(Step::Unreachable);
    peers.apply(Step::Unreachable);
    let error = &last(&peers)["error"];
    assert!(error["message"].as_str().unwrap().contains("cannot be reached"), "{error}");
    assert_eq!(peers.sent.len(), 3, "the first turn, and the summary at both endpoints");
    assert_eq!(peers.effects.iter().filter(|effect| *effect == "Ask").count(), asked + 2);
    peers.finish_and_check();
}

#[test]
fn signs_of_life_go_out_while_a_summary_streams() {
    let mut peers = at_its_summary(false);
    peers.apply(Step::Opened);
    let told = peers.watch.events.len();
    for _ in 0..21 {
        peers.apply(Step::Pass300Ms);
        peers.apply(Step::Text);
    }
    let told: Vec<_> = peers.watch.events[told..].iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(told, ["keepalive"], "once in 5 s");
    answer(&mut peers, "sum", [260, 40]);
    peers.apply(Step::Opened);
    let told = peers.watch.events.len();
    for _ in 0..21 {
        peers.apply(Step::Pass300Ms);
        peers.apply(Step::Text);
    }
    let told = &peers.watch.events[told..];
    assert!(told.iter().all(|event| event["type"] != "keepalive"), "tokens are signs of life: {told:?}");
    peers.finish_and_check();
}

#[test]
fn what_a_summary_cost_is_told_where_the_answer_behind_it_fails() {
    let mut peers = at_its_summary(false);
    answer(&mut peers, "sum", [260, 40]);
    peers.apply(Step::Opened);
    peers.apply(Step::Text);
    peers.apply(Step::StreamError);
    assert_eq!(last(&peers)["type"], "response.failed");
    let usage = &last(&peers)["response"]["usage"];
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(260), &json!(40)));
    assert_eq!(peers.outcomes.last().unwrap().usage.input, 260);
    peers.finish_and_check();
}

#[test]
fn an_endpoint_is_charged_for_each_request_by_itself() {
    let mut peers = at_its_summary(false);
    answer(&mut peers, "sum", [260, 40]);
    answer(&mut peers, "this", [60, 3]);
    let charged: Vec<_> = peers.endings.iter().map(|ending| (ending.tokens_input, ending.tokens_output)).collect();
    assert_eq!(charged, [(210, 2), (260, 40), (60, 3)]);
}

#[test]
fn a_trigger_is_answered_by_a_compaction_and_nothing_else() {
    let mut peers = Peers::new();
    create(&mut peers, &json!([{"role": "developer", "content": "be brief"}, user("a")]), r#""store":false"#);
    answer(&mut peers, "done", [9, 2]);
    let more = format!(r#""store":false,{}"#, going_on(&peers));
    create(&mut peers, &json!([{"type": "compaction_trigger"}]), &more);
    answer(&mut peers, "sum", [9, 2]);
    let response = last(&peers)["response"].clone();
    assert_eq!((&response["status"], response["output"].as_array().unwrap().len()), (&json!("completed"), 1));
    assert_eq!(opened(&response["output"][0]["encrypted_content"]), "bsum");
    assert_eq!(response["usage"]["total_tokens"], 11);

    let more = format!(r#""store":false,{}"#, going_on(&peers));
    create(&mut peers, &json!([user("more")]), &more);
    assert_eq!(messages(&peers).len(), 3, "instructions, the summary, and the new words");
    // A client that keeps its own history puts what it likes before the compaction.
    let window = json!([user("a"), response["output"][0], user("more")]);
    let mut other = Peers::new();
    create(&mut other, &window, r#""store":false"#);
    assert_eq!(messages(&other).len(), 3);
    let all = json!([user("a"), {"role": "assistant", "content": "done"}, {"type": "compaction_trigger"}, response["output"][0], user("more")]);
    let mut other = Peers::new();
    create(&mut other, &all, r#""store":false"#);
    assert_eq!(messages(&other).len(), 2, "behind its trigger it stands for all before it");
}

#[test]
fn a_trigger_fails_where_its_summary_does() {
    let mut peers = Peers::new();
    create(&mut peers, &json!([user("a"), {"type": "compaction_trigger"}]), r#""store":false"#);
    answer(&mut peers, "", [9, 2]);
    assert_eq!(last(&peers)["type"], "response.failed");
    assert!(last(&peers)["response"]["error"]["message"].as_str().unwrap().contains("no summary"));
    create(&mut peers, &json!([{"type": "compaction_trigger"}]), r#""store":false"#);
    assert_eq!(last(&peers)["error"]["param"], "input", "there is nothing to compact");
    peers.finish_and_check();
}

#[test]
fn what_makes_no_sense_is_refused_by_its_name() {
    let trigger = json!({"type": "compaction_trigger"});
    let (owners, others) = ([9; 24], Owner([5; 32]));
    let foreign = ring().seal(Purpose::Compaction, others, owners, b"asum").unwrap();
    let reasoning = ring().seal(Purpose::Reasoning, Owner::default(), owners, b"asum").unwrap();
    let compaction = |blob: &str| json!([user("a"), {"type": "compaction", "encrypted_content": blob}]);
    for (input, more, param) in [
        (json!([user("a"), trigger, user("b")]), "", "input[1]"),
        (json!([user("a"), trigger]), r#""generate":false"#, "input"),
        (compaction(&foreign), "", "input[1].encrypted_content"),
        (compaction(&reasoning), "", "input[1].encrypted_content"),
        (compaction("gAAAAB"), "", "input[1].encrypted_content"),
        (json!([{"type": "compaction"}]), "", "input[0].encrypted_content"),
        (json!("a"), r#""context_management":[{"type":"forgetting"}]"#, "context_management[0].type"),
        (json!("a"), r#""context_management":[{}]"#, "context_management[0].type"),
        (json!("a"), r#""context_management":{}"#, "context_management"),
        (
            json!("a"),
            r#""context_management":[{"type":"compaction","compact_threshold":0}]"#,
            "context_management[0].compact_threshold",
        ),
        (
            json!("a"),
            r#""context_management":[{"type":"compaction","compact_threshold":99999999}]"#,
            "context_management[0].compact_threshold",
        ),
    ] {
        let mut peers = Peers::new();
        create(&mut peers, &input, more);
        assert_eq!(last(&peers)["error"]["param"], param, "{input} {more}: {}", last(&peers));
        assert!(peers.sent.is_empty());
    }
}

#[test]
fn a_response_that_may_be_compacted_is_interrupted_and_not_steered() {
    let mut peers = at_its_summary(false);
    peers.apply(Step::Opened);
    peers.apply(Step::Text);
    peers.apply(Step::Steer);
    assert_eq!(last(&peers)["error"]["code"], "steering_not_supported");
    peers.apply(Step::Interrupt);
    let response = &last(&peers)["response"];
    assert_eq!((&response["incomplete_details"]["reason"], &response["output"]), (&json!("interrupted"), &json!([])));
    let more = format!(r#""store":false,{}"#, going_on(&peers));
    create(&mut peers, &json!([user("on")]), &more);
    assert_eq!(messages(&peers).len(), 5, "what was not compacted is whole");
    peers.finish_and_check();
}

/// `POST /v1/responses/compact`, up to its upstream's answer.
fn compact(body: &Value, stream: &[&str]) -> (Vec<Value>, Option<Answer>) {
    let shared = Arc::new(Shared::new(Settings::default(), Arc::new(crate::peer::fleet()), ring()));
    let mut session = Session::http(shared, IdSource::new([2; 32]), Owner::default());
    let (turn, now) = (TurnId::default(), Now::default());
    session.handle_compact_body(body.to_string().as_bytes(), now);
    session.handle_asked(turn, Grant::outright(EndpointId(0), Tier::Latency).into(), now);
    session.handle_upstream(turn, UpstreamEvent::Opened, now);
    for line in stream {
        session.handle_upstream(turn, UpstreamEvent::Bytes(format!("data: {line}\n\n").as_bytes()), now);
    }
    let mut sent = Vec::new();
    while let Some(effect) = session.poll_effect() {
        if let Effect::Open(_, request) = effect {
            let body = flashlane_wire::chat::body(&request.model, &request.fields, &request.messages);
            sent.push(serde_json::from_slice(&body.into_iter().flatten().collect::<Vec<_>>()).unwrap());
        }
    }
    (sent, session.answer())
}

const SUMMARY: [&str; 3] = [
    r#"{"choices":[{"index":0,"delta":{"content":"sum"},"finish_reason":"length"}]}"#,
    r#"{"choices":[],"usage":{"prompt_tokens":30,"completion_tokens":5}}"#,
    "[DONE]",
];

#[test]
fn a_window_is_the_users_messages_and_one_compaction() {
    let input = json!([{"role": "developer", "content": "d"}, user("one"), {"role": "assistant", "content": "two"},
        {"type": "message", "id": "msg_mine", "role": "user", "content": [{"type": "input_text", "text": "three"}]}]);
    let (sent, answer) = compact(&json!({"model": "m", "input": input, "instructions": "i"}), &SUMMARY);
    assert_eq!(sent[0]["messages"].as_array().unwrap().len(), 6);
    let Some(Answer::Json(object)) = answer else { panic!("{answer:?}") };
    let object: Value = serde_json::from_slice(&object).unwrap();
    assert_eq!((&object["object"], &object["usage"]["total_tokens"]), (&json!("response.compaction"), &json!(35)));
    let output = object["output"].as_array().unwrap();
    let types: Vec<_> = output.iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["message", "message", "compaction"]);
    assert_eq!(output[0]["content"], json!([{"type": "input_text", "text": "one"}]));
    assert_eq!((&output[1]["id"], output[1]["content"][0]["text"].as_str()), (&json!("msg_mine"), Some("three")));
    assert_eq!(opened(&output[2]["encrypted_content"]), "bsum");

    // Passed on as it is.
    let mut peers = Peers::new();
    let window = Value::from([&output[..], &[user("four")]].concat());
    create(&mut peers, &window, r#""store":false"#);
    let contents: Vec<_> = messages(&peers).into_iter().map(|message| message["content"].clone()).collect();
    assert_eq!((contents.len(), &contents[0], &contents[3]), (4, &json!("one"), &json!("four")));
    assert!(contents[2].as_str().unwrap().ends_with("sum"));
}

#[test]
fn a_window_of_nothing_or_without_a_summary_is_an_error() {
    for body in [json!({"model": "m"}), json!({"model": "m", "input": []})] {
        let Some(Answer::Refused(refusal)) = compact(&body, &SUMMARY).1 else { panic!("not refused: {body}") };
        assert_eq!(refusal.param.as_deref(), Some("input"));
    }
    let cut = [r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}"#, "[DONE]"];
    let Some(Answer::Refused(refusal)) = compact(&json!({"model": "m", "input": "a"}), &cut).1 else { panic!() };
    assert_eq!(refusal.kind.row().status, 502);
}
