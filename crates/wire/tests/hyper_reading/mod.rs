//! The same bytes read by our reader and by hyper's client, and what they must agree on. The fuzz target `http1` reads this file too.
//!
//! Deliberate differences, on the side of refusing:
//! - a transfer-encoding other than one `chunked`: hyper reads `gzip, chunked` as chunked, and others until close;
//! - a content-length is checked even where it does not frame the body (hyper: only where it does);
//! - 101: nobody asked; blank lines before the status line; more interim heads, fields or bytes of them than our limits;
//! - a line of the trailers that ends in LF alone.
//!
//! And two on the other side: hyper reads trailers as fields and refuses malformed ones; we skip their lines, the body being whole before them.
//! And it takes at most 100 fields where we take some more.

use flashlane_wire::http1::{Error, Event, Limits, ResponseReader};
use http_body_util::BodyExt;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Unless it is told otherwise.
const HYPER_FIELDS_MAX: usize = 100;

/// What a reader made of the bytes and of the close behind them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    status: Option<u16>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    whole: bool,
}

/// # Panics
/// Where the two readers disagree and are not meant to.
pub fn compare(stream: &[u8]) {
    let (ours, error) = ours(stream);
    let theirs = theirs(stream);
    let shown = stream.escape_ascii();
    if ours.whole {
        let trailers = theirs.status.is_some() && ours.headers.iter().any(|(name, _)| name == b"transfer-encoding");
        let many = theirs.status.is_none() && ours.headers.len() > HYPER_FIELDS_MAX;
        assert!(theirs.whole || trailers || many, "hyper refuses {theirs:?}, we read {ours:?} from {shown}");
        if many {
            return;
        }
        assert_eq!((ours.status, &ours.headers), (theirs.status, &theirs.headers), "{shown}");
        assert_eq!(ours.body, theirs.body, "{shown}");
        return;
    }
    let error = error.unwrap_or_else(|| panic!("neither whole nor refused: {shown}"));
    let deliberate = match error {
        Error::NotHttp => has_stray_blank_line(stream),
        Error::HeadTooLong { .. } | Error::HeadersTooMany { .. } | Error::InterimTooMany => true,
        Error::ChunkLineTooLong | Error::TrailerTooLong => true,
        Error::Upgrade | Error::ContentLength | Error::TransferEncoding => true,
        Error::Head(_) | Error::HeadCut | Error::Status(_) => false,
        Error::Trailer => true,
        Error::ChunkSize | Error::ChunkEnd | Error::Closed | Error::Cut => false,
    };
    assert!(deliberate || !theirs.whole, "we refuse ({error}), hyper reads {theirs:?} from {shown}");
}

/// Before the first status line, or behind the blank line that ends an interim head.
fn has_stray_blank_line(stream: &[u8]) -> bool {
    let lines: Vec<u8> = stream.iter().copied().filter(|&byte| byte != b'\r').collect();
    lines.starts_with(b"\n") || lines.windows(4).any(|window| window == b"\n\n\nH")
}

fn ours(stream: &[u8]) -> (Reading, Option<Error>) {
    let mut reading = Reading::default();
    let mut on = |event: Event<'_>| match event {
        Event::Head(head) => {
            reading.status = Some(head.status);
            reading.headers = sorted(head.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())));
        }
        Event::Body(piece) => reading.body.extend_from_slice(piece),
        Event::End { .. } => reading.whole = true,
    };
    let mut reader = ResponseReader::new(Limits::default());
    let error = reader.read(stream, &mut on).and_then(|_| reader.end_of_input(&mut on)).err();
    (reading, error)
}

/// The bytes come when hyper has sent its request; before, it would refuse any.
#[tokio::main(flavor = "current_thread")]
async fn theirs(stream: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let (near, mut far) = tokio::io::duplex(stream.len() + 1024);
    let Ok((mut sender, connection)) = handshake(TokioIo::new(near)).await else { return reading };
    let upstream = async {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && far.read_buf(&mut request).await.is_ok_and(|count| count > 0) {}
        let _ = far.write_all(stream).await;
        drop(far);
    };
    let client = async {
        let Ok(mut response) = sender.send_request(hyper::Request::new(String::new())).await else { return };
        reading.status = Some(response.status().as_u16());
        let headers = response.headers().iter();
        reading.headers = sorted(headers.map(|(name, value)| (name.as_str().into(), value.as_bytes().into())));
        loop {
            match response.frame().await {
                Some(Ok(frame)) => reading.body.extend_from_slice(frame.data_ref().map_or(b"", |data| data)),
                Some(Err(_)) => return,
                None => break,
            }
        }
        reading.whole = true;
    };
    let _ = tokio::join!(connection, upstream, client);
    reading
}

/// hyper keeps the order of a name's values, not that of the names.
fn sorted(headers: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut headers: Vec<_> = headers.collect();
    headers.sort_by(|(one, _), (other, _)| one.cmp(other));
    headers
}
