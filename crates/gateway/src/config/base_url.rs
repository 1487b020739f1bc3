//! Whether an endpoint's `base_url`, once it is known to be a URL, can lead anywhere. Asks nobody.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a base URL is often mistaken for.
const CHAT_PATH: &str = "/chat/completions";

/// `own` is where flashlane itself listens: an endpoint there would be asked by its own turns. `whose` address was expected: an engine's.
///
/// # Errors
/// What is wrong with it, and what was expected.
pub fn check(base_url: &str, own: [SocketAddr; 2], whose: &str) -> Result<(), String> {
    let rest = base_url.split_once("://").map_or(base_url, |(_, rest)| rest).trim();
    let authority = rest.split('/').next().unwrap_or_default();
    if let Some(base) = base_url.trim().trim_end_matches('/').strip_suffix(CHAT_PATH) {
        return Err(format!("ends with {CHAT_PATH}, which is added to it: expected {base}"));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    };
    if host.is_empty() {
        return Err("names no host: expected something like http://127.0.0.1:8000/v1".to_owned());
    }
    let Some(port) = port else { return Ok(()) };
    let port = match port.parse() {
        Ok(0) | Err(_) => return Err(format!("has the port {port:?}: expected one from 1 to {}", u16::MAX)),
        Ok(port) => port,
    };
    match own.into_iter().find(|own| own.port() == port && is_same_host(host, *own)) {
        Some(own) => Err(format!("is {own}, where flashlane itself listens: expected the address of {whose}")),
        None => Ok(()),
    }
}

fn is_same_host(host: &str, own: SocketAddr) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.eq_ignore_ascii_case("localhost") {
        return own.ip() == Ipv4Addr::LOCALHOST || own.ip() == Ipv6Addr::LOCALHOST;
    }
    host.parse().is_ok_and(|address: std::net::IpAddr| address == own.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(base_url: &str) -> Result<(), String> {
        check(base_url, ["127.0.0.1:8700", "[::1]:8701"].map(|own| own.parse().unwrap()), "an engine")
    }

    #[test]
    fn what_leads_nowhere_says_why() {
        let cases = [
            ("http://:8000/v1", "names no host"),
            ("http://127.0.0.1:0/v1", "from 1 to 65535"),
            ("http://127.0.0.1:99999/v1", "from 1 to 65535"),
            ("http://127.0.0.1:/v1", "from 1 to 65535"),
            ("http://127.0.0.1:8700/v1", "where flashlane itself listens"),
            ("http://localhost:8700", "where flashlane itself listens"),
            ("http://[::1]:8701/v1", "where flashlane itself listens"),
            ("http://h/v1/chat/completions/", "expected http://h/v1"),
        ];
        for (base_url, expected) in cases {
            let said = said(base_url).expect_err(base_url);
            assert!(said.contains(expected), "{base_url}: {said}");
        }
    }

    #[test]
    fn what_may_lead_somewhere_is_taken() {
        for base_url in [
            "https://api.example/v1",
            "http://127.0.0.1:8000",
            "http://[::1]:8000/v1",
            "http://[::1]/v1",
            "http://10.0.0.1:8700/v1",
        ] {
            assert_eq!(said(base_url), Ok(()), "{base_url}");
        }
    }
}
