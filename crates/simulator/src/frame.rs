//! The bytes around what a chunk says, laid out once a stream. Knows nothing of time or of what is said.

use serde_json::Value;

use crate::SYSTEM_FINGERPRINT;

/// What one chunk says; its text is escaped JSON already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The text is the inside of `delta`.
    Delta,
    Reasoning,
    Content,
    /// A piece of the only call's arguments.
    Arguments,
    /// The text is whole events.
    Events,
}

/// What all chunks of one answer share.
pub(crate) struct Frame {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(id: &str, unix_s: u64, model: &str, include_usage: bool) -> Frame {
        let fields = opening(id, "chat.completion.chunk", unix_s, model);
        let usage = if include_usage { ",\"usage\":null" } else { "" };
        Frame {
            head: format!("data: {fields},\"choices\":[{{\"index\":0,\"delta\":{{").into_bytes(),
            tail: format!("}},\"logprobs\":null,\"finish_reason\":null}}]{usage}}}\n\n").into_bytes(),
        }
    }

    // hot: per token
    pub(crate) fn write(&self, shape: Shape, escaped: &[u8], out: &mut Vec<u8>) {
        let (open, close): (&[u8], &[u8]) = match shape {
            Shape::Delta => (b"", b""),
            Shape::Reasoning => (b"\"reasoning_content\":\"", b"\""),
            Shape::Content => (b"\"content\":\"", b"\""),
            Shape::Arguments => (b"\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"", b"\"}}]"),
            Shape::Events => return out.extend_from_slice(escaped),
        };
        for piece in [&self.head, open, escaped, close, &self.tail] {
            out.extend_from_slice(piece);
        }
    }
}

/// The first fields of an answer's JSON object, its last brace left open.
fn opening(id: &str, object: &str, unix_s: u64, model: &str) -> String {
    let model = Value::from(model);
    format!(
        "{{\"id\":\"{id}\",\"object\":\"{object}\",\"created\":{unix_s},\"model\":{model},\
         \"system_fingerprint\":\"{SYSTEM_FINGERPRINT}\""
    )
}

/// The events after the last token: the reason, the usage where it was asked for, the end mark.
pub(crate) fn last_events(id: &str, unix_s: u64, model: &str, finish: &str, usage: Option<&Value>) -> String {
    let fields = opening(id, "chat.completion.chunk", unix_s, model);
    let (none, with_usage) = match usage {
        Some(usage) => (",\"usage\":null", format!("data: {fields},\"choices\":[],\"usage\":{usage}}}\n\n")),
        None => ("", String::new()),
    };
    let choice = format!("{{\"index\":0,\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"{finish}\"}}");
    format!("data: {fields},\"choices\":[{choice}]{none}}}\n\n{with_usage}data: [DONE]\n\n")
}

/// The inside of the `delta` that opens the only tool call.
pub(crate) fn call_opening(id: &str, name: &str) -> String {
    let function = format!("{{\"name\":{},\"arguments\":\"\"}}", Value::from(name));
    format!("\"tool_calls\":[{{\"index\":0,\"id\":\"{id}\",\"type\":\"function\",\"function\":{function}}}]")
}

/// The whole answer to a request that does not stream.
pub(crate) fn completion(id: &str, unix_s: u64, model: &str, choice: &Value, usage: &Value) -> String {
    let fields = opening(id, "chat.completion", unix_s, model);
    format!("{fields},\"choices\":[{choice}],\"usage\":{usage}}}")
}

/// Appends `text` as the inside of a JSON string.
pub(crate) fn escape(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\0'..='\x1f' => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_reads_back() {
        let text = "a \"quote\" \\ \n\r\t \u{1} \u{7f} ü 日本 🙂";
        let mut out = vec![b'"'];
        escape(text, &mut out);
        out.push(b'"');
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
