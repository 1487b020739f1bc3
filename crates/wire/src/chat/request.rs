//! The Chat Completions request that goes upstream, as pieces that are written one after the other.

use crate::json;
use bytes::Bytes;
use std::borrow::Cow;

/// One top-level field of a request: its name and its raw JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: Cow<'static, str>,
    pub value: Bytes,
}

impl Field {
    #[must_use]
    pub fn new(name: &'static str, value: impl Into<Bytes>) -> Self {
        Self { name: Cow::Borrowed(name), value: value.into() }
    }

    /// A field whose value is a JSON string.
    #[must_use]
    pub fn string(name: &'static str, text: &str) -> Self {
        let mut value = Vec::with_capacity(text.len() + 2);
        json::push_string(&mut value, text);
        Self::new(name, value)
    }
}

/// The body of a streaming request, in pieces that lie end to end: a head, the messages as they are, and a tail.
///
/// `messages` are the inside of the array; none is empty. Nothing of them is copied.
#[must_use]
pub fn body(model: &str, fields: &[Field], messages: &[Bytes]) -> Vec<Bytes> {
    streaming(model, b",\"stream\":true,\"stream_options\":{\"include_usage\":true}", fields, (b"messages", messages))
}

/// The same of any API: `fixed` are the fields that every request has, and the array is what it is asked with.
pub(crate) fn streaming(model: &str, fixed: &[u8], fields: &[Field], (name, members): (&[u8], &[Bytes])) -> Vec<Bytes> {
    let mut head = Vec::with_capacity(256 + fields.iter().map(|f| f.name.len() + f.value.len() + 4).sum::<usize>());
    head.extend_from_slice(b"{\"model\":");
    json::push_string(&mut head, model);
    head.extend_from_slice(fixed);
    for field in fields {
        head.push(b',');
        json::push_string(&mut head, &field.name);
        head.push(b':');
        head.extend_from_slice(&field.value);
    }
    head.extend_from_slice(b",\"");
    head.extend_from_slice(name);
    head.extend_from_slice(b"\":[");
    let mut pieces = Vec::with_capacity(members.len() * 2 + 2);
    pieces.push(Bytes::from(head));
    for (index, member) in members.iter().enumerate() {
        if index > 0 {
            pieces.push(Bytes::from_static(b","));
        }
        pieces.push(member.clone());
    }
    pieces.push(Bytes::from_static(b"]}"));
    pieces
}
