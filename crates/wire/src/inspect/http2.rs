//! HTTP/2 frames by their heads ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113)): how many ask for work and bring nothing. What they
//! say is left to the HTTP library, which bounds what they hold, but not how often they come.

use super::Fault;

const HEAD_BYTES: usize = 9;
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
/// Of DATA.
const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING: an answer to ours.
const ACK: u8 = 0x1;

/// The frames of one connection, behind its preface.
#[derive(Default)]
pub(super) struct Frames {
    /// How many bytes of the head have come, and the first five.
    head_bytes: usize,
    head: [u8; 5],
    left_bytes: usize,
    is_spoilt: bool,
    second_began_ms: u64,
    count: u32,
}

impl Frames {
    /// How many bytes may be handed on, and why no more.
    pub(super) fn inspect(&mut self, bytes: &mut [u8], now_ms: u64, per_second_max: u32) -> (usize, Option<Fault>) {
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            if self.head_bytes < HEAD_BYTES {
                self.head_byte(rest, now_ms, per_second_max);
                at += 1;
            } else {
                let here = self.left_bytes.min(rest.len());
                self.left_bytes -= here;
                at += here;
            }
            if self.head_bytes == HEAD_BYTES && self.left_bytes == 0 {
                if self.is_spoilt {
                    return (at, Some(Fault::ControlFrames));
                }
                self.head_bytes = 0;
            }
        }
        (at, None)
    }

    /// Takes one byte of a frame's head. One frame too many is given a stream that it cannot have: what is answered is GOAWAY.
    fn head_byte(&mut self, rest: &mut [u8], now_ms: u64, per_second_max: u32) {
        let Some(byte) = rest.first_mut() else { return };
        if let Some(room) = self.head.get_mut(self.head_bytes) {
            *room = *byte;
        } else if self.is_spoilt {
            let is_last = self.head_bytes + 1 == HEAD_BYTES;
            let [.., kind, _] = self.head;
            *byte = u8::from(is_last && matches!(kind, SETTINGS | PING | GOAWAY));
        }
        self.head_bytes += 1;
        if self.head_bytes == self.head.len() {
            let [a, b, c, kind, flags] = self.head;
            self.left_bytes = u32::from_be_bytes([0, a, b, c]) as usize;
            self.is_spoilt = is_idle(kind, flags, self.left_bytes) && self.is_one_too_many(now_ms, per_second_max);
        }
    }

    fn is_one_too_many(&mut self, now_ms: u64, per_second_max: u32) -> bool {
        if now_ms.saturating_sub(self.second_began_ms) >= 1000 {
            (self.second_began_ms, self.count) = (now_ms, 0);
        }
        self.count += 1;
        self.count > per_second_max
    }
}

/// Whether such a frame brings nothing. WINDOW_UPDATE is how a client says that it reads, and follows what we sent.
fn is_idle(kind: u8, flags: u8, length: usize) -> bool {
    match kind {
        DATA => length == 0 && flags & END_STREAM == 0,
        SETTINGS | PING => flags & ACK == 0,
        HEADERS | GOAWAY | WINDOW_UPDATE => false,
        // RST_STREAM, PRIORITY, CONTINUATION, PUSH_PROMISE and what is unknown.
        _ => true,
    }
}
