//! Which web pages may use this server. Where it asks for no key, whoever reaches it is served, and the browser of somebody on
//! this machine reaches it for every page that it shows: so pages of other sites are refused by their `Origin`, and pages that had
//! their own name pointed at this machine (DNS rebinding), which need no `Origin`, by the name that they call. With keys no page
//! can do what its visitor has no key for: names are not looked at, and `Origin` still is. Knows nothing of what is asked for.

use crate::config::EdgeConfig;
use crate::peer::Peer;
use crate::reply::Refused;
use crate::state::State;
use axum::extract::Request;
use flashlane_engine::ErrorKind;
use http::header::{HOST, HeaderValue, ORIGIN};
use http::uri::Authority;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// PROTOCOL clause 1.1.
pub(crate) fn check(state: &State, request: &Request) -> Result<(), Refused> {
    let current = state.current();
    let config = &current.config;
    let headers = request.headers();
    let is_own_page = |origin: &HeaderValue| origin.to_str().is_ok_and(|origin| is_origin_allowed(origin, config));
    if !headers.get_all(ORIGIN).iter().all(is_own_page) {
        let message = "This server serves no web pages of other sites: allow this page's origin by `server.allowed_origins`, or \
                       send no Origin header.";
        return Err(Refused::new(ErrorKind::OriginRefused, message));
    }
    if !current.keys.is_empty() {
        return Ok(());
    }
    if request.extensions().get::<Peer>().is_some_and(|peer| !peer.is_loopback()) {
        let message = "This server asks for no key, so it serves this machine alone.";
        return Err(Refused::new(ErrorKind::OriginRefused, message));
    }
    let is_own_name = |host: &HeaderValue| host.to_str().is_ok_and(|host| is_host_allowed(host, config));
    let is_target_own = request.uri().authority().is_none_or(|target| is_host_allowed(target.as_str(), config));
    if !is_target_own || !headers.get_all(HOST).iter().all(is_own_name) {
        let message = "This server asks for no key, so it answers only to localhost, to IP addresses, and to the names in \
                       `server.allowed_hosts`.";
        return Err(Refused::new(ErrorKind::OriginRefused, message));
    }
    Ok(())
}

/// The same for operators: of pages, those on this machine, those that the config allows, and where proof is asked for the listener's own.
/// `is_open`: no proof is asked for, so that a name that was pointed at this machine must not get through.
pub(crate) fn check_admin(config: &EdgeConfig, request: &Request, is_open: bool) -> Result<(), Refused> {
    let headers = request.headers();
    // HTTP/2 has the one in its target.
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    let host = target.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    let is_own_page = |origin: &HeaderValue| {
        let Ok(origin) = origin.to_str() else { return false };
        let is_listeners =
            || !is_open && origin.split_once("://").is_some_and(|(_, authority)| Some(authority) == host);
        is_origin_allowed(origin, config) || is_listeners()
    };
    if !headers.get_all(ORIGIN).iter().all(is_own_page) {
        let message = "The admin listener serves no web pages of other sites.";
        return Err(Refused::new(ErrorKind::OriginRefused, message));
    }
    if is_open && host.is_some_and(|host| !is_host_allowed(host, config)) {
        let message = "Where no token is asked for, the admin listener answers only to localhost, to IP addresses, and to the names \
                       in `server.allowed_hosts`.";
        return Err(Refused::new(ErrorKind::OriginRefused, message));
    }
    Ok(())
}

/// `null`, which a sandboxed page sends, is nobody's.
fn is_origin_allowed(origin: &str, config: &EdgeConfig) -> bool {
    if config.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
        return true;
    }
    let Some((_, authority)) = origin.split_once("://") else { return false };
    match host(authority) {
        Some(Host::Name(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Address(address)) => address.is_loopback(),
        None => false,
    }
}

/// An address is always allowed: nobody can point one somewhere else.
fn is_host_allowed(authority: &str, config: &EdgeConfig) -> bool {
    match host(authority) {
        Some(Host::Name(name)) => {
            let mut allowed = config.allowed_hosts.iter().map(String::as_str).chain(["localhost"]);
            allowed.any(|allowed| allowed.eq_ignore_ascii_case(&name))
        }
        Some(Host::Address(_)) => true,
        None => false,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    Address(IpAddr),
}

/// The host of `host[:port]`. None: it is none.
fn host(authority: &str) -> Option<Host> {
    let authority: Authority = authority.parse().ok()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host();
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().ok().map(|address| Host::Address(address.into()));
    }
    match host.parse::<Ipv4Addr>() {
        Ok(address) => Some(Host::Address(address.into())),
        Err(_) => Some(Host::Name(host.to_owned())),
    }
}
