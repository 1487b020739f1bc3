//! The store's own threads: one that writes, and a few that read, so that no runtime's thread ever waits for a disk.
//!
//! Group commit: what waits for the writer when it comes back is one transaction, with one flush to the disk; each is answered after it.
//! If any of it fails, all is undone and each is done alone, so that one cannot spoil another's.
//!
//! Knows nothing of what is written or read.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::folder::Folder;
use super::reply::{Promise, Reply, pair};
use super::room::Totals;
use super::{Options, Writing, sweep};
use crate::{Error, Limits};

const READERS: usize = 2;
/// Writes in one transaction.
const GROUP_MAX: usize = 256;
/// The log goes back into the database when about this much has been written since the last time; once a turn is too often, and a log
/// without end makes reading slow.
const CHECKPOINT_BYTES: usize = 4 * 1024 * 1024;
/// What writing costs the log beside the contents: the pages of the indexes, which a transaction's writes share in part.
const TRANSACTION_LOG_BYTES: usize = 32 * 1024;
const WRITE_LOG_BYTES: usize = 8 * 1024;
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// While one step is not enough: what is written all the time expires all the time, too, as quickly as it came.
const SWEEP_BEHIND_EVERY: Duration = Duration::from_millis(50);

/// Something to be written, and who waits for it.
trait Write: Send {
    /// In the open transaction. May be called again after that was undone.
    fn apply(&mut self, writing: &Writing<'_>) -> Result<(), Error>;
    fn answer(self: Box<Self>, failed: Option<Error>);
}

struct Written<T, F> {
    run: F,
    done: Option<T>,
    promise: Promise<T>,
}

impl<T: Send, F: Fn(&Writing<'_>) -> Result<T, Error> + Send> Write for Written<T, F> {
    fn apply(&mut self, writing: &Writing<'_>) -> Result<(), Error> {
        self.done = Some((self.run)(writing)?);
        Ok(())
    }

    fn answer(self: Box<Self>, failed: Option<Error>) {
        self.promise.keep(match (failed, self.done) {
            (Some(error), _) => Err(error),
            (None, Some(done)) => Ok(done),
            (None, None) => Err(Error::Closed),
        });
    }
}

type Read = Box<dyn FnOnce(Result<&Connection, Error>) + Send>;

/// The threads, which end when this is dropped, after all that waits is done.
pub(super) struct Threads {
    writes: Option<SyncSender<Box<dyn Write>>>,
    reads: Option<SyncSender<Read>>,
    queue_max: usize,
    joined: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(folder: Folder, options: &Options) -> Result<Self, Error> {
        let (writes, to_write) = sync_channel(options.queue_max);
        let (reads, to_read) = sync_channel(options.queue_max);
        let mut threads =
            Self { writes: Some(writes), reads: Some(reads), queue_max: options.queue_max, joined: Vec::new() };
        let db = folder.writer(options.file_bytes_max)?;
        let totals = Cell::new(Totals::of(&db)?);
        let to_read = Arc::new(Mutex::new(to_read));
        for number in 0..READERS {
            let (db, to_read) = (folder.reader()?, Arc::clone(&to_read));
            threads.spawn(&format!("store-read-{number}"), move || read_on(db, &to_read))?;
        }
        let (limits, clock, usage_age_ms_max) = (options.limits, options.clock, options.usage_age_ms_max);
        threads.spawn("store-write", move || {
            let sweep = Sweep { clock, usage_age_ms_max, last: Instant::now(), every: SWEEP_EVERY };
            Writer { db, limits, totals, sweep, bytes_in_log: 0 }.run(&to_write);
            // Held to the end of the last write.
            drop(folder);
        })?;
        Ok(threads)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let spawned = Builder::new().name(name.to_owned()).spawn(run);
        self.joined.push(spawned.map_err(|source| Error::Folder { path: name.into(), source })?);
        Ok(())
    }

    pub(super) fn write<T, F>(&self, run: F) -> Result<Reply<T>, Error>
    where
        T: Send + 'static,
        F: Fn(&Writing<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (promise, reply) = pair();
        let queue = self.writes.as_ref().ok_or(Error::Closed)?;
        queue.try_send(Box::new(Written { run, done: None, promise })).map_err(|full| self.refusal(&full))?;
        Ok(reply)
    }

