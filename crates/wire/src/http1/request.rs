//! A request's head, appended to a buffer. Knows nothing of its body but the length.
//!
//! What it is given may come from a config or a client, so every byte that could end a line, or begin a second request, is refused.

/// No `Debug`: the fields hold keys.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Name or address, with the port where it is not the scheme's own.
    pub host: &'a str,
    /// All other fields, but none that frames the request.
    pub headers: &'a [(&'a str, &'a str)],
    /// In bytes; `None` for a request without a body.
    pub content_length: Option<u64>,
}

/// Names the offending part and never shows it: it may be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("a request method must be a token")]
    Method,
    #[error("a request target must begin with / and be visible ASCII")]
    Target,
    #[error("a host must be visible ASCII")]
    Host,
    #[error("the name of request header {index} must be a token")]
    HeaderName { index: usize },
    #[error("request header {index} is for the connection to set")]
    HeaderReserved { index: usize },
    #[error("the value of request header {index} must not hold control characters")]
    HeaderValue { index: usize },
}

/// Appends the head of a request of HTTP/1.1, its empty line included.
///
/// # Errors
/// When a part could be read as more than it is. Nothing is appended then.
pub fn request_head(out: &mut Vec<u8>, head: &RequestHead<'_>) -> Result<(), RequestError> {
    check(head)?;
    for part in [head.method, " ", head.target, " HTTP/1.1\r\nhost: ", head.host, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in head.headers {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    if let Some(length) = head.content_length {
        out.extend_from_slice(b"content-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn check(head: &RequestHead<'_>) -> Result<(), RequestError> {
    if !is_token(head.method) {
        return Err(RequestError::Method);
    }
    if !head.target.starts_with('/') || !head.target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(RequestError::Target);
    }
    if head.host.is_empty() || !head.host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(RequestError::Host);
    }
    for (index, (name, value)) in head.headers.iter().enumerate() {
        if !is_token(name) {
            return Err(RequestError::HeaderName { index });
        }
        if ["host", "content-length", "transfer-encoding"].iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
            return Err(RequestError::HeaderReserved { index });
        }
        if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(RequestError::HeaderValue { index });
        }
    }
    Ok(())
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
