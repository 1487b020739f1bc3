//! A WebSocket client's connection after the handshake: one task that reads frames, polls the drive, and writes all that is ready once.
//!
//! ```text
//! Open ── close frame from the client, its mistake, or the session's wish ──> Closing ── close frame written ──> Lingering
//!   └────────── EOF, reset, silence, write stall ────────────> gone <───────── EOF, or `close_ms_max` later ─────────┘
//! ```
//! An EOF is the client's leaving, whatever it still might read: nothing generates for nobody. `Lingering` waits for the client's EOF,
//! since closing a socket with unread bytes in it would reset the connection and lose our close frame on its way.

use crate::assembling::Part;
use crate::drive::{Drive, Rest};
use crate::listen::{Heard, Permit};
use flashlane_engine::{Now, Session};
use flashlane_telemetry::label::{Closer, Cut, Direction, Transport};
use flashlane_telemetry::metrics::OpenConnection;
use flashlane_wire::websocket::{Decoder, Event, close_code};
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes taken from the client's socket at once.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Reads before the upstreams get their turn.
const READS_MAX: u32 = 8;
/// Rounds before other connections on the same thread get their turn.
const ROUNDS_MAX: u32 = 32;

/// What a close frame takes over the slowest links, and no more.
const FAULT_CLOSE_MS_MAX: u64 = 500;

thread_local! {
    /// One buffer a thread instead of one a connection: it holds bytes only within one call, so an idle connection needs none.
    static READ_BUF: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES_MAX].into_boxed_slice());
}

pub(crate) struct Socket<Io> {
    io: Io,
    decoder: Decoder,
    drive: Drive,
    phase: Phase,
    liveness: Liveness,
    /// Of the unwritten bytes, at most so many are answers to what the client sent. Counted apart from what came from upstream: a burst
    /// from there, which may be large, must not keep the client's interrupt from being read.
    answers_bytes: usize,
    /// The kernel took less than all that was ready.
    is_blocked: bool,
    /// Since when it takes nothing of it, on the monotonic clock.
    stalled_since_ns: Option<u64>,
    /// When the message began to come that is not whole yet, on the monotonic clock.
    message_began_ns: Option<u64>,
    /// When it is to end, as soon as nothing runs: the server leaves.
    leaves_ns: Option<u64>,
    /// What is held of that message.
    assembling: Part,
    bytes_in: u64,
    bytes_out: u64,
    /// Who sent the first close frame, and its code.
    closed: (Closer, Option<u16>),
    _open: OpenConnection,
    _permit: Permit,
}

/// See the module's diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Our close frame waits in the outgoing buffer. What the client still sends is dropped.
    Closing {
        until_ns: u64,
    },
    /// All is written, and our side is shut.
    Lingering {
        until_ns: u64,
    },
}

/// When the client is pinged, and when it counts as dead.
#[derive(Debug, Clone, Copy)]
struct Liveness {
    /// None: never.
    due_ns: Option<u64>,
    was_heard: bool,
    unanswered: u32,
}

