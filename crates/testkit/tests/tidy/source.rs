//! A Rust file as the checks see it: comments and the insides of strings blanked, functions found. It knows nothing about
//! any rule, and of Rust only as much as that takes; a file that rustc refuses may be read wrongly.

/// One file.
pub struct Source {
    /// From the repository's root, with `/`.
    pub path: String,
    pub text: String,
    /// `text`, byte for byte as long and line by line the same, with blanks for comments and for the insides of strings.
    pub code: String,
    /// Whether a line is code: not blank, not all comment. A line inside of a string is.
    is_code: Vec<bool>,
    /// Whether a line begins inside of a string.
    is_in_string: Vec<bool>,
    /// The line of a closing `#[cfg(test)] mod tests`, counted from 0; the number of lines where there is none.
    tests_begin: usize,
}

/// One function with a body.
pub struct Function {
    pub name: String,
    /// Of its `fn`, counted from 0.
    pub line: usize,
    /// Lines of code between its braces.
    pub length: usize,
    pub arguments: usize,
    /// The lines between its braces, counted from 0.
    body: std::ops::Range<usize>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let Masked { code, is_code, is_in_string } = mask(text);
        let lines: Vec<&str> = code.lines().collect();
        let tests_begin = (0..lines.len())
            .rfind(|&at| {
                lines[at].trim() == "#[cfg(test)]" && lines.get(at + 1).is_some_and(|next| next.starts_with("mod "))
            })
            .filter(|&at| lines.last() == Some(&"}") && !lines[at + 2..lines.len() - 1].contains(&"}"))
            .unwrap_or(lines.len());
        Self { path: path.to_owned(), text: text.to_owned(), code, is_code, is_in_string, tests_begin }
    }

    /// Whether the file is test code from its first line on.
    pub fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// Whether a line (from 0) is test code.
    pub fn is_test_line(&self, line: usize) -> bool {
        self.is_test() || line >= self.tests_begin
    }

    /// Lines of code, without the tests at the end.
    pub fn length(&self) -> usize {
        self.is_code.iter().take(self.tests_begin).filter(|code| **code).count()
    }

    /// The line (from 0) of a byte of the masked text.
    pub fn line_of(&self, at: usize) -> usize {
        self.code.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
    }

    /// Every place where `word` stands with no letter, digit or `_` next to an end of it that is one.
    pub fn find_word<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
            let before = self.code[..at].chars().next_back();
            let after = self.code[at + word.len()..].chars().next();
            let joins =
                |neighbour: Option<char>, end: Option<char>| neighbour.is_some_and(is_word) && end.is_some_and(is_word);
            !joins(before, word.chars().next()) && !joins(after, word.chars().next_back())
        })
    }

    /// All functions that have a body, in the order of their `fn`.
    pub fn functions(&self) -> Vec<Function> {
        self.find_word("fn").filter_map(|at| self.function(at)).collect()
    }

    fn function(&self, at: usize) -> Option<Function> {
        let bytes = self.code.as_bytes();
        let name_at = skip_blanks(bytes, at + 2);
        let name: String = self.code[name_at..].chars().take_while(|c| is_word(*c)).collect();
        if name.is_empty() {
            return None; // a function pointer's type
        }
        let open = skip_generics(bytes, skip_blanks(bytes, name_at + name.len()));
        let close = closing(bytes, open)?;
        let arguments = arguments(&bytes[open + 1..close]);
        let begin = body_begin(bytes, close + 1)?;
        let end = closing(bytes, begin)?;
        let body = self.line_of(begin) + 1..self.line_of(end);
        let length = body.clone().filter(|line| self.is_code[*line]).count();
        Some(Function { name, line: self.line_of(at), length, arguments, body })
    }

    /// The levels by which a function's deepest line is indented beyond its `fn`, and that line (from 0). Four blanks a level.
    pub fn depth(&self, function: &Function) -> Option<(usize, usize)> {
        let lines: Vec<&str> = self.code.lines().collect();
        let own = indentation(lines[function.line]);
        let deep = function.body.clone().filter(|line| !lines[*line].trim().is_empty() && !self.is_in_string[*line]);
        deep.map(|line| (indentation(lines[line]).saturating_sub(own) / 4, line))
            .max_by_key(|(depth, line)| (*depth, usize::MAX - line))
    }
}

