//! What a check came to, as lines for people and as JSON. Knows nothing of how it was found.

use serde::Serialize;
use std::fmt;
use std::io::{self, IsTerminal, Write};

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// It works, and somebody should look at it.
    Warning,
    Failed,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// `config`, `machine`, or an endpoint's name.
    pub about: String,
    pub check: &'static str,
    pub state: State,
    pub expected: String,
    pub found: String,
    /// What to do about it; empty where nothing is to be done.
    pub advice: String,
}

impl Line {
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(State::Ok, check, "", found)
    }

    pub fn warning(check: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(State::Warning, check, expected, found)
    }

    pub fn failed(check: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(State::Failed, check, expected, found)
    }

    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..self }
    }

    pub fn about(self, about: &str) -> Self {
        Self { about: about.to_owned(), ..self }
    }

    fn new(state: State, check: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        let (expected, found) = (expected.into(), found.into());
        Self { about: String::new(), check, state, expected, found, advice: String::new() }
    }
}

/// Where lines go as soon as they are known.
pub struct Screen {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Lines are kept for JSON instead.
    is_silent: bool,
    has_color: bool,
    /// Standard error is a terminal: what is waited for stands there until it has come.
    shows_waiting: bool,
    /// Values that are never shown.
    hidden: Vec<String>,
}

impl Screen {
    /// Looks at the streams and at `NO_COLOR` once.
    #[must_use]
    pub fn new(is_silent: bool) -> Self {
        let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            is_silent,
            has_color: color && io::stdout().is_terminal(),
            shows_waiting: io::stderr().is_terminal(),
            hidden: Vec::new(),
        }
    }

    /// Never shows this value again, in whatever it stands.
    pub fn hide(&mut self, value: &str) {
        // As it stands, and as JSON writes it.
        let escaped = serde_json::to_string(value).unwrap_or_default();
        let escaped = escaped.trim_matches('"').to_owned();
        self.hidden.extend([escaped, value.to_owned()].into_iter().filter(|value| !value.is_empty()));
    }

    /// `text` as it may be shown: without what is hidden, and without what would steer a terminal.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        let text = self.hidden.iter().fold(text.to_owned(), |text, value| text.replace(value, "[redacted]"));
        text.replace(|c: char| c.is_control(), " ")
    }

    /// What is being waited for.
    ///
    /// # Errors
    /// Standard error cannot be written.
    pub fn waiting(&mut self, what: &str) -> io::Result<()> {
        if !self.shows_waiting {
            return Ok(());
        }
        write!(self.err, "\r\x1b[2K  ... {}", self.clean(what))?;
        self.err.flush()
    }

    /// Shows a line, and what to do about it.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        let (word, color) = match line.state {
            State::Ok => ("ok", "32"),
            State::Warning => ("warning", "33"),
            State::Failed => ("failed", "31"),
        };
        self.row((word, color), &format!("{} {}", line.about, line.check), &line.found)?;
        self.detail("expected", &line.expected)?;
        self.detail("to do", &line.advice)
    }

    /// A row of a word, a name and what was found.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn row(&mut self, (word, color): (&str, &str), name: &str, found: &str) -> io::Result<()> {
        self.clear()?;
        if self.is_silent {
            return Ok(());
        }
        let found = self.clean(found);
        let padded = format!("{word:<14}");
        match self.has_color {
            true => writeln!(self.out, "\x1b[{color}m{padded}\x1b[0m {name}: {found}"),
            false => writeln!(self.out, "{padded} {name}: {found}"),
        }
    }

    /// What stands below a row; nothing where it is empty.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn detail(&mut self, name: &str, text: &str) -> io::Result<()> {
        if self.is_silent || text.is_empty() {
            return Ok(());
        }
        let text = self.clean(text);
        writeln!(self.out, "{:<14} {name}: {text}", "")
    }

    /// A line of its own for people.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn note(&mut self, text: impl fmt::Display) -> io::Result<()> {
        self.clear()?;
        if self.is_silent {
            return Ok(());
        }
        let text = self.clean(&text.to_string());
        writeln!(self.out, "{text}")
    }

    /// # Errors
    /// Standard output cannot be written.
    pub fn json(&mut self, report: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
        let text = self.hidden.iter().fold(text, |text, value| text.replace(value, "[redacted]"));
        writeln!(self.out, "{text}")
    }

    fn clear(&mut self) -> io::Result<()> {
        match self.shows_waiting {
            true => write!(self.err, "\r\x1b[2K").and_then(|()| self.err.flush()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(has_color: bool) -> String {
        let paper = Paper::default();
        let mut screen = Screen {
            out: Box::new(paper.clone()),
            err: Box::new(io::sink()),
            is_silent: false,
            has_color,
            shows_waiting: true,
            hidden: Vec::new(),
        };
        screen.hide("canary-key");
        let line =
            Line::failed("key", "a key that is taken", "Bearer canary-key is wrong\x1b]0;t\x07").about("wafer-1");
        screen.waiting("its models").unwrap();
        screen.line(&line.advise("make another one, not canary-key")).unwrap();
        String::from_utf8(paper.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_says_what_was_expected_found_and_to_do_and_hides_the_key() {
        assert_eq!(
            shown(false),
            "failed         wafer-1 key: Bearer [redacted] is wrong ]0;t \n               expected: a key that is taken\n               \
             to do: make another one, not [redacted]\n"
        );
        assert!(shown(true).starts_with("\x1b[31mfailed        \x1b[0m wafer-1 key: "), "{}", shown(true));
    }
}
