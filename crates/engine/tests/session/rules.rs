//! One rule of the session a test, by its name.

use crate::peer::{Peers, Step};
use flashlane_engine::{
    Answer, Ended, ErrorKind, IdSource, Now, Owner, Session, Settings, Shared, Status, UpstreamEvent,
};
use serde_json::{Value, json};
use std::sync::Arc;

fn types(peers: &Peers) -> Vec<String> {
    peers.watch.events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

fn last_body(peers: &Peers) -> Value {
    serde_json::from_str(&peers.sent.last().unwrap().1).unwrap()
}

#[test]
fn a_text_turn_has_its_events_in_the_contracts_order() {
    let mut peers = Peers::new();
    for step in [Step::Create, Step::Opened, Step::Text, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!(
        types(&peers),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let response = &peers.watch.events.last().unwrap()["response"];
    assert_eq!(response["output"][0]["content"][0]["text"], "a\na\n");
    assert_eq!(response["usage"]["total_tokens"], 10);
    assert_eq!(response["service_tier"], "priority");
    for field in [
        "background",
        "completed_at",
        "created_at",
        "error",
        "frequency_penalty",
        "incomplete_details",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "object",
        "parallel_tool_calls",
        "presence_penalty",
        "previous_response_id",
        "prompt_cache_key",
        "reasoning",
        "safety_identifier",
        "store",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
    ] {
        assert!(response.get(field).is_some(), "{field}");
    }
    let done = &peers.watch.events[6];
    assert_eq!((&done["text"], &done["logprobs"]), (&json!("a\na\n"), &json!([])));
    assert!(peers.effects.contains(&"Park".to_owned()), "{:?}", peers.effects);
}

#[test]
fn a_warm_up_is_created_and_completed_at_once_and_its_input_counts_later() {
    let mut peers = Peers::new();
    peers.message(r#"{"type":"response.create","model":"m","input":"first words","store":false,"generate":false}"#);
    assert_eq!(types(&peers), ["response.created", "response.completed"]);
    let warm = peers.watch.ended[0].clone();
    assert!(peers.sent.is_empty(), "no upstream turn");
    for (text, times) in [("one", 1), ("two", 1)] {
        peers.message(&format!(
            r#"{{"type":"response.create","model":"m","input":"{text}","store":false,"previous_response_id":"{warm}"}}"#
        ));
        for step in [Step::Opened, Step::Text, Step::Finish] {
            peers.apply(step);
        }
        let messages = last_body(&peers)["messages"].clone();
        assert_eq!(messages.as_array().unwrap().len(), 1 + times);
        assert_eq!(messages[0]["content"], "first words");
        assert_eq!(messages[1]["content"], text);
    }
}

#[test]
fn a_chained_turn_sends_what_came_before_without_the_instructions() {
    let mut peers = Peers::new();
    peers.message(r#"{"type":"response.create","model":"m","instructions":"be brief","input":"one","store":false}"#);
    for step in [Step::Opened, Step::Reasoning, Step::Text, Step::Call, Step::Arguments, Step::Finish] {
        peers.apply(step);
    }
    let id = peers.watch.ended[0].clone();
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"previous_response_id":"{id}",
            "input":[{{"type":"function_call_output","call_id":"c0","output":"done"}}]}}"#
    ));
    let messages = last_body(&peers)["messages"].clone();
    assert_eq!(
        messages,
        json!([
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "a\n",
             "tool_calls": [{"id": "c0", "type": "function", "function": {"name": "run", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c0", "content": "done"},
        ])
    );
}

#[test]
fn the_same_items_give_the_same_bytes_chained_or_sent_again() {
    let mut chained = Peers::new();
    chained.message(r#"{"type":"response.create","model":"m","input":"one","store":false}"#);
    for step in [Step::Opened, Step::Text, Step::Finish] {
        chained.apply(step);
    }
    let id = chained.watch.ended[0].clone();
    let output = chained.watch.events.last().unwrap()["response"]["output"][0].to_string();
    chained.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"previous_response_id":"{id}","input":"two"}}"#
    ));
    let mut whole = Peers::new();
    whole.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"input":[{{"role":"user","content":"one"}},{output},{{"role":"user","content":"two"}}]}}"#
    ));
    assert_eq!(chained.sent.last(), whole.sent.last());
}

