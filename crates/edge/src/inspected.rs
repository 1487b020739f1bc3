//! A client's connection whose inbound bytes are inspected before hyper reads them. What is at fault is spoilt by the inspector, so that
//! hyper refuses it, and ends there: behind it hyper sees the end of the stream, and serves nothing.
//!
//! It marks the writes that wait for the client, too. Knows nothing of HTTP. A WebSocket takes the stream out of it.

use crate::stall::Mark;
use crate::state::State;
use flashlane_telemetry::label::Cut;
use flashlane_wire::inspect::{Fault, Inspector, Limits};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// hyper looks at a head when it sees its end, not before.
const HEAD_END: &[u8] = b"\r\n\r\n";

pub(crate) struct Inspected<Io> {
    io: Io,
    inspector: Inspector,
    /// What hyper still reads behind a fault.
    end: &'static [u8],
    state: Arc<State>,
    /// What is written waits for the client.
    mark: Mark,
    is_blocked: bool,
}

impl<Io> Inspected<Io> {
    pub(crate) fn new(io: Io, state: &Arc<State>, mark: Mark) -> Self {
        let current = state.current();
        let limits = &current.config.limits;
        let inspector = Inspector::new(Limits {
            // hyper's own bound comes first, and its answer says what was wrong.
            line_bytes_max: limits.header_bytes_max.saturating_mul(2),
            control_frames_per_second_max: limits.http2_control_frames_per_second_max,
        });
        Self { io, inspector, end: &[], state: Arc::clone(state), mark, is_blocked: false }
    }

    pub(crate) fn into_inner(self) -> Io {
        self.io
    }

    // hot: per token
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if self.is_blocked != written.is_pending() {
            self.is_blocked = written.is_pending();
            if self.is_blocked { self.mark.begin() } else { self.mark.end() }
        }
        written
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Inspected<Io> {
    // hot: per token
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.inspector.fault().is_some() {
            let (now, later) = this.end.split_at_checked(buf.remaining()).unwrap_or((this.end, &[]));
            buf.put_slice(now);
            this.end = later;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let now_ms = this.state.clock.now().mono_ns / 1_000_000;
        let fresh = buf.filled_mut().get_mut(before..).unwrap_or_default();
        let handed_on = this.inspector.inspect(fresh, now_ms);
        buf.set_filled(before + handed_on);
        if let Some(fault) = this.inspector.fault() {
            this.end = HEAD_END;
            this.state.metrics.client_cut(match fault {
                Fault::ControlFrames => Cut::Flood,
                Fault::BareLf
                | Fault::LongLine
                | Fault::RequestLine
                | Fault::Field
                | Fault::Host
                | Fault::Framing
                | Fault::Chunk
                | Fault::Upgrade => Cut::Malformed,
            });
            tracing::debug!(?fault, "a client's bytes are not read on");
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Inspected<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, pieces);
        this.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
