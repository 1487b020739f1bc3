//! Counting with OpenAI's o200k, which gpt-oss reads too. Loading it takes ~0.1 s and ~70 MB, and a megabyte takes ~60 ms:
//! the session only says what is to be counted; a driver does it where nobody waits.

use crate::tokens::Bounds;
use crate::tokens::text::{self, Piece};
use bpe_openai::Tokenizer;
use bytes::Bytes;
use std::fmt;
use std::sync::OnceLock;

/// Tokens that a chat template puts around a message or a call: its start, its role, its end.
const FRAME_TOKENS: u64 = 4;

/// A text that a model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// Rendered chat messages, comma by comma. Images and files in them are not counted: what they cost, the engine knows.
    Messages(Bytes),
    /// Anything else, counted as it stands: the array of tools.
    Plain(Bytes),
}

impl Text {
    #[must_use]
    pub fn bytes(&self) -> usize {
        let (Self::Messages(bytes) | Self::Plain(bytes)) = self;
        bytes.len()
    }

    #[must_use]
    pub fn bounds(&self) -> Bounds {
        match self {
            Self::Messages(bytes) => Bounds::of_messages(bytes.len()),
            Self::Plain(bytes) => Bounds::of_plain(bytes.len()),
        }
    }
}

/// A text's count beside the text, once it is known: immutable pieces stay shared, and each is counted once.
#[derive(Debug, Clone, Default)]
pub struct Tally(OnceLock<u32>);

impl Tally {
    #[must_use]
    pub fn known(&self) -> Option<u32> {
        self.0.get().copied()
    }

    /// A text has one count: the first word holds.
    pub fn set(&self, tokens: u32) {
        let _ = self.0.set(tokens);
    }

    /// Of texts merged: known if both are.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let sum = self.known().zip(other.known()).map(|(one, two)| one.saturating_add(two));
        Self(sum.map(OnceLock::from).unwrap_or_default())
    }

    /// What is known of the text.
    #[must_use]
    pub fn bounds(&self, text: &Text) -> Bounds {
        self.known().map_or_else(|| text.bounds(), |tokens| Bounds::exact(tokens.into()))
    }
}

/// Texts to count. An effect of the session; the answer goes back to it as [`Counted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub texts: Vec<Text>,
    /// Counting stops beyond so many tokens in all.
    pub tokens_max: u64,
}

impl Job {
    /// What there is to read: a driver may count little at once, and sends much elsewhere.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.texts.iter().map(Text::bytes).sum()
    }
}

/// What a [`Job`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// The tokens of each text, in the job's order.
    All(Vec<u32>),
    /// The texts have more tokens than the job's `tokens_max`.
    Beyond,
}

/// The loaded tokenizer; a pointer.
#[derive(Clone, Copy)]
pub struct Counter(&'static Tokenizer);

impl Counter {
    /// Loads the tokenizer, unless the process has it already. Blocks for ~0.1 s: not for a thread that sockets wait for.
    #[must_use]
    pub fn load() -> Self {
        Self(bpe_openai::o200k_base())
    }

    #[must_use]
    pub fn count(self, job: &Job) -> Counted {
        let mut room = job.tokens_max;
        let mut counts = Vec::with_capacity(job.texts.len());
        for text in &job.texts {
            let Some(tokens) = self.tokens(text, room) else { return Counted::Beyond };
            room -= tokens;
            counts.push(u32::try_from(tokens).unwrap_or(u32::MAX));
        }
        Counted::All(counts)
    }

    /// The tokens of plain text.
    #[must_use]
    pub fn plain(self, text: &str) -> u64 {
        self.0.count(text) as u64
    }

    /// The text's tokens, if there are no more than `tokens_max`.
    fn tokens(self, text: &Text, tokens_max: u64) -> Option<u64> {
        let mut sum = 0;
        match text {
            Text::Plain(bytes) => self.add(&mut sum, &String::from_utf8_lossy(bytes), tokens_max),
            Text::Messages(bytes) => {
                let mut buffer = String::new();
                text::pieces(&String::from_utf8_lossy(bytes), |piece| {
                    match piece {
                        Piece::Frame => sum += FRAME_TOKENS,
                        Piece::Text(raw) => self.add(&mut sum, text::unescaped(raw, &mut buffer), tokens_max),
                    }
                    sum <= tokens_max
                });
            }
        }
        (sum <= tokens_max).then_some(sum)
    }

    /// Adds the text's tokens; beyond the limit some number above it.
    fn add(self, sum: &mut u64, text: &str, tokens_max: u64) {
        let room = usize::try_from(tokens_max.saturating_sub(*sum)).unwrap_or(usize::MAX);
        let counted = self.0.count_till_limit(&self.0.normalize(text), room);
        *sum = counted.map_or_else(|| tokens_max.saturating_add(1), |tokens| *sum + tokens as u64);
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counter(o200k)")
    }
}
