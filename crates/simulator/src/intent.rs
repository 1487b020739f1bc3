//! What the user's newest message asks for, read from its words. Knows nothing of tools, formats or how it is answered.

use std::ops::Range;

use crate::phrase::{self, Word, find_first, find_word, unquoted};

const GREETING_WORDS_MAX: usize = 5;
const DEFAULT_PATH: &str = "flashlane-simulator.txt";
const DEFAULT_CONTENT: &str = "This file was written by the flashlane simulator.";
const DEFAULT_LINE: &str = "This line was added by the flashlane simulator.";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    Greet,
    /// Both ends belong to it; it counts down where `from` is the greater.
    Count {
        from: i64,
        to: i64,
    },
    Repeat(String),
    /// "what is my KEY": `value` is what was said of it before, if anything was.
    Recall {
        key: String,
        value: Option<String>,
    },
    Change(FileChange),
    Anything,
}

/// What is to become of one file. Contents have no line break at their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileChange {
    Write { path: String, content: String },
    Append { path: String, line: String },
    Replace { path: String, old: String, new: String },
}

/// The intent of the newest of the user's texts (the newest first).
pub(crate) fn read(mut texts: impl Iterator<Item = String>) -> Intent {
    let text = texts.next().unwrap_or_default();
    let lower = text.to_ascii_lowercase();
    repetition(&text, &lower)
        .or_else(|| file_change(&text).map(Intent::Change))
        .or_else(|| count(&lower))
        .or_else(|| recall(&text, &lower, texts))
        .or_else(|| greeting(&lower))
        .unwrap_or(Intent::Anything)
}

fn greeting(lower: &str) -> Option<Intent> {
    let words: Vec<&str> = phrase::words(lower).map(|word| word.text).collect();
    let greets = matches!(words.first(), Some(&("hi" | "hello" | "hey" | "hallo" | "greetings" | "moin" | "good")));
    let is_day =
        *words.first()? != "good" || matches!(words.get(1), Some(&("morning" | "day" | "evening" | "afternoon")));
    (greets && is_day && words.len() <= GREETING_WORDS_MAX).then_some(Intent::Greet)
}

/// "count from 3 to 9", "count up to 20", "please count 1 to 5".
fn count(lower: &str) -> Option<Intent> {
    let verb = find_first(lower, &["count", "counting"])?;
    let mut numbers = Vec::new();
    for word in phrase::words(lower.get(verb.end..)?) {
        match word.text.parse::<i64>() {
            Ok(number) => numbers.push(number),
            Err(_) if is_filler_of_count(word.text) => {}
            Err(_) => break,
        }
        if numbers.len() == 2 {
            break;
        }
    }
    match *numbers.as_slice() {
        [to] => Some(Intent::Count { from: 1, to }),
        [from, to] => Some(Intent::Count { from, to }),
        _ => None,
    }
}

fn is_filler_of_count(word: &str) -> bool {
    let fillers = "from to up down until till out loud aloud slowly quickly for me please the numbers number through and all way between";
    fillers.split(' ').any(|filler| filler == word)
}

/// "say exactly: X", "repeat: X".
fn repetition(text: &str, lower: &str) -> Option<Intent> {
    const MARKERS: [&str; 11] = [
        "repeat after me:",
        "repeat exactly:",
        "repeat:",
        "echo:",
        "say exactly:",
        "say exactly",
        "say:",
        "reply exactly:",
        "reply with exactly:",
        "answer exactly:",
        "answer with exactly:",
    ];
    let at = |marker: &&str| lower.find(marker).map(|at| (at, at + marker.len()));
    let (_, end) = MARKERS.iter().filter_map(at).min_by_key(|&(at, end)| (at, std::cmp::Reverse(end)))?;
    Some(Intent::Repeat(text.get(end..)?.trim().to_owned()))
}

/// "what is my name", answered from "my name is Ada" in an earlier text.
fn recall(text: &str, lower: &str, mut earlier: impl Iterator<Item = String>) -> Option<Intent> {
    let question = find_first(lower, &["what is", "what's", "what was", "tell me", "remember"])?;
    let rest = lower.get(question.end..)?;
    let owner = find_first(rest, &["my", "the"])?;
    let mine = rest.get(owner.clone())? == "my";
    let key_at = question.end + owner.end;
    let key = text.get(key_at..)?.split(['?', '.', '!', ',', '\n', ';']).next()?.trim();
    if key.is_empty() || find_word(&key.to_ascii_lowercase(), "is").is_some() {
        return None;
    }
    let value = earlier.find_map(|text| told(&text, key));
    (mine || value.is_some()).then(|| Intent::Recall { key: key.to_owned(), value })
}

