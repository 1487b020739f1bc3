//! Server-sent events: bytes, in any split, to events, as <https://html.spec.whatwg.org/multipage/server-sent-events.html> parses them.
//!
//! Knows nothing of what an event's data means (it is not even checked to be UTF-8), of HTTP, or of reconnecting: `id` and `retry` are skipped.
//! An event whose closing blank line never comes is not an event: a stream cut in its middle hands over nothing of it.

use memchr::memchr2;

/// What the decoder's buffers may keep between two events; anything larger is given back.
const KEPT_BYTES: usize = 16 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event. Both slices live as long as the call that hands them over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The last `event` field; empty means `message`.
    pub name: &'a [u8],
    /// The `data` fields, joined by `\n`.
    pub data: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The stream is lost: the decoder says the same to all that follows.
    #[error("an event of more than {event_bytes_max} bytes")]
    EventTooLong { event_bytes_max: usize },
}

/// ```text
/// Start ──first line ends──► Within ◄──line, part of a line── Between ──whole event, lent──► Between
///                              └──────────blank line───────────►┘
/// any line that ends in CR at the input's end: AfterCr ──next byte──► Within | Between
/// any event beyond the limit: Failed
/// ```
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The first line has not ended: it may begin with a byte order mark.
    Start,
    /// Nothing is held: the next byte begins an event.
    Between,
    /// Something is held: a field, or a part of a line.
    Within,
    /// The input ended with CR, which ended its line; an LF that comes next belongs to it.
    AfterCr,
    Failed,
}

/// Bytes to events. Holds at most one event, within the limit, and gives large buffers back.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    event_bytes_max: usize,
    /// The part of a line whose end has not come.
    line: Vec<u8>,
    /// Each `data` field of this event, an LF behind each.
    data: Vec<u8>,
    name: Vec<u8>,
}

impl Decoder {
    /// `event_bytes_max` bounds one line together with the data and the name held so far, in bytes.
    #[must_use]
    pub fn new(event_bytes_max: usize) -> Self {
        Self { state: State::Start, event_bytes_max, line: Vec::new(), data: Vec::new(), name: Vec::new() }
    }

    /// Hands over every event that `input` completes, in order. An event that is one `data` line and lies whole in `input` is lent from it.
    ///
    /// # Errors
    /// When an event is longer than the limit; the events before it have been handed over.
    // hot: per token
    pub fn decode(&mut self, input: &[u8], mut on_event: impl FnMut(Event<'_>)) -> Result<(), Error> {
        let mut rest = input;
        while !rest.is_empty() {
            if self.state == State::Between
                && let Some((data, after)) = whole_event(rest, self.event_bytes_max)
            {
                on_event(Event { name: b"", data });
                rest = after;
                continue;
            }
            rest = self.read_line(rest, &mut on_event)?;
        }
        Ok(())
    }

    /// Reads to the end of the line, or of the input. Returns what follows.
    fn read_line<'a>(&mut self, input: &'a [u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<&'a [u8], Error> {
        match self.state {
            State::Failed => return Err(self.too_long()),
            State::AfterCr => {
                self.state = self.at_line_start();
                return Ok(input.strip_prefix(b"\n").unwrap_or(input));
            }
            State::Start | State::Between | State::Within => {}
        }
        let end = memchr2(b'\n', b'\r', input).unwrap_or(input.len());
        let (part, after) = input.split_at_checked(end).unwrap_or((input, b""));
        let held = self.line.len() + self.data.len() + self.name.len();
        if held + part.len() > self.event_bytes_max {
            return Err(self.fail());
        }
        let next = match after {
            [] => {
                self.hold(part);
                return Ok(after);
            }
            [b'\r', b'\n', next @ ..] | [_, next @ ..] => next,
        };
        self.end_line(part, on_event);
        if after == b"\r" {
            self.state = State::AfterCr;
        }
        Ok(next)
    }

    /// Keeps a part of a line until the rest of it comes.
    fn hold(&mut self, part: &[u8]) {
        self.line.extend_from_slice(part);
        if self.state == State::Between {
            self.state = State::Within;
        }
    }

    /// A line has ended: what is held of it, then `part`.
    fn end_line(&mut self, part: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        let mut held = std::mem::take(&mut self.line);
        let mut line = part;
        if !held.is_empty() {
            held.extend_from_slice(part);
            line = &held;
        }
        if self.state == State::Start {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(on_event);
        } else {
            self.field(line);
        }
        self.state = self.at_line_start();
        held.clear();
        if held.capacity() <= KEPT_BYTES {
            self.line = held;
        }
    }

    fn at_line_start(&self) -> State {
        if self.data.is_empty() && self.name.is_empty() { State::Between } else { State::Within }
    }

    fn field(&mut self, line: &[u8]) {
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (field, value) = line.split_at_checked(colon).unwrap_or((line, b""));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            // A comment (no field name), `id`, `retry`, and what the specification does not know.
            _ => {}
        }
    }

    fn dispatch(&mut self, on_event: &mut impl FnMut(Event<'_>)) {
        if let Some((_, data)) = self.data.split_last() {
            on_event(Event { name: &self.name, data });
        }
        empty(&mut self.data);
        empty(&mut self.name);
    }

    fn fail(&mut self) -> Error {
        *self = Self { state: State::Failed, ..Self::new(self.event_bytes_max) };
        self.too_long()
    }

    fn too_long(&self) -> Error {
        Error::EventTooLong { event_bytes_max: self.event_bytes_max }
    }
}

/// `data: ...` and a blank line, all of it there: its data, and what follows. Both line ends that servers use in earnest are known here;
/// anything else is left to the line reader.
// hot: per token
fn whole_event(input: &[u8], event_bytes_max: usize) -> Option<(&[u8], &[u8])> {
    let value = input.strip_prefix(b"data:")?;
    let (data, after) = value.split_at_checked(memchr2(b'\n', b'\r', value)?)?;
    let rest = match after {
        [b'\n', b'\n', rest @ ..] | [b'\r', b'\n', b'\r', b'\n', rest @ ..] => rest,
        _ => return None,
    };
    if b"data:".len() + data.len() > event_bytes_max {
        return None;
    }
    Some((data.strip_prefix(b" ").unwrap_or(data), rest))
}

fn empty(buf: &mut Vec<u8>) {
    buf.clear();
    if buf.capacity() > KEPT_BYTES {
        *buf = Vec::new();
    }
}
