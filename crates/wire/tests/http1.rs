//! The upstream's responses: what is read, at any split of the bytes; what is refused; and the request heads that go out.
#![allow(clippy::indexing_slicing, clippy::panic, reason = "a test may fail this way")]

mod chance;
mod responses;

use chance::Chance;
use flashlane_wire::http1::{Error, Event, KeepAlive, Limits, RequestError, RequestHead, ResponseReader, request_head};
use flashlane_wire::sse;
use responses::{RESPONSES, response};

/// What a reader made of a stream; `Err` carries what had come before it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    status: Option<u16>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// `End`, and whether it said `reusable`.
    end: Option<bool>,
    error: Option<Error>,
    used: usize,
}

impl Outcome {
    fn note(&mut self, event: Event<'_>) {
        assert_eq!(self.end, None, "{event:?} after the end");
        match event {
            Event::Head(head) => {
                assert_eq!(self.status.replace(head.status), None, "two heads");
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.headers = head.headers.iter().map(|(name, value)| (text(name), text(value))).collect();
            }
            Event::Body(piece) => {
                assert!(self.status.is_some() && !piece.is_empty());
                self.body.extend_from_slice(piece);
            }
            Event::End { reusable } => self.end = Some(reusable),
        }
    }
}

/// Reads the parts, then the end of the input.
fn read<'a>(limits: Limits, parts: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut reader = ResponseReader::new(limits);
    let mut outcome = Outcome::default();
    for part in parts {
        match reader.read(part, |event| outcome.note(event)) {
            Ok(used) => {
                outcome.used += used;
                assert!(used == part.len() || reader.is_done());
            }
            Err(error) => {
                assert_eq!(reader.read(b"x", |event| panic!("{event:?} after the error")), Err(error));
                outcome.error = Some(error);
                // How far a reader looks before it finds the fault depends on the split.
                outcome.used = 0;
                return outcome;
            }
        }
    }
    if let Err(error) = reader.end_of_input(|event| outcome.note(event)) {
        outcome.error = Some(error);
        outcome.used = 0;
    }
    outcome
}

fn read_whole(stream: &[u8]) -> Outcome {
    read(Limits::default(), [stream])
}

fn refusal(stream: &str) -> Option<Error> {
    let outcome = read_whole(stream.as_bytes());
    assert_eq!(outcome.end, None, "{stream}");
    outcome.error
}

#[test]
fn the_corpus_reads_as_written() {
    for expected in RESPONSES {
        let outcome = read_whole(expected.stream.as_bytes());
        assert_eq!(outcome.error, None, "{}", expected.name);
        assert_eq!(outcome.status, Some(expected.status), "{}", expected.name);
        assert_eq!(String::from_utf8_lossy(&outcome.body), expected.body, "{}", expected.name);
        assert_eq!(outcome.end, Some(expected.reusable), "{}", expected.name);
        assert_eq!(&expected.stream[outcome.used..], expected.rest, "{}", expected.name);
    }
}

#[test]
fn any_two_cuts_give_the_same_response() {
    for expected in RESPONSES {
        let stream = expected.stream.as_bytes();
        let whole = read_whole(stream);
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let parts = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(read(Limits::default(), parts), whole, "{}: cut at {first} and {second}", expected.name);
            }
        }
        assert_eq!(read(Limits::default(), stream.chunks(1)), whole, "{}: a byte at a time", expected.name);
    }
}

#[test]
fn damaged_responses_read_the_same_at_any_split() {
    for seed in 0..20_000 {
        let mut chance = Chance(seed);
        let stream = responses::damaged(&mut chance);
        let limits = Limits {
            head_bytes_max: 20 + chance.below(200),
            chunk_line_bytes_max: 1 + chance.below(20),
            trailer_bytes_max: chance.below(40),
            headers_max: chance.below(8),
            interim_heads_max: chance.below(3),
        };
        let mut parts = Vec::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (part, after) = rest.split_at(1 + chance.below(rest.len().min(30)));
            parts.push(part);
            rest = after;
        }
        let (whole, split) = (read(limits, [&stream[..]]), read(limits, parts));
        assert_eq!(whole, split, "seed {seed}: {:?}", stream.escape_ascii().to_string());
    }
}