struct Masked {
    code: String,
    is_code: Vec<bool>,
    is_in_string: Vec<bool>,
}

/// What the reader stands in.
#[derive(Clone, Copy)]
enum Place {
    Code,
    LineComment,
    /// How deep.
    BlockComment(usize),
    /// A string; raw with that many `#`.
    String {
        raw: Option<usize>,
    },
}

fn mask(text: &str) -> Masked {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut is_code = vec![false; text.lines().count()];
    let mut is_in_string = vec![false; text.lines().count() + 1];
    let (mut place, mut at, mut line) = (Place::Code, 0, 0);
    while at < bytes.len() {
        let (next, end) = step(&place, bytes, at);
        // Quotes stay; a literal of several bytes, such as a character, goes.
        let stays = match (&place, &next) {
            (Place::Code, Place::Code) => end - at == 1,
            (Place::Code, Place::String { .. }) | (Place::String { .. }, Place::Code) => true,
            _ => false,
        };
        let counts = !matches!(next, Place::LineComment | Place::BlockComment(_))
            && !matches!(place, Place::LineComment | Place::BlockComment(_));
        for index in at..end {
            if bytes[index] == b'\n' {
                line += 1;
                is_in_string[line] = matches!(next, Place::String { .. });
                continue;
            }
            is_code[line] |= counts && !bytes[index].is_ascii_whitespace();
            if !stays {
                out[index] = b' ';
            }
        }
        (place, at) = (next, end);
    }
    Masked { code: String::from_utf8_lossy(&out).into_owned(), is_code, is_in_string }
}

/// Reads what stands at `at`: where that leads, and how far it goes.
fn step(place: &Place, bytes: &[u8], at: usize) -> (Place, usize) {
    let rest = &bytes[at..];
    match *place {
        Place::LineComment if rest[0] == b'\n' => (Place::Code, at + 1),
        Place::BlockComment(1) if rest.starts_with(b"*/") => (Place::Code, at + 2),
        Place::BlockComment(depth) if rest.starts_with(b"*/") => (Place::BlockComment(depth - 1), at + 2),
        Place::BlockComment(depth) if rest.starts_with(b"/*") => (Place::BlockComment(depth + 1), at + 2),
        Place::LineComment | Place::BlockComment(_) => (*place, at + 1),
        Place::String { raw: None } if rest[0] == b'\\' => (*place, (at + 2).min(bytes.len())),
        Place::String { raw: None } if rest[0] == b'"' => (Place::Code, at + 1),
        Place::String { raw: Some(hashes) } if rest[0] == b'"' && hashes_at(bytes, at + 1) >= hashes => {
            (Place::Code, at + 1 + hashes)
        }
        Place::String { .. } => (*place, at + 1),
        Place::Code => step_code(bytes, at),
    }
}

fn step_code(bytes: &[u8], at: usize) -> (Place, usize) {
    let rest = &bytes[at..];
    let follows_word = at > 0 && is_word(char::from(bytes[at - 1]));
    let raw = |skip: usize| {
        let hashes = hashes_at(bytes, at + skip);
        (bytes.get(at + skip + hashes) == Some(&b'"'))
            .then_some((Place::String { raw: Some(hashes) }, at + skip + hashes + 1))
    };
    match rest {
        [b'/', b'/', ..] => (Place::LineComment, at + 2),
        [b'/', b'*', ..] => (Place::BlockComment(1), at + 2),
        [b'"', ..] => (Place::String { raw: None }, at + 1),
        [b'r', ..] if !follows_word => raw(1).unwrap_or((Place::Code, at + 1)),
        [b'b', b'r', ..] if !follows_word => raw(2).unwrap_or((Place::Code, at + 1)),
        [b'\'', ..] => (Place::Code, character_end(bytes, at).unwrap_or(at + 1)),
        _ => (Place::Code, at + 1),
    }
}

/// The end of a character literal; none where the quote begins a lifetime.
fn character_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        return (at + 3..bytes.len()).find(|&end| bytes[end] == b'\'').map(|end| end + 1);
    }
    // One character of up to four bytes.
    let text = std::str::from_utf8(&bytes[at + 1..]).ok()?;
    let end = at + 1 + text.chars().next()?.len_utf8();
    (bytes.get(end) == Some(&b'\'')).then_some(end + 1)
}

