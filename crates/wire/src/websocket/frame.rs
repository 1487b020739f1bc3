//! One frame: its head both ways, and the mask. Knows nothing of messages, of compression, and of which frame may follow which.

use super::Error;

/// The longest head a client's frame can have: two bytes, eight of length, four of mask.
pub(super) const HEAD_BYTES_MAX: usize = 14;
/// The longest payload of a control frame.
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// Close codes that a server sends (RFC 6455, 7.4.1, and the IANA registry).
pub mod close_code {
    pub const NORMAL: u16 = 1000;
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL_ERROR: u16 = 1002;
    pub const INVALID_PAYLOAD: u16 = 1007;
    pub const POLICY: u16 = 1008;
    pub const TOO_BIG: u16 = 1009;
    pub const INTERNAL_ERROR: u16 = 1011;
    pub const SERVICE_RESTART: u16 = 1012;
    pub const TRY_AGAIN_LATER: u16 = 1013;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    fn parse(bits: u8) -> Result<Self, Error> {
        match bits {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xa => Ok(Self::Pong),
            reserved => Err(Error::ReservedOpcode(reserved)),
        }
    }

    fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }
}

/// The head of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub opcode: Opcode,
    pub fin: bool,
    /// RSV1: the message is compressed (RFC 7692, 6).
    pub compressed: bool,
    pub payload_bytes: u64,
    pub mask: [u8; 4],
}

impl Head {
    /// Reads a client's head from the start of `bytes`, and tells its length; `None` if it is not all there. An error is found as soon as
    /// the bytes that prove it are there.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Error> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let opcode = Opcode::parse(first & 0x0f)?;
        let fin = first & 0x80 != 0;
        let short_length = second & 0x7f;
        if first & 0x30 != 0 {
            return Err(Error::ReservedBits);
        }
        if second & 0x80 == 0 {
            return Err(Error::Unmasked);
        }
        if opcode.is_control() && !fin {
            return Err(Error::ControlFragmented);
        }
        if opcode.is_control() && usize::from(short_length) > CONTROL_BYTES_MAX {
            return Err(Error::ControlTooLong);
        }
        let Some((payload_bytes, rest)) = parse_length(short_length, rest)? else { return Ok(None) };
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let head = Self { opcode, fin, compressed: first & 0x40 != 0, payload_bytes, mask: *mask };
        Ok(Some((head, bytes.len() - rest.len())))
    }
}

/// A frame's length and what follows it. RFC 6455, 5.2: in the shortest of its three forms, the highest bit clear.
fn parse_length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Error> {
    let (length, rest, length_min) = match short {
        126 => {
            let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*length)), rest, 126)
        }
        127 => {
            let Some((length, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*length), rest, 1 << 16)
        }
        short => (u64::from(short), rest, 0),
    };
    if length < length_min || length >> 63 != 0 {
        return Err(Error::BadLength);
    }
    Ok(Some((length, rest)))
}

/// Takes the mask off a piece of a payload that lies `offset` bytes from the payload's start. Eight bytes at a time, which the compiler
/// turns into vectors.
pub(super) fn unmask(piece: &mut [u8], mut mask: [u8; 4], offset: u64) {
    mask.rotate_left((offset % 4) as usize);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = piece.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= mask;
    }
}

/// A server's head, unmasked and final: two, four or ten bytes. `first` is the whole first byte, FIN included.
pub(super) enum ServerHead {
    Short([u8; 2]),
    Middle([u8; 4]),
    Long([u8; 10]),
}

impl ServerHead {
    pub fn new(first: u8, payload_bytes: usize) -> Self {
        if payload_bytes < 126 {
            return Self::Short([first, payload_bytes as u8]);
        }
        if let Ok(length) = u16::try_from(payload_bytes) {
            let [high, low] = length.to_be_bytes();
            return Self::Middle([first, 126, high, low]);
        }
        let [a, b, c, d, e, f, g, h] = (payload_bytes as u64).to_be_bytes();
        Self::Long([first, 127, a, b, c, d, e, f, g, h])
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Middle(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }
}

/// The first byte of a whole message's or a control frame's only frame.
pub(super) fn first_byte(opcode: Opcode, compressed: bool) -> u8 {
    0x80 | if compressed { 0x40 } else { 0 } | opcode as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Error> {
        Head::parse(bytes)
    }

    #[test]
    fn the_three_forms_of_length_are_read() {
        let cases: [(&[u8], u64, usize); 4] = [
            (&[0x81, 0x80, 1, 2, 3, 4], 0, 6),
            (&[0x81, 0xfd, 1, 2, 3, 4], 125, 6),
            (&[0x81, 0xfe, 0xff, 0xff, 1, 2, 3, 4], 65_535, 8),
            (&[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4], 65_536, 14),
        ];
        for (bytes, payload_bytes, length) in cases {
            let expected =
                Head { opcode: Opcode::Text, fin: true, compressed: false, payload_bytes, mask: [1, 2, 3, 4] };
            assert_eq!(head(bytes), Ok(Some((expected, length))));
            for cut in 0..length {
                assert_eq!(head(&bytes[..cut]), Ok(None), "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_rfc_6455_forbids_in_a_head_is_refused() {
        let cases: [(&[u8], Error); 11] = [
            (&[0x81, 0x05], Error::Unmasked),
            (&[0xa1, 0x85], Error::ReservedBits),
            (&[0x91, 0x85], Error::ReservedBits),
            (&[0x83, 0x85], Error::ReservedOpcode(3)),
            (&[0x8b, 0x85], Error::ReservedOpcode(11)),
            (&[0x09, 0x80], Error::ControlFragmented),
            (&[0x89, 0xfe], Error::ControlTooLong),
            (&[0x88, 0xff], Error::ControlTooLong),
            (&[0x81, 0xfe, 0, 125], Error::BadLength),
            (&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Error::BadLength),
            (&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], Error::BadLength),
        ];
        for (bytes, error) in cases {
            assert_eq!(head(bytes), Err(error), "{bytes:x?}");
        }
    }

    #[test]
    fn unmasking_by_words_is_unmasking_by_bytes_at_every_length_and_offset() {
        let mask = [0xa5, 0x1b, 0xff, 0x42];
        for length in 0..70 {
            for offset in 0..9_u64 {
                let mut piece: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
                let expected: Vec<u8> =
                    piece.iter().zip(offset as usize..).map(|(byte, at)| byte ^ mask[at % 4]).collect();
                unmask(&mut piece, mask, offset);
                assert_eq!(piece, expected, "length {length}, offset {offset}");
            }
        }
    }
}
