//! HTTP/1.1 requests line by line ([RFC 9112](https://www.rfc-editor.org/rfc/rfc9112)), stricter than a recipient has to be: what a
//! recipient may repair is refused, since another one on the way may repair it differently.

use super::Fault;

/// What an HTTP/2 connection begins with (RFC 9113, 3.4), by lines.
const PREFACE: [&[u8]; 4] = [b"PRI * HTTP/2.0", b"", b"SM", b""];
const METHOD_BYTES_MAX: usize = 32;
/// A chunk's size with its extensions: nobody needs any.
const CHUNK_LINE_BYTES_MAX: usize = 256;
const CHUNK_DIGITS_MAX: usize = 16;

/// The requests of one connection, one behind the other.
#[derive(Default)]
pub(super) struct Lines {
    state: State,
    /// What came of a line that has not ended.
    line: Vec<u8>,
}

/// ```text
/// Start ──▶ Between ──request line──▶ Head ──empty line──▶ Between, Body or ChunkSize
///   └──the preface's first line──▶ Preface       Body ──▶ Between
///                                  ChunkSize ──▶ ChunkData ──▶ ChunkEnd ──▶ ChunkSize
///                                      └──size 0──▶ Trailers ──empty line──▶ Between
/// ```
#[derive(Default)]
enum State {
    /// Of the connection.
    #[default]
    Start,
    Preface {
        lines: usize,
    },
    /// RFC 9112, 2.2: one empty line before a request is no fault.
    Between {
        is_blank_seen: bool,
    },
    Head(Head),
    Body {
        left_bytes: u64,
    },
    ChunkSize,
    ChunkData {
        left_bytes: u64,
    },
    ChunkEnd,
    Trailers,
}

/// What of a head decides how it is read, and where its body ends.
#[derive(Default)]
struct Head {
    is_get: bool,
    is_old: bool,
    /// Of a target in absolute form.
    authority: Option<Box<[u8]>>,
    is_host_seen: bool,
    length: Option<u64>,
    is_chunked: bool,
    is_websocket: bool,
}

/// How far it came, in bytes of the input.
pub(super) enum Step {
    Read(usize),
    /// The preface is whole.
    Http2(usize),
    /// A WebSocket's handshake is whole.
    Upgrade(usize),
    /// The last of these bytes is spoilt.
    Fault(usize, Fault),
}

enum Next {
    State(State),
    Http2,
    Upgrade,
}

impl Lines {
    /// Reads a piece of a body, or up to a line's end. The input is not empty.
    pub(super) fn advance(&mut self, input: &mut [u8], line_bytes_max: usize) -> Step {
        if let State::Body { left_bytes } | State::ChunkData { left_bytes } = &mut self.state {
            let here = usize::try_from(*left_bytes).unwrap_or(usize::MAX).min(input.len());
            *left_bytes -= here as u64;
            if *left_bytes == 0 {
                let is_chunk = matches!(self.state, State::ChunkData { .. });
                self.state = if is_chunk { State::ChunkEnd } else { State::Between { is_blank_seen: false } };
            }
            return Step::Read(here);
        }
        let Some(end) = memchr::memchr(b'\n', input) else {
            self.line.extend_from_slice(input);
            if self.line.len() > line_bytes_max {
                spoil(input);
                return Step::Fault(input.len(), Fault::LongLine);
            }
            return Step::Read(input.len());
        };
        let (line, _) = input.split_at_mut_checked(end + 1).unwrap_or_default();
        let held = std::mem::take(&mut self.line);
        let next = if held.is_empty() { self.state.line(line) } else { self.state.line(&[&held, &*line].concat()) };
        match next {
            Ok(Next::State(state)) => self.state = state,
            Ok(Next::Http2) => return Step::Http2(end + 1),
            Ok(Next::Upgrade) => return Step::Upgrade(end + 1),
            Err(fault) => {
                // In a chunk's line a library may skip anything but a line's end.
                if fault != Fault::BareLf || !self.state.is_chunk() {
                    spoil(line);
                }
                return Step::Fault(end + 1, fault);
            }
        }
        Step::Read(end + 1)
    }
}

/// A NUL instead of a line's end may stand nowhere in a head, nor behind a CR.
fn spoil(line: &mut [u8]) {
    if let Some(last) = line.last_mut() {
        *last = 0;
    }
}

impl State {
    fn is_chunk(&self) -> bool {
        matches!(self, Self::ChunkSize | Self::ChunkEnd)
    }

    /// What comes behind this line, which has its end still.
    fn line(&mut self, line: &[u8]) -> Result<Next, Fault> {
        let line = line.strip_suffix(b"\r\n").ok_or(Fault::BareLf)?;
        let state = match self {
            Self::Start if line == PREFACE[0] => Self::Preface { lines: 1 },
            Self::Preface { lines } => {
                if PREFACE.get(*lines).is_none_or(|expected| *expected != line) {
                    return Err(Fault::RequestLine);
                }
                match *lines + 1 {
                    lines if lines == PREFACE.len() => return Ok(Next::Http2),
                    lines => Self::Preface { lines },
                }
            }
            Self::Start | Self::Between { is_blank_seen: false } if line.is_empty() => {
                Self::Between { is_blank_seen: true }
            }
            Self::Start | Self::Between { .. } => Self::Head(Head::request_line(line)?),
            Self::Head(head) if line.is_empty() => return head.end(),
            Self::Head(head) => {
                head.field(line)?;
                Self::Head(std::mem::take(head))
            }
            Self::ChunkSize => match chunk_size(line).ok_or(Fault::Chunk)? {
                0 => Self::Trailers,
                left_bytes => Self::ChunkData { left_bytes },
            },
            Self::ChunkEnd if line.is_empty() => Self::ChunkSize,
            Self::ChunkEnd => return Err(Fault::Chunk),
            Self::Trailers if line.is_empty() => Self::Between { is_blank_seen: false },
            Self::Trailers => {
                trailer(line)?;
                Self::Trailers
            }
            // Neither is read by lines.
            Self::Body { .. } | Self::ChunkData { .. } => return Err(Fault::Framing),
        };
        Ok(Next::State(state))
    }
}

