//! Who is at the other end of a connection. Knows nothing of what is asked there.

use std::net::IpAddr;

/// Handlers find it in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// Whether it showed a certificate of an authority that the config names.
    pub(crate) has_certificate: bool,
}

impl Peer {
    /// On this machine: an IPv4 address may come in IPv6's form.
    pub(crate) fn is_loopback(&self) -> bool {
        self.address.to_canonical().is_loopback()
    }
}
