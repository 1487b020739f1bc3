//! What a turn answers: the words of a user, or what tools gave. Read backwards from the end of its messages, as far as the model's last answer.
//! Knows no rule.

use memchr::{memchr, memmem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What stands last in a turn's messages, of what a model answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Follows {
    /// A user's message: there is something to plan.
    User,
    /// The output of a tool: the next step of what was planned.
    Tool,
}

/// The step that a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// None: nobody has said anything.
    pub follows: Option<Follows>,
    /// Bytes of the messages behind the model's last answer.
    pub bytes_new: usize,
}

impl Step {
    /// Reads the insides of `messages` arrays, the last of the conversation first. Quotes inside of texts are escaped, so that a field's name is one.
    #[must_use]
    pub fn of<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut step = Self::default();
        for messages in pieces {
            let mut begin = messages.len();
            while let Some(at) = memmem::rfind(messages.get(..begin).unwrap_or_default(), ROLE) {
                let follows = match role(messages, at + ROLE.len()) {
                    Some(b"assistant") => {
                        step.bytes_new += messages.len() - begin;
                        return step;
                    }
                    Some(b"user") => Some(Follows::User),
                    Some(b"tool") => Some(Follows::Tool),
                    Some(_) | None => None,
                };
                step.follows = step.follows.or(follows);
                begin = at;
            }
            step.bytes_new += messages.len();
        }
        step
    }
}

const ROLE: &[u8] = b"\"role\"";

/// The string that a field whose name ends at `at` holds.
fn role(messages: &[u8], at: usize) -> Option<&[u8]> {
    let value = messages.get(at..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    value.get(..memchr(b'"', value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[&str]) -> (Option<Follows>, usize) {
        let step = Step::of(pieces.iter().rev().map(|piece| piece.as_bytes()));
        (step.follows, step.bytes_new)
    }

    const SYSTEM: &str = r#"{"role":"system","content":"s"}"#;
    const USER: &str = r#"{"role":"user","content":"the \"role\": \"tool\" of it"}"#;
    const CALL: &str = r#"{"role":"assistant","tool_calls":[{"function":{"arguments":"{\"role\":\"user\"}"}}]}"#;
    const OUTPUT: &str = r#"{"role":"tool","tool_call_id":"c","content":"role"}"#;

    #[test]
    fn what_stands_last_decides_and_what_is_new_lies_behind_the_last_answer() {
        let user = Some(Follows::User);
        assert_eq!(of(&[]), (None, 0));
        assert_eq!(of(&[SYSTEM]), (None, SYSTEM.len()));
        assert_eq!(of(&[SYSTEM, USER]), (user, SYSTEM.len() + USER.len()));
        let (follows, bytes) = of(&[&format!("{USER},{CALL},{OUTPUT}")]);
        assert_eq!(follows, Some(Follows::Tool));
        assert!(bytes.abs_diff(OUTPUT.len()) <= 2, "{bytes}");
        // However the messages come in pieces.
        assert_eq!(of(&[USER, CALL, OUTPUT]), (Some(Follows::Tool), OUTPUT.len()));
        // Who speaks while tools run is answered.
        assert_eq!(of(&[USER, CALL, OUTPUT, USER]), (user, OUTPUT.len() + USER.len()));
        // What the client's own software says is not what is answered.
        assert_eq!(of(&[USER, CALL, OUTPUT, SYSTEM]).0, Some(Follows::Tool));
        assert_eq!(of(&[USER, CALL]), (None, 0));
    }

    #[test]
    fn a_field_is_found_as_any_client_writes_it() {
        assert_eq!(of(&["{\"content\": \"x\",\n  \"role\" :\t\"user\" }"]).0, Some(Follows::User));
        assert_eq!(of(&[r#"{"role":"user","name":"role","content":"role"}"#]).0, Some(Follows::User));
        assert_eq!(of(&[r#"{"role":"#]).0, None);
        assert_eq!(of(&[r#"{"role":"us"#]).0, None);
    }
}
