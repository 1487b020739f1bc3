//! The store that forgets: records in this process, within limits, the oldest making room for the newest.
//!
//! Knows nothing of disks. Loads touch one shard of a concurrent table; what changes the table takes one short lock, once a turn.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dashmap::DashMap;

use crate::{BoxFuture, Error, OwnerId, Record, Store};

/// What a record costs beside its contents: the table's entry, the place in the order, the allocations' heads.
const RECORD_OVERHEAD_BYTES: usize = 512;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All records together. An item that several records share counts for each, so that the memory used is below this.
    pub bytes_max: usize,
    /// At least 1.
    pub records_max: usize,
    /// From a record's creation.
    pub age_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 256 * 1024 * 1024, records_max: 100_000, age_ms_max: 24 * 60 * 60 * 1000 }
    }
}

/// What is held now, the expired that nobody has swept yet included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: usize,
    pub records: usize,
}

#[derive(Debug)]
pub struct MemoryStore {
    limits: Limits,
    records: DashMap<Key, Kept>,
    /// Held by all that changes `records`.
    order: Mutex<Order>,
}

/// The owner is a part of the name: another's record is not there.
type Key = (OwnerId, Box<str>);

#[derive(Debug)]
struct Kept {
    record: Arc<Record>,
    bytes: usize,
    number: u64,
}

/// Records in the order of their commits.
#[derive(Debug, Default)]
struct Order {
    next_number: u64,
    bytes: usize,
    oldest_first: BTreeMap<u64, Key>,
}

impl MemoryStore {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, records: DashMap::new(), order: Mutex::default() }
    }

    #[must_use]
    pub fn usage(&self) -> Usage {
        let order = self.order();
        Usage { bytes: order.bytes, records: order.oldest_first.len() }
    }

    fn keep(&self, record: Record) -> Result<(), Error> {
        let (now_unix_ms, bytes) = (record.created_unix_ms, size(&record));
        let Limits { bytes_max, records_max, .. } = self.limits;
        if bytes > bytes_max {
            return Err(Error::RecordTooLarge { bytes, bytes_max });
        }
        let key = (record.owner, Box::from(record.id.as_str()));
        let mut order = self.order();
        self.remove(&mut order, &key);
        self.sweep(&mut order, now_unix_ms);
        while order.bytes + bytes > bytes_max || order.oldest_first.len() >= records_max.max(1) {
            self.remove_oldest(&mut order);
        }
        let number = order.next_number;
        order.next_number += 1;
        order.bytes += bytes;
        order.oldest_first.insert(number, key.clone());
        self.records.insert(key, Kept { record: Arc::new(record), bytes, number });
        Ok(())
    }

    fn find(&self, key: &Key, now_unix_ms: u64) -> Option<Arc<Record>> {
        let kept = self.records.get(key)?;
        (!self.is_expired(&kept.record, now_unix_ms)).then(|| Arc::clone(&kept.record))
    }

    fn is_expired(&self, record: &Record, now_unix_ms: u64) -> bool {
        now_unix_ms.saturating_sub(record.created_unix_ms) > self.limits.age_ms_max
    }

    /// Drops the expired, up to the first that is not: commits come nearly in the order of creation.
    fn sweep(&self, order: &mut Order, now_unix_ms: u64) {
        while let Some((_, key)) = order.oldest_first.first_key_value() {
            if self.find(key, now_unix_ms).is_some() {
                return;
            }
            self.remove_oldest(order);
        }
    }

    fn remove_oldest(&self, order: &mut Order) {
        if let Some((_, key)) = order.oldest_first.pop_first() {
            self.remove(order, &key);
        }
    }

    fn remove(&self, order: &mut Order, key: &Key) -> bool {
        let Some((_, kept)) = self.records.remove(key) else { return false };
        order.bytes -= kept.bytes;
        order.oldest_first.remove(&kept.number);
        true
    }

    /// No step between two consistent states can panic, so a poisoned lock guards a good one.
    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn commit(&self, record: Record) -> BoxFuture<Result<(), Error>> {
        Box::pin(ready(self.keep(record)))
    }

    fn load(&self, owner: OwnerId, id: &str, now_unix_ms: u64) -> BoxFuture<Result<Option<Arc<Record>>, Error>> {
        Box::pin(ready(Ok(self.find(&(owner, Box::from(id)), now_unix_ms))))
    }

    fn delete(&self, owner: OwnerId, id: &str) -> BoxFuture<Result<bool, Error>> {
        let mut order = self.order();
        let was_there = self.remove(&mut order, &(owner, Box::from(id)));
        Box::pin(ready(Ok(was_there)))
    }
}

/// The memory that a record is counted for, in bytes.
fn size(record: &Record) -> usize {
    let items: usize = record.items.iter().map(|item| item.len() + size_of::<Bytes>()).sum();
    // The id stands in the record, in the table and in the order.
    RECORD_OVERHEAD_BYTES + 3 * record.id.len() + record.response.len() + items
}
