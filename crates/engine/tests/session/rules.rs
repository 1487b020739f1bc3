//! One rule of the session a test, by its name.

use crate::peer::{Peers, Step};
use flashlane_engine::{Ended, ErrorKind, Now, Session, Settings, Status, UpstreamEvent};
use serde_json::{Value, json};

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
    assert_eq!(Vec::from_iter(peers.outcomes[0].hosted_tools.clone()), ["web_search"]);
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
    peers.session.handle_upstream(flashlane_engine::TurnId::default(), UpstreamEvent::Bytes(late), Now::default());
    peers.session.handle_upstream(
        flashlane_engine::TurnId::default(),
        UpstreamEvent::Ended(Ended::Complete),
        Now::default(),
    );
    peers.apply(Step::Pass6S);
    assert_eq!(peers.watch.events.len(), seen);
}

#[test]
fn what_an_engine_says_of_its_own_time_is_in_the_outcome() {
    let mut peers = Peers::new();
    peers.message(r#"{"type":"response.create","model":"m","input":"hi","store":false}"#);
    peers.apply(Step::Opened);
    peers.apply(Step::Text);
    peers.chunk(
        r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":7},"time_info":{"queue_time":0.001,"total_time":0.004}}"#,
    );
    peers.chunk("[DONE]");
    let times = peers.outcomes.last().unwrap().upstream_times;
    assert_eq!((times.queue_ns, times.prompt_ns, times.total_ns), (Some(1_000_000), None, Some(4_000_000)));
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
    let failed: Vec<_> = peers.outcomes[0].failed().collect();
    assert_eq!(failed.iter().map(|(of, reason)| (&*of.endpoint, *reason)).collect::<Vec<_>>(), [("wafer", "refused")]);
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
    (r#"{"type":"response.create","model":"m","input":[]}"#, "invalid_value", Some("input")),
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
        Some("input[0].content[0]"),
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
    (r#"{"type":"response.create","model":"m","input":"x","stream_id":"a b"}"#, "invalid_stream_id", Some("stream_id")),
    (
        r#"{"type":"response.create","model":"m","input":"x","tools":[{"type":"function","name":"f","parameters":[]}]}"#,
        "invalid_type",
        Some("tools[0].parameters"),
    ),
    (r#"{"type":"response.interrupt","response_id":"resp_1"}"#, "response_not_active", Some("response_id")),
];

#[test]
fn a_wrong_request_is_told_of_at_its_place_in_the_lane() {
    let mut peers = Peers::new();
    for step in [Step::Create, Step::Opened, Step::Text, Step::Nonsense] {
        peers.apply(step);
    }
    peers.message(r#"{"type":"response.create","model":"absent","input":"x"}"#);
    peers.apply(Step::Create);
    assert_eq!(peers.watch.errors, 0, "the running response is not disturbed");
    peers.apply(Step::Finish);
    let types = types(&peers);
    assert_eq!(types[types.len() - 3..], ["response.completed", "error", "error"]);
    assert_eq!(peers.sent.len(), 2, "the request behind them has begun");
}

#[test]
fn namespaces_have_one_level_at_any_depth_that_is_asked_for() {
    let depth = 50_000;
    let opening = r#"{"type":"namespace","name":"a","tools":["#.repeat(depth);
    let mut peers = Peers::new();
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","input":"x","tools":[{opening}{}]}}"#,
        "]}".repeat(depth)
    ));
    assert_eq!(peers.watch.events[0]["error"]["param"], "tools[0].tools[0].type");
}

#[test]
fn items_that_no_engine_sees_count_for_what_they_hold() {
    let mut peers = Peers::new();
    let thought = "x".repeat(8 * 1024 * 1024);
    let mut previous = String::new();
    for _ in 0..20 {
        peers.message(&format!(
            r#"{{"type":"response.create","model":"m","store":false,"generate":false{previous},
                "input":[{{"type":"reasoning","summary":[{{"type":"summary_text","text":"{thought}"}}]}}]}}"#
        ));
        let Some(id) = peers.watch.ended.last().filter(|_| peers.watch.errors == 0) else { break };
        previous = format!(r#","previous_response_id":"{id}""#);
    }
    let error = peers.watch.events.last().unwrap();
    assert_eq!(error["error"]["code"], "context_length_exceeded", "{error}");
    assert_eq!(peers.watch.ended.len(), 7, "64 MiB and no more");
}

#[test]
fn calls_that_share_an_index_are_told_apart_by_their_ids() {
    let mut peers = Peers::new();
    for step in [Step::Create, Step::Opened] {
        peers.apply(step);
    }
    for id in ["a", "b"] {
        peers.delta(&format!(
            r#"{{"tool_calls":[{{"index":0,"id":"{id}","function":{{"name":"run","arguments":"{{}}"}}}}]}}"#
        ));
    }
    peers.finish("tool_calls");
    let output = &peers.watch.events.last().unwrap()["response"]["output"];
    assert_eq!((&output[0]["call_id"], &output[0]["arguments"]), (&json!("a"), &json!("{}")));
    assert_eq!((&output[1]["call_id"], &output[1]["arguments"]), (&json!("b"), &json!("{}")));
}

#[test]
fn a_call_that_was_cut_is_not_shown_to_an_engine_again() {
    let mut peers = Peers::new();
    peers.message(
        r#"{"type":"response.create","model":"m","store":false,"input":[{"role":"user","content":"go"},
            {"type":"function_call","status":"incomplete","call_id":"c","name":"f","arguments":"{\"x\":\"unf"},
            {"role":"user","content":"on"}]}"#,
    );
    let messages = last_body(&peers)["messages"].clone();
    assert_eq!(messages, json!([{"role":"user","content":"go"},{"role":"user","content":"on"}]));
}

