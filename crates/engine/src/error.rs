//! The one table of errors: what each kind is on every surface. An edge looks nothing up elsewhere.

use std::borrow::Cow;

/// Everything that flashlane refuses or fails with. The rows stand in [`ErrorKind::row`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// The body is no JSON, or no object.
    InvalidJson,
    MissingParameter,
    InvalidType,
    InvalidValue,
    UnsupportedParameter,
    /// A client event whose `type` is not known.
    UnknownEvent,
    MutuallyExclusive,
    ContextLengthExceeded,
    PreviousResponseNotFound,
    InvalidStreamId,
    /// The output of a tool that was never called.
    OrphanOutput,
    /// The upstream understood the request and would not have it (its 400, 413, 422).
    UpstreamInvalidRequest,
    /// The model's guard refused the input for what it could be used for.
    CyberPolicy,
    /// The model's guard refused the input.
    InvalidPrompt,
    InvalidApiKey,
    /// A web page of another site, or a host name that is not this server's.
    OriginRefused,
    ModelNotFound,
    ResponseNotFound,
    /// No such path.
    RouteNotFound,
    MethodNotAllowed,
    PayloadTooLarge,
    UnsupportedMediaType,
    UpgradeRequired,
    /// A client sent more than it may have waiting.
    TooManyQueued,
    /// More named lanes than a connection may have.
    TooManyLanes,
    /// A connection has had its time.
    ConnectionTooOld,
    RateLimited,
    /// `response.interrupt` or `response.cancel` for a response that is not running here.
    ResponseNotActive,
    /// flashlane's own fault.
    Internal,
    /// The upstream failed, cut its stream or spoke nonsense.
    UpstreamFailed,
    UpstreamTimeout,
    /// No endpoint can take the turn.
    Overloaded,
    /// The model's guard gave no verdict, and may not be passed by.
    GuardUnavailable,
    ShuttingDown,
    /// What is to be kept cannot be, or what was kept cannot be read.
    StoreUnavailable,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// HTTP status, and `status` in a WebSocket error event.
    pub status: u16,
    /// `error.type`.
    pub api_type: &'static str,
    /// `error.code`; `null` where OpenAI has none.
    pub code: Option<&'static str>,
    /// `response.error.code` of a response that failed after it was announced.
    pub response_code: &'static str,
    /// The label in metrics and logs.
    pub label: &'static str,
    /// Answer to the SDK's question whether to try again (`x-should-retry`); `None` leaves it to the status.
    pub should_retry: Option<bool>,
}

const fn row(status: u16, api_type: &'static str, code: Option<&'static str>, label: &'static str) -> Row {
    let response_code = match code {
        Some(code) => code,
        None => "server_error",
    };
    Row { status, api_type, code, response_code, label, should_retry: None }
}

const INVALID: &str = "invalid_request_error";

impl ErrorKind {
    pub const ALL: [Self; 35] = [
        Self::InvalidJson,
        Self::MissingParameter,
        Self::InvalidType,
        Self::InvalidValue,
        Self::UnsupportedParameter,
        Self::UnknownEvent,
        Self::MutuallyExclusive,
        Self::ContextLengthExceeded,
        Self::PreviousResponseNotFound,
        Self::InvalidStreamId,
        Self::OrphanOutput,
        Self::UpstreamInvalidRequest,
        Self::CyberPolicy,
        Self::InvalidPrompt,
        Self::InvalidApiKey,
        Self::OriginRefused,
        Self::ModelNotFound,
        Self::ResponseNotFound,
        Self::RouteNotFound,
        Self::MethodNotAllowed,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::UpgradeRequired,
        Self::TooManyQueued,
        Self::TooManyLanes,
        Self::ConnectionTooOld,
        Self::RateLimited,
        Self::ResponseNotActive,
        Self::Internal,
        Self::UpstreamFailed,
        Self::UpstreamTimeout,
        Self::Overloaded,
        Self::GuardUnavailable,
        Self::ShuttingDown,
        Self::StoreUnavailable,
    ];

