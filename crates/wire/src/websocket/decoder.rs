//! From a client's bytes, in any split, to messages and control frames. Knows nothing of what is sent back.

use std::str;

use super::deflate::{Deflate, Inflater};
use super::frame::{HEAD_BYTES_MAX, Head, Opcode, unmask};
use super::{CloseFrame, Error, Event, Limits};

/// The most that a long message's buffer takes on the word of its first frame's head; from there it grows by what comes.
const MESSAGE_RESERVE_BYTES_MAX: usize = 64 * 1024;

/// Holds memory only while a message is under way, and an inflater where the client's messages refer to each other.
pub struct Decoder {
    limits: Limits,
    deflate: Option<Deflate>,
    state: State,
    /// The data message under way; control frames may stand between its frames.
    message: Option<Message>,
    inflater: Option<Inflater>,
    pings: PingCount,
}

/// ```text
/// Head ──head whole──▶ Payload ──payload whole──▶ Head
///                         │ close frame            any error ──▶ Failed
///                         └──────────────────────▶ Closed
/// ```
/// A frame that lies whole in the input goes through `Payload` without leaving it here.
enum State {
    Head {
        bytes: [u8; HEAD_BYTES_MAX],
        len: u8,
    },
    Payload(Frame),
    /// The client said it sends no more (RFC 6455, 5.5.1): the rest is skipped.
    Closed,
    Failed(Error),
}

impl State {
    const BETWEEN_FRAMES: Self = Self::Head { bytes: [0; HEAD_BYTES_MAX], len: 0 };
}

struct Frame {
    head: Head,
    /// What is still to come of the payload.
    left_bytes: u64,
    /// A control frame's payload so far.
    control: Vec<u8>,
}

struct Message {
    kind: Kind,
    compressed: bool,
    fragments: u32,
    /// The payload bytes of its frames' heads, as sent.
    sent_bytes: u64,
    /// What came so far, inflated.
    buf: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Binary,
}

/// Pings within the second that began with the first of them.
struct PingCount {
    second_began_ms: u64,
    count: u32,
}

impl Decoder {
    /// `deflate` is what was negotiated.
    pub fn new(limits: Limits, deflate: Option<Deflate>) -> Self {
        let pings = PingCount { second_began_ms: 0, count: 0 };
        Self { limits, deflate, state: State::BETWEEN_FRAMES, message: None, inflater: None, pings }
    }

    /// Calls `on` for every message and control frame that ends in `input`, in order. The input is unmasked where it lies; an uncompressed
    /// message that lies in it whole is handed over from there. `now_ms` is any clock that does not go back.
    ///
    /// # Errors
    /// What the client did wrong; the events before it have been handed over. Every later call gives the same error.
    pub fn decode(&mut self, input: &mut [u8], now_ms: u64, mut on: impl FnMut(Event<'_>)) -> Result<(), Error> {
        let mut rest = input;
        while !rest.is_empty() {
            rest = match self.advance(rest, now_ms, &mut on) {
                Ok(rest) => rest,
                Err(error) => {
                    self.message = None;
                    self.inflater = None;
                    self.state = State::Failed(error);
                    return Err(error);
                }
            };
        }
        Ok(())
    }

    /// Whether a data message has begun and not ended.
    #[must_use]
    pub fn is_in_message(&self) -> bool {
        self.message.is_some()
    }

    /// How much memory the message under way takes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.buf.capacity())
    }

