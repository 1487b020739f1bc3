//! A custom tool's free text, unwrapped while it streams.
//!
//! The backend sees the tool as a function, so its input comes as the arguments `{"input":"..."}`, a JSON text that is
//! itself the content of a JSON string. One level is unescaped; what is left inside the inner quotes is a raw string again.

use crate::json;

/// The unwrapping machine.
///
/// ```text
/// Before --opening quote of the value--> Inside --closing quote--> After
///    \--anything but {"input":"--> Odd (kept whole until the end)
/// ```
#[derive(Debug)]
pub struct CustomInput {
    state: State,
}

#[derive(Debug)]
enum State {
    /// What came so far of `{"input":"`, without white space.
    Before {
        seen: String,
        whole: String,
    },
    /// The inside of the value; `held` is an escape sequence that is not whole yet.
    Inside {
        held: String,
    },
    After,
    /// Arguments of another shape: the model did not do as it was told.
    Odd {
        whole: String,
    },
}

const OPENING: &str = "{\"input\":\"";

impl Default for CustomInput {
    fn default() -> Self {
        Self { state: State::Before { seen: String::new(), whole: String::new() } }
    }
}

impl CustomInput {
    /// Takes a raw piece of the arguments; appends the raw input that it brings to `out`.
    pub fn push(&mut self, raw: &str, out: &mut Vec<u8>) {
        let mut text = String::with_capacity(raw.len());
        if !json::push_unescaped(&mut text, raw) {
            return;
        }
        for char in text.chars() {
            self.push_char(char, out);
        }
    }

    /// Whether nothing of the input can follow.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match &self.state {
            State::Before { .. } | State::Inside { .. } => false,
            State::After => true,
            State::Odd { whole } => serde_json::from_str::<serde::de::IgnoredAny>(whole).is_ok(),
        }
    }

    /// The arguments have ended; appends what was held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let whole = match &mut self.state {
            State::Odd { whole } | State::Before { whole, .. } => std::mem::take(whole),
            State::Inside { .. } | State::After => String::new(),
        };
        self.state = State::After;
        match serde_json::from_str::<serde_json::Value>(&whole) {
            Ok(serde_json::Value::Object(object)) => match object.get("input").or_else(|| object.values().next()) {
                Some(serde_json::Value::String(text)) => json::push_escaped(out, text),
                Some(_) | None => json::push_escaped(out, &whole),
            },
            Ok(serde_json::Value::String(text)) => json::push_escaped(out, &text),
            _ => json::push_escaped(out, &whole),
        }
    }

    fn push_char(&mut self, char: char, out: &mut Vec<u8>) {
        match &mut self.state {
            State::Before { seen, whole } => {
                whole.push(char);
                if !char.is_ascii_whitespace() {
                    seen.push(char);
                }
                if seen == OPENING {
                    self.state = State::Inside { held: String::new() };
                } else if !OPENING.starts_with(seen.as_str()) {
                    self.state = State::Odd { whole: std::mem::take(whole) };
                }
            }
            State::Inside { held } => {
                // A quote after the first of a surrogate pair ends the text as well: the pair stays half.
                if char == '"' && (held.is_empty() || held.len() >= 6) {
                    settle_half(held, out);
                    self.state = State::After;
                } else if held.is_empty() && char != '\\' {
                    push_char(out, char);
                } else {
                    held.push(char);
                    settle(held, out);
                }
            }
            State::After => {}
            State::Odd { whole } => whole.push(char),
        }
    }
}

/// Appends one character as a raw string: a model that forgets to escape a line break is forgiven.
fn push_char(out: &mut Vec<u8>, char: char) {
    json::push_escaped(out, char.encode_utf8(&mut [0; 4]));
}

/// Appends the half of a surrogate pair that nothing followed.
fn settle_half(held: &str, out: &mut Vec<u8>) {
    let mut text = String::new();
    if json::push_unescaped(&mut text, held) {
        json::push_escaped(out, &text);
    }
}

/// Appends and clears `held` once it is a whole escape sequence.
fn settle(held: &mut String, out: &mut Vec<u8>) {
    let bytes = held.as_bytes();
    let whole = match bytes {
        [b'\\'] => false,
        [b'\\', b'u', hex @ ..] if hex.len() < 4 => !hex.iter().all(u8::is_ascii_hexdigit),
        // The first of a surrogate pair waits for the second.
        [b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', _, _, rest @ ..] if rest.len() < 6 => {
            !b"\\u".starts_with(rest.get(..rest.len().min(2)).unwrap_or_default())
        }
        _ => true,
    };
    if !whole {
        return;
    }
    let mut text = String::new();
    if json::push_unescaped(&mut text, held) {
        json::push_escaped(out, &text);
    } else {
        // No escape of JSON's: the backslash was meant.
        json::push_escaped(out, held);
    }
    held.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The raw input that `arguments`, cut at `cut`, unwraps to.
    fn unwrap(arguments: &str, cut: usize) -> String {
        let mut unwrapping = CustomInput::default();
        let mut out = Vec::new();
        for piece in [arguments.get(..cut).unwrap(), arguments.get(cut..).unwrap()] {
            let mut raw = Vec::new();
            json::push_escaped(&mut raw, piece);
            unwrapping.push(std::str::from_utf8(&raw).unwrap(), &mut out);
        }
        unwrapping.finish(&mut out);
        let raw = String::from_utf8(out).unwrap();
        json::unescape(&raw).unwrap()
    }

    #[test]
    fn the_input_is_the_same_at_any_cut() {
        let text = "*** Begin Patch\n+\"a\\b\"\té😀\u{1}\n";
        let arguments = serde_json::json!({ "input": text }).to_string();
        let escaped = arguments.replace('é', "\\u00e9").replace('😀', "\\ud83d\\ude00");
        for arguments in [arguments, escaped.clone(), escaped.replace("{\"input\":", "{ \"input\" :\n ")] {
            for cut in (0..=arguments.len()).filter(|&at| arguments.is_char_boundary(at)) {
                assert_eq!(unwrap(&arguments, cut), text, "{arguments} at {cut}");
            }
        }
    }

    #[test]
    fn arguments_of_another_shape_come_whole() {
        assert_eq!(unwrap("{\"patch\":\"x\"}", 3), "x");
        assert_eq!(unwrap("\"x\"", 0), "x");
        assert_eq!(unwrap("plain", 2), "plain");
        assert_eq!(unwrap("{\"input\":3}", 2), "{\"input\":3}");
        assert_eq!(unwrap("", 0), "");
    }

    #[test]
    fn slips_of_the_model_are_forgiven() {
        assert_eq!(unwrap("{\"input\":\"a\nb\"}", 11), "a\nb");
        assert_eq!(unwrap("{\"input\":\"\\d \\u12x \\ud83d!\"}", 12), "\\d \\u12x \u{fffd}!");
        assert_eq!(unwrap("{\"input\":\"cut", 5), "cut");
        assert_eq!(unwrap("{\"input\":\"half \\ud83d\"}", 5), "half \u{fffd}");
    }
}
