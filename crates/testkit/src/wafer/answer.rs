//! What the service sends: a stream of chunks of several tokens, with its times and usage at the end, and the faults that it may have.

use super::rules::Asked;
use super::wire::Flow;
use super::{Odd, Shared, Ways};
use bytes::Bytes;
use http_body::{Body, Frame};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// What the model says.
#[derive(Debug, Clone)]
pub struct Say {
    /// Each a delta of several tokens.
    pub reasoning: Vec<String>,
    pub texts: Vec<String>,
    /// Name and arguments.
    pub call: Option<(String, String)>,
}

impl Default for Say {
    fn default() -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            reasoning: owned(&["The user says hello. "]),
            texts: owned(&["Hello from the ", "wafer, as scripted."]),
            call: None,
        }
    }
}

/// When it says it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    pub first_token: Duration,
    pub between_chunks: Duration,
}

/// What goes wrong. Faults hold for turns, [`Fault::HangUp`] for connections.
#[derive(Debug, Clone, Default)]
pub enum Fault {
    #[default]
    None,
    /// Each connection is reset as soon as it is there.
    HangUp,
    /// Each connection that comes from now on is reset when a turn is asked for.
    Reset,
    /// What is no HTTP answers.
    NotHttp,
    /// An answer of this status and body.
    Status { status: u16, body: Bytes },
    /// No answer at all.
    Silent,
    /// After so many events, nothing more.
    Stall { events: usize },
    /// After so many bytes of the stream the connection breaks.
    Cut { bytes: usize },
    /// After so many bytes on the wire, the answer's head included, the connection ends.
    CutWire { bytes: usize },
    /// After so many events an error stands in the stream.
    InStream { events: usize },
    /// After so many events comes what is no event.
    Garbage { events: usize },
}

const NOT_HTTP: &[u8] = b"\x00\x01SSH-2.0-nobody\r\n\r\n";

impl Fault {
    /// What becomes of a turn's answer on its connection.
    pub(super) fn flow(&self) -> Flow {
        match self {
            Self::Reset => Flow::Until(0),
            Self::CutWire { bytes } => Flow::Until(*bytes),
            Self::NotHttp => Flow::Instead(Bytes::from_static(NOT_HTTP)),
            Self::None
            | Self::HangUp
            | Self::Status { .. }
            | Self::Silent
            | Self::Stall { .. }
            | Self::Cut { .. }
            | Self::InStream { .. }
            | Self::Garbage { .. } => Flow::Free,
        }
    }
}

enum Step {
    Send(Bytes),
    Wait(Duration),
    Hang,
    Break,
}

/// A response's body. Its drop before its end is counted.
pub(super) struct Answer {
    steps: VecDeque<Step>,
    pause: Option<Pin<Box<Sleep>>>,
    watched: Option<Arc<Shared>>,
}

impl Answer {
    pub(super) fn whole(body: Bytes) -> Self {
        Self { steps: VecDeque::from([Step::Send(body)]), pause: None, watched: None }
    }

    pub(super) fn endless() -> Self {
        Self { steps: VecDeque::from([Step::Hang]), pause: None, watched: None }
    }

    pub(super) fn watched(mut self, shared: Arc<Shared>) -> Self {
        self.watched = Some(shared);
        self
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(shared) = self.watched.as_ref().filter(|_| !self.steps.is_empty()) {
            shared.seen.send_modify(|seen| seen.abandoned += 1);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Send(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Step::Wait(time)) => self.pause = Some(Box::pin(tokio::time::sleep(time))),
                Some(Step::Break) => return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into()))),
                Some(Step::Hang) => {
                    self.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
            }
        }
    }
}

/// The stream that answers a turn: status, content type and body.
pub(super) fn stream(asked: &Asked, ways: &Ways) -> (u16, &'static str, Answer) {
    let mut events: VecDeque<Bytes> = events(asked, ways).into();
    let mut steps = VecDeque::from([Step::Wait(ways.timing.first_token)]);
    match ways.fault {
        Fault::None
        | Fault::HangUp
        | Fault::Reset
        | Fault::NotHttp
        | Fault::Status { .. }
        | Fault::Silent
        | Fault::CutWire { .. } => {}
        Fault::Stall { events: count } => events.truncate(count),
        Fault::InStream { events: count } => {
            events.truncate(count);
            let error = json!({"error": {"message": "Encountered a server error, please try again.", "type": "server_error",
                "param": "", "code": "", "id": ""}, "status_code": 500});
            events.push_back(Bytes::from(format!("data: {error}\n\n")));
        }
        Fault::Garbage { events: count } => {
            events.truncate(count);
            events.push_back(Bytes::from_static(b"data: <html>bad gateway</html>\n\n"));
        }
        Fault::Cut { bytes } => {
            let whole: Vec<u8> = events.iter().flatten().copied().collect();
            let part = whole.get(..bytes).unwrap_or(&whole);
            events = VecDeque::from([Bytes::copy_from_slice(part)]);
        }
    }
    for event in events.into_iter().filter(|event| !event.is_empty()) {
        steps.push_back(Step::Send(event));
        if !ways.timing.between_chunks.is_zero() {
            steps.push_back(Step::Wait(ways.timing.between_chunks));
        }
    }
    match ways.fault {
        Fault::Stall { .. } => steps.push_back(Step::Hang),
        // What was sent before an error at once would be lost with it.
        Fault::Cut { .. } => steps.extend([Step::Wait(Duration::from_millis(10)), Step::Break]),
        Fault::None
        | Fault::HangUp
        | Fault::Reset
        | Fault::NotHttp
        | Fault::CutWire { .. }
        | Fault::Status { .. }
        | Fault::Silent
        | Fault::InStream { .. }
        | Fault::Garbage { .. } => {}
    }
    (200, "text/event-stream; charset=utf-8", Answer { steps, pause: None, watched: None })
}

