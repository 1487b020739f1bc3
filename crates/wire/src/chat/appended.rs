//! A text that is added to the instructions of a conversation: at the end of its leading system message, since a template may take one
//! alone. Knows not whose text it is.

use super::render::instructions;
use crate::json;
use crate::responses::Fields;
use bytes::Bytes;
use serde_json::value::RawValue;

/// Between the instructions and what is added.
const JOINT: &str = "\\n\\n";

/// Puts `raw`, a raw string, at the end of the leading system or developer message of `messages`, fragments that lie comma by comma; where none
/// leads, it is a system message in front. What follows is not copied. A conversation without messages stays without.
pub fn append_instructions(messages: &mut Vec<Bytes>, raw: &str) {
    let Some(fragment) = messages.first() else { return };
    let Some((message, rest)) = grown(fragment, raw) else {
        messages.insert(0, Bytes::from(instructions(raw)));
        return;
    };
    messages.splice(..1, [Bytes::from(message)].into_iter().chain(rest));
}

/// The first of these messages with the text at its end, and the others. None: it gives no instructions.
fn grown(messages: &Bytes, raw: &str) -> Option<(Vec<u8>, Option<Bytes>)> {
    let end = json::value_end(messages, 0)?;
    let first = json::raw_value(std::str::from_utf8(messages.get(..end)?).ok()?).ok()?;
    let fields = Fields::nested("", first).ok()?;
    if !matches!(fields.raw("role")?.get(), "\"system\"" | "\"developer\"") {
        return None;
    }
    let content = grown_content(fields.raw("content")?, raw)?;
    let mut out = Vec::with_capacity(end + raw.len() + JOINT.len() + 32);
    // Of two fields of one name the last one counts.
    let others = fields.iter().filter(|(name, _)| *name != "content");
    for (name, value) in others.map(|(name, value)| (name, value.get())).chain([("content", &*content)]) {
        out.push(if out.is_empty() { b'{' } else { b',' });
        json::push_string(&mut out, name);
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'}');
    let comma = json::skip_space(messages, end);
    let behind = json::skip_space(messages, comma + 1);
    Some((out, (behind < messages.len()).then(|| messages.slice(behind..))))
}

/// A string that is longer, or an array with one part more.
fn grown_content(content: &RawValue, raw: &str) -> Option<String> {
    if let Some(text) = json::raw_string(content) {
        return Some(["\"", text, if text.is_empty() { "" } else { JOINT }, raw, "\""].concat());
    }
    let parts = content.get().strip_prefix('[')?.strip_suffix(']')?.trim();
    // A template may put nothing between parts.
    let comma = if parts.is_empty() { ["", ""] } else { [",", JOINT] };
    Some(["[", parts, comma[0], "{\"type\":\"text\",\"text\":\"", comma[1], raw, "\"}]"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(fragments: &[&str]) -> Vec<String> {
        let mut messages: Vec<Bytes> = fragments.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
        append_instructions(&mut messages, "be \\\"quick\\\"");
        messages.iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    }

    #[test]
    fn it_stands_at_the_end_of_the_one_system_message() {
        let user = r#"{"role":"user","content":"hi"}"#;
        let grown = r#"{"role":"system","content":"a\n\nbe \"quick\""}"#;
        assert_eq!(appended(&[r#"{"role":"system","content":"a"}"#, user]), [grown, user]);
        // As a client wrote it, in one fragment with what follows.
        let raw = format!("{{ \"content\" : \"a\", \"role\": \"developer\", \"name\":\"n\" }} , {user},{user}");
        let developer = r#"{"role":"developer","name":"n","content":"a\n\nbe \"quick\""}"#;
        assert_eq!(appended(&[&raw, user]), [developer.to_owned(), format!("{user},{user}"), user.to_owned()]);
        let empty = r#"{"role":"system","content":"be \"quick\""}"#;
        assert_eq!(appended(&[r#"{"role":"system","content":""}"#]), [empty]);
    }

    #[test]
    fn parts_become_one_more() {
        let parts = r#"{"role":"system","content":[{"type":"text","text":"a"}]}"#;
        let grown =
            r#"{"role":"system","content":[{"type":"text","text":"a"},{"type":"text","text":"\n\nbe \"quick\""}]}"#;
        assert_eq!(appended(&[parts]), [grown]);
        let first = r#"{"role":"system","content":[{"type":"text","text":"be \"quick\""}]}"#;
        assert_eq!(appended(&[r#"{"role":"system","content":[ ]}"#]), [first]);
    }

    #[test]
    fn where_nothing_leads_it_is_a_message_of_its_own() {
        let own = r#"{"role":"system","content":"be \"quick\""}"#;
        for first in [
            r#"{"role":"user","content":"hi"},{"role":"system","content":"late"}"#,
            r#"{"role":"system","content":null}"#,
            r#"{"role":"system"}"#,
        ] {
            assert_eq!(appended(&[first]), [own, first]);
        }
        assert!(appended(&[]).is_empty());
    }
}