    /// Handles the input up to the end of a frame, or all of it, and returns the rest.
    fn advance<'i>(
        &mut self,
        input: &'i mut [u8],
        now_ms: u64,
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<&'i mut [u8], Error> {
        match std::mem::replace(&mut self.state, State::BETWEEN_FRAMES) {
            State::Head { bytes, len } => match take_head(bytes, len, input)? {
                Taken::Head(head, rest) => {
                    self.open(&head, now_ms)?;
                    self.take_payload(Frame { head, left_bytes: head.payload_bytes, control: Vec::new() }, rest, on)
                }
                Taken::Part(state) => {
                    self.state = state;
                    Ok(&mut [])
                }
            },
            State::Payload(frame) => self.take_payload(frame, input, on),
            State::Closed => {
                self.state = State::Closed;
                Ok(&mut [])
            }
            State::Failed(error) => Err(error),
        }
    }

    /// Checks that the frame may come here, and that what it announces is within the limits.
    fn open(&mut self, head: &Head, now_ms: u64) -> Result<(), Error> {
        match head.opcode {
            Opcode::Text => self.open_message(head, Kind::Text),
            Opcode::Binary => self.open_message(head, Kind::Binary),
            Opcode::Continuation if head.compressed => Err(Error::ReservedBits),
            Opcode::Continuation => {
                let message = self.message.as_mut().ok_or(Error::NothingToContinue)?;
                message.add_frame(head, &self.limits)
            }
            Opcode::Ping | Opcode::Pong | Opcode::Close if head.compressed => Err(Error::ReservedBits),
            Opcode::Ping => self.pings.add(now_ms, self.limits.pings_per_second_max),
            Opcode::Pong | Opcode::Close => Ok(()),
        }
    }

    fn open_message(&mut self, head: &Head, kind: Kind) -> Result<(), Error> {
        if head.compressed && self.deflate.is_none() {
            return Err(Error::ReservedBits);
        }
        if self.message.is_some() {
            return Err(Error::MessageNotEnded);
        }
        let mut message = Message { kind, compressed: head.compressed, fragments: 0, sent_bytes: 0, buf: Vec::new() };
        message.add_frame(head, &self.limits)?;
        self.message = Some(message);
        Ok(())
    }

    /// Takes what the input has of the frame's payload, and returns what is after it.
    fn take_payload<'i>(
        &mut self,
        mut frame: Frame,
        input: &'i mut [u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<&'i mut [u8], Error> {
        let here = usize::try_from(frame.left_bytes).unwrap_or(usize::MAX).min(input.len());
        let (piece, rest) = input.split_at_mut_checked(here).unwrap_or_default();
        unmask(piece, frame.head.mask, frame.head.payload_bytes - frame.left_bytes);
        frame.left_bytes -= here as u64;
        let whole = frame.left_bytes == 0;
        match frame.head.opcode {
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                self.take_data(piece, whole && frame.head.fin, on)?;
            }
            Opcode::Ping | Opcode::Pong | Opcode::Close if !whole => frame.control.extend_from_slice(piece),
            Opcode::Ping => on(Event::Ping(frame.whole_control(piece))),
            Opcode::Pong => on(Event::Pong(frame.whole_control(piece))),
            Opcode::Close => {
                on(Event::Close(parse_close(frame.whole_control(piece))?));
                self.state = State::Closed;
                return Ok(rest);
            }
        }
        if !whole {
            self.state = State::Payload(frame);
        }
        Ok(rest)
    }

    /// Adds a piece to the message under way; `last` is its end.
    fn take_data(&mut self, piece: &[u8], last: bool, on: &mut impl FnMut(Event<'_>)) -> Result<(), Error> {
        // A data frame's head has opened a message, or continues one.
        let Some(mut message) = self.message.take() else { return Ok(()) };
        let bytes_max = self.limits.message_bytes_max;
        if message.compressed {
            let inflater = self.inflater.get_or_insert_with(Inflater::new);
            inflater.inflate(piece, &mut message.buf, bytes_max)?;
            if last {
                inflater.end_message(&mut message.buf, bytes_max)?;
                if !self.deflate.is_some_and(|deflate| deflate.client_takeover) {
                    self.inflater = None;
                }
            }
        } else if last && message.buf.is_empty() {
            return message.kind.hand_over(piece, on);
        } else {
            message.add_piece(piece);
        }
        if last {
            return message.kind.hand_over(&message.buf, on);
        }
        self.message = Some(message);
        Ok(())
    }
}

