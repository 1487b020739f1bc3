//! JSON at the byte level: strings escaped into a buffer, raw strings checked and cut without being unescaped.
//!
//! A *raw string* is the inside of a JSON string, still escaped, without its quotes. Raw strings that lie end to end are one
//! raw string, so text streams through flashlane without being unescaped and escaped again.

mod borrowed;
mod scan;

pub use borrowed::raw_value;
pub use scan::{skip_space, string_end, value_end};

use serde_json::value::RawValue;

/// Appends `text` as a JSON string, quotes included.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// Appends `text` as a JSON string, or `null`.
pub fn push_optional_string(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => push_string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends `text` escaped as the inside of a JSON string.
pub fn push_escaped(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text.as_bytes();
    while let Some(at) = scan::special(rest, 0) {
        let (plain, from) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, after)) = from.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                for nibble in [control >> 4, control & 15] {
                    out.extend(HEX.get(usize::from(nibble)));
                }
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
}

/// Appends a decimal number.
pub fn push_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The inside of a raw value that is a JSON string; `None` for any other value.
#[must_use]
pub fn raw_string(value: &RawValue) -> Option<&str> {
    value.get().strip_prefix('"')?.strip_suffix('"')
}

/// Appends the text that a raw string stands for. Lone surrogates become U+FFFD. `false` if the escapes are not JSON's.
#[must_use]
pub fn push_unescaped(out: &mut String, raw: &str) -> bool {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        let (plain, from) = rest.split_at(at);
        out.push_str(plain);
        let Some((text, after)) = unescape_one(from) else { return false };
        out.push(text);
        rest = after;
    }
    out.push_str(rest);
    true
}

/// Cuts one escape sequence from the front of `raw`, which begins with a backslash.
fn unescape_one(raw: &str) -> Option<(char, &str)> {
    let letter = *raw.as_bytes().get(1)?;
    let simple = match letter {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unescape_unicode(raw),
        _ => return None,
    };
    Some((simple, raw.get(2..)?))
}

fn unescape_unicode(raw: &str) -> Option<(char, &str)> {
    let high = hex4(raw.get(2..6)?)?;
    let after = raw.get(6..)?;
    if (0xd800..0xdc00).contains(&high)
        && let Some(low) = after.strip_prefix("\\u").and_then(|rest| rest.get(..4)).and_then(hex4)
        && (0xdc00..0xe000).contains(&low)
    {
        let scalar = 0x1_0000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(low) - 0xdc00);
        return Some((char::from_u32(scalar)?, after.get(6..)?));
    }
    Some((char::from_u32(u32::from(high)).unwrap_or('\u{fffd}'), after))
}

fn hex4(digits: &str) -> Option<u16> {
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u16::from_str_radix(digits, 16).ok()
}

/// The text of a raw string.
#[must_use]
pub fn unescape(raw: &str) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    push_unescaped(&mut out, raw).then_some(out)
}

/// Whether `raw` can stand between quotes as it is: UTF-8, no bare quote or control character, only JSON's escapes, and no
/// surrogate escape (a pair may be cut, so those take the slow way).
///
/// hot: per token
#[must_use]
pub fn is_plain_raw_string(raw: &[u8]) -> bool {
    let mut rest = raw;
    let mut ascii = true;
    while let [byte, after @ ..] = rest {
        rest = match byte {
            b'"' | 0..0x20 => return false,
            b'\\' => match skip_escape(after) {
                Some(after) => after,
                None => return false,
            },
            byte => {
                ascii &= byte.is_ascii();
                after
            }
        };
    }
    ascii || std::str::from_utf8(raw).is_ok()
}

/// What follows an escape sequence whose backslash was read; `None` if it is none, or a surrogate's.
fn skip_escape(after: &[u8]) -> Option<&[u8]> {
    match after {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => Some(rest),
        [b'u', first, second, third, fourth, rest @ ..] => {
            // `\\ud0xx`-`\\ud7xx` are characters; from `\\ud8xx` on they are surrogates.
            let surrogate = matches!(first, b'd' | b'D') && !matches!(second, b'0'..=b'7');
            let hex = [first, second, third, fourth].into_iter().all(u8::is_ascii_hexdigit);
            (hex && !surrogate).then_some(rest)
        }
        _ => None,
    }
}