    pub(super) fn read<T, F>(&self, run: F) -> Result<Reply<T>, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let (promise, reply) = pair();
        let queue = self.reads.as_ref().ok_or(Error::Closed)?;
        let read: Read = Box::new(move |snapshot| promise.keep(snapshot.and_then(run)));
        queue.try_send(read).map_err(|full| self.refusal(&full))?;
        Ok(reply)
    }

    fn refusal<T>(&self, error: &TrySendError<T>) -> Error {
        match error {
            TrySendError::Full(_) => Error::Busy { queue_max: self.queue_max },
            TrySendError::Disconnected(_) => Error::Closed,
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.reads = None;
        self.writes = None;
        for thread in self.joined.drain(..) {
            // A thread that panicked has told so itself; its waiters were told that the store is closed.
            drop(thread.join());
        }
    }
}

fn read_on(mut db: Connection, queue: &Mutex<Receiver<Read>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(read) = next else { return };
        match db.transaction() {
            Ok(snapshot) => read(Ok(&snapshot)),
            Err(error) => read(Err(error.into())),
        }
    }
}

struct Sweep {
    clock: fn() -> u64,
    usage_age_ms_max: u64,
    last: Instant,
    every: Duration,
}

struct Writer {
    db: Connection,
    limits: Limits,
    totals: Cell<Totals>,
    sweep: Sweep,
    bytes_in_log: usize,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Box<dyn Write>>) {
        loop {
            match queue.recv_timeout(self.sweep.every) {
                Ok(first) => {
                    let mut group = vec![first];
                    group.extend(queue.try_iter().take(GROUP_MAX - 1));
                    self.write(group);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.rest();
        }
        drop(self.checkpoint("TRUNCATE"));
    }

    fn write(&mut self, mut group: Vec<Box<dyn Write>>) {
        if group.len() > 1 && self.transact(&mut group).is_ok() {
            for write in group {
                write.answer(None);
            }
            return;
        }
        for mut write in group {
            let failed = self.transact(std::slice::from_mut(&mut write)).err();
            write.answer(failed);
        }
    }

    fn transact(&mut self, group: &mut [Box<dyn Write>]) -> Result<(), Error> {
        let before = self.totals.get();
        let result = self.transaction(|writing| group.iter_mut().try_for_each(|write| write.apply(writing)));
        if result.is_err() {
            self.totals.set(before);
        }
        let grown = self.totals.get().bytes.saturating_sub(before.bytes);
        self.bytes_in_log += grown + TRANSACTION_LOG_BYTES + group.len() * WRITE_LOG_BYTES;
        result
    }

    /// Undone as a whole if any of it fails.
    fn transaction<T>(&mut self, run: impl FnOnce(&Writing<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let transaction = Transaction::new(&mut self.db, TransactionBehavior::Immediate)?;
        let done = run(&Writing { db: &transaction, limits: &self.limits, totals: &self.totals })?;
        transaction.commit()?;
        Ok(done)
    }

    /// What nobody waits for. What fails here is tried again, and fails a write too if it lasts.
    fn rest(&mut self) {
        if self.bytes_in_log >= CHECKPOINT_BYTES && self.checkpoint("PASSIVE").is_ok() {
            self.bytes_in_log = 0;
        }
        if self.sweep.last.elapsed() < self.sweep.every {
            return;
        }
        self.sweep.last = Instant::now();
        self.sweep.every = SWEEP_EVERY;
        let (now_unix_ms, usage_age_ms_max) = ((self.sweep.clock)(), self.sweep.usage_age_ms_max);
        match sweep::is_due(&self.db, &self.limits, usage_age_ms_max, now_unix_ms) {
            Ok(false) | Err(_) => return,
            Ok(true) => {}
        }
        let before = self.totals.get();
        match self.transaction(|writing| sweep::step(writing, usage_age_ms_max, now_unix_ms)) {
            Ok(true) => self.sweep.every = SWEEP_BEHIND_EVERY,
            Ok(false) => {}
            Err(_) => self.totals.set(before),
        }
        self.bytes_in_log += TRANSACTION_LOG_BYTES;
    }

    fn checkpoint(&self, mode: &str) -> Result<(), Error> {
        Ok(self.db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?)
    }
}