impl Frame {
    /// The payload of a control frame of which `piece` is the last.
    fn whole_control<'a>(&'a mut self, piece: &'a [u8]) -> &'a [u8] {
        if self.control.is_empty() {
            return piece;
        }
        self.control.extend_from_slice(piece);
        &self.control
    }
}

impl Message {
    fn add_frame(&mut self, head: &Head, limits: &Limits) -> Result<(), Error> {
        let fragments_max = limits.message_fragments_max;
        let bytes_max = limits.message_bytes_max;
        self.fragments += 1;
        if self.fragments > fragments_max {
            return Err(Error::TooManyFragments { fragments_max });
        }
        self.sent_bytes = self.sent_bytes.saturating_add(head.payload_bytes);
        // Deflate's worst is nine bits for a byte; what a compressed message inflates to is counted as it does.
        let overhead_bytes_max = if self.compressed { bytes_max / 8 + 64 } else { 0 };
        if self.sent_bytes > bytes_max.saturating_add(overhead_bytes_max) as u64 {
            return Err(Error::MessageTooLong { bytes_max });
        }
        Ok(())
    }

    fn add_piece(&mut self, piece: &[u8]) {
        if self.buf.capacity() == 0 {
            let announced = usize::try_from(self.sent_bytes).unwrap_or(usize::MAX);
            self.buf.reserve_exact(announced.min(MESSAGE_RESERVE_BYTES_MAX));
        }
        self.buf.extend_from_slice(piece);
    }
}

impl Kind {
    fn hand_over(self, payload: &[u8], on: &mut impl FnMut(Event<'_>)) -> Result<(), Error> {
        match self {
            Self::Text => on(Event::Text(str::from_utf8(payload).map_err(|_| Error::BadUtf8)?)),
            Self::Binary => on(Event::Binary(payload)),
        }
        Ok(())
    }
}

impl PingCount {
    fn add(&mut self, now_ms: u64, per_second_max: u32) -> Result<(), Error> {
        if self.count == 0 || now_ms.saturating_sub(self.second_began_ms) >= 1000 {
            *self = Self { second_began_ms: now_ms, count: 0 };
        }
        self.count += 1;
        if self.count > per_second_max {
            return Err(Error::PingFlood { per_second_max });
        }
        Ok(())
    }
}

enum Taken<'i> {
    /// The head, and the input after it.
    Head(Head, &'i mut [u8]),
    /// All of the input was part of a head.
    Part(State),
}

/// Reads a head of which `len` bytes came before the input.
fn take_head(mut bytes: [u8; HEAD_BYTES_MAX], len: u8, input: &mut [u8]) -> Result<Taken<'_>, Error> {
    if len == 0
        && let Some((head, head_bytes)) = Head::parse(input)?
    {
        let (_, rest) = input.split_at_mut_checked(head_bytes).unwrap_or_default();
        return Ok(Taken::Head(head, rest));
    }
    let before = usize::from(len);
    let have = HEAD_BYTES_MAX.min(before + input.len());
    if let Some(room) = bytes.get_mut(before..have) {
        room.iter_mut().zip(input.iter()).for_each(|(to, from)| *to = *from);
    }
    let gathered = bytes.get(..have).unwrap_or_default();
    match Head::parse(gathered)? {
        Some((head, head_bytes)) => {
            let (_, rest) = input.split_at_mut_checked(head_bytes - before).unwrap_or_default();
            Ok(Taken::Head(head, rest))
        }
        None => Ok(Taken::Part(State::Head { bytes, len: have as u8 })),
    }
}

/// RFC 6455, 5.5.1 and 7.4: nothing, or a code that may be sent, and a reason in UTF-8.
fn parse_close(payload: &[u8]) -> Result<Option<CloseFrame<'_>>, Error> {
    if payload.is_empty() {
        return Ok(None);
    }
    let (code, reason) = payload.split_first_chunk::<2>().ok_or(Error::BadClose)?;
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Error::BadCloseCode(code));
    }
    let reason = str::from_utf8(reason).map_err(|_| Error::BadUtf8)?;
    Ok(Some(CloseFrame { code, reason }))
}