/// The events of a turn without faults.
fn events(asked: &Asked, ways: &Ways) -> Vec<Bytes> {
    let limit = asked.answer_tokens_max.filter(|_| !ways.is(Odd::Talkative)).unwrap_or(u64::MAX);
    let (say, completion) = ways.say.within(limit);
    let is_cut = completion < ways.say.tokens();
    let chunk = |choices: Value, more: Value| {
        let mut chunk = json!({"id": "chatcmpl-wafer", "object": "chat.completion.chunk", "created": 1_793_000_000,
            "model": asked.model, "system_fingerprint": "fp_wafer", "choices": choices});
        if let (Some(chunk), Value::Object(more)) = (chunk.as_object_mut(), more) {
            chunk.extend(more);
        }
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    let delta = |delta: Value| chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]), Value::Null);
    let mut events = vec![delta(json!({"role": "assistant"}))];
    let reasoning_name = if ways.is(Odd::StrangeReasoning) { "musings" } else { "reasoning" };
    events.extend(say.reasoning.iter().map(|text| delta(json!({reasoning_name: text}))));
    events.extend(say.texts.iter().map(|text| delta(json!({"content": text}))));
    if let Some((name, arguments)) = &say.call {
        events.push(delta(
            json!({"tool_calls": [{"index": 0, "id": format!("call_{}", asked.number), "type": "function",
            "function": {"name": name, "arguments": arguments}}]}),
        ));
    }
    let reasoning = tokens(&say.reasoning).min(completion);
    let finish = match (is_cut, &say.call) {
        (true, _) => "length",
        (false, Some(_)) => "tool_calls",
        (false, None) => "stop",
    };
    let usage = json!({"prompt_tokens": asked.prompt_tokens, "completion_tokens": completion,
        "total_tokens": asked.prompt_tokens + completion, "prompt_tokens_details": {"cached_tokens": asked.cached_tokens},
        "completion_tokens_details": {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0, "reasoning_tokens": reasoning}});
    let time_info = json!({"queue_time": 0.0005, "prompt_time": 0.002, "completion_time": 0.004, "total_time": 0.007, "created": 1_793_000_000.25});
    events.push(chunk(
        json!([{"index": 0, "delta": {}, "finish_reason": finish}]),
        match (ways.is(Odd::NoUsage), ways.is(Odd::NoTimes)) {
            (false, false) => json!({"usage": usage, "time_info": time_info}),
            (true, false) => json!({"time_info": time_info}),
            (false, true) => json!({"usage": usage}),
            (true, true) => json!({}),
        },
    ));
    if !ways.is(Odd::NotDone) {
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    }
    events
}

/// Some four letters a token: more tokens than chunks, as the real service sends them.
const TOKEN_LETTERS: usize = 4;

fn tokens(texts: &[String]) -> u64 {
    (texts.iter().map(String::len).sum::<usize>() / TOKEN_LETTERS) as u64 + 1
}

impl Say {
    fn tokens(&self) -> u64 {
        tokens(&self.reasoning) + tokens(&self.texts)
    }

    /// What of it has so many tokens, and how many it has.
    fn within(&self, tokens_max: u64) -> (Self, u64) {
        if self.tokens() <= tokens_max {
            return (self.clone(), self.tokens());
        }
        let mut letters = usize::try_from(tokens_max).unwrap_or(usize::MAX).saturating_mul(TOKEN_LETTERS);
        let mut cut = |texts: &[String]| -> Vec<String> {
            let pieces = texts.iter().map(|text| {
                let piece: String = text.chars().take(letters).collect();
                letters -= piece.chars().count();
                piece
            });
            pieces.filter(|piece| !piece.is_empty()).collect()
        };
        let (reasoning, texts) = (cut(&self.reasoning), cut(&self.texts));
        (Self { reasoning, texts, call: None }, tokens_max)
    }
}
