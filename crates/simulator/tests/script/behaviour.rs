//! What the simulator plays for which request.

use crate::play::{ask, complete, stream, with};
use serde_json::{Value, json};

fn function(name: &str, parameters: &Value) -> Value {
    json!({"type": "function", "function": {"name": name, "description": "a tool", "parameters": parameters}})
}

fn exec_command() -> Value {
    let properties = json!({"cmd": {"type": "string"}, "workdir": {"type": "string"}});
    function("exec_command", &json!({"type": "object", "properties": properties, "required": ["cmd"]}))
}

fn apply_patch() -> Value {
    function(
        "apply_patch",
        &json!({"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}),
    )
}

#[test]
fn it_greets() {
    let read = stream(ask("hello"));
    assert!(read.content.starts_with("Hello! I am the flashlane simulator"), "{}", read.content);
}

#[test]
fn it_counts_one_number_a_line_and_not_for_ever() {
    assert_eq!(stream(ask("count from 8 to 11")).content, "8\n9\n10\n11");
    assert_eq!(stream(ask("count down from 2 to -1")).content, "2\n1\n0\n-1");
    let long = stream(ask("count from 1 to 9223372036854775807")).content;
    assert_eq!(long.lines().count(), 10_001);
    assert_eq!(long.lines().last(), Some("(The simulator counts no further than 10000 numbers.)"));
}

#[test]
fn it_repeats_and_remembers() {
    assert_eq!(stream(ask("say exactly: Pong!")).content, "Pong!");
    let body = json!({"model": "m", "messages": [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": [{"type": "text", "text": "My name is Ada."}]},
        {"role": "assistant", "content": "Hello, Ada."},
        {"role": "user", "content": [{"type": "text", "text": "What is my name?"}]}]});
    assert_eq!(stream(body).content, "Your name is Ada.");
    assert_eq!(stream(ask("What is my name?")).content, "You have not told me your name.");
}

#[test]
fn it_otherwise_writes_some_200_tokens_with_code() {
    let read = stream(ask("How does a hash table work?"));
    let tokens = read.usage["completion_tokens"].as_u64().unwrap();
    assert!((150..350).contains(&tokens), "{tokens}");
    assert!(read.content.contains("```") && read.content.contains("flashlane simulator"));
}

#[test]
fn images_are_taken_and_not_looked_at() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, {"type": "text", "text": "say exactly: seen"}]}]});
    assert_eq!(stream(body).content, "seen");
}

#[test]
fn a_forced_tool_gets_arguments_that_fit_its_schema() {
    let parameters = json!({"type": "object", "required": ["unit", "days", "where"], "properties": {
        "unit": {"enum": ["metric", "imperial"]}, "days": {"type": "integer", "minimum": 3, "maximum": 5},
        "where": {"type": "array", "minItems": 2, "items": {"type": "object", "required": ["city"],
            "properties": {"city": {"type": "string"}}}}}});
    let tools = json!([exec_command(), function("forecast", &parameters)]);
    let choice = json!({"type": "function", "function": {"name": "forecast"}});
    let read = stream(with(ask("hello"), json!({"tools": tools, "tool_choice": choice})));
    let places = json!([{"city": "simulated city"}, {"city": "simulated city"}]);
    assert_eq!(read.tool, Some(("forecast".to_owned(), json!({"unit": "metric", "days": 3, "where": places}))));
    assert_eq!(read.finish, "tool_calls");
}

#[test]
fn required_takes_the_fitting_tool_and_else_the_first() {
    let tools = json!([function("lookup", &json!({"type": "object"})), exec_command()]);
    let called = |text: &str| {
        let read = stream(with(ask(text), json!({"tools": tools, "tool_choice": "required"})));
        read.tool.unwrap().0
    };
    assert_eq!(called("hello"), "lookup");
    assert_eq!(called("write a file"), "exec_command");
}

