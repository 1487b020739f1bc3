//! Who is at the other end: of a connection, or behind the proxies that it came over. Knows nothing of what is asked there.

use crate::config::{EdgeConfig, Network};
use flashlane_wire::forwarded;
use http::{HeaderMap, HeaderName};
use std::net::IpAddr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Handlers find it in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The client's own, as far as trusted proxies tell.
    pub(crate) address: IpAddr,
    /// Whether the connection showed a certificate of an authority that the config names.
    pub(crate) has_certificate: bool,
    /// Whether a proxy named it for this request alone.
    pub(crate) is_forwarded: bool,
}

impl Peer {
    pub(crate) fn new(address: IpAddr, has_certificate: bool) -> Self {
        Self { address, has_certificate, is_forwarded: false }
    }

    /// On this machine: an IPv4 address may come in IPv6's form.
    pub(crate) fn is_loopback(&self) -> bool {
        self.address.to_canonical().is_loopback()
    }

    /// Who sends a request with these headers over the connection.
    pub(crate) fn behind(self, config: &EdgeConfig, headers: &HeaderMap) -> Self {
        let trusted = &config.trusted_proxies;
        if !is_trusted(trusted, self.address) {
            return self;
        }
        let values = headers.get_all(FORWARDED_FOR).iter().map(http::HeaderValue::as_bytes);
        // A double-ended walk over all fields of the name.
        let values: Vec<_> = values.collect();
        let address = forwarded::client(self.address, values.into_iter(), |address| is_trusted(trusted, address));
        Self { address, is_forwarded: address != self.address, ..self }
    }
}

pub(crate) fn is_trusted(trusted: &[Network], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(address))
}
