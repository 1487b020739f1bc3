//! The form and the pace of what a script sends.

use crate::play::{UNIX_S, ask, complete, script, stream, stream_with, with, writes};
use flashlane_simulator::{Profile, Step};
use serde_json::{Value, json};

#[test]
fn a_stream_is_role_content_finish_usage_and_the_end_mark() {
    let read = stream(ask("say exactly: one two"));
    let shared = |chunk: &Value| {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["created"], UNIX_S);
        assert_eq!(chunk["model"], "flashlane-demo");
        assert_eq!(chunk["system_fingerprint"], "flashlane-simulator");
        assert_eq!(chunk["id"], read.chunks[0]["id"]);
    };
    read.chunks.iter().for_each(shared);
    let choices: Vec<&Value> = read.chunks.iter().map(|chunk| &chunk["choices"]).collect();
    let open = |delta: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]);
    assert_eq!(*choices[0], open(json!({"role": "assistant", "content": ""})));
    assert_eq!(*choices[1], open(json!({"content": "one"})));
    assert_eq!(*choices[2], open(json!({"content": " two"})));
    assert_eq!(*choices[3], json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"}]));
    assert_eq!(*choices[4], json!([]));
    assert_eq!(choices.len(), 5);
    assert!(read.chunks[..4].iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
    assert_eq!(read.usage["completion_tokens"], 2);
    assert_eq!(read.usage["prompt_tokens_details"]["cached_tokens"], 0);
}

#[test]
fn usage_comes_only_where_it_was_asked_for() {
    let read = stream(with(ask("say exactly: one"), json!({"stream_options": {}})));
    assert!(read.chunks.iter().all(|chunk| chunk.get("usage").is_none() && chunk["choices"] != json!([])));
    assert_eq!(read.finish, "stop");
}

#[test]
fn a_tool_call_streams_its_name_first_and_its_arguments_in_pieces() {
    let tool = json!({"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
        "required": ["city"], "properties": {"city": {"type": "string"}}}}});
    let read = stream(with(ask("weather?"), json!({"tools": [tool], "tool_choice": "required"})));
    let calls: Vec<&Value> = read.chunks[1..read.chunks.len() - 2]
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0])
        .collect();
    assert_eq!(calls[0]["type"], "function");
    assert_eq!(calls[0]["function"], json!({"name": "get_weather", "arguments": ""}));
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
    assert!(calls.len() > 3);
    assert!(calls[1..].iter().all(|call| call["index"] == 0 && call.get("id").is_none()));
    assert_eq!(read.tool, Some(("get_weather".to_owned(), json!({"city": "simulated city"}))));
    assert_eq!(read.finish, "tool_calls");
    assert_eq!(read.content, "");
}

#[test]
fn one_document_holds_the_same_answer_as_the_stream() {
    let read = stream(ask("count from 1 to 12"));
    let whole = complete(&ask("count from 1 to 12"));
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["system_fingerprint"], "flashlane-simulator");
    let message = json!({"role": "assistant", "content": read.content, "refusal": null});
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"});
    assert_eq!(whole["choices"], json!([choice]));
    assert_eq!(whole["usage"], read.usage);
    assert_eq!(whole["id"], read.chunks[0]["id"]);
}

#[test]
fn one_document_is_due_with_its_last_token() {
    let writes = writes(&ask("say exactly: one two three"), Profile::GPU, 0);
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0].0, 250_000_000 + 2 * 1_000_000_000 / 65);
}

#[test]
fn token_k_is_due_at_the_first_token_plus_k_over_the_rate() {
    let body = with(ask("count from 1 to 40"), json!({"stream": true}));
    let writes = writes(&body, Profile::GPU, 0);
    assert_eq!(writes.len(), 79, "40 numbers and 39 line breaks");
    for (k, (due_ns, text)) in writes.iter().enumerate() {
        assert_eq!(*due_ns, 250_000_000 + k as u64 * 1_000_000_000 / 65);
        assert!(text.ends_with("\n\n"), "events are whole");
    }
    assert_eq!(writes[0].1.matches("data: ").count(), 2, "the role comes with the first token");
    assert!(writes[78].1.ends_with("data: [DONE]\n\n"), "the end comes with the last token");
}

#[test]
fn wafer_chunks_have_several_tokens_at_times_and_are_due_with_their_last() {
    let body = with(ask("count from 1 to 500"), json!({"stream": true, "stream_options": {"include_usage": true}}));
    let writes = writes(&body, Profile::WAFER, 7);
    assert_eq!(writes[0].0, 30_000_000, "the first token comes alone and in time");
    assert_eq!(writes.last().unwrap().0, 30_000_000 + 998 * 1_000_000_000 / 1_500);
    let chunks = stream_with(body, Profile::WAFER, 7).chunks;
    let tokens_of = |chunk: &Value| {
        let text = chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
        text.matches('\n').count() + text.split('\n').filter(|number| !number.is_empty()).count()
    };
    let sizes: Vec<usize> = chunks[1..chunks.len() - 2].iter().map(tokens_of).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 999);
    assert_eq!((sizes[0], *sizes.iter().max().unwrap()), (1, 4));
    let several = sizes.iter().filter(|&&size| size > 1).count() * 100 / sizes.len();
    assert!((15..35).contains(&several), "{several} % of the chunks");
}

