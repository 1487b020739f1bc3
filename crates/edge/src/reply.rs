//! What an error is over HTTP: status, headers and body, all from the engine's one table.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use flashlane_engine::{ErrorKind, Refusal};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A refusal on its way to an HTTP client.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Refusal);

impl Refused {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Refusal::new(kind, message))
    }
}

impl From<crate::Error> for Refused {
    fn from(error: crate::Error) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a request cannot be served");
        Self::new(ErrorKind::Internal, "The server had an error while processing your request.")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(refusal) = self;
        let row = refusal.kind.row();
        let mut response = Response::new(Body::from(refusal.http_body()));
        *response.status_mut() = StatusCode::from_u16(row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if refusal.kind == ErrorKind::InvalidApiKey {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(should_retry) = row.should_retry {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static(if should_retry { "true" } else { "false" }));
        }
        if let Some(ms) = refusal.retry_after_ms {
            insert_retry_after(headers, ms);
        }
        response.extensions_mut().insert(refusal.kind);
        response
    }
}

/// Both forms: whole seconds, at least one, for everybody; milliseconds for OpenAI's SDKs.
fn insert_retry_after(headers: &mut HeaderMap, ms: u64) {
    headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
    headers.insert(RETRY_AFTER_MS, HeaderValue::from(ms));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_delay_in_whole_seconds_and_in_milliseconds() {
        let refusal = Refusal::new(ErrorKind::RateLimited, "slow").with_retry_after_ms(Some(1200));
        let response = Refused(refusal).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["retry-after-ms"], "1200");
        assert_eq!(response.headers()["content-type"], "application/json");
    }

    #[test]
    fn every_kind_has_a_status_that_http_knows() {
        for kind in ErrorKind::ALL {
            let response = Refused::new(kind, "x").into_response();
            assert_eq!(response.status().as_u16(), kind.row().status);
        }
    }
}
