//! A turn that goes on at another endpoint after its first token: what stands of its answer, and what is told of each splice. Decides nothing;
//! the session does.
//!
//! ```text
//! an endpoint fails: what stands is frozen ──> pending ── another endpoint's first token ──> a splice
//!                                                └── nobody goes on: the turn fails as it would have
//! ```

use crate::fleet::EndpointId;
use flashlane_wire::chat::Field;
use flashlane_wire::json;
use std::sync::Arc;

/// What stands of an answer that another endpoint may go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// All text of the answer so far, raw: what the model is told that it has said.
    pub text: Vec<u8>,
    /// The item that is open, or the next one.
    pub output_index: u32,
    /// UTF-8 bytes of that item that its client has, and that stay its own.
    pub bytes: u64,
    pub part: Part,
}

/// What was being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Text, which is gone on with, or nothing.
    Text,
    /// Text behind thoughts, which no engine can be told of.
    Thought,
    /// A call: it is made anew.
    Call,
}

/// Why a turn left its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its stream broke off, or made no sense.
    Cut,
    /// Nothing more came.
    Silent,
    /// It told of an error in its stream.
    Error,
    /// An operator wants it empty.
    Drained,
}

impl Reason {
    pub const ALL: [Self; 4] = [Self::Cut, Self::Silent, Self::Error, Self::Drained];

    /// The name in events, records and metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Silent => "silent",
            Self::Error => "error",
            Self::Drained => "drained",
        }
    }
}

/// Whether the tokens behind a splice are those that the first endpoint would have given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exactness {
    /// As far as the engines' arithmetic is the same for a prompt that is read as for one that was made.
    Exact,
    /// The temperature is not 0, or penalties count what was made.
    Sampled,
    /// The config does not say that both endpoints have the same weights, template and tokenizer.
    NotIdentical,
    /// Thoughts came before it.
    Thought,
    /// A call was made anew.
    Call,
    /// The text begins or ends in white space, of which the next engine's template may tell its model less.
    Whitespace,
}

impl Exactness {
    /// Why it is not exact.
    #[must_use]
    pub fn why(self) -> Option<&'static str> {
        match self {
            Self::Exact => None,
            Self::Sampled => Some("sampling"),
            Self::NotIdentical => Some("identity"),
            Self::Thought => Some("reasoning"),
            Self::Call => Some("tool_call"),
            Self::Whitespace => Some("whitespace"),
        }
    }

    /// Of an answer that is asked for with these fields and goes on from what is frozen.
    #[must_use]
    pub fn of(frozen: &Frozen, is_identical: bool, fields: &[Field]) -> Self {
        match frozen.part {
            Part::Thought => Self::Thought,
            Part::Call => Self::Call,
            Part::Text if !is_greedy(fields) => Self::Sampled,
            Part::Text if !is_identical => Self::NotIdentical,
            Part::Text if is_padded(&frozen.text) => Self::Whitespace,
            Part::Text => Self::Exact,
        }
    }
}

/// Templates may trim what a message says, and an engine then makes again what it was not told of.
fn is_padded(raw: &[u8]) -> bool {
    let text = std::str::from_utf8(raw).ok().and_then(json::unescape);
    text.is_none_or(|text| text.trim().len() < text.len())
}

/// What an engine makes of a text depends on the text alone.
fn is_greedy(fields: &[Field]) -> bool {
    let number = |field: &Field| std::str::from_utf8(&field.value).ok()?.parse::<f64>().ok();
    let is_zero = |field: &Field| number(field).is_some_and(|number| number == 0.0);
    let is_penalty = |field: &&Field| matches!(&*field.name, "presence_penalty" | "frequency_penalty");
    fields.iter().any(|field| field.name == "temperature" && is_zero(field))
        && fields.iter().filter(is_penalty).all(is_zero)
}

