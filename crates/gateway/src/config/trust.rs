//! Whom the server trusts, and how far: TLS of both listeners, and who may reach the operators' one. Knows nothing of keys.

use super::check::{Fault, check_loopback, told};
use flashlane_edge::{EdgeConfig, Tls, TlsConfig, TlsError};

/// One in use, and the one that takes its place.
const TOKENS_MAX: usize = 2;

/// Who reaches the admin listener from elsewhere must have something to show.
///
/// # Errors
/// The first fault.
pub fn check_admin(server: &EdgeConfig) -> Result<(), Fault> {
    let admin = &server.admin;
    if admin.token_sha256.len() > TOKENS_MAX {
        let is = admin.token_sha256.len();
        let expected = "expected one digest, or two while operators change from one token to the next";
        return Err(Fault::new("server.admin.token_sha256", format!("has {is} in it: {expected}")));
    }
    if admin.can_ask() {
        return Ok(());
    }
    let why = "nothing is asked for there: expected a token (`flashlane keys create --admin`), client_ca_file in [server.admin.tls], or";
    check_loopback("server.admin_listen", server.admin_listen, why)
}

/// Who says what clients are has to be somebody.
///
/// # Errors
/// `proxy_protocol` without `trusted_proxies`.
pub fn check_proxies(server: &EdgeConfig) -> Result<(), Fault> {
    if server.proxy_protocol && server.trusted_proxies.is_empty() {
        let message = "is asked of nobody: expected trusted_proxies beside it, with the addresses of those who send it";
        return Err(Fault::new("server.proxy_protocol", message));
    }
    Ok(())
}

/// Reads the files of the table at `path`.
///
/// # Errors
/// What cannot be served.
pub fn tls(path: &str, config: Option<&TlsConfig>) -> Result<Option<Tls>, Fault> {
    let Some(config) = config else { return Ok(None) };
    if config.client_certificates.is_some() && config.client_ca_file.is_none() {
        let message =
            "asks for client certificates, and names nobody who signs them: expected client_ca_file beside it";
        return Err(Fault::new(format!("{path}.client_certificates"), message));
    }
    let loaded = Tls::load(config).map(Some);
    loaded.map_err(|TlsError { field, problem }| Fault::new(format!("{path}.{field}"), told(&problem)))
}
