//! How an endpoint is reached beside its address: whom to trust, who we say that we are, and the proxy in between.
//!
//! Knows no turn and no connection but the one that it opens a tunnel through.

use crate::client::address::Address;
use crate::client::dial::DialError;
use crate::error::Problem;
use crate::secret::Secret;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A proxy's answer to `CONNECT`: a status line and a few fields.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// See the module. The default: public authorities, no certificate, no proxy.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// A PEM file of certificates to trust beside the public ones.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) identity: Option<Identity>,
    pub(crate) proxy: Option<Proxy>,
}

/// PEM files: our certificate with those that lead to its authority, and its key.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) certificate_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

/// A proxy that opens tunnels.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub(crate) address: Address,
    /// `user:password`.
    pub(crate) login: Option<Secret>,
}

impl Proxy {
    /// Asks for a tunnel to `authority`, which has host and port.
    pub(crate) async fn tunnel(
        &self,
        tcp: &mut TcpStream,
        (at, authority): (SocketAddr, &str),
    ) -> Result<(), DialError> {
        let broken = |source| DialError::Tcp { address: at, source };
        let mut head = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n");
        if let Some(login) = &self.login {
            let login = BASE64_STANDARD.encode(login.expose());
            head.push_str(&format!("proxy-authorization: Basic {login}\r\n"));
        }
        head.push_str("\r\n");
        tcp.write_all(head.as_bytes()).await.map_err(broken)?;
        let mut answer = Vec::new();
        // Byte by byte: what follows the head is the tunnel's.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() == HEAD_BYTES_MAX {
                return Err(DialError::Proxy { address: at, said: format!("more than {HEAD_BYTES_MAX} bytes") });
            }
            answer.push(tcp.read_u8().await.map_err(broken)?);
        }
        let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut words = line.split(' ');
        let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
        match words.next().and_then(|status| status.parse::<u16>().ok()).filter(|_| is_http) {
            Some(200..300) => Ok(()),
            Some(status) => Err(DialError::Proxy { address: at, said: status.to_string() }),
            None => Err(DialError::Proxy { address: at, said: "what is no HTTP".to_owned() }),
        }
    }
}

