//! The idle HTTP/1.1 connections of one endpoint. Knows nothing of requests.

use crate::client::io::Io;
use crate::client::watch::Watch;
use flashlane_wire::http1::{Event, KeepAlive, Limits, ResponseReader};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// One read of an upstream's answer. An open connection holds a buffer of this size.
const READ_BYTES: usize = 16 * 1024;
/// What is read at check-out to bring the last answer to its end; beyond that the connection is not worth it.
const SETTLE_READS_MAX: usize = 4;

/// An exclusive HTTP/1.1 connection, with what is known of how long its peer means to keep it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) io: Io,
    pub(crate) reader: ResponseReader,
    pub(crate) buffer: Box<[u8]>,
    /// The connection's, not the turn's: setting a new timer takes a lock, and wakes the thread that waits for the next.
    pub(crate) watch: Watch,
    /// The last answer is whole, or there was none yet.
    pub(crate) settled: bool,
    /// Requests sent so far.
    requests: u64,
    requests_max: u64,
    /// From the peer's `Keep-Alive`.
    idle_ms_max: u64,
    opened: Instant,
}

impl Connection {
    pub(crate) fn new(io: Io, watch: Watch) -> Self {
        Self {
            io,
            watch,
            reader: ResponseReader::new(Limits::default()),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            settled: true,
            requests: 0,
            requests_max: u64::MAX,
            idle_ms_max: u64::MAX,
            opened: Instant::now(),
        }
    }

    /// A request goes out, and an answer is expected within so many milliseconds.
    pub(crate) fn begin(&mut self, first_byte_ms_max: u64) {
        self.watch.restart(first_byte_ms_max);
        self.reader.reset();
        self.settled = false;
        self.requests += 1;
    }

    /// Heeds an answer's `Keep-Alive`, with a margin: a request that crosses the peer's close is lost.
    pub(crate) fn heed(&mut self, keep_alive: KeepAlive) {
        if let Some(timeout_s) = keep_alive.timeout_s {
            let ms = timeout_s.saturating_mul(1000);
            self.idle_ms_max = ms - (ms / 2).min(1000);
        }
        if let Some(requests_more) = keep_alive.requests_max {
            // Some count down, some repeat the number they began with.
            let sent_before = self.requests.saturating_sub(1);
            self.requests_max = self.requests_max.min(sent_before.saturating_add(requests_more));
        }
    }

    /// Brings the last answer to its end with what has arrived, and makes sure that the peer is still there and silent.
    fn settle(&mut self) -> io::Result<bool> {
        for _ in 0..SETTLE_READS_MAX {
            let Some(bytes) = self.io.read_now(&mut self.buffer)? else { return Ok(self.settled) };
            if bytes == 0 || self.settled {
                return Ok(false);
            }
            let input = self.buffer.get(..bytes).unwrap_or_default();
            let mut may_stay = true;
            let used = self.reader.read(input, |event| {
                if let Event::End { reusable } = event {
                    may_stay = reusable;
                }
            });
            self.settled = self.reader.is_done();
            if !may_stay || !used.is_ok_and(|used| used == bytes) {
                return Ok(false);
            }
        }
        Ok(false)
    }
}

/// Connections at rest, the most recently used first out. Bounded in number and in age.
pub(crate) struct Pool {
    parked: Mutex<Vec<Parked>>,
    connections_max: usize,
    idle_ms_max: u64,
    /// From its opening on: then the endpoint's name is resolved anew.
    life: Duration,
}

struct Parked {
    connection: Connection,
    until: Instant,
}

impl Pool {
    pub(crate) fn new(connections_max: usize, (idle_ms_max, life): (u64, Duration)) -> Self {
        Self { parked: Mutex::new(Vec::new()), connections_max, idle_ms_max, life }
    }

    pub(crate) fn park(&self, connection: Connection) {
        let idle_ms_max = connection.idle_ms_max.min(self.idle_ms_max);
        if connection.requests < connection.requests_max {
            let until = Instant::now() + Duration::from_millis(idle_ms_max);
            self.put(Parked { until: until.min(connection.opened + self.life), connection });
        }
    }

    /// A connection on which a request can be sent now.
    pub(crate) fn check_out(&self) -> Option<Connection> {
        self.take().map(|parked| parked.connection)
    }

    /// The one that has been at rest the longest.
    pub(crate) fn take_oldest(&self) -> Option<Connection> {
        loop {
            let mut all = self.lock();
            let mut parked = (!all.is_empty()).then(|| all.remove(0))?;
            drop(all);
            if Instant::now() < parked.until && matches!(parked.connection.settle(), Ok(true)) {
                return Some(parked.connection);
            }
        }
    }

    /// Whether a check-out now would find one. Drops those that it would not hand out.
    pub(crate) fn has_live(&self) -> bool {
        match self.take() {
            Some(parked) => {
                self.put(parked);
                true
            }
            None => false,
        }
    }

    /// Closes those whose time is over, and counts the others. A pool that no turn comes to is emptied by whoever looks at it.
    pub(crate) fn len(&self) -> usize {
        self.lock_fresh().len()
    }

    fn put(&self, parked: Parked) {
        let mut all = self.lock_fresh();
        all.push(parked);
        if all.len() > self.connections_max {
            all.remove(0);
        }
    }

    fn take(&self) -> Option<Parked> {
        loop {
            // One at a time, so that the lock is not held while the kernel is asked.
            let mut parked = self.lock().pop()?;
            if Instant::now() < parked.until && matches!(parked.connection.settle(), Ok(true)) {
                return Some(parked);
            }
        }
    }

    fn lock_fresh(&self) -> MutexGuard<'_, Vec<Parked>> {
        let mut all = self.lock();
        let now = Instant::now();
        all.retain(|parked| now < parked.until);
        all
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
