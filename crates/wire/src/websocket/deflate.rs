//! permessage-deflate (RFC 7692): its negotiation, and both directions of its stream. Knows nothing of frames.

use flate2::{Compress, CompressError, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Error;

/// What every flush ends with and no message carries (RFC 7692, 7.2.1).
const FLUSH_TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// flate2 makes no smaller window, so an offer that asks for 8 bits is declined.
const WINDOW_BITS_MIN: u8 = 9;
const WINDOW_BITS_MAX: u8 = 15;
/// Room that a flush never needs all of, whatever the message: with less, a full buffer could be taken for an unfinished flush.
const FLUSH_ROOM_BYTES: usize = 64;

/// The parameters that both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The client's messages refer to its earlier ones, so the inflater lives as long as the connection.
    pub(super) client_takeover: bool,
    /// Ours may refer to our earlier ones.
    pub(super) server_takeover: bool,
    server_window_bits: u8,
}

impl Deflate {
    /// Takes the first acceptable offer of a request's `Sec-WebSocket-Extensions` (several such headers joined by commas) and returns it
    /// with the response's header value; `None` if there is none, and then the response has no such header.
    ///
    /// The client's window is left to the client: the inflater always has the largest, at the same memory.
    pub fn negotiate(offer_header: &str) -> Option<(Self, String)> {
        split_unquoted(offer_header, ',').find_map(Self::accept)
    }

    fn accept(offer: &str) -> Option<(Self, String)> {
        let mut parts = split_unquoted(offer, ';').map(str::trim);
        if parts.next()? != "permessage-deflate" {
            return None;
        }
        let (mut client_no_takeover, mut server_no_takeover) = (None, None);
        let (mut client_window_bits, mut server_window_bits) = (None, None);
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(unquote(value.trim_start())?)),
                None => (part, None),
            };
            let repeated = match (name, value) {
                ("client_no_context_takeover", None) => client_no_takeover.replace(()).is_some(),
                ("server_no_context_takeover", None) => server_no_takeover.replace(()).is_some(),
                ("client_max_window_bits", None) => client_window_bits.replace(WINDOW_BITS_MAX).is_some(),
                ("client_max_window_bits", Some(value)) => client_window_bits.replace(window_bits(value)?).is_some(),
                ("server_max_window_bits", Some(value)) => server_window_bits.replace(window_bits(value)?).is_some(),
                _ => return None,
            };
            if repeated {
                return None;
            }
        }
        if server_window_bits.is_some_and(|bits| bits < WINDOW_BITS_MIN) {
            return None;
        }
        let mut response = String::from("permessage-deflate");
        if server_no_takeover.is_some() {
            response.push_str("; server_no_context_takeover");
        }
        if client_no_takeover.is_some() {
            response.push_str("; client_no_context_takeover");
        }
        if let Some(bits) = server_window_bits {
            response.push_str("; server_max_window_bits=");
            response.push_str(itoa::Buffer::new().format(bits));
        }
        let deflate = Self {
            client_takeover: client_no_takeover.is_none(),
            server_takeover: server_no_takeover.is_none(),
            server_window_bits: server_window_bits.unwrap_or(WINDOW_BITS_MAX),
        };
        Some((deflate, response))
    }
}

/// The parts of a header value between separators that stand in no quoted string. What is quoted must be a token too (RFC 6455, 9.1), so
/// it has no quote within.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character| {
        quoted ^= character == '"';
        character == separator && !quoted
    })
    .map(str::trim)
}

/// A parameter's value without its quotes.
fn unquote(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(value),
    }
}

/// RFC 7692, 7.1.2: 8 to 15, decimal, no leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    let plain = !value.starts_with('0') && value.bytes().all(|byte| byte.is_ascii_digit());
    let bits: u8 = value.parse().ok().filter(|_| plain)?;
    (8..=WINDOW_BITS_MAX).contains(&bits).then_some(bits)
}

