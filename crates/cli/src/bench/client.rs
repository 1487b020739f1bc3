//! The load client: one connection, one turn at a time, on a blocking socket, since a thread that sleeps in `read` wakes
//! with the fewest syscalls. Over HTTP it reads with the house's own codecs; over the WebSocket it frames by itself, masks
//! with zeros (the server unmasks all the same), and compresses where it was told to offer that and the server agreed.

use super::Error;
use super::connection::{Connection, Wire};
use super::deflate::{self, Deflater, Inflater};
use super::seen::{End, Seen};
use super::target::Place;
use flashlane_wire::http1::{self, ResponseReader};
use flashlane_wire::sse;
use std::io::{Read, Write};

const BUFFER_BYTES: usize = 256 * 1024;
const EVENT_BYTES_MAX: usize = 16 << 20;
const OK: u16 = 200;

/// One turn, by the bench's clock.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Before the connect, where one was needed.
    pub started_ns: u64,
    pub first_token_ns: u64,
    /// The terminal event had been read.
    pub ended_ns: u64,
    /// The request alone, uncovered: what TLS and handshakes add is in `wire`.
    pub request_bytes: u64,
    pub wire: Wire,
}

/// Speaks HTTP: a new connection for each turn, or one that is kept alive.
pub struct HttpClient {
    place: Place,
    keep_alive: bool,
    socket: Option<Connection>,
    buf: Vec<u8>,
}

impl HttpClient {
    #[must_use]
    pub fn new(place: Place, keep_alive: bool) -> Self {
        Self { place, keep_alive, socket: None, buf: vec![0; BUFFER_BYTES] }
    }

    /// Posts to `path` below the base, and reads the stream to its end.
    ///
    /// # Errors
    /// When the gateway cannot be reached, refuses, or breaks off.
    pub fn turn(&mut self, path: &str, body: &str, seen: &mut Seen) -> Result<Turn, Error> {
        let Place { host, base, .. } = &self.place;
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let length = body.len();
        let request = format!(
            "POST {base}{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\naccept: text/event-stream\r\nconnection: {connection}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        seen.begin();
        let started_ns = seen.clock.ns();
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.place.open()?,
        };
        let before = socket.wire();
        send(&mut socket, request.as_bytes())?;
        let reusable = read_response(&mut socket, &mut self.buf, seen)?;
        let turn = turn(seen, started_ns, request.len(), [before, socket.wire()])?;
        if self.keep_alive && reusable {
            self.socket = Some(socket);
        }
        Ok(turn)
    }
}

fn send(connection: &mut Connection, bytes: &[u8]) -> Result<(), Error> {
    connection.write_all(bytes).and_then(|()| connection.flush()).map_err(Error::Socket)
}

/// Reads one response; whether its connection can carry another.
fn read_response(socket: &mut Connection, buf: &mut [u8], seen: &mut Seen) -> Result<bool, Error> {
    let mut reader = ResponseReader::new(http1::Limits::default());
    let mut events = sse::Decoder::new(EVENT_BYTES_MAX);
    let (mut status, mut end, mut broken) = (OK, None, false);
    while end.is_none() {
        let count = socket.read(buf).map_err(Error::Socket)?;
        let now_ns = seen.clock.ns();
        let input = buf.get(..count).unwrap_or_default();
        let on = |event: http1::Event<'_>| match event {
            http1::Event::Head(head) => status = head.status,
            http1::Event::Body(body) => {
                broken |= events.decode(body, |event| seen.event(event.data, now_ns)).is_err();
            }
            http1::Event::End { reusable } => end = Some(reusable),
        };
        if count == 0 {
            reader.end_of_input(on).map_err(Error::Http)?;
        } else {
            reader.read(input, on).map_err(Error::Http)?;
        }
        if status != OK {
            return Err(Error::Status { status, body: String::from_utf8_lossy(input).into_owned() });
        }
        if broken {
            return Err(Error::Turn);
        }
    }
    Ok(end.unwrap_or_default())
}

fn turn(seen: &Seen, started_ns: u64, request_bytes: usize, [before, after]: [Wire; 2]) -> Result<Turn, Error> {
    let (End::Completed { at_ns }, Some(first_token_ns)) = (seen.end, seen.first_token_ns) else {
        return Err(Error::Turn);
    };
    let wire = Wire { up_bytes: after.up_bytes - before.up_bytes, down_bytes: after.down_bytes - before.down_bytes };
    Ok(Turn { started_ns, first_token_ns, ended_ns: at_ns, request_bytes: request_bytes as u64, wire })
}

/// Speaks the Responses API's WebSocket, on one connection.
pub struct WebSocketClient {
    socket: Connection,
    buf: Vec<u8>,
    /// What was read and not yet used lies in `buf[..held]`.
    held: usize,
    /// Both directions, where they were agreed on.
    deflate: Option<(Deflater, Inflater)>,
    /// What had crossed the wire when the last turn ended.
    counted: Wire,
}

const TEXT: u8 = 0x81;
const COMPRESSED_TEXT: u8 = 0xc1;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// Whether a client offers permessage-deflate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    Nothing,
    Deflate,
}

