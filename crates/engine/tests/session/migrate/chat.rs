//! The same of Chat Completions: one sequence of chunks, as a client adds it up.

use super::fleet;
use flashlane_engine::admission::{Asked, Grant};
use flashlane_engine::router::Verdict;
use flashlane_engine::{
    Answer, Effect, Ended, EndpointId, IdSource, Now, Owner, Session, Settings, Shared, Tier, TurnId, UpstreamEvent,
    UpstreamFailure,
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A completion's session, and what it has asked of engines.
struct Chat {
    session: Session,
    turn: TurnId,
    sent: Vec<Value>,
    /// What its client has read.
    read: String,
    /// What is said of the endpoints that it had.
    verdicts: Vec<Verdict>,
}

impl Chat {
    fn new(body: &Value) -> Self {
        let shared = Arc::new(Shared::new(Settings::default(), Arc::new(fleet(1)), crate::peer::ring()));
        let mut session = Session::http(shared, IdSource::new([2; 32]), Owner::default());
        session.handle_chat_body(body.to_string().as_bytes(), Now::default());
        let mut chat =
            Self { session, turn: TurnId::default(), sent: Vec::new(), read: String::new(), verdicts: Vec::new() };
        chat.settle();
        chat
    }

    fn settle(&mut self) {
        while let Some(effect) = self.session.poll_effect() {
            if let Effect::Ask(turn, ticket) = effect {
                self.turn = turn;
                let endpoint = EndpointId(u16::try_from(ticket.tried.len()).unwrap());
                let asked = Asked::from(Grant::outright(endpoint, Tier::Throughput));
                self.session.handle_asked(turn, asked, Now::default());
            } else if let Effect::Release(_, ending) = effect {
                self.verdicts.push(ending.verdict);
            } else if let Effect::Open(turn, request) = effect {
                let body = flashlane_wire::chat::body(&request.model, &request.fields, &request.messages);
                self.sent.push(serde_json::from_slice(&body.concat()).unwrap());
                assert_eq!(
                    request.continues,
                    self.sent.len() > 1 && self.sent[1]["messages"] != self.sent[0]["messages"]
                );
                self.session.handle_upstream(turn, UpstreamEvent::Opened, Now::default());
            }
        }
        // Its client is told that a stream follows.
        if !self.session.outgoing().is_collecting() {
            self.session.answer();
        }
        let out = self.session.outgoing();
        self.read += std::str::from_utf8(out.ready()).unwrap();
        let len = out.ready().len();
        out.consume(len);
    }

    fn feed(&mut self, event: UpstreamEvent<'_>) {
        self.session.handle_upstream(self.turn, event, Now::default());
        self.settle();
    }

    fn delta(&mut self, delta: &Value) {
        let chunk = json!({"id": "u", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
        self.feed(UpstreamEvent::Bytes(format!("data: {chunk}\n\n").as_bytes()));
    }

    fn finish(&mut self) {
        for line in [
            r#"{"id":"u","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"id":"u","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}"#,
            "[DONE]",
        ] {
            self.feed(UpstreamEvent::Bytes(format!("data: {line}\n\n").as_bytes()));
        }
    }

    fn cut(&mut self) {
        let failure = UpstreamFailure::Cut { reason: "reset".into() };
        self.feed(UpstreamEvent::Ended(Ended::Failed(failure)));
    }

    /// What its client adds up: strings by joining them, as OpenAI's own packages do.
    fn added_up(&self) -> Value {
        let mut whole = json!({});
        for line in self.read.lines().filter_map(|line| line.strip_prefix("data: {")) {
            let chunk: Value = serde_json::from_str(&format!("{{{line}")).unwrap();
            let delta = chunk["choices"][0]["delta"].as_object().cloned().unwrap_or_default();
            add(&mut whole, delta);
        }
        whole
    }
}

fn add(whole: &mut Value, delta: Map<String, Value>) {
    for (name, value) in delta {
        match (&value, &mut whole[&name]) {
            (Value::String(new), Value::String(known)) if name != "type" => known.push_str(new),
            (Value::Array(calls), Value::Array(known)) => {
                for call in calls {
                    let mut call = call.as_object().unwrap().clone();
                    let at = usize::try_from(call.remove("index").unwrap().as_u64().unwrap()).unwrap();
                    known.resize(known.len().max(at + 1), json!({}));
                    add(&mut known[at], call);
                }
            }
            (Value::Object(new), Value::Object(_)) => add(&mut whole[&name], new.clone()),
            (Value::Array(_), known) => {
                *known = json!([]);
                add(whole, Map::from_iter([(name, value)]));
            }
            (Value::Null, _) => {}
            (_, known) => *known = value,
        }
    }
}

fn role() -> Value {
    json!({"role": "assistant", "content": ""})
}

fn call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"tool_calls": [{"index": 0, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]})
}

fn arguments(arguments: &str) -> Value {
    json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]})
}

