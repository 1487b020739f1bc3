//! The policy hook: a model's guard is asked about what is new in a turn while the turn runs, and its output is held until the guard
//! has spoken. Here are the words that pass between the session and whoever asks the guard, and what is remembered of its yes.
//!
//! Knows no HTTP and no clock. What a guard has passed it is not asked again, wherever the client brings it from.

use crate::error::{ErrorKind, Refusal};
use crate::time::Now;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is remembered at once of things that are not kept by a session, twice: some 3 MiB.
const VETTED_MAX: usize = 32_768;

/// What decides where a guard has given no verdict in time, or cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    /// The turn goes on; a refusal that comes late still ends it.
    Pass,
    #[default]
    Refuse,
}

/// A model's guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The name in logs and metrics.
    pub name: Arc<str>,
    /// Which guard it is, whatever config names it: what another one has passed, it has not. Never 0.
    pub mark: u64,
    /// How long output is held for its verdict, from when it was asked.
    pub deadline_ms: u64,
    pub otherwise: Otherwise,
}

impl Guard {
    /// The mark of what says the same of a guard.
    #[must_use]
    pub fn mark_of(name: &str, url: &str) -> u64 {
        let digest = Sha256::new().chain_update(name).chain_update([0]).chain_update(url).finalize();
        let (first, _) = digest.split_first_chunk().unwrap_or((&[1; 8], &[]));
        u64::from_be_bytes(*first).max(1)
    }
}

/// What a guard is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry {
    /// Its guard's mark.
    pub guard: u64,
    /// A JSON object: docs/PROTOCOL.md, clause 13.
    pub body: Bytes,
}

/// What a guard has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    Pass,
    Refuse {
        because: Policy,
        /// For the client.
        message: Option<String>,
    },
    /// Nothing that could be heeded, and why, in our own words.
    Missing {
        reason: String,
    },
    /// It has had its time.
    Overdue,
}

/// What came of asking a guard about a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    pub guard: Arc<str>,
    pub word: Word,
    pub course: Course,
    /// On the monotonic clock.
    pub asked_ns: u64,
    /// Its word came, or nobody waited for it any more.
    pub ended_ns: Option<u64>,
    /// Why there is no verdict, in our own words.
    pub reason: Option<String>,
}

impl Guarded {
    pub(crate) fn begin(guard: Arc<str>, asked_ns: u64) -> Self {
        Self { guard, word: Word::NotAwaited, course: Course::Ended, asked_ns, ended_ns: None, reason: None }
    }

    /// As it is when its turn ends.
    pub(crate) fn ended(mut self, now: Now) -> Self {
        self.ended_ns.get_or_insert(now.mono_ns);
        self
    }

    /// From the question to the word, or to when nobody waited for it any more.
    #[must_use]
    pub fn took_ns(&self) -> u64 {
        self.ended_ns.map_or(0, |ended_ns| ended_ns.saturating_sub(self.asked_ns))
    }
}

/// What a guard's word was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    Passed,
    Refused,
    /// None came by its deadline. A refusal after it is one all the same.
    TimedOut,
    /// It could not be asked, or said what is no verdict.
    Failed,
    /// The turn had ended before.
    NotAwaited,
}

impl Word {
    pub const ALL: [Self; 5] = [Self::Passed, Self::Refused, Self::TimedOut, Self::Failed, Self::NotAwaited];

    /// The label in metrics, the word in logs and records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Failed => "failed",
            Self::NotAwaited => "not_awaited",
        }
    }

    /// There was none that could be heeded.
    #[must_use]
    pub fn is_missing(self) -> bool {
        match self {
            Self::TimedOut | Self::Failed => true,
            Self::Passed | Self::Refused | Self::NotAwaited => false,
        }
    }
}

/// What became of the turn by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Course {
    WentOn,
    Refused,
    /// It had ended by itself.
    Ended,
}

impl Course {
    pub const ALL: [Self; 3] = [Self::WentOn, Self::Refused, Self::Ended];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WentOn => "went_on",
            Self::Refused => "refused",
            Self::Ended => "ended",
        }
    }
}

