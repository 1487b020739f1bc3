//! Who holds what: an item, and a run of items, is counted once, however many records and conversations hold it.
//!
//! Whoever goes on from a response shares the runs before its own items, so that a record is counted by its runs, of which it has a
//! few; only the items of a run that is new are looked at. Knows no record.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;

use crate::Items;

/// What it costs to know who holds an item.
const HELD_OVERHEAD_BYTES: usize = 48;

/// Where an item is, and its length.
type Lies = (usize, usize);

/// A run is where it is as long as somebody holds it.
struct Run {
    holders: u32,
    bytes: usize,
}

#[derive(Default)]
pub(super) struct Held {
    items: HashMap<Lies, u32>,
    runs: HashMap<usize, Run>,
}

impl Held {
    /// One more holds each of these items. The bytes of those that nobody held before.
    pub(super) fn hold(&mut self, items: &[Bytes]) -> usize {
        let mut bytes = 0;
        for item in items.iter().filter(|item| !item.is_empty()) {
            let holders = self.items.entry(lies(item)).or_default();
            if *holders == 0 {
                bytes += content_size(item);
            }
            *holders += 1;
        }
        bytes
    }

    /// One fewer does. The bytes of those that nobody holds any more.
    pub(super) fn let_go(&mut self, items: &[Bytes]) -> usize {
        let mut bytes = 0;
        for item in items.iter().filter(|item| !item.is_empty()) {
            let Entry::Occupied(mut holders) = self.items.entry(lies(item)) else { continue };
            *holders.get_mut() -= 1;
            if *holders.get() == 0 {
                holders.remove();
                bytes += content_size(item);
            }
        }
        bytes
    }

    /// One more holds all of these runs. The bytes that are held now and were not.
    pub(super) fn hold_runs(&mut self, items: &Items) -> usize {
        let mut bytes = 0;
        for run in items.runs() {
            if let Some(known) = self.runs.get_mut(&place(run)) {
                known.holders += 1;
                continue;
            }
            self.runs.insert(place(run), Run { holders: 1, bytes: items_size(run) });
            bytes += self.hold(run) + size_of_val(run.as_slice());
        }
        bytes
    }

    /// One fewer does. The bytes that are free now.
    pub(super) fn let_go_runs(&mut self, items: &Items) -> usize {
        let mut bytes = 0;
        for run in items.runs() {
            let Entry::Occupied(mut known) = self.runs.entry(place(run)) else { continue };
            known.get_mut().holders -= 1;
            if known.get().holders == 0 {
                known.remove();
                bytes += self.let_go(run) + size_of_val(run.as_slice());
            }
        }
        bytes
    }

    /// What these runs would come to if nobody shared them.
    pub(super) fn runs_size(&self, items: &Items) -> usize {
        let size = |run| self.runs.get(&place(run)).map_or_else(|| items_size(run), |known| known.bytes);
        items.runs().iter().map(size).sum()
    }
}

fn place(run: &Arc<Vec<Bytes>>) -> usize {
    Arc::as_ptr(run).addr()
}

pub(super) fn lies(item: &Bytes) -> Lies {
    (item.as_ptr().addr(), item.len())
}

fn content_size(item: &Bytes) -> usize {
    if item.is_empty() { 0 } else { item.len() + HELD_OVERHEAD_BYTES }
}

/// What may be shared.
pub(super) fn contents_size(items: &[Bytes]) -> usize {
    items.iter().map(content_size).sum()
}

/// Of items that nobody shares.
pub(super) fn items_size(items: &[Bytes]) -> usize {
    contents_size(items) + size_of_val(items)
}
