//! A gateway as its clients reach it: address, key, and whom to trust. Knows no protocol.

use crate::address::Address;
use flashlane_backend::Secret;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct Gateway {
    pub address: Address,
    pub api_key: Option<Secret>,
    /// PEM certificates of private authorities, in the place of the system's.
    pub cacert: Option<PathBuf>,
}

/// Certificates that nobody can be trusted by.
#[derive(Debug, thiserror::Error)]
#[error("--cacert {}: {reason}", path.display())]
pub struct Untrusted {
    path: PathBuf,
    reason: String,
}

impl Gateway {
    /// TLS that trusts the certificates of `cacert` alone; `None` without it: the system's, or those of `SSL_CERT_FILE`.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no certificate.
    pub fn tls(&self) -> Result<Option<ClientConfig>, Untrusted> {
        let Some(path) = &self.cacert else { return Ok(None) };
        let roots = roots(path).map_err(|reason| Untrusted { path: path.clone(), reason })?;
        let config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| Untrusted { path: path.clone(), reason: error.to_string() })?;
        Ok(Some(config.with_root_certificates(roots).with_no_client_auth()))
    }
}

/// The key in an environment variable; `None`: there is none.
pub fn key(variable: &str) -> Option<Secret> {
    std::env::var(variable).ok().filter(|key| !key.is_empty()).map(Secret::new)
}

/// The key that goes to a gateway where no other is named.
pub fn own_key() -> Option<Secret> {
    key("FLASHLANE_API_KEY")
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_named() {
        let gateway = |cacert: Option<&str>| Gateway {
            address: "https://localhost:8700".parse().unwrap(),
            api_key: None,
            cacert: cacert.map(PathBuf::from),
        };
        assert!(gateway(None).tls().unwrap().is_none());
        let said = |cacert| gateway(Some(cacert)).tls().unwrap_err().to_string();
        assert_eq!(said("Cargo.toml"), "--cacert Cargo.toml: it holds no certificate");
        assert!(said("no-such.pem").starts_with("--cacert no-such.pem: "), "{}", said("no-such.pem"));
    }
}
