//! Where an endpoint is: the parts of its `base_url`.

use crate::error::Problem;
use http::Uri;

/// A checked base URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Host, with the port where it is not the scheme's own: the `Host` field.
    pub(crate) authority: String,
    /// Begins with `/` or is empty; does not end with `/`.
    pub(crate) path: String,
}

impl Address {
    /// # Errors
    /// When `base_url` is not an `http` or `https` URL of host, port and path alone.
    pub(crate) fn parse(base_url: &str) -> Result<Self, Problem> {
        let uri: Uri = base_url.trim().parse().map_err(Problem::Url)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(Problem::UrlScheme),
        };
        let authority = uri.authority().ok_or(Problem::UrlScheme)?;
        // `http::Uri` drops a fragment silently.
        if uri.query().is_some() || base_url.contains('#') || authority.as_str().contains('@') {
            return Err(Problem::UrlParts);
        }
        let standard_port = if tls { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(standard_port);
        let host = authority.host();
        Ok(Self {
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority: if port == standard_port { host.to_owned() } else { format!("{host}:{port}") },
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The URL of `path` (which begins with `/`) on this host.
    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        Address::parse(url).unwrap()
    }

    #[test]
    fn a_base_url_falls_into_its_parts() {
        let local = address("http://127.0.0.1:8000/v1/");
        assert_eq!((local.tls, &*local.host, local.port), (false, "127.0.0.1", 8000));
        assert_eq!((&*local.authority, &*local.path), ("127.0.0.1:8000", "/v1"));
        let hosted = address("https://api.cerebras.ai/v1");
        assert_eq!((hosted.tls, hosted.port, &*hosted.authority), (true, 443, "api.cerebras.ai"));
        let six = address("http://[::1]:80");
        assert_eq!((&*six.host, &*six.authority, &*six.path), ("::1", "[::1]", ""));
        assert_eq!(address("http://h:8000/v1").url("/x"), "http://h:8000/x");
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for url in ["", "127.0.0.1:8000", "ftp://host/v1", "unix:/run/x", "/v1"] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
        for url in ["http://user:pass@host/v1", "http://host/v1?key=1", "http://host/v1#x"] {
            assert!(matches!(Address::parse(url), Err(Problem::UrlParts)), "{url}");
        }
    }
}
