//! The timetable of one answer: which bytes are due when. Knows nothing of sockets or clocks; its caller says the time.

use serde_json::{Map, Value, json};

use crate::answers::Answers;
use crate::frame::{self, Frame, Shape};
use crate::profile::Profile;
use crate::reply::{self, Call, Reply};
use crate::request::{Rejection, Request};
use crate::rng::Rng;
use crate::tokens;

/// Tokens of the longest answer, whatever the request allows.
const TOKENS_MAX: u64 = 100_000;
/// One chunk in so many has several tokens, where the profile has such chunks.
const CHUNKS_PER_BURST: u64 = 4;

/// What a script has at one moment.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// All that is due by now, every SSE event whole: write it in one go, then poll again.
    Bytes(&'a [u8]),
    /// Nothing is due before this many nanoseconds since the request.
    Wait(u64),
    /// All has been said.
    End,
}

/// One answer being played. Dropping it ends it.
pub struct Script {
    profile: Profile,
    prompt_tokens: u64,
    streams: bool,
    frame: Frame,
    /// The pieces' texts, one after the other, as escaped JSON.
    text: Vec<u8>,
    pieces: Vec<Piece>,
    next_piece: usize,
    next_byte: usize,
    out: Vec<u8>,
}

/// One event of the stream, or the whole body of an answer that does not stream.
struct Piece {
    shape: Shape,
    /// Where its text ends.
    end: usize,
    /// The index of its last token.
    token: u64,
}

impl Script {
    /// Reads the body of a Chat Completions request and lays out the answer. `seed` varies texts and chunk sizes,
    /// `unix_s` is the `created` of the answer.
    ///
    /// # Errors
    /// A request that an engine would refuse: the status and the JSON body to refuse it with.
    pub fn new(request_body: &[u8], profile: Profile, seed: u64, unix_s: u64) -> Result<Script, Rejection> {
        Script::with_answers(request_body, profile, seed, unix_s, &Answers::default())
    }

    /// The same, with answers that go before what the words of the request ask for.
    ///
    /// # Errors
    /// As [`Script::new`].
    pub fn with_answers(
        request_body: &[u8],
        profile: Profile,
        seed: u64,
        unix_s: u64,
        answers: &Answers,
    ) -> Result<Script, Rejection> {
        let request = Request::parse(request_body)?;
        let mut rng = Rng::new(seed);
        let reply = match answers.reply(&request) {
            Some(reply) => reply,
            None => reply::reply(&request, &mut rng)?,
        };
        let id = format!("chatcmpl-{:016x}{:016x}", Rng::new(seed ^ unix_s.rotate_left(32)).draw(), rng.draw());
        let answer = Answer::cut(reply, &request, id, unix_s);
        let frame = Frame::new(&answer.id, unix_s, &request.model, request.include_usage);
        let mut script = Script {
            profile,
            prompt_tokens: request.prompt_tokens,
            streams: request.stream,
            frame,
            text: Vec::new(),
            pieces: Vec::new(),
            next_piece: 0,
            next_byte: 0,
            out: Vec::new(),
        };
        if request.stream {
            script.lay_out_stream(&answer, &request, &mut rng);
        } else {
            script.push(Shape::Events, answer.completion(&request).as_bytes(), answer.tokens());
        }
        Ok(script)
    }

    /// Whether the answer is a stream of server-sent events (`text/event-stream`), or else one JSON document.
    pub fn streams(&self) -> bool {
        self.streams
    }

    /// Whether all has been handed over: the next step is [`Step::End`], at any time.
    pub fn is_over(&self) -> bool {
        self.next_piece == self.pieces.len()
    }

