//! What was counted: ends of turns by their kind, and faults with an example each. Knows nothing of turns.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

const KINDS_MAX: usize = 200;

/// What must not be.
#[derive(Debug)]
pub struct Fault {
    pub kind: &'static str,
    pub more: String,
}

impl Fault {
    pub fn new(kind: &'static str, more: impl Into<String>) -> Self {
        Self { kind, more: more.into() }
    }
}

pub struct Tally {
    began: Instant,
    counts: Mutex<Counts>,
}

#[derive(Default, Serialize)]
struct Counts {
    seconds: f64,
    turns: u64,
    ends: BTreeMap<String, u64>,
    faults: BTreeMap<&'static str, u64>,
    examples: BTreeMap<&'static str, String>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { began: Instant::now(), counts: Mutex::default() }
    }
}

impl Tally {
    /// A turn has ended, or whatever else somebody came for.
    pub fn ended(&self, how: &str) {
        let mut counts = self.counts();
        counts.turns += 1;
        if let Some(count) = counts.ends.get_mut(how) {
            *count += 1;
        } else if counts.ends.len() < KINDS_MAX {
            counts.ends.insert(how.to_owned(), 1);
        }
    }

    pub fn fault(&self, fault: Fault) {
        let Fault { kind, more } = fault;
        let mut counts = self.counts();
        *counts.faults.entry(kind).or_default() += 1;
        counts.examples.entry(kind).or_insert_with(|| more.chars().take(600).collect());
    }

    pub fn line(&self) -> String {
        let mut counts = self.counts();
        counts.seconds = self.began.elapsed().as_secs_f64();
        serde_json::to_string(&*counts).unwrap_or_default()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
