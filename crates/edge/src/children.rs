//! Children of responses: which run, which have ended and how, and what waits for them. PROTOCOL clause 14.
//!
//! Each runs as a background response does ([`crate::background`]); one whose parent is not to be stored is kept in a store of its own,
//! in memory. Here is what joins a parent's chain, within a bound of bytes and of age since its end: beyond it a child is forgotten, the
//! oldest of the key that has the most first, and joins as one that has failed.
//! One short lock, taken by turns that have to do with children, and by no other.

mod list;
mod table;

use crate::config::LimitsConfig;
use flashlane_engine::{Fate, Now, Record, Standing};
use flashlane_store::{Limits, MemoryStore, OwnerId, Store};
use flashlane_telemetry::Metrics;
use flashlane_telemetry::label::{ChildEnd, ChildKind};
use serde::Deserialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use table::Table;

pub(crate) use list::children;
pub(crate) use table::{Born, Known, Place};

/// Records that the store in memory may hold.
const RECORDS_MAX: usize = 10_000;
/// The most of a child's result that joins its parent, in bytes: beyond what any model says at once.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(crate) struct Children {
    /// Nobody has had any: no lock is taken.
    is_untouched: AtomicBool,
    table: Mutex<Table>,
    /// Keeps those whose parents are not stored.
    memory: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl Children {
    pub(crate) fn new(limits: &LimitsConfig, metrics: Arc<Metrics>) -> Self {
        let LimitsConfig { children_bytes_max: bytes_max, children_ms_max: age_ms_max, .. } = *limits;
        Self {
            is_untouched: AtomicBool::new(true),
            table: Mutex::new(Table::new(bytes_max, age_ms_max)),
            memory: Arc::new(MemoryStore::new(Limits { bytes_max, records_max: RECORDS_MAX, age_ms_max })),
            metrics,
        }
    }

    /// A child is to run: whether it may, beside the others of its owner.
    pub(crate) fn begin(&self, owner: OwnerId, born: Born, children_max: usize, now: Now) -> bool {
        self.is_untouched.store(false, Ordering::Release);
        let begun = self.table().begin(owner, born, children_max, now.unix_ms);
        match begun {
            true => self.metrics.child_began(ChildKind::Delegate),
            false => self.metrics.child_refused(ChildKind::Delegate),
        }
        begun
    }

    /// It is kept, in the store or in memory alone.
    pub(crate) fn kept(&self, owner: OwnerId, id: &str, is_stored: bool) {
        self.table().kept(owner, id, is_stored);
    }

    /// It has ended, so and with this text. Who has ended before has ended.
    pub(crate) fn end(&self, owner: OwnerId, id: &str, (fate, text): (Fate, &str), now: Now) {
        let end = match &fate {
            Fate::Completed => ChildEnd::Completed,
            Fate::Incomplete(_) => ChildEnd::Incomplete,
            Fate::Failed(_) => ChildEnd::Failed,
            Fate::Cancelled => ChildEnd::Cancelled,
        };
        let text = text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default();
        if self.table().end(owner, id, (fate, text), now.unix_ms) {
            self.metrics.child_ended(ChildKind::Delegate, end);
        }
    }

    /// The same, as its response object has it.
    pub(crate) fn end_as(&self, owner: OwnerId, id: &str, response: &[u8], now: Now) {
        if self.known(owner, id).is_some() {
            let (fate, text) = result_of(response);
            self.end(owner, id, (fate, &text), now);
        }
    }

    /// Which of these have ended.
    pub(crate) fn standing(&self, owner: OwnerId, ids: &[Arc<str>]) -> Standing {
        self.table().standing(owner, ids)
    }

    /// These wait for whatever goes on from the response or conversation of that id.
    pub(crate) fn bequeath(&self, owner: OwnerId, id: &str, children: &[Arc<str>], now: Now) {
        if !self.is_untouched.load(Ordering::Acquire) {
            self.table().bequeath(owner, id, children, now.unix_ms);
        }
    }

    /// Likewise for whatever is made in the conversation next; those that the turn has settled have nothing to wait for any more.
    pub(crate) fn bequeath_to_all(&self, owner: OwnerId, conversation: &str, record: &Record, now: Now) {
        if !self.is_untouched.load(Ordering::Acquire) {
            let of_turn = (&*record.children, &*record.settled);
            self.table().bequeath_to_all(owner, conversation, of_turn, now.unix_ms);
        }
    }

    pub(crate) fn heirs(&self, owner: OwnerId, id: &str) -> Vec<Arc<str>> {
        match self.is_untouched.load(Ordering::Acquire) {
            true => Vec::new(),
            false => self.table().heirs(owner, id),
        }
    }

    pub(crate) fn known(&self, owner: OwnerId, id: &str) -> Option<Known> {
        match self.is_untouched.load(Ordering::Acquire) {
            true => None,
            false => self.table().known(owner, id),
        }
    }

    /// Those that a response asked for, in that order.
    pub(crate) fn of(&self, owner: OwnerId, parent: &str) -> Vec<Known> {
        self.table().of(owner, parent)
    }

    /// It joins nobody any more. Whether it was there.
    pub(crate) fn forget(&self, owner: OwnerId, id: &str, now: Now) -> bool {
        !self.is_untouched.load(Ordering::Acquire) && self.table().dismiss(owner, id, now.unix_ms)
    }

    /// Where those are kept that are in memory alone.
    pub(crate) fn memory(&self) -> &Arc<dyn Store> {
        &self.memory
    }

    /// No step between two consistent states can panic.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a response has ended, and the text of its messages.
fn result_of(response: &[u8]) -> (Fate, String) {
    #[derive(Deserialize)]
    struct Response {
        status: String,
        #[serde(default)]
        error: Option<Message>,
        #[serde(default)]
        incomplete_details: Option<Details>,
        #[serde(default)]
        output: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    #[derive(Deserialize)]
    struct Details {
        reason: String,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(rename = "type")]
        kind: String,
        content: Option<Vec<Part>>,
    }
    #[derive(Deserialize)]
    struct Part {
        #[serde(alias = "refusal")]
        text: Option<String>,
    }
    let Ok(response) = serde_json::from_slice::<Response>(response) else {
        return (Fate::Failed("its result cannot be read.".into()), String::new());
    };
    let fate = match (response.status.as_str(), response.error, response.incomplete_details) {
        ("completed", ..) => Fate::Completed,
        ("cancelled", ..) => Fate::Cancelled,
        ("incomplete", _, Some(details)) => Fate::Incomplete(details.reason.into()),
        (_, Some(error), _) => Fate::Failed(error.message.into()),
        (status, None, _) => Fate::Failed(status.into()),
    };
    let messages = response.output.into_iter().filter(|item| item.kind == "message");
    let text = messages.flat_map(|item| item.content).flatten().filter_map(|part| part.text).collect();
    (fate, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_result_is_the_text_of_the_messages_and_how_it_ended() {
        let message = |text: &str| json!({"type": "message", "content": [{"type": "output_text", "text": text}]});
        let of = |status: &str, more: serde_json::Value| {
            let mut object = json!({"status": status, "error": null, "incomplete_details": null,
                "output": [{"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                    {"type": "reasoning", "summary": [], "content": null}, {"type": "message", "content": null},
                    {"type": "message", "content": [{"type": "output_text", "text": null}]},
                    message("a\n"), message("b")]});
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            result_of(object.to_string().as_bytes())
        };
        assert_eq!(of("completed", json!({})), (Fate::Completed, "a\nb".to_owned()));
        assert_eq!(of("cancelled", json!({})).0, Fate::Cancelled);
        let cut = of("incomplete", json!({"incomplete_details": {"reason": "max_output_tokens"}}));
        assert_eq!(cut.0, Fate::Incomplete("max_output_tokens".into()));
        let failed = of("failed", json!({"error": {"code": "server_error", "message": "it broke"}}));
        assert_eq!(failed.0, Fate::Failed("it broke".into()));
        assert!(matches!(result_of(b"?").0, Fate::Failed(_)));
    }
}