/// The client's stream. 52 KB at any window, so it is made when the first compressed message comes.
pub(super) struct Inflater(Box<Decompress>);

impl Inflater {
    pub fn new() -> Self {
        Self(Box::new(Decompress::new(false)))
    }

    /// Appends a piece's inflated bytes to `out`, which stops growing right after `bytes_max`: a small message cannot unpack to a large one.
    pub fn inflate(&mut self, mut piece: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), Error> {
        loop {
            if out.len() == out.capacity() {
                let wanted = (4 * piece.len()).max(out.capacity()).max(512);
                out.reserve_exact(wanted.min(bytes_max.saturating_add(1) - out.len()));
            }
            let before = self.0.total_in();
            let status = self.0.decompress_vec(piece, out, FlushDecompress::None);
            let used = (self.0.total_in() - before) as usize;
            piece = piece.get(used..).unwrap_or_default();
            if out.len() > bytes_max {
                return Err(Error::MessageTooLong { bytes_max });
            }
            match status.map_err(|_| Error::BadDeflate)? {
                // A block marked as the last (7.2.3.4). The client's compressor has begun anew, and so does this.
                Status::StreamEnd => self.0.reset(false),
                Status::Ok | Status::BufError => {
                    let stuck = used == 0 && out.len() < out.capacity();
                    if stuck && !piece.is_empty() {
                        return Err(Error::BadDeflate);
                    }
                }
            }
            // A full buffer may leave output behind, and how full it is must not depend on how the client's bytes were cut.
            if piece.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }

    /// Ends a message: puts back what the client left out.
    pub fn end_message(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<(), Error> {
        self.inflate(&FLUSH_TAIL, out, bytes_max)
    }
}

/// Our stream. 260 to 414 KB, so it is made when first used and dropped between turns.
pub(super) struct Compressor(Box<Compress>);

impl Compressor {
    /// Level 1: 120 ns for an event of a token, and the events are so alike that a higher level gains little.
    pub fn new(deflate: &Deflate) -> Self {
        Self(Box::new(Compress::new_with_window_bits(Compression::fast(), false, deflate.server_window_bits)))
    }

    /// Forgets the earlier messages.
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// Replaces `out` by the message's compressed payload. After an error the stream is of no more use.
    pub fn compress(&mut self, mut payload: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
        out.clear();
        out.reserve(payload.len() / 4 + FLUSH_ROOM_BYTES);
        loop {
            let before = self.0.total_in();
            self.0.compress_vec(payload, out, FlushCompress::Sync)?;
            let used = (self.0.total_in() - before) as usize;
            payload = payload.get(used..).unwrap_or_default();
            if payload.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(payload.len() / 2 + FLUSH_ROOM_BYTES);
        }
        debug_assert!(out.ends_with(&FLUSH_TAIL), "a flush ends with an empty stored block");
        out.truncate(out.len().saturating_sub(FLUSH_TAIL.len()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(offer: &str) -> Option<(bool, bool, u8, String)> {
        let (deflate, response) = Deflate::negotiate(offer)?;
        Some((deflate.client_takeover, deflate.server_takeover, deflate.server_window_bits, response))
    }

    #[test]
    fn an_offer_is_answered_with_what_it_asks_for() {
        let cases = [
            ("permessage-deflate", true, true, 15, "permessage-deflate"),
            ("permessage-deflate; client_max_window_bits", true, true, 15, "permessage-deflate"),
            ("permessage-deflate;client_max_window_bits = \"10\"", true, true, 15, "permessage-deflate"),
            ("permessage-deflate; client_max_window_bits=8", true, true, 15, "permessage-deflate"),
            (
                "permessage-deflate; server_no_context_takeover",
                true,
                false,
                15,
                "permessage-deflate; server_no_context_takeover",
            ),
            (
                "permessage-deflate; client_no_context_takeover; server_max_window_bits=\"9\"",
                false,
                true,
                9,
                "permessage-deflate; client_no_context_takeover; server_max_window_bits=9",
            ),
            ("x-webkit-deflate-frame, permessage-deflate", true, true, 15, "permessage-deflate"),
            (
                "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=12",
                true,
                true,
                12,
                "permessage-deflate; server_max_window_bits=12",
            ),
            ("other; quoted=\"a, permessage-deflate; b\", permessage-deflate", true, true, 15, "permessage-deflate"),
        ];
        for (offer, client, server, bits, response) in cases {
            assert_eq!(negotiate(offer), Some((client, server, bits, response.to_owned())), "{offer}");
        }
    }

    #[test]
    fn an_offer_that_cannot_be_kept_is_declined() {
        let offers = [
            "",
            "permessage-bzip2",
            "permessage-deflate-frame",
            "permessage-deflate; unknown",
            "permessage-deflate; ",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=\"9",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "other; quoted=\"permessage-deflate, permessage-deflate\"",
        ];
        for offer in offers {
            assert_eq!(negotiate(offer), None, "{offer}");
        }
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn a_window_of_any_negotiated_size_is_kept_to() {
        for bits in WINDOW_BITS_MIN..=WINDOW_BITS_MAX {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            let mut compressor = Compressor::new(&Deflate::negotiate(&offer).unwrap().0);
            let mut compressed_bytes = |payload: &[u8]| {
                let (mut compressed, mut inflated) = (Vec::new(), Vec::new());
                compressor.compress(payload, &mut compressed).unwrap();
                let mut inflater = Inflater::new();
                inflater.inflate(&compressed, &mut inflated, payload.len()).unwrap();
                inflater.end_message(&mut inflated, payload.len()).unwrap();
                assert!(inflated == payload, "{bits} bits");
                compressor.reset();
                compressed.len()
            };
            // What repeats from within the window is found again, before and after a reset; what repeats from beyond it is not.
            let (near, far) = ((1 << bits) / 4, (1 << bits) + 10);
            assert!(compressed_bytes(&noise(near).repeat(2)) < near * 3 / 2, "{bits} bits");
            assert!(compressed_bytes(&noise(far).repeat(2)) >= far * 2, "{bits} bits");
        }
    }

    #[test]
    fn what_a_piece_inflates_to_does_not_depend_on_the_room_there_was() {
        let mut compressed = Vec::new();
        let mut compressor = Compressor::new(&Deflate::negotiate("permessage-deflate").unwrap().0);
        compressor.compress(&[&[b'a'; 300][..], b"bcd", &[b'e'; 300]].concat(), &mut compressed).unwrap();
        for end in 0..compressed.len() {
            let inflate = |room_bytes: usize| {
                let mut out = Vec::with_capacity(room_bytes);
                Inflater::new().inflate(&compressed[..end], &mut out, 10_000).unwrap();
                out
            };
            let expected = inflate(1_000);
            for room_bytes in 0..700 {
                assert!(inflate(room_bytes) == expected, "{end} bytes, room for {room_bytes}");
            }
        }
    }

    #[test]
    fn a_message_that_unpacks_beyond_the_limit_is_cut_off_there() {
        let mut compressor = Compressor::new(&Deflate::negotiate("permessage-deflate").unwrap().0);
        let mut bomb = Vec::new();
        compressor.compress(&vec![0; 10_000_000], &mut bomb).unwrap();
        assert!(bomb.len() < 100_000);
        for bytes_max in [0, 1, 1_000, 100_000] {
            let mut out = Vec::new();
            let error = Inflater::new().inflate(&bomb, &mut out, bytes_max);
            assert_eq!(error, Err(Error::MessageTooLong { bytes_max }));
            assert!(out.capacity() <= bytes_max + 1);
        }
        let mut out = Vec::new();
        Inflater::new().inflate(&bomb, &mut out, 10_000_000).unwrap();
        assert_eq!(out.len(), 10_000_000);
    }
}