fn hashes_at(bytes: &[u8], at: usize) -> usize {
    bytes.iter().skip(at).take_while(|byte| **byte == b'#').count()
}

pub fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    (at..bytes.len()).find(|&at| !bytes[at].is_ascii_whitespace()).unwrap_or(bytes.len())
}

/// The place of the `(` that follows the generics at `at`, if there are any.
fn skip_generics(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0;
    for place in at..bytes.len() {
        match bytes[place] {
            b'<' => depth += 1,
            b'>' if bytes[place - 1] != b'-' => depth -= 1,
            b'(' if depth == 0 => return place,
            _ => {}
        }
    }
    bytes.len()
}

/// The `{` of the body; none where a trait only declares the function.
fn body_begin(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'{' => return Some(at),
            b';' => return None,
            b'(' | b'[' => at = closing(bytes, at)? + 1,
            _ => at += 1,
        }
    }
}

/// Where the bracket that opens at `open` is closed.
pub fn closing(bytes: &[u8], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (place, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(place);
        }
    }
    None
}

/// How many arguments stand between the brackets of a function.
fn arguments(list: &[u8]) -> usize {
    let mut depth = 0;
    let mut count = 0;
    let mut is_begun = false;
    for (place, byte) in list.iter().enumerate() {
        match byte {
            b'(' | b'[' | b'{' | b'<' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            b'>' if place > 0 && list[place - 1] != b'-' => depth -= 1,
            b',' if depth == 0 => {
                count += usize::from(is_begun);
                is_begun = false;
                continue;
            }
            _ => {}
        }
        is_begun |= !byte.is_ascii_whitespace();
    }
    count + usize::from(is_begun)
}

mod tests {
    use super::Source;

    fn source(text: &str) -> Source {
        Source::new("crates/x/src/lib.rs", text)
    }

    #[test]
    fn comments_and_strings_are_blanked_and_the_lines_stay() {
        let text = "let a = \"fn b() { // no\"; // dbg!\n/* aside /* nested */ */ let c = r#\"x\" \"#;\nlet d = '\"'; let e: &str;\n";
        let source = source(text);
        assert_eq!(source.code.lines().count(), 3);
        assert_eq!(source.code.len(), text.len());
        for gone in ["fn b", "dbg", "aside", "nested", "x", "'"] {
            assert!(!source.code.contains(gone), "{gone} stands in {}", source.code);
        }
        for kept in ["let a", "let c", "let d", "let e: &str"] {
            assert!(source.code.contains(kept), "{kept} does not stand in {}", source.code);
        }
    }

    #[test]
    fn only_code_counts_and_the_tests_at_the_end_do_not() {
        let text = "//! Doc.\n\nfn a() {\n    // why\n    let text = \"one\n  two\";\n}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        assert_eq!(source(text).length(), 4);
        let amid = "#[cfg(test)]\nmod tests {\n}\nfn after() {}\n";
        assert_eq!(source(amid).length(), 4);
    }

    #[test]
    fn functions_are_measured() {
        let text = "impl X {\n    fn a<F: Fn(u8) -> u8>(&self, f: F, g: (u8, u8), h: Vec<(u8, u8)>) -> [u8; 2]\n    where\n        F: Send,\n    {\n        // why\n        if f(1) > 1 {\n            g.0;\n        }\n        2\n    }\n    fn declared(&self);\n}\ntype F = fn(u8, u8);\n";
        let source = source(text);
        let functions = source.functions();
        let [a] = functions.as_slice() else { panic!("{} functions", functions.len()) };
        assert_eq!((a.name.as_str(), a.line, a.length, a.arguments), ("a", 1, 4, 4));
        assert_eq!(source.depth(a), Some((2, 7)));
    }

    #[test]
    fn a_word_is_not_found_inside_of_another() {
        let source = source("dbg!(); autodbg!(); fn_x(); fn x() {}\n");
        assert_eq!(source.find_word("dbg!").count(), 1);
        assert_eq!(source.find_word("fn").count(), 1);
    }
}
