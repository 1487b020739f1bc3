//! The address of a Responses API, in the forms that people write it. Knows nothing of what answers there.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Where `flashlane serve` listens when nothing else is said.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8700/v1";

/// Of addresses to listen on. A name may mean many addresses, and another one tomorrow.
pub const LISTEN_EXPECTED: &str =
    "expected an IP address and a port, such as 127.0.0.1:8700 or [::1]:8700, and no name";

/// An address to listen on.
///
/// # Errors
/// [`LISTEN_EXPECTED`].
pub fn listen(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| LISTEN_EXPECTED)
}

/// The base of an API: scheme, host, port and the path before `/responses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    tls: bool,
    /// Host, and the port where one was written.
    authority: String,
    /// Begins with `/`, or is empty; never ends with `/`.
    path: String,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("unknown scheme `{0}`: expected http, https, ws or wss")]
    Scheme(String),
    #[error("no host in it: expected something like {DEFAULT_URL}")]
    NoHost,
    #[error("expected scheme://host:port/path without user, query or spaces")]
    Shape,
}

impl Address {
    /// The base for HTTP clients: `http://127.0.0.1:8700/v1`.
    #[must_use]
    pub fn http(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.path)
    }

    /// The WebSocket of the Responses API: `ws://127.0.0.1:8700/v1/responses`.
    #[must_use]
    pub fn websocket(&self) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        format!("{scheme}://{}{}/responses", self.authority, self.path)
    }

    /// The base for clients that ask for a WebSocket base: `ws://127.0.0.1:8700/v1`.
    #[must_use]
    pub fn websocket_base(&self) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        format!("{scheme}://{}{}", self.authority, self.path)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.http())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Takes `http`, `https`, `ws` or `wss` URLs, or a bare `host:port`; a last `/responses` is not part of the base, and
    /// without a path it is `/v1`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("http", text.trim()));
        let tls = match scheme {
            "http" | "ws" => false,
            "https" | "wss" => true,
            other => return Err(AddressError::Scheme(other.to_owned())),
        };
        if rest.contains(|c: char| c.is_whitespace() || c.is_control() || "@?#\"'\\".contains(c)) {
            return Err(AddressError::Shape);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() || authority.starts_with(':') {
            return Err(AddressError::NoHost);
        }
        let path = path.trim_end_matches('/');
        let path = path.strip_suffix("responses").map_or(path, |base| base.trim_end_matches('/'));
        let path = if path.is_empty() { "/v1".to_owned() } else { format!("/{path}") };
        Ok(Self { tls, authority: authority.to_owned(), path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(text: &str) -> String {
        text.parse::<Address>().unwrap().http()
    }

    #[test]
    fn every_way_to_write_an_address_gives_the_same_base() {
        let forms = [
            "http://127.0.0.1:8700/v1",
            "http://127.0.0.1:8700",
            "127.0.0.1:8700",
            "127.0.0.1:8700/v1/",
            "ws://127.0.0.1:8700/v1/responses",
            "ws://127.0.0.1:8700/v1/responses/",
        ];
        for form in forms {
            assert_eq!(http(form), DEFAULT_URL, "{form}");
        }
    }

    #[test]
    fn tls_and_foreign_paths_are_kept() {
        let address: Address = "wss://example.com/openai/v1/responses".parse().unwrap();
        assert_eq!(address.http(), "https://example.com/openai/v1");
        assert_eq!(address.websocket(), "wss://example.com/openai/v1/responses");
        assert_eq!(address.websocket_base(), "wss://example.com/openai/v1");
    }

    #[test]
    fn what_is_no_address_says_why() {
        let error = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(error("ftp://x"), AddressError::Scheme("ftp".to_owned()));
        assert_eq!(error("http://"), AddressError::NoHost);
        assert_eq!(error(":8700"), AddressError::NoHost);
        assert_eq!(error("http://a b"), AddressError::Shape);
        assert_eq!(error("http://key@host/v1"), AddressError::Shape);
        assert_eq!(error("http://host/\"x"), AddressError::Shape);
    }
}
