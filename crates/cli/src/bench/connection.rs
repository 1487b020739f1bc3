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

#[cfg(test)]
mod tests {
    use super::super::target::Place;
    use super::*;
    use rustls::{HandshakeKind, ServerConfig, ServerConnection};
    use rustls_pki_types::PrivateKeyDer;
    use std::net::TcpListener;
    use std::thread;

    /// Answers one byte by one byte on each of so many connections, and counts them.
    fn serve(listener: &TcpListener, config: &Arc<ServerConfig>, connections: usize) -> Vec<Wire> {
        let mut wires = Vec::new();
        for socket in listener.incoming().flatten().take(connections) {
            let server = ServerConnection::new(Arc::clone(config)).unwrap();
            let mut stream = StreamOwned::new(server, Counted { socket, wire: Wire::default() });
            stream.read_exact(&mut [0]).unwrap();
            stream.write_all(b"!").unwrap();
            stream.flush().unwrap();
            wires.push(stream.sock.wire);
        }
        wires
    }

    #[test]
    fn a_second_connection_resumes_and_all_that_crosses_the_wire_is_counted() {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let file = std::env::temp_dir().join(format!("flashlane-bench-{}.pem", std::process::id()));
        fs::write(&file, made.cert.pem()).unwrap();
        let trust = Trust::load(&file);
        fs::remove_file(&file).unwrap();
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || serve(&listener, &Arc::new(config), 2));
        let place = Place::of(&url.parse().unwrap(), Some(&trust.unwrap())).unwrap();
        let mut clients = Vec::new();
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut connection = place.open().unwrap();
            connection.write_all(b"?").unwrap();
            connection.read_exact(&mut [0]).unwrap();
            let Connection::Tls(stream) = &connection else { panic!("{connection:?}") };
            assert_eq!(stream.conn.handshake_kind(), Some(kind));
            clients.push(connection);
        }
        for (server, client) in server.join().unwrap().into_iter().zip(clients) {
            let Wire { up_bytes, down_bytes } = client.wire();
            assert_eq!((server.down_bytes, server.up_bytes), (up_bytes, down_bytes));
        }
        assert!(Trust::load(&file).is_err());
    }
}
