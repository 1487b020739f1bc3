//! The store that forgets: records in this process, within limits, the oldest making room for the newest.
//!
//! Knows nothing of disks. All of it stands behind one lock, held for lookups and pointers, never for a wait.

mod held;
mod tables;

use std::collections::BTreeMap;
use std::future::ready;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use self::tables::{Job, Key, Tables, has_id};
use crate::item::page;
use crate::{
    Answer, Conversation, EVENTS_READ_MAX, Error, Event, JobState, Journal, Limits, Listing, OwnerId, Page, Record,
    Retrieved, Store, Tokens, UnfinishedJob, UsageEntry, UsageTotal,
};

pub use self::tables::Usage;

pub struct MemoryStore {
    tables: Mutex<Tables>,
}

impl MemoryStore {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { tables: Mutex::new(Tables::new(limits)) }
    }

    #[must_use]
    pub fn usage(&self) -> Usage {
        self.tables().used
    }

    /// No step between two consistent states can panic, so a poisoned lock guards a good one.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, record: Record, events: Vec<Event>) -> Result<bool, Error> {
        let key = key(record.owner, &record.id);
        let mut tables = self.tables();
        let Some(job) = tables.unfinished_job(&key) else { return Ok(false) };
        let mut finished = Job {
            state: JobState::Finished,
            is_cancelled: job.is_cancelled,
            request: Bytes::new(),
            events: job.events.clone(),
            events_bytes: job.events_bytes,
        };
        finished.add(events);
        tables.keep(record, Some(finished))?;
        Ok(true)
    }
}

fn key(owner: OwnerId, id: &str) -> Key {
    (owner, Box::from(id))
}

fn done<T: Send + 'static>(answer: Result<T, Error>) -> Answer<T> {
    Box::pin(ready(answer))
}

fn listing<'a>(items: impl IntoIterator<Item = &'a Bytes>, asked: &Page) -> Listing {
    let all: Vec<&Bytes> = items.into_iter().collect();
    match page(&all, asked, |item, id| has_id(item, id)) {
        Some((items, has_more)) => Listing::Items { items: items.into_iter().cloned().collect(), has_more },
        None => Listing::NoSuchItem,
    }
}

impl Store for MemoryStore {
    fn commit(&self, record: Record) -> Answer<()> {
        done(self.tables().keep(record, None))
    }

