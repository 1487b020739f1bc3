//! Finds where a JSON value ends, and checks on the way that it is one: the one pass that a value from outside needs. No tree
//! is built, and the insides of strings are read eight bytes at a time.
//!
//! It takes nothing that `serde_json` refuses. The other way round it gives up on values nested deeper than [`DEPTH_MAX`]:
//! who must tell what is wrong asks `serde_json`.

/// One bit for each level that is open.
const DEPTH_MAX: u32 = 128;

/// The end of the value that begins at `at`; none if there is none, or one that is nested too deep. Bytes are taken to be UTF-8.
#[must_use]
pub fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    // A set bit is an object, a clear one an array; the lowest is the innermost.
    let (mut levels, mut depth) = (0u128, 0u32);
    let mut at = at;
    loop {
        at = match *bytes.get(at)? {
            b'"' => string_end(bytes, at + 1)?,
            opening @ (b'{' | b'[') => {
                let is_object = opening == b'{';
                let inside = skip_space(bytes, at + 1);
                if *bytes.get(inside)? != if is_object { b'}' } else { b']' } {
                    depth = (depth < DEPTH_MAX).then_some(depth + 1)?;
                    levels = levels << 1 | u128::from(is_object);
                    at = if is_object { name_end(bytes, inside)? } else { inside };
                    continue;
                }
                inside + 1
            }
            b't' => literal_end(bytes, at, b"true")?,
            b'f' => literal_end(bytes, at, b"false")?,
            b'n' => literal_end(bytes, at, b"null")?,
            _ => number_end(bytes, at)?,
        };
        // Behind a value: the ends of what is open, then the next value.
        loop {
            if depth == 0 {
                return Some(at);
            }
            let is_object = levels & 1 == 1;
            at = skip_space(bytes, at);
            match *bytes.get(at)? {
                b',' => break,
                b'}' if is_object => at += 1,
                b']' if !is_object => at += 1,
                _ => return None,
            }
            (levels, depth) = (levels >> 1, depth - 1);
        }
        at = skip_space(bytes, at + 1);
        if levels & 1 == 1 {
            at = name_end(bytes, at)?;
        }
    }
}

/// The first byte from `at` on that is no white space.
#[must_use]
pub fn skip_space(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Where the value begins whose member's name begins at `at`.
fn name_end(bytes: &[u8], at: usize) -> Option<usize> {
    if *bytes.get(at)? != b'"' {
        return None;
    }
    let colon = skip_space(bytes, string_end(bytes, at + 1)?);
    (*bytes.get(colon)? == b':').then(|| skip_space(bytes, colon + 1))
}

/// Behind the closing quote of the string whose inside begins at `at`.
#[must_use]
pub fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    loop {
        at = special(bytes, at)?;
        match *bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at = escape_end(bytes, at + 1)?,
            _ => return None,
        }
    }
}

/// The first quote, backslash or control character from `at` on.
pub(super) fn special(bytes: &[u8], at: usize) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let mut rest = bytes.get(at..)?;
    while let Some((eight, after)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let (quote, backslash) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5c));
        // The high bit of each byte that is zero, or below 0x20. A borrow may mark bytes above such a one, never below it.
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let found = found & HIGHS;
        if found != 0 {
            return Some(bytes.len() - rest.len() + (found.trailing_zeros() / 8) as usize);
        }
        rest = after;
    }
    let in_rest = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    Some(bytes.len() - rest.len() + in_rest)
}

/// Behind the escape sequence whose backslash stands before `at`.
fn escape_end(bytes: &[u8], at: usize) -> Option<usize> {
    match *bytes.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => bytes.get(at + 1..at + 5)?.iter().all(u8::is_ascii_hexdigit).then_some(at + 5),
        _ => None,
    }
}

fn literal_end(bytes: &[u8], at: usize, literal: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(literal).then(|| at + literal.len())
}

