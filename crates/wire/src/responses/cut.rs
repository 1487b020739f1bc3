//! An item that its upstream did not finish: as it was announced, with what its deltas brought. Knows nothing of what becomes of it.

use super::fields::Fields;
use super::server_event::{Delta, DeltaOf, ServerEvent};
use crate::json;
use serde_json::value::RawValue;

/// What the deltas of one item have brought so far.
#[derive(Debug, Default)]
pub struct Streamed {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    of: DeltaOf,
    part: u64,
    /// A raw string.
    text: String,
}

impl Streamed {
    /// hot: per token
    pub fn take(&mut self, event: &ServerEvent<'_>) {
        let Some(Delta { of, part, text }) = event.delta() else { return };
        match self.pieces.last_mut().filter(|last| (last.of, last.part) == (of, part)) {
            Some(last) => last.text.push_str(text),
            None => self.pieces.push(Piece { of, part, text: text.to_owned() }),
        }
    }

    /// Appends the item that was announced as `raw`, under `id`, as far as it came: its status is `incomplete`.
    pub fn push_cut(mut self, out: &mut Vec<u8>, raw: &RawValue, id: &str) {
        self.pieces.sort_by_key(|piece| (field_of(piece.of), piece.part, piece.of));
        let came = |name: &str| self.pieces.iter().any(|piece| field_of(piece.of) == name);
        out.extend_from_slice(b"{\"id\":");
        json::push_string(out, id);
        if let Ok(fields) = Fields::nested("item", raw) {
            for (name, value) in fields.iter().filter(|(name, _)| !matches!(*name, "id" | "status") && !came(name)) {
                out.push(b',');
                json::push_string(out, name);
                out.push(b':');
                json::push_compact(out, value.get());
            }
        }
        for of_field in self.pieces.chunk_by(|a, b| field_of(a.of) == field_of(b.of)) {
            push_field(out, of_field);
        }
        out.extend_from_slice(b",\"status\":\"incomplete\"}");
    }
}

/// Appends a field that holds these pieces: a text, or parts.
fn push_field(out: &mut Vec<u8>, pieces: &[Piece]) {
    let Some(first) = pieces.first() else { return };
    out.push(b',');
    json::push_string(out, field_of(first.of));
    out.push(b':');
    let Some(_) = part_of(first.of) else { return push_text(out, pieces) };
    out.push(b'[');
    for (index, pieces) in pieces.chunk_by(|a, b| (a.of, a.part) == (b.of, b.part)).enumerate() {
        let Some((kind, name)) = pieces.first().and_then(|piece| part_of(piece.of)) else { continue };
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"type\":");
        json::push_string(out, kind);
        if kind == "output_text" {
            out.extend_from_slice(b",\"annotations\":[],\"logprobs\":[]");
        }
        out.push(b',');
        json::push_string(out, name);
        out.push(b':');
        push_text(out, pieces);
        out.push(b'}');
    }
    out.push(b']');
}

/// Of several pieces only the whole is sure to be a string: a character may be cut in two escapes.
fn push_text(out: &mut Vec<u8>, pieces: &[Piece]) {
    let whole: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
    out.push(b'"');
    json::push_raw_mended(out, &whole);
    out.push(b'"');
}

/// The field of the item that it belongs to.
fn field_of(of: DeltaOf) -> &'static str {
    match of {
        DeltaOf::Text | DeltaOf::Refusal | DeltaOf::Reasoning => "content",
        DeltaOf::Summary => "summary",
        DeltaOf::Arguments => "arguments",
        DeltaOf::Input => "input",
    }
}

/// The part that it is in, by its type and the name of its text.
fn part_of(of: DeltaOf) -> Option<(&'static str, &'static str)> {
    match of {
        DeltaOf::Text => Some(("output_text", "text")),
        DeltaOf::Refusal => Some(("refusal", "refusal")),
        DeltaOf::Reasoning => Some(("reasoning_text", "text")),
        DeltaOf::Summary => Some(("summary_text", "text")),
        DeltaOf::Arguments | DeltaOf::Input => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(item: &str, deltas: &[&str]) -> String {
        let mut streamed = Streamed::default();
        deltas.iter().for_each(|delta| streamed.take(&ServerEvent::parse(delta.as_bytes()).unwrap()));
        let mut out = Vec::new();
        streamed.push_cut(&mut out, serde_json::from_str(item).unwrap(), "ours");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_item_that_was_cut_is_what_came_of_it() {
        let message = r#"{"id":"m","type":"message","status":"in_progress","role":"assistant","content":[]}"#;
        let expected = r#"{"id":"ours","type":"message","role":"assistant","content":[],"status":"incomplete"}"#;
        assert_eq!(cut(message, &[]), expected);
        let deltas = [
            r#"{"type":"response.output_text.delta","content_index":1,"delta":"c"}"#,
            r#"{"type":"response.output_text.delta","content_index":0,"delta":"a\ud83d"}"#,
            r#"{"type":"response.output_text.delta","content_index":0,"delta":"\ude00\"b"}"#,
            r#"{"type":"response.new.delta","delta":"nobody knows"}"#,
        ];
        let value: serde_json::Value = serde_json::from_str(&cut(message, &deltas)).unwrap();
        assert_eq!(
            (&value["content"][0]["text"], &value["content"][1]["text"]),
            (&"a\u{1f600}\"b".into(), &"c".into())
        );
        let call = r#"{"id":"f","type":"function_call","call_id":"c","name":"n","arguments":""}"#;
        let deltas = [r#"{"type":"response.function_call_arguments.delta","delta":"{\"a"}"#];
        let expected =
            r#"{"id":"ours","type":"function_call","call_id":"c","name":"n","arguments":"{\"a","status":"incomplete"}"#;
        assert_eq!(cut(call, &deltas), expected);
        let reasoning = r#"{"id":"rs","type":"reasoning","summary":[]}"#;
        let deltas = [
            r#"{"type":"response.reasoning_summary_text.delta","summary_index":0,"delta":"s"}"#,
            r#"{"type":"response.reasoning_text.delta","content_index":0,"delta":"t"}"#,
        ];
        let expected = r#"{"id":"ours","type":"reasoning","content":[{"type":"reasoning_text","text":"t"}],"summary":[{"type":"summary_text","text":"s"}],"status":"incomplete"}"#;
        assert_eq!(cut(reasoning, &deltas), expected);
    }
}