#[test]
fn a_recorded_stream_of_llama_cpp_reads_the_same_at_any_cut() {
    let stream = include_bytes!("../../../proto/llama.cpp/plain.http");
    let events = |cut: usize| {
        let mut reader = ResponseReader::new(Limits::default());
        let mut decoder = sse::Decoder::new(64 * 1024);
        let mut events = Vec::new();
        let mut keep_alive = None;
        let mut reusable = None;
        for part in [&stream[..cut], &stream[cut..]] {
            let on = |event: Event<'_>| match event {
                Event::Head(head) => keep_alive = Some(head.keep_alive),
                Event::Body(piece) => decoder.decode(piece, |event| events.push(event.data.to_vec())).unwrap(),
                Event::End { reusable: flag } => reusable = Some(flag),
            };
            assert_eq!(reader.read(part, on), Ok(part.len()));
        }
        assert_eq!(keep_alive, Some(KeepAlive { timeout_s: Some(5), requests_max: Some(100) }));
        assert_eq!(reusable, Some(true));
        events
    };
    let whole = events(0);
    assert_eq!(whole.last().map(Vec::as_slice), Some(&b"[DONE]"[..]));
    assert!(whole[..whole.len() - 1].iter().all(|data| serde_json::from_slice::<serde_json::Value>(data).is_ok()));
    for cut in 1..=stream.len() {
        assert_eq!(events(cut), whole, "cut at {cut}");
    }
}

#[test]
fn one_reader_reads_the_next_response_after_a_reset() {
    let (first, second) = (response("chunked").stream, response("length").stream);
    let stream = [first, second].concat();
    let mut reader = ResponseReader::new(Limits::default());
    let used = reader.read(stream.as_bytes(), |_| ()).unwrap();
    assert_eq!(used, first.len());
    assert_eq!(reader.read(second.as_bytes(), |event| panic!("{event:?} of a response not asked for")), Ok(0));
    reader.reset();
    let mut outcome = Outcome::default();
    reader.read(&stream.as_bytes()[used..], |event| outcome.note(event)).unwrap();
    assert_eq!((outcome.status, outcome.end), (Some(200), Some(true)));
    assert!(reader.is_done());
}

#[test]
fn the_body_is_lent_from_the_input() {
    for name in ["chunked", "length", "until close"] {
        let stream = response(name).stream.as_bytes();
        let mut lent = 0;
        let mut reader = ResponseReader::new(Limits::default());
        let on = |event: Event<'_>| {
            if let Event::Body(piece) = event {
                assert!(stream.as_ptr_range().contains(&piece.as_ptr()));
                lent += piece.len();
            }
        };
        reader.read(stream, on).unwrap();
        assert_eq!(lent, response(name).body.len());
    }
}

#[test]
fn headers_come_in_order_with_names_in_lower_case() {
    let mut seen = None;
    let on = |event: Event<'_>| {
        if let Event::Head(head) = event {
            seen = Some(head);
        }
    };
    let stream = "HTTP/1.1 503 Busy\r\nRetry-After:  7 \r\nX-A: 1\r\nx-a: 2\r\nkeep-alive: timeout=5, Max = 100, x\r\nEmpty:\r\n\r\n";
    ResponseReader::new(Limits::default()).read(stream.as_bytes(), on).unwrap();
    let head = seen.unwrap();
    assert_eq!(head.header("retry-after"), Some(&b"7"[..]));
    assert_eq!(head.header("x-a"), Some(&b"1"[..]));
    assert_eq!(head.header("empty"), Some(&b""[..]));
    assert_eq!(head.header("absent"), None);
    assert_eq!(head.keep_alive, KeepAlive { timeout_s: Some(5), requests_max: Some(100) });
    let names: Vec<_> = head.headers.iter().map(|(name, _)| name.as_ref()).collect();
    assert_eq!(names, [&b"retry-after"[..], b"x-a", b"x-a", b"keep-alive", b"empty"]);
}

