//! TLS for clients: certificate and key from their files, the handshake and its limits. Knows no HTTP but its names in ALPN, and
//! one answer to who speaks it where TLS is expected.
//!
//! Sessions are resumed by tickets (RFC 8446, 4.6.1; RFC 5077): the client keeps them, sealed with keys that live in this process
//! and change every six hours, so that resumption costs no memory here. Early data is refused: it could be replayed.

use crate::config::{ClientCertificates, TlsConfig};
use crate::routes;
use flashlane_backend::files;
use flashlane_telemetry::label::Handshake;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// The first byte of every TLS connection: a handshake record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// The answer to whoever speaks plain HTTP.
const PLAIN_HTTP_HEAD: &str = "HTTP/1.1 400 Bad Request\r\n\
    content-type: application/json\r\n\
    content-length: 135\r\n\
    connection: close\r\n\
    x-request-id: ";
const PLAIN_HTTP_BODY: &str = "{\"error\":{\"message\":\"This port speaks TLS: use https:// or wss://.\",\
    \"type\":\"invalid_request_error\",\"param\":null,\"code\":\"tls_required\"}}";
/// How much of a plain request is read away, so that closing does not reset the connection before the answer is read.
const PLAIN_BYTES_MAX: u64 = 64 * 1024;

/// A certificate with its key, ready to serve.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    handshakes: Arc<Semaphore>,
    wait_max: Duration,
    certificate: CertificateDer<'static>,
    /// What makes it another one: its table, and what the files hold that it names.
    made_of: (TlsConfig, u64),
}

/// A certificate or key that cannot be served. With its cause it shows the field, the file and the fault, and nothing of the key.
#[derive(Debug, thiserror::Error)]
#[error("`{field}`")]
pub struct TlsError {
    /// The field's name in the config.
    pub field: &'static str,
    #[source]
    pub problem: TlsProblem,
}

/// What is wrong with a field.
#[derive(Debug, thiserror::Error)]
pub enum TlsProblem {
    #[error("cannot read `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("`{}` holds no usable certificate: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("`{}` holds no usable private key: {reason}", path.display())]
    Key { path: PathBuf, reason: String },
    #[error("the key in `{}` is not that of the certificate in `{}`", key.display(), certificate.display())]
    Mismatch { key: PathBuf, certificate: PathBuf },
    #[error("TLS cannot be set up")]
    SetUp(#[source] rustls::Error),
}

impl Tls {
    /// Reads both files and sees that they belong together.
    ///
    /// # Errors
    /// [`TlsError`], with the field that names the file at fault.
    pub fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        // Looked at before they are read: what changes in between is told by the next look.
        let made_of = (config.clone(), files::digest(config.files()));
        let certificate_fault = |problem| TlsError { field: "certificate_file", problem };
        let chain = certificates(&config.certificate_file).map_err(certificate_fault)?;
        let certificate = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let key = private_key(&config.key_file).map_err(|problem| TlsError { field: "key_file", problem })?;
        let set_up = |source| certificate_fault(TlsProblem::SetUp(source));
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(set_up)?;
        let builder = match client_verifier(config, provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(chain, key).map_err(|source| unfit(&source, config))?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        server.ticketer = ring::Ticketer::new().map_err(set_up)?;
        Ok(Self {
            config: Arc::new(server),
            handshakes: Arc::new(Semaphore::new(usize::from(config.handshakes_max.get()))),
            wait_max: Duration::from_millis(config.handshake_ms_max),
            certificate,
            made_of,
        })
    }

    /// The next one, unless it is the one of before: then tickets that were given out are taken still.
    pub(crate) fn kept(before: Option<&Self>, next: Option<Self>) -> Option<Self> {
        next.map(|next| before.filter(|before| before.made_of == next.made_of).cloned().unwrap_or(next))
    }

    /// What clients are shown, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The connection behind its handshake.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> Result<TlsStream<TcpStream>, Handshake> {
        match tokio::time::timeout(self.wait_max, self.handshake(tcp)).await {
            Ok(Ok(Some(stream))) => Ok(stream),
            Ok(Ok(None)) => Err(Handshake::Plain),
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a TLS handshake failed");
                Err(Handshake::Failed)
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took longer than {} ms", self.wait_max.as_millis());
                Err(Handshake::Late)
            }
        }
    }

    async fn handshake(&self, tcp: TcpStream) -> io::Result<Option<TlsStream<TcpStream>>> {
        let mut first = [HANDSHAKE];
        tcp.peek(&mut first).await?;
        if first != [HANDSHAKE] {
            return refuse_plain(tcp).await.map(|()| None);
        }
        let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
        // Waiting for a client takes no place, computing for it does. An Err would say that the semaphore is closed; nobody closes it.
        let place = self.handshakes.acquire().await;
        let rest = hello.into_stream(Arc::clone(&self.config));
        // What waits on this thread, running streams above all, goes before the next handshake.
        tokio::task::yield_now().await;
        drop(place);
        rest.await.map(Some)
    }
}

/// Who clients have to be; None: they are not asked.
fn client_verifier(
    config: &TlsConfig,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(path) = &config.client_ca_file else { return Ok(None) };
    let fault = |problem| TlsError { field: "client_ca_file", problem };
    let unusable = |reason: String| fault(TlsProblem::Certificate { path: path.clone(), reason });
    let mut roots = RootCertStore::empty();
    for authority in certificates(path).map_err(fault)? {
        roots.add(authority).map_err(|error| unusable(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match config.client_certificates {
        Some(ClientCertificates::Optional) => builder.allow_unauthenticated(),
        Some(ClientCertificates::Required) | None => builder,
    };
    builder.build().map(Some).map_err(|error| unusable(error.to_string()))
}

/// Why two readable files do not serve.
fn unfit(source: &rustls::Error, TlsConfig { certificate_file, key_file, .. }: &TlsConfig) -> TlsError {
    let (certificate, key) = (certificate_file.clone(), key_file.clone());
    if let rustls::Error::InconsistentKeys(_) = source {
        return TlsError { field: "key_file", problem: TlsProblem::Mismatch { key, certificate } };
    }
    let reason = source.to_string();
    if let rustls::Error::InvalidCertificate(_) = source {
        return TlsError { field: "certificate_file", problem: TlsProblem::Certificate { path: certificate, reason } };
    }
    TlsError { field: "key_file", problem: TlsProblem::Key { path: key, reason } }
}

async fn refuse_plain(mut tcp: TcpStream) -> io::Result<()> {
    let id = routes::request_id().map_err(io::Error::other)?;
    tcp.write_all(format!("{PLAIN_HTTP_HEAD}{id}\r\n\r\n{PLAIN_HTTP_BODY}").as_bytes()).await?;
    tcp.shutdown().await?;
    tokio::io::copy(&mut tcp.take(PLAIN_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsProblem> {
    fs::read(path).map_err(|source| TlsProblem::File { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let unusable = |reason| TlsProblem::Certificate { path: path.to_owned(), reason };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(unusable("no CERTIFICATE block".to_owned())),
        Ok(chain) => Ok(chain),
        Err(error) => Err(unusable(error.to_string())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| {
        let is_none = matches!(error, pem::Error::NoItemsFound);
        let reason = if is_none { "no unencrypted PRIVATE KEY block".to_owned() } else { error.to_string() };
        TlsProblem::Key { path: path.to_owned(), reason }
    })
}
