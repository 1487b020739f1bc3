//! What is shown: answers on standard output, everything about them on standard error, so that a pipe gets the answers
//! alone. Knows no protocol.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Where an answer stands on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    InLine,
    InReasoning,
}

pub struct Screen {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Standard output is a terminal: reasoning is shown, and control characters are not passed on.
    terminal: bool,
    dim_out: bool,
    dim_err: bool,
    place: Place,
}

impl Screen {
    /// Looks at the streams and at `NO_COLOR` once.
    #[must_use]
    pub fn new() -> Self {
        let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let terminal = io::stdout().is_terminal();
        Self {
            terminal,
            dim_out: terminal && color,
            dim_err: io::stderr().is_terminal() && color,
            ..Self::pipes(io::stdout(), io::stderr())
        }
    }

    /// Answers and notes as bare text.
    pub fn pipes(out: impl Write + 'static, err: impl Write + 'static) -> Self {
        let (out, err) = (Box::new(out), Box::new(err));
        Self { out, err, terminal: false, dim_out: false, dim_err: false, place: Place::LineStart }
    }

    /// A piece of the answer, shown at once.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        if self.place == Place::InReasoning {
            self.out.write_all(self.after_reasoning().as_bytes())?;
        }
        self.out.write_all(self.printable(text).as_bytes())?;
        self.place = if text.ends_with('\n') { Place::LineStart } else { Place::InLine };
        self.out.flush()
    }

    /// A piece of reasoning: dimmed on a terminal, and not for pipes.
    pub fn reasoning(&mut self, text: &str) -> io::Result<()> {
        if !self.terminal {
            return Ok(());
        }
        if self.place != Place::InReasoning && self.dim_out {
            self.out.write_all(DIM.as_bytes())?;
        }
        self.out.write_all(self.printable(text).as_bytes())?;
        self.place = Place::InReasoning;
        self.out.flush()
    }

    /// Ends the answer's last line.
    pub fn end_of_answer(&mut self) -> io::Result<()> {
        let end = match self.place {
            Place::LineStart => "",
            Place::InLine => "\n",
            Place::InReasoning => self.after_reasoning(),
        };
        self.place = Place::LineStart;
        self.out.write_all(end.as_bytes())?;
        self.out.flush()
    }

    /// A line about the conversation, not of it.
    pub fn note(&mut self, line: &str) -> io::Result<()> {
        self.end_of_answer()?;
        let line = self.printable(line);
        if self.dim_err { writeln!(self.err, "{DIM}{line}{PLAIN}") } else { writeln!(self.err, "{line}") }
    }

    fn after_reasoning(&self) -> &'static str {
        if self.dim_out { "\x1b[0m\n" } else { "\n" }
    }

    /// Text from elsewhere must not steer the terminal: its control characters become visible ones.
    fn printable<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
        if !self.terminal || !text.contains(steers) {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.replace("\r\n", "\n").replace(steers, "\u{fffd}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::{Arc, Mutex};

    /// What was written, for the test to read.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn show(terminal: bool) -> (String, String) {
        let (out, err) = (Paper::default(), Paper::default());
        let mut screen = Screen { terminal, dim_out: terminal, ..Screen::pipes(out.clone(), err.clone()) };
        screen.reasoning("hm").unwrap();
        screen.text("a\x1b]0;title\x07\r\n\tb").unwrap();
        screen.note("done").unwrap();
        (out.text(), err.text())
    }

    #[test]
    fn an_answer_cannot_steer_the_terminal_and_reasoning_is_dimmed() {
        let shown = "\x1b[2mhm\x1b[0m\na\u{fffd}]0;title\u{fffd}\n\tb\n";
        assert_eq!(show(true), (shown.to_owned(), "done\n".to_owned()));
    }

    #[test]
    fn a_pipe_gets_the_answer_alone_and_as_it_is() {
        assert_eq!(show(false), ("a\x1b]0;title\x07\r\n\tb\n".to_owned(), "done\n".to_owned()));
    }
}
