//! How many tokens a text has: bounds from its bytes first, the tokenizer where they do not decide, and what an engine's
//! own tokenizer makes of it. Knows no session: it asks for a count by a [`Job`], and whoever drives it counts elsewhere.

mod count;
mod ratio;
mod text;

pub use count::{Counted, Counter, Job, Tally, Text};
pub use ratio::{Ratio, Ratios};

use crate::error::{ErrorKind, Refusal};

/// Bytes of rendered messages a token, for English and code.
const BYTES_PER_TOKEN: u64 = 4;

/// What `bytes` of rendered messages come to, roughly: where nobody has counted and nobody waits for a count.
#[must_use]
pub fn estimate(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(BYTES_PER_TOKEN)
}

/// What is known of a number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    pub least: u64,
    pub most: u64,
}

/// Whether a text of some [`Bounds`] keeps to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Fits,
    Overflows,
    /// The bounds do not decide.
    MustCount,
}

/// Bytes of the longest token of o200k (a run of 128 spaces).
pub const TOKEN_BYTES_MAX: u64 = 128;

impl Bounds {
    /// A count that is known.
    #[must_use]
    pub fn exact(tokens: u64) -> Self {
        Self { least: tokens, most: tokens }
    }

    /// A text of so many bytes that is counted as it stands: a token has from one byte to [`TOKEN_BYTES_MAX`].
    #[must_use]
    pub fn of_plain(bytes: usize) -> Self {
        let bytes = bytes as u64;
        Self { least: bytes.div_ceil(TOKEN_BYTES_MAX), most: bytes }
    }

    /// Rendered messages of so many bytes. Their JSON is longer than their texts and the tokens of their frames together,
    /// and may be nothing but an image: there is no lower bound in it.
    #[must_use]
    pub fn of_messages(bytes: usize) -> Self {
        Self { least: 0, most: bytes as u64 }
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { least: self.least.saturating_add(other.least), most: self.most.saturating_add(other.most) }
    }

    /// `tokens_max` itself still fits.
    #[must_use]
    pub fn decide(self, tokens_max: u64) -> Verdict {
        if self.most <= tokens_max {
            Verdict::Fits
        } else if self.least > tokens_max {
            Verdict::Overflows
        } else {
            Verdict::MustCount
        }
    }
}

/// The refusal of an input that is too long, with both numbers. `tokens` is a lower bound unless it was counted.
#[must_use]
pub fn overflow(model: &str, tokens_max: u64, tokens: Bounds) -> Refusal {
    let about = if tokens.least == tokens.most { "" } else { "at least " };
    let message = format!(
        "The input is too long: it has {about}{} tokens, and the context window of '{model}' is {tokens_max} tokens. \
         Shorten it; `truncation: \"auto\"` of a response leaves its oldest items out.",
        tokens.least
    );
    Refusal::new(ErrorKind::ContextLengthExceeded, message).with_param("input")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_decide_where_bytes_are_enough() {
        assert_eq!(Bounds::of_plain(1000).decide(1000), Verdict::Fits);
        assert_eq!(Bounds::of_plain(1001).decide(1000), Verdict::MustCount);
        assert_eq!(Bounds::of_plain(128_000).decide(1000), Verdict::MustCount);
        assert_eq!(Bounds::of_plain(128_001).decide(1000), Verdict::Overflows);
        assert_eq!(Bounds::of_messages(usize::MAX).decide(1000), Verdict::MustCount);
        assert_eq!(Bounds::of_messages(999).and(Bounds::exact(1)).decide(1000), Verdict::Fits);
        assert_eq!(Bounds::of_messages(5).and(Bounds::exact(1001)).decide(1000), Verdict::Overflows);
        assert_eq!(Bounds::exact(u64::MAX).and(Bounds::exact(1)), Bounds::exact(u64::MAX));
    }

    #[test]
    fn a_counted_sum_is_always_decided() {
        for tokens in 0..2000 {
            let expected = if tokens > 1000 { Verdict::Overflows } else { Verdict::Fits };
            assert_eq!(Bounds::exact(tokens).decide(1000), expected);
        }
    }

    #[test]
    fn a_refusal_says_both_numbers() {
        let refusal = overflow("m", 131_072, Bounds::exact(140_213));
        assert_eq!((refusal.kind, refusal.param.as_deref()), (ErrorKind::ContextLengthExceeded, Some("input")));
        assert!(refusal.message.contains("has 140213 tokens") && refusal.message.contains("is 131072 tokens"));
        assert!(overflow("m", 1, Bounds { least: 2, most: 9 }).message.contains("at least 2 tokens"));
    }
}
