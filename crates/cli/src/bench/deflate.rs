//! permessage-deflate (RFC 7692) at the client's end, with context takeover both ways. Knows nothing of frames.

use super::Error;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// As Codex asks for it.
pub const OFFER: &str = "permessage-deflate; client_max_window_bits";
/// What every flush ends with and no message carries (7.2.1).
const FLUSH_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Room that a flush never needs all of: a full buffer could hold an unfinished one.
const FLUSH_ROOM_BYTES: usize = 64;
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Messages of one direction, each referring to those before it.
pub struct Deflater(Compress);

impl Default for Deflater {
    fn default() -> Self {
        Self(Compress::new(Compression::default(), false))
    }
}

impl Deflater {
    /// A message's payload.
    ///
    /// # Errors
    /// When the stream is broken.
    pub fn deflate(&mut self, mut message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(message.len() / 2 + FLUSH_ROOM_BYTES);
        loop {
            let before = self.0.total_in();
            self.0.compress_vec(message, &mut out, FlushCompress::Sync).map_err(|_| Error::Deflate)?;
            let used = usize::try_from(self.0.total_in() - before).unwrap_or(usize::MAX);
            message = message.get(used..).unwrap_or_default();
            if message.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(message.len() / 2 + FLUSH_ROOM_BYTES);
        }
        out.truncate(out.len().saturating_sub(FLUSH_TAIL.len()));
        Ok(out)
    }
}

/// The way back.
pub struct Inflater {
    stream: Decompress,
    message: Vec<u8>,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { stream: Decompress::new(false), message: Vec::new() }
    }
}

impl Inflater {
    /// The message of a payload.
    ///
    /// # Errors
    /// When it is no deflate, or too long.
    pub fn inflate(&mut self, payload: &[u8]) -> Result<&[u8], Error> {
        self.message.clear();
        for mut piece in [payload, &FLUSH_TAIL] {
            loop {
                if self.message.len() >= MESSAGE_BYTES_MAX {
                    return Err(Error::Deflate);
                }
                self.message.reserve((4 * piece.len()).max(FLUSH_ROOM_BYTES));
                let before = self.stream.total_in();
                let status = self.stream.decompress_vec(piece, &mut self.message, FlushDecompress::None);
                let used = usize::try_from(self.stream.total_in() - before).unwrap_or(usize::MAX);
                piece = piece.get(used..).unwrap_or_default();
                match status.map_err(|_| Error::Deflate)? {
                    // A last block: the other side began anew (7.2.3.4).
                    Status::StreamEnd => self.stream.reset(false),
                    Status::Ok | Status::BufError => {}
                }
                if piece.is_empty() && self.message.len() < self.message.capacity() {
                    break;
                }
            }
        }
        Ok(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::{frame, whole_frame};
    use super::*;
    use flashlane_wire::websocket::{Decoder, Deflate, Encoder, Event, Limits};

    /// As the first byte of a frame says: final, compressed, text.
    const COMPRESSED_TEXT: u8 = 0xc1;

    #[test]
    fn the_gateways_own_codec_reads_it_and_is_read() {
        let (agreed, answer) = Deflate::negotiate(OFFER).unwrap();
        assert_eq!(answer, "permessage-deflate");
        let (mut decoder, mut encoder) = (Decoder::new(Limits::default(), Some(agreed)), Encoder::new(Some(agreed)));
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        let mut sizes = Vec::new();
        let texts =
            ["{\"text\":\"a word, another word and a word\"}".repeat(3), "x".repeat(300_000), "again ".repeat(40)];
        for text in texts.iter().flat_map(|text| [text, text]) {
            let payload = deflater.deflate(text.as_bytes()).unwrap();
            sizes.push(payload.len());
            let mut read = String::new();
            let on = |event: Event<'_>| match event {
                Event::Text(text) => read.push_str(text),
                Event::Binary(_) | Event::Ping(_) | Event::Pong(_) | Event::Close(_) => panic!("{event:?}"),
            };
            decoder.decode(&mut frame(COMPRESSED_TEXT, &payload), 0, on).unwrap();
            assert!(read == *text, "{} bytes came as {}", text.len(), read.len());
            let mut out = Vec::new();
            let mark = encoder.begin(&mut out);
            out.extend_from_slice(text.as_bytes());
            encoder.finish(mark, &mut out);
            let frame = whole_frame(&out).unwrap();
            assert_eq!(frame.first, COMPRESSED_TEXT);
            assert!(inflater.inflate(frame.payload).unwrap() == text.as_bytes());
        }
        // What was said before costs next to nothing.
        assert!(sizes[1] < sizes[0] / 2, "{sizes:?}");
    }

    #[test]
    fn what_is_no_deflate_is_refused() {
        assert!(Inflater::default().inflate(&[0xff; 40]).is_err());
    }
}
