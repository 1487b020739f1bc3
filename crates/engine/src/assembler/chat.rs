//! Chunks become Chat Completions chunks under our own id and the client's model name, or one completion.

mod again;

use crate::error::Refusal;
use crate::ids::TurnHex;
use crate::outgoing::Outgoing;
use crate::time::Now;
use again::Again;
use bytes::Bytes;
use flashlane_wire::chat::{Choice, Chunk, DeltaKind, FinishReason, ToolCallDelta, Usage};
use flashlane_wire::json;
use std::collections::BTreeMap;

/// One completion in the making.
#[derive(Debug)]
pub struct ChatAssembler {
    id: String,
    /// `{"id":..,"object":..,"created":..,"model":..`, for chunks and for the whole.
    chunk_head: Vec<u8>,
    whole_head: Vec<u8>,
    service_tier: &'static str,
    include_usage: bool,
    usage: Option<Usage>,
    /// What engines before the one that answers now cost.
    spent: Usage,
    /// What a collecting client gets at the end, or another engine is to go on with. Otherwise a streaming client only needs to know that it finished.
    choices: BTreeMap<u32, Collected>,
    roles: Choices,
    seen: Choices,
    finished: Choices,
    /// What a streaming client gets is collected, too.
    is_kept: bool,
    /// Another engine goes on with it.
    again: Option<Box<Again>>,
}

/// A set of choices, by index; `n` is at most 128.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Choices(u128);

impl Choices {
    /// Adds one; `true` if it is new.
    fn add(&mut self, index: u32) -> bool {
        let before = self.0;
        self.0 |= 1u128.checked_shl(index).unwrap_or(0);
        self.0 != before
    }
}

/// One choice, collected. Texts are raw.
#[derive(Debug, Default)]
struct Collected {
    content: Option<Vec<u8>>,
    reasoning: Vec<u8>,
    refusal: Vec<u8>,
    /// By their index, and, where an engine gives every call the same, by their coming.
    calls: BTreeMap<(u32, u32), Call>,
    /// The inside of `logprobs.content`.
    logprobs: Vec<u8>,
    finish: Option<FinishReason>,
}

#[derive(Debug, Default)]
struct Call {
    id: String,
    name: String,
    arguments: Vec<u8>,
}

impl ChatAssembler {
    #[must_use]
    pub fn new(hex: &TurnHex, model: &str, include_usage: bool, now: Now) -> Self {
        let head = |object: &str| {
            let mut out = b"{\"id\":".to_vec();
            json::push_string(&mut out, &hex.completion_id());
            out.extend_from_slice(b",\"object\":");
            json::push_string(&mut out, object);
            out.extend_from_slice(b",\"created\":");
            json::push_u64(&mut out, now.unix_s());
            out.extend_from_slice(b",\"model\":");
            json::push_string(&mut out, model);
            out
        };
        Self {
            id: hex.completion_id(),
            chunk_head: head("chat.completion.chunk"),
            whole_head: head("chat.completion"),
            service_tier: "default",
            include_usage,
            usage: None,
            spent: Usage::default(),
            choices: BTreeMap::new(),
            roles: Choices::default(),
            seen: Choices::default(),
            finished: Choices::default(),
            is_kept: false,
            again: None,
        }
    }

