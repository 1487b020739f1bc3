//! The store that lasts: SQLite in a data folder of its own. Committed means on the disk: a log that is flushed before the answer.
//!
//! Knows nothing of runtimes: its work is done by its own threads, and its futures wake whoever polls them.

mod conversations;
mod folder;
mod jobs;
mod ledger;
mod reply;
mod responses;
mod room;
mod sweep;
mod threads;

use std::cell::Cell;
use std::future::ready;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::{Connection, Row};

use self::conversations::Target;
pub use self::ledger::Ledger;

use self::folder::Folder;
use self::reply::Reply;
use self::room::Totals;
use self::threads::Threads;
use crate::{
    Answer, Conversation, Error, Event, JobState, Journal, Limits, Listing, OwnerId, Page, Record, Retrieved, Store,
    UnfinishedJob, UsageEntry, UsageTotal,
};

#[derive(Clone, Debug)]
pub struct Options {
    /// Made if it is not there, for its owner alone.
    pub folder: PathBuf,
    pub limits: Limits,
    /// How long the ledger of usage goes back.
    pub usage_age_ms_max: u64,
    /// What the database file may grow to, whatever the limits count; its log beside it is small.
    pub file_bytes_max: u64,
    /// Writes that wait, and as many reads; at least 1.
    pub queue_max: usize,
    /// Milliseconds since the Unix epoch. Only what is swept goes by it; what is seen goes by the moments that are passed in.
    pub clock: fn() -> u64,
}

impl Options {
    /// A month of responses, as OpenAI keeps them, in at most 16 GiB.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        Self {
            folder,
            limits: Limits { bytes_max: 16 << 30, records_max: 1_000_000, age_ms_max: 30 * DAY_MS },
            usage_age_ms_max: 400 * DAY_MS,
            file_bytes_max: 64 << 30,
            queue_max: 1024,
            clock: unix_ms,
        }
    }

    /// Whether the folder can be used, or made: it is written to, and left as it was. Who holds it is not asked.
    ///
    /// # Errors
    /// [`Error::Folder`].
    pub fn check_folder(&self) -> Result<(), Error> {
        folder::check(&self.folder)
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Dropping it does what waits, then frees the folder.
pub struct SqliteStore {
    threads: Threads,
    database: PathBuf,
    age_ms_max: u64,
}

/// An open transaction, and what it must keep true.
struct Writing<'a> {
    db: &'a Connection,
    limits: &'a Limits,
    totals: &'a Cell<Totals>,
}

impl SqliteStore {
    /// # Errors
    /// When another process has the folder, or it cannot be used, or what is in it is not ours to use.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let folder = Folder::open(&options.folder)?;
        let database = folder.database.clone();
        Ok(Self { threads: Threads::start(folder, options)?, database, age_ms_max: options.limits.age_ms_max })
    }

    fn write<T, F>(&self, run: F) -> Answer<T>
    where
        T: Send + 'static,
        F: Fn(&Writing<'_>) -> Result<T, Error> + Send + 'static,
    {
        boxed(self.threads.write(run))
    }

    fn read<T, F>(&self, run: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        boxed(self.threads.read(run))
    }

    /// What is older than this has expired.
    fn since(&self, now_unix_ms: u64) -> u64 {
        now_unix_ms.saturating_sub(self.age_ms_max)
    }

    /// A write to a conversation.
    fn change<T, F>(&self, owner: OwnerId, id: &str, now_unix_ms: u64, run: F) -> Answer<T>
    where
        T: Send + 'static,
        F: Fn(&Writing<'_>, &Target<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (id, since_unix_ms) = (id.to_owned(), self.since(now_unix_ms));
        self.write(move |writing| run(writing, &Target { owner, id: &id, since_unix_ms, now_unix_ms }))
    }
}

fn boxed<T: Send + 'static>(asked: Result<Reply<T>, Error>) -> Answer<T> {
    match asked {
        Ok(reply) => Box::pin(reply),
        Err(error) => Box::pin(ready(Err(error))),
    }
}

impl Store for SqliteStore {
    fn commit(&self, record: Record) -> Answer<()> {
        self.write(move |writing| responses::commit(writing, &record))
    }

