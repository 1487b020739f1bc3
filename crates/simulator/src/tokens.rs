//! What the simulator calls a token. Knows nothing of any model's vocabulary: both counts are estimates, stable and cheap.
//!
//! - **Completion**: a token is at most one leading space with up to 7 letters, or with up to 3 digits; or a run of up to 8
//!   blanks; or a line break; or one other character. The pieces join to the text. A tool call costs one token for its name.
//! - **Prompt**: for each message 4 tokens and a fourth of the bytes of its `content` and `tool_calls` as they stand in the
//!   JSON body; a fourth of the bytes of each tool's definition; 3 tokens for the answer's opening. Rounded up each.

const LETTERS_PER_TOKEN_MAX: usize = 7;
const DIGITS_PER_TOKEN_MAX: usize = 3;
const BLANKS_PER_TOKEN_MAX: usize = 8;
const BYTES_PER_PROMPT_TOKEN: u64 = 4;
pub(crate) const PROMPT_TOKENS_PER_MESSAGE: u64 = 4;
pub(crate) const PROMPT_TOKENS_PER_ANSWER: u64 = 3;

/// The tokens of a text, in order; joined they are the text.
pub(crate) fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (token, tail) = rest.split_at_checked(first_len(rest)?)?;
        rest = tail;
        Some(token)
    })
}

/// The longest start of `text` with at most `tokens_max` tokens, and how many tokens it has.
pub(crate) fn prefix(text: &str, tokens_max: u64) -> (&str, u64) {
    let (mut bytes, mut count) = (0, 0);
    for token in split(text) {
        if count == tokens_max {
            break;
        }
        bytes += token.len();
        count += 1;
    }
    (text.get(..bytes).unwrap_or(text), count)
}

/// The prompt's share of `bytes` bytes of JSON.
pub(crate) fn of_prompt_bytes(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(BYTES_PER_PROMPT_TOKEN)
}

/// Length in bytes of the text's first token; `None` at the end of the text.
fn first_len(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    let lead = usize::from(first == ' ');
    let word = text.get(lead..).unwrap_or_default();
    let second = word.chars().next().unwrap_or(' ');
    if second.is_alphabetic() {
        return Some(lead + run_len(word, LETTERS_PER_TOKEN_MAX, char::is_alphabetic));
    }
    if second.is_ascii_digit() {
        return Some(lead + run_len(word, DIGITS_PER_TOKEN_MAX, |c| c.is_ascii_digit()));
    }
    if first == ' ' {
        return Some(run_len(text, BLANKS_PER_TOKEN_MAX, |c| c == ' '));
    }
    Some(first.len_utf8())
}

fn run_len(text: &str, chars_max: usize, belongs: impl Fn(char) -> bool) -> usize {
    text.chars().take(chars_max).take_while(|&c| belongs(c)).map(char::len_utf8).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_join_to_the_text() {
        for text in ["", " ", "a", "Hello, wonderful world!\n\n    let x = 12345;\n", "größer 日本語 🙂🙂\t  end  "]
        {
            assert_eq!(split(text).collect::<String>(), text);
            assert!(split(text).all(|token| !token.is_empty()));
        }
        assert_eq!(split("one two 1234\n").collect::<Vec<_>>(), ["one", " two", " 123", "4", "\n"]);
    }

    #[test]
    fn a_prefix_stops_at_its_count() {
        assert_eq!(prefix("one two three", 2), ("one two", 2));
        assert_eq!(prefix("one two", 9), ("one two", 2));
        assert_eq!(prefix("one", 0), ("", 0));
    }
}