fn number_end(bytes: &[u8], at: usize) -> Option<usize> {
    let at = if bytes.get(at) == Some(&b'-') { at + 1 } else { at };
    let mut end = match bytes.get(at)? {
        b'0' => at + 1,
        b'1'..=b'9' => digits_end(bytes, at)?,
        _ => return None,
    };
    if bytes.get(end) == Some(&b'.') {
        end = digits_end(bytes, end + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let signed = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
        end = digits_end(bytes, end + 1 + usize::from(signed))?;
    }
    Some(end)
}

/// Behind at least one digit.
fn digits_end(bytes: &[u8], at: usize) -> Option<usize> {
    let count = bytes.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (count > 0).then_some(at + count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    const SAMPLES: [&str; 38] = [
        "{}",
        "[]",
        "[ ]",
        "{ }",
        "null",
        "true",
        "false",
        "tru",
        "nul",
        "0",
        "-0.5e+10",
        "12.",
        "1e",
        "-",
        "01",
        "1.5E-3",
        "\"\"",
        "\"a\\n\\u00e9\\\"\\\\b\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"a\tb\"",
        "\"longer than eight bytes, with \\\\ and \\\" in it\"",
        "\"open",
        "[1,2 , {\"a\" : [true,null]} ]",
        "[1,]",
        "[,1]",
        "{\"a\":1,}",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1,\"b\":{\"c\":[[],{}]},\"d\":\"e\"}",
        "[1}",
        "{\"a\":1]",
        "[[[[1]]]",
        "{\"a\\u0041\":\"\u{e9}\u{1f600}\u{7f}\"}",
        "\u{feff}{}",
        "",
    ];

    fn check(text: &str) {
        let bytes = text.as_bytes();
        let end = value_end(bytes, skip_space(bytes, 0));
        let ours = end.is_some_and(|end| skip_space(bytes, end) == bytes.len());
        assert_eq!(ours, serde_json::from_str::<&RawValue>(text).is_ok(), "{text:?}");
    }

    #[test]
    fn a_value_is_one_that_serde_takes() {
        SAMPLES.iter().for_each(|text| check(text));
    }

    #[test]
    fn a_damaged_value_is_taken_if_and_only_if_serde_takes_it() {
        let mut state = 7u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        const PUT: &[u8] = b"\"\\{}[],:0a-. \n\tu\x01\x1f e";
        for _ in 0..40_000 {
            let mut text = SAMPLES[draw(SAMPLES.len())].to_owned();
            text.push_str(SAMPLES[draw(SAMPLES.len())]);
            let mut bytes = text.into_bytes();
            for _ in 0..=draw(3) {
                let at = draw(bytes.len() + 1);
                match draw(3) {
                    0 => bytes.insert(at, PUT[draw(PUT.len())]),
                    1 => bytes.truncate(at),
                    _ => drop(bytes.drain(at..(at + draw(3)).min(bytes.len()))),
                }
            }
            if let Ok(text) = std::str::from_utf8(&bytes) {
                check(text);
            }
        }
    }

    #[test]
    fn what_follows_a_value_is_left_alone() {
        assert_eq!(value_end(b"x[1, 2] ,{", 1), Some(7));
        assert_eq!(value_end(b"\"a\"\"b\"", 0), Some(3));
        assert_eq!(string_end(b"abc\\\"def\" tail", 0), Some(9));
    }

    #[test]
    fn every_byte_at_every_place_of_a_string_is_seen() {
        for byte in 0..=0x7f_u8 {
            for at in 0..19 {
                let mut text = vec![b'a'; 20];
                text[at] = byte;
                let expected = matches!(byte, b'"' | b'\\' | 0..0x20).then_some(at);
                assert_eq!(special(&text, 0), expected, "{byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(value_end(nested(129).as_bytes(), 0), Some(258));
        assert_eq!(value_end(nested(130).as_bytes(), 0), None);
    }

    #[test]
    fn an_escape_may_lie_anywhere_in_a_long_string() {
        for before in 0..40 {
            for escape in ["\\\\", "\\\"", "\\n", "\\u00e9", "\\\\\\\\\\\""] {
                for after in [0, 1, 20] {
                    check(&format!("\"{}{escape}{}\"", "a".repeat(before), "b".repeat(after)));
                    check(&format!("\"{}{escape}{}", "a".repeat(before), "b".repeat(after)));
                    check(&format!("[\"{}{escape}{}\\x\"]", "a".repeat(before), "b".repeat(after)));
                }
            }
        }
    }
}