/// What a text says that `key` is.
fn told(text: &str, key: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let key = find_first(&lower, &[&format!("{} is", key.to_ascii_lowercase())])?;
    let rest = text.get(key.end..)?.trim_start_matches(':').trim_start();
    let (value, after) = unquoted(rest);
    if !after.is_empty() {
        return Some(value.to_owned());
    }
    let value = value.split([',', '!', '?', '\n', ';']).next()?.split(" and ").next()?.split(". ").next()?;
    let value = value.trim().trim_end_matches('.');
    (!value.is_empty()).then(|| value.to_owned())
}

fn file_change(text: &str) -> Option<FileChange> {
    let text = without_means(text);
    let lower = text.to_ascii_lowercase();
    replacement(&text, &lower).or_else(|| appending(&text, &lower)).or_else(|| writing(&text, &lower)).or_else(|| {
        let _verb = find_first(&lower, &["edit", "patch", "change", "update", "modify"])?;
        let path = phrase::words(&text).find(|word| phrase::is_file_name(word.text))?.text.to_owned();
        Some(FileChange::Append { path, line: DEFAULT_LINE.to_owned() })
    })
}

/// The text without the words that say with which tool the work is to be done.
fn without_means(text: &str) -> String {
    let mut text = text.to_owned();
    for tool in ["apply_patch", "exec_command", "the shell", "a shell command", "bash"] {
        for (before, after) in
            [("with the ", " tool"), ("using the ", " tool"), ("with ", ""), ("using ", ""), ("use ", " to")]
        {
            let means = format!("{before}{tool}{after}");
            while let Some(at) = find_word(&text.to_ascii_lowercase(), &means) {
                text.replace_range(at, "");
            }
        }
    }
    text
}

/// "replace A with B in X", "in X, change A to B".
fn replacement(text: &str, lower: &str) -> Option<FileChange> {
    let verb = find_first(lower, &["replace", "change", "substitute"])?;
    let (old, new) = operand(text, lower, verb.end, &["with", "by", "to", "into"])?;
    let (new, new_end) = match find_last_in(lower, new) {
        Some(cut) if !starts_with_quote(text.get(new..)?) => (text.get(new..cut)?.trim(), cut),
        _ => {
            let rest = text.get(new..)?;
            let (quoted, after) = unquoted(rest);
            let new = if starts_with_quote(rest) { quoted } else { quoted.strip_suffix('.').unwrap_or(quoted) };
            (new, text.len() - after.len())
        }
    };
    let file =
        |word: &Word<'_>| phrase::is_file_name(word.text) && (word.at.end <= verb.start || word.at.start >= new_end);
    let path = phrase::words(text).filter(file).last()?.text;
    (!old.is_empty()).then(|| FileChange::Replace { path: path.to_owned(), old: old.to_owned(), new: new.to_owned() })
}

/// The operand after `start`, and where the next one begins: after the first of `links`.
fn operand<'a>(text: &'a str, lower: &str, start: usize, links: &[&str]) -> Option<(&'a str, usize)> {
    const NOUNS: [&str; 6] = ["the line", "the word", "the text", "the string", "line", "word"];
    let rest_lower = lower.get(start..)?;
    let noun =
        NOUNS.iter().find(|noun| rest_lower.trim_start().strip_prefix(**noun).is_some_and(|s| s.starts_with(' ')));
    let blanks = rest_lower.len() - rest_lower.trim_start().len();
    let start = start + blanks + noun.map_or(0, |noun| noun.len());
    if starts_with_quote(text.get(start..)?) {
        let (quoted, after) = unquoted(text.get(start..)?);
        let after_at = text.len() - after.len();
        return Some((quoted, after_at + find_first(lower.get(after_at..)?, links)?.end));
    }
    let link = find_first(lower.get(start..)?, links)?;
    Some((text.get(start..start + link.start)?.trim(), start + link.end))
}

fn starts_with_quote(text: &str) -> bool {
    text.trim_start().starts_with(['"', '\'', '`', '“', '‘'])
}

/// Where the last " in " after `from` stands.
fn find_last_in(lower: &str, from: usize) -> Option<usize> {
    lower.get(from..)?.rfind(" in ").map(|at| from + at)
}

