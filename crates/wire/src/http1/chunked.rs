//! The chunked transfer coding (RFC 9112, section 7.1), one byte at a time beside the chunks' own bytes.
//!
//! Knows nothing of heads or of who gets the bytes. Extensions and trailers are skipped, within limits. Line ends are CRLF and nothing else:
//! a reader that is lenient here can be made to disagree with another about where a response ends.

use super::response::{Error, Limits};

/// ```text
/// Begin ──digit──► Size ──blank──► Blank ──;──► Extension
///   ▲               │ CR            │ CR           │ CR
///   │               ▼◄──────────────┴──────────────┘
///   │             SizeLf ──► Data ──all of it──► DataCr ──► DataLf ──► Begin
///   │               └──size 0──► LineStart ◄──LF── TrailerLf ◄──CR── Trailer
///   │                              └──CR──► EndLf ──► End             ▲
///   │                              └──other byte──────────────────────┘
/// first chunk
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    Begin,
    /// `line_bytes` counts the size line so far.
    Size {
        size: u64,
        line_bytes: usize,
    },
    Blank {
        size: u64,
        line_bytes: usize,
    },
    Extension {
        size: u64,
        line_bytes: usize,
    },
    SizeLf {
        size: u64,
    },
    /// `left` is not 0.
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// `bytes` counts all trailer lines so far.
    LineStart {
        bytes: usize,
    },
    Trailer {
        bytes: usize,
    },
    TrailerLf {
        bytes: usize,
    },
    EndLf,
    End,
}

impl Chunked {
    /// The place behind `byte`. Not asked in `Data`, whose bytes are taken together, nor at the `End`.
    // hot: per token
    pub(super) fn next(self, byte: u8, limits: &Limits) -> Result<Self, Error> {
        let line = |line_bytes| more(line_bytes, limits.chunk_line_bytes_max, Error::ChunkLineTooLong);
        let trailer = |bytes| more(bytes, limits.trailer_bytes_max, Error::TrailerTooLong);
        match (self, byte) {
            (Self::Begin, _) => Ok(Self::Size { size: digit(byte).ok_or(Error::ChunkSize)?, line_bytes: 1 }),
            (Self::Size { size, .. } | Self::Blank { size, .. } | Self::Extension { size, .. }, b'\r') => {
                Ok(Self::SizeLf { size })
            }
            (Self::Size { size, line_bytes } | Self::Blank { size, line_bytes }, b' ' | b'\t') => {
                Ok(Self::Blank { size, line_bytes: line(line_bytes)? })
            }
            (Self::Size { size, line_bytes } | Self::Blank { size, line_bytes }, b';') => {
                Ok(Self::Extension { size, line_bytes: line(line_bytes)? })
            }
            (Self::Size { size, line_bytes }, _) => {
                let digit = digit(byte).ok_or(Error::ChunkSize)?;
                let size = size.checked_mul(16).ok_or(Error::ChunkSize)? + digit;
                Ok(Self::Size { size, line_bytes: line(line_bytes)? })
            }
            (Self::Extension { size, line_bytes }, _) if byte != b'\n' => {
                Ok(Self::Extension { size, line_bytes: line(line_bytes)? })
            }
            (Self::Blank { .. } | Self::Extension { .. }, _) => Err(Error::ChunkSize),

            (Self::SizeLf { size: 0 }, b'\n') => Ok(Self::LineStart { bytes: 0 }),
            (Self::SizeLf { size }, b'\n') => Ok(Self::Data { left: size }),
            (Self::SizeLf { .. }, _) => Err(Error::ChunkSize),

            (Self::DataCr, b'\r') => Ok(Self::DataLf),
            (Self::DataLf, b'\n') => Ok(Self::Begin),
            (Self::DataCr | Self::DataLf, _) => Err(Error::ChunkEnd),

            (Self::LineStart { .. }, b'\r') => Ok(Self::EndLf),
            (Self::Trailer { bytes }, b'\r') => Ok(Self::TrailerLf { bytes: trailer(bytes)? }),
            (Self::TrailerLf { bytes }, b'\n') => Ok(Self::LineStart { bytes: trailer(bytes)? }),
            (Self::LineStart { bytes } | Self::Trailer { bytes }, _) if byte != b'\n' => {
                Ok(Self::Trailer { bytes: trailer(bytes)? })
            }
            (Self::EndLf, b'\n') => Ok(Self::End),
            (Self::LineStart { .. } | Self::Trailer { .. } | Self::TrailerLf { .. } | Self::EndLf, _) => {
                Err(Error::Trailer)
            }
            (at @ (Self::Data { .. } | Self::End), _) => Ok(at),
        }
    }
}

/// A hexadecimal digit's worth.
pub(super) fn digit(byte: u8) -> Option<u64> {
    match byte {
        b'0'..=b'9' => Some(u64::from(byte - b'0')),
        b'a'..=b'f' => Some(u64::from(byte - b'a') + 10),
        b'A'..=b'F' => Some(u64::from(byte - b'A') + 10),
        _ => None,
    }
}

fn more(bytes: usize, bytes_max: usize, error: Error) -> Result<usize, Error> {
    if bytes < bytes_max { Ok(bytes + 1) } else { Err(error) }
}