impl Head {
    fn request_line(line: &[u8]) -> Result<Self, Fault> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::RequestLine);
        };
        let is_old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Fault::RequestLine),
        };
        if !is_token(method) || method.len() > METHOD_BYTES_MAX || !target.iter().all(|byte| is_of_target(*byte)) {
            return Err(Fault::RequestLine);
        }
        let authority = match target {
            [b'/', ..] => None,
            _ => Some(authority(target).ok_or(Fault::RequestLine)?.into()),
        };
        Ok(Self { is_get: method == b"GET", is_old, authority, ..Self::default() })
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        let (name, value) = field(line).ok_or(Fault::Field)?;
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"host") {
            let is_other = self.authority.as_ref().is_some_and(|authority| !authority.eq_ignore_ascii_case(value));
            if std::mem::replace(&mut self.is_host_seen, true) || is_other || !is_host(value) {
                return Err(Fault::Host);
            }
        } else if is(b"content-length") {
            let length = number(value).ok_or(Fault::Framing)?;
            if self.length.replace(length).is_some() {
                return Err(Fault::Framing);
            }
        } else if is(b"transfer-encoding") {
            if std::mem::replace(&mut self.is_chunked, true) || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::Framing);
            }
        } else if is(b"upgrade") {
            let mut protocols = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            self.is_websocket |= protocols.any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
        }
        Ok(())
    }

    fn end(&self) -> Result<Next, Fault> {
        // RFC 9112, 3.2: only older clients may leave it out.
        if !self.is_host_seen && !self.is_old {
            return Err(Fault::Host);
        }
        if self.is_chunked && (self.length.is_some() || self.is_old) {
            return Err(Fault::Framing);
        }
        let length = self.length.unwrap_or(0);
        if self.is_get && self.is_websocket && !self.is_old {
            return if self.is_chunked || length > 0 { Err(Fault::Upgrade) } else { Ok(Next::Upgrade) };
        }
        Ok(Next::State(match (self.is_chunked, length) {
            (true, _) => State::ChunkSize,
            (false, 0) => State::Between { is_blank_seen: false },
            (false, left_bytes) => State::Body { left_bytes },
        }))
    }
}

/// The authority of a target in absolute form (RFC 9112, 3.2.2). The forms of CONNECT and `OPTIONS *` are for nothing that is served here.
fn authority(target: &[u8]) -> Option<&[u8]> {
    let scheme = target.split(|byte| *byte == b':').next()?;
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return None;
    }
    let rest = target.get(scheme.len()..)?.strip_prefix(b"://")?;
    let authority = rest.split(|byte| matches!(byte, b'/' | b'?')).next()?;
    is_host(authority).then_some(authority)
}

/// The name and the value of a field.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at_checked(colon)?;
    let value = value.get(1..)?;
    let is_text = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..));
    (is_token(name) && is_text).then(|| (name, value.trim_ascii()))
}

/// What decides how a request is read may not come behind it.
fn trailer(line: &[u8]) -> Result<(), Fault> {
    let (name, _) = field(line).ok_or(Fault::Field)?;
    let decides = [&b"content-length"[..], b"host", b"transfer-encoding"];
    if decides.iter().any(|known| name.eq_ignore_ascii_case(known)) { Err(Fault::Framing) } else { Ok(()) }
}

/// RFC 9110, 5.6.2.
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// No fragment, nothing that has to be encoded, no backslash that some take for a slash.
fn is_of_target(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\')
}

/// A name or an address, and maybe a port (RFC 9110, 7.2).
fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => match memchr::memchr(b']', rest).and_then(|end| rest.split_at_checked(end)) {
            Some((address, behind)) => {
                if !address.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
                    return false;
                }
                (address, behind.get(1..).unwrap_or_default())
            }
            None => return false,
        },
        _ => value.split_at_checked(memchr::memchr(b':', value).unwrap_or(value.len())).unwrap_or_default(),
    };
    let is_name =
        value.starts_with(b"[") || host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(byte));
    let is_port =
        port.is_empty() || port.strip_prefix(b":").is_some_and(|port| number(port).is_some_and(|port| port < 65_536));
    !host.is_empty() && is_name && is_port
}

/// Digits alone.
fn number(text: &[u8]) -> Option<u64> {
    let is_plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok()
}

/// RFC 9112, 7.1. Extensions are skipped, as they must be, if they are written as such.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at_checked(digits)?;
    let is_extension = extension.is_empty()
        || (extension.starts_with(b";") && extension.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')));
    if !(1..=CHUNK_DIGITS_MAX).contains(&digits) || line.len() > CHUNK_LINE_BYTES_MAX || !is_extension {
        return None;
    }
    u64::from_str_radix(str::from_utf8(size).ok()?, 16).ok()
}
