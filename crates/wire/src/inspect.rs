//! What a client sends, looked at before the HTTP library reads it: what two servers could read in two ways (RFC 9112, 11.2), or what
//! costs more than it says, goes no further. So a library that is lenient here or there never gets to show it.
//!
//! Bytes only: knows no socket, no route, and not what is answered. It spoils the offending bytes in place, in a way that every HTTP
//! library refuses, so that the answer is the library's own: 400 over HTTP/1.1, GOAWAY over HTTP/2.

mod http1;
mod http2;

use http1::{Lines, Step};
use http2::Frames;

/// What one connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest line of a head, in bytes: more than the HTTP library takes, which has an answer of its own to that.
    pub line_bytes_max: usize,
    /// The most HTTP/2 frames in one second that ask for work and bring nothing: PING, SETTINGS, RST_STREAM, PRIORITY, CONTINUATION, empty
    /// DATA, and those that nobody knows.
    pub control_frames_per_second_max: u32,
}

/// Why a connection is not read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A line that ends in LF alone.
    BareLf,
    /// A line beyond [`Limits::line_bytes_max`].
    LongLine,
    /// No method, target and version with one space between them, or a target or version that is not served.
    RequestLine,
    /// A field without a name, with blanks around it, folded, or with control characters.
    Field,
    /// None, two, one that is no host, or another than the target's.
    Host,
    /// Two lengths, a length beside a coding, a length that is no number, or a coding that is not `chunked` alone.
    Framing,
    /// A chunk's size, its extension or its end.
    Chunk,
    /// A handshake that brings a body.
    Upgrade,
    /// More than [`Limits::control_frames_per_second_max`].
    ControlFrames,
}

/// One connection's inbound bytes; see the module.
///
/// ```text
/// Http1 ──the HTTP/2 preface as its first bytes──▶ Http2
///   │ └──a WebSocket handshake──▶ Passed            │
///   └──────────── a fault ────────────▶ Refused ◀───┘
/// ```
pub struct Inspector {
    limits: Limits,
    state: State,
}

enum State {
    Http1(Lines),
    Http2(Frames),
    /// Whatever follows is no HTTP, or is not read: whoever refuses the handshake must close the connection.
    Passed,
    Refused(Fault),
}

impl Inspector {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Http1(Lines::default()) }
    }

    /// Looks at the next bytes, in any split, and tells how many of them may be handed on, the spoilt ones among them. Fewer than all: there
    /// is a [`Self::fault`], and of what comes later nothing may be. `now_ms` is any clock that does not go back.
    pub fn inspect(&mut self, bytes: &mut [u8], now_ms: u64) -> usize {
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            match &mut self.state {
                State::Passed => return at + rest.len(),
                State::Refused(_) => return at,
                State::Http2(frames) => {
                    let (taken, fault) = frames.inspect(rest, now_ms, self.limits.control_frames_per_second_max);
                    self.state =
                        fault.map_or_else(|| std::mem::replace(&mut self.state, State::Passed), State::Refused);
                    return at + taken;
                }
                State::Http1(lines) => match lines.advance(rest, self.limits.line_bytes_max) {
                    Step::Read(bytes) => at += bytes,
                    Step::Http2(bytes) => (at, self.state) = (at + bytes, State::Http2(Frames::default())),
                    Step::Upgrade(bytes) => (at, self.state) = (at + bytes, State::Passed),
                    Step::Fault(bytes, fault) => (at, self.state) = (at + bytes, State::Refused(fault)),
                },
            }
        }
        at
    }

    /// Why nothing more is handed on.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match self.state {
            State::Refused(fault) => Some(fault),
            State::Http1(_) | State::Http2(_) | State::Passed => None,
        }
    }
}
