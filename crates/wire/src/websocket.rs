//! RFC 6455's server side with permessage-deflate (RFC 7692), as a codec over bytes.
//!
//! A [`Decoder`] takes what the client sent, in any split, and gives whole messages and control frames; an [`Encoder`] appends frames to
//! the connection's outgoing buffer. Knows nothing of sockets, of the HTTP request that asks for the upgrade (beside two of its headers,
//! `Sec-WebSocket-Key` and `Sec-WebSocket-Extensions`), of clocks, and of what the messages mean.

mod decoder;
mod deflate;
mod encoder;
mod frame;
mod handshake;

pub use decoder::Decoder;
pub use deflate::Deflate;
pub use encoder::{Encoder, Mark};
pub use frame::close_code;
pub use handshake::accept_key;

/// What one client may ask of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message, in bytes after inflating. The decoder never holds more than this.
    pub message_bytes_max: usize,
    /// The most frames one message may come in.
    pub message_fragments_max: u32,
    /// The most pings within one second.
    pub pings_per_second_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message_bytes_max: 16 * 1024 * 1024, message_fragments_max: 4096, pings_per_second_max: 32 }
    }
}

/// What came from the client. It borrows from the decoder's input or its buffer and is gone after the callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The client sends nothing after this. To be answered by a close frame, unless one was sent already.
    Close(Option<CloseFrame<'a>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    pub code: u16,
    pub reason: &'a str,
}

/// What the client did wrong. The connection cannot go on: send a close frame with [`Error::close_code`], then close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a frame from the client is not masked")]
    Unmasked,
    #[error("a frame has reserved bits set that no negotiated extension gives a meaning")]
    ReservedBits,
    #[error("a frame has the reserved opcode {0:#x}")]
    ReservedOpcode(u8),
    #[error("a frame's length is not written in its shortest form, or is over 2^63")]
    BadLength,
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    #[error("a control frame is fragmented")]
    ControlFragmented,
    #[error("a continuation frame has no message to continue")]
    NothingToContinue,
    #[error("a new message begins before the last one has ended")]
    MessageNotEnded,
    #[error("a close frame's payload is one byte long")]
    BadClose,
    #[error("a close frame has the code {0}, which may not be sent")]
    BadCloseCode(u16),
    #[error("a text is not UTF-8")]
    BadUtf8,
    #[error("a compressed message is not a deflate stream")]
    BadDeflate,
    #[error("a message is longer than {bytes_max} bytes")]
    MessageTooLong { bytes_max: usize },
    #[error("a message comes in more than {fragments_max} frames")]
    TooManyFragments { fragments_max: u32 },
    #[error("more than {per_second_max} pings within a second")]
    PingFlood { per_second_max: u32 },
}

impl Error {
    /// The code to close the connection with.
    pub fn close_code(&self) -> u16 {
        match self {
            Self::Unmasked
            | Self::ReservedBits
            | Self::ReservedOpcode(_)
            | Self::BadLength
            | Self::ControlTooLong
            | Self::ControlFragmented
            | Self::NothingToContinue
            | Self::MessageNotEnded
            | Self::BadClose
            | Self::BadCloseCode(_) => close_code::PROTOCOL_ERROR,
            Self::BadUtf8 | Self::BadDeflate => close_code::INVALID_PAYLOAD,
            Self::MessageTooLong { .. } => close_code::TOO_BIG,
            Self::TooManyFragments { .. } | Self::PingFlood { .. } => close_code::POLICY,
        }
    }
}
