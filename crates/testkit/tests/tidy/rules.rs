//! What holds for every Rust file by itself: docs/STYLE.md, as far as a machine can read it. Each rule says what to do.

use crate::source::{Source, closing, is_word};

/// A rule, as the exceptions name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    FileLength,
    FunctionLength,
    Arguments,
    Depth,
    ModuleDoc,
    TypeName,
    FunctionName,
    Unfinished,
    AllowReason,
    Spawn,
    Await,
    Clause,
    Dependency,
    Purity,
    Metric,
    Provenance,
    Link,
}

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    /// From the repository's root.
    pub path: String,
    /// From 1.
    pub line: usize,
    pub message: String,
}

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const ARGUMENTS_MAX: usize = 5;
const DEPTH_MAX: usize = 5;

const VAGUE: [&str; 8] = ["Manager", "Helper", "Helpers", "Util", "Utils", "Context", "Data", "Info"];

/// Where a task or a thread may be started: docs/STYLE.md, section 2.
pub const SPAWNING: [&str; 9] = [
    "crates/edge/src/listen",
    "crates/edge/src/background",
    "crates/edge/src/count",
    "crates/backend/src/client",
    "crates/gateway/src/app",
    "crates/store/src/sqlite",
    "crates/cli/",
    "crates/testkit/",
    "benches/",
];
const SPAWNS: [&str; 7] =
    ["tokio::spawn", "task::spawn", "thread::spawn", "thread::Builder", "spawn_blocking", "spawn_local", "JoinSet"];

/// In pieces, so that whoever searches the tree for unfinished work finds none here.
const TODO: &str = concat!("to", "do!");
const UNIMPLEMENTED: &str = concat!("unimpl", "emented!");
const IGNORE: &str = concat!("#[", "ignore");

/// The crates that take time, chance and bytes as values.
pub const PURE: [&str; 3] = ["wire", "engine", "simulator"];

/// All that is wrong with one file.
pub fn check(source: &Source) -> Vec<Finding> {
    let mut found = Found { source, findings: Vec::new() };
    found.module_doc();
    found.file_length();
    found.functions();
    found.type_names();
    found.unfinished();
    found.allow_reasons();
    found.spawns();
    found.awaits();
    found.findings
}

struct Found<'a> {
    source: &'a Source,
    findings: Vec<Finding>,
}