#[test]
fn a_response_that_could_be_read_in_two_ways_is_refused() {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n12345");
    for fields in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: +5",
        "content-length: -5",
        "content-length: 0x5",
        "content-length: 5 5",
        "content-length: 5;",
        "content-length: 5,",
        "content-length:",
        "content-length: 18446744073709551616",
        "transfer-encoding: chunked\r\ncontent-length: five",
    ] {
        assert_eq!(refusal(&head(fields)), Some(Error::ContentLength), "{fields}");
    }
    for fields in [
        "transfer-encoding: gzip",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: identity",
        "transfer-encoding: xchunked",
        "transfer-encoding: \x0bchunked",
        "transfer-encoding:",
    ] {
        let error = refusal(&head(fields));
        assert!(matches!(error, Some(Error::TransferEncoding | Error::Head(_))), "{fields}: {error:?}");
    }
    assert_eq!(
        refusal("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        Some(Error::TransferEncoding)
    );
    for fields in [
        "x: 1\r\n folded",
        "x: 1\r\n\tfolded",
        " x: 1",
        "content-length : 5",
        "no colon",
        "x\r: 1",
        "x: \r1",
        "x: \0",
        ": 1",
        "x: 1\rcontent-length: 5",
    ] {
        let error = refusal(&head(fields));
        assert!(matches!(error, Some(Error::Head(_))), "{fields}: {error:?}");
    }
}

#[test]
fn a_malformed_chunk_is_refused() {
    let body = |body: &str| refusal(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}"));
    for size in [
        "\r\n", "g\r\n", "-1\r\n", "+1\r\n", " 1\r\n", "0x1\r\n", "1\n", "1\r\r", "1 1\r\n", "1;a\n", "1;a\r1",
        ";a\r\n", "1 \n",
    ] {
        assert_eq!(body(size), Some(Error::ChunkSize), "{size:?}");
    }
    assert_eq!(body("10000000000000000\r\n"), Some(Error::ChunkSize), "2^64");
    assert_eq!(body("ffffffffffffffff\r\nx"), Some(Error::Cut), "2^64 - 1 is a size, if a tall one");
    for chunk in ["1\r\nab\r\n", "2\r\na\r\n0\r\n\r\n", "1\r\na\n", "1\r\na\r\r"] {
        assert_eq!(body(chunk), Some(Error::ChunkEnd), "{chunk:?}");
    }
    for trailer in ["0\r\n\n", "0\r\nx: 1\n\r\n", "0\r\nx: 1\r\r\n", "0\r\n\r\r"] {
        assert_eq!(body(trailer), Some(Error::Trailer), "{trailer:?}");
    }
}

#[test]
fn what_is_no_response_is_refused_at_its_first_wrong_byte() {
    for stream in ["\r\nHTTP/1.1 200 OK\r\n\r\n", "PRI * HTTP/2.0", "\x15\x03\x01", "HTTP/2 200\r\n\r\n", "<html>"] {
        assert_eq!(refusal(stream), Some(Error::NotHttp), "{stream:?}");
    }
    assert_eq!(refusal("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n"), Some(Error::Upgrade));
    assert_eq!(refusal("HTTP/1.1 042 Low\r\n\r\n"), Some(Error::Status(42)));
    assert!(matches!(refusal("HTTP/1.1 20 OK\r\n\r\n"), Some(Error::Head(_))));
    assert!(matches!(refusal("HTTP/1.2 200 OK\r\n\r\n"), Some(Error::Head(_))));
}

#[test]
fn a_cut_response_never_ends() {
    assert_eq!(read_whole(b"").error, Some(Error::Closed));
    for expected in RESPONSES {
        let whole = expected.stream.len() - expected.rest.len();
        let until_close = expected.name.starts_with("until close");
        let body_from = if until_close { whole - expected.body.len() } else { whole };
        for cut in 1..body_from {
            let outcome = read_whole(&expected.stream.as_bytes()[..cut]);
            assert_eq!((outcome.end, outcome.error), (None, Some(Error::Cut)), "{} at {cut}", expected.name);
        }
    }
}