#[test]
fn tools_go_out_as_functions_and_come_back_as_what_they_were() {
    let mut peers = Peers::new();
    peers.message(
        r#"{"type":"response.create","model":"m","store":false,"input":"go","parallel_tool_calls":true,"tools":[
            {"type":"function","name":"run","description":"d","parameters":{"type":"object"},"strict":true},
            {"type":"custom","name":"patch","description":"p","format":{"type":"grammar","syntax":"lark","definition":"start: x"}},
            {"type":"namespace","name":"agents","tools":[{"type":"function","name":"spawn","parameters":{}}]},
            {"type":"web_search"}]}"#,
    );
    let body = last_body(&peers);
    let names: Vec<_> =
        body["tools"].as_array().unwrap().iter().map(|t| t["function"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["run", "patch", "agents__spawn"]);
    assert!(body["tools"][1]["function"]["description"].as_str().unwrap().contains("start: x"));
    assert_eq!(body["tools"][0]["function"]["strict"], true);
    peers.apply(Step::Opened);
    peers.delta(r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"agents__spawn","arguments":"{}"}}]}"#);
    peers.delta(r#"{"tool_calls":[{"index":1,"id":"b","function":{"name":"patch","arguments":""}}]}"#);
    for piece in [r#"{\"inp"#, r#"ut\":\"*** Be"#, r#"gin\\"#, r#"n\\u00"#, r#"e9\"}"#] {
        peers.delta(&format!(r#"{{"tool_calls":[{{"index":1,"function":{{"arguments":"{piece}"}}}}]}}"#));
    }
    peers.finish("tool_calls");
    let response = &peers.watch.events.last().unwrap()["response"];
    assert_eq!(response["output"][0]["name"], "spawn");
    assert_eq!(response["output"][0]["namespace"], "agents");
    assert_eq!(response["output"][1]["type"], "custom_tool_call");
    assert_eq!(response["output"][1]["input"], "*** Begin\né");
    assert_eq!(peers.outcomes[0].hosted_tools, ["web_search"]);
}

#[test]
fn additional_tools_hold_for_the_turns_that_follow() {
    let mut peers = Peers::new();
    peers.message(
        r#"{"type":"response.create","model":"m","store":false,"generate":false,
            "input":[{"type":"additional_tools","tools":[{"type":"custom","name":"exec"}]}]}"#,
    );
    let id = peers.watch.ended[0].clone();
    for _ in 0..2 {
        let id = peers.watch.ended.last().unwrap_or(&id).clone();
        peers.message(&format!(
            r#"{{"type":"response.create","model":"m","store":false,"previous_response_id":"{id}","input":"go"}}"#
        ));
        assert_eq!(last_body(&peers)["tools"][0]["function"]["name"], "exec");
        peers.apply(Step::Opened);
        peers.delta(
            r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"exec","arguments":"{\"input\":\"1\"}"}}]}"#,
        );
        peers.finish("tool_calls");
        assert_eq!(peers.watch.events.last().unwrap()["response"]["output"][0]["type"], "custom_tool_call");
    }
}

#[test]
fn an_interrupt_answers_with_three_events_and_its_response_can_be_gone_on_from() {
    let mut peers = Peers::new();
    for step in [Step::Create, Step::Opened, Step::Reasoning, Step::Text, Step::Interrupt] {
        peers.apply(step);
    }
    let types = types(&peers);
    assert_eq!(
        types[types.len() - 3..],
        ["response.interrupt.accepted", "response.output_item.interrupted", "response.incomplete"]
    );
    let response = &peers.watch.events.last().unwrap()["response"];
    assert_eq!(response["incomplete_details"]["reason"], "interrupted");
    assert_eq!(response["usage"]["output_tokens"], 2, "what came, though the engine did not get to count it");
    assert!(peers.effects.contains(&"Abort".to_owned()));
    assert_eq!(peers.outcomes[0].status, Status::Interrupted);
    peers.apply(Step::Continue);
    assert_eq!(last_body(&peers)["messages"].as_array().unwrap().len(), 2, "what was cut is dropped");
    assert_eq!(peers.watch.errors, 0);
}

