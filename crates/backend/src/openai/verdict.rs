//! What the head of an upstream's answer means. Knows no connection, and HTTP/1.1 from HTTP/2 as little.

use bytes::Bytes;
use flashlane_engine::UpstreamFailure;

/// What of an error's body is kept.
pub(crate) const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// What to do with the body that follows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// An event stream: hand it over.
    Stream,
    /// An HTTP error, or a redirect (none is followed: the key in the request is meant for this host alone).
    Refused(Refused),
    /// A success that is no event stream.
    Unusable { reason: String },
}

/// An HTTP error while its body comes in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    status: u16,
    retry_after_ms: Option<u64>,
    body: Vec<u8>,
}

impl Verdict {
    /// `header` finds a field by its name in lower case.
    pub(crate) fn of<'a>(status: u16, header: impl Fn(&'static str) -> Option<&'a [u8]>) -> Self {
        if !(200..300).contains(&status) {
            let retry_after_ms = retry_after_ms(&header);
            return Self::Refused(Refused { status, retry_after_ms, body: Vec::new() });
        }
        let content_type = header("content-type").unwrap_or_default();
        let media_type = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        if !media_type.eq_ignore_ascii_case(b"text/event-stream") {
            return Self::Unusable {
                reason: format!(
                    "status {status} with content type \"{}\" where text/event-stream was asked for",
                    content_type.escape_ascii()
                ),
            };
        }
        match header("content-encoding") {
            None | Some(b"identity") => Self::Stream,
            Some(coding) => {
                Self::Unusable { reason: format!("content encoding \"{}\" was not asked for", coding.escape_ascii()) }
            }
        }
    }
}

impl Refused {
    /// Keeps what there is room for. `true`: there is no room for more.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        let room = REFUSAL_BYTES_MAX - self.body.len();
        self.body.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.body.len() == REFUSAL_BYTES_MAX
    }

    pub(crate) fn failure(&mut self) -> UpstreamFailure {
        UpstreamFailure::Refused {
            status: self.status,
            retry_after_ms: self.retry_after_ms,
            body: Bytes::from(std::mem::take(&mut self.body)),
        }
    }
}

/// `retry-after-ms`, or `retry-after` in seconds, both with or without a fraction. Its form as a date is not read: no engine sends it.
fn retry_after_ms<'a>(header: &impl Fn(&'static str) -> Option<&'a [u8]>) -> Option<u64> {
    /// A day: what asks for more is no advice.
    const MS_MAX: f64 = 86_400_000.0;
    let number = |name, ms_each: f64| -> Option<u64> {
        let text = std::str::from_utf8(header(name)?).ok()?;
        let ms = text.trim().parse::<f64>().ok()? * ms_each;
        (0.0..=MS_MAX).contains(&ms).then_some(ms.ceil() as u64)
    };
    number("retry-after-ms", 1.0).or_else(|| number("retry-after", 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, headers: &[(&'static str, &'static str)]) -> Verdict {
        Verdict::of(status, |name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes()))
    }

    #[test]
    fn only_an_event_stream_is_streamed() {
        assert_eq!(verdict(200, &[("content-type", "text/event-stream")]), Verdict::Stream);
        assert_eq!(verdict(200, &[("content-type", "Text/Event-Stream; charset=utf-8")]), Verdict::Stream);
        let Verdict::Unusable { reason } = verdict(200, &[("content-type", "application/json")]) else {
            panic!("JSON was taken for a stream");
        };
        assert!(reason.contains("application/json"), "{reason}");
        assert!(matches!(verdict(204, &[]), Verdict::Unusable { .. }));
        let gzip = [("content-type", "text/event-stream"), ("content-encoding", "gzip")];
        assert!(matches!(verdict(200, &gzip), Verdict::Unusable { .. }));
    }

    #[test]
    fn the_wait_is_read_in_milliseconds_or_seconds() {
        let wait = |headers: &[(&'static str, &'static str)]| match verdict(429, headers) {
            Verdict::Refused(refused) => refused.retry_after_ms,
            Verdict::Stream | Verdict::Unusable { .. } => panic!("429 is a refusal"),
        };
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&[("retry-after", "2")]), Some(2000));
        assert_eq!(wait(&[("retry-after", "0.25")]), Some(250));
        assert_eq!(wait(&[("retry-after", "2"), ("retry-after-ms", "150.5")]), Some(151));
        for nonsense in ["-1", "NaN", "inf", "1e300", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(wait(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }

    #[test]
    fn of_an_error_body_no_more_than_the_limit_is_kept() {
        let Verdict::Refused(mut refused) = verdict(500, &[]) else { panic!("500 is a refusal") };
        assert!(!refused.push(&vec![b'x'; REFUSAL_BYTES_MAX - 1]));
        assert!(refused.push(b"yz"));
        let UpstreamFailure::Refused { status: 500, body, .. } = refused.failure() else { panic!("not refused") };
        assert_eq!(body.len(), REFUSAL_BYTES_MAX);
        assert!(body.ends_with(b"xy"));
    }
}