impl Found<'_> {
    /// `line` from 0.
    fn add(&mut self, rule: Rule, line: usize, message: String) {
        self.findings.push(Finding { rule, path: self.source.path.clone(), line: line + 1, message });
    }

    fn module_doc(&mut self) {
        if !self.source.text.starts_with("//!") {
            self.add(
                Rule::ModuleDoc,
                0,
                "no module doc: begin the file with `//!`, what it is and what it knows nothing about".into(),
            );
        }
    }

    fn file_length(&mut self) {
        let length = self.source.length();
        if !self.source.is_test() && length > FILE_LINES_MAX {
            self.add(
                Rule::FileLength,
                0,
                format!("{length} lines of code, at most {FILE_LINES_MAX}: split it by what its parts know"),
            );
        }
    }

    fn functions(&mut self) {
        for function in self.source.functions() {
            let (name, length, arguments) = (&function.name, function.length, function.arguments);
            if length > FUNCTION_LINES_MAX {
                let message =
                    format!("`{name}` has {length} lines of code, at most {FUNCTION_LINES_MAX}: give its steps names");
                self.add(Rule::FunctionLength, function.line, message);
            }
            if arguments > ARGUMENTS_MAX {
                let message = format!(
                    "`{name}` has {arguments} arguments, at most {ARGUMENTS_MAX}: those that go together are a struct"
                );
                self.add(Rule::Arguments, function.line, message);
            }
            if name.starts_with("get_") {
                let message = format!(
                    "`{name}`: no `get_`; a getter has its field's name, other functions a verb that says more"
                );
                self.add(Rule::FunctionName, function.line, message);
            }
            if let Some((depth, line)) = self.source.depth(&function)
                && depth > DEPTH_MAX
                && !self.source.is_test_line(line)
            {
                let message = format!(
                    "`{name}` is indented {depth} levels deep here, at most {DEPTH_MAX}: return early, or name the inner part"
                );
                self.add(Rule::Depth, line, message);
            }
        }
    }

    fn type_names(&mut self) {
        for keyword in ["struct", "enum", "union", "trait", "type"] {
            let places: Vec<usize> = self.source.find_word(keyword).collect();
            for at in places {
                let name: String =
                    self.source.code[at + keyword.len()..].trim_start().chars().take_while(|c| is_word(*c)).collect();
                let line = self.source.line_of(at);
                // A type inside of an `impl` has the name that its trait gave it.
                let is_inner =
                    keyword == "type" && self.source.code.lines().nth(line).is_some_and(|text| text.starts_with(' '));
                if let Some(vague) = words(&name).find(|word| VAGUE.contains(word)).filter(|_| !is_inner) {
                    self.add(
                        Rule::TypeName,
                        line,
                        format!("`{name}`: \"{vague}\" says nothing; name what it is or does"),
                    );
                }
            }
        }
    }

    fn unfinished(&mut self) {
        for (word, instead) in [
            (TODO, "finish it, or leave it out and say so in the docs"),
            (UNIMPLEMENTED, "finish it, or leave it out and say so in the docs"),
            ("dbg!", "remove it, or log what operators need"),
            (IGNORE, "make the test pass, or remove it"),
        ] {
            let places: Vec<usize> = self.source.find_word(word).collect();
            for at in places {
                self.add(Rule::Unfinished, self.source.line_of(at), format!("`{word}`: {instead}"));
            }
        }
    }

    fn allow_reasons(&mut self) {
        for attribute in ["allow", "expect"] {
            let places: Vec<usize> = self.source.find_word(attribute).collect();
            for at in places {
                let before = self.source.code[..at].trim_end();
                let open = at + attribute.len();
                let is_attribute = ["#[", "#![", ","].iter().any(|end| before.ends_with(end));
                if !is_attribute || self.source.code.as_bytes().get(open) != Some(&b'(') {
                    continue;
                }
                let end = closing(self.source.code.as_bytes(), open).unwrap_or(open);
                if !self.source.code[open..end].contains("reason") {
                    let message =
                        format!("`{attribute}(...)` without a `reason = \"...\"`: say why, or mend what the lint says");
                    self.add(Rule::AllowReason, self.source.line_of(at), message);
                }
            }
        }
    }

    fn spawns(&mut self) {
        if SPAWNING.iter().any(|place| self.source.path.starts_with(place)) {
            return;
        }
        for word in SPAWNS {
            let places: Vec<usize> = self.source.find_word(word).collect();
            for line in places.into_iter().map(|at| self.source.line_of(at)) {
                if !self.source.is_test_line(line) {
                    let message = format!(
                        "`{word}` here: tasks start only where docs/STYLE.md, section 2, says, so that shutdown owns them"
                    );
                    self.add(Rule::Spawn, line, message);
                }
            }
        }
    }

    fn awaits(&mut self) {
        let is_pure = PURE.iter().any(|name| self.source.path.starts_with(&format!("crates/{name}/src/")));
        for word in ["async", ".await"] {
            let places: Vec<usize> = if is_pure { self.source.find_word(word).collect() } else { Vec::new() };
            for line in places.into_iter().map(|at| self.source.line_of(at)) {
                self.add(
                    Rule::Await,
                    line,
                    format!("`{word}` in a pure crate: take what happened as a value, return an effect"),
                );
            }
        }
    }
}

/// The words of a CamelCase name.
fn words(name: &str) -> impl Iterator<Item = &str> {
    let mut starts: Vec<usize> =
        name.char_indices().filter(|(_, c)| c.is_ascii_uppercase()).map(|(at, _)| at).collect();
    starts.push(name.len());
    (1..starts.len()).map(move |next| (starts[next - 1], starts[next])).map(|(from, to)| &name[from..to])
}

mod tests {
    use super::{IGNORE, Rule, TODO, UNIMPLEMENTED, check, words};
    use crate::source::Source;

    /// What is found in a file of one line of doc and this text.
    fn found(path: &str, text: &str) -> Vec<(Rule, usize)> {
        let source = Source::new(path, &format!("//! Doc.\n{text}"));
        check(&source).into_iter().map(|finding| (finding.rule, finding.line)).collect()
    }

    fn in_src(text: &str) -> Vec<(Rule, usize)> {
        found("crates/edge/src/x.rs", text)
    }

