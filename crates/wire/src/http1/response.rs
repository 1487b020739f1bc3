//! The reader of one connection's responses: bytes, in any split, to a head, pieces of the body and an end.
//!
//! Knows nothing of requests: its user sends one, reads to `End`, calls [`ResponseReader::reset`] and sends the next. Pipelining is not meant;
//! bytes that come behind an `End` before another request was sent are nobody's, and the connection is not to be used again.

use super::chunked::{Chunked, digit};
use super::head::{self, Framing, Head, Parsed};

/// What every response begins with.
const START: &[u8] = b"HTTP/1.";

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Status line and fields with the empty line behind them.
    pub head_bytes_max: usize,
    pub headers_max: usize,
    /// A chunk's size with its extensions.
    pub chunk_line_bytes_max: usize,
    /// All trailer fields of a response.
    pub trailer_bytes_max: usize,
    /// 1xx heads skipped before the response.
    pub interim_heads_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            headers_max: 128,
            chunk_line_bytes_max: 4 * 1024,
            trailer_bytes_max: 16 * 1024,
            interim_heads_max: 8,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Head(Head),
    /// A piece of the body, never empty, lent from the input.
    Body(&'a [u8]),
    /// The response is whole. `reusable`: its sender lets the connection stay open, and left no doubt about where the response ends.
    End {
        reusable: bool,
    },
}

/// After any of these the connection is lost: the reader says the same to all that follows, until it is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("not a response of HTTP/1")]
    NotHttp,
    #[error("a response head of more than {head_bytes_max} bytes")]
    HeadTooLong { head_bytes_max: usize },
    #[error("a response head of more than {headers_max} fields")]
    HeadersTooMany { headers_max: usize },
    #[error("a malformed response head")]
    Head(#[source] httparse::Error),
    #[error("a response head that ends in its middle")]
    HeadCut,
    #[error("status {0} does not exist")]
    Status(u16),
    #[error("the upstream switched protocols unasked")]
    Upgrade,
    #[error("too many interim responses")]
    InterimTooMany,
    #[error("a content-length that is not one number")]
    ContentLength,
    #[error("a transfer-encoding other than chunked")]
    TransferEncoding,
    #[error("a malformed chunk size")]
    ChunkSize,
    #[error("a chunk size line that is too long")]
    ChunkLineTooLong,
    #[error("a chunk longer or shorter than its size")]
    ChunkEnd,
    #[error("a malformed trailer")]
    Trailer,
    #[error("a trailer that is too long")]
    TrailerTooLong,
    /// Not one byte of a response came. The only error after which a request may be sent again on another connection.
    #[error("the connection was closed before a response began")]
    Closed,
    #[error("the connection was closed within a response")]
    Cut,
}

/// ```text
/// Head ──204, 304, length 0──────────────────────────► Done ──reset──► Head
///   ├──► Length ──all of it───────────────────────────►│
///   ├──► Chunked ──last chunk, trailers───────────────►│
///   └──► UntilClose ──end of input────────────────────►┘
/// any but Done ──malformed, beyond a limit, cut──► Failed
/// ```
#[derive(Clone, Copy, Debug)]
enum State {
    Head {
        interim_heads: usize,
    },
    /// `left` is not 0.
    Length {
        left: u64,
        reusable: bool,
    },
    Chunked {
        at: Chunked,
        reusable: bool,
    },
    UntilClose,
    Done,
    Failed(Error),
}

/// Reads the responses of one connection, one after the other. Holds a part of a head at most, within the limit.
#[derive(Debug)]
pub struct ResponseReader {
    state: State,
    limits: Limits,
    /// The part of a head whose end has not come.
    held: Vec<u8>,
}

