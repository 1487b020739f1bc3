//! A delayed link, in this process: what goes through arrives half a round trip later and no faster than the bandwidth,
//! and a new connection's first byte waits for the round trip of its TCP handshake. Slow start and loss are not modelled:
//! large uploads on new connections look better here than they are. Knows nothing of what it carries.

use super::Error;
use super::clock::Clock;
use serde::Serialize;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes that leave together: about one segment, so that the last byte of a message is late and not its first.
const PIECE_BYTES: usize = 1460;
/// Pieces on their way: 24 MB.
const PIECES_MAX: usize = 16 * 1024;
const NS_PER_MS: u64 = 1_000_000;

/// A client's way to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Link {
    pub rtt_ms: u32,
    pub mbit_per_s: u32,
}

impl Link {
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
        write!(f, "{} ms, {} Mbit/s", self.rtt_ms, self.mbit_per_s)
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

fn carry_both(link: Link, client: TcpStream, to: SocketAddr, clock: Clock) -> io::Result<()> {
    let opened_ns = clock.ns();
    let gateway = TcpStream::connect(to)?;
    client.set_nodelay(true)?;
    gateway.set_nodelay(true)?;
    // The client's own connect cost nothing: its first byte may leave when the handshake would be over.
    carry(Way { link, clock, free_ns: opened_ns + link.rtt_ns() }, client.try_clone()?, gateway.try_clone()?);
    carry(Way { link, clock, free_ns: opened_ns }, gateway, client);
    Ok(())
}

/// One direction of one connection.
struct Way {
    link: Link,
    clock: Clock,
    /// When the last byte that was taken in has left.
    free_ns: u64,
}

impl Way {
    /// When these bytes, taken in at `now_ns`, arrive.
    fn arrival_ns(&mut self, bytes: u64, now_ns: u64) -> u64 {
        self.free_ns = self.free_ns.max(now_ns) + self.link.occupied_ns(bytes);
        self.free_ns + self.link.rtt_ns() / 2
    }
}

struct Piece {
    arrival_ns: u64,
    bytes: Vec<u8>,
}

fn carry(mut way: Way, mut from: TcpStream, to: TcpStream) {
    let (tx, rx) = sync_channel(PIECES_MAX);
    let clock = way.clock;
    thread::spawn(move || deliver(&rx, to, clock));
    thread::spawn(move || take_in(&mut way, &mut from, &tx));
}

fn take_in(way: &mut Way, from: &mut TcpStream, tx: &SyncSender<Piece>) {
    let mut buf = [0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buf) {
        let bytes = buf.get(..count).unwrap_or_default().to_vec();
        let piece = Piece { arrival_ns: way.arrival_ns(count as u64, way.clock.ns()), bytes };
        if tx.send(piece).is_err() {
            return;
        }
    }
}

fn deliver(rx: &Receiver<Piece>, mut to: TcpStream, clock: Clock) {
    for piece in rx {
        clock.sleep_until(piece.arrival_ns);
        if to.write_all(&piece.bytes).is_err() {
            break;
        }
    }
    // Whoever is at the end may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_after_half_a_round_trip_and_one_after_the_other() {
        let link = Link { rtt_ms: 20, mbit_per_s: 20 };
        let mut way = Way { link, clock: Clock::start(), free_ns: 0 };
        // 2,500 bytes are 20,000 bits: a millisecond at 20 Mbit/s.
        assert_eq!(way.arrival_ns(2500, 5 * NS_PER_MS), 16 * NS_PER_MS);
        assert_eq!(way.arrival_ns(2500, 5 * NS_PER_MS), 17 * NS_PER_MS);
        assert_eq!(way.arrival_ns(2500, 50 * NS_PER_MS), 61 * NS_PER_MS);
    }
}
