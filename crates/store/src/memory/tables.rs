//! What the memory store holds, and who makes room. Knows nothing of locks and futures.
//!
//! Everything that may go stands in one order, by its last change; an unfinished job stands outside of it until it has finished.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::held::{Held, contents_size, items_size, lies};
use crate::item::head;
use crate::{Conversation, Error, Items, JobState, Limits, OwnerId, Record, UsageEntry};

/// What a record costs beside its contents: the table's entry, the place in the order, the allocations' heads.
const RECORD_OVERHEAD_BYTES: usize = 512;
/// What an item that can be found by its id costs beside its contents, its id counted apart.
const ITEM_OVERHEAD_BYTES: usize = 160;
const EVENT_OVERHEAD_BYTES: usize = 64;
/// What is held now, the expired that nobody has swept yet included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: usize,
    /// Responses and conversations.
    pub records: usize,
}

/// The owner is a part of the name: another's record is not there.
pub(super) type Key = (OwnerId, Box<str>);

pub(super) struct Kept {
    pub(super) record: Arc<Record>,
    pub(super) job: Option<Job>,
    /// With all that it holds, whoever shares it.
    bytes: usize,
    number: u64,
}

impl Kept {
    fn is_unfinished(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.state != JobState::Finished)
    }
}

pub(super) struct Job {
    pub(super) state: JobState,
    pub(super) is_cancelled: bool,
    pub(super) request: Bytes,
    pub(super) events: BTreeMap<u64, Bytes>,
    /// What they are counted for.
    pub(super) events_bytes: usize,
}

impl Job {
    fn bytes(&self) -> usize {
        self.request.len() + self.events_bytes
    }

    /// An event of the same number is replaced.
    pub(super) fn add(&mut self, events: Vec<crate::Event>) {
        for event in events {
            self.events_bytes += event.json.len() + EVENT_OVERHEAD_BYTES;
            if let Some(before) = self.events.insert(event.sequence_number, event.json) {
                self.events_bytes -= before.len() + EVENT_OVERHEAD_BYTES;
            }
        }
    }
}

pub(super) struct Talk {
    pub(super) conversation: Conversation,
    pub(super) items: Vec<Bytes>,
    changed_unix_ms: u64,
    /// With all that it holds, whoever shares it.
    bytes: usize,
    number: u64,
}

enum Place {
    Response(Key),
    Conversation(Key),
}

/// An item that a response brought, and when.
struct Brought {
    json: Bytes,
    created_unix_ms: u64,
}

pub(super) struct Tables {
    limits: Limits,
    pub(super) used: Usage,
    /// Of unfinished jobs, each with all that it holds.
    pinned: Usage,
    /// Whoever goes on from a response shares its items.
    held: Held,
    next_number: u64,
    oldest_first: BTreeMap<u64, Place>,
    pub(super) responses: HashMap<Key, Kept>,
    /// By id, then by the response that brought it, the newest last.
    items: BTreeMap<(Key, u64), Brought>,
    conversations: HashMap<Key, Talk>,
    pub(super) usage: VecDeque<UsageEntry>,
}