    /// Another engine may have to go on with it.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn serve_from(&mut self, service_tier: &'static str) {
        self.service_tier = service_tier;
    }

    /// Whether nothing of an answer has come yet: another upstream may still give it.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.seen == Choices::default()
    }

    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.finished != Choices::default() && self.finished == self.seen
    }

    /// For an upstream that counts nothing.
    pub fn set_usage(&mut self, usage: Usage) {
        self.usage = Some(usage);
    }

    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// What all engines cost, so far as that is known.
    #[must_use]
    pub fn usage_of_all(&self) -> Option<Usage> {
        let spent = (self.spent != Usage::default()).then_some(self.spent);
        self.usage.map(|usage| usage.and(self.spent)).or(spent)
    }

    /// Takes plain text of the stream.
    ///
    /// hot: per token
    pub fn text(&mut self, kind: DeltaKind, raw: &[u8], out: &mut Outgoing) {
        self.seen.add(0);
        if self.is_kept && self.hold_back(kind, raw, out) {
            return;
        }
        if out.is_collecting() {
            self.choices.entry(0).or_default().text(kind).extend_from_slice(raw);
            return;
        }
        let include_usage = self.include_usage;
        let role: &[u8] = if self.roles.add(0) { ROLE } else { b"" };
        out.event("", |out| {
            out.extend_from_slice(&self.chunk_head);
            out.extend_from_slice(b",\"choices\":[{\"index\":0,\"delta\":{");
            out.extend_from_slice(role);
            match kind {
                DeltaKind::Content => out.extend_from_slice(b"\"content\":\""),
                DeltaKind::Reasoning => out.extend_from_slice(b"\"reasoning_content\":\""),
                DeltaKind::Arguments(index) => {
                    out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
                    json::push_u64(out, u64::from(index));
                    out.extend_from_slice(b",\"function\":{\"arguments\":\"");
                }
            }
            out.extend_from_slice(raw);
            out.extend_from_slice(match kind {
                DeltaKind::Content | DeltaKind::Reasoning => b"\"},\"logprobs\":null,\"finish_reason\":null}]",
                DeltaKind::Arguments(_) => b"\"}}]},\"logprobs\":null,\"finish_reason\":null}]",
            });
            push_end(out, include_usage);
        });
    }

    /// Takes a chunk that is more than plain text; its choices go on as they came.
    ///
    /// # Errors
    /// Another engine goes on with it, and makes other calls.
    pub fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut Outgoing) -> Result<(), Refusal> {
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage);
        }
        for choice in &chunk.choices {
            self.seen.add(choice.index);
            if choice.finish_reason.is_some() {
                self.finished.add(choice.index);
            }
        }
        if out.is_collecting() {
            for choice in &chunk.choices {
                self.choices.entry(choice.index).or_default().choice(choice);
            }
            return Ok(());
        }
        if self.again.is_some() {
            return self.go_on(chunk, out);
        }
        if self.is_kept {
            for choice in &chunk.choices {
                self.choices.entry(choice.index).or_default().choice(choice);
            }
        }
        let (Some(choices), false) = (chunk.choices_raw, chunk.choices.is_empty()) else { return Ok(()) };
        for choice in &chunk.choices {
            if self.roles.add(choice.index) && !choice.has_role {
                self.send_role(choice.index, out);
            }
        }
        let mut line = Vec::with_capacity(choices.len());
        json::push_compact(&mut line, choices);
        // One name for it in every chunk of ours. A quote inside of a string has a backslash before it, so this finds keys alone.
        let line = String::from_utf8(line).unwrap_or_default().replace("\"reasoning\":", "\"reasoning_content\":");
        let include_usage = self.include_usage;
        out.event("", |out| {
            out.extend_from_slice(&self.chunk_head);
            out.extend_from_slice(b",\"choices\":");
            json::push_raw_mended(out, &line);
            push_end(out, include_usage);
        });
        Ok(())
    }

    /// A chunk that says no more than who speaks.
    fn send_role(&self, index: u32, out: &mut Outgoing) {
        let include_usage = self.include_usage;
        out.event("", |out| {
            out.extend_from_slice(&self.chunk_head);
            out.extend_from_slice(b",\"choices\":[{\"index\":");
            json::push_u64(out, u64::from(index));
            out.extend_from_slice(
                b",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]",
            );
            push_end(out, include_usage);
        });
    }

    /// Ends the stream; a client that asked for it gets the usage in a chunk of its own.
    pub fn conclude(&self, out: &mut Outgoing) {
        if self.include_usage {
            out.event("", |out| {
                out.extend_from_slice(&self.chunk_head);
                out.extend_from_slice(b",\"choices\":[],\"usage\":");
                push_usage(out, self.usage_of_all().unwrap_or_default());
                out.push(b'}');
            });
        }
        out.end();
    }

    /// The whole completion, for a client that does not stream.
    #[must_use]
    pub fn object(&self) -> Bytes {
        let mut out = self.whole_head.clone();
        out.extend_from_slice(b",\"choices\":[");
        for (position, (&index, choice)) in self.choices.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            choice.push(&mut out, index);
        }
        out.extend_from_slice(b"],\"usage\":");
        push_usage(&mut out, self.usage_of_all().unwrap_or_default());
        out.extend_from_slice(b",\"service_tier\":");
        json::push_string(&mut out, self.service_tier);
        out.push(b'}');
        Bytes::from(out)
    }
}

/// What the first delta of a choice begins with.
const ROLE: &[u8] = b"\"role\":\"assistant\",";

/// With usage asked for, every chunk says that its own is not yet known.
fn push_end(out: &mut Vec<u8>, include_usage: bool) {
    out.extend_from_slice(if include_usage { b",\"usage\":null}" } else { b"}" });
}

impl Collected {
    /// The text that a delta of this kind adds to.
    fn text(&mut self, kind: DeltaKind) -> &mut Vec<u8> {
        match kind {
            DeltaKind::Content => self.content.get_or_insert_default(),
            DeltaKind::Reasoning => &mut self.reasoning,
            DeltaKind::Arguments(index) => &mut self.call(index, None).arguments,
        }
    }

