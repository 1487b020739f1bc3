//! One connection's bytes, with or without TLS, whoever opened it. Knows nothing of HTTP and of handshakes.

use crate::client::reach::Handshake;
use socket2::SockRef;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// One write makes one TLS record, up to 16 KiB, and one system call: whoever writes joins first.
#[derive(Debug)]
pub enum Io {
    Plain(TcpStream),
    /// Boxed: an idle plain connection does not pay for it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// The address at its other end.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.tcp().peer_addr().ok()
    }

    /// What was agreed on for TLS.
    pub(crate) fn handshake(&self) -> Option<Handshake> {
        let Self::Tls(tls) = self else { return None };
        let (_, session) = tls.get_ref();
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        Some(Handshake {
            version: session.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default(),
            certificate: certificate.map(|certificate| certificate.to_vec()).unwrap_or_default(),
        })
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Asks the kernel to acknowledge what comes next at once: an upstream with Nagle's algorithm on holds its second small
    /// write until the first is acknowledged, which takes 40 ms otherwise. Holds for a while only, so it is asked once a turn.
    pub(crate) fn acknowledge_at_once(&self) {
        #[cfg(target_os = "linux")]
        if let Err(error) = SockRef::from(self.tcp()).set_tcp_quickack(true) {
            tracing::debug!(%error, "TCP_QUICKACK cannot be set");
        }
    }

    /// Reads what is there without waiting: `None` when that is nothing, 0 at the end of the stream.
    ///
    /// Asks the kernel itself, since the runtime may not have noticed yet that the peer closed an idle connection.
    pub(crate) fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let result = match self {
            Self::Plain(tcp) => (&*SockRef::from(&*tcp)).read(buffer),
            Self::Tls(tls) => {
                if let Ok(0) = SockRef::from(tls.get_ref().0).peek(&mut [MaybeUninit::uninit()]) {
                    return Ok(Some(0));
                }
                let mut read = ReadBuf::new(buffer);
                match Pin::new(&mut **tls).poll_read(&mut Context::from_waker(Waker::noop()), &mut read) {
                    Poll::Pending => return Ok(None),
                    Poll::Ready(result) => result.map(|()| read.filled().len()),
                }
            }
        };
        match result {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, pieces),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }
}
