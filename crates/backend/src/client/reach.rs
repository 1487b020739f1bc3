//! The way to an endpoint, step by step, for whoever wants to know where it ends: name, TCP, TLS. Sends no request.

use crate::client::Remote;
use crate::client::dial::DialError;
use crate::error::chain;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A way that leads there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// What the name stands for.
    pub addresses: Vec<SocketAddr>,
    /// The one that answered.
    pub address: Option<SocketAddr>,
    pub named_within: Duration,
    /// Name, TCP and TLS together.
    pub connected_within: Duration,
    pub tls: Option<Handshake>,
}

/// What a TLS handshake came to. The certificate was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// `TLSv1_3`.
    pub version: String,
    /// The server's own, in DER.
    pub certificate: Vec<u8>,
}

/// Where a way ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Name,
    Tcp,
    Tls,
}

/// Why it ends there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unreached {
    pub at: Step,
    pub reason: String,
}

impl Remote {
    pub(crate) async fn reach(&self) -> Result<Reached, Unreached> {
        let address = &self.dialer.address;
        let began = Instant::now();
        let named =
            tokio::time::timeout(self.dialer.connect_max(), tokio::net::lookup_host((&*address.host, address.port)));
        let named = named.await.map_err(|_| {
            let reason = format!("the name `{}` is not resolved within {:?}", address.host, self.dialer.connect_max());
            Unreached { at: Step::Name, reason }
        })?;
        let unnamed = |source| Unreached::from(DialError::Name { host: address.host.clone(), source });
        let addresses = named.map_err(unnamed)?.collect();
        let named_within = began.elapsed();
        let io = self.dialer.dial().await?;
        let (address, tls) = (io.peer(), io.handshake());
        Ok(Reached { addresses, address, named_within, connected_within: began.elapsed(), tls })
    }
}

impl From<DialError> for Unreached {
    fn from(error: DialError) -> Self {
        let at = match error {
            DialError::Name { .. } | DialError::NoAddress { .. } => Step::Name,
            DialError::Tcp { .. } | DialError::Proxy { .. } | DialError::Late { .. } => Step::Tcp,
            DialError::Tls { .. } | DialError::NoHttp2 { .. } | DialError::Http2 { .. } => Step::Tls,
        };
        Self { at, reason: chain(&error) }
    }
}
