//! Notices that an HTTP/1.1 client leaves while its turn runs, whatever else it has sent. hyper looks for that only as long as it has
//! nothing else from the client: one byte behind a body (the line's end of old clients, a next request) and it does not look again
//! until the turn is over. So while a turn is watched, the stream below hyper looks itself, and keeps what it reads for hyper.
//!
//! Knows nothing of HTTP but that hyper flushes each time that it has worked on the connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes kept of what a client sends behind a running request. One that sends more is not seen leaving.
const AHEAD_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES_MAX: usize = 4096;

/// Whether a turn of this connection is watched. HTTP/1.1 has one at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<AtomicBool>);

impl Watch {
    /// From now until the answer is dropped.
    pub(crate) fn begin(self) -> Watching {
        self.0.store(true, Ordering::Relaxed);
        Watching(self)
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(crate) struct Watching(Watch);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

/// A client's connection as hyper sees it: while a turn is watched, a flush fails once the client has left.
pub(crate) struct Watched<Io> {
    io: Io,
    watch: Watch,
    /// hyper has asked for the client's bytes since it last flushed, and waits for them: it will hear of the end.
    is_heard: bool,
    ahead: Vec<u8>,
}

impl<Io: AsyncRead + Unpin> Watched<Io> {
    pub(crate) fn new(io: Io, watch: Watch) -> Self {
        Self { io, watch, is_heard: false, ahead: Vec::new() }
    }

    /// The connection, and what was read of it that hyper has not asked for.
    pub(crate) fn into_parts(self) -> (Io, Vec<u8>) {
        (self.io, self.ahead)
    }

    /// Whether the client is still there.
    // hot: per token
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if std::mem::take(&mut self.is_heard) || !self.watch.is_on() {
            return Ok(());
        }
        self.read_ahead(cx)
    }

    /// A write that waits is not followed by a flush.
    fn looked(&mut self, cx: &mut Context<'_>, written: Poll<usize>) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            self.look(cx)?;
        }
        written.map(Ok)
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut buf = [0; READ_BYTES_MAX];
        while self.ahead.len() < AHEAD_BYTES_MAX {
            let mut read = ReadBuf::new(&mut buf);
            match Pin::new(&mut self.io).poll_read(cx, &mut read)? {
                Poll::Pending => break,
                Poll::Ready(()) if read.filled().is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(()) => {
                    self.ahead.extend_from_slice(read.filled());
                    // hyper may have waited for these bytes: the socket will not wake it for them again.
                    cx.waker().wake_by_ref();
                }
            }
        }
        Ok(())
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Watched<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            let read = Pin::new(&mut this.io).poll_read(cx, buf);
            this.is_heard = read.is_pending();
            return read;
        }
        let count = this.ahead.len().min(buf.remaining());
        let rest = this.ahead.split_off(count);
        buf.put_slice(&std::mem::replace(&mut this.ahead, rest));
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, bytes)?;
        this.looked(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, pieces)?;
        this.looked(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx)?;
        this.look(cx)?;
        flushed.map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
