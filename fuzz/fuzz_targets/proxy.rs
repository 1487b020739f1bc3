//! What proxies say of their clients: a head of the PROXY protocol is read within its own length, whatever follows it; and a walk over
//! X-Forwarded-For ends at the peer, or at an address that was reached over trusted ones alone.

#![no_main]

use flashlane_wire::proxy_protocol::{BODY_BYTES_MAX, HEAD_BYTES, Head};
use flashlane_wire::forwarded;
use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;

fuzz_target!(|input: &[u8]| {
    proxy_protocol(input);
    forwarded_for(input);
});

fn proxy_protocol(input: &[u8]) {
    let Some((head, rest)) = input.split_first_chunk::<HEAD_BYTES>() else { return };
    let Ok(head) = Head::parse(*head) else { return };
    assert!(head.body_bytes <= BODY_BYTES_MAX);
    let body = rest.get(..head.body_bytes).unwrap_or(rest);
    if let Ok(source) = head.source(body) {
        let longer = [body, b"more"].concat();
        assert_eq!(head.source(&longer), Ok(source));
    }
}

fn forwarded_for(input: &[u8]) {
    let peer = IpAddr::from([10, 0, 0, 1]);
    let is_trusted = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
    let values = || input.split(|&byte| byte == b'\n');
    let client = forwarded::client(peer, values(), is_trusted);
    // What anybody wrote in front changes nothing once somebody is found who is not trusted.
    if !is_trusted(client) {
        let forged = std::iter::once(&b"198.51.100.1, 10.1.1.1"[..]).chain(values());
        let forged: Vec<_> = forged.collect();
        assert_eq!(forwarded::client(peer, forged.into_iter(), is_trusted), client);
    }
    assert_eq!(forwarded::client(peer, values(), |_| false), peer);
}
