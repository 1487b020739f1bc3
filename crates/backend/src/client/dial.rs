//! From an address to an open connection: name, TCP, TLS. Knows no pool and no HTTP but its name in ALPN.

use crate::client::address::Address;
use crate::client::io::Io;
use crate::error::Problem;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// Of a name's addresses, how many are tried.
const ADDRESSES_MAX: usize = 8;

/// The HTTP version that a connection is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

impl Version {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// Opens connections to one endpoint.
pub(crate) struct Dialer {
    pub(crate) address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    version: Version,
    connect_ms_max: u64,
    /// Microseconds; 0: nothing is known yet.
    round_trip_us: AtomicU64,
}

/// Why there is no connection. Not a byte of a request was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the name `{host}` cannot be resolved")]
    Name { host: String, source: io::Error },
    #[error("the name `{host}` has no address")]
    NoAddress { host: String },
    #[error("cannot connect to {address}")]
    Tcp { address: SocketAddr, source: io::Error },
    #[error("the TLS handshake with {address} failed")]
    Tls { address: SocketAddr, source: io::Error },
    #[error("{address} does not offer HTTP/2 over TLS")]
    NoHttp2 { address: SocketAddr },
    #[error("the HTTP/2 handshake failed")]
    Http2 { source: hyper::Error },
    #[error("no connection within {connect_ms_max} ms")]
    Late { connect_ms_max: u64 },
}

impl Dialer {
    /// `ca_file` holds, as PEM, certificates to trust beside the public ones.
    pub(crate) fn new(
        address: Address,
        ca_file: Option<&Path>,
        version: Version,
        connect_ms_max: u64,
    ) -> Result<Self, Problem> {
        let tls = match address.tls {
            true => {
                let name = ServerName::try_from(address.host.clone()).map_err(|_| Problem::UrlHost)?;
                Some((TlsConnector::from(Arc::new(tls_config(ca_file, version)?)), name))
            }
            false => None,
        };
        Ok(Self { address, tls, version, connect_ms_max, round_trip_us: AtomicU64::new(0) })
    }

    pub(crate) fn connect_max(&self) -> Duration {
        Duration::from_millis(self.connect_ms_max)
    }

    /// The quickest that a connection was ever answered: what was longer was some queue's time. `None`: there was none yet.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let us = self.round_trip_us.load(Ordering::Relaxed);
        (us > 0).then(|| Duration::from_micros(us))
    }

    fn answered_within(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let known = self.round_trip_us.load(Ordering::Relaxed);
        if known == 0 || us < known {
            self.round_trip_us.store(us, Ordering::Relaxed);
        }
    }

    pub(crate) async fn dial(&self) -> Result<Io, DialError> {
        let connect_ms_max = self.connect_ms_max;
        tokio::time::timeout(Duration::from_millis(connect_ms_max), self.dial_at_leisure())
            .await
            .unwrap_or(Err(DialError::Late { connect_ms_max }))
    }

    async fn dial_at_leisure(&self) -> Result<Io, DialError> {
        let (address, tcp) = self.connect().await?;
        // Without it the second write of a short turn waits some 40 ms for an acknowledgement.
        tcp.set_nodelay(true).map_err(|source| DialError::Tcp { address, source })?;
        let Some((connector, name)) = &self.tls else { return Ok(Io::Plain(tcp)) };
        let tls = connector.connect(name.clone(), tcp).await.map_err(|source| DialError::Tls { address, source })?;
        if self.version == Version::Http2 && tls.get_ref().1.alpn_protocol() != Some(Version::Http2.alpn()) {
            return Err(DialError::NoHttp2 { address });
        }
        Ok(Io::Tls(Box::new(tls.into())))
    }

    /// The first of the host's addresses that answers; each gets an equal share of the time.
    async fn connect(&self) -> Result<(SocketAddr, TcpStream), DialError> {
        let Address { host, port, .. } = &self.address;
        let found = tokio::net::lookup_host((&**host, *port))
            .await
            .map_err(|source| DialError::Name { host: host.clone(), source })?;
        let addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
        let share = Duration::from_millis(self.connect_ms_max) / u32::try_from(addresses.len().max(1)).unwrap_or(1);
        let mut last = DialError::NoAddress { host: host.clone() };
        for address in addresses {
            let asked_at = Instant::now();
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    self.answered_within(asked_at.elapsed());
                    return Ok((address, tcp));
                }
                Ok(Err(source)) => last = DialError::Tcp { address, source },
                Err(_) => last = DialError::Tcp { address, source: io::ErrorKind::TimedOut.into() },
            }
        }
        Err(last)
    }
}

/// Certificates are always verified. Sessions are resumed, as rustls does by itself.
fn tls_config(ca_file: Option<&Path>, version: Version) -> Result<ClientConfig, Problem> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        let unusable = |reason: String| Problem::Certificate { path: path.to_owned(), reason };
        let pem = std::fs::read(path).map_err(|source| Problem::File { path: path.to_owned(), source })?;
        let mut certificates = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            certificates += 1;
        }
        if certificates == 0 {
            return Err(unusable("no CERTIFICATE block".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Problem::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![version.alpn().to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_quickest_answer_is_the_links_round_trip() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let dialer = Dialer::new(Address::parse(&url).unwrap(), None, Version::Http1, 1000).unwrap();
        assert_eq!(dialer.round_trip(), None);
        dialer.dial().await.unwrap();
        assert!(dialer.round_trip().is_some_and(|time| time < Duration::from_secs(1)));
        for (us, expected) in [(0, 1), (50, 1)] {
            dialer.answered_within(Duration::from_micros(us));
            assert_eq!(dialer.round_trip(), Some(Duration::from_micros(expected)));
        }
    }
}