impl ResponseReader {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { state: State::Head { interim_heads: 0 }, limits, held: Vec::new() }
    }

    /// To the beginning of another response.
    pub fn reset(&mut self) {
        *self = Self::new(self.limits);
    }

    /// `End` has been handed over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Hands over what `input` brings, `Head` once, `Body` as it comes, `End` once. Returns how many bytes of `input` belong to this response:
    /// all, unless it has ended.
    ///
    /// # Errors
    /// When what came is not a response within the limits. What was good before it has been handed over.
    // hot: per token
    pub fn read(&mut self, input: &[u8], mut on: impl FnMut(Event<'_>)) -> Result<usize, Error> {
        let mut rest = input;
        while !rest.is_empty() {
            rest = match self.state {
                State::Chunked { at, reusable } => {
                    let (at, after) = read_chunks(at, rest, &self.limits, &mut on).map_err(|error| self.fail(error))?;
                    if at == Chunked::End {
                        self.finish(reusable, &mut on);
                    } else {
                        self.state = State::Chunked { at, reusable };
                    }
                    after
                }
                State::Length { left, reusable } => {
                    let (left, after) = lend(left, rest, &mut on);
                    match left {
                        0 => self.finish(reusable, &mut on),
                        left => self.state = State::Length { left, reusable },
                    }
                    after
                }
                State::UntilClose => {
                    on(Event::Body(rest));
                    b""
                }
                State::Head { interim_heads } => {
                    self.read_head(rest, interim_heads, &mut on).map_err(|error| self.fail(error))?
                }
                State::Done => break,
                State::Failed(error) => return Err(error),
            }
        }
        Ok(input.len() - rest.len())
    }

    /// The connection was closed by its peer: the end of a body that ends so, harmless after `End`.
    ///
    /// # Errors
    /// [`Error::Closed`] before the first byte of a response, [`Error::Cut`] within one.
    pub fn end_of_input(&mut self, mut on: impl FnMut(Event<'_>)) -> Result<(), Error> {
        match self.state {
            State::UntilClose => {
                self.finish(false, &mut on);
                Ok(())
            }
            State::Done => Ok(()),
            State::Head { interim_heads: 0 } if self.held.is_empty() => Err(self.fail(Error::Closed)),
            State::Head { .. } | State::Length { .. } | State::Chunked { .. } => Err(self.fail(Error::Cut)),
            State::Failed(error) => Err(error),
        }
    }

    /// Reads to the end of a head, or of the input. Returns what follows.
    fn read_head<'a>(
        &mut self,
        input: &'a [u8],
        interim_heads: usize,
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<&'a [u8], Error> {
        let Limits { head_bytes_max, headers_max, interim_heads_max, .. } = self.limits;
        let before = self.held.len();
        if START.iter().skip(before).zip(input).any(|(expected, byte)| expected != byte) {
            return Err(Error::NotHttp);
        }
        let (window, beyond) = input.split_at_checked(head_bytes_max - before).unwrap_or((input, b""));
        let mut held = std::mem::take(&mut self.held);
        if before > 0 {
            held.extend_from_slice(window);
        }
        let bytes = if before > 0 { &held } else { window };
        // An end may lie across the seam, two of its bytes before it.
        let Some(end) = head_end(bytes, before.saturating_sub(2)) else {
            if !beyond.is_empty() {
                return Err(Error::HeadTooLong { head_bytes_max });
            }
            if before == 0 {
                held.extend_from_slice(window);
            }
            self.held = held;
            return Ok(b"");
        };
        match head::parse(bytes.get(..end).unwrap_or(bytes), headers_max)? {
            Parsed::Interim if interim_heads == interim_heads_max => return Err(Error::InterimTooMany),
            Parsed::Interim => self.state = State::Head { interim_heads: interim_heads + 1 },
            Parsed::Final { head, framing, reusable } => {
                on(Event::Head(head));
                match framing {
                    Framing::Length(0) => self.finish(reusable, on),
                    Framing::Length(left) => self.state = State::Length { left, reusable },
                    Framing::Chunked => self.state = State::Chunked { at: Chunked::Begin, reusable },
                    Framing::UntilClose => self.state = State::UntilClose,
                }
            }
        }
        Ok(input.get(end - before..).unwrap_or_default())
    }

    fn finish(&mut self, reusable: bool, on: &mut impl FnMut(Event<'_>)) {
        self.state = State::Done;
        on(Event::End { reusable });
    }

    fn fail(&mut self, error: Error) -> Error {
        self.state = State::Failed(error);
        self.held = Vec::new();
        error
    }
}

/// Where the head ends, its empty line included. An LF alone ends a line too (RFC 9112, section 2.2), as for httparse.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let searched = bytes.get(from..)?;
    memchr::memchr_iter(b'\n', searched).map(|at| from + at + 1).find_map(|next| match bytes.get(next..)? {
        [b'\n', ..] => Some(next + 1),
        [b'\r', b'\n', ..] => Some(next + 2),
        _ => None,
    })
}

/// Hands over what there is of `left` bytes. Returns how many are still to come, and what follows.
// hot: per token
fn lend<'a>(left: u64, input: &'a [u8], on: &mut impl FnMut(Event<'_>)) -> (u64, &'a [u8]) {
    let (piece, after) =
        usize::try_from(left).ok().and_then(|left| input.split_at_checked(left)).unwrap_or((input, b""));
    on(Event::Body(piece));
    (left - piece.len() as u64, after)
}

/// To the end of the body, or of the input.
// hot: per token
fn read_chunks<'a>(
    mut at: Chunked,
    input: &'a [u8],
    limits: &Limits,
    on: &mut impl FnMut(Event<'_>),
) -> Result<(Chunked, &'a [u8]), Error> {
    let mut rest = input;
    while let Some((&byte, after_byte)) = rest.split_first() {
        (at, rest) = if let Chunked::Data { left } = at {
            let (left, after) = lend(left, rest, on);
            (if left == 0 { Chunked::DataCr } else { Chunked::Data { left } }, after)
        } else if at == Chunked::DataCr
            && let [b'\r', b'\n', after @ ..] = rest
        {
            (Chunked::Begin, after)
        } else if at == Chunked::Begin
            && let Some((left, after)) = size_line(rest, limits)
        {
            (Chunked::Data { left }, after)
        } else if at == Chunked::End {
            break;
        } else {
            (at.next(byte, limits)?, after_byte)
        };
    }
    Ok((at, rest))
}

/// A chunk's size line when all of it is there and it is as nearly all are: a size other than 0, no leading zeros to speak of, no extension.
/// All others go byte by byte.
// hot: per token
fn size_line<'a>(input: &'a [u8], limits: &Limits) -> Option<(u64, &'a [u8])> {
    let mut size = 0;
    for digits in 0..=limits.chunk_line_bytes_max.min(8) {
        let rest = input.get(digits..)?;
        match rest {
            [b'\r', b'\n', after @ ..] if size > 0 => return Some((size, after)),
            [byte, ..] => size = size << 4 | digit(*byte)?,
            [] => return None,
        }
    }
    None
}