/// What reading the client came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// Nothing more to read; the waker is with the socket.
    Quiet,
    /// There may be more: the upstreams had to get their turn.
    More,
    /// What it sent is not read on until it has read the answers.
    Full,
    Gone,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Socket<Io> {
    pub(crate) fn new(io: Io, decoder: Decoder, drive: Drive, permit: Permit) -> Self {
        let open = drive.state().metrics.connection(Transport::WebSocket);
        let assembling = drive.state().assembling.part();
        let ping_ms = drive.config().limits.ping_ms;
        let due_ns = (ping_ms > 0).then(|| drive.now().after_ms(ping_ms));
        Self {
            io,
            decoder,
            drive,
            phase: Phase::Open,
            liveness: Liveness { due_ns, was_heard: false, unanswered: 0 },
            answers_bytes: 0,
            is_blocked: false,
            stalled_since_ns: None,
            message_began_ns: None,
            leaves_ns: None,
            assembling,
            bytes_in: 0,
            bytes_out: 0,
            closed: (Closer::Nobody, None),
            _open: open,
            _permit: permit,
        }
    }

    /// Serves the client until it is gone. `early` is what was read behind the handshake. The drop cancels what still runs.
    pub(crate) fn run(mut self, mut early: Vec<u8>) -> impl Future<Output = ()> {
        let mut draining = self.drive.state().connections.draining();
        let now = self.drive.now();
        self.take_in(&mut early, now);
        // No async block: it would hold the socket twice, and idle connections are counted in bytes.
        poll_fn(move |cx| {
            if let Some(heard) = draining.poll(cx) {
                self.heed(heard);
            }
            self.poll(cx)
        })
    }

    fn heed(&mut self, heard: Heard) {
        let now = self.drive.now();
        match heard {
            Heard::Close { idle } if self.drive.is_idle() => {
                self.leaves_ns = Some(now.after_ms(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)));
            }
            Heard::Close { .. } => self.drive.handle(now, Session::handle_drain),
            Heard::Over => self.drive.handle(now, Session::handle_over),
            Heard::Renewed => self.drive.heed_renewal(now),
        }
    }

    /// Ready when the client is gone.
    // hot: per token
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS_MAX {
            let now = self.drive.now();
            let client = self.poll_read(cx, now);
            if client == Client::Gone || self.is_over(now) {
                self.drive.client_gone(now);
                return Poll::Ready(());
            }
            let deadline_ns = self.deadline_ns();
            let rest = self.drive.poll(cx, now, deadline_ns);
            if let Some((code, reason)) = self.drive.take_close() {
                self.close(code, reason, now);
            }
            if self.poll_write(cx, now).is_err() {
                self.drive.client_gone(now);
                return Poll::Ready(());
            }
            self.drive.was_busy_since(now);
            self.drive.settle();
            let client_waits = client == Client::Quiet || (client == Client::Full && self.is_blocked);
            let upstream_waits = rest == Rest::Quiet || (rest == Rest::Full && self.is_blocked);
            // What has just begun to stall needs its deadline set.
            if client_waits && upstream_waits && self.stalled_since_ns != Some(now.mono_ns) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads and handles what the client has sent, unless the answers to it would pile up.
    fn poll_read(&mut self, cx: &mut Context<'_>, now: Now) -> Client {
        READ_BUF.with_borrow_mut(|buf| {
            for _ in 0..READS_MAX {
                if self.answers_bytes >= self.drive.config().limits.outgoing_bytes_high {
                    return Client::Full;
                }
                let mut read = ReadBuf::new(buf);
                match Pin::new(&mut self.io).poll_read(cx, &mut read) {
                    Poll::Pending => return Client::Quiet,
                    Poll::Ready(Err(_)) => return Client::Gone,
                    Poll::Ready(Ok(())) if read.filled().is_empty() => return Client::Gone,
                    Poll::Ready(Ok(())) => self.take_in(read.filled_mut(), now),
                }
            }
            Client::More
        })
    }

    fn take_in(&mut self, bytes: &mut [u8], now: Now) {
        if bytes.is_empty() || self.phase != Phase::Open {
            return;
        }
        self.bytes_in += bytes.len() as u64;
        self.liveness.was_heard = true;
        let drive = &mut self.drive;
        let unwritten_before = drive.outgoing().len();
        let mut wish = None;
        let mut began_ns = self.message_began_ns.take();
        let result = self.decoder.decode(bytes, now.mono_ns / 1_000_000, |event| {
            if wish.is_some() {
                return;
            }
            match event {
                Event::Text(text) => {
                    drive.renew(now);
                    drive.handle(now, |session, now| {
                        session.handle_arriving(began_ns.take().unwrap_or(now.mono_ns));
                        session.handle_message(text.as_bytes(), now);
                    });
                }
                Event::Binary(_) => drive.handle(now, Session::handle_binary),
                Event::Ping(payload) => drive.outgoing().control(|encoder, out| encoder.pong(payload, out)),
                Event::Pong(_) => {}
                Event::Close(frame) => wish = Some(frame.map_or(close_code::NORMAL, |frame| frame.code)),
            }
        });
        self.message_began_ns = self.decoder.is_in_message().then(|| began_ns.unwrap_or(now.mono_ns));
        self.answers_bytes += self.drive.outgoing().len().saturating_sub(unwritten_before);
        if !self.assembling.set(self.decoder.held_bytes()) {
            self.fail(
                Cut::Crowded,
                (close_code::TRY_AGAIN_LATER, "too much is being sent to this server at once"),
                now,
            );
        }
        match (result, wish) {
            (_, Some(code)) => {
                self.closed = (Closer::Client, Some(code));
                self.leave(code, "", now);
            }
            (Err(error), None) => {
                let cut = match error.close_code() {
                    close_code::POLICY => Cut::Flood,
                    close_code::TOO_BIG => Cut::Large,
                    _ => Cut::Malformed,
                };
                self.fail(cut, (error.close_code(), &error.to_string()), now);
            }
            (Ok(()), None) => {}
        }
    }

    /// The client leaves: its turns are cancelled now, the close frame follows.
    fn leave(&mut self, code: u16, reason: &str, now: Now) {
        self.drive.client_gone(now);
        self.close(code, reason, now);
    }

    /// The client has gone beyond a limit or against the protocol: it may read why, and is not waited for.
    fn fail(&mut self, cut: Cut, (code, reason): (u16, &str), now: Now) {
        self.drive.state().metrics.client_cut(cut);
        self.leave(code, reason, now);
        if let Phase::Closing { until_ns } = &mut self.phase {
            *until_ns = now.after_ms(FAULT_CLOSE_MS_MAX).min(*until_ns);
        }
    }

    fn close(&mut self, code: u16, reason: &str, now: Now) {
        if self.phase == Phase::Open {
            if self.closed.0 == Closer::Nobody {
                self.closed = (Closer::Server, Some(code));
            }
            self.drive.outgoing().control(|encoder, out| encoder.close(code, reason, out));
            self.phase = Phase::Closing { until_ns: now.after_ms(self.drive.config().limits.close_ms_max) };
        }
    }

    /// Whether a deadline has come that ends the connection. Pings the client when that is due.
    fn is_over(&mut self, now: Now) -> bool {
        match self.phase {
            Phase::Closing { until_ns } | Phase::Lingering { until_ns } => until_ns <= now.mono_ns,
            Phase::Open => {
                if self.leaves_ns.is_some_and(|leaves_ns| leaves_ns <= now.mono_ns) {
                    self.leaves_ns = None;
                    self.drive.handle(now, Session::handle_drain);
                }
                if self.message_due_ns().is_some_and(|due_ns| due_ns <= now.mono_ns) {
                    self.fail(Cut::Late, (close_code::POLICY, "a message did not arrive in its time"), now);
                    return false;
                }
                if self.is_stalled(now) {
                    self.drive.state().metrics.client_cut(Cut::Stalled);
                    return true;
                }
                self.ping_if_due(now)
            }
        }
    }

    fn message_due_ns(&self) -> Option<u64> {
        let ms_max = self.drive.config().limits.message_ms_max;
        self.message_began_ns.map(|began_ns| began_ns.saturating_add(ms_max.saturating_mul(1_000_000)))
    }

    fn stall_due_ns(&self) -> Option<u64> {
        let ms_max = self.drive.config().limits.write_stall_ms_max;
        self.stalled_since_ns.map(|since_ns| since_ns.saturating_add(ms_max.saturating_mul(1_000_000)))
    }

    fn is_stalled(&self, now: Now) -> bool {
        self.stall_due_ns().is_some_and(|due_ns| due_ns <= now.mono_ns)
    }

    /// Whether the client counts as dead.
    fn ping_if_due(&mut self, now: Now) -> bool {
        if self.liveness.due_ns.is_none_or(|due_ns| due_ns > now.mono_ns) {
            return false;
        }
        self.liveness.due_ns = Some(now.after_ms(self.drive.config().limits.ping_ms));
        if std::mem::take(&mut self.liveness.was_heard) {
            self.liveness.unanswered = 0;
            return false;
        }
        if self.liveness.unanswered >= self.drive.config().limits.pings_unanswered_max {
            self.drive.state().metrics.client_cut(Cut::Silent);
            return true;
        }
        self.liveness.unanswered += 1;
        self.drive.outgoing().control(|encoder, out| encoder.ping(b"", out));
        false
    }

    fn deadline_ns(&self) -> Option<u64> {
        match self.phase {
            Phase::Open => {
                let dues_ns = [self.liveness.due_ns, self.leaves_ns, self.message_due_ns(), self.stall_due_ns()];
                dues_ns.into_iter().flatten().min()
            }
            Phase::Closing { until_ns } | Phase::Lingering { until_ns } => Some(until_ns),
        }
    }

    /// Writes what is ready, in one call where the kernel takes it.
    // hot: per token
    fn poll_write(&mut self, cx: &mut Context<'_>, now: Now) -> std::io::Result<()> {
        let result = self.poll_write_ready(cx);
        self.stalled_since_ns = self.is_blocked.then(|| self.stalled_since_ns.unwrap_or(now.mono_ns));
        self.answers_bytes = self.answers_bytes.min(self.drive.outgoing().len());
        result
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        let was_blocked = std::mem::take(&mut self.is_blocked);
        // TLS may still hold what it has encrypted: what came since is joined behind it, not in it.
        if was_blocked && self.flush(cx)?.is_pending() {
            return Ok(());
        }
        while !self.drive.outgoing().is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, self.drive.outgoing().ready()) {
                Poll::Pending => {
                    self.is_blocked = true;
                    return Ok(());
                }
                Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.drive.outgoing().consume(count);
                    self.bytes_out += count as u64;
                    // Room in a buffer that was full: the client has read.
                    self.liveness.was_heard |= was_blocked;
                    self.stalled_since_ns = None;
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        if self.flush(cx)?.is_pending() {
            return Ok(());
        }
        if let Phase::Closing { until_ns } = self.phase {
            match Pin::new(&mut self.io).poll_shutdown(cx) {
                Poll::Pending => self.is_blocked = true,
                Poll::Ready(result) => {
                    result?;
                    self.phase = Phase::Lingering { until_ns };
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> std::io::Result<Poll<()>> {
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => {
                self.is_blocked = true;
                Ok(Poll::Pending)
            }
            Poll::Ready(result) => result.map(Poll::Ready),
        }
    }
}

impl<Io> Drop for Socket<Io> {
    fn drop(&mut self) {
        let metrics = &self.drive.state().metrics;
        metrics.websocket_bytes(Direction::In, self.bytes_in);
        metrics.websocket_bytes(Direction::Out, self.bytes_out);
        let (by, code) = self.closed;
        metrics.websocket_closed(by, code, self.drive.lanes());
    }
}