#[test]
fn a_cancel_drops_late_chunks() {
    let mut peers = Peers::new();
    for step in [Step::Create, Step::Opened, Step::Text, Step::Interrupt] {
        peers.apply(step);
    }
    let seen = peers.watch.events.len();
    let late = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"late\"}}]}\n\n";
    peers.session.handle_upstream(flashlane_engine::TurnId(0), UpstreamEvent::Bytes(late), Now::default());
    peers.session.handle_upstream(flashlane_engine::TurnId(0), UpstreamEvent::Ended(Ended::Complete), Now::default());
    peers.apply(Step::Pass6S);
    assert_eq!(peers.watch.events.len(), seen);
}

#[test]
fn a_stream_without_a_finish_reason_is_never_complete() {
    for end in [Step::EndOfBody, Step::Cut] {
        let mut peers = Peers::new();
        for step in [Step::Create, Step::Opened, Step::Text, end] {
            peers.apply(step);
        }
        assert_eq!(types(&peers).last().unwrap(), "response.failed");
    }
    let mut peers = Peers::new();
    for step in [Step::Create, Step::Opened, Step::Text] {
        peers.apply(step);
    }
    peers.chunk("[DONE]");
    assert_eq!(types(&peers).last().unwrap(), "response.failed");
}

#[test]
fn an_endpoint_that_fails_before_its_answer_hands_over_to_the_next_tier() {
    let mut peers = Peers::new();
    for step in [Step::Create, Step::Unreachable] {
        peers.apply(step);
    }
    assert_eq!(peers.sent.len(), 2);
    assert_eq!(last_body(&peers)["model"], "m");
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!(peers.watch.events.last().unwrap()["response"]["service_tier"], "default");
    assert!(types(&peers).iter().all(|kind| kind != "error"));
}

#[test]
fn when_every_endpoint_failed_the_last_word_is_the_upstreams() {
    let mut peers = Peers::new();
    for step in [Step::Create, Step::Unreachable, Step::Unreachable] {
        peers.apply(step);
    }
    let error = peers.watch.events.last().unwrap();
    assert_eq!((&error["type"], &error["status"]), (&json!("error"), &json!(502)));
    assert!(error["error"]["message"].as_str().unwrap().contains("'gpu' cannot be reached"));
    assert_eq!(peers.outcomes[0].error, Some(ErrorKind::UpstreamFailed));
}

#[test]
fn a_slow_upstream_is_announced_and_kept_alive() {
    let mut peers = Peers::new();
    for step in [Step::Create, Step::Pass300Ms, Step::Pass6S, Step::Pass6S] {
        peers.apply(step);
    }
    assert_eq!(types(&peers), ["response.created", "response.in_progress", "keepalive", "keepalive"]);
    peers.apply(Step::Refused400);
    let failed = peers.watch.events.last().unwrap();
    assert_eq!(failed["type"], "response.failed");
    assert_eq!(failed["response"]["error"]["code"], "invalid_prompt");
}

