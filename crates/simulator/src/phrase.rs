//! Finds words, quotations and file names in a sentence. Knows nothing of what a sentence asks for.
//!
//! Offsets are bytes. `lower` is always the ASCII-lowercased copy of a text, whose offsets are the text's own.

use std::ops::Range;

/// Where `word` (lower case) first stands in `lower` as a word of its own, or as several words.
pub(crate) fn find_word(lower: &str, word: &str) -> Option<Range<usize>> {
    let found = |(at, _): (usize, &str)| {
        let end = at + word.len();
        let before = lower.get(..at)?.chars().next_back();
        let after = lower.get(end..)?.chars().next();
        (!before.is_some_and(is_word) && !after.is_some_and(is_word)).then_some(at..end)
    };
    lower.match_indices(word).find_map(found)
}

/// The earliest of `words`; of two at one place, the one that is first in the list.
pub(crate) fn find_first(lower: &str, words: &[&str]) -> Option<Range<usize>> {
    words.iter().filter_map(|word| find_word(lower, word)).min_by_key(|range| range.start)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A blank-separated piece of a text without its quotes and its punctuation.
pub(crate) struct Word<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: Range<usize>,
}

/// The words of a text, in order.
pub(crate) fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    text.split_whitespace().map(move |piece| {
        let word = piece.trim_start_matches(['"', '\'', '`', '(', '“', '‘']);
        let start = piece.as_ptr().addr() - text.as_ptr().addr() + (piece.len() - word.len());
        let word = word.trim_end_matches(['"', '\'', '`', ')', '”', '’', ',', ';', ':', '!', '?', '.']);
        Word { text: word, at: start..start + word.len() }
    })
}

/// Looks like the name of a file: it has an extension, and is no address.
pub(crate) fn is_file_name(word: &str) -> bool {
    let Some((stem, extension)) = word.rsplit_once('.') else { return false };
    let letters_first = extension.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = extension.len() <= 8 && extension.chars().all(|c| c.is_ascii_alphanumeric());
    letters_first && plain && !stem.is_empty() && !word.contains("://") && !word.contains('@')
}

/// What a text quotes, if it begins with a quotation, or else the text itself without its blanks; and what follows.
pub(crate) fn unquoted(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    if let Some(fenced) = text.strip_prefix("```") {
        let code = fenced.split_once('\n').map_or(fenced, |(_, code)| code);
        return code.split_once("\n```").unwrap_or((code.trim_end_matches('`'), ""));
    }
    for (open, close) in [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’')] {
        if let Some((inside, rest)) = text.strip_prefix(open).and_then(|rest| rest.split_once(close)) {
            return (inside, rest);
        }
    }
    (text.trim_end(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_only_as_a_word() {
        assert_eq!(find_word("a discount to count", "count"), Some(14..19));
        assert_eq!(find_word("account", "count"), None);
        assert_eq!(find_first("write it with text", &["with text", "with", "it"]), Some(6..8));
        assert_eq!(find_first("with text", &["with text", "with"]), Some(0..9));
    }

    #[test]
    fn words_lose_their_quotes_and_punctuation() {
        let text = "see `a.txt`, (b.md).";
        assert_eq!(words(text).map(|word| word.text).collect::<Vec<_>>(), ["see", "a.txt", "b.md"]);
        assert!(words(text).all(|word| &text[word.at] == word.text));
    }

    #[test]
    fn file_names_have_an_extension() {
        for name in ["hello.txt", "src/main.rs", "./a.b.json", "/tmp/x.py"] {
            assert!(is_file_name(name), "{name}");
        }
        for name in ["hello", "1.5", "https://a.example", "and/or", "me@a.example", ".txt"] {
            assert!(!is_file_name(name), "{name}");
        }
    }

    #[test]
    fn a_quotation_ends_at_its_own_mark() {
        assert_eq!(unquoted(" \"it's\" now"), ("it's", " now"));
        assert_eq!(unquoted("  plain text \n"), ("plain text", ""));
        assert_eq!(unquoted("```rust\nfn main() {}\n```\nthanks"), ("fn main() {}", "\nthanks"));
    }
}