    fn load(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<Arc<Record>>> {
        let (id, since) = (id.to_owned(), self.since(now_unix_ms));
        self.read(move |db| Ok(responses::load(db, owner, &id, since)?.map(Arc::new)))
    }

    fn retrieve(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<Retrieved>> {
        let (id, since) = (id.to_owned(), self.since(now_unix_ms));
        self.read(move |db| responses::retrieve(db, owner, &id, since))
    }

    fn input_items(&self, owner: OwnerId, id: &str, page: Page, now_unix_ms: u64) -> Answer<Option<Listing>> {
        let (id, since) = (id.to_owned(), self.since(now_unix_ms));
        self.read(move |db| responses::input_items(db, owner, &id, &page, since))
    }

    fn find_items(&self, owner: OwnerId, ids: Vec<String>, now_unix_ms: u64) -> Answer<Vec<Option<Bytes>>> {
        let since = self.since(now_unix_ms);
        self.read(move |db| responses::find_items(db, owner, &ids, since))
    }

    fn delete(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<bool> {
        let (id, since) = (id.to_owned(), self.since(now_unix_ms));
        self.write(move |writing| responses::delete(writing, owner, &id, since))
    }

    fn job_create(&self, record: Record, request: Bytes) -> Answer<()> {
        self.write(move |writing| jobs::create(writing, &record, &request))
    }

    fn job_start(&self, owner: OwnerId, id: &str, response: Bytes) -> Answer<bool> {
        let id = id.to_owned();
        self.write(move |writing| jobs::start(writing, owner, &id, &response))
    }

    fn job_append(&self, owner: OwnerId, id: &str, events: Vec<Event>) -> Answer<bool> {
        let id = id.to_owned();
        self.write(move |writing| jobs::append(writing, owner, &id, &events))
    }

    fn job_finish(&self, record: Record, events: Vec<Event>) -> Answer<bool> {
        self.write(move |writing| jobs::finish(writing, &record, &events))
    }

    fn job_cancel(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<JobState>> {
        let (id, since) = (id.to_owned(), self.since(now_unix_ms));
        self.write(move |writing| jobs::cancel(writing, owner, &id, since))
    }

    fn job_events(&self, owner: OwnerId, id: &str, after: Option<u64>, now_unix_ms: u64) -> Answer<Option<Journal>> {
        let (id, since, after) = (id.to_owned(), self.since(now_unix_ms), after.map_or(-1, moment));
        self.read(move |db| jobs::events(db, owner, &id, after, since))
    }

    fn job_request(&self, owner: OwnerId, id: &str) -> Answer<Option<Bytes>> {
        let id = id.to_owned();
        self.read(move |db| jobs::request(db, owner, &id))
    }

    fn jobs_unfinished(&self) -> Answer<Vec<UnfinishedJob>> {
        self.read(jobs::unfinished)
    }

    fn conversation_create(&self, conversation: Conversation, items: Vec<Bytes>) -> Answer<()> {
        self.write(move |writing| conversations::create(writing, &conversation, &items))
    }

    fn conversation(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<Conversation>> {
        let (id, since) = (id.to_owned(), self.since(now_unix_ms));
        self.read(move |db| conversations::load(db, owner, &id, since))
    }

    fn conversation_update(&self, owner: OwnerId, id: &str, metadata: Bytes, now_unix_ms: u64) -> Answer<bool> {
        self.change(owner, id, now_unix_ms, move |writing, target| conversations::update(writing, target, &metadata))
    }

    fn conversation_delete(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<bool> {
        self.change(owner, id, now_unix_ms, conversations::delete)
    }

    fn conversation_append(&self, owner: OwnerId, id: &str, items: Vec<Bytes>, now_unix_ms: u64) -> Answer<bool> {
        self.change(owner, id, now_unix_ms, move |writing, target| conversations::append(writing, target, &items))
    }

    fn conversation_items(&self, owner: OwnerId, id: &str, page: Page, now_unix_ms: u64) -> Answer<Option<Listing>> {
        let (id, since) = (id.to_owned(), self.since(now_unix_ms));
        self.read(move |db| conversations::items(db, owner, &id, &page, since))
    }

    fn conversation_item(&self, owner: OwnerId, id: &str, item_id: &str, now_unix_ms: u64) -> Answer<Option<Bytes>> {
        let (id, item_id, since) = (id.to_owned(), item_id.to_owned(), self.since(now_unix_ms));
        self.read(move |db| conversations::item(db, owner, &id, &item_id, since))
    }

    fn conversation_item_delete(&self, owner: OwnerId, id: &str, item_id: &str, now_unix_ms: u64) -> Answer<bool> {
        let item_id = item_id.to_owned();
        self.change(owner, id, now_unix_ms, move |writing, target| {
            conversations::delete_item(writing, target, &item_id)
        })
    }

    fn bytes(&self) -> u64 {
        let log = self.database.with_extension("sqlite-wal");
        [&self.database, &log].into_iter().filter_map(|file| Some(std::fs::metadata(file).ok()?.len())).sum()
    }

    fn usage_append(&self, entry: UsageEntry) -> Answer<()> {
        self.write(move |writing| ledger::append(writing, &entry))
    }

    fn usage_sum(&self, owner: Option<OwnerId>, span_unix_ms: Range<u64>) -> Answer<Vec<UsageTotal>> {
        self.read(move |db| ledger::sum(db, owner, &span_unix_ms))
    }
}

/// SQLite's integers have a sign; what is beyond them is nothing that happens.
fn moment(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn integer(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The way back; what is below 0 was never written.
fn size(value: i64) -> usize {
    usize::try_from(value).unwrap_or_default()
}

fn blob(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::from(row.get::<_, Vec<u8>>(column)?))
}

fn owner_of(row: &Row<'_>, column: usize) -> rusqlite::Result<OwnerId> {
    row.get(column).map(OwnerId)
}