#[test]
fn requests_wait_their_turn_in_order() {
    let mut peers = Peers::new();
    for text in ["one", "two", "three"] {
        peers.message(&format!(r#"{{"type":"response.create","model":"m","input":"{text}","store":false}}"#));
    }
    for text in ["one", "two", "three"] {
        assert_eq!(last_body(&peers)["messages"][0]["content"], text);
        for step in [Step::Opened, Step::Text, Step::Finish] {
            peers.apply(step);
        }
    }
    assert_eq!(peers.watch.ended.len(), 3);
    for _ in 0..=Settings::default().queued_turns_max + 1 {
        peers.apply(Step::Create);
    }
    assert_eq!(peers.watch.events.last().unwrap()["error"]["code"], "websocket_stream_limit_reached");
}

#[test]
fn a_stored_response_ends_only_after_it_is_committed() {
    let mut peers = Peers::new();
    for step in [Step::CreateStored, Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_ne!(types(&peers).last().unwrap(), "response.completed");
    peers.apply(Step::Committed);
    assert_eq!(types(&peers).last().unwrap(), "response.completed");
    assert_eq!(peers.stored.values().next().unwrap().len(), 2, "the input and the output");
}

/// A message, and the code and the parameter of the error that answers it.
const BAD_MESSAGES: &[(&str, &str, Option<&str>)] = &[
    ("{", "invalid_json", None),
    ("[]", "invalid_json", None),
    ("{}", "missing_required_parameter", Some("type")),
    (r#"{"type":"response.unknown"}"#, "invalid_value", Some("type")),
    (r#"{"type":"response.create","input":"x"}"#, "missing_required_parameter", Some("model")),
    (r#"{"type":"response.create","model":"m"}"#, "missing_required_parameter", Some("input")),
    (r#"{"type":"response.create","model":3,"input":"x"}"#, "invalid_type", Some("model")),
    (r#"{"type":"response.create","model":"nope","input":"x"}"#, "model_not_found", Some("model")),
    (r#"{"type":"response.create","model":"m","input":7}"#, "invalid_type", Some("input")),
    (r#"{"type":"response.create","model":"m","input":[{"type":"what"}]}"#, "invalid_value", Some("input[0].type")),
    (
        r#"{"type":"response.create","model":"m","input":[{"role":"user","content":[{"type":"input_text"}]}]}"#,
        "missing_required_parameter",
        Some("input[0].content[0].text"),
    ),
    (
        r#"{"type":"response.create","model":"m","input":[{"role":"user","content":[{"type":"input_image","image_url":"x"}]}]}"#,
        "invalid_value",
        Some("input"),
    ),
    (r#"{"type":"response.create","model":"m","input":"x","temperature":3}"#, "invalid_value", Some("temperature")),
    (r#"{"type":"response.create","model":"m","input":"x","temperature":"hot"}"#, "invalid_type", Some("temperature")),
    (
        r#"{"type":"response.create","model":"m","input":"x","max_output_tokens":0}"#,
        "invalid_value",
        Some("max_output_tokens"),
    ),
    (
        r#"{"type":"response.create","model":"m","input":"x","max_output_tokens":1.5}"#,
        "invalid_type",
        Some("max_output_tokens"),
    ),
    (r#"{"type":"response.create","model":"m","input":"x","stream":"yes"}"#, "invalid_type", Some("stream")),
    (
        r#"{"type":"response.create","model":"m","input":"x","tools":[{"type":"function"}]}"#,
        "missing_required_parameter",
        Some("tools[0].name"),
    ),
    (
        r#"{"type":"response.create","model":"m","input":"x","tool_choice":"required"}"#,
        "invalid_value",
        Some("tool_choice"),
    ),
    (
        r#"{"type":"response.create","model":"m","input":"x","tool_choice":{"type":"web_search"}}"#,
        "unsupported_parameter",
        Some("tool_choice.type"),
    ),
    (
        r#"{"type":"response.create","model":"m","input":"x","reasoning":{"effort":"huge"}}"#,
        "invalid_value",
        Some("reasoning.effort"),
    ),
    (r#"{"type":"response.create","model":"m","input":"x","metadata":{"a":1}}"#, "invalid_type", Some("metadata.a")),
    (
        r#"{"type":"response.create","model":"m","input":"x","conversation":"c"}"#,
        "unsupported_parameter",
        Some("conversation"),
    ),
    (
        r#"{"type":"response.create","model":"m","input":"x","conversation":"c","previous_response_id":"r"}"#,
        "mutually_exclusive_parameters",
        Some("previous_response_id"),
    ),
    (
        r#"{"type":"response.create","model":"m","input":"x","background":true}"#,
        "unsupported_parameter",
        Some("background"),
    ),
    (r#"{"type":"response.create","model":"m","input":"x","stream_id":"a"}"#, "invalid_stream_id", Some("stream_id")),
    (r#"{"type":"response.interrupt","response_id":"resp_1"}"#, "response_not_active", Some("response_id")),
];

#[test]
fn a_response_that_cannot_be_stored_fails() {
    let mut peers = Peers::new();
    for step in [Step::CreateStored, Step::Opened, Step::Text, Step::Finish, Step::NotCommitted] {
        peers.apply(step);
    }
    assert_eq!(types(&peers).last().unwrap(), "response.failed");
    assert!(peers.watch.ended.is_empty());
}

#[test]
fn every_error_names_its_parameter_and_leaves_the_connection_open() {
    let mut peers = Peers::new();
    for &(message, code, param) in BAD_MESSAGES {
        peers.message(message);
        let error = peers.watch.events.last().unwrap();
        assert_eq!(error["error"]["code"], code, "{message}: {error}");
        assert_eq!(error["error"]["param"].as_str(), param, "{message}: {error}");
        assert_eq!(error["code"], code);
    }
    peers.session.handle_message(b"\xff{}", Now::default());
    for step in [Step::Create, Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!(peers.watch.ended.len(), 1, "the connection still serves");
}

#[test]
fn an_unknown_previous_response_is_named() {
    let mut peers = Peers::new();
    for step in [Step::ContinueUnknown, Step::NotLoaded] {
        peers.apply(step);
    }
    let error = &peers.watch.events.last().unwrap()["error"];
    assert_eq!(error["code"], "previous_response_not_found");
    assert_eq!(error["message"], "Previous response with id 'resp_unknown' not found.");
}

#[test]
fn a_steer_is_refused_and_handed_back() {
    let mut peers = Peers::new();
    peers
        .session
        .handle_message(br#"{"type":"response.steer","previous_response_id":"r","input":"left"}"#, Now::default());
    let out = String::from_utf8_lossy(peers.session.outgoing().ready()).into_owned();
    assert!(out.contains("steering_not_supported") && out.contains(r#""steer":{"input":"left"}"#), "{out}");
}

#[test]
fn a_drain_lets_the_running_turn_end_and_then_closes() {
    let mut peers = Peers::new();
    for step in [Step::Create, Step::Opened, Step::Drain, Step::Text] {
        peers.apply(step);
    }
    assert!(!peers.effects.contains(&"Close".to_owned()));
    peers.apply(Step::Finish);
    assert_eq!(types(&peers).last().unwrap(), "response.completed");
    assert_eq!(peers.effects.last().unwrap(), "Close");
}

/// The session of one HTTP request, driven to its grant.
fn http(body: &str, chat: bool) -> Session {
    let shared = Arc::new(Shared { settings: Settings::default(), fleet: Arc::new(crate::peer::fleet()) });
    let mut session = Session::http(shared, IdSource::new([2; 32]), Owner::default());
    match chat {
        true => session.handle_chat_body(body.as_bytes(), Now::default()),
        false => session.handle_responses_body(body.as_bytes(), Now::default()),
    }
    let grant = flashlane_engine::admission::Grant {
        endpoint: flashlane_engine::EndpointId(0),
        tier: flashlane_engine::Tier::Latency,
    };
    session.handle_granted(flashlane_engine::TurnId(0), Ok(grant), Now::default());
    session
}

fn feed(session: &mut Session, lines: &[&str]) {
    session.handle_upstream(flashlane_engine::TurnId(0), UpstreamEvent::Opened, Now::default());
    for line in lines {
        let bytes = format!("data: {line}\n\n");
        session.handle_upstream(flashlane_engine::TurnId(0), UpstreamEvent::Bytes(bytes.as_bytes()), Now::default());
    }
}

const CHUNKS: [&str; 5] = [
    r#"{"id":"u","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
    r#"{"id":"u","choices":[{"index":0,"delta":{"content":"Hi"}}]}"#,
    r#"{"id":"u","choices":[{"index":0,"delta":{"content":" you"}}]}"#,
    r#"{"id":"u","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    r#"{"id":"u","choices":[],"usage":{"prompt_tokens":2,"completion_tokens":2}}"#,
];

#[test]
fn a_responses_request_without_stream_is_answered_by_one_object() {
    let mut session = http(r#"{"model":"m","input":"hi","store":false}"#, false);
    feed(&mut session, &CHUNKS);
    assert!(session.answer().is_none());
    feed(&mut session, &["[DONE]"]);
    let Some(Answer::Json(object)) = session.answer() else { panic!("no object") };
    let object: Value = serde_json::from_slice(&object).unwrap();
    assert_eq!((&object["object"], &object["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(object["output"][0]["content"][0]["text"], "Hi you");
    assert!(object.get("type").is_none());
}

#[test]
fn a_streamed_request_ends_with_done_and_a_refused_one_has_a_status() {
    let mut session = http(r#"{"model":"m","input":"hi","store":false,"stream":true}"#, false);
    feed(&mut session, &CHUNKS);
    assert!(matches!(session.answer(), Some(Answer::Stream)));
    feed(&mut session, &["[DONE]"]);
    let out = String::from_utf8(session.outgoing().take().to_vec()).unwrap();
    assert!(out.starts_with("event: response.created\ndata: {\"type\":\"response.created\","), "{out}");
    assert!(out.ends_with("\n\ndata: [DONE]\n\n"));
    for block in out.trim_end().split("\n\n").filter(|block| !block.contains("[DONE]")) {
        let (name, data) = block.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: ").unwrap(), data["type"]);
    }
    let mut refused = http(r#"{"model":"absent","input":"hi","stream":true}"#, false);
    let Some(Answer::Refused(refusal)) = refused.answer() else { panic!("not refused") };
    assert_eq!(refusal.kind.row().status, 404);
}

#[test]
fn a_chat_request_is_passed_on_and_its_chunks_come_back_under_our_name() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"seed":7,"stream":true,
        "stream_options":{"include_usage":true}}"#;
    let mut session = http(body, true);
    let mut sent = None;
    while let Some(effect) = session.poll_effect() {
        if let flashlane_engine::Effect::Open(_, request) = effect {
            let body = flashlane_wire::chat::body(&request.model, &request.fields, &request.messages);
            sent = Some(body.into_iter().flatten().collect::<Vec<u8>>());
        }
    }
    let sent: Value = serde_json::from_slice(&sent.unwrap()).unwrap();
    assert_eq!((&sent["seed"], &sent["model"]), (&json!(7), &json!("m-wafer")));
    assert_eq!(sent["messages"], json!([{"role":"user","content":"hi"}]));
    feed(&mut session, &CHUNKS);
    feed(&mut session, &["[DONE]"]);
    let out = String::from_utf8(session.outgoing().take().to_vec()).unwrap();
    let lines: Vec<&str> = out.split("\n\n").filter_map(|block| block.strip_prefix("data: ")).collect();
    assert_eq!(lines.last(), Some(&"[DONE]"));
    let chunks: Vec<Value> = lines[..lines.len() - 1].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(chunks.iter().all(|chunk| chunk["model"] == "m" && chunk["id"] == chunks[0]["id"]));
    let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "Hi you");
    let usage = chunks.last().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"]), (&json!([]), &json!(4)));
    assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk["usage"].is_null()));
}

#[test]
fn a_chat_request_without_stream_is_one_completion() {
    let mut session = http(r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"n":2}"#, true);
    feed(&mut session, &CHUNKS);
    feed(
        &mut session,
        &[
            r#"{"choices":[{"index":1,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{"}}]},"logprobs":{"content":[{"token":"a"}]}}]}"#,
            r#"{"choices":[{"index":1,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]},"finish_reason":"tool_calls","logprobs":{"content":[{"token":"b"}]}}]}"#,
            "[DONE]",
        ],
    );
    let Some(Answer::Json(object)) = session.answer() else { panic!("no object") };
    let object: Value = serde_json::from_slice(&object).unwrap();
    assert_eq!(object["choices"][0]["message"]["content"], "Hi you");
    let second = &object["choices"][1];
    assert_eq!(second["message"]["tool_calls"][0]["function"], json!({"name":"f","arguments":"{}"}));
    assert_eq!(second["logprobs"]["content"], json!([{"token":"a"},{"token":"b"}]));
    assert_eq!(object["usage"]["total_tokens"], 4);
}

#[test]
fn an_idle_session_is_small() {
    let bytes = std::mem::size_of::<Session>() + std::mem::size_of::<flashlane_wire::websocket::Encoder>();
    assert!(bytes <= 800, "{bytes} bytes");
}
