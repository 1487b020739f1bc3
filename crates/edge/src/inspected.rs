//! A client's connection whose inbound bytes are inspected before hyper reads them. What is at fault is spoilt by the inspector, so that
//! hyper refuses it, and ends there: behind it hyper sees the end of the stream, and serves nothing. What hyper answers to that, and to what
//! it refuses by itself, is told in the API's words instead, with a request id.
//!
//! It marks the writes that wait for the client, too. Knows nothing of HTTP. A WebSocket takes the stream out of it.

use crate::bare;
use crate::routes;
use crate::stall::Mark;
use crate::state::State;
use bytes::{Buf as _, Bytes};
use flashlane_telemetry::label::{Cut, Flaw};
use flashlane_wire::inspect::{Fault, Inspector, Limits};
use http::StatusCode;
use std::io::{self, IoSlice};
use std::net::IpAddr;
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
    from: IpAddr,
    /// Something was read since the last write, or is at fault: hyper may refuse it by what it writes next.
    is_fresh: bool,
    /// What is written in the place of hyper's refusal, as far as it is not yet.
    answer: Option<Bytes>,
}

impl<Io> Inspected<Io> {
    pub(crate) fn new((io, from): (Io, IpAddr), state: &Arc<State>, mark: Mark) -> Self {
        let current = state.current();
        let limits = &current.config.limits;
        let inspector = Inspector::new(Limits {
            // hyper's own bound comes first, and its answer says what was wrong.
            line_bytes_max: limits.header_bytes_max.saturating_mul(2),
            control_frames_per_second_max: limits.http2_control_frames_per_second_max,
        });
        let state = Arc::clone(state);
        Self { io, inspector, end: &[], state, mark, is_blocked: false, from, is_fresh: false, answer: None }
    }

    pub(crate) fn into_inner(self) -> Io {
        self.io
    }

    /// No more is read.
    fn found(&mut self, flaw: Flaw) {
        self.state.metrics.client_cut(if flaw == Flaw::Flood { Cut::Flood } else { Cut::Malformed });
        self.state.metrics.unreadable(flaw);
        // The others are answered below, with an id.
        if matches!(flaw, Flaw::Flood | Flaw::Chunk) {
            self.state.refusals.unreadable(flaw, self.from, None, self.state.clock.mono_ns());
        }
    }

    /// Our answer for hyper's.
    fn refusal(&self, status: StatusCode) -> Bytes {
        let fault = self.inspector.fault().map(flaw);
        let flaw = fault.unwrap_or_else(|| bare::flaw(status));
        if fault.is_none() {
            self.state.metrics.unreadable(flaw);
        }
        let Ok(id) = routes::request_id() else { return Bytes::new() };
        self.state.refusals.unreadable(flaw, self.from, Some(&id), self.state.clock.mono_ns());
        bare::answer(status, &id, "", &bare::error(flaw)).into()
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

impl<Io: AsyncWrite + Unpin> Inspected<Io> {
    /// The next write after something was read.
    fn poll_answer(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some((before, status)) = bare::library_refusal(bytes) else {
            self.is_fresh = self.inspector.fault().is_some();
            return Pin::new(&mut self.io).poll_write(cx, bytes);
        };
        let (before, refusal) = bytes.split_at_checked(before).unwrap_or((bytes, &[]));
        if !before.is_empty() {
            return Pin::new(&mut self.io).poll_write(cx, before);
        }
        if self.answer.is_none() {
            self.answer = Some(self.refusal(status));
        }
        while let Some(answer) = self.answer.as_mut().filter(|answer| !answer.is_empty()) {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, answer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            answer.advance(written);
        }
        Poll::Ready(Ok(refusal.len()))
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
        this.is_fresh = true;
        let fresh = buf.filled_mut().get_mut(before..).unwrap_or_default();
        let handed_on = this.inspector.inspect(fresh, now_ms);
        buf.set_filled(before + handed_on);
        if let Some(fault) = this.inspector.fault() {
            this.end = HEAD_END;
            this.found(flaw(fault));
        }
        Poll::Ready(Ok(()))
    }
}

fn flaw(fault: Fault) -> Flaw {
    match fault {
        Fault::BareLf => Flaw::BareLf,
        Fault::LongLine => Flaw::Large,
        Fault::RequestLine => Flaw::RequestLine,
        Fault::Field => Flaw::Field,
        Fault::Host => Flaw::Host,
        Fault::Framing => Flaw::Framing,
        Fault::Chunk => Flaw::Chunk,
        Fault::Upgrade => Flaw::Upgrade,
        Fault::ControlFrames => Flaw::Flood,
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Inspected<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written =
            if this.is_fresh { this.poll_answer(cx, bytes) } else { Pin::new(&mut this.io).poll_write(cx, bytes) };
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut full = pieces.iter().filter(|piece| !piece.is_empty());
        let written = match (full.next(), full.next()) {
            // What hyper refuses has no body.
            (Some(head), None) if this.is_fresh => this.poll_answer(cx, head),
            _ => Pin::new(&mut this.io).poll_write_vectored(cx, pieces),
        };
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
