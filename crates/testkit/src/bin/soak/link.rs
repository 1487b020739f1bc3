//! A connection to the gateway by TLS, and over it either requests of HTTP/1.1 or, once upgraded, messages of a WebSocket, compressed where both like.
//! Knows nothing of what is said.

use crate::tally::Fault;
use crate::world::{Chance, World};
use flashlane_wire::http1::{Event, Limits, ResponseReader};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

/// No turn is silent for so long, whatever its endpoint does.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 16 * 1024;
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

pub struct Link {
    stream: TlsStream<TcpStream>,
    input: Vec<u8>,
}

impl Link {
    pub async fn open(world: &World) -> Result<Self, Fault> {
        let failed = |error: io::Error| Fault::new("connect", error.to_string());
        let tcp = TcpStream::connect(world.address).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let name = ServerName::IpAddress(world.address.ip().into());
        let opened = timeout(SILENCE_MAX, world.connector.connect(name, tcp)).await;
        let stream = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        Ok(Self { stream: stream.map_err(failed)?, input: Vec::new() })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(SILENCE_MAX, written).await {
            Ok(written) => written.map_err(|error| Fault::new("broken while writing", error.to_string())),
            Err(_) => Err(Fault::new("late", "a write that nobody takes")),
        }
    }

    /// Reads one response; `on` gets pieces of its body and its status, and says whether it has had enough, which is told. Nothing can be asked
    /// over the connection then.
    pub async fn response(&mut self, mut on: impl FnMut(u16, &[u8]) -> Result<bool, Fault>) -> Result<Answered, Fault> {
        let mut reader = ResponseReader::new(Limits::default());
        let (mut status, mut enough, mut reusable) = (0, Ok(false), false);
        loop {
            let read = reader.read(&self.input, |event| match event {
                Event::Head(head) => status = head.status,
                Event::Body(body) => {
                    if matches!(enough, Ok(false)) {
                        enough = on(status, body);
                    }
                }
                Event::End { reusable: can_be } => reusable = can_be,
            });
            let used = read.map_err(|error| Fault::new("malformed", error.to_string()))?;
            self.input.drain(..used);
            if enough? || reader.is_done() {
                return Ok(Answered { status, reusable });
            }
            enough = Ok(false);
            self.fill().await?;
        }
    }

    /// Waits for more bytes.
    async fn fill(&mut self) -> Result<(), Fault> {
        self.input.reserve(READ_BYTES);
        match timeout(SILENCE_MAX, self.stream.read_buf(&mut self.input)).await {
            Ok(Ok(0)) => Err(Fault::new("cut", "the connection ended before its answer")),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Fault::new("cut", error.to_string())),
            Err(_) => Err(Fault::new("late", "no byte for a minute")),
        }
    }

    /// Leaves as a peer does that is shut off: by a reset.
    pub fn reset(self) {
        // Where it fails the socket is closed all the same.
        let _ = self.stream.get_ref().0.set_zero_linger();
    }

    /// Leaves in order.
    pub async fn close(mut self) {
        let _ = self.stream.shutdown().await;
    }
}

/// A response: its status, and whether another request may go out behind it.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    pub status: u16,
    pub reusable: bool,
}

/// One message of the server's, or its end.
pub enum Message {
    Text(Vec<u8>),
    Close { code: u16, reason: String },
}

/// Messages over an upgraded link.
pub struct Messages {
    link: Link,
    deflate: Option<Deflate>,
}

struct Deflate {
    compress: Compress,
    decompress: Decompress,
}

/// A frame as it came: its first byte, and where its payload lies.
struct Frame {
    first: u8,
    start: usize,
    end: usize,
}

