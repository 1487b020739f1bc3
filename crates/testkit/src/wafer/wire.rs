//! The server's side of a connection, whose answers can be broken at any byte, those of HTTP included. Knows nothing of what is said.

use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What becomes of what is written from now on.
#[derive(Debug, Clone)]
pub(super) enum Flow {
    Free,
    /// So many bytes yet, then the connection ends.
    Until(usize),
    /// These in its place, then the connection ends.
    Instead(Bytes),
}

/// Holds a connection's [`Flow`]; clones hold the same.
#[derive(Clone)]
pub(super) struct Valve(Arc<Mutex<Flow>>);

impl Valve {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Flow::Free)))
    }

    pub(super) fn set(&self, flow: Flow) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = flow;
    }

    fn flow(&self) -> Flow {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) struct Wire<Io> {
    io: Io,
    valve: Valve,
}

impl<Io> Wire<Io> {
    pub(super) fn new(io: Io, valve: Valve) -> Self {
        Self { io, valve }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Wire<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Wire<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.valve.flow() {
            Flow::Free => Pin::new(&mut self.io).poll_write(cx, bytes),
            Flow::Until(0) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Flow::Until(left) => {
                let part = bytes.get(..left).unwrap_or(bytes);
                let written = ready!(Pin::new(&mut self.io).poll_write(cx, part))?;
                self.valve.set(Flow::Until(left - written));
                Poll::Ready(Ok(written))
            }
            Flow::Instead(other) => {
                // Short enough for one write into an empty socket.
                ready!(Pin::new(&mut self.io).poll_write(cx, &other))?;
                self.valve.set(Flow::Until(0));
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        match self.valve.flow() {
            Flow::Until(0) => flushed.map(|_| Err(io::ErrorKind::BrokenPipe.into())),
            Flow::Free | Flow::Until(_) | Flow::Instead(_) => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