    /// The call that a delta adds to: the last one with this index, or a new one if the delta has another id.
    fn call(&mut self, index: u32, id: Option<&str>) -> &mut Call {
        let last = self.calls.range((index, 0)..=(index, u32::MAX)).next_back();
        let ordinal = match last {
            Some(((_, ordinal), call)) if id.is_some_and(|id| !call.id.is_empty() && id != call.id) => ordinal + 1,
            Some(((_, ordinal), _)) => *ordinal,
            None => 0,
        };
        self.calls.entry((index, ordinal)).or_default()
    }

    fn choice(&mut self, choice: &Choice<'_>) {
        self.parts(choice);
        choice.tool_calls.iter().for_each(|delta| self.call_delta(delta));
    }

    fn call_delta(&mut self, delta: &ToolCallDelta<'_>) {
        let call = self.call(delta.index, delta.id.as_deref());
        if let Some(id) = &delta.id {
            call.id = id.to_string();
        }
        if let Some(name) = &delta.name {
            call.name = name.to_string();
        }
        json::push_raw_mended(&mut call.arguments, delta.arguments);
    }

    /// All but its calls.
    fn parts(&mut self, choice: &Choice<'_>) {
        if !choice.content.is_empty() {
            json::push_raw_mended(self.text(DeltaKind::Content), choice.content);
        }
        json::push_raw_mended(&mut self.reasoning, choice.reasoning);
        json::push_raw_mended(&mut self.refusal, choice.refusal);
        if let Some(logprobs) = choice.logprobs {
            self.collect_logprobs(logprobs);
        }
        if choice.finish_reason.is_some() {
            self.finish = choice.finish_reason;
        }
    }

    fn collect_logprobs(&mut self, raw: &str) {
        #[derive(serde::Deserialize)]
        struct Logprobs<'a> {
            #[serde(borrow)]
            content: Option<&'a serde_json::value::RawValue>,
        }
        let Ok(Logprobs { content: Some(content) }) = serde_json::from_str(raw) else { return };
        let inside = content.get().trim().trim_start_matches('[').trim_end_matches(']').trim();
        if !inside.is_empty() {
            if !self.logprobs.is_empty() {
                self.logprobs.push(b',');
            }
            self.logprobs.extend_from_slice(inside.as_bytes());
        }
    }

    fn push(&self, out: &mut Vec<u8>, index: u32) {
        out.extend_from_slice(b"{\"index\":");
        json::push_u64(out, u64::from(index));
        out.extend_from_slice(b",\"message\":{\"role\":\"assistant\",\"content\":");
        push_quoted_or_null(out, self.content.as_deref());
        out.extend_from_slice(b",\"refusal\":");
        push_quoted_or_null(out, Some(&*self.refusal).filter(|text| !text.is_empty()));
        if !self.reasoning.is_empty() {
            out.extend_from_slice(b",\"reasoning_content\":");
            push_quoted_or_null(out, Some(&self.reasoning));
        }
        if !self.calls.is_empty() {
            out.extend_from_slice(b",\"tool_calls\":[");
            for (position, call) in self.calls.values().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                call.push(out);
            }
            out.push(b']');
        }
        out.extend_from_slice(b"},\"logprobs\":");
        match self.logprobs.is_empty() {
            true => out.extend_from_slice(b"null"),
            false => {
                out.extend_from_slice(b"{\"content\":[");
                out.extend_from_slice(&self.logprobs);
                out.extend_from_slice(b"],\"refusal\":null}");
            }
        }
        out.extend_from_slice(b",\"finish_reason\":");
        json::push_optional_string(out, self.finish.map(FinishReason::name));
        out.push(b'}');
    }
}

impl Call {
    fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        json::push_string(out, &self.id);
        out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
        json::push_string(out, &self.name);
        out.extend_from_slice(b",\"arguments\":");
        push_quoted_or_null(out, Some(&self.arguments));
        out.extend_from_slice(b"}}");
    }
}

fn push_quoted_or_null(out: &mut Vec<u8>, raw: Option<&[u8]>) {
    match raw {
        Some(raw) => {
            out.push(b'"');
            out.extend_from_slice(raw);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// Usage as Chat Completions tells it.
fn push_usage(out: &mut Vec<u8>, usage: Usage) {
    let fields: [(&[u8], u64); 5] = [
        (b"{\"prompt_tokens\":", usage.input),
        (b",\"completion_tokens\":", usage.output),
        (b",\"total_tokens\":", usage.input + usage.output),
        (b",\"prompt_tokens_details\":{\"audio_tokens\":0,\"cached_tokens\":", usage.cached),
        (
            b"},\"completion_tokens_details\":{\"accepted_prediction_tokens\":0,\"audio_tokens\":0,\"rejected_prediction_tokens\":0,\"reasoning_tokens\":",
            usage.reasoning,
        ),
    ];
    for (name, count) in fields {
        out.extend_from_slice(name);
        json::push_u64(out, count);
    }
    out.extend_from_slice(b"}}");
}
