//! Why a hosted service refused: its error bodies, as a table. What is not in it stays as the service said it.

use flashlane_wire::chat::StreamError;

/// A refusal that says something about the service, and nothing about the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// One of its limits on requests or tokens, for this key.
    Quota,
    /// More wait than were to be waited for.
    Queue,
}

/// A part of an error's code, type or message, in lower case, and what it means. The first that is found counts.
type Row = (Place, &'static str, Cause);

#[derive(Debug, Clone, Copy)]
enum Place {
    Code,
    Kind,
    Message,
}

/// The first three were seen (Cerebras' own words, in other projects' logs); that a full queue is called one is a guess, since
/// nobody has written down what `queue_threshold` answers.
const ROWS: [Row; 7] = [
    (Place::Code, "request_quota_exceeded", Cause::Quota),
    (Place::Code, "token_quota_exceeded", Cause::Quota),
    (Place::Message, "experiencing high traffic", Cause::Queue),
    (Place::Code, "queue", Cause::Queue),
    (Place::Kind, "queue", Cause::Queue),
    (Place::Message, "queue", Cause::Queue),
    (Place::Code, "rate_limit_exceeded", Cause::Quota),
];

impl Cause {
    /// `None`: the status speaks for itself.
    pub(crate) fn of(status: u16, body: &[u8]) -> Option<Self> {
        // A request that is wrong may speak of anything.
        if matches!(status, 401 | 403 | 404 | 413 | 415) {
            return None;
        }
        let error = StreamError::from_body(body);
        let lower = |text: Option<&String>| text.map(|text| text.to_ascii_lowercase()).unwrap_or_default();
        let (code, kind, message) =
            (lower(error.code.as_ref()), lower(error.kind.as_ref()), error.message.to_ascii_lowercase());
        let found = ROWS.iter().find(|(place, part, _)| {
            let text = match place {
                Place::Code => &code,
                Place::Kind => &kind,
                // Only where the status says as much: a client's own words may stand in the message of a 400.
                Place::Message if matches!(status, 429 | 503) => &message,
                Place::Message => return false,
            };
            text.contains(part)
        });
        match found {
            Some((.., cause)) => Some(*cause),
            None => (status == 429).then_some(Self::Quota),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_body_has_its_cause() {
        let quota = r#"{"message":"Requests per minute limit exceeded","type":"too_many_requests_error","param":"quota","code":"request_quota_exceeded"}"#;
        let tokens = r#"{"error":{"message":"Tokens per minute limit exceeded","type":"too_many_requests_error","param":"quota","code":"token_quota_exceeded"}}"#;
        let traffic = r#"{"message":"We're experiencing high traffic right now! Please try again soon.","type":"too_many_requests_error"}"#;
        let queue = r#"{"message":"expected wait is too long","type":"x","code":"queue_exceeded"}"#;
        let groq = r#"{"error":{"message":"Rate limit reached","type":"tokens","code":"rate_limit_exceeded"}}"#;
        for (status, body, cause) in [
            (429, quota, Some(Cause::Quota)),
            (429, tokens, Some(Cause::Quota)),
            (429, traffic, Some(Cause::Queue)),
            (429, queue, Some(Cause::Queue)),
            (400, queue, Some(Cause::Queue)),
            (503, queue, Some(Cause::Queue)),
            (429, groq, Some(Cause::Quota)),
            (429, "", Some(Cause::Quota)),
            (503, "", None),
            (500, "{}", None),
            (400, r#"{"message":"the queue of messages is wrong","code":"wrong_api_format"}"#, None),
            (401, queue, None),
        ] {
            assert_eq!(Cause::of(status, body.as_bytes()), cause, "{status} {body}");
        }
    }
}
