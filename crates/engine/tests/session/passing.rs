//! Endpoints that speak the Responses API themselves: their events pass, in our response.

use crate::peer::{Peers, Step};
use flashlane_engine::{Speaks, Status, Tier, UpstreamEvent};
use serde_json::{Value, json};

/// An upstream's whole answer: a reasoning, a hosted tool's item and a message.
const ITEMS: [&str; 3] = [
    r#"{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"sealed"}"#,
    r#"{"id":"ws_1","type":"web_search_call","status":"completed","action":{"type":"search","query":"q"}}"#,
    r#"{"id":"msg_1","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"hi \u00e9","annotations":[]}]}"#,
];

fn create(peers: &mut Peers, more: &str) {
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","input":"x","store":false,"temperature":0.5,"instructions":"be \"brief\""{more}}}"#
    ));
}

fn say(peers: &mut Peers, event: &Value) {
    peers.chunk(&event.to_string());
}

fn item(peers: &mut Peers, index: usize, between: &[Value]) {
    let item: Value = serde_json::from_str(ITEMS[index]).unwrap();
    say(peers, &json!({"type":"response.output_item.added","sequence_number":90,"output_index":index,"item":item}));
    between.iter().for_each(|event| say(peers, event));
    if index == 2 {
        let delta = json!({"type":"response.output_text.delta","sequence_number":7,"item_id":"msg_1","output_index":2,
            "content_index":0,"delta":"hi é","logprobs":[]});
        say(peers, &delta);
    }
    say(peers, &json!({"type":"response.output_item.done","sequence_number":91,"output_index":index,"item":item}));
}

fn whole(peers: &mut Peers, name: &str, details: &Value) {
    let usage = json!({"input_tokens":11,"input_tokens_details":{"cached_tokens":4},"output_tokens":5});
    say(peers, &json!({"type":name,"response":{"id":"resp_theirs","incomplete_details":details,"usage":usage}}));
}