#[test]
fn a_tool_that_is_asked_for_by_name_is_called_once() {
    let parameters = json!({"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}});
    let tools = json!([function("lookup", &json!({"type": "object"})), function("get_weather", &parameters)]);
    let body = with(ask("Please call get_weather for Paris"), json!({ "tools": tools }));
    let read = stream(body.clone());
    assert_eq!(read.tool, Some(("get_weather".to_owned(), json!({"city": "simulated city"}))));
    assert_eq!(stream(with(body, json!({"tool_choice": "none"}))).tool, None);
    assert_eq!(stream(with(ask("What is get_weather?"), json!({ "tools": tools }))).tool, None);
}

#[test]
fn a_json_schema_is_met_and_a_json_object_is_one() {
    let schema = json!({"type": "object", "additionalProperties": false, "required": ["name", "age"],
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 18}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": schema}});
    let read = stream(with(ask("hello"), json!({ "response_format": format })));
    let value: Value = serde_json::from_str(&read.content).unwrap();
    assert_eq!(value, json!({"name": "simulated name", "age": 18}));
    let read = stream(with(ask("hello"), json!({"response_format": {"type": "json_object"}})));
    assert!(serde_json::from_str::<Value>(&read.content).unwrap().is_object());
}

/// Plays the call, answers it, and gives the call and the closing text.
fn two_steps(text: &str, tools: &Value, result: &str) -> ((String, Value), String) {
    let body = with(ask(text), json!({ "tools": tools }));
    let whole = complete(&body);
    let message = &whole["choices"][0]["message"];
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(message["content"], Value::Null);
    let call = &message["tool_calls"][0];
    let function = &call["function"];
    let arguments = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
    let answer = json!({"role": "tool", "tool_call_id": call["id"], "content": result});
    let messages = json!([body["messages"][0], message, answer]);
    let closing = stream(with(body, json!({ "messages": messages })));
    assert_eq!((closing.tool, closing.finish.as_str()), (None, "stop"));
    ((function["name"].as_str().unwrap().to_owned(), arguments), closing.content)
}

#[test]
fn a_file_is_written_in_two_steps() {
    let (call, closing) =
        two_steps("write a file hello.txt containing hi", &json!([apply_patch(), exec_command()]), "exit code 0");
    assert_eq!(call, ("exec_command".to_owned(), json!({"cmd": "printf '%s\\n' 'hi' > 'hello.txt'"})));
    assert!(
        closing.starts_with(
            "I asked for the file `hello.txt` to be written with `exec_command`. The tool answered:\n\nexit code 0"
        ),
        "{closing}"
    );
}

#[test]
fn a_file_is_patched_in_two_steps() {
    let tools = json!([exec_command(), apply_patch()]);
    let (call, closing) = two_steps("replace hi with bye in hello.txt", &tools, "Done!");
    let patch = "*** Begin Patch\n*** Update File: hello.txt\n@@\n-hi\n+bye\n*** End Patch";
    assert_eq!(call, ("apply_patch".to_owned(), json!({ "input": patch })));
    assert!(
        closing.starts_with("I asked for `hi` to be replaced by `bye` in `hello.txt` with `apply_patch`."),
        "{closing}"
    );
    let (call, _) = two_steps("create hello.txt containing hi with apply_patch", &tools, "Done!");
    let patch = "*** Begin Patch\n*** Add File: hello.txt\n+hi\n*** End Patch";
    assert_eq!(call, ("apply_patch".to_owned(), json!({ "input": patch })));
}

#[test]
fn a_new_message_after_a_tool_turn_is_a_new_task() {
    let messages = json!([
        {"role": "user", "content": "write a file"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "exec_command", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
        {"role": "user", "content": "count to 3"}]);
    let read = stream(json!({"model": "m", "messages": messages, "tools": [exec_command()]}));
    assert_eq!(read.content, "1\n2\n3");
}

#[test]
fn without_a_tool_it_says_that_it_has_none() {
    let read = stream(ask("write a file hello.txt containing hi"));
    assert!(read.content.starts_with("You asked for a file to be changed, but"), "{}", read.content);
}
