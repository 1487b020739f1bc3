//! What a scripted upstream does, and the usual sequences of it.

use bytes::Bytes;
use serde_json::json;
use std::time::Duration;

/// One thing that an upstream does on a connection. After the last it closes the connection.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads a whole request and remembers it. Ends the script when the peer closes instead.
    Expect,
    /// Writes bytes as they are, in one write.
    Send(Bytes),
    /// Writes a chunk of the chunked coding in one write. An empty one is the last.
    Chunk(Bytes),
    /// The same in three writes: size line, bytes, line end.
    ChunkInParts(Bytes),
    Wait(Duration),
    /// Waits, and ends the script as soon as the peer closes the connection.
    Watch(Duration),
    /// Reads on until the peer closes the connection.
    Hold,
    /// From the first step again, on the same connection.
    Again,
    /// Breaks the connection off (TCP RST).
    Reset,
}

impl Step {
    /// The head of a chunked event stream.
    #[must_use]
    pub fn stream_head() -> Self {
        Self::Send(Bytes::from_static(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        ))
    }
}

/// A whole turn: the request is read, the events are streamed a chunk each. Add [`Step::Again`] to keep the connection.
#[must_use]
pub fn stream(events: &[Bytes]) -> Vec<Step> {
    let mut steps = vec![Step::Expect, Step::stream_head()];
    steps.extend(events.iter().cloned().map(Step::Chunk));
    steps.push(Step::Chunk(Bytes::new()));
    steps
}

/// What the steps write, as it is on the wire.
#[must_use]
pub fn wire(steps: &[Step]) -> Bytes {
    let mut wire = Vec::new();
    for step in steps {
        match step {
            Step::Send(bytes) => wire.extend_from_slice(bytes),
            Step::Chunk(bytes) | Step::ChunkInParts(bytes) => {
                wire.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
                wire.extend_from_slice(bytes);
                wire.extend_from_slice(b"\r\n");
            }
            Step::Expect | Step::Wait(_) | Step::Watch(_) | Step::Hold | Step::Again | Step::Reset => {}
        }
    }
    Bytes::from(wire)
}

/// The request is read and answered with an error status. `fields` are whole lines, each with its CRLF.
#[must_use]
pub fn error(status: u16, fields: &str, body: &str) -> Vec<Step> {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Error\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{fields}\r\n{body}"
    );
    vec![Step::Expect, Step::Send(Bytes::from(answer))]
}

/// The events of a Chat Completions stream that says `texts`, a chunk each, from the role to `[DONE]`, with usage.
#[must_use]
pub fn chat_events(texts: &[&str]) -> Vec<Bytes> {
    let event = |choices: serde_json::Value, usage: serde_json::Value| {
        let mut chunk = json!({"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1,
            "model": "scripted", "choices": choices});
        if let Some(chunk) = chunk.as_object_mut().filter(|_| !usage.is_null()) {
            chunk.insert("usage".to_owned(), usage);
        }
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    let choice = |delta: serde_json::Value, finish: serde_json::Value| json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
    let nothing = serde_json::Value::Null;
    let count = texts.len();
    let mut events = vec![event(choice(json!({"role": "assistant", "content": ""}), json!(null)), nothing.clone())];
    events.extend(texts.iter().map(|text| event(choice(json!({"content": text}), json!(null)), nothing.clone())));
    events.push(event(choice(json!({}), json!("stop")), nothing));
    let usage = json!({"prompt_tokens": 7, "completion_tokens": count, "total_tokens": count + 7});
    events.push(event(json!([]), usage));
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}
