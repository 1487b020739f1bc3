//! Certificates for loopback, one after the other, of one authority that lives in this process. Knows nothing of who serves them.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(folder: PathBuf) -> io::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "flashlane soak");
        let key = KeyPair::generate().map_err(io::Error::other)?;
        Ok(Self { folder, issuer: CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)? })
    }

    /// Puts a new certificate and its key in the place of those of before, each in one step.
    pub fn certify(&self) -> io::Result<()> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).map_err(io::Error::other)?;
        let made = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        for (name, text) in [("key.pem", key.serialize_pem()), ("certificate.pem", made.pem())] {
            let scratch = self.folder.join(format!("{name}.new"));
            fs::write(&scratch, text)?;
            fs::rename(scratch, self.folder.join(name))?;
        }
        Ok(())
    }

    /// Clients that trust it, and keep the tickets that they get.
    pub fn connector(&self) -> io::Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).map_err(io::Error::other)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}
