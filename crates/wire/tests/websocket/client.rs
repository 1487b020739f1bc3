//! A client made by hand: frames as bytes, a deflate stream of its own, and owned events to compare.

use flashlane_wire::websocket::{Decoder, Deflate, Error, Event, Limits};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::chance::Chance;

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CONTINUATION: u8 = 0x0;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;
pub const FIN: u8 = 0x80;
pub const RSV1: u8 = 0x40;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl Seen {
    pub fn of(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(frame) => Self::Close(frame.map(|frame| (frame.code, frame.reason.to_owned()))),
        }
    }
}

/// A frame as a client sends it; `first` is its first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = head(first, payload.len() as u64, mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

pub fn head(first: u8, payload_bytes: u64, mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload_bytes {
        0..126 => bytes.push(0x80 | payload_bytes as u8),
        126..65_536 => {
            bytes.push(0xfe);
            bytes.extend((payload_bytes as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xff);
            bytes.extend(payload_bytes.to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes
}

pub fn negotiated(offer: &str) -> Deflate {
    Deflate::negotiate(offer).unwrap().0
}

/// One decoder's life over whole input.
pub fn decode(limits: Limits, deflate: Option<Deflate>, bytes: &[u8]) -> (Vec<Seen>, Result<(), Error>) {
    decode_pieces(limits, deflate, bytes, &[])
}

/// One decoder's life over input cut at these places, which are in order.
pub fn decode_pieces(
    limits: Limits,
    deflate: Option<Deflate>,
    bytes: &[u8],
    cuts: &[usize],
) -> (Vec<Seen>, Result<(), Error>) {
    let mut decoder = Decoder::new(limits, deflate);
    let mut seen = Vec::new();
    let mut begin = 0;
    for &end in cuts.iter().chain([&bytes.len()]) {
        let mut piece = bytes[begin..end].to_vec();
        if let Err(error) = decoder.decode(&mut piece, 0, |event| seen.push(Seen::of(event))) {
            return (seen, Err(error));
        }
        begin = end;
    }
    (seen, Ok(()))
}

/// What a server sent, as first bytes and payloads.
pub fn server_frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, short, rest @ ..] = bytes {
        let (length, rest) = match short {
            126 => (u64::from(u16::from_be_bytes(rest[..2].try_into().unwrap())), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()), &rest[8..]),
            short => (u64::from(*short), rest),
        };
        frames.push((*first, rest[..length as usize].to_vec()));
        bytes = &rest[length as usize..];
    }
    assert!(bytes.is_empty());
    frames
}

/// A client's compressor: one raw deflate stream.
pub struct Compressor(Compress);

impl Compressor {
    pub fn new() -> Self {
        Self(Compress::new(Compression::default(), false))
    }

    /// A message's compressed payload.
    pub fn message(&mut self, payload: &[u8]) -> Vec<u8> {
        if payload.is_empty() {
            // RFC 7692, 7.2.3.6. A second flush of nothing would write nothing.
            return vec![0x00];
        }
        let mut out = Vec::with_capacity(payload.len() * 2 + 64);
        self.0.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
        assert!(out.len() < out.capacity() && out.ends_with(&[0, 0, 0xff, 0xff]));
        out.truncate(out.len() - 4);
        out
    }
}

/// A client's inflater.
pub struct Inflater(Decompress);

impl Inflater {
    pub fn new() -> Self {
        Self(Decompress::new(false))
    }

    pub fn message(&mut self, compressed: &[u8], bytes_max: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes_max + 64);
        for piece in [compressed, &[0, 0, 0xff, 0xff]] {
            let before = self.0.total_in();
            self.0.decompress_vec(piece, &mut out, FlushDecompress::None).unwrap();
            assert_eq!(self.0.total_in() - before, piece.len() as u64);
        }
        out
    }
}

/// Text that compresses somewhat, with characters of one to four bytes.
pub fn text(chance: &mut Chance, words: usize) -> String {
    let vocabulary = ["delta", "\"type\":", "é", "語", "🦀", " ", "response.output_text", "\n"];
    (0..words).map(|_| vocabulary[chance.below(vocabulary.len())]).collect()
}

/// Bytes that do not compress.
pub fn noise(chance: &mut Chance, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| chance.below(256) as u8).collect()
}