    #[test]
    fn a_file_begins_with_its_doc() {
        let source = Source::new("crates/edge/src/x.rs", "use a;\n");
        assert_eq!(check(&source)[0].rule, Rule::ModuleDoc);
        assert_eq!(in_src("use a;\n"), []);
    }

    #[test]
    fn lengths_have_a_maximum() {
        let lines = |count: usize| "    a();\n".repeat(count);
        assert_eq!(in_src(&format!("fn a() {{\n{}}}\n", lines(70))), []);
        assert_eq!(in_src(&format!("fn a() {{\n{}}}\n", lines(71))), [(Rule::FunctionLength, 2)]);
        assert_eq!(in_src(&"use a;\n".repeat(500)), []);
        assert_eq!(in_src(&"use a;\n".repeat(501)), [(Rule::FileLength, 1)]);
        assert_eq!(found("crates/edge/src/x/tests.rs", &"use a;\n".repeat(501)), []);
    }

    #[test]
    fn arguments_and_levels_have_a_maximum() {
        assert_eq!(in_src("fn a(&self, b: u8, c: u8, d: u8, e: u8) {}\n"), []);
        assert_eq!(in_src("fn a(&self, b: u8, c: u8, d: u8, e: u8, f: u8) {}\n"), [(Rule::Arguments, 2)]);
        let nested = |levels: usize| format!("fn a() {{\n{}b();\n}}\n", " ".repeat(4 * levels));
        assert_eq!(in_src(&nested(5)), []);
        assert_eq!(in_src(&nested(6)), [(Rule::Depth, 3)]);
    }

    #[test]
    fn vague_names_are_found_as_whole_words_of_our_own_types() {
        assert_eq!(in_src("pub struct SessionManager;\n"), [(Rule::TypeName, 2)]);
        assert_eq!(in_src("enum Database {}\nstruct Informed;\nfn a(cx: &mut Context) {}\n"), []);
        assert_eq!(in_src("impl Body for X {\n    type Data = Bytes;\n}\n"), []);
        assert_eq!(in_src("type Data = u8;\n"), [(Rule::TypeName, 2)]);
        assert_eq!(words("HttpInfo2").collect::<Vec<_>>(), ["Http", "Info2"]);
    }

    #[test]
    fn getters_and_unfinished_work_are_found_in_code_alone() {
        assert_eq!(in_src("fn get_it() {}\n"), [(Rule::FunctionName, 2)]);
        assert_eq!(in_src(&format!("fn a() {{\n    {TODO}()\n}}\n")), [(Rule::Unfinished, 3)]);
        assert_eq!(in_src(&format!("fn a() {{\n    {UNIMPLEMENTED}()\n}}\n")), [(Rule::Unfinished, 3)]);
        assert_eq!(in_src("fn a() {\n    dbg!(1);\n}\n"), [(Rule::Unfinished, 3)]);
        assert_eq!(in_src(&format!("{IGNORE}]\nfn a() {{}}\n")), [(Rule::Unfinished, 2)]);
        assert_eq!(in_src(&format!("// {TODO}() dbg!()\nconst A: &str = \"fn get_it() {TODO}()\";\n")), []);
    }

    #[test]
    fn a_lint_is_allowed_for_a_reason() {
        assert_eq!(in_src("#[allow(dead_code)]\nfn a() {}\n"), [(Rule::AllowReason, 2)]);
        assert_eq!(in_src("#[cfg_attr(test, allow(dead_code))]\nfn a() {}\n"), [(Rule::AllowReason, 2)]);
        assert_eq!(in_src("#[allow(dead_code, reason = \"shared\")]\nfn a() {\n    b.expect(\"c\");\n}\n"), []);
    }

    #[test]
    fn tasks_start_where_style_says() {
        let text = "fn a() {\n    tokio::spawn(b);\n}\n";
        assert_eq!(in_src(text), [(Rule::Spawn, 3)]);
        assert_eq!(found("crates/edge/src/listen.rs", text), []);
        assert_eq!(found("crates/edge/tests/x.rs", text), []);
        assert_eq!(found("crates/backend/src/client/dial.rs", text), []);
    }

    #[test]
    fn a_pure_crate_does_not_wait() {
        assert_eq!(
            found("crates/engine/src/x.rs", "async fn a() {\n    b.await;\n}\n"),
            [(Rule::Await, 2), (Rule::Await, 3)]
        );
        assert_eq!(found("crates/engine/tests/x.rs", "async fn a() {}\n"), []);
    }
}
