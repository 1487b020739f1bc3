//! From an address to an open connection: name, TCP, TLS. Knows no pool and no HTTP but its name in ALPN.

use crate::client::address::Address;
use crate::client::io::Io;
use crate::client::way::{Fault, Proxy, Way};
use crate::error::Problem;
use rustls_pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
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
    proxy: Option<Proxy>,
    names: Names,
    connect_ms_max: u64,
    /// Microseconds; 0: nothing is known yet.
    round_trip_us: AtomicU64,
}

/// Who says where a name is: asked for every connection, and its answer kept for none.
enum Names {
    System,
    /// Whatever the name.
    #[cfg(test)]
    Scripted(std::sync::Mutex<SocketAddr>),
}

impl Names {
    async fn of(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => Ok(tokio::net::lookup_host((host, port)).await?.take(ADDRESSES_MAX).collect()),
            #[cfg(test)]
            Self::Scripted(at) => Ok(vec![*at.lock().unwrap()]),
        }
    }
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
    #[error("the proxy {address} answered {said}")]
    Proxy { address: SocketAddr, said: String },
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
    /// # Errors
    /// The field at fault: `base_url`, or one of the way's.
    pub(crate) fn new(address: Address, way: &Way, version: Version, connect_ms_max: u64) -> Result<Self, Fault> {
        let tls = match address.tls {
            true => {
                let name = ServerName::try_from(address.host.clone()).map_err(|_| ("base_url", Problem::UrlHost))?;
                Some((TlsConnector::from(Arc::new(way.tls(version.alpn())?)), name))
            }
            false => None,
        };
        let (proxy, names) = (way.proxy.clone(), Names::System);
        Ok(Self { address, tls, version, proxy, names, connect_ms_max, round_trip_us: AtomicU64::new(0) })
    }

    /// Its name stands for this address from here on.
    #[cfg(test)]
    pub(crate) fn moved_to(&mut self, address: SocketAddr) {
        self.names = Names::Scripted(std::sync::Mutex::new(address));
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
        let (address, mut tcp) = self.connect().await?;
        // Without it the second write of a short turn waits some 40 ms for an acknowledgement.
        tcp.set_nodelay(true).map_err(|source| DialError::Tcp { address, source })?;
        if let Some(proxy) = &self.proxy {
            let Address { host, port, .. } = &self.address;
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            proxy.tunnel(&mut tcp, (address, &format!("{host}:{port}"))).await?;
        }
        let Some((connector, name)) = &self.tls else { return Ok(Io::Plain(tcp)) };
        let tls = connector.connect(name.clone(), tcp).await.map_err(|source| DialError::Tls { address, source })?;
        if self.version == Version::Http2 && tls.get_ref().1.alpn_protocol() != Some(Version::Http2.alpn()) {
            return Err(DialError::NoHttp2 { address });
        }
        Ok(Io::Tls(Box::new(tls.into())))
    }

    /// The first of the host's addresses that answers; each gets an equal share of the time.
    async fn connect(&self) -> Result<(SocketAddr, TcpStream), DialError> {
        // Behind a proxy the endpoint's own name is the proxy's to resolve.
        let Address { host, port, .. } = self.proxy.as_ref().map_or(&self.address, |proxy| &proxy.address);
        let found = self.names.of(host, *port).await;
        let addresses = found.map_err(|source| DialError::Name { host: host.clone(), source })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_quickest_answer_is_the_links_round_trip() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let dialer = Dialer::new(Address::parse(&url).unwrap(), &Way::default(), Version::Http1, 1000).unwrap();
        assert_eq!(dialer.round_trip(), None);
        dialer.dial().await.unwrap();
        assert!(dialer.round_trip().is_some_and(|time| time < Duration::from_secs(1)));
        for (us, expected) in [(0, 1), (50, 1)] {
            dialer.answered_within(Duration::from_micros(us));
            assert_eq!(dialer.round_trip(), Some(Duration::from_micros(expected)));
        }
    }
}