#[test]
fn events_pass_under_our_ids_and_numbers() {
    let mut peers = Peers::with_responses();
    create(&mut peers, r#","max_output_tokens":9,"tools":[{"type":"web_search"}],"metadata":{"a":"b"}"#);
    let body: Value = serde_json::from_str(&peers.sent[0].1).unwrap();
    let input = json!([{"type":"message","role":"user","content":"x"}]);
    let expected = json!({"model":"m","stream":true,"store":false,"tools":[{"type":"web_search"}],"temperature":0.5,
        "instructions":"be \"brief\"","max_output_tokens":9,"input":input});
    assert_eq!(body, expected);
    peers.upstream(UpstreamEvent::Opened);
    say(&mut peers, &json!({"type":"response.created","sequence_number":0,"response":{"id":"resp_theirs"}}));
    item(&mut peers, 0, &[]);
    item(&mut peers, 1, &[json!({"type":"response.web_search_call.searching","item_id":"ws_1","output_index":1})]);
    item(&mut peers, 2, &[]);
    whole(&mut peers, "response.completed", &Value::Null);
    let events = &peers.watch.events;
    let names: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let (added, done) = ("response.output_item.added", "response.output_item.done");
    let expected = [
        "response.created",
        "response.in_progress",
        added,
        done,
        added,
        "response.web_search_call.searching",
        done,
        added,
        "response.output_text.delta",
        done,
        "response.completed",
    ];
    assert_eq!(names, expected);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let response = &events.last().unwrap()["response"];
    assert_eq!(response["id"], events[0]["response"]["id"]);
    let mut items: Vec<Value> = ITEMS.iter().map(|item| serde_json::from_str(item).unwrap()).collect();
    // Ids are ours, but for that of a reasoning: what is sealed of it is bound to it.
    let hex = response["id"].as_str().unwrap().strip_prefix("resp_").unwrap();
    items[1]["id"] = json!(format!("ws_{hex}_1"));
    items[2]["id"] = json!(format!("msg_{hex}_2"));
    assert_eq!(response["output"], json!(items));
    let delta = events.iter().find(|event| event["type"] == "response.output_text.delta").unwrap();
    assert_eq!(delta["item_id"], items[2]["id"]);
    assert_eq!(response["usage"]["input_tokens_details"]["cached_tokens"], 4);
    assert_eq!(response["metadata"], json!({"a":"b"}));
    let outcome = peers.outcomes.last().unwrap();
    assert_eq!((outcome.status, outcome.deltas, outcome.usage.output), (Status::Completed, 4, 5));
    // The next turn brings all of it back.
    let previous = response["id"].as_str().unwrap().to_owned();
    create(&mut peers, &format!(r#","previous_response_id":"{previous}""#));
    let body: Value = serde_json::from_str(&peers.sent[1].1).unwrap();
    let input: Vec<_> = body["input"].as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(input, ["message", "reasoning", "web_search_call", "message", "message"]);
    peers.finish_and_check();
}

#[test]
fn an_answer_that_was_cut_or_failed_says_so() {
    let mut peers = Peers::with_responses();
    create(&mut peers, "");
    peers.upstream(UpstreamEvent::Opened);
    item(&mut peers, 2, &[]);
    whole(&mut peers, "response.incomplete", &json!({"reason":"max_output_tokens"}));
    let last = peers.watch.events.last().unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"]["reason"], "max_output_tokens");
    create(&mut peers, "");
    peers.upstream(UpstreamEvent::Opened);
    say(&mut peers, &json!({"type":"response.failed","response":{"error":{"code":"server_error","message":"boom"}}}));
    let last = peers.watch.events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["error"]["code"]),
        (&json!("response.failed"), &json!("server_error"))
    );
    peers.finish_and_check();
}

#[test]
fn a_stream_that_ends_without_its_last_event_is_no_answer() {
    for step in [Step::EndOfBody, Step::Cut] {
        let mut peers = Peers::with_responses();
        create(&mut peers, "");
        peers.upstream(UpstreamEvent::Opened);
        item(&mut peers, 2, &[]);
        peers.apply(step);
        assert_eq!(peers.watch.events.last().unwrap()["type"], "response.failed");
        peers.finish_and_check();
    }
}

#[test]
fn events_that_make_no_sense_end_the_turn() {
    let senseless = [
        json!({"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"delta":"x"}),
        json!({"type":"response.output_item.done","output_index":0,"item":{}}),
        json!({"type":"response.completed"}),
        json!([]),
    ];
    for event in senseless {
        let mut peers = Peers::with_responses();
        create(&mut peers, "");
        peers.upstream(UpstreamEvent::Opened);
        say(&mut peers, &event);
        assert_eq!(peers.watch.events.last().unwrap()["type"], "response.failed", "{event}");
        peers.finish_and_check();
    }
}

#[test]
fn an_open_item_is_told_to_be_interrupted() {
    let mut peers = Peers::with_responses();
    create(&mut peers, "");
    peers.upstream(UpstreamEvent::Opened);
    let added = json!({"type":"response.output_item.added","output_index":0,"item":{"id":"msg_9","type":"message"}});
    say(&mut peers, &added);
    peers.apply(Step::Interrupt);
    let interrupted = peers.watch.events.iter().find(|event| event["type"] == "response.output_item.interrupted");
    let added = peers.watch.events.iter().find(|event| event["type"] == "response.output_item.added").unwrap();
    assert_eq!(interrupted.unwrap()["item_id"], added["item"]["id"]);
    assert_eq!(peers.watch.events.last().unwrap()["response"]["incomplete_details"]["reason"], "interrupted");
    peers.finish_and_check();
}

/// What the input of the last request upstream comes to: types, and texts.
fn told(peers: &Peers) -> Vec<String> {
    let body: Value = serde_json::from_str(&peers.sent.last().unwrap().1).unwrap();
    let input = body["input"].as_array().unwrap().iter();
    input.map(|item| item["type"].as_str().unwrap_or_else(|| item["content"].as_str().unwrap()).to_owned()).collect()
}

#[test]
fn items_that_are_made_at_once_pass_and_are_kept_in_their_order() {
    let mut peers = Peers::with_responses();
    create(&mut peers, "");
    peers.upstream(UpstreamEvent::Opened);
    peers.watch.is_passing = true;
    let item = |n: u8| json!({"id":format!("new_{n}"),"type":"new_call","n":n});
    for n in [0, 1] {
        say(&mut peers, &json!({"type":"response.output_item.added","output_index":n,"item":item(n)}));
    }
    say(&mut peers, &json!({"type":"response.new_call.began","item_id":"new_0"}));
    say(&mut peers, &json!({"type":"response.news","text":"of nothing that is known"}));
    for n in [1, 0] {
        say(&mut peers, &json!({"type":"response.output_item.done","output_index":n,"item":item(n)}));
    }
    whole(&mut peers, "response.completed", &Value::Null);
    let last = peers.watch.events.last().unwrap();
    let numbers: Vec<_> = last["response"]["output"].as_array().unwrap().iter().map(|item| item["n"].clone()).collect();
    assert_eq!(numbers, [0, 1]);
    let of = |name: &str| peers.watch.events.iter().find(|event| event["type"] == name).unwrap();
    assert_eq!(of("response.new_call.began")["item_id"], last["response"]["output"][0]["id"]);
    assert_eq!(of("response.news")["text"], "of nothing that is known");
    peers.finish_and_check();
}

#[test]
fn items_of_unknown_types_are_taken_back_from_client_and_store() {
    let mut peers = Peers::with_responses();
    peers.message(r#"{"type":"response.create","model":"m","store":false,"input":[{"role":"user","content":"a"},{"type":"new_call","id":"n"},{"type":"reasoning","id":"rs_9","summary":[],"encrypted_content":"gAAAA=="}]}"#);
    assert_eq!(told(&peers), ["a", "new_call", "reasoning"]);
    peers.apply(Step::Interrupt);
    let mut chat = Peers::new();
    chat.message(r#"{"type":"response.create","model":"m","input":[{"type":"new_call","id":"n"}]}"#);
    assert_eq!(chat.watch.events.last().unwrap()["type"], "error");
    let mut later = Peers::with_responses();
    let kept = [r#"{"role":"user","content":"a"}"#, r#"{"type":"new_call","id":"n"}"#];
    later.stored.insert("resp_old".to_owned(), kept.map(|item| item.into()).to_vec());
    create(&mut later, r#","previous_response_id":"resp_old""#);
    later.apply(Step::Loaded);
    assert_eq!(told(&later), ["a", "new_call", "message"]);
}

#[test]
fn what_only_this_server_understands_is_not_told() {
    let mut peers = Peers::with_responses();
    let own = "rs_0123456789abcdef0123456789abcdef_0";
    let calls = r#"{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":"function_call","call_id":"c2","name":"f","arguments":"{","status":"incomplete"}"#;
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"input":[{{"role":"user","content":"a"}},{{"type":"reasoning","id":"{own}","summary":[]}},{calls},{{"role":"user","content":"b"}}]}}"#
    ));
    assert_eq!(told(&peers), ["a", "function_call", "function_call_output", "b"]);
}

#[test]
fn a_summary_is_asked_for_and_told_in_the_place_of_what_it_stands_for() {
    let mut peers = Peers::with_responses();
    create(&mut peers, "");
    peers.upstream(UpstreamEvent::Opened);
    item(&mut peers, 2, &[]);
    whole(&mut peers, "response.completed", &Value::Null);
    let previous = peers.watch.events.last().unwrap()["response"]["id"].as_str().unwrap().to_owned();
    let more = r#""context_management":[{"type":"compaction","compact_threshold":1}],"max_output_tokens":9,"tools":[]"#;
    create(&mut peers, &format!(r#","previous_response_id":"{previous}",{more}"#));
    peers.apply(Step::Counted);
    let body: Value = serde_json::from_str(&peers.sent.last().unwrap().1).unwrap();
    assert!(
        body["input"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().starts_with("Pause the work")
    );
    assert_eq!((&body["tool_choice"], &body["max_output_tokens"]), (&json!("none"), &json!(64)));
    peers.upstream(UpstreamEvent::Opened);
    item(&mut peers, 2, &[]);
    whole(&mut peers, "response.completed", &Value::Null);
    let now_told = told(&peers);
    assert_eq!((now_told.len(), now_told[1].as_str()), (2, "message"), "{now_told:?}");
    assert!(now_told[0].ends_with("hi \u{e9}"), "the summary: {now_told:?}");
    peers.upstream(UpstreamEvent::Opened);
    item(&mut peers, 2, &[]);
    whole(&mut peers, "response.completed", &Value::Null);
    let last = peers.watch.events.last().unwrap();
    let types: Vec<_> =
        last["response"]["output"].as_array().unwrap().iter().map(|item| item["type"].clone()).collect();
    assert_eq!(types, ["compaction", "message"]);
    let previous = last["response"]["id"].as_str().unwrap().to_owned();
    create(&mut peers, &format!(r#","previous_response_id":"{previous}""#));
    let next = told(&peers);
    assert_eq!((&next[0], &next[1..]), (&now_told[0], &["message", "message", "message"].map(str::to_owned)[..]));
}

#[test]
fn an_endpoint_that_failed_is_left_for_one_of_another_contract() {
    let mut fleet = crate::peer::fleet();
    fleet.endpoints[1].speaks = Speaks::Responses;
    let mut peers = Peers::on(fleet);
    create(&mut peers, "");
    peers.upstream(UpstreamEvent::Opened);
    peers.apply(Step::Cut);
    assert!(peers.sent[1].1.contains(r#""input":["#), "the second endpoint speaks the Responses API: {:?}", peers.sent);
    peers.upstream(UpstreamEvent::Opened);
    item(&mut peers, 2, &[]);
    whole(&mut peers, "response.completed", &Value::Null);
    assert_eq!(peers.outcomes.last().unwrap().status, Status::Completed);
    peers.finish_and_check();
}

#[test]
fn what_is_sealed_is_asked_for_where_a_model_is_to_reason_or_its_client_asked() {
    let sealed = json!(["reasoning.encrypted_content"]);
    let cases = [
        ("", Value::Null),
        (r#","reasoning":{"effort":"low"}"#, sealed.clone()),
        (r#","include":["reasoning.encrypted_content"]"#, sealed),
        (r#","include":["file_search_call.results"]"#, json!(["file_search_call.results"])),
    ];
    for (more, include) in cases {
        let mut peers = Peers::with_responses();
        create(&mut peers, more);
        let body: Value = serde_json::from_str(&peers.sent[0].1).unwrap();
        assert_eq!(body["include"], include, "{more}");
    }
}

/// The events of a recorded stream.
fn recorded(sse: &str) -> Vec<Value> {
    sse.lines().filter_map(|line| line.strip_prefix("data: ")).map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[test]
fn recordings_of_engines_end_as_their_responses_say() {
    let recordings = [
        (
            include_str!("../../../../proto/vllm/responses.sse"),
            "I'm a friendly AI assistant, ready to assist with any language or topic.",
        ),
        (include_str!("../../../../proto/sglang/responses.sse"), "I'm a helpful AI assistant."),
    ];
    let endings = [
        ("completed", "response.completed", Status::Completed),
        ("incomplete", "response.incomplete", Status::Incomplete),
        ("cancelled", "response.failed", Status::Failed),
        ("failed", "response.failed", Status::Failed),
    ];
    for (sse, text) in recordings {
        for (status, name, outcome) in endings {
            let mut peers = Peers::with_responses();
            create(&mut peers, "");
            peers.upstream(UpstreamEvent::Opened);
            for mut event in recorded(sse) {
                if event["type"] == "response.completed" {
                    event["response"]["status"] = json!(status);
                }
                say(&mut peers, &event);
            }
            let last = peers.watch.events.last().unwrap();
            assert_eq!((&last["type"], peers.outcomes.last().unwrap().status), (&json!(name), outcome), "{status}");
            assert_eq!(last["response"]["output"][0]["content"][0]["text"], text);
            peers.finish_and_check();
        }
    }
}

/// A call that is open, before a message that is done.
fn say_a_cut_call_and_a_message(peers: &mut Peers) {
    let call =
        json!({"id":"fc_1","type":"function_call","call_id":"c1","name":"f","arguments":"","status":"in_progress"});
    say(peers, &json!({"type":"response.output_item.added","output_index":0,"item":call}));
    let delta =
        json!({"type":"response.function_call_arguments.delta","output_index":0,"item_id":"fc_1","delta":"{\"a"});
    say(peers, &delta);
    let message: Value = serde_json::from_str(ITEMS[2]).unwrap();
    say(peers, &json!({"type":"response.output_item.added","output_index":1,"item":message}));
    let delta = json!({"type":"response.output_text.delta","output_index":1,"item_id":"msg_1","content_index":0,
        "delta":"hi é"});
    say(peers, &delta);
    say(peers, &json!({"type":"response.output_item.done","output_index":1,"item":message}));
}

#[test]
fn an_item_that_is_open_at_the_end_is_told_and_kept_as_far_as_it_came() {
    for is_cut in [false, true] {
        let mut peers = Peers::with_responses();
        create(&mut peers, "");
        peers.upstream(UpstreamEvent::Opened);
        peers.watch.is_passing = true;
        say_a_cut_call_and_a_message(&mut peers);
        let open = json!({"id":"msg_2","type":"message","role":"assistant","status":"in_progress","content":[]});
        say(&mut peers, &json!({"type":"response.output_item.added","output_index":2,"item":open}));
        let delta = json!({"type":"response.output_text.delta","output_index":2,"item_id":"msg_2","content_index":0,
            "delta":"half a wo"});
        say(&mut peers, &delta);
        match is_cut {
            true => peers.apply(Step::Cut),
            false => whole(&mut peers, "response.incomplete", &json!({"reason":"max_output_tokens"})),
        }
        let last = peers.watch.events.last().unwrap();
        assert_eq!(last["type"], if is_cut { "response.failed" } else { "response.incomplete" });
        let output = last["response"]["output"].as_array().unwrap();
        let of = |name: &str| -> Vec<_> { output.iter().map(|item| item[name].clone()).collect() };
        assert_eq!(of("status"), ["incomplete", "completed", "incomplete"]);
        assert_eq!(output[0]["arguments"], "{\"a");
        assert_eq!(output[2]["content"][0]["text"], "half a wo");
        let is_done = |event: &&Value| event["type"] == "response.output_item.done";
        let done: Vec<_> = peers.watch.events.iter().filter(is_done).map(|event| event["item"].clone()).collect();
        assert_eq!([&done[1], &done[0], &done[2]], [&output[0], &output[1], &output[2]]);
        if !is_cut {
            let previous = last["response"]["id"].as_str().unwrap().to_owned();
            create(&mut peers, &format!(r#","previous_response_id":"{previous}""#));
            assert_eq!(told(&peers), ["message", "message", "message", "message"], "a call that was cut is none");
        }
        peers.finish_and_check();
    }
}

#[test]
fn an_item_that_is_done_behind_an_open_one_outlives_an_interrupt() {
    let mut peers = Peers::with_responses();
    create(&mut peers, "");
    peers.upstream(UpstreamEvent::Opened);
    peers.watch.is_passing = true;
    say_a_cut_call_and_a_message(&mut peers);
    peers.apply(Step::Interrupt);
    let output = &peers.watch.events.last().unwrap()["response"]["output"];
    assert_eq!((output.as_array().unwrap().len(), &output[0]["type"]), (1, &json!("message")));
    peers.finish_and_check();
}

#[test]
fn an_item_that_says_no_place_and_no_id_gets_ours() {
    let mut peers = Peers::with_responses();
    create(&mut peers, "");
    peers.upstream(UpstreamEvent::Opened);
    let message = json!({"id":"msg_1","type":"message","role":"assistant","status":"completed","content":[]});
    say(&mut peers, &json!({"type":"response.output_item.added","item":message}));
    say(&mut peers, &json!({"type":"response.output_item.done","item":message}));
    whole(&mut peers, "response.completed", &Value::Null);
    let events = &peers.watch.events;
    let id = &events.last().unwrap()["response"]["output"][0]["id"];
    let of_item: Vec<_> = events.iter().filter_map(|event| event["item"].get("id")).collect();
    assert_eq!(of_item, [id, id]);
    assert!(*id != json!("msg_1"));
    peers.finish_and_check();
}

#[test]
fn an_item_of_an_unknown_type_is_taken_back_where_a_chat_engine_may_serve_too() {
    let mut fleet = crate::peer::fleet();
    fleet.endpoints[1].speaks = Speaks::Responses;
    let mut peers = Peers::on(fleet);
    peers.message(r#"{"type":"response.create","model":"m","store":false,"input":[{"role":"user","content":"a"},{"type":"new_call","id":"n"}]}"#);
    let body: Value = serde_json::from_str(&peers.sent[0].1).unwrap();
    assert_eq!(body["messages"], json!([{"role":"user","content":"a"}]));
    peers.upstream(UpstreamEvent::Opened);
    peers.apply(Step::Cut);
    assert_eq!(told(&peers), ["a", "new_call"], "the second endpoint speaks the Responses API");
    let mut peers = Peers::on({
        let mut fleet = crate::peer::fleet();
        fleet.endpoints[1].speaks = Speaks::Responses;
        fleet
    });
    peers.message(r#"{"type":"response.create","model":"m","input":[{"type":"computer_call_output","call_id":"c"}]}"#);
    assert_eq!(peers.watch.events.last().unwrap()["type"], "error", "a chat engine would miss it");
}

#[test]
fn a_reasoning_that_says_nothing_is_not_told() {
    let mut peers = Peers::with_responses();
    let thought = r#"{"type":"reasoning","id":"rs_8","summary":[],"content":[{"type":"reasoning_text","text":"t"}]}"#;
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"input":[{{"role":"user","content":"a"}},{{"type":"reasoning","id":"rs_9","summary":[]}},{thought}]}}"#
    ));
    assert_eq!(told(&peers), ["a", "reasoning"]);
}

#[test]
fn what_a_caller_may_speak_is_what_its_own_tier_speaks() {
    let mut fleet = crate::peer::fleet();
    for endpoint in fleet.endpoints.iter_mut().filter(|endpoint| endpoint.tier == Tier::Latency) {
        endpoint.speaks = Speaks::Responses;
    }
    let model = fleet.model("m").unwrap();
    for (only, chat, responses) in
        [(None, true, true), (Some(Tier::Latency), false, true), (Some(Tier::Throughput), true, false)]
    {
        assert_eq!(fleet.speaks(model, only, Speaks::Chat), chat, "{only:?}");
        assert_eq!(fleet.speaks(model, only, Speaks::Responses), responses, "{only:?}");
    }
}
