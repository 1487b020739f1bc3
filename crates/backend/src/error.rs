//! What can be wrong with an endpoint's config. Failures of a running turn are [`flashlane_engine::UpstreamFailure`].

use crate::secret::shown_name;
use std::path::PathBuf;

/// An endpoint that cannot be used as configured. With its causes it shows the endpoint, the field and the fault, and no secret.
#[derive(Debug, thiserror::Error)]
#[error("endpoint `{endpoint}`: `{field}`")]
pub struct Error {
    pub endpoint: String,
    /// The field's name in the config.
    pub field: &'static str,
    #[source]
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("is missing")]
    Missing,
    #[error("must not be empty")]
    Empty,
    #[error("is used by another one too")]
    Duplicate,
    #[error("more of them than {count_max}")]
    TooMany { count_max: usize },
    #[error("has no meaning for backend \"{backend}\"")]
    NotForBackend { backend: &'static str },
    #[error("must be one of {}", values.join(", "))]
    NotOneOf { values: &'static [&'static str] },
    #[error("must be 1: a WebSocket is upgraded from HTTP/1.1")]
    NeedsHttp1,
    #[error("has a meaning with dialect {} only", values.join(", "))]
    NeedsDialect { values: &'static [&'static str] },
    #[error("has a meaning with service_tier {} only", values.join(" or "))]
    NeedsTier { values: &'static [&'static str] },
    #[error("must lie between {min} and {max}")]
    OutOfRange { min: u64, max: u64 },
    #[error("is not a URL")]
    Url(#[source] http::uri::InvalidUri),
    #[error("must begin with http:// or https://")]
    UrlScheme,
    #[error("must hold no user, password, query or fragment; a key belongs into api_key_env or api_key_file")]
    UrlParts,
    #[error("is not a name or address that a certificate could be for")]
    UrlHost,
    #[error("must begin with http://, and hold no path: the proxy is asked for a tunnel")]
    ProxyUrl,
    #[error("must hold user:password")]
    ProxyLogin,
    #[error("has a meaning with an https:// base_url only")]
    NeedsTls,
    #[error("must be 1 or 2")]
    HttpVersion,
    #[error("only one of api_key_env and api_key_file may be given")]
    TwoKeys,
    #[error("the environment variable `{}` is not set", shown_name(variable))]
    NoSuchVariable { variable: String },
    #[error("cannot read `{}`", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error("the key must be one line of visible ASCII")]
    Key,
    #[error("`{}` holds no usable certificate: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
}

/// An error with its causes, for one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
