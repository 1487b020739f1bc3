//! An upstream's failure: what a client is told of it, what a record says of it, and whether another endpoint may do better.

use crate::error::{ErrorKind, Refusal};
use crate::upstream::UpstreamFailure;
use flashlane_wire::chat::StreamError;
use std::sync::Arc;

/// An upstream's failure in our own words.
#[must_use]
pub fn words(failure: &UpstreamFailure) -> Arc<str> {
    match failure {
        UpstreamFailure::Unreachable { reason } | UpstreamFailure::Cut { reason } => reason.as_str().into(),
        UpstreamFailure::Silent { waited_ms } => format!("silent for {waited_ms} ms").into(),
        UpstreamFailure::Refused { status, .. } => format!("answered {status}").into(),
    }
}

/// Whether another endpoint may do better.
#[must_use]
pub fn may_try_elsewhere(failure: &UpstreamFailure) -> bool {
    match failure {
        UpstreamFailure::Unreachable { .. } | UpstreamFailure::Cut { .. } | UpstreamFailure::Silent { .. } => true,
        // What the request itself is to blame for, every endpoint will refuse.
        UpstreamFailure::Refused { status, .. } => !matches!(status, 400 | 413 | 422),
    }
}

/// An upstream's failure as the client is told of it.
#[must_use]
pub fn refusal_of(failure: &UpstreamFailure, endpoint: &str) -> Refusal {
    match failure {
        UpstreamFailure::Unreachable { reason } => {
            Refusal::new(ErrorKind::UpstreamFailed, format!("The endpoint '{endpoint}' cannot be reached: {reason}."))
        }
        UpstreamFailure::Cut { reason } => Refusal::new(
            ErrorKind::UpstreamFailed,
            format!("The endpoint '{endpoint}' broke off its answer: {reason}."),
        ),
        UpstreamFailure::Silent { waited_ms } => Refusal::new(
            ErrorKind::UpstreamTimeout,
            format!("The endpoint '{endpoint}' sent nothing for {waited_ms} ms."),
        ),
        UpstreamFailure::Refused { status, retry_after_ms, body } => {
            let error = StreamError::from_body(body);
            refusal_of_error(&StreamError { status: Some(*status), ..error }, endpoint, *retry_after_ms)
        }
    }
}

/// An upstream's error, in an answer of its own or inside of a stream, as the client is told of it.
#[must_use]
pub fn refusal_of_error(error: &StreamError, endpoint: &str, retry_after_ms: Option<u64>) -> Refusal {
    if is_context_overflow(error) {
        return Refusal::new(ErrorKind::ContextLengthExceeded, error.message.clone()).with_param("input");
    }
    let said = &error.message;
    match error.status {
        Some(400 | 422) => Refusal::new(ErrorKind::UpstreamInvalidRequest, said.clone()),
        Some(413) => Refusal::new(ErrorKind::PayloadTooLarge, said.clone()),
        Some(429) => {
            let wait_ms = retry_after_ms.unwrap_or(1000).max(1);
            let seconds = wait_ms.div_ceil(100);
            let message = format!(
                "The endpoint '{endpoint}' is at its rate limit: {said} Please try again in {}.{}s.",
                seconds / 10,
                seconds % 10
            );
            Refusal::new(ErrorKind::RateLimited, message).with_retry_after_ms(Some(wait_ms))
        }
        // Our own credentials and configuration: nothing that the client could mend, and nothing to show.
        Some(401 | 403) => Refusal::new(
            ErrorKind::UpstreamFailed,
            format!("The endpoint '{endpoint}' refused the gateway's credentials."),
        ),
        Some(503) => {
            Refusal::new(ErrorKind::UpstreamFailed, format!("The endpoint '{endpoint}' is overloaded: {said}"))
                .with_retry_after_ms(retry_after_ms)
        }
        Some(status) => {
            Refusal::new(ErrorKind::UpstreamFailed, format!("The endpoint '{endpoint}' answered {status}: {said}"))
        }
        None => Refusal::new(ErrorKind::UpstreamFailed, format!("The endpoint '{endpoint}' failed: {said}")),
    }
}

/// Engines have as many words for it as there are engines.
fn is_context_overflow(error: &StreamError) -> bool {
    let named = |name: Option<&String>| {
        name.is_some_and(|name| name == "context_length_exceeded" || name == "exceed_context_size_error")
    };
    let client_fault = !matches!(error.status, Some(401 | 403 | 429 | 500..));
    const SAID: [&str; 3] = ["maximum context length", "context size", "longer than the model's context length"];
    named(error.code.as_ref())
        || named(error.kind.as_ref())
        || (client_fault && SAID.iter().any(|said| error.message.contains(said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engines_word_for_an_input_that_is_too_long_is_known() {
        for body in [
            include_str!("../../../proto/llama.cpp/context_overflow.json"),
            include_str!("../../../proto/vllm/context_overflow.json"),
            include_str!("../../../proto/sglang/context_overflow.json"),
        ] {
            let failure = UpstreamFailure::Refused {
                status: 400,
                retry_after_ms: None,
                body: bytes::Bytes::from_static(body.as_bytes()),
            };
            assert_eq!(refusal_of(&failure, "gpu-1").kind, ErrorKind::ContextLengthExceeded, "{body}");
        }
        for body in [
            include_str!("../../../proto/vllm/output_overflow.json"),
            include_str!("../../../proto/sglang/output_overflow.json"),
            include_str!("../../../proto/vllm/wrong_type.json"),
            include_str!("../../../proto/sglang/wrong_type.json"),
        ] {
            let failure = UpstreamFailure::Refused {
                status: 400,
                retry_after_ms: None,
                body: bytes::Bytes::from_static(body.as_bytes()),
            };
            let refusal = refusal_of(&failure, "gpu-1");
            assert_eq!(refusal.kind, ErrorKind::UpstreamInvalidRequest, "{body}");
            assert!(refusal.message.contains("max_completion_tokens") || refusal.message.contains("valid list"));
        }
    }
}
