//! What clients are told that may not start, and why, for metrics.

use super::limit::Bound;
use crate::error::{ErrorKind, Refusal};
use crate::router::Unroutable;

/// Why a turn was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its key has had its share, and this is the limit.
    Limit(Bound, u64),
    /// As many wait as may.
    QueueFull,
    /// It has waited as long as it may.
    Deadline,
    /// No endpoint is left.
    NoEndpoint,
    /// Others have tried again too often.
    Retries,
}

impl Why {
    /// One of each kind.
    pub const ALL: [Self; 7] = [
        Self::Limit(Bound::Requests, 0),
        Self::Limit(Bound::Tokens, 0),
        Self::Limit(Bound::Turns, 0),
        Self::QueueFull,
        Self::Deadline,
        Self::NoEndpoint,
        Self::Retries,
    ];

    /// The label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Limit(bound, _) => bound.name(),
            Self::QueueFull => "queue_full",
            Self::Deadline => "queue_deadline",
            Self::NoEndpoint => "no_endpoint",
            Self::Retries => "retry_budget",
        }
    }

    pub(super) fn index(self) -> usize {
        Self::ALL.iter().position(|why| why.label() == self.label()).unwrap_or(0)
    }
}

pub(super) fn no_model(model: &str) -> Refusal {
    Refusal::new(ErrorKind::ModelNotFound, format!("The model '{model}' does not exist."))
}

pub(super) fn unroutable(model: &str, why: Unroutable) -> Refusal {
    match why {
        Unroutable::NoEndpoint => nobody(model),
        Unroutable::Key => no_model(model),
        Unroutable::Media => {
            let message = format!("No endpoint of the model '{model}' takes such input: it has images or files.");
            Refusal::new(ErrorKind::InvalidValue, message).with_param("input")
        }
        Unroutable::Context => {
            let message = format!("The input is too long for every endpoint of the model '{model}'.");
            Refusal::new(ErrorKind::ContextLengthExceeded, message).with_param("input")
        }
    }
}

/// Asked after by who does not wait.
pub(super) fn unknown() -> Refusal {
    Refusal::new(ErrorKind::Internal, "The turn has lost its place. Please try again.")
}

fn nobody(model: &str) -> Refusal {
    let message = format!("No endpoint can serve the model '{model}' right now. Please try again later.");
    Refusal::new(ErrorKind::Overloaded, message).with_retry_after_ms(Some(1000))
}

/// The words that clients read their delay from are OpenAI's: "Please try again in 1.5s."
pub(super) fn refusal(model: &str, why: Why, wait_ms: Option<u64>) -> Refusal {
    let what = match why {
        Why::NoEndpoint | Why::Retries => return nobody(model),
        Why::Limit(bound, limit) => {
            format!("Rate limit reached for the model '{model}' on {}: Limit {limit}.", bound.told())
        }
        Why::QueueFull => format!("Too many requests wait for the model '{model}'."),
        Why::Deadline => format!("The model '{model}' had no place in time."),
    };
    let wait_ms = wait_ms.unwrap_or(1000).max(1);
    let tenths = wait_ms.div_ceil(100);
    let message = format!("{what} Please try again in {}.{}s.", tenths / 10, tenths % 10);
    Refusal::new(ErrorKind::RateLimited, message).with_retry_after_ms(Some(wait_ms))
}
