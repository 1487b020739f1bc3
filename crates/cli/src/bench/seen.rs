//! What a client sees of a turn's events, whatever carried them: each token's way, the end, the response's id. It reads as
//! little of an event as it can, since it shares the processors with what it measures.

use super::clock::{Clock, STAMP_BYTES, stamp, stamps};
use memchr::memmem::Finder;
use serde::Deserialize;

/// How a turn ended, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    NotYet,
    Completed {
        at_ns: u64,
    },
    /// An error event, or a response that is not complete.
    Failed,
}

/// One client's eyes. They stay open for many turns.
pub struct Seen {
    pub clock: Clock,
    pub end: End,
    /// When the first token had been read.
    pub first_token_ns: Option<u64>,
    /// From the upstream's write to the client's read, of each token of all turns.
    pub transits_ns: Vec<u64>,
    /// This turn's text.
    pub text: String,
    pub response_id: String,
    /// Of the tool call that this turn was answered with; empty without one.
    pub call_id: String,
    response_type: Finder<'static>,
}

#[derive(Deserialize)]
struct Completed<'a> {
    #[serde(borrow)]
    response: Id<'a>,
}

#[derive(Deserialize)]
struct Id<'a> {
    id: &'a str,
}

#[derive(Deserialize)]
struct ItemDone<'a> {
    #[serde(borrow)]
    item: Call<'a>,
}

#[derive(Deserialize)]
struct Call<'a> {
    call_id: Option<&'a str>,
}

/// Where a chunk of Chat Completions names a call.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Delta<'a>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    tool_calls: Vec<Id<'a>>,
}

impl Seen {
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            end: End::NotYet,
            first_token_ns: None,
            transits_ns: Vec::new(),
            text: String::new(),
            response_id: String::new(),
            call_id: String::new(),
            response_type: Finder::new(b"\"type\":\"response."),
        }
    }

    /// A turn begins.
    pub fn begin(&mut self) {
        self.end = End::NotYet;
        self.first_token_ns = None;
        self.text.clear();
        self.call_id.clear();
    }

    /// One event's data, read from the socket at `now_ns`. Both spellings of JSON that servers use are known.
    pub fn event(&mut self, data: &[u8], now_ns: u64) {
        if data == b"[DONE]" {
            if self.end == End::NotYet {
                self.end = End::Completed { at_ns: now_ns };
            }
            return;
        }
        let Some(kind) = self.kind(data) else { return self.chat(data, now_ns) };
        if kind.ends_with(b".delta") {
            self.tokens(data, now_ns);
        } else if kind == b"completed" {
            self.end = End::Completed { at_ns: now_ns };
            if let Ok(completed) = serde_json::from_slice::<Completed<'_>>(data) {
                completed.response.id.clone_into(&mut self.response_id);
            }
        } else if kind == b"output_item.done" {
            if let Ok(done) = serde_json::from_slice::<ItemDone<'_>>(data) {
                done.item.call_id.unwrap_or_default().clone_into(&mut self.call_id);
            }
        } else if matches!(kind, b"failed" | b"incomplete") {
            self.end = End::Failed;
        }
    }

    /// The name behind `response.`, of a Responses event.
    fn kind<'a>(&self, data: &'a [u8]) -> Option<&'a [u8]> {
        let spaced = b"\"type\": \"response.";
        let at = match self.response_type.find(data) {
            Some(at) => at + self.response_type.needle().len(),
            None if data.starts_with(b"{\"id\"") => return None,
            None => memchr::memmem::find(data, spaced)? + spaced.len(),
        };
        let rest = data.get(at..)?;
        rest.get(..memchr::memchr(b'"', rest)?)
    }

    fn chat(&mut self, data: &[u8], now_ns: u64) {
        if data.starts_with(b"{\"error\"") || data.starts_with(b"{\"type\":\"error\"") {
            self.end = End::Failed;
        }
        // A call's first chunk alone has an id beside its own: the others are no `Chunk`.
        if self.call_id.is_empty()
            && self.first_token_ns.is_none()
            && memchr::memmem::find(data, b"tool_calls").is_some()
            && let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data)
            && let Some(call) = chunk.choices.first().and_then(|choice| choice.delta.tool_calls.first())
        {
            call.id.clone_into(&mut self.call_id);
        }
        self.tokens(data, now_ns);
    }

    fn tokens(&mut self, data: &[u8], now_ns: u64) {
        for sent_ns in stamps(data) {
            if self.first_token_ns.is_none() {
                self.first_token_ns = Some(now_ns);
                self.text.reserve(STAMP_BYTES);
            }
            self.transits_ns.push(now_ns.saturating_sub(sent_ns));
            self.text.extend(stamp(sent_ns).map(char::from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_count_in_deltas_alone() {
        let mut seen = Seen::new(Clock::start());
        seen.begin();
        seen.event(br#"{"type":"response.output_text.delta","delta":"~0000000000100"}"#, 150);
        seen.event(br#"{"delta": "~0000000000200", "type": "response.output_text.delta"}"#, 300);
        seen.event(br#"{"type":"response.output_text.done","text":"~0000000000100~0000000000200"}"#, 400);
        assert_eq!((seen.transits_ns.as_slice(), seen.first_token_ns), ([50, 100].as_slice(), Some(150)));
        assert_eq!((seen.text.as_str(), seen.end), ("~0000000000100~0000000000200", End::NotYet));
        seen.event(br#"{"type":"response.completed","response":{"object":"response","id":"resp_1","output":[]}}"#, 500);
        assert_eq!((seen.response_id.as_str(), seen.end), ("resp_1", End::Completed { at_ns: 500 }));
    }

    #[test]
    fn a_call_is_known_by_its_id_and_its_arguments_are_tokens() {
        let mut seen = Seen::new(Clock::start());
        let calls = [
            [
                r#"{"type":"response.function_call_arguments.delta","delta":"~0000000000100"}"#,
                r#"{"type":"response.output_item.done","item":{"type":"function_call","call_id":"call_1"}}"#,
            ],
            [
                r#"{"id":"c","choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_1","function":{"name":"shell"}}]}}]}"#,
                r#"{"id":"c","choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"~0000000000100"}}]}}]}"#,
            ],
        ];
        for events in calls {
            seen.begin();
            for event in events {
                seen.event(event.as_bytes(), 150);
            }
            assert_eq!((seen.call_id.as_str(), seen.text.as_str()), ("call_1", "~0000000000100"), "{events:?}");
        }
        seen.begin();
        seen.event(br#"{"type":"response.output_item.done","item":{"type":"message","id":"m"}}"#, 150);
        assert_eq!(seen.call_id, "");
    }

    #[test]
    fn chat_chunks_are_read_and_failures_are_seen() {
        let mut seen = Seen::new(Clock::start());
        seen.begin();
        seen.event(br#"{"id":"c","choices":[{"delta":{"content":"~0000000000100~0000000000100"}}]}"#, 150);
        seen.event(b"[DONE]", 200);
        assert_eq!((seen.transits_ns.len(), seen.end), (2, End::Completed { at_ns: 200 }));
        for failure in [r#"{"error":{}}"#, r#"{"type":"error","status":500}"#, r#"{"type":"response.failed"}"#] {
            seen.begin();
            seen.event(failure.as_bytes(), 1);
            assert_eq!(seen.end, End::Failed, "{failure}");
        }
    }
}
