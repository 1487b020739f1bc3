//! Answers that no route makes: to who is refused before a request was read, or for how it was written. They have what every answer has,
//! an id and an error in the API's form. The HTTP library's own answers, which have neither, are known by how they look.

use flashlane_telemetry::label::Flaw;
use http::StatusCode;
use serde_json::json;

/// hyper's own answers to what it refuses: a head without a body, as long as this at most.
const LIBRARY_BYTES_MAX: usize = 256;

/// A whole answer of HTTP/1.1 that ends its connection. `fields` are more of its head, each with its line's end.
pub(crate) fn answer(status: StatusCode, id: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n{fields}\
         x-request-id: {id}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// What is wrong with a request, as its client is told.
pub(crate) fn error(flaw: Flaw) -> Vec<u8> {
    let message = match flaw {
        Flaw::BareLf => "A line of the request ends in LF alone: each ends in CR LF.",
        Flaw::RequestLine => {
            "The request line is none that is served: a method, a target and the version, with one space between them."
        }
        Flaw::Field => {
            "A header field cannot be read: it has no name, blanks around it, control characters, or goes over several lines."
        }
        Flaw::Host => "The request has no Host, two of them, one that is none, or another than its target's.",
        Flaw::Framing => {
            "Where the request's body ends can be read in two ways: Content-Length and Transfer-Encoding contradict each other or themselves."
        }
        Flaw::Chunk => "A chunk of the request's body cannot be read.",
        Flaw::Upgrade => "A WebSocket handshake has no body.",
        Flaw::Large => {
            "The request's head is larger, or has more fields, than is allowed (`header_bytes_max`, `headers_max`)."
        }
        Flaw::LongTarget => "The request's target is too long.",
        Flaw::Flood => "Too many HTTP/2 frames that bring nothing.",
        Flaw::Other => "This is no request of HTTP.",
    };
    let code = match flaw {
        Flaw::Large => "headers_too_large",
        Flaw::LongTarget => "uri_too_long",
        Flaw::BareLf
        | Flaw::RequestLine
        | Flaw::Field
        | Flaw::Host
        | Flaw::Framing
        | Flaw::Chunk
        | Flaw::Upgrade
        | Flaw::Flood
        | Flaw::Other => "malformed_http",
    };
    let error = json!({"message": message, "type": "invalid_request_error", "param": null, "code": code});
    json!({ "error": error }).to_string().into_bytes()
}

/// Where in what is to be written the HTTP library's own refusal begins, which ends it, and its status.
pub(crate) fn library_refusal(bytes: &[u8]) -> Option<(usize, StatusCode)> {
    let all = bytes.strip_suffix(b"\r\n\r\n")?;
    let from = all.len().saturating_sub(LIBRARY_BYTES_MAX);
    let tail = all.get(from..)?;
    let at = tail.windows(7).rposition(|window| window == b"HTTP/1.")?;
    let head = tail.get(at..)?;
    let has = |name: &[u8]| head.windows(name.len()).any(|window| window == name);
    let status = StatusCode::from_bytes(head.get(9..12)?).ok().filter(StatusCode::is_client_error)?;
    (has(b"content-length: 0") && !has(b"x-request-id")).then_some((from + at, status))
}

/// By the library's word alone.
pub(crate) fn flaw(status: StatusCode) -> Flaw {
    match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Flaw::Large,
        StatusCode::URI_TOO_LONG => Flaw::LongTarget,
        _ => Flaw::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_librarys_own_refusal_is_known_behind_whatever_comes_before_it() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\
            date: Mon, 23 Nov 2026 05:00:00 GMT\r\n\r\n";
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        assert_eq!(library_refusal(own), Some((0, status)));
        let before = [b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n".repeat(20), vec![b'x'; 400]].concat();
        assert_eq!(library_refusal(&[&before, &own[..]].concat()), Some((before.len(), status)));
        for other in [
            &b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nx-request-id: req_1\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"data: HTTP/1.1 4\r\n\r\n",
            b"\r\n\r\n",
            b"",
        ] {
            assert_eq!(library_refusal(other), None);
        }
    }
}