impl Messages {
    /// Asks for the upgrade. `Err(status)`: it was refused.
    pub async fn upgrade(mut link: Link, key: &str, chance: &mut Chance) -> Result<Result<Self, u16>, Fault> {
        let offer = if chance.percent(40) { "sec-websocket-extensions: permessage-deflate\r\n" } else { "" };
        let head = format!(
            "GET /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\nauthorization: Bearer {key}\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {}\r\n{offer}\r\n",
            "dGhlIHNhbXBsZSBub25jZQ=="
        );
        link.send(head.as_bytes()).await?;
        let head = loop {
            if let Some(at) = link.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break String::from_utf8_lossy(&link.input.drain(..at + 4).collect::<Vec<_>>()).into_owned();
            }
            link.fill().await?;
        };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        if status != 101 {
            return Ok(Err(status));
        }
        let deflates = head.to_ascii_lowercase().contains("permessage-deflate");
        let (compress, decompress) = (Compress::new(Compression::fast(), false), Decompress::new(false));
        Ok(Ok(Self { link, deflate: deflates.then_some(Deflate { compress, decompress }) }))
    }

    pub async fn send(&mut self, text: &str) -> Result<(), Fault> {
        let frame = match &mut self.deflate {
            Some(deflate) => masked(0xc1, &deflate.deflated(text.as_bytes())?),
            None => masked(0x81, text.as_bytes()),
        };
        self.link.send(&frame).await
    }

    /// A frame as it is, good or bad.
    pub async fn send_frame(&mut self, first: u8, payload: &[u8]) -> Result<(), Fault> {
        self.link.send(&masked(first, payload)).await
    }

    /// The next text or the end; pings are answered.
    pub async fn next(&mut self) -> Result<Message, Fault> {
        loop {
            let Some(Frame { first, start, end }) = frame(&self.link.input) else {
                self.link.fill().await?;
                continue;
            };
            let payload = self.link.input.get(start..end).unwrap_or_default().to_vec();
            self.link.input.drain(..end);
            match (first, &mut self.deflate) {
                (0x81, _) => return Ok(Message::Text(payload)),
                (0xc1, Some(deflate)) => return Ok(Message::Text(deflate.inflated(payload)?)),
                (0x88, _) => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    return Ok(Message::Close { code, reason });
                }
                (0x89, _) => self.send_frame(0x8a, &payload).await?,
                (0x8a, _) => {}
                (other, _) => return Err(Fault::new("malformed", format!("a frame of first byte {other:#x}"))),
            }
        }
    }

    /// Says goodbye, and waits for the server's.
    pub async fn close(mut self) -> Result<(), Fault> {
        self.send_frame(0x88, &1000_u16.to_be_bytes()).await?;
        while !matches!(self.next().await?, Message::Close { .. }) {}
        self.link.close().await;
        Ok(())
    }

    /// Without a goodbye.
    pub async fn leave(self, chance: &mut Chance) {
        if chance.percent(50) { self.link.reset() } else { self.link.close().await }
    }
}

impl Deflate {
    fn deflated(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let done = self.compress.compress_vec(bytes, &mut out, FlushCompress::Sync);
        done.map_err(|error| Fault::new("malformed", error.to_string()))?;
        out.truncate(out.len().saturating_sub(TAIL.len()));
        Ok(out)
    }

    fn inflated(&mut self, mut bytes: Vec<u8>) -> Result<Vec<u8>, Fault> {
        bytes.extend_from_slice(&TAIL);
        let (mut out, begin) = (Vec::new(), self.decompress.total_in());
        loop {
            out.reserve(4 * bytes.len() + 256);
            let taken = usize::try_from(self.decompress.total_in() - begin).unwrap_or(usize::MAX);
            let rest = bytes.get(taken..).unwrap_or_default();
            let done = self.decompress.decompress_vec(rest, &mut out, FlushDecompress::Sync);
            done.map_err(|error| Fault::new("malformed", error.to_string()))?;
            let taken = usize::try_from(self.decompress.total_in() - begin).unwrap_or(usize::MAX);
            if taken >= bytes.len() && out.len() < out.capacity() {
                return Ok(out);
            }
        }
    }
}

/// A client's frame, masked with zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..126), _) => out.push(0x80 | length),
        (_, Ok(length)) => {
            out.push(0xfe);
            out.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(0xff);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

/// The first frame of the input, if it is whole.
fn frame(input: &[u8]) -> Option<Frame> {
    let (&[first, length], rest) = input.split_first_chunk()?;
    let (start, bytes) = match length {
        126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
        length => (2, u64::from(length)),
    };
    let end = start + usize::try_from(bytes).ok()?;
    (input.len() >= end).then_some(Frame { first, start, end })
}