impl Tables {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            used: Usage::default(),
            pinned: Usage::default(),
            held: Held::default(),
            next_number: 0,
            oldest_first: BTreeMap::new(),
            responses: HashMap::new(),
            items: BTreeMap::new(),
            conversations: HashMap::new(),
            usage: VecDeque::new(),
        }
    }

    fn is_expired(&self, since_unix_ms: u64, now_unix_ms: u64) -> bool {
        now_unix_ms.saturating_sub(since_unix_ms) > self.limits.age_ms_max
    }

    pub(super) fn response(&self, key: &Key, now_unix_ms: u64) -> Option<&Kept> {
        let kept = self.responses.get(key)?;
        (!self.is_expired(kept.record.created_unix_ms, now_unix_ms)).then_some(kept)
    }

    pub(super) fn unfinished_job(&mut self, key: &Key) -> Option<&mut Job> {
        self.responses.get_mut(key).filter(|kept| kept.is_unfinished())?.job.as_mut()
    }

    /// The newest item of this id that any of the owner's responses brought.
    pub(super) fn item(&self, key: Key, now_unix_ms: u64) -> Option<Bytes> {
        let mut all = self.items.range((key.clone(), 0)..=(key, u64::MAX)).rev().map(|(_, item)| item);
        all.find(|item| !self.is_expired(item.created_unix_ms, now_unix_ms)).map(|item| item.json.clone())
    }

    /// In the place of what has the same name.
    pub(super) fn keep(&mut self, mut record: Record, job: Option<Job>) -> Result<(), Error> {
        self.share(&mut record);
        let key = (record.owner, Box::from(record.id.as_str()));
        let bytes = size(&record) + self.held.runs_size(&record.items) + job.as_ref().map_or(0, Job::bytes);
        let grown = self.grown_conversation(&record);
        let before = self.responses.get(&key).filter(|kept| kept.is_unfinished()).map_or(0, |kept| kept.bytes);
        self.check(bytes, grown, before)?;
        // Before making room, so that no item is counted as gone and kept again.
        self.used.bytes += self.held.hold_runs(&record.items);
        self.remove_response(&key);
        self.sweep(record.created_unix_ms);
        let own = bytes - self.held.runs_size(&record.items);
        self.make_room(Usage { bytes: own, records: 1 });
        let number = self.number();
        for ((key, json), created_unix_ms) in found_by_id(&record).zip(std::iter::repeat(record.created_unix_ms)) {
            self.items.insert((key, number), Brought { json: json.clone(), created_unix_ms });
        }
        let kept = Kept { record: Arc::new(record), job, bytes, number };
        self.used.bytes += own;
        self.used.records += 1;
        if kept.is_unfinished() {
            self.pinned.bytes += bytes;
            self.pinned.records += 1;
        } else {
            self.oldest_first.insert(number, Place::Response(key.clone()));
        }
        let finished = (!kept.is_unfinished()).then(|| Arc::clone(&kept.record));
        self.responses.insert(key, kept);
        if let Some(record) = finished {
            self.follow(&record);
        }
        Ok(())
    }

    /// Lets the record hold the items that it goes on from where they are: over HTTP it brings a copy of its own.
    fn share(&self, record: &mut Record) {
        let key = |id: &String| (record.owner, Box::from(id.as_str()));
        let of_response = |id| self.responses.get(&key(id)).map(|kept| kept.record.items.clone());
        let of_conversation = |id| self.conversations.get(&key(id)).map(|talk| Items::from(talk.items.clone()));
        let before = record.conversation.as_ref().and_then(of_conversation);
        let before = before.or_else(|| record.previous.as_ref().and_then(of_response)).unwrap_or_default();
        if is_copy(&before, record) {
            record.items = before.and(own(record));
        }
    }

    /// What the record's conversation would come to; 0 if it is in none.
    fn grown_conversation(&self, record: &Record) -> usize {
        let Some(id) = &record.conversation else { return 0 };
        let talk = self.conversation(&(record.owner, Box::from(id.as_str())), record.created_unix_ms);
        talk.map_or(0, |talk| talk.bytes + items_size(&own(record)))
    }

    /// A response's own items go to its conversation.
    fn follow(&mut self, record: &Record) {
        let Some(id) = &record.conversation else { return };
        let key = (record.owner, Box::from(id.as_str()));
        if self.conversation(&key, record.created_unix_ms).is_some() {
            self.add_to_conversation(&key, &own(record), record.created_unix_ms);
        }
    }

    /// `new` may be kept beside what it belongs to and all that is not finished, but for `replaced` bytes of that.
    fn check(&self, new: usize, with: usize, replaced: usize) -> Result<(), Error> {
        let Limits { bytes_max, records_max, .. } = self.limits;
        let bytes = new + with;
        if bytes > bytes_max {
            return Err(Error::RecordTooLarge { bytes, bytes_max });
        }
        let records = self.pinned.records - usize::from(replaced > 0);
        if self.pinned.bytes - replaced + bytes > bytes_max || records >= records_max.max(1) {
            return Err(Error::Full { bytes_max, records_max });
        }
        Ok(())
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn make_room(&mut self, new: Usage) {
        let Limits { bytes_max, records_max, .. } = self.limits;
        while (self.used.bytes + new.bytes > bytes_max || self.used.records + new.records > records_max.max(1))
            && self.remove_oldest()
        {}
    }

    /// Drops the expired, up to the first that is not: changes come nearly in the order of time.
    fn sweep(&mut self, now_unix_ms: u64) {
        while let Some((_, place)) = self.oldest_first.first_key_value() {
            let is_there = match place {
                Place::Response(key) => self.response(key, now_unix_ms).is_some(),
                Place::Conversation(key) => self.conversation(key, now_unix_ms).is_some(),
            };
            if is_there {
                return;
            }
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) -> bool {
        match self.oldest_first.pop_first() {
            Some((_, Place::Response(key))) => self.remove_response(&key).is_some(),
            Some((_, Place::Conversation(key))) => self.remove_conversation(&key),
            None => false,
        }
    }

    pub(super) fn remove_response(&mut self, key: &Key) -> Option<Kept> {
        let kept = self.responses.remove(key)?;
        for (key, _) in found_by_id(&kept.record) {
            self.items.remove(&(key, kept.number));
        }
        self.used.bytes -= kept.bytes - self.held.runs_size(&kept.record.items);
        self.used.bytes -= self.held.let_go_runs(&kept.record.items);
        self.used.records -= 1;
        if kept.is_unfinished() {
            self.pinned.bytes -= kept.bytes;
            self.pinned.records -= 1;
        }
        self.oldest_first.remove(&kept.number);
        Some(kept)
    }

    /// Adds to an unfinished job's journal.
    pub(super) fn add_events(&mut self, key: &Key, events: Vec<crate::Event>) -> Result<bool, Error> {
        let new: usize = events.iter().map(|event| event.json.len() + EVENT_OVERHEAD_BYTES).sum();
        if self.unfinished_job(key).is_none() {
            return Ok(false);
        }
        self.check_pinned(new)?;
        self.make_room(Usage { bytes: new, records: 0 });
        let Some(job) = self.unfinished_job(key) else { return Ok(false) };
        let before = job.bytes();
        job.add(events);
        let after = job.bytes();
        self.resize_job(key, before, after);
        Ok(true)
    }

    /// Replaces the response object of an unfinished job, which is in progress now.
    pub(super) fn start_job(&mut self, key: &Key, response: Bytes) -> Result<bool, Error> {
        if self.unfinished_job(key).is_none() {
            return Ok(false);
        }
        self.check_pinned(response.len())?;
        self.make_room(Usage { bytes: response.len(), records: 0 });
        let Some(kept) = self.responses.get_mut(key) else { return Ok(false) };
        if let Some(job) = &mut kept.job {
            job.state = JobState::InProgress;
        }
        let (before, after) = (kept.record.response.len(), response.len());
        Arc::make_mut(&mut kept.record).response = response;
        self.resize_job(key, before, after);
        Ok(true)
    }

    fn check_pinned(&self, new: usize) -> Result<(), Error> {
        let Limits { bytes_max, records_max, .. } = self.limits;
        if self.pinned.bytes + new > bytes_max { Err(Error::Full { bytes_max, records_max }) } else { Ok(()) }
    }

    fn resize_job(&mut self, key: &Key, before: usize, after: usize) {
        if let Some(kept) = self.responses.get_mut(key) {
            for bytes in [&mut kept.bytes, &mut self.used.bytes, &mut self.pinned.bytes] {
                *bytes = *bytes + after - before;
            }
        }
    }

    pub(super) fn conversation(&self, key: &Key, now_unix_ms: u64) -> Option<&Talk> {
        let talk = self.conversations.get(key)?;
        (!self.is_expired(talk.changed_unix_ms, now_unix_ms)).then_some(talk)
    }

    pub(super) fn keep_conversation(&mut self, conversation: Conversation, items: Vec<Bytes>) -> Result<(), Error> {
        let key: Key = (conversation.owner, Box::from(conversation.id.as_str()));
        let changed_unix_ms = conversation.created_unix_ms;
        let own = RECORD_OVERHEAD_BYTES + 3 * conversation.id.len() + conversation.metadata.len();
        let bytes = own + items_size(&items);
        self.check(bytes, 0, 0)?;
        self.used.bytes += self.held.hold(&items);
        self.remove_conversation(&key);
        self.sweep(changed_unix_ms);
        let own = bytes - contents_size(&items);
        self.make_room(Usage { bytes: own, records: 1 });
        let number = self.number();
        self.used.bytes += own;
        self.used.records += 1;
        self.oldest_first.insert(number, Place::Conversation(key.clone()));
        self.conversations.insert(key, Talk { conversation, items, changed_unix_ms, bytes, number });
        Ok(())
    }

    pub(super) fn append_to_conversation(
        &mut self,
        key: &Key,
        items: &[Bytes],
        now_unix_ms: u64,
    ) -> Result<bool, Error> {
        let Some(talk) = self.conversation(key, now_unix_ms) else { return Ok(false) };
        self.check(talk.bytes + items_size(items), 0, 0)?;
        self.add_to_conversation(key, items, now_unix_ms);
        Ok(true)
    }

    fn add_to_conversation(&mut self, key: &Key, items: &[Bytes], now_unix_ms: u64) {
        self.touch(key, now_unix_ms);
        self.used.bytes += self.held.hold(items);
        let new = items_size(items);
        let own = new - contents_size(items);
        self.make_room(Usage { bytes: own, records: 0 });
        let Some(talk) = self.conversations.get_mut(key) else {
            self.used.bytes -= self.held.let_go(items);
            return;
        };
        talk.items.extend_from_slice(items);
        talk.bytes += new;
        self.used.bytes += own;
    }

    /// A conversation that changes is the newest.
    fn touch(&mut self, key: &Key, now_unix_ms: u64) {
        let number = self.number();
        let Some(talk) = self.conversations.get_mut(key) else { return };
        talk.changed_unix_ms = talk.changed_unix_ms.max(now_unix_ms);
        let before = std::mem::replace(&mut talk.number, number);
        if let Some(place) = self.oldest_first.remove(&before) {
            self.oldest_first.insert(number, place);
        }
    }

    pub(super) fn describe_conversation(
        &mut self,
        key: &Key,
        metadata: Bytes,
        now_unix_ms: u64,
    ) -> Result<bool, Error> {
        let Some(talk) = self.conversation(key, now_unix_ms) else { return Ok(false) };
        self.check(talk.bytes + metadata.len(), 0, 0)?;
        self.touch(key, now_unix_ms);
        self.make_room(Usage { bytes: metadata.len(), records: 0 });
        let Some(talk) = self.conversations.get_mut(key) else { return Ok(false) };
        for bytes in [&mut talk.bytes, &mut self.used.bytes] {
            *bytes = *bytes + metadata.len() - talk.conversation.metadata.len();
        }
        talk.conversation.metadata = metadata;
        Ok(true)
    }

    pub(super) fn remove_from_conversation(&mut self, key: &Key, item_id: &str, now_unix_ms: u64) -> bool {
        let Some(talk) = self.conversation(key, now_unix_ms) else { return false };
        let Some(at) = talk.items.iter().rposition(|item| has_id(item, item_id)) else { return false };
        self.touch(key, now_unix_ms);
        let Some(talk) = self.conversations.get_mut(key) else { return false };
        let gone = [talk.items.remove(at)];
        talk.bytes -= items_size(&gone);
        self.used.bytes -= items_size(&gone) - contents_size(&gone);
        self.used.bytes -= self.held.let_go(&gone);
        true
    }

    pub(super) fn remove_conversation(&mut self, key: &Key) -> bool {
        let Some(talk) = self.conversations.remove(key) else { return false };
        self.used.bytes -= talk.bytes - contents_size(&talk.items);
        self.used.bytes -= self.held.let_go(&talk.items);
        self.used.records -= 1;
        self.oldest_first.remove(&talk.number);
        true
    }

    pub(super) fn record_usage(&mut self, entry: UsageEntry) {
        if self.usage.len() >= self.limits.records_max.max(1) {
            self.usage.pop_front();
        }
        self.usage.push_back(entry);
    }
}

pub(super) fn has_id(item: &[u8], id: &str) -> bool {
    head(item).id.is_some_and(|of| of == id)
}

/// The items that a record brings and that have an id.
fn found_by_id(record: &Record) -> impl Iterator<Item = (Key, &Bytes)> {
    record.own_items().filter_map(|item| Some(((record.owner, Box::from(head(item).id?)), item)))
}

/// Whether a record's inherited items are those, in another place.
fn is_copy(before: &Items, record: &Record) -> bool {
    // Runs that are the same need no look.
    let runs = before.runs().iter().zip(record.items.runs());
    let known: usize = runs.take_while(|(one, other)| Arc::ptr_eq(one, other)).map(|(run, _)| run.len()).sum();
    let pairs = || before.iter().zip(record.items.iter().take(record.inherited)).skip(known);
    before.len() == record.inherited
        && pairs().any(|(theirs, ours)| lies(theirs) != lies(ours))
        && pairs().all(|(theirs, ours)| theirs == ours)
}

/// The items that a record brings.
fn own(record: &Record) -> Vec<Bytes> {
    record.own_items().cloned().collect()
}

/// The memory that a record takes beside its items, in bytes.
fn size(record: &Record) -> usize {
    let found: usize = found_by_id(record).map(|((_, id), _)| id.len() + ITEM_OVERHEAD_BYTES).sum();
    let names = [&record.previous, &record.conversation].into_iter().flatten().map(String::len).sum::<usize>();
    // The id stands in the record, in the table and in the order.
    RECORD_OVERHEAD_BYTES + 3 * record.id.len() + names + record.response.len() + found
}
