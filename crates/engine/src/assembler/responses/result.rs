//! The results of children, each an item of the response that they were made for. PROTOCOL clause 15.

use super::{ResponsesAssembler, Source};
use crate::assembler::item::ItemKind;
use crate::outgoing::Outgoing;
use bytes::Bytes;
use std::sync::Arc;

/// What became of a child.
#[derive(Debug)]
pub struct ChildResult {
    pub name: Arc<str>,
    /// What is told of it: a JSON object.
    pub child: Bytes,
    /// What it has said: raw.
    pub text: String,
    /// It has said all of it.
    pub is_whole: bool,
}

impl ResponsesAssembler {
    /// The next item is a message of what a child has said.
    pub fn push_result(&mut self, result: ChildResult, out: &mut Outgoing) {
        let ChildResult { name, child, text, is_whole } = result;
        self.open(ItemKind::Result { name, child }, Source::Content, out);
        if let Some(open) = &mut self.open {
            open.item.delta(text.as_bytes(), &mut self.sequence, out);
        }
        self.close_open(if is_whole { "completed" } else { "incomplete" }, out);
    }
}
