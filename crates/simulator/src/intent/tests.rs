//! Sentences and what they are taken for.

use super::*;

fn intent(text: &str) -> Intent {
    read([text.to_owned()].into_iter())
}

fn write(path: &str, content: &str) -> Intent {
    Intent::Change(FileChange::Write { path: path.to_owned(), content: content.to_owned() })
}

fn replace(path: &str, old: &str, new: &str) -> Intent {
    Intent::Change(FileChange::Replace { path: path.to_owned(), old: old.to_owned(), new: new.to_owned() })
}

#[test]
fn greetings_are_short_and_begin_with_one() {
    for text in ["hi", "Hello!", "hey there, simulator", "Good morning"] {
        assert_eq!(intent(text), Intent::Greet, "{text}");
    }
    for text in ["hint", "good code", "Hello, can you explain how a hash table works?", ""] {
        assert_eq!(intent(text), Intent::Anything, "{text}");
    }
}

#[test]
fn counts_have_a_beginning_and_an_end() {
    for (text, from, to) in [
        ("count from 1 to 5", 1, 5),
        ("Please count slowly from 10 up to 12.", 10, 12),
        ("count to 7", 1, 7),
        ("Count down from 3 to -1!", 3, -1),
        ("I want you counting through the numbers 4, 6", 4, 6),
    ] {
        assert_eq!(intent(text), Intent::Count { from, to }, "{text}");
    }
    for text in ["a discount from 1 to 5", "count the words in 3 books", "count", "account 1 2"] {
        assert_eq!(intent(text), Intent::Anything, "{text}");
    }
}

#[test]
fn a_repetition_is_exact() {
    for (text, said) in [
        ("say exactly: Foo, BAR \"x\"\ny", "Foo, BAR \"x\"\ny"),
        ("Please repeat: write a file a.txt", "write a file a.txt"),
        ("Say exactly pong", "pong"),
        ("Reply with exactly: OK", "OK"),
    ] {
        assert_eq!(intent(text), Intent::Repeat(said.to_owned()), "{text}");
    }
}

#[test]
fn what_was_said_before_is_recalled_the_newest_first() {
    let ask = |texts: &[&str]| read(texts.iter().map(|text| (*text).to_owned()));
    let recall =
        |key: &str, value: Option<&str>| Intent::Recall { key: key.to_owned(), value: value.map(str::to_owned) };
    assert_eq!(ask(&["What is my name?", "hi, my name is Ada."]), recall("name", Some("Ada")));
    assert_eq!(
        ask(&["what's my name", "My name is Grace Hopper and I write compilers", "my name is Ada"]),
        recall("name", Some("Grace Hopper"))
    );
    assert_eq!(
        ask(&["Do you remember my favourite colour?", "my favourite colour is blue, mostly"]),
        recall("favourite colour", Some("blue"))
    );
    assert_eq!(
        ask(&["what is the codeword?", "The codeword is \"two words, quoted\" today"]),
        recall("codeword", Some("two words, quoted"))
    );
    assert_eq!(ask(&["What is my name?", "hello"]), recall("name", None));
    assert_eq!(ask(&["What is the capital of France?", "hello"]), Intent::Anything);
}

#[test]
fn a_file_to_be_written_has_a_name_and_a_content() {
    for (text, path, content) in [
        ("write a file hello.txt containing hi", "hello.txt", "hi"),
        ("Create notes.md with the text `# Notes` please", "notes.md", "# Notes"),
        ("create a file named Makefile that says \"all:\"", "Makefile", "all:"),
        ("Write hello world to out/a.txt", "out/a.txt", "hello world"),
        ("put 'see b.md' into the new file called c.txt.", "c.txt", "see b.md"),
        (
            "Create the file src/main.rs with content:\n```rust\nfn main() {}\n```\nThanks",
            "src/main.rs",
            "fn main() {}",
        ),
        ("Write a file hello.txt containing Hello there. Hi.", "hello.txt", "Hello there. Hi"),
        ("use apply_patch to create a.txt with hi", "a.txt", "hi"),
        ("create a.txt with apply_patch containing hi", "a.txt", "hi"),
        ("make a.txt: hi", "a.txt", "hi"),
    ] {
        assert_eq!(intent(text), write(path, content), "{text}");
    }
}

#[test]
fn a_file_without_name_or_content_gets_the_simulators_own() {
    assert_eq!(intent("write a file"), write(DEFAULT_PATH, DEFAULT_CONTENT));
    assert_eq!(intent("Please create me a small text file containing yes"), write(DEFAULT_PATH, "yes"));
    assert_eq!(intent("create notes.md"), write("notes.md", DEFAULT_CONTENT));
    assert_eq!(intent("write a function that opens the file"), Intent::Anything);
    assert_eq!(intent("write a poem"), Intent::Anything);
}

#[test]
fn a_replacement_has_both_lines_and_a_file() {
    for (text, path, old, new) in [
        ("replace hello with bye in a.txt", "a.txt", "hello", "bye"),
        ("In notes.md, replace the line \"a in b\" with \"c in d\".", "notes.md", "a in b", "c in d"),
        ("Change `x = 1` to `x = 2` in the file src/x.py using apply_patch", "src/x.py", "x = 1", "x = 2"),
        ("in a.txt change one to two.", "a.txt", "one", "two"),
    ] {
        assert_eq!(intent(text), replace(path, old, new), "{text}");
    }
}

#[test]
fn other_edits_add_a_line() {
    let append =
        |path: &str, line: &str| Intent::Change(FileChange::Append { path: path.to_owned(), line: line.to_owned() });
    assert_eq!(intent("append \"the end\" to notes.md"), append("notes.md", "the end"));
    assert_eq!(intent("Add the line good bye to notes.md"), append("notes.md", "good bye"));
    assert_eq!(intent("please edit notes.md with apply_patch"), append("notes.md", DEFAULT_LINE));
}