#[test]
fn everything_has_a_limit() {
    let error = |limits: Limits, stream: &str| read(limits, [stream.as_bytes()]).error;
    let head = "HTTP/1.1 204 No\r\na: 1\r\nb: 2\r\n\r\n";
    let head_bytes = |head_bytes_max| Limits { head_bytes_max, ..Limits::default() };
    assert_eq!(error(head_bytes(head.len()), head), None);
    let head_bytes_max = head.len() - 1;
    assert_eq!(error(head_bytes(head_bytes_max), head), Some(Error::HeadTooLong { head_bytes_max }));
    assert_eq!(error(Limits { headers_max: 2, ..Limits::default() }, head), None);
    let headers_max = 1;
    assert_eq!(error(Limits { headers_max, ..Limits::default() }, head), Some(Error::HeadersTooMany { headers_max }));

    let interim = |count| Limits { interim_heads_max: count, ..Limits::default() };
    let stream = ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", head].concat();
    assert_eq!(error(interim(2), &stream), None);
    assert_eq!(error(interim(1), &stream), Some(Error::InterimTooMany));

    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk_line = |chunk_line_bytes_max| Limits { chunk_line_bytes_max, ..Limits::default() };
    for line in ["0000000001", "1         ", "1;abcdefgh", "1 \t;a=\"bc\""] {
        let stream = format!("{chunked}{line}\r\nx\r\n0\r\n\r\n");
        assert_eq!(error(chunk_line(10), &stream), None, "{line}");
        assert_eq!(error(chunk_line(9), &stream), Some(Error::ChunkLineTooLong), "{line}");
    }
    let trailer = |trailer_bytes_max| Limits { trailer_bytes_max, ..Limits::default() };
    let stream = format!("{chunked}0\r\na: 1\r\nb: 2\r\n\r\n");
    assert_eq!(error(trailer(12), &stream), None);
    assert_eq!(error(trailer(11), &stream), Some(Error::TrailerTooLong));
}

#[test]
fn a_request_head_reads_as_what_it_was_made_of() {
    let mut out = b"before".to_vec();
    let head = RequestHead {
        method: "POST",
        target: "/v1/chat/completions?x=1",
        host: "localhost:8000",
        headers: &[("content-type", "application/json"), ("Authorization", "Bearer k\t\u{f6}")],
        content_length: Some(1234),
    };
    request_head(&mut out, &head).unwrap();
    let expected = "beforePOST /v1/chat/completions?x=1 HTTP/1.1\r\nhost: localhost:8000\r\ncontent-type: application/json\r\n\
        Authorization: Bearer k\t\u{f6}\r\ncontent-length: 1234\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);

    let mut out = Vec::new();
    request_head(&mut out, &RequestHead { method: "GET", headers: &[], content_length: None, ..head }).unwrap();
    assert_eq!(out, b"GET /v1/chat/completions?x=1 HTTP/1.1\r\nhost: localhost:8000\r\n\r\n");
}

#[test]
fn a_request_head_that_could_be_read_as_more_is_refused() {
    let good = RequestHead { method: "POST", target: "/", host: "h", headers: &[], content_length: Some(0) };
    let refused = |head: RequestHead<'_>| {
        let mut out = Vec::new();
        let error = request_head(&mut out, &head).unwrap_err();
        assert!(out.is_empty());
        error
    };
    for method in ["", "PO ST", "GET\r\n"] {
        assert_eq!(refused(RequestHead { method, ..good }), RequestError::Method);
    }
    for target in ["", "v1", "/a b", "/a\r\nx: 1", "/\0", "/\u{f6}", "http://h/"] {
        assert_eq!(refused(RequestHead { target, ..good }), RequestError::Target);
    }
    for host in ["", "h\r\nx: 1", "h h", "\u{f6}"] {
        assert_eq!(refused(RequestHead { host, ..good }), RequestError::Host);
    }
    for name in ["", "a b", "a:", "a\r\n", "\u{f6}"] {
        assert_eq!(
            refused(RequestHead { headers: &[("a", "1"), (name, "1")], ..good }),
            RequestError::HeaderName { index: 1 }
        );
    }
    for value in ["a\r\nb: 2", "a\n", "\r", "\0", "\u{7f}"] {
        assert_eq!(refused(RequestHead { headers: &[("a", value)], ..good }), RequestError::HeaderValue { index: 0 });
    }
    for name in ["Host", "Content-Length", "transfer-encoding"] {
        assert_eq!(refused(RequestHead { headers: &[(name, "1")], ..good }), RequestError::HeaderReserved { index: 0 });
    }
}
