//! PROXY protocol version 2 (HAProxy's specification, 2.2): what a proxy says of a client, in front of the client's own bytes. Knows
//! nothing of who may say it. A head of 16 bytes tells how much follows it: addresses, then extensions (TLVs), which are passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The part in front, of which the length of the rest is told.
pub const HEAD_BYTES: usize = 16;
/// What may follow it: addresses and some extensions need 300 bytes; the format would allow 65,535.
pub const BODY_BYTES_MAX: usize = 2048;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// A head that can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    kind: Kind,
    /// How many bytes follow it that belong to it.
    pub body_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// LOCAL, or a family that says nothing of use here: the connection is the proxy's own, as far as can be told.
    Own,
    V4,
    V6,
}

/// Why these bytes are not taken for a proxy's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("it does not begin as version 2 of the PROXY protocol does")]
    Signature,
    #[error("version 1 of the PROXY protocol is not spoken here: have the proxy send version 2")]
    VersionOne,
    #[error("it is of another version, or of a command that is not known")]
    Command,
    #[error("it speaks of another transport than TCP")]
    Transport,
    #[error("it is longer than {BODY_BYTES_MAX} bytes")]
    TooLong,
    #[error("its addresses are cut short")]
    Short,
}

impl Head {
    /// # Errors
    /// [`Invalid`]: the connection is to be closed.
    pub fn parse(bytes: [u8; HEAD_BYTES]) -> Result<Self, Invalid> {
        let [signature @ .., command, family, high, low] = bytes;
        if signature != SIGNATURE {
            let is_version_one = signature.starts_with(b"PROXY ");
            return Err(if is_version_one { Invalid::VersionOne } else { Invalid::Signature });
        }
        let is_local = match command {
            0x20 => true,
            0x21 => false,
            _ => return Err(Invalid::Command),
        };
        let kind = match family {
            _ if is_local => Kind::Own,
            // UNSPEC, and a UNIX socket's stream.
            0x00 | 0x31 => Kind::Own,
            0x11 => Kind::V4,
            0x21 => Kind::V6,
            _ => return Err(Invalid::Transport),
        };
        let body_bytes = usize::from(u16::from_be_bytes([high, low]));
        if body_bytes > BODY_BYTES_MAX {
            return Err(Invalid::TooLong);
        }
        Ok(Self { kind, body_bytes })
    }

    /// Where the client is, as the bytes behind the head say. None: the connection is the proxy's own.
    ///
    /// # Errors
    /// [`Invalid::Short`].
    pub fn source(self, body: &[u8]) -> Result<Option<SocketAddr>, Invalid> {
        // Source address, destination address, source port, destination port.
        match self.kind {
            Kind::Own => Ok(None),
            Kind::V4 => {
                let (source, rest) = body.split_first_chunk::<4>().ok_or(Invalid::Short)?;
                Ok(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(*source)), port(rest, 4)?)))
            }
            Kind::V6 => {
                let (source, rest) = body.split_first_chunk::<16>().ok_or(Invalid::Short)?;
                Ok(Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(*source)), port(rest, 16)?)))
            }
        }
    }
}

/// The source's, behind the destination's address of so many bytes; the destination's follows.
fn port(rest: &[u8], address_bytes: usize) -> Result<u16, Invalid> {
    let ports = rest.get(address_bytes..).ok_or(Invalid::Short)?;
    let (&[high, low, ..], _) = ports.split_first_chunk::<4>().ok_or(Invalid::Short)?;
    Ok(u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(command: u8, family: u8, body_bytes: u16) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..12].copy_from_slice(&SIGNATURE);
        bytes[12] = command;
        bytes[13] = family;
        bytes[14..].copy_from_slice(&body_bytes.to_be_bytes());
        bytes
    }

    const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 0x21, 0xfc];

    #[test]
    fn a_client_over_ipv4_or_ipv6_is_told_whatever_follows_its_address() {
        let parsed = Head::parse(head(0x21, 0x11, 12)).unwrap();
        assert_eq!(parsed.body_bytes, 12);
        assert_eq!(parsed.source(&V4), Ok(Some("203.0.113.7:4660".parse().unwrap())));
        let with_extension = [&V4[..], &[0x04, 0x00, 0x01, 0xff]].concat();
        assert_eq!(parsed.source(&with_extension), parsed.source(&V4));
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        v6[32..34].copy_from_slice(&443u16.to_be_bytes());
        let parsed = Head::parse(head(0x21, 0x21, 36)).unwrap();
        assert_eq!(parsed.source(&v6), Ok(Some("[2001:db8::7]:443".parse().unwrap())));
    }

    #[test]
    fn a_proxys_own_connection_is_its_own() {
        for (command, family) in [(0x20, 0x00), (0x20, 0x11), (0x20, 0xff), (0x21, 0x00), (0x21, 0x31)] {
            let parsed = Head::parse(head(command, family, 12)).unwrap();
            assert_eq!(parsed.source(&V4), Ok(None), "{command:x} {family:x}");
        }
    }

    #[test]
    fn every_other_command_and_family_is_refused() {
        for command in 0..=u8::MAX {
            let known = command == 0x20 || command == 0x21;
            assert_eq!(Head::parse(head(command, 0x11, 12)).is_ok(), known, "{command:x}");
        }
        for family in 0..=u8::MAX {
            let known = [0x00, 0x11, 0x21, 0x31].contains(&family);
            assert_eq!(Head::parse(head(0x21, family, 12)).is_ok(), known, "{family:x}");
        }
    }

    #[test]
    fn a_signature_is_right_in_each_byte() {
        for i in 0..SIGNATURE.len() {
            let mut bytes = head(0x21, 0x11, 12);
            bytes[i] ^= 1;
            assert_eq!(Head::parse(bytes), Err(Invalid::Signature), "{i}");
        }
        assert_eq!(Head::parse(*b"PROXY TCP4 1.2.3"), Err(Invalid::VersionOne));
        assert_eq!(Head::parse(*b"GET / HTTP/1.1\r\n"), Err(Invalid::Signature));
    }

    #[test]
    fn its_length_is_bounded_and_its_addresses_are_whole() {
        assert!(Head::parse(head(0x21, 0x11, 2048)).is_ok());
        assert_eq!(Head::parse(head(0x21, 0x11, 2049)), Err(Invalid::TooLong));
        for (family, whole) in [(0x11, 12), (0x21, 36)] {
            let parsed = Head::parse(head(0x21, family, 12)).unwrap();
            for bytes in 0..whole {
                assert_eq!(parsed.source(&vec![1; bytes]), Err(Invalid::Short), "{family:x} {bytes}");
            }
            assert!(parsed.source(&vec![1; whole]).is_ok());
        }
    }
}