/// Appends a raw JSON value on one line: without the white space around its tokens, if it has line breaks there.
///
/// An event stream ends a line at a line break, and inside of strings there is none.
pub fn push_compact(out: &mut Vec<u8>, raw: &str) {
    if memchr::memchr2(b'\n', b'\r', raw.as_bytes()).is_none() {
        out.extend_from_slice(raw.as_bytes());
        return;
    }
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {}
            b'"' => {
                out.push(byte);
                push_string_rest(out, &mut bytes);
            }
            byte => out.push(byte),
        }
    }
}

/// Appends the rest of a string, its closing quote included.
fn push_string_rest(out: &mut Vec<u8>, bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        out.push(byte);
        match byte {
            b'"' => return,
            b'\\' => out.extend(bytes.next()),
            _ => {}
        }
    }
}

/// Appends a raw string from outside; see [`push_raw_mended`]. Most have nothing to mend and are copied.
pub fn push_raw_text(out: &mut Vec<u8>, raw: &str) {
    match memchr::memmem::find(raw.as_bytes(), b"\\u") {
        None => out.extend_from_slice(raw.as_bytes()),
        Some(_) => push_raw_mended(out, raw),
    }
}

/// Appends `raw`, replacing every surrogate escape that has no partner by U+FFFD's escape, so that what goes out is text to
/// every client.
pub fn push_raw_mended(out: &mut Vec<u8>, raw: &str) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        let (plain, from) = rest.split_at(at);
        out.extend_from_slice(plain.as_bytes());
        let Some((char, after)) = unescape_one(from) else {
            out.extend_from_slice(from.as_bytes());
            return;
        };
        let sequence = from.len() - after.len();
        if char == '\u{fffd}' {
            out.extend_from_slice(b"\\ufffd");
        } else {
            out.extend(from.as_bytes().iter().take(sequence));
        }
        rest = after;
    }
    out.extend_from_slice(rest.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_unescapes_to_the_same() {
        let every: String = (0u32..0x3000).chain(0x1_f600..0x1_f650).filter_map(char::from_u32).collect();
        let mut out = Vec::new();
        push_string(&mut out, &every);
        let raw: Box<RawValue> = serde_json::from_slice(&out).unwrap();
        assert_eq!(unescape(raw_string(&raw).unwrap()).unwrap(), every);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), every);
    }

    #[test]
    fn a_plain_raw_string_is_one_that_serde_takes_between_quotes() {
        let samples = [
            "",
            "a",
            "ä",
            "a\\nb",
            "\\\"",
            "\\u00e9",
            "\\ud7ff",
            "\\uD800",
            "\\ud83d\\ude00",
            "\"",
            "\\",
            "\\x",
            "\\u12",
            "\\u12g4",
            "a\nb",
            "\\u0000",
            "\\/",
        ];
        for raw in samples {
            let quoted = format!("\"{raw}\"");
            let valid = serde_json::from_str::<String>(&quoted).is_ok();
            let surrogate = raw.to_ascii_lowercase().contains("\\ud8");
            assert_eq!(is_plain_raw_string(raw.as_bytes()), valid && !surrogate, "{raw:?}");
        }
        assert!(!is_plain_raw_string(b"\xff"));
        assert!(!is_plain_raw_string(b"\xc3"));
    }

    #[test]
    fn a_value_on_many_lines_is_the_same_value_on_one() {
        let value = serde_json::json!({"a b": [1, "x\n \"y\" \\", {"c": null}], "d": " \t "});
        let pretty = serde_json::to_string_pretty(&value).unwrap().replace('\n', "\r\n");
        let mut out = Vec::new();
        push_compact(&mut out, &pretty);
        assert_eq!(out, value.to_string().as_bytes());
        out.clear();
        push_compact(&mut out, "{ \"a\": 1 }");
        assert_eq!(out, b"{ \"a\": 1 }", "one line stays as it is");
    }

    #[test]
    fn lone_surrogates_are_mended_and_pairs_are_kept() {
        let mut out = Vec::new();
        push_raw_mended(&mut out, "a\\ud83d\\ude00b\\ud83dc\\ude00\\n");
        assert_eq!(out, b"a\\ud83d\\ude00b\\ufffdc\\ufffd\\n");
    }
}