    fn load(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<Arc<Record>>> {
        done(Ok(self.tables().response(&key(owner, id), now_unix_ms).map(|kept| Arc::clone(&kept.record))))
    }

    fn retrieve(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<Retrieved>> {
        done(Ok(self.tables().response(&key(owner, id), now_unix_ms).map(|kept| Retrieved {
            response: kept.record.response.clone(),
            created_unix_ms: kept.record.created_unix_ms,
            job: kept.job.as_ref().map(|job| job.state),
        })))
    }

    fn input_items(&self, owner: OwnerId, id: &str, page: Page, now_unix_ms: u64) -> Answer<Option<Listing>> {
        let record = self.tables().response(&key(owner, id), now_unix_ms).map(|kept| Arc::clone(&kept.record));
        done(Ok(record.map(|record| listing(record.input_items(), &page))))
    }

    fn find_items(&self, owner: OwnerId, ids: Vec<String>, now_unix_ms: u64) -> Answer<Vec<Option<Bytes>>> {
        let tables = self.tables();
        done(Ok(ids.iter().map(|id| tables.item(key(owner, id), now_unix_ms)).collect()))
    }

    fn delete(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<bool> {
        let (key, mut tables) = (key(owner, id), self.tables());
        let was_there = tables.response(&key, now_unix_ms).is_some();
        if was_there {
            tables.remove_response(&key);
        }
        done(Ok(was_there))
    }

    fn job_create(&self, record: Record, request: Bytes) -> Answer<()> {
        let (state, events) = (JobState::Queued, BTreeMap::new());
        let job = Job { state, is_cancelled: false, request, events, events_bytes: 0 };
        done(self.tables().keep(record, Some(job)))
    }

    fn job_start(&self, owner: OwnerId, id: &str, response: Bytes) -> Answer<bool> {
        done(self.tables().start_job(&key(owner, id), response))
    }

    fn job_append(&self, owner: OwnerId, id: &str, events: Vec<Event>) -> Answer<bool> {
        done(self.tables().add_events(&key(owner, id), events))
    }

    fn job_finish(&self, record: Record, events: Vec<Event>) -> Answer<bool> {
        done(self.finish(record, events))
    }

    fn job_cancel(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<JobState>> {
        let (key, mut tables) = (key(owner, id), self.tables());
        let found = tables.response(&key, now_unix_ms).and_then(|kept| kept.job.as_ref()).map(|job| job.state);
        if let (Some(_), Some(job)) = (found, tables.unfinished_job(&key)) {
            job.is_cancelled = true;
        }
        done(Ok(found))
    }

    fn job_events(&self, owner: OwnerId, id: &str, after: Option<u64>, now_unix_ms: u64) -> Answer<Option<Journal>> {
        let tables = self.tables();
        let job = tables.response(&key(owner, id), now_unix_ms).and_then(|kept| kept.job.as_ref());
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let event = |(at, json): (&u64, &Bytes)| Event { sequence_number: *at, json: json.clone() };
        done(Ok(job.map(|job| {
            let events = job.events.range((from, Bound::Unbounded)).take(EVENTS_READ_MAX).map(event);
            Journal { state: job.state, events: events.collect() }
        })))
    }

    fn job_request(&self, owner: OwnerId, id: &str) -> Answer<Option<Bytes>> {
        done(Ok(self.tables().unfinished_job(&key(owner, id)).map(|job| job.request.clone())))
    }

    fn jobs_unfinished(&self) -> Answer<Vec<UnfinishedJob>> {
        let tables = self.tables();
        let jobs = tables.responses.values().filter_map(|kept| Some((&kept.record, kept.job.as_ref()?)));
        let unfinished = jobs.filter(|(_, job)| job.state != JobState::Finished).map(|(record, job)| UnfinishedJob {
            owner: record.owner,
            id: record.id.clone(),
            state: job.state,
            is_cancelled: job.is_cancelled,
            created_unix_ms: record.created_unix_ms,
            next_sequence_number: job.events.last_key_value().map_or(0, |(last, _)| last + 1),
        });
        let mut unfinished: Vec<_> = unfinished.collect();
        unfinished.sort_by(|a, b| (a.created_unix_ms, &a.id).cmp(&(b.created_unix_ms, &b.id)));
        done(Ok(unfinished))
    }

    fn conversation_create(&self, conversation: Conversation, items: Vec<Bytes>) -> Answer<()> {
        done(self.tables().keep_conversation(conversation, items))
    }

    fn conversation(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<Option<Conversation>> {
        done(Ok(self.tables().conversation(&key(owner, id), now_unix_ms).map(|talk| talk.conversation.clone())))
    }

    fn conversation_update(&self, owner: OwnerId, id: &str, metadata: Bytes, now_unix_ms: u64) -> Answer<bool> {
        done(self.tables().describe_conversation(&key(owner, id), metadata, now_unix_ms))
    }

    fn conversation_delete(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> Answer<bool> {
        let (key, mut tables) = (key(owner, id), self.tables());
        let was_there = tables.conversation(&key, now_unix_ms).is_some();
        if was_there {
            tables.remove_conversation(&key);
        }
        done(Ok(was_there))
    }

    fn conversation_append(&self, owner: OwnerId, id: &str, items: Vec<Bytes>, now_unix_ms: u64) -> Answer<bool> {
        done(self.tables().append_to_conversation(&key(owner, id), &items, now_unix_ms))
    }

    fn conversation_items(&self, owner: OwnerId, id: &str, page: Page, now_unix_ms: u64) -> Answer<Option<Listing>> {
        let items = self.tables().conversation(&key(owner, id), now_unix_ms).map(|talk| talk.items.clone());
        done(Ok(items.map(|items| listing(&items, &page))))
    }

    fn conversation_item(&self, owner: OwnerId, id: &str, item_id: &str, now_unix_ms: u64) -> Answer<Option<Bytes>> {
        let tables = self.tables();
        let talk = tables.conversation(&key(owner, id), now_unix_ms);
        done(Ok(talk.and_then(|talk| talk.items.iter().rev().find(|item| has_id(item, item_id)).cloned())))
    }

    fn conversation_item_delete(&self, owner: OwnerId, id: &str, item_id: &str, now_unix_ms: u64) -> Answer<bool> {
        done(Ok(self.tables().remove_from_conversation(&key(owner, id), item_id, now_unix_ms)))
    }

    fn bytes(&self) -> u64 {
        self.tables().used.bytes as u64
    }

    fn usage_append(&self, entry: UsageEntry) -> Answer<()> {
        self.tables().record_usage(entry);
        done(Ok(()))
    }

    fn usage_sum(&self, owner: Option<OwnerId>, span_unix_ms: Range<u64>) -> Answer<Vec<UsageTotal>> {
        let mut totals: BTreeMap<(OwnerId, String, String), (u64, Tokens)> = BTreeMap::new();
        let tables = self.tables();
        let of_owner = |entry: &&UsageEntry| owner.is_none_or(|owner| owner == entry.owner);
        for entry in tables.usage.iter().filter(|entry| span_unix_ms.contains(&entry.unix_ms)).filter(of_owner) {
            let name = (entry.owner, entry.model.clone(), entry.tier.clone());
            let (turns, tokens) = totals.entry(name).or_default();
            *turns += 1;
            tokens.input += entry.tokens.input;
            tokens.cached += entry.tokens.cached;
            tokens.output += entry.tokens.output;
            tokens.reasoning += entry.tokens.reasoning;
        }
        let rows = totals.into_iter();
        done(Ok(rows
            .map(|((owner, model, tier), (turns, tokens))| UsageTotal { owner, model, tier, turns, tokens })
            .collect()))
    }
}
