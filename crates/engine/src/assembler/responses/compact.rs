//! A response whose context is compacted: the summary that is made in the place of an answer, the item that its client gets, and the
//! object of `POST /v1/responses/compact`. PROTOCOL clause 12.

use super::ResponsesAssembler;
use crate::assembler::frame::push_usage;
use crate::assembler::item::{event, push_index, push_place};
use crate::outgoing::Outgoing;
use bytes::Bytes;
use flashlane_wire::chat::Usage;
use flashlane_wire::json;

impl ResponsesAssembler {
    /// What comes from here on is the context's summary.
    pub fn begin_summary(&mut self) {
        self.summary = Some(Vec::new());
        self.usage = None;
        self.finish = None;
    }

    /// The summary as the model wrote it, raw. An answer may follow; `estimated` is what it cost, where the engine told nothing.
    pub fn take_summary(&mut self, estimated: Usage) -> Vec<u8> {
        self.spent = self.spent.and(self.usage.take().unwrap_or(estimated));
        self.finish = None;
        self.summary.take().unwrap_or_default()
    }

    /// There will be no summary, and an answer all the same; `estimated` as in [`Self::take_summary`].
    pub fn drop_summary(&mut self, estimated: Usage) {
        self.spent = self.spent.and(self.usage.take().unwrap_or(estimated));
        self.summary = None;
        self.finish = None;
    }

    /// The summary is all that was asked for: nothing more is spent.
    pub fn end_at_summary(&mut self) {
        self.usage = Some(Usage::default());
    }

    /// Gives the client the sealed summary: the item with its events, as part of the output.
    pub fn push_compaction(&mut self, sealed: &str, out: &mut Outgoing) -> Bytes {
        let index = self.next_index();
        let id = self.hex.item_id("cmp", index);
        let item = |content: &str| {
            let mut json = b"{\"id\":".to_vec();
            json::push_string(&mut json, &id);
            json.extend_from_slice(b",\"type\":\"compaction\",\"encrypted_content\":");
            json::push_string(&mut json, content);
            json.push(b'}');
            Bytes::from(json)
        };
        let (begun, whole) = (item(""), item(sealed));
        for (name, item) in [
            ("response.output_item.added", Some(&begun)),
            ("response.compaction.compacting", None),
            ("response.output_item.done", Some(&whole)),
        ] {
            event(out, name, &mut self.sequence, |out| match item {
                Some(item) => {
                    push_index(out, index);
                    out.extend_from_slice(b",\"item\":");
                    out.extend_from_slice(item);
                }
                None => push_place(out, &id, index, false),
            });
        }
        self.output.push(whole.clone());
        whole
    }

    /// The answer of `POST /v1/responses/compact`: the user's messages, then the output, which is the compaction.
    #[must_use]
    pub fn object_compacted(&self, user_messages: &[Bytes]) -> Vec<u8> {
        let mut out = b"{\"id\":".to_vec();
        json::push_string(&mut out, &self.response_id());
        out.extend_from_slice(b",\"object\":\"response.compaction\",\"created_at\":");
        json::push_u64(&mut out, self.created_at);
        out.extend_from_slice(b",\"output\":[");
        for (index, item) in user_messages.iter().chain(&self.output).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(item);
        }
        out.extend_from_slice(b"],\"usage\":");
        push_usage(&mut out, self.usage_of_all().unwrap_or_default());
        out.push(b'}');
        out
    }

    /// A user's message as part of such an answer: with an id, a type and a status, and its content as parts.
    #[must_use]
    pub fn user_message(&self, (id, content): (Option<&str>, &str), index: u32) -> Bytes {
        let mut out = b"{\"id\":".to_vec();
        match id {
            Some(raw) => out.extend_from_slice(raw.as_bytes()),
            None => json::push_string(&mut out, &self.hex.item_id("msg", index)),
        }
        out.extend_from_slice(b",\"type\":\"message\",\"status\":\"completed\",\"role\":\"user\",\"content\":");
        if content.starts_with('"') {
            out.extend_from_slice(b"[{\"type\":\"input_text\",\"text\":");
            out.extend_from_slice(content.as_bytes());
            out.extend_from_slice(b"}]");
        } else {
            json::push_compact(&mut out, content);
        }
        out.push(b'}');
        Bytes::from(out)
    }
}