#[test]
fn all_that_is_due_comes_in_one_go() {
    let body = with(ask("count from 1 to 9"), json!({"stream": true}));
    let mut late = script(&body, Profile::GPU, 0).unwrap();
    let Step::Bytes(bytes) = late.poll(u64::MAX) else { panic!("all is due") };
    let all: String = writes(&body, Profile::GPU, 0).into_iter().map(|(_, text)| text).collect();
    assert_eq!(String::from_utf8(bytes.to_vec()).unwrap(), all);
    assert!(late.is_over());
    assert_eq!(late.poll(0), Step::End);
    let mut early = script(&body, Profile::GPU, 0).unwrap();
    assert_eq!(early.poll(249_999_999), Step::Wait(250_000_000));
    assert!(!early.is_over());
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let body = with(ask("tell me about hash tables"), json!({"stream": true}));
    assert_eq!(writes(&body, Profile::WAFER, 3), writes(&body, Profile::WAFER, 3));
    let contents: Vec<String> = (0..8).map(|seed| stream_with(body.clone(), Profile::WAFER, seed).content).collect();
    assert!(contents.iter().any(|content| *content != contents[0]));
}

#[test]
fn a_token_limit_ends_text_and_calls_with_length() {
    let read = stream(with(ask("count from 1 to 100"), json!({"max_tokens": 99, "max_completion_tokens": 5})));
    assert_eq!((read.content.as_str(), read.finish.as_str()), ("1\n2\n3", "length"));
    assert_eq!(read.usage["completion_tokens"], 5);
    let exact = stream(with(ask("count from 1 to 3"), json!({"max_tokens": 5})));
    assert_eq!((exact.content.as_str(), exact.finish.as_str()), ("1\n2\n3", "stop"));
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "required": ["x"],
        "properties": {"x": {"type": "string"}}}}});
    let cut = with(ask("x"), json!({"tools": [tool], "tool_choice": "required", "max_tokens": 3}));
    let read = stream(cut.clone());
    assert_eq!(read.finish, "length");
    assert_eq!(read.tool, Some(("f".to_owned(), Value::String("{\"".to_owned()))));
    assert_eq!(complete(&cut)["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"], "{\"");
}

#[test]
fn a_stop_sequence_ends_the_text_before_itself() {
    for stop in [json!("4"), json!(["zz", "4", "9"])] {
        let read = stream(with(ask("count from 1 to 9"), json!({ "stop": stop })));
        assert_eq!((read.content.as_str(), read.finish.as_str()), ("1\n2\n3\n", "stop"));
    }
}

#[test]
fn reasoning_comes_before_the_answer_and_is_counted() {
    let body = with(ask("say exactly: yes"), json!({"reasoning_effort": "high"}));
    let read = stream(body.clone());
    assert!(read.reasoning.contains("simulator"));
    assert_eq!(read.content, "yes");
    let order =
        |key: &str| read.chunks.iter().position(|chunk| chunk["choices"][0]["delta"].get(key).is_some_and(|v| v != ""));
    assert!(order("reasoning_content") < order("content"));
    let reasoning_tokens = read.usage["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
    assert!(reasoning_tokens > 10);
    assert_eq!(read.usage["completion_tokens"], reasoning_tokens + 1);
    assert_eq!(complete(&body)["choices"][0]["message"]["reasoning_content"], read.reasoning);
    assert_eq!(stream(with(ask("say exactly: yes"), json!({"reasoning_effort": "low"}))).reasoning, "");
}

#[test]
fn the_prompt_is_counted_by_bytes_messages_and_tools() {
    let count = |body: Value| complete(&body)["usage"]["prompt_tokens"].as_u64().unwrap();
    let text = "x".repeat(98);
    assert_eq!(count(ask(&text)), 3 + 4 + 25, "opening, message, a hundred bytes with the quotes");
    let two =
        json!({"model": "m", "messages": [{"role": "system", "content": "ab"}, {"role": "user", "content": "hi"}]});
    assert_eq!(count(two), 3 + 2 * (4 + 1));
    let tool = json!({"type": "function", "function": {"name": "f"}});
    assert_eq!(count(with(ask(&text), json!({ "tools": [tool] }))), 32 + 3, "a tool of twelve bytes");
}

#[test]
fn escapes_survive_the_stream() {
    let text = "a \"b\" \\ \t<ü 日本 🙂>\nnext";
    assert_eq!(stream(ask(&format!("repeat: {text}"))).content, text);
}