/// "append X to notes.md", "add the line X to notes.md".
fn appending(text: &str, lower: &str) -> Option<FileChange> {
    let verb = find_first(lower, &["append", "add a line", "add the line", "add line"])?;
    let (line, path_at) = operand(text, lower, verb.end, &["to", "at the end of"])?;
    let is_file = |word: &Word<'_>| phrase::is_file_name(word.text) && word.at.start >= path_at;
    let path = phrase::words(text).find(is_file)?.text.to_owned();
    let line = if line.is_empty() { DEFAULT_LINE } else { line };
    Some(FileChange::Append { path, line: line.to_owned() })
}

/// "write a file hello.txt containing hi", "create notes.md with ...", "put hi into a.txt", "write a file".
fn writing(text: &str, lower: &str) -> Option<FileChange> {
    let verb = find_first(lower, &["write", "create", "make", "save", "add", "generate", "put", "produce"])?;
    let Some(path) = path_after(text, verb.end) else {
        return asks_for_some_file(lower.get(verb.end..)?).then(|| FileChange::Write {
            path: DEFAULT_PATH.to_owned(),
            content: content_after(text, lower, verb.end).unwrap_or_else(|| DEFAULT_CONTENT.to_owned()),
        });
    };
    let content = content_after(text, lower, path.at.end)
        .or_else(|| content_between(text.get(verb.end..path.at.start)?))
        .unwrap_or_else(|| DEFAULT_CONTENT.to_owned());
    Some(FileChange::Write { path: path.text.to_owned(), content })
}

/// The word that names the file: the first file name after a word that leads to one, else what "named" and "called" lead
/// to, else the first file name.
fn path_after(text: &str, start: usize) -> Option<Word<'_>> {
    let leads = |word: &str| {
        let word = word.to_ascii_lowercase();
        ["file", "named", "called", "to", "into", "in", "as", "at"].contains(&word.as_str())
    };
    let is_name = |word: &str| ["named", "called"].contains(&word.to_ascii_lowercase().as_str());
    let words = || phrase::words(text).filter(move |word| word.at.end > start);
    let pairs = || words().zip(words().skip(1));
    let led = pairs().find(|(before, word)| leads(before.text) && phrase::is_file_name(word.text));
    let named = || pairs().find(|(before, word)| is_name(before.text) && !word.text.is_empty());
    let path = led.or_else(named).map(|(_, word)| word);
    path.or_else(|| words().find(|word| phrase::is_file_name(word.text)))
}

/// "a file", "me a small text file": the noun stands within a few words of the verb.
fn asks_for_some_file(lower: &str) -> bool {
    phrase::words(lower).take(5).any(|word| word.text == "file")
}

/// The content that a text states after `start`: "... containing hi", "... with the text `hi`".
fn content_after(text: &str, lower: &str, start: usize) -> Option<String> {
    const MARKERS: [&str; 18] = [
        "with the following contents",
        "with the following content",
        "with the following text",
        "with the contents",
        "with the content",
        "with the text",
        "with the line",
        "with contents",
        "with content",
        "with text",
        "that contains",
        "which contains",
        "that says",
        "which says",
        "containing",
        "contains",
        "saying",
        "with",
    ];
    let rest = lower.get(start..)?;
    let colon =
        rest.find(':').map(|at| at..at + 1).filter(|at| rest.get(..at.start).is_some_and(|s| s.trim().is_empty()));
    let marker: Range<usize> = colon.or_else(|| find_first(rest, &MARKERS))?;
    let stated = text.get(start + marker.end..)?.trim_start().trim_start_matches(':');
    let (content, after) = unquoted(stated);
    let sentence =
        after.is_empty() && !starts_with_quote(stated) && !content.contains('\n') && !content.ends_with("..");
    let content = if sentence { content.strip_suffix('.').unwrap_or(content) } else { content };
    (!content.is_empty()).then(|| content.to_owned())
}

/// The content that stands between the verb and the file's name: "hi" of "hi into the file".
fn content_between(text: &str) -> Option<String> {
    const NOUNS: [&str; 7] = ["named", "called", "file", "the", "a", "new", "text"];
    let mut text = text.trim_end_matches(['"', '\'', '`', ' ']);
    let without_noun = |text: &'_ str| {
        let rest = NOUNS.iter().find_map(|noun| text.strip_suffix(noun)?.strip_suffix(' '))?;
        Some(rest.trim_end().len())
    };
    while let Some(shorter) = without_noun(text).and_then(|len| text.get(..len)) {
        text = shorter;
    }
    let before = ["to", "into", "in", "as", "at"].iter().find_map(|lead| text.strip_suffix(lead)?.strip_suffix(' '))?;
    let (content, _) = unquoted(before);
    (!content.is_empty()).then(|| content.to_owned())
}

#[cfg(test)]
mod tests;