fn streamed() -> Chat {
    let usage = json!({"include_usage": true});
    let messages = json!([{"role": "user", "content": "hi"}]);
    Chat::new(&json!({"model": "m", "messages": messages, "stream": true, "stream_options": usage, "max_tokens": 9}))
}

#[test]
fn text_goes_on_and_nobody_speaks_twice() {
    let mut chat = streamed();
    for delta in [role(), json!({"content": "a "}), json!({"content": "b"})] {
        chat.delta(&delta);
    }
    chat.cut();
    let asked = &chat.sent[1];
    assert_eq!(asked["messages"][1], json!({"role": "assistant", "content": "a b"}));
    assert_eq!(asked["max_tokens"], 7);
    for delta in [role(), json!({"content": "c\n"}), json!({"content": "d"})] {
        chat.delta(&delta);
    }
    chat.finish();
    assert_eq!(chat.added_up(), json!({"role": "assistant", "content": "a bc\nd"}));
    assert!(chat.read.ends_with("data: [DONE]\n\n"));
    assert!(chat.read.contains(r#""completion_tokens":5"#), "{}", chat.read);
}

#[test]
fn a_call_that_is_repeated_goes_on_wherever_it_was_cut() {
    let whole = r#"{"cmd":"ls é"}"#;
    for at in (0..=whole.len()).filter(|at| whole.is_char_boundary(*at)) {
        let mut chat = streamed();
        for delta in [role(), call("c0", "run", ""), arguments(&whole[..at])] {
            chat.delta(&delta);
        }
        chat.cut();
        assert_eq!(chat.sent[1]["messages"], chat.sent[0]["messages"]);
        chat.delta(&role());
        chat.delta(&call("c9", "run", &whole[..2]));
        whole[2..].chars().for_each(|char| chat.delta(&arguments(&char.to_string())));
        chat.finish();
        let calls = json!([{"id": "c0", "type": "function", "function": {"name": "run", "arguments": whole}}]);
        assert_eq!(chat.added_up()["tool_calls"], calls, "{at}: {}", chat.read);
        assert!(chat.read.ends_with("data: [DONE]\n\n") && !chat.read.contains("error"));
    }
}

#[test]
fn a_call_that_differs_is_an_error_since_none_can_be_taken_back() {
    for (name, rest) in [("run", r#"{"cmd":"pwd"}"#), ("look", r#"{"cmd":"ls"}"#)] {
        let mut chat = streamed();
        for delta in [call("c0", "run", ""), arguments(r#"{"cmd":"l"#)] {
            chat.delta(&delta);
        }
        chat.cut();
        chat.delta(&call("c9", name, rest));
        chat.finish();
        assert_eq!(chat.added_up()["tool_calls"][0]["function"]["arguments"], r#"{"cmd":"l"#);
        assert!(chat.read.contains("made another call"), "{}", chat.read);
        assert_eq!(chat.verdicts, [Verdict::Failed, Verdict::Nothing], "no fault of who went on");
    }
}

#[test]
fn one_that_nobody_has_read_yet_is_whole() {
    for is_call in [false, true] {
        let mut chat = Chat::new(&json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}));
        chat.delta(&json!({"content": "a "}));
        if is_call {
            chat.delta(&call("c0", "run", r#"{"cmd":"l"#));
        }
        chat.cut();
        assert_eq!(chat.sent[1]["messages"][1]["content"], "a ");
        chat.delta(&json!({"content": "b"}));
        if is_call {
            chat.delta(&call("c9", "look", "{}"));
        }
        chat.finish();
        let Some(Answer::Json(object)) = chat.session.answer() else { panic!("no object") };
        let object: Value = serde_json::from_slice(&object).unwrap();
        let message = &object["choices"][0]["message"];
        assert_eq!(message["content"], "a b");
        assert_eq!(message["tool_calls"].as_array().map_or(0, Vec::len), usize::from(is_call));
        assert_eq!(object["usage"]["completion_tokens"], if is_call { 5 } else { 4 });
    }
}

#[test]
fn an_answer_that_its_client_has_begun_itself_is_not_gone_on_with() {
    let messages = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well, "}]);
    let mut chat = Chat::new(&json!({"model": "m", "messages": messages, "stream": true}));
    chat.delta(&json!({"content": "a"}));
    chat.cut();
    assert_eq!(chat.sent.len(), 1);
    assert!(chat.read.contains("broke off"), "{}", chat.read);
}
