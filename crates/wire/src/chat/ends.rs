//! What rendered messages have to do with those before and after them: the outputs at their front, whose calls came earlier, and the calls
//! at their end, whose outputs are still to come. By it pieces that were rendered apart are known to fit end to end, and are not read again.

use std::collections::BTreeSet;

/// What an engine is told of a call that nobody answered, such as an interrupted turn leaves: a raw string.
pub const UNANSWERED: &str = "No output: the turn was interrupted before this call was answered.";

/// Both ends of rendered messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ends {
    /// What the outputs at the very front answer: no message of these calls it.
    pub answers: Vec<OpenCall>,
    /// Calls of the last message that calls, which are not answered.
    pub open: Vec<OpenCall>,
    /// The ids of all calls, as written; for whoever keeps them.
    pub called: Vec<Box<str>>,
    /// There are messages behind the outputs at the front.
    pub has_more: bool,
}

/// A call that waits for its output. No two of one history are the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenCall {
    /// As its client and its model know it, raw.
    pub id: Box<str>,
    /// As it stands in the messages: another where an earlier call had the same.
    pub written: Box<str>,
}

impl Ends {
    /// The ends of these messages and of `next`, which fits them.
    #[must_use]
    pub fn and(&self, next: &Self) -> Self {
        let mut both = self.clone();
        if !self.has_more {
            both.answers.extend(next.answers.iter().cloned());
        }
        both.has_more |= next.has_more;
        both.open = next.after(&self.open);
        both
    }

    /// Which calls wait behind these messages, where `open` waited before them.
    #[must_use]
    pub fn after(&self, open: &[OpenCall]) -> Vec<OpenCall> {
        if self.has_more { self.open.clone() } else { self.left(open).into_iter().cloned().collect() }
    }

    /// Whether the messages can follow such calls as they are: what is at their front answers some of them, and the others too, unless
    /// that is all.
    #[must_use]
    pub fn follow(&self, open: &[OpenCall]) -> bool {
        let left = self.left(open).len();
        left + self.answers.len() == open.len() && (left == 0 || !self.has_more)
    }

    /// What nothing at the front answers.
    fn left<'a>(&self, open: &'a [OpenCall]) -> Vec<&'a OpenCall> {
        let answered: BTreeSet<&OpenCall> = self.answers.iter().collect();
        open.iter().filter(|call| !answered.contains(call)).collect()
    }
}

/// The messages that answer calls behind which nothing else comes.
#[must_use]
pub fn unanswered(open: &[OpenCall]) -> Vec<u8> {
    let mut out = Vec::new();
    for call in open {
        if !out.is_empty() {
            out.push(b',');
        }
        push_unanswered(&mut out, &call.written);
    }
    out
}

pub(super) fn push_unanswered(out: &mut Vec<u8>, id: &str) {
    push_answer_head(out, id);
    out.push(b'"');
    out.extend_from_slice(UNANSWERED.as_bytes());
    out.extend_from_slice(b"\"}");
}

/// The beginning of the message that answers a call, up to its content.
pub(super) fn push_answer_head(out: &mut Vec<u8>, id: &str) {
    for part in ["{\"role\":\"tool\",\"tool_call_id\":\"", id, "\",\"content\":"] {
        out.extend_from_slice(part.as_bytes());
    }
}
