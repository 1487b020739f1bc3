//! What a caller may still take, where its request went, and where its time went, as headers of the answer. Knows the names alone.

use flashlane_engine::admission::limit::{Allowance, Headroom};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// A client that sends it, with any value, is told the decision.
pub(crate) const ROUTE: HeaderName = HeaderName::from_static("x-flashlane-route");

/// A client that sends `1` is told where the time went, beyond what a header can tell: after each turn over a WebSocket, at the end
/// of a stream over HTTP.
const TIMING: HeaderName = HeaderName::from_static("x-flashlane-timing");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

pub(crate) fn wants_timing(headers: &HeaderMap) -> bool {
    headers.get(TIMING).is_some_and(|value| value == "1")
}

/// W3C's header, which browsers and proxies show.
pub(crate) fn insert_timing(headers: &mut HeaderMap, timing: Option<String>) {
    if let Some(timing) = timing.and_then(|timing| HeaderValue::try_from(timing).ok()) {
        headers.insert(SERVER_TIMING, timing);
    }
}

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// OpenAI's names; none for what is not limited.
pub(crate) fn insert(headers: &mut HeaderMap, allowance: Allowance) {
    for (names, headroom) in [(REQUESTS, allowance.requests), (TOKENS, allowance.tokens)] {
        let Some(Headroom { limit, remaining, reset_ms, .. }) = headroom else { continue };
        let reset = HeaderValue::try_from(duration(reset_ms)).unwrap_or(HeaderValue::from_static("0s"));
        for (name, value) in names.into_iter().zip([HeaderValue::from(limit), HeaderValue::from(remaining), reset]) {
            headers.insert(name, value);
        }
    }
}

/// As OpenAI writes it: `120ms`, `1.5s`, `6m0s`.
fn duration(ms: u64) -> String {
    match ms {
        0 => "0s".to_owned(),
        1..1_000 => format!("{ms}ms"),
        1_000..60_000 if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        1_000..60_000 => {
            let fraction = format!("{:03}", ms % 1000);
            format!("{}.{}s", ms / 1000, fraction.trim_end_matches('0'))
        }
        60_000.. => format!("{}m{}s", ms / 60_000, ms % 60_000 / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_written_as_openai_writes_it() {
        let written = [0, 17, 1000, 1500, 59_999, 60_000, 360_400].map(duration);
        assert_eq!(written, ["0s", "17ms", "1s", "1.5s", "59.999s", "1m0s", "6m0s"]);
    }

    #[test]
    fn what_is_not_limited_has_no_headers() {
        let headroom = Headroom { limit: 60, remaining: 59, reset_ms: 1000, window_ms: 60_000, used_percent: 2 };
        let mut headers = HeaderMap::new();
        insert(&mut headers, Allowance { requests: Some(headroom), ..Allowance::default() });
        assert_eq!(headers.len(), 3);
        assert_eq!(headers["x-ratelimit-limit-requests"], "60");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "59");
        assert_eq!(headers["x-ratelimit-reset-requests"], "1s");
    }
}