impl WebSocketClient {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// When nothing answers there, or answers otherwise than by switching to the WebSocket protocol, with compression if it
    /// was offered.
    pub fn connect(place: &Place, offer: Offer) -> Result<Self, Error> {
        let mut socket = place.open()?;
        let Place { host, base, .. } = place;
        let extensions = match offer {
            Offer::Nothing => String::new(),
            Offer::Deflate => format!("sec-websocket-extensions: {}\r\n", deflate::OFFER),
        };
        let request = format!(
            "GET {base}/responses HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: Zmxhc2hsYW5lIGJlbmNoIQ==\r\n{extensions}\r\n"
        );
        send(&mut socket, request.as_bytes())?;
        let deflate = (offer == Offer::Deflate).then(Default::default);
        let buf = vec![0; BUFFER_BYTES];
        let mut client = Self { socket, buf, held: 0, deflate, counted: Wire::default() };
        loop {
            let head = client.buf.get(..client.held).unwrap_or_default();
            if let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") {
                let agreed = memchr::memmem::find(head, b"permessage-deflate").is_some();
                if !head.starts_with(b"HTTP/1.1 101") || agreed != (offer == Offer::Deflate) {
                    return Err(Error::Upgrade { answer: String::from_utf8_lossy(head).into_owned() });
                }
                client.consume(end + 4);
                return Ok(client);
            }
            client.fill()?;
        }
    }

    /// Only the connection is left of it.
    #[must_use]
    pub fn into_idle(self) -> Connection {
        self.socket
    }

    /// Sends one message and reads events until the response has ended. The first turn's bytes are the handshakes', too.
    ///
    /// # Errors
    /// When the gateway breaks off, closes, or fails the turn.
    pub fn turn(&mut self, message: &str, seen: &mut Seen) -> Result<Turn, Error> {
        seen.begin();
        let started_ns = seen.clock.ns();
        let frame = match &mut self.deflate {
            Some((deflater, _)) => frame(COMPRESSED_TEXT, &deflater.deflate(message.as_bytes())?),
            None => frame(TEXT, message.as_bytes()),
        };
        send(&mut self.socket, &frame)?;
        while seen.end == End::NotYet {
            self.fill()?;
            self.take_frames(seen)?;
        }
        // A warm-up has no tokens: its first is its end.
        if let (End::Completed { at_ns }, None) = (seen.end, seen.first_token_ns) {
            seen.first_token_ns = Some(at_ns);
        }
        let before = std::mem::replace(&mut self.counted, self.socket.wire());
        turn(seen, started_ns, frame.len(), [before, self.counted])
    }

    fn fill(&mut self) -> Result<(), Error> {
        if self.held == self.buf.len() {
            self.buf.resize(self.held.saturating_mul(2).min(EVENT_BYTES_MAX), 0);
        }
        let room = self.buf.get_mut(self.held..).unwrap_or_default();
        match self.socket.read(room).map_err(Error::Socket)? {
            0 => Err(Error::Turn),
            count => {
                self.held += count;
                Ok(())
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.buf.copy_within(count..self.held, 0);
        self.held -= count;
    }

    fn take_frames(&mut self, seen: &mut Seen) -> Result<(), Error> {
        let now_ns = seen.clock.ns();
        let mut used = 0;
        while let Some(Frame { first, payload, bytes }) = whole_frame(self.buf.get(used..self.held).unwrap_or_default())
        {
            match (first, &mut self.deflate) {
                (TEXT, _) => take_event(payload, now_ns, seen)?,
                (COMPRESSED_TEXT, Some((_, inflater))) => take_event(inflater.inflate(payload)?, now_ns, seen)?,
                (PING, _) => send(&mut self.socket, &frame(PONG, payload))?,
                (PONG, _) => {}
                _ => return Err(Error::Turn),
            }
            used += bytes;
        }
        self.consume(used);
        Ok(())
    }
}

fn take_event(payload: &[u8], now_ns: u64, seen: &mut Seen) -> Result<(), Error> {
    seen.event(payload, now_ns);
    if payload.starts_with(b"{\"type\":\"error\"") {
        return Err(Error::Refused { event: String::from_utf8_lossy(payload).into_owned() });
    }
    Ok(())
}

pub(super) struct Frame<'a> {
    /// FIN, the reserved bits and the opcode.
    pub first: u8,
    pub payload: &'a [u8],
    /// With its header.
    bytes: usize,
}

/// The first frame of `input`, if it is whole.
pub(super) fn whole_frame(input: &[u8]) -> Option<Frame<'_>> {
    let &[first, length, ..] = input else { return None };
    let (at, length) = match length {
        LENGTH_16 => (4, u64::from(u16::from_be_bytes(*input.get(2..)?.first_chunk()?))),
        LENGTH_64 => (10, u64::from_be_bytes(*input.get(2..)?.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    let payload = input.get(at..)?.get(..usize::try_from(length).ok()?)?;
    Some(Frame { first, payload, bytes: at + payload.len() })
}

pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..LENGTH_16), _) => frame.push(MASKED | length),
        (_, Ok(length)) => {
            frame.push(MASKED | LENGTH_16);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_)) => {
            frame.push(MASKED | LENGTH_64);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_long_as_its_header_says() {
        for (length, header) in [(0, 6), (125, 6), (126, 8), (65_535, 8), (65_536, 14)] {
            assert_eq!(frame(TEXT, &vec![b'x'; length]).len(), header + length, "{length}");
        }
        let input = [&[TEXT, 2, b'a', b'b', PING, 0][..], &[TEXT, LENGTH_16, 0, 200]].concat();
        let first = whole_frame(&input).unwrap();
        assert_eq!((first.first, first.payload, first.bytes), (TEXT, b"ab".as_slice(), 4));
        assert_eq!(whole_frame(&input[4..]).map(|frame| (frame.first, frame.bytes)), Some((PING, 2)));
        assert!(whole_frame(&input[6..]).is_none());
    }
}
