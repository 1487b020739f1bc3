//! A client's connection, with or without TLS, that counts what crosses the wire: handshakes and record headers included.
//! Knows nothing of what is said.

use super::Error;
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

/// Bytes on the wire so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wire {
    pub up_bytes: u64,
    pub down_bytes: u64,
}

/// What `https` is trusted by: the certificates of one file.
#[derive(Debug, Clone)]
pub struct Trust(RootCertStore);

impl Trust {
    /// # Errors
    /// When the file cannot be read, or holds no certificate.
    pub fn load(path: &Path) -> Result<Trust, Error> {
        let failed = |reason: String| Error::Certificates { path: path.to_owned(), reason };
        let pem = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
        }
        if roots.is_empty() { Err(failed("it holds no certificate".to_owned())) } else { Ok(Trust(roots)) }
    }
}

/// How one gateway is spoken to over TLS. Its connections share their session tickets, as those of one client do: all but
/// the first resume.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// For a host's name or address.
    ///
    /// # Errors
    /// For what is neither.
    pub fn new(trust: &Trust, host: &str) -> Result<Tls, Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Name { host: host.to_owned() })?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Error::TlsSetUp)?
            .with_root_certificates(trust.0.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls { config: Arc::new(config), name })
    }
}

/// Read and written like a socket. The first byte that is written shakes hands.
#[derive(Debug)]
pub enum Connection {
    Plain(Counted),
    Tls(Box<StreamOwned<ClientConnection, Counted>>),
}

impl Connection {
    /// # Errors
    /// When TLS cannot begin.
    pub fn new(socket: TcpStream, tls: Option<&Tls>) -> Result<Connection, Error> {
        let counted = Counted { socket, wire: Wire::default() };
        Ok(match tls {
            None => Connection::Plain(counted),
            Some(Tls { config, name }) => {
                let client = ClientConnection::new(Arc::clone(config), name.clone()).map_err(Error::TlsSetUp)?;
                Connection::Tls(Box::new(StreamOwned::new(client, counted)))
            }
        })
    }

    #[must_use]
    pub fn wire(&self) -> Wire {
        match self {
            Connection::Plain(counted) => counted.wire,
            Connection::Tls(stream) => stream.sock.wire,
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(counted) => counted.read(buf),
            Connection::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(counted) => counted.write(buf),
            Connection::Tls(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(counted) => counted.flush(),
            Connection::Tls(stream) => stream.flush(),
        }
    }
}

/// A socket, and what went through it.
#[derive(Debug)]
pub struct Counted {
    socket: TcpStream,
    wire: Wire,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(buf)?;
        self.wire.down_bytes += count as u64;
        Ok(count)
    }
}

impl Write for Counted {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = self.socket.write(buf)?;
        self.wire.up_bytes += count as u64;
        Ok(count)
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let count = self.socket.write_vectored(bufs)?;
        self.wire.up_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}