    /// What this kind is on every surface.
    #[must_use]
    pub const fn row(self) -> Row {
        match self {
            Self::InvalidJson => row(400, INVALID, Some("invalid_json"), "invalid_json"),
            Self::MissingParameter => row(400, INVALID, Some("missing_required_parameter"), "missing_parameter"),
            Self::InvalidType => row(400, INVALID, Some("invalid_type"), "invalid_type"),
            Self::InvalidValue => row(400, INVALID, Some("invalid_value"), "invalid_value"),
            Self::UnsupportedParameter => row(400, INVALID, Some("unsupported_parameter"), "unsupported_parameter"),
            Self::UnknownEvent => row(400, INVALID, Some("invalid_value"), "unknown_event"),
            Self::MutuallyExclusive => row(400, INVALID, Some("mutually_exclusive_parameters"), "mutually_exclusive"),
            Self::ContextLengthExceeded => row(400, INVALID, Some("context_length_exceeded"), "context_length"),
            Self::PreviousResponseNotFound => {
                row(400, INVALID, Some("previous_response_not_found"), "previous_response_not_found")
            }
            Self::InvalidStreamId => row(400, INVALID, Some("invalid_stream_id"), "invalid_stream_id"),
            Self::OrphanOutput => row(400, INVALID, None, "orphan_output"),
            Self::UpstreamInvalidRequest => {
                Row { response_code: "invalid_prompt", ..row(400, INVALID, None, "upstream_invalid_request") }
            }
            Self::CyberPolicy => row(400, INVALID, Some("cyber_policy"), "cyber_policy"),
            Self::InvalidPrompt => row(400, INVALID, Some("invalid_prompt"), "invalid_prompt"),
            Self::InvalidApiKey => row(401, INVALID, Some("invalid_api_key"), "invalid_api_key"),
            Self::OriginRefused => row(403, "request_forbidden", Some("origin_not_allowed"), "origin_refused"),
            Self::ModelNotFound => row(404, INVALID, Some("model_not_found"), "model_not_found"),
            Self::ResponseNotFound => row(404, INVALID, None, "response_not_found"),
            Self::RouteNotFound => row(404, INVALID, Some("unknown_url"), "unknown_url"),
            Self::MethodNotAllowed => row(405, INVALID, Some("method_not_allowed"), "method_not_allowed"),
            Self::PayloadTooLarge => row(413, INVALID, Some("payload_too_large"), "payload_too_large"),
            Self::UnsupportedMediaType => row(415, INVALID, Some("unsupported_media_type"), "unsupported_media_type"),
            Self::UpgradeRequired => row(426, INVALID, Some("websocket_disabled"), "websocket_disabled"),
            Self::TooManyQueued => {
                row(429, "rate_limit_error", Some("websocket_stream_limit_reached"), "too_many_queued")
            }
            Self::TooManyLanes => row(400, INVALID, Some("websocket_stream_limit_reached"), "too_many_lanes"),
            Self::ConnectionTooOld => {
                row(400, INVALID, Some("websocket_connection_limit_reached"), "connection_too_old")
            }
            Self::RateLimited => row(429, "rate_limit_error", Some("rate_limit_exceeded"), "rate_limited"),
            Self::ResponseNotActive => row(400, INVALID, Some("response_not_active"), "response_not_active"),
            Self::Internal => row(500, "server_error", Some("server_error"), "internal"),
            Self::UpstreamFailed => row(502, "server_error", Some("server_error"), "upstream_failed"),
            Self::UpstreamTimeout => row(504, "server_error", Some("server_error"), "upstream_timeout"),
            Self::Overloaded => row(503, "service_unavailable_error", Some("server_is_overloaded"), "overloaded"),
            Self::StoreUnavailable => Row {
                response_code: "server_error",
                ..row(503, "service_unavailable_error", Some("store_unavailable"), "store_unavailable")
            },
            // As the one below.
            Self::GuardUnavailable => Row {
                response_code: "server_error",
                ..row(503, "service_unavailable_error", Some("policy_check_unavailable"), "guard_unavailable")
            },
            // Not as one that is overloaded: Codex gives a turn up for that, and asks again for this.
            Self::ShuttingDown => Row {
                response_code: "server_error",
                ..row(503, "service_unavailable_error", Some("server_shutting_down"), "shutting_down")
            },
        }
    }
}

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: ErrorKind,
    /// For the client: names the parameter, the limit, or what to do.
    pub message: String,
    /// The parameter at fault, as a path (`input[2].content[0].type`).
    pub param: Option<Cow<'static, str>>,
    /// When trying again makes sense.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, retry_after_ms: None }
    }

    #[must_use]
    pub fn with_param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    #[must_use]
    pub fn with_retry_after_ms(mut self, ms: Option<u64>) -> Self {
        self.retry_after_ms = ms;
        self
    }

    /// `{"message":..,"type":..,"param":..,"code":..}`, the inside of every error surface.
    pub fn push_error_object(&self, out: &mut Vec<u8>) {
        use flashlane_wire::json;
        let row = self.kind.row();
        out.extend_from_slice(b"{\"message\":");
        json::push_string(out, &self.message);
        out.extend_from_slice(b",\"type\":");
        json::push_string(out, row.api_type);
        out.extend_from_slice(b",\"param\":");
        json::push_optional_string(out, self.param.as_deref());
        out.extend_from_slice(b",\"code\":");
        json::push_optional_string(out, row.code);
        out.push(b'}');
    }

    /// The body of an HTTP error.
    #[must_use]
    pub fn http_body(&self) -> Vec<u8> {
        let mut out = b"{\"error\":".to_vec();
        self.push_error_object(&mut out);
        out.push(b'}');
        out
    }
}

impl From<flashlane_wire::responses::ParseError> for Refusal {
    fn from(error: flashlane_wire::responses::ParseError) -> Self {
        use flashlane_wire::responses::Reason;
        let kind = match error.reason {
            Reason::Json => ErrorKind::InvalidJson,
            Reason::Missing => ErrorKind::MissingParameter,
            Reason::Type => ErrorKind::InvalidType,
            Reason::Value => ErrorKind::InvalidValue,
            Reason::Unsupported => ErrorKind::UnsupportedParameter,
            Reason::UnknownEvent => ErrorKind::UnknownEvent,
            Reason::Exclusive => ErrorKind::MutuallyExclusive,
        };
        Self { kind, message: error.message, param: error.param.map(Cow::Owned), retry_after_ms: None }
    }
}
