//! Why a bench stops.

use super::upstream::MODEL;
use flashlane_wire::http1;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}; --listen takes another address")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot start a gateway of its own")]
    Serve(#[source] io::Error),
    #[error("{url}: --ca names the certificates that https is trusted by")]
    Tls { url: String },
    #[error("cannot trust {}: {reason}", path.display())]
    Certificates { path: PathBuf, reason: String },
    #[error("{host} is no name that a certificate can be for")]
    Name { host: String },
    #[error("TLS cannot begin")]
    TlsSetUp(#[source] rustls::Error),
    #[error("a compressed message is broken")]
    Deflate,
    #[error("cannot connect to {host}")]
    Connect {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("the connection broke")]
    Socket(#[source] io::Error),
    #[error("not HTTP")]
    Http(#[source] http1::Error),
    #[error("status {status}: {body}")]
    Status { status: u16, body: String },
    #[error("no WebSocket: {answer}")]
    Upgrade { answer: String },
    #[error("refused: {event}")]
    Refused { event: String },
    #[error("a turn did not end as it should")]
    Turn,
    #[error("its tokens are not the scripted engine's: its engine must be http://{upstream}/v1, its model `{MODEL}`")]
    NoTokens { upstream: SocketAddr },
    #[error("of {sent} tokens that were sent {arrived} arrived")]
    Lost { sent: u64, arrived: u64 },
    #[error("{name} speaks nothing that can be measured")]
    Silent {
        name: String,
        #[source]
        source: Box<Error>,
    },
    #[error("cannot write the results")]
    Write(#[source] io::Error),
}