    /// What is due `elapsed_ns` nanoseconds after the request.
    // hot: per token
    pub fn poll(&mut self, elapsed_ns: u64) -> Step<'_> {
        self.out.clear();
        while let Some(piece) = self.pieces.get(self.next_piece) {
            let due_ns = self.profile.due_ns(self.prompt_tokens, piece.token);
            if due_ns > elapsed_ns {
                if self.out.is_empty() {
                    return Step::Wait(due_ns);
                }
                break;
            }
            let text = self.text.get(self.next_byte..piece.end).unwrap_or_default();
            self.frame.write(piece.shape, text, &mut self.out);
            self.next_byte = piece.end;
            self.next_piece += 1;
        }
        if self.out.is_empty() { Step::End } else { Step::Bytes(&self.out) }
    }

    fn lay_out_stream(&mut self, answer: &Answer, request: &Request<'_>, rng: &mut Rng) {
        self.push(Shape::Delta, br#""role":"assistant","content":"""#, 1);
        let mut sent = 0;
        sent = self.push_tokens(Shape::Reasoning, &answer.reply.reasoning, sent, rng);
        sent = self.push_tokens(Shape::Content, &answer.reply.text, sent, rng);
        if let Some(call) = &answer.reply.call {
            sent += 1;
            self.push(Shape::Delta, frame::call_opening(&answer.call_id, &call.name).as_bytes(), sent);
            sent = self.push_tokens(Shape::Arguments, &call.arguments, sent, rng);
        }
        let usage = request.include_usage.then(|| answer.usage(request));
        let last = frame::last_events(&answer.id, answer.unix_s, &request.model, answer.finish(), usage.as_ref());
        self.push(Shape::Events, last.as_bytes(), sent);
    }

    /// Lays out a text in chunks after `sent` tokens; how many tokens are sent then.
    fn push_tokens(&mut self, shape: Shape, text: &str, sent: u64, rng: &mut Rng) -> u64 {
        let mut tokens = tokens::split(text).peekable();
        let mut sent = sent;
        while tokens.peek().is_some() {
            let chunk = self.chunk_tokens(sent, rng);
            for token in tokens.by_ref().take(chunk) {
                frame::escape(token, &mut self.text);
                sent += 1;
            }
            self.push(shape, &[], sent);
        }
        sent
    }

    /// How many tokens the chunk after `sent` tokens has: the first has one, so that it comes as soon as it may.
    fn chunk_tokens(&self, sent: u64, rng: &mut Rng) -> usize {
        let max = u64::from(self.profile.tokens_per_chunk_max);
        if max < 2 || sent == 0 || rng.below(CHUNKS_PER_BURST) != 0 {
            return 1;
        }
        (2 + rng.below(max - 1)) as usize
    }

    /// Ends a piece after `escaped`, due with the last of `sent` tokens.
    fn push(&mut self, shape: Shape, escaped: &[u8], sent: u64) {
        self.text.extend_from_slice(escaped);
        self.pieces.push(Piece { shape, end: self.text.len(), token: sent.saturating_sub(1) });
    }
}

/// A reply within its limits, and what is said about it.
struct Answer {
    id: String,
    call_id: String,
    unix_s: u64,
    reply: Reply,
    is_cut: bool,
    reasoning_tokens: u64,
    other_tokens: u64,
}

impl Answer {
    /// Ends the reply at the first stop sequence and at the token limit.
    fn cut(reply: Reply, request: &Request<'_>, id: String, unix_s: u64) -> Answer {
        let Reply { mut reasoning, mut text, mut call } = reply;
        if let Some(at) = request.stops.iter().filter_map(|stop| text.find(stop)).min() {
            text.truncate(at);
        }
        let whole = reasoning.len() + text.len() + call.as_ref().map_or(0, |call| call.arguments.len());
        let mut left = request.tokens_max.unwrap_or(TOKENS_MAX).min(TOKENS_MAX);
        let reasoning_tokens = keep(&mut reasoning, &mut left);
        let mut other_tokens = keep(&mut text, &mut left);
        call = call.filter(|_| left > 0);
        if let Some(Call { arguments, .. }) = &mut call {
            left -= 1;
            other_tokens += 1 + keep(arguments, &mut left);
        }
        let kept = reasoning.len() + text.len() + call.as_ref().map_or(0, |call| call.arguments.len());
        Answer {
            call_id: (call.as_ref().and_then(|call| call.id.clone()))
                .unwrap_or_else(|| id.replacen("chatcmpl-", "call_", 1)),
            id,
            unix_s,
            is_cut: kept < whole,
            reasoning_tokens,
            other_tokens,
            reply: Reply { reasoning, text, call },
        }
    }

    fn tokens(&self) -> u64 {
        self.reasoning_tokens + self.other_tokens
    }

    fn finish(&self) -> &'static str {
        match self.reply.call {
            _ if self.is_cut => "length",
            Some(_) => "tool_calls",
            None => "stop",
        }
    }

    fn usage(&self, request: &Request<'_>) -> Value {
        json!({
            "prompt_tokens": request.prompt_tokens,
            "completion_tokens": self.tokens(),
            "total_tokens": request.prompt_tokens + self.tokens(),
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        })
    }

    fn completion(&self, request: &Request<'_>) -> String {
        let content =
            if self.reply.call.is_some() && self.reply.text.is_empty() { Value::Null } else { json!(self.reply.text) };
        let mut message = Map::new();
        message.insert("role".to_owned(), json!("assistant"));
        message.insert("content".to_owned(), content);
        message.insert("refusal".to_owned(), Value::Null);
        if !self.reply.reasoning.is_empty() {
            message.insert("reasoning_content".to_owned(), json!(self.reply.reasoning));
        }
        if let Some(Call { name, arguments, .. }) = &self.reply.call {
            let function = json!({"name": name, "arguments": arguments});
            let call = json!({"id": self.call_id, "type": "function", "function": function});
            message.insert("tool_calls".to_owned(), json!([call]));
        }
        let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": self.finish()});
        frame::completion(&self.id, self.unix_s, &request.model, &choice, &self.usage(request))
    }
}

/// Cuts a text to `left` tokens, takes them from `left`, and says how many they are.
fn keep(text: &mut String, left: &mut u64) -> u64 {
    let (kept, count) = tokens::prefix(text, *left);
    let bytes = kept.len();
    text.truncate(bytes);
    *left -= count;
    count
}
