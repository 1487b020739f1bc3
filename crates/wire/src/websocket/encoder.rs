//! From messages to a server's frames, written in place. Knows nothing of what the client sent.

use super::deflate::{Compressor, Deflate};
use super::frame::{CONTROL_BYTES_MAX, Opcode, ServerHead, first_byte};

/// What `begin` leaves free for the head: the length of the head of a message of 126 to 65,535 bytes, so that most events are never moved.
const HEAD_ROOM_BYTES: usize = 4;
/// A shorter message goes uncompressed: it would win less than a cache line.
const DEFLATE_BYTES_MIN: usize = 64;
/// The same where every message is compressed on its own: clearing the compressor costs more than the network gains on less.
const DEFLATE_ALONE_BYTES_MIN: usize = 512;
/// A larger compressed message does not keep its buffer.
const SCRATCH_KEEP_BYTES: usize = 16 * 1024;

/// Appends frames to an outgoing buffer. Nothing is fragmented; a message is one frame.
pub struct Encoder {
    deflate: Option<Deflate>,
    compressor: Option<Compressor>,
    /// Where a message is compressed to.
    scratch: Vec<u8>,
}

/// The place in the outgoing buffer where an unfinished message begins.
#[must_use = "a message that is begun must be finished"]
pub struct Mark {
    start: usize,
}

impl Encoder {
    /// `deflate` is what was negotiated.
    pub fn new(deflate: Option<Deflate>) -> Self {
        Self { deflate, compressor: None, scratch: Vec::new() }
    }

    /// Begins a message: all that is appended to `out` until `finish` is its payload.
    // hot: per token
    #[inline]
    pub fn begin(&mut self, out: &mut Vec<u8>) -> Mark {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_ROOM_BYTES]);
        Mark { start }
    }

    /// Makes a text message of what was appended since `begin`. That it is UTF-8 is the caller's promise.
    // hot: per token
    #[expect(clippy::needless_pass_by_value, reason = "a mark is used up: a message is finished once")]
    #[inline]
    pub fn finish(&mut self, mark: Mark, out: &mut Vec<u8>) {
        self.seal(Opcode::Text, mark.start, out);
    }

    /// Makes a binary message of what was appended since `begin`.
    #[expect(clippy::needless_pass_by_value, reason = "a mark is used up: a message is finished once")]
    pub fn finish_binary(&mut self, mark: Mark, out: &mut Vec<u8>) {
        self.seal(Opcode::Binary, mark.start, out);
    }

    /// A longer payload than 125 bytes is cut: a pong repeats a ping's, which is never longer.
    pub fn ping(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        control(Opcode::Ping, &[payload], out);
    }

    /// See [`Encoder::ping`].
    pub fn pong(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        control(Opcode::Pong, &[payload], out);
    }

    /// A reason longer than 123 bytes is cut between two characters. Nothing may be sent after this.
    pub fn close(&mut self, code: u16, reason: &str, out: &mut Vec<u8>) {
        let end = reason.floor_char_boundary(CONTROL_BYTES_MAX - 2);
        let reason = reason.get(..end).unwrap_or_default();
        control(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()], out);
    }

    /// Between turns: drops the compressor's memory. The next message refers to none before it, which the client's inflater need not know.
    pub fn rest(&mut self) {
        self.compressor = None;
        self.scratch = Vec::new();
    }

    #[inline]
    fn seal(&mut self, opcode: Opcode, start: usize, out: &mut Vec<u8>) {
        let Some(payload_bytes) = out.len().checked_sub(start + HEAD_ROOM_BYTES) else {
            debug_assert!(false, "the outgoing buffer was cut inside a message");
            return;
        };
        if let Some(deflate) = self.deflate
            && self.seal_compressed(&deflate, opcode, start, out)
        {
            return;
        }
        put_head(first_byte(opcode, false), start, payload_bytes, out);
    }

    /// Replaces the message by a compressed frame; false if it is too short for that.
    fn seal_compressed(&mut self, deflate: &Deflate, opcode: Opcode, start: usize, out: &mut Vec<u8>) -> bool {
        let payload = out.get(start + HEAD_ROOM_BYTES..).unwrap_or_default();
        let bytes_min = if deflate.server_takeover { DEFLATE_BYTES_MIN } else { DEFLATE_ALONE_BYTES_MIN };
        if payload.len() < bytes_min {
            return false;
        }
        let compressor = self.compressor.get_or_insert_with(|| Compressor::new(deflate));
        if compressor.compress(payload, &mut self.scratch).is_err() {
            // What it holds now is unknown to the client, so it goes; this message is still whole.
            self.compressor = None;
            return false;
        }
        if !deflate.server_takeover {
            compressor.reset();
        }
        out.truncate(start);
        out.extend_from_slice(ServerHead::new(first_byte(opcode, true), self.scratch.len()).bytes());
        out.extend_from_slice(&self.scratch);
        if self.scratch.capacity() > SCRATCH_KEEP_BYTES {
            self.scratch = Vec::new();
        }
        true
    }
}

/// Writes the head before the payload, which is moved if the room that `begin` left is not the head's length.
#[inline]
fn put_head(first: u8, start: usize, payload_bytes: usize, out: &mut Vec<u8>) {
    let head = ServerHead::new(first, payload_bytes);
    let payload = start + HEAD_ROOM_BYTES..start + HEAD_ROOM_BYTES + payload_bytes;
    let end = start + head.bytes().len() + payload_bytes;
    match head {
        ServerHead::Middle(_) => {}
        ServerHead::Short(_) => {
            out.copy_within(payload, end - payload_bytes);
            out.truncate(end);
        }
        ServerHead::Long(_) => {
            out.resize(end, 0);
            out.copy_within(payload, end - payload_bytes);
        }
    }
    if let Some(room) = out.get_mut(start..end - payload_bytes) {
        room.copy_from_slice(head.bytes());
    }
}

fn control(opcode: Opcode, parts: &[&[u8]], out: &mut Vec<u8>) {
    let payload_bytes = parts.iter().map(|part| part.len()).sum::<usize>().min(CONTROL_BYTES_MAX);
    out.extend_from_slice(ServerHead::new(first_byte(opcode, false), payload_bytes).bytes());
    out.extend(parts.iter().copied().flatten().take(payload_bytes));
}
