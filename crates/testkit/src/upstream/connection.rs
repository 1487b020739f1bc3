//! The server's end of one connection, with or without TLS. Knows of HTTP only how to find a request's end.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A certificate for 127.0.0.1 and localhost, signed by itself.
#[derive(Clone)]
pub struct Identity {
    acceptor: TlsAcceptor,
    pem: Arc<str>,
}

impl Identity {
    /// `alpn` are the protocols offered, such as `["h2", "http/1.1"]`; none: ALPN is ignored.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn new(alpn: &[&str]) -> io::Result<Self> {
        let addresses = [IpAddr::from(Ipv4Addr::LOCALHOST).to_string(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(addresses).map_err(io::Error::other)?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), pem: made.cert.pem().into() })
    }

    /// What a client has to trust.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    #[must_use]
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

/// How a chunk goes out.
pub(super) enum Framing {
    OneWrite,
    WritePerPart,
}

pub(super) struct Connection {
    socket: Socket,
    /// Read, and not asked for yet.
    ahead: Vec<u8>,
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

impl Connection {
    pub(super) async fn accept(tcp: TcpStream, identity: Option<&Identity>) -> io::Result<Self> {
        let socket = match identity {
            Some(identity) => Socket::Tls(Box::new(identity.acceptor.accept(tcp).await?)),
            None => Socket::Plain(tcp),
        };
        Ok(Self { socket, ahead: Vec::new() })
    }

    fn bytes(&mut self) -> &mut dyn Bytes {
        match &mut self.socket {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(tls) => &mut **tls,
        }
    }

    /// Reads once; 0 at the end.
    async fn read_more(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 8192];
        let read = self.bytes().read(&mut bytes).await?;
        self.ahead.extend_from_slice(bytes.get(..read).unwrap_or_default());
        Ok(read)
    }

    /// Head and body of a request; `None` when the peer closes before one begins.
    pub(super) async fn request(&mut self) -> io::Result<Option<(String, Vec<u8>)>> {
        let end = loop {
            if let Some(end) = self.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if self.ahead.len() > HEAD_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            match self.read_more().await? {
                0 if self.ahead.is_empty() => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        };
        let rest = self.ahead.split_off(end + 4);
        let mut head = std::mem::replace(&mut self.ahead, rest);
        head.truncate(end);
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let length = head.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        });
        let length = length.unwrap_or(Ok(0)).map_err(io::Error::other)?;
        if length > BODY_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        while self.ahead.len() < length {
            if self.read_more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.ahead.split_off(length);
        Ok(Some((head, std::mem::replace(&mut self.ahead, rest))))
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes().write_all(bytes).await?;
        self.bytes().flush().await
    }

    pub(super) async fn chunk(&mut self, bytes: &[u8], framing: Framing) -> io::Result<()> {
        let size = format!("{:x}\r\n", bytes.len());
        match framing {
            Framing::OneWrite => self.send(&[size.as_bytes(), bytes, b"\r\n"].concat()).await,
            Framing::WritePerPart => {
                for part in [size.as_bytes(), bytes, b"\r\n"] {
                    self.send(part).await?;
                }
                Ok(())
            }
        }
    }

    pub(super) async fn hold(&mut self) -> io::Result<()> {
        let mut ignored = [0; 1024];
        while self.bytes().read(&mut ignored).await? > 0 {}
        Ok(())
    }

    /// What the peer sends meanwhile is lost.
    pub(super) async fn is_closed_within(&mut self, time: Duration) -> io::Result<bool> {
        match tokio::time::timeout(time, self.hold()).await {
            Ok(held) => held.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    pub(super) async fn close(mut self) -> io::Result<()> {
        self.bytes().shutdown().await
    }

    /// The socket's drop sends the RST.
    pub(super) fn reset(self) -> io::Result<()> {
        match &self.socket {
            Socket::Plain(tcp) => tcp.set_zero_linger(),
            Socket::Tls(tls) => tls.get_ref().0.set_zero_linger(),
        }
    }
}
