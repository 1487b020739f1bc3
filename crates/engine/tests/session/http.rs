//! The session of one HTTP request: JSON, event streams, Chat Completions.

use flashlane_engine::admission::Grant;
use flashlane_engine::router::Urgency;
use flashlane_engine::{
    Answer, EndpointId, IdSource, Now, Owner, Session, Settings, Shared, Tier, TurnId, UpstreamEvent,
};
use serde_json::{Value, json};
use std::sync::Arc;

fn new() -> Session {
    let shared = Arc::new(Shared::new(Settings::default(), Arc::new(crate::peer::fleet()), crate::peer::ring()));
    Session::http(shared, IdSource::new([2; 32]), Owner::default())
}

/// The session of one request that waits for its grant.
fn asked(body: &str) -> Session {
    let mut session = new();
    session.handle_responses_body(body.as_bytes(), Now::default());
    session
}

/// The session of one HTTP request, driven to its grant.
fn http(body: &str, chat: bool) -> Session {
    let mut session = new();
    match chat {
        true => session.handle_chat_body(body.as_bytes(), Now::default()),
        false => session.handle_responses_body(body.as_bytes(), Now::default()),
    }
    let grant =
        flashlane_engine::admission::Grant::outright(flashlane_engine::EndpointId(0), flashlane_engine::Tier::Latency);
    session.handle_asked(flashlane_engine::TurnId::default(), grant.into(), Now::default());
    session
}

fn feed(session: &mut Session, lines: &[&str]) {
    session.handle_upstream(flashlane_engine::TurnId::default(), UpstreamEvent::Opened, Now::default());
    for line in lines {
        let bytes = format!("data: {line}\n\n");
        session.handle_upstream(
            flashlane_engine::TurnId::default(),
            UpstreamEvent::Bytes(bytes.as_bytes()),
            Now::default(),
        );
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
fn what_goes_upstream_says_how_soon_it_is_wanted() {
    for (tier, urgency) in [("auto", Urgency::Ordinary), ("flex", Urgency::Patient), ("fast", Urgency::Urgent)] {
        let body = json!({"model": "m", "input": "hi", "store": false, "service_tier": tier});
        let mut session = http(&body.to_string(), false);
        let open =
            |effect| if let flashlane_engine::Effect::Open(_, sent) = effect { Some(sent.urgency) } else { None };
        let sent = std::iter::from_fn(|| session.poll_effect()).find_map(open);
        assert_eq!(sent, Some(urgency), "{tier}");
    }
}

#[test]
fn every_choice_of_a_chat_stream_says_who_speaks_and_ends() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"n":2,"stream":true}"#;
    let mut session = http(body, true);
    feed(
        &mut session,
        &[
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"lo"}}]}"#,
            "{\"choices\":[\ndata:  {\"index\":1,\"delta\":{\"reasoning\":\"so \\\"reasoning\\\": it\"}}]}",
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        ],
    );
    assert!(matches!(session.answer(), Some(Answer::Stream)));
    let out = String::from_utf8(session.outgoing().take().to_vec()).unwrap();
    let events = out.split("\n\n").filter_map(|block| block.strip_prefix("data: "));
    let deltas: Vec<Value> =
        events.map(|data| serde_json::from_str::<Value>(data).unwrap()["choices"][0].take()).collect();
    for index in [0, 1] {
        let first = deltas.iter().find(|choice| choice["index"] == index).unwrap();
        assert_eq!(first["delta"]["role"], "assistant");
    }
    assert_eq!(deltas[3]["delta"]["reasoning_content"], "so \"reasoning\": it");
    feed(&mut session, &["[DONE]"]);
    let out = String::from_utf8(session.outgoing().take().to_vec()).unwrap();
    assert!(out.contains("\"error\""), "one choice never ended: {out}");
}

#[test]
fn a_chat_stream_whose_engine_is_slow_begins_with_a_comment() {
    let mut session = http(r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}"#, true);
    assert!(session.answer().is_none());
    let late = Now { mono_ns: session.poll_timeout().unwrap(), unix_ms: 0 };
    session.handle_tick(late);
    assert!(matches!(session.answer(), Some(Answer::Stream)));
    assert_eq!(session.outgoing().take(), ": keepalive\n\n");
    let later = Now { mono_ns: session.poll_timeout().unwrap(), unix_ms: 0 };
    session.handle_tick(later);
    assert_eq!(session.outgoing().take(), ": keepalive\n\n");
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
fn what_is_repeated_to_an_event_stream_stands_on_one_line() {
    let body = "{\"model\":\"m\",\"input\":\"hi\",\"store\":false,\"stream\":true,\n \"metadata\": {\n\n  \"a\": \"b \\n c\"\r\n },\n \"tools\": [\n  {\n   \"type\": \"function\",\n   \"name\": \"f\",\n   \"parameters\": {}\n  }\n ],\n \"text\": {\n  \"format\": null,\n  \"verbosity\": \"low\"\n }\n}";
    let mut session = http(body, false);
    feed(&mut session, &CHUNKS);
    feed(&mut session, &["[DONE]"]);
    let out = String::from_utf8(session.outgoing().take().to_vec()).unwrap();
    for block in out.trim_end().split("\n\n") {
        assert!(block.lines().count() <= 2, "{block}");
        if let Some(data) = block.lines().last().unwrap().strip_prefix("data: {") {
            let event: Value = serde_json::from_str(&format!("{{{data}")).unwrap();
            if let Some(response) = event.get("response") {
                assert_eq!(response["metadata"]["a"], "b \n c");
                assert_eq!(response["text"], json!({"format": {"type": "text"}, "verbosity": "low"}));
            }
        }
    }
}

#[test]
fn a_turn_without_another_token_fails_unless_its_client_could_not_have_read_it() {
    let at = |ms: u64| Now { mono_ns: ms * 1_000_000, unix_ms: ms };
    for is_read in [true, false] {
        let (mut session, id) = (asked(r#"{"model":"m","input":"hi","store":false,"stream":true}"#), TurnId::default());
        let mut grant = Grant::outright(EndpointId(0), Tier::Latency);
        grant.token_idle_ms_max = Some(100);
        session.handle_asked(id, grant.into(), at(0));
        session.handle_upstream(id, UpstreamEvent::Opened, at(10));
        for (line, ms) in [(CHUNKS[1], 20), (": alive", 110)] {
            let bytes = format!("{}{line}\n\n", if line.starts_with('{') { "data: " } else { "" });
            session.handle_upstream(id, UpstreamEvent::Bytes(bytes.as_bytes()), at(ms));
        }
        assert_eq!(session.poll_timeout(), Some(120_000_000));
        if !is_read {
            session.handle_unread(at(119));
        }
        session.handle_tick(at(120));
        let out = String::from_utf8(session.outgoing().take().to_vec()).unwrap();
        assert_eq!(out.contains("event: response.failed"), is_read, "{out}");
    }
}

#[test]
fn a_turn_that_has_said_why_it_ended_is_whole_when_nothing_comes_behind() {
    let mut session = asked(r#"{"model":"m","input":"hi","store":false,"stream":true}"#);
    let mut grant = Grant::outright(EndpointId(0), Tier::Latency);
    grant.token_idle_ms_max = Some(100);
    session.handle_asked(TurnId::default(), grant.into(), Now::default());
    feed(&mut session, &CHUNKS[..4]);
    session.handle_tick(Now { mono_ns: 100_000_000, unix_ms: 100 });
    let out = String::from_utf8(session.outgoing().take().to_vec()).unwrap();
    assert!(out.contains("event: response.completed"), "{out}");
}