impl From<Otherwise> for Course {
    fn from(otherwise: Otherwise) -> Self {
        match otherwise {
            Otherwise::Pass => Self::WentOn,
            Otherwise::Refuse => Self::Refused,
        }
    }
}

/// What a refusal says of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    CyberPolicy,
    InvalidPrompt,
}

impl Policy {
    /// The code that clients are told, and the word in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CyberPolicy => "cyber_policy",
            Self::InvalidPrompt => "invalid_prompt",
        }
    }

    #[must_use]
    pub fn refusal(self, message: Option<String>) -> Refusal {
        let (kind, own) = match self {
            Self::CyberPolicy => {
                (ErrorKind::CyberPolicy, "This request was refused by the server's policy on cyber security.")
            }
            Self::InvalidPrompt => (ErrorKind::InvalidPrompt, "This request was refused by the server's usage policy."),
        };
        Refusal::new(kind, message.unwrap_or_else(|| own.to_owned()))
    }
}

/// What a turn is told where its guard gave no verdict and may not be passed by.
#[must_use]
pub fn no_verdict() -> Refusal {
    let message = "The policy check of this request could not be made, and this model answers nothing without it. Please try again.";
    Refusal::new(ErrorKind::GuardUnavailable, message).with_retry_after_ms(Some(1000))
}

/// Which guard has passed something: beside what is shared, and set once it has.
#[derive(Debug, Default)]
pub struct Passed(AtomicU64);

impl Passed {
    /// By the guard of this mark.
    #[must_use]
    pub fn by(mark: u64) -> Self {
        Self(AtomicU64::new(mark))
    }

    #[must_use]
    pub fn is_by(&self, mark: u64) -> bool {
        self.mark() == mark
    }

    /// 0: by none.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn set(&self, mark: u64) {
        self.0.store(mark, Ordering::Relaxed);
    }
}

impl Clone for Passed {
    fn clone(&self) -> Self {
        Self::by(self.mark())
    }
}

/// What was passed and is in no session's memory: stored responses, and instructions that come with each request. Of all sessions, as
/// digests; the oldest are forgotten, and asked about again.
#[derive(Debug, Default)]
pub struct Vetted(Mutex<Generations>);

type Key = [u8; 16];

#[derive(Debug, Default)]
struct Generations {
    young: BTreeSet<Key>,
    old: BTreeSet<Key>,
}

impl Vetted {
    #[must_use]
    pub fn has(&self, mark: u64, what: &[u8]) -> bool {
        let key = key(mark, what);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.young.contains(&key) {
            return true;
        }
        let is_known = known.old.contains(&key);
        if is_known {
            known.add(key);
        }
        is_known
    }

    pub fn add(&self, mark: u64, what: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(key(mark, what));
    }
}

impl Generations {
    fn add(&mut self, key: Key) {
        if self.young.len() >= VETTED_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key);
    }
}

fn key(mark: u64, what: &[u8]) -> Key {
    let digest = Sha256::new().chain_update(mark.to_be_bytes()).chain_update(what).finalize();
    digest.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_guard_has_passed_another_has_not() {
        let vetted = Vetted::default();
        let (one, other) = (Guard::mark_of("a", "http://one"), Guard::mark_of("a", "http://other"));
        assert_ne!(one, other);
        vetted.add(one, b"resp_1");
        assert!(vetted.has(one, b"resp_1"));
        assert!(!vetted.has(other, b"resp_1") && !vetted.has(one, b"resp_2"));
    }

    #[test]
    fn what_is_asked_for_again_outlives_what_is_not() {
        let vetted = Vetted::default();
        vetted.add(1, b"kept");
        vetted.add(1, b"forgotten");
        for round in 0..3u32 {
            for n in 0..VETTED_MAX - 8 {
                vetted.add(1, format!("{round} {n}").as_bytes());
            }
            assert!(vetted.has(1, b"kept"), "round {round}");
        }
        assert!(!vetted.has(1, b"forgotten"));
        let held = vetted.0.lock().unwrap();
        assert!(held.young.len() <= VETTED_MAX && held.old.len() <= VETTED_MAX);
    }
}