#[test]
fn an_output_needs_its_call() {
    let mut peers = Peers::new();
    let output = r#"{"type":"function_call_output","call_id":"c0","output":"done"}"#;
    peers.message(&format!(r#"{{"type":"response.create","model":"m","store":false,"input":[{output}]}}"#));
    let error = &peers.watch.events[0]["error"];
    assert_eq!(error["message"], "No tool call found for function call output with call_id c0.");
    assert_eq!((&error["param"], &error["code"]), (&json!("input"), &Value::Null));
    for step in [Step::Create, Step::Opened, Step::Call, Step::Arguments, Step::Finish] {
        peers.apply(step);
    }
    let id = peers.watch.ended[0].clone();
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","store":false,"previous_response_id":"{id}","input":[{output}]}}"#
    ));
    assert_eq!(peers.sent.len(), 2, "the call is in the chain");
    let call = r#"{"type":"custom_tool_call","call_id":"c\u0030","name":"patch","input":"x"}"#;
    peers.apply(Step::Finish);
    peers.apply(Step::Opened);
    peers.apply(Step::Finish);
    peers.message(&format!(r#"{{"type":"response.create","model":"m","store":false,"input":[{call},{output}]}}"#));
    assert_eq!(peers.sent.len(), 3, "the call is in the input");
}

#[test]
fn half_a_surrogate_pair_in_a_request_is_mended() {
    let mut peers = Peers::new();
    peers.message(r#"{"type":"response.create","model":"m","store":false,"input":"a\ud83d b\ud83d\ude00"}"#);
    assert_eq!(last_body(&peers)["messages"][0]["content"], "a\u{fffd} b😀");
}

#[test]
fn hosted_tools_of_an_item_are_named_as_well() {
    let mut peers = Peers::new();
    peers.message(
        r#"{"type":"response.create","model":"m","store":false,"tools":[{"type":"mcp"}],
            "input":[{"type":"additional_tools","tools":[{"type":"web_search"}]},{"role":"user","content":"x"}]}"#,
    );
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!(Vec::from_iter(peers.outcomes[0].hosted_tools.clone()), ["mcp", "web_search"]);
    assert_eq!(Vec::from_iter(peers.session.tools_not_forwarded().clone()), ["mcp", "web_search"]);
}

/// The first error's parameter, and what is said of it.
fn refused_tools(fields: &str) -> (String, String) {
    let mut peers = Peers::new();
    peers.message(&format!(r#"{{"type":"response.create","model":"m","store":false,{fields}}}"#));
    let Some(event) = peers.watch.events.iter().find(|event| event["type"] == "error") else {
        assert!(peers.sent.len() == 1, "{:?}", peers.watch.events);
        return Default::default();
    };
    let error = &event["error"];
    assert_eq!(error["type"], "invalid_request_error", "{event}");
    (error["param"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
}

#[test]
fn a_request_has_a_most_of_tools_however_they_are_listed() {
    let tools_max = Settings::default().tools_max;
    let functions = |count: usize| {
        let tools: Vec<_> =
            (0..count).map(|number| json!({"type": "function", "name": format!("f{number}")})).collect();
        json!(tools).to_string()
    };
    let listed = |count| format!(r#""input":"x","tools":{}"#, functions(count));
    let named =
        |count| format!(r#""input":"x","tools":[{{"type":"namespace","name":"n","tools":{}}}]"#, functions(count));
    let added = |count| {
        let tools = functions(count / 2);
        let item = |tools: &str| format!(r#"{{"type":"additional_tools","tools":{tools}}}"#);
        let rest = functions(count - count / 2);
        format!(r#""input":[{},{},{{"role":"user","content":"x"}}]"#, item(&tools), item(&rest))
    };
    for fields in [listed(tools_max), named(tools_max), added(tools_max)] {
        assert_eq!(refused_tools(&fields), Default::default());
    }
    let hosted = format!(r#""input":"x","tools":[{}{{"type":"mcp"}}]"#, r#"{"type":"mcp"},"#.repeat(tools_max));
    for (fields, param) in [
        (listed(tools_max + 1), "tools"),
        (named(tools_max + 1), "tools"),
        (hosted, "tools"),
        (added(tools_max + 1), "input[1].tools"),
    ] {
        let (found, message) = refused_tools(&fields);
        assert_eq!(found, param, "{message}");
        assert!(message.contains("at most 1024 tools"), "{message}");
    }
}

#[test]
fn tools_that_are_added_turn_by_turn_have_a_most_as_well() {
    let mut peers = Peers::new();
    let added = |first: usize, more: &str| {
        let names = first..first + 600;
        let tools: Vec<_> = names.map(|number| json!({"type": "function", "name": format!("f{number}")})).collect();
        let tools = json!(tools);
        format!(
            r#"{{"type":"response.create","model":"m","store":false,"generate":false,"input":[{{"type":"additional_tools","tools":{tools}}}]{more}}}"#
        )
    };
    peers.message(&added(0, ""));
    let id = peers.watch.latest();
    peers.message(&added(600, &format!(r#","previous_response_id":"{id}""#)));
    let event = peers.watch.events.last().unwrap().to_string();
    assert!(event.contains("1200 tools") && event.contains(r#""param":"tools""#), "{event}");
}

#[test]
fn what_a_client_calls_a_tool_is_neither_long_nor_kept() {
    let (param, message) = refused_tools(&format!(r#""input":"x","tools":[{{"type":"{}"}}]"#, "a".repeat(65)));
    assert_eq!((&*param, message.contains("64 bytes")), ("tools[0].type", true), "{message}");
    let mut peers = Peers::new();
    peers.message(
        r#"{"type":"response.create","model":"m","store":false,"tools":[{"type":"sk-secret"},{"type":"x\n"}],"input":"x"}"#,
    );
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!(Vec::from_iter(peers.outcomes[0].hosted_tools.clone()), ["other"]);
}

#[test]
fn what_was_not_to_be_stored_does_not_reach_the_store_by_a_later_turn() {
    let mut peers = Peers::new();
    peers.message(r#"{"type":"response.create","model":"m","store":false,"input":"a secret"}"#);
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    for _ in 0..2 {
        let id = peers.watch.ended.last().unwrap().clone();
        peers
            .message(&format!(r#"{{"type":"response.create","model":"m","input":"x","previous_response_id":"{id}"}}"#));
        for step in [Step::Opened, Step::Text, Step::Finish] {
            peers.apply(step);
        }
        let response = &peers.watch.events.last().unwrap()["response"];
        assert_eq!((&response["status"], &response["store"]), (&json!("completed"), &json!(false)), "it says so");
    }
    assert!(peers.stored.is_empty());
}

#[test]
fn what_is_being_stored_can_no_longer_be_interrupted_or_cancelled() {
    for stop in [Step::Interrupt, Step::Cancel] {
        let mut peers = Peers::new();
        for step in [Step::CreateStored, Step::Opened, Step::Text, Step::Finish, stop] {
            peers.apply(step);
        }
        assert_eq!(peers.watch.events.last().unwrap()["error"]["code"], "response_not_active");
        peers.apply(Step::Committed);
        let response = &peers.watch.events.last().unwrap()["response"];
        assert_eq!((&response["status"], response["output"].as_array().unwrap().len()), (&json!("completed"), 1));
    }
}

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

#[test]
fn an_idle_session_is_small() {
    let bytes = std::mem::size_of::<Session>() + std::mem::size_of::<flashlane_wire::websocket::Encoder>();
    assert!(bytes <= 800, "{bytes} bytes");
}

/// What a chat engine refuses of messages: PROTOCOL clause 3.4 lets a client go on from anything.
fn unanswered(messages: &Value) -> Vec<&str> {
    let mut open = Vec::new();
    for message in messages.as_array().unwrap() {
        match message["role"].as_str() {
            Some("tool") => open.retain(|id| message["tool_call_id"] != *id),
            _ if !open.is_empty() => return open,
            _ => {
                let calls = message["tool_calls"].as_array().into_iter().flatten();
                open.extend(calls.map(|call| call["id"].as_str().unwrap()));
            }
        }
    }
    open
}

#[test]
fn a_call_that_its_client_never_answered_is_answered_where_the_talk_goes_on() {
    let mut peers = Peers::new();
    let tools = r#""tools":[{"type":"function","name":"f","parameters":{}}],"store":false"#;
    peers.message(&format!(r#"{{"type":"response.create","model":"m","input":"hi",{tools}}}"#));
    peers.apply(Step::Opened);
    peers.delta(
        r#"{"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"f","arguments":"{}"}}]}"#,
    );
    peers.finish("tool_calls");
    let previous = peers.watch.events.last().unwrap()["response"]["id"].as_str().unwrap().to_owned();
    // Nothing but the answer that is not there: the engine is told so, and what is remembered is not changed.
    for input in [r#"[{"role":"user","content":"rather this"}]"#, r#"[{"type":"additional_tools","tools":[]}]"#] {
        peers.message(&format!(
            r#"{{"type":"response.create","model":"m","previous_response_id":"{previous}","input":{input},{tools}}}"#
        ));
        let messages = last_body(&peers)["messages"].clone();
        assert_eq!(unanswered(&messages), [""; 0], "{messages}");
        assert_eq!(messages[2]["content"], flashlane_wire::chat::UNANSWERED, "{messages}");
        peers.apply(Step::Opened);
        peers.delta(r#"{"content":"ok"}"#);
        peers.finish("stop");
    }
    let last = peers.watch.events.last().unwrap()["response"]["id"].as_str().unwrap().to_owned();
    let late = r#"[{"type":"function_call_output","call_id":"call_a","output":"late"}]"#;
    peers.message(&format!(
        r#"{{"type":"response.create","model":"m","previous_response_id":"{last}","input":{late},{tools}}}"#
    ));
    let messages = last_body(&peers)["messages"].clone();
    assert_eq!(unanswered(&messages), [""; 0], "{messages}");
}