/// A field of the config that leads to a file, and what is wrong with it.
pub(crate) type Fault = (&'static str, Problem);

impl Way {
    /// Trusting these certificates, PEM, beside the public ones.
    #[must_use]
    pub fn trusting(ca_file: Option<PathBuf>) -> Self {
        Self { ca_file, ..Self::default() }
    }

    /// Showing a client certificate: PEM files, the second of its key.
    #[must_use]
    pub fn identified(self, certificate_file: PathBuf, key_file: PathBuf) -> Self {
        Self { identity: Some(Identity { certificate_file, key_file }), ..self }
    }

    /// Certificates are always verified. Sessions are resumed, as rustls does by itself.
    pub(crate) fn tls(&self, alpn: &[u8]) -> Result<ClientConfig, Fault> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = &self.ca_file {
            let fault = |problem| ("ca_file", problem);
            for certificate in certificates(path).map_err(fault)? {
                roots.add(certificate).map_err(|error| fault(unusable(path, &error)))?;
            }
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let builder: ConfigBuilder<ClientConfig, WantsVerifier> = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ("base_url", Problem::Tls(error)))?;
        let builder = builder.with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate_file, key_file }) => {
                let chain = certificates(certificate_file).map_err(|problem| ("client_certificate_file", problem))?;
                let key = private_key(key_file).map_err(|problem| ("client_key_file", problem))?;
                let unfit = |error: rustls::Error| ("client_key_file", unusable(key_file, &error));
                builder.with_client_auth_cert(chain, key).map_err(unfit)?
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(path).map_err(|source| Problem::File { path: path.to_owned(), source })
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> Problem {
    Problem::Certificate { path: path.to_owned(), reason: error.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match chain {
        Ok(chain) if chain.is_empty() => {
            Err(Problem::Certificate { path: path.to_owned(), reason: "no CERTIFICATE block".to_owned() })
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(unusable(path, &error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| Problem::Certificate {
        path: path.to_owned(),
        reason: "no unencrypted PRIVATE KEY block".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::dial::{Dialer, Version};
    use tokio::net::TcpListener;

    /// A proxy that answers the first request with `answer`, and then says `hello` through the tunnel. Gives what it was asked.
    async fn proxied(answer: &'static [u8], login: Option<&str>) -> (Result<Vec<u8>, DialError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let address = Address::parse(&proxy).unwrap();
        let login = login.map(|login| Secret::new(login.to_owned()));
        let way = Way { proxy: Some(Proxy { address, login }), ..Way::default() };
        // A name that nobody but the proxy may have to resolve.
        let endpoint = Address::parse("http://engine.invalid:8000/v1").unwrap();
        let dialer = Dialer::new(endpoint, &way, Version::Http1, 2_000).unwrap();
        let serving = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            tcp.write_all(answer).await.unwrap();
            tcp.write_all(b"hello").await.unwrap();
            String::from_utf8(head).unwrap()
        };
        let dialing = async {
            let mut io = dialer.dial().await?;
            let mut said = vec![0; 5];
            io.read_exact(&mut said).await.unwrap();
            Ok(said)
        };
        tokio::join!(dialing, serving)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_a_tunnel_and_what_follows_is_the_endpoints() {
        let (said, asked) = proxied(b"HTTP/1.1 200 Connection established\r\nvia: x\r\n\r\n", None).await;
        assert_eq!(said.unwrap(), b"hello");
        assert_eq!(asked, "CONNECT engine.invalid:8000 HTTP/1.1\r\nhost: engine.invalid:8000\r\n\r\n");
        let (_, asked) = proxied(b"HTTP/1.0 200\r\n\r\n", Some("me:secret")).await;
        assert!(asked.contains("\r\nproxy-authorization: Basic bWU6c2VjcmV0\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn a_proxy_that_opens_none_is_named_with_its_answer() {
        for (answer, said) in [
            (&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..], "answered 407"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP"),
        ] {
            let error = proxied(answer, Some("me:secret")).await.0.unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{error}");
        }
    }

    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("flashlane-way-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, content: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, content).unwrap();
            path
        }
    }

    /// What the engine sees of who calls: how many certificates, or that none were good enough.
    async fn shown(way: &Way, server: std::sync::Arc<rustls::ServerConfig>) -> Option<usize> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let dialer = Dialer::new(Address::parse(&url).unwrap(), way, Version::Http1, 2_000).unwrap();
        let serving = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let tls = tokio_rustls::TlsAcceptor::from(server).accept(tcp).await.ok()?;
            tls.get_ref().1.peer_certificates().map(<[_]>::len)
        };
        tokio::join!(serving, dialer.dial()).0
    }

    #[tokio::test]
    async fn a_client_certificate_is_shown_where_one_is_asked_for() {
        let folder = Folder::new();
        let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (server, client) = (made("localhost"), made("gateway"));
        let ca_file = folder.file("server.pem", &server.cert.pem());
        let certificate_file = folder.file("client.pem", &client.cert.pem());
        let key_file = folder.file("client.key", &client.signing_key.serialize_pem());
        let mut trusted = RootCertStore::empty();
        trusted.add(client.cert.der().clone()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(trusted.into(), provider.clone())
            .build()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(server.signing_key.serialize_pem().as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.cert.der().clone()], key)
            .unwrap();
        let config = std::sync::Arc::new(config);
        let identity = Identity { certificate_file: certificate_file.clone(), key_file };
        let nameless = Way::trusting(Some(ca_file));
        let named = Way { identity: Some(identity), ..nameless.clone() };
        assert_eq!(shown(&named, config.clone()).await, Some(1));
        assert_eq!(shown(&nameless, config).await, None, "and without one nobody is let in");
        let foreign = folder.file("foreign.key", &made("other").signing_key.serialize_pem());
        let mismatched = Way { identity: Some(Identity { certificate_file, key_file: foreign }), ..nameless };
        assert_eq!(mismatched.tls(b"h2").err().map(|(field, _)| field), Some("client_key_file"));
    }
}
