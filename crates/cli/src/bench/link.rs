//! A delayed link, in this process: what goes through arrives when its schedule says, and a new connection's first byte
//! waits for the round trip of its TCP handshake. Knows nothing of what it carries.

use super::Error;
use super::clock::Clock;
use super::schedule::{SEGMENT_BYTES, Schedule};
use serde::Serialize;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

/// Segments on their way: 24 MB.
const SEGMENTS_MAX: usize = 16 * 1024;
const NS_PER_MS: u64 = 1_000_000;

/// The way between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Link {
    pub rtt_ms: u32,
    pub mbit_per_s: u32,
    pub slow_start: bool,
}

impl Link {
    /// Loopback as it is.
    pub const NONE: Link = Link { rtt_ms: 0, mbit_per_s: 0, slow_start: false };

    /// No delay: no link is put between.
    #[must_use]
    pub fn is_bare(self) -> bool {
        self.rtt_ms == 0
    }

    #[must_use]
    pub fn rtt_ns(self) -> u64 {
        u64::from(self.rtt_ms) * NS_PER_MS
    }

    /// How long these bytes occupy it; nothing where there is no link.
    #[must_use]
    pub fn occupied_ns(self, bytes: u64) -> u64 {
        if self.is_bare() { 0 } else { bytes * 8 * 1000 / u64::from(self.mbit_per_s.max(1)) }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_bare() {
            return f.write_str("loopback");
        }
        write!(f, "{} ms, {} Mbit/s", self.rtt_ms, self.mbit_per_s)?;
        if self.slow_start { Ok(()) } else { f.write_str(", no slow start") }
    }
}

/// Listens on a free port of loopback, and carries all that connects there to `to`. Its threads end with their
/// connections; the listener's with the process.
///
/// # Errors
/// When loopback cannot be listened on.
pub fn start(link: Link, to: SocketAddr, clock: Clock) -> Result<SocketAddr, Error> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let failed = |source| Error::Listen { address: any, source };
    let listener = TcpListener::bind(any).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A connection that breaks here breaks at the client, who says so.
            let _ = carry_both(link, client, to, clock);
        }
    });
    Ok(address)
}

/// Carries one connection: between `client`, which has just connected, and `to`.
///
/// # Errors
/// When `to` cannot be connected to.
pub fn carry_both(link: Link, client: TcpStream, to: SocketAddr, clock: Clock) -> io::Result<()> {
    let opened_ns = clock.ns();
    let server = TcpStream::connect(to)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    // The client's own connect cost nothing: its first byte may leave when the handshake would be over.
    let up = Schedule::new(link, opened_ns + link.rtt_ns());
    carry(up, clock, client.try_clone()?, server.try_clone()?);
    carry(Schedule::new(link, opened_ns), clock, server, client);
    Ok(())
}

struct Piece {
    arrival_ns: u64,
    bytes: Vec<u8>,
}

fn carry(mut schedule: Schedule, clock: Clock, mut from: TcpStream, to: TcpStream) {
    let (tx, rx) = sync_channel(SEGMENTS_MAX);
    thread::spawn(move || deliver(&rx, to, clock));
    thread::spawn(move || take_in(&mut schedule, clock, &mut from, &tx));
}

fn take_in(schedule: &mut Schedule, clock: Clock, from: &mut TcpStream, tx: &SyncSender<Piece>) {
    let mut buf = [0; SEGMENT_BYTES as usize];
    while let Ok(count @ 1..) = from.read(&mut buf) {
        let bytes = buf.get(..count).unwrap_or_default().to_vec();
        let piece = Piece { arrival_ns: schedule.arrival_ns(count as u64, clock.ns()), bytes };
        if tx.send(piece).is_err() {
            return;
        }
    }
}

/// Writes each piece when it is due; those that are due together, in one write.
fn deliver(rx: &Receiver<Piece>, mut to: TcpStream, clock: Clock) {
    let mut next = rx.recv().ok();
    while let Some(piece) = next.take() {
        clock.sleep_until(piece.arrival_ns);
        let now_ns = clock.ns();
        let mut bytes = piece.bytes;
        let more = loop {
            match rx.try_recv() {
                Ok(piece) if piece.arrival_ns <= now_ns => bytes.extend_from_slice(&piece.bytes),
                Ok(piece) => break Some(piece),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break None,
            }
        };
        if to.write_all(&bytes).is_err() {
            break;
        }
        next = more.or_else(|| rx.recv().ok());
    }
    // Whoever is at the end may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}
