//! The texts within rendered messages: what of their JSON a model reads. Knows the keys of chat messages and nothing of
//! their meaning.

use flashlane_wire::json;
use memchr::{memchr, memchr2};

/// One thing of rendered messages that comes to tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The inside of a string that the model reads, still escaped.
    Text(&'a str),
    /// A message or a call begins: the tokens that a template puts around it.
    Frame,
}

/// Keys whose strings a model reads. The others are ids, types, and what is no text (images, files).
const READ: [&str; 6] = ["content", "text", "name", "arguments", "refusal", "reasoning_content"];
/// Each message has a role, each call its arguments.
const FRAMES: [&str; 2] = ["role", "arguments"];

/// Hands out the pieces of rendered messages, in order, until `take` answers false. What is no JSON ends early.
pub fn pieces(messages: &str, mut take: impl FnMut(Piece<'_>) -> bool) {
    let mut rest = messages;
    let mut is_read = false;
    while let Some((inside, after)) = next_string(rest) {
        rest = after;
        if is_key(after) {
            is_read = READ.contains(&inside);
            if FRAMES.contains(&inside) && !take(Piece::Frame) {
                return;
            }
        } else if is_read && !inside.is_empty() && !take(Piece::Text(inside)) {
            return;
        }
    }
}

/// The text that a piece stands for, in `buffer` where it has to be unescaped.
pub fn unescaped<'a>(raw: &'a str, buffer: &'a mut String) -> &'a str {
    if memchr(b'\\', raw.as_bytes()).is_none() {
        return raw;
    }
    buffer.clear();
    if json::push_unescaped(buffer, raw) { buffer } else { raw }
}

/// The inside of the next string, and what follows it.
fn next_string(text: &str) -> Option<(&str, &str)> {
    let text = text.get(memchr(b'"', text.as_bytes())? + 1..)?;
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', text.as_bytes().get(at..)?)?;
        if text.as_bytes().get(at) == Some(&b'"') {
            return Some((text.get(..at)?, text.get(at + 1..)?));
        }
        // The backslash, and what it escapes.
        at += 2;
    }
}

fn is_key(after: &str) -> bool {
    after.trim_ascii_start().starts_with(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(messages: &str) -> (Vec<String>, usize) {
        let (mut found, mut frames) = (Vec::new(), 0);
        pieces(messages, |piece| {
            match piece {
                Piece::Text(raw) => found.push(unescaped(raw, &mut String::new()).to_owned()),
                Piece::Frame => frames += 1,
            }
            true
        });
        (found, frames)
    }

    #[test]
    fn what_a_model_reads_is_found_and_nothing_else() {
        let messages = concat!(
            r#"{"role":"user","content":"say \"hi\"\n"},"#,
            r#"{"role":"user","content":[{"type":"text","text":"look"},"#,
            r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}},"#,
            r#"{"type":"file","file":{"file_data":"AAAA","filename":"a.pdf"}}]},"#,
            r#"{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},"#,
            r#"{"role":"tool","tool_call_id":"call_1","content":"\u00e9\\"} , { "role" : "user", "content" : "content" }"#
        );
        let (found, frames) = texts(messages);
        assert_eq!(found, ["say \"hi\"\n", "look", "f", "{\"a\":1}", "é\\", "content"]);
        assert_eq!(frames, 6);
    }

    #[test]
    fn what_is_no_json_ends_without_a_panic() {
        for messages in
            ["", "\"", "\"\\", "{\"content\":\"\\", "{\"content\":\"a", "\"content\"", "é\"é\\\"é", "\"\\é\":\"x\""]
        {
            texts(messages);
        }
    }

    #[test]
    fn the_taker_may_stop() {
        let mut seen = 0;
        pieces(r#"{"role":"user","content":"a"},{"role":"user","content":"b"}"#, |_| {
            seen += 1;
            seen < 2
        });
        assert_eq!(seen, 2);
    }
}
