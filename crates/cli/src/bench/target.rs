//! What is measured: a gateway's address, and the ways to speak to it. Knows nothing of what is said.

use super::Error;
use super::connection::{Connection, Tls, Trust};
use crate::address::Address;
use serde::Serialize;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// Silence for this long is a failure.
const READ_S_MAX: u64 = 60;

/// How a client speaks to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Chat,
    Responses,
    #[value(name = "websocket")]
    WebSocket,
}

impl Protocol {
    pub const ALL: [Protocol; 3] = [Protocol::Chat, Protocol::Responses, Protocol::WebSocket];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Chat => "chat",
            Protocol::Responses => "responses",
            Protocol::WebSocket => "websocket",
        })
    }
}

/// A gateway as it is named on the command line: `NAME=URL`, or a URL that is its own name.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub name: String,
    pub address: Address,
}

impl FromStr for Gateway {
    type Err = <Address as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = text.split_once('=').filter(|(name, _)| !name.contains("://"));
        let (name, url) = named.unwrap_or((text, text));
        Ok(Gateway { name: name.to_owned(), address: url.parse()? })
    }
}

/// A place to connect to, and what a request's head says of it.
#[derive(Debug, Clone)]
pub struct Place {
    /// The gateway, or the delayed link before it.
    pub connect: SocketAddr,
    pub host: String,
    /// `/v1`.
    pub base: String,
    /// Of `https`.
    pub tls: Option<Tls>,
}

impl Place {
    /// # Errors
    /// For `https` without anything to trust it by, and names that do not resolve.
    pub fn of(address: &Address, trust: Option<&Trust>) -> Result<Place, Error> {
        let url = address.http();
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", &url));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, port) = host.rsplit_once(':').unwrap_or((host, if scheme == "https" { "443" } else { "80" }));
        let connect = format!("{name}:{port}")
            .to_socket_addrs()
            .and_then(|mut found| found.next().ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(|source| Error::Connect { host: host.to_owned(), source })?;
        let tls = match (scheme, trust) {
            ("https", Some(trust)) => Some(Tls::new(trust, name)?),
            ("https", None) => return Err(Error::Tls { url }),
            _ => None,
        };
        Ok(Place { connect, host: host.to_owned(), base: format!("/{path}"), tls })
    }

    /// # Errors
    /// When nothing answers there.
    pub fn open(&self) -> Result<Connection, Error> {
        let open = || {
            let socket = TcpStream::connect(self.connect)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(Duration::from_secs(READ_S_MAX)))?;
            Ok(socket)
        };
        let socket = open().map_err(|source| Error::Connect { host: self.host.clone(), source })?;
        Connection::new(socket, self.tls.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_may_have_a_name() {
        let named: Gateway = "ours=127.0.0.1:8700".parse().unwrap();
        assert_eq!((named.name.as_str(), named.address.http().as_str()), ("ours", "http://127.0.0.1:8700/v1"));
        let bare: Gateway = "http://127.0.0.1:8700/v1".parse().unwrap();
        assert_eq!(bare.name, "http://127.0.0.1:8700/v1");
        let place = Place::of(&named.address, None).unwrap();
        assert_eq!((place.host.as_str(), place.base.as_str(), place.connect.port()), ("127.0.0.1:8700", "/v1", 8700));
        let secure: Gateway = "https://127.0.0.1".parse().unwrap();
        assert!(matches!(Place::of(&secure.address, None), Err(Error::Tls { .. })));
    }
}
