//! `X-Forwarded-For`: each proxy appends the address that it was called from. Whoever stands before the first trusted one may have
//! written anything there, so it is read from its end, and only for as long as a trusted proxy is known to have written it. Knows
//! nothing of who is trusted. RFC 7239's `Forwarded` is not read.

use std::net::{IpAddr, SocketAddr};

/// Proxies that are walked over; nobody has more behind one another.
const HOPS_MAX: usize = 32;

/// Who is behind the peer of a connection, as far as trusted proxies tell. `values` are those of all its header fields, in their order.
/// Where one of them has written something that is no address, that proxy is as far as it goes.
pub fn client<'a>(
    peer: IpAddr,
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    let mut told = values.rev().flat_map(|value| value.rsplit(|&byte| byte == b','));
    for _ in 0..HOPS_MAX {
        if !is_trusted(client) {
            break;
        }
        match told.next().and_then(address) {
            Some(before) => client = before,
            None => break,
        }
    }
    client
}

/// `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]`, each with a port or without, in quotes or without; an IPv4 address in IPv6's form is one.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?.trim_matches([' ', '\t']);
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Trusted is 10.x.x.x.
    fn seen(peer: &str, values: &[&str]) -> String {
        let is_trusted = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
        client(ip(peer), values.iter().map(|value| value.as_bytes()), is_trusted).to_string()
    }

    #[test]
    fn the_client_is_the_last_that_a_trusted_proxy_was_called_from() {
        for (peer, values, expected) in [
            // Nobody who is not trusted is believed.
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            // What the client itself had sent stands before it.
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["10.9.9.9, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1, 10.0.0.2", "10.0.0.3"], "198.51.100.1"),
            // All are trusted: the first of them called.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, , 10.0.0.2"], "10.0.0.2"),
        ] {
            assert_eq!(seen(peer, values), expected, "{peer} {values:?}");
        }
    }

    #[test]
    fn an_address_may_have_brackets_quotes_and_a_port() {
        for (element, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            (" \t192.0.2.1 ", Some("192.0.2.1")),
            ("192.0.2.1:8080", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("\"[2001:db8::1]:443\"", Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("unknown", None),
            ("_hidden", None),
            ("192.0.2.256", None),
            ("192.0.2.1:", None),
            ("192.0.2.1:99999", None),
            ("[2001:db8::1", None),
            ("for=192.0.2.1", None),
            ("192.0.2.1 192.0.2.2", None),
            ("\u{661}92.0.2.1", None),
            ("", None),
        ] {
            assert_eq!(address(element.as_bytes()), expected.map(ip), "{element}");
        }
        assert_eq!(address(b"\xff"), None);
    }

    #[test]
    fn a_long_row_of_trusted_proxies_ends_the_walk() {
        let row = vec!["10.0.0.2"; 100].join(", ");
        assert_eq!(seen("10.0.0.1", &[&format!("198.51.100.1, {row}")]), "10.0.0.2");
    }
}
