//! Looks on at one endpoint: keeps the last request's body as it went out, and the head of its answer. Knows no meaning of either.

use bytes::Bytes;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Somebody who wants to know what passes; nobody does while turns run.
#[derive(Debug, Default)]
pub(crate) struct Witness(Mutex<Seen>);

/// The last exchange.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Before any coding.
    pub(crate) sent: Vec<u8>,
    pub(crate) is_packed: bool,
    pub(crate) head: Option<Head>,
}

/// An answer's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn new<'a>(status: u16, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status, fields: fields.map(|(name, value)| (text(name), text(value))).collect() }
    }

    /// The first field of that name, which is given in lower case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

impl Witness {
    pub(crate) fn sent(&self, pieces: &[Bytes], is_packed: bool) {
        *self.seen() = Seen { sent: pieces.concat(), is_packed, head: None };
    }

    pub(crate) fn answered(&self, head: Head) {
        self.seen().head = Some(head);
    }

    /// What was seen since this was asked last.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