/// A place in an answer where another endpoint went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    pub from: Arc<str>,
    /// None: nobody went on.
    pub to: Option<Arc<str>>,
    pub reason: Reason,
    pub output_index: u32,
    /// UTF-8 bytes of that item that stood.
    pub bytes: u64,
    pub exactness: Exactness,
}

/// Splices as a client is told of them: an array.
pub fn push(out: &mut Vec<u8>, splices: &[Splice]) {
    let mut before = b'[';
    for splice in splices {
        out.push(before);
        out.extend_from_slice(b"{\"reason\":");
        json::push_string(out, splice.reason.name());
        out.extend_from_slice(b",\"from\":");
        json::push_string(out, &splice.from);
        out.extend_from_slice(b",\"to\":");
        json::push_optional_string(out, splice.to.as_deref());
        for (name, number) in
            [(b",\"output_index\":".as_slice(), u64::from(splice.output_index)), (b",\"bytes\":", splice.bytes)]
        {
            out.extend_from_slice(name);
            json::push_u64(out, number);
        }
        out.extend_from_slice(match splice.exactness.why() {
            None => b",\"exact\":true,\"why\":",
            Some(_) => b",\"exact\":false,\"why\":",
        });
        json::push_optional_string(out, splice.exactness.why());
        out.push(b'}');
        before = b',';
    }
    out.push(b']');
}

/// What a turn knows of its splices.
#[derive(Debug, Default)]
pub struct Migration {
    /// At most as many as its model allows.
    pub splices: Vec<Splice>,
    /// Frozen, and nobody has gone on with it yet.
    pub pending: Option<Pending>,
    /// Deltas of the endpoints before.
    pub deltas: u64,
    /// First token of the endpoint that goes on.
    pub first_token_ns: Option<u64>,
    /// It has asked for another place, and has its own meanwhile.
    pub is_asking: bool,
}

/// See [`Migration::pending`].
#[derive(Debug)]
pub struct Pending {
    pub frozen: Frozen,
    pub left: EndpointId,
    pub splice: Splice,
}

impl Migration {
    /// The endpoint that was asked goes on.
    pub fn begin(&mut self, to: Option<Arc<str>>, now_ns: u64) {
        self.first_token_ns = Some(now_ns);
        if let Some(Pending { splice, .. }) = self.pending.take() {
            self.splices.push(Splice { to, ..splice });
        }
    }

    /// All of them, and the one that came to nothing.
    pub fn told(&self) -> Vec<Splice> {
        let pending = self.pending.iter().map(|pending| Splice { to: None, ..pending.splice.clone() });
        self.splices.iter().cloned().chain(pending).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_greedy_text_between_equal_endpoints_is_exact() {
        let greedy = [Field::new("temperature", "0"), Field::new("presence_penalty", "0.0")];
        let frozen = |part, text: &str| Frozen { text: text.into(), output_index: 0, bytes: 0, part };
        let of = |part, is_identical, fields: &[Field]| Exactness::of(&frozen(part, "a b"), is_identical, fields);
        assert_eq!(of(Part::Text, true, &greedy), Exactness::Exact);
        assert_eq!(of(Part::Text, false, &greedy), Exactness::NotIdentical);
        for sampled in
            [&[][..], &[Field::new("temperature", "0.1")], &[greedy[0].clone(), Field::new("frequency_penalty", "1")]]
        {
            assert_eq!(of(Part::Text, true, sampled), Exactness::Sampled);
        }
        assert_eq!(of(Part::Thought, true, &greedy), Exactness::Thought);
        assert_eq!(of(Part::Call, true, &greedy), Exactness::Call);
        for padded in [r"a\n", r"a:\n\n", "a ", r"a\t", r"\na", r"a\u00a0"] {
            assert_eq!(Exactness::of(&frozen(Part::Text, padded), true, &greedy), Exactness::Whitespace, "{padded}");
        }
        for plain in ["", r"a\\n", r"a\nb", r"a\u00e9"] {
            assert_eq!(Exactness::of(&frozen(Part::Text, plain), true, &greedy), Exactness::Exact, "{plain}");
        }
    }
}
