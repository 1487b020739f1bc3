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

#[derive(Debug)]
pub struct Screen {
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
            place: Place::LineStart,
        }
    }

    /// A piece of the answer, shown at once.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.place == Place::InReasoning {
            out.write_all(self.after_reasoning().as_bytes())?;
        }
        out.write_all(self.printable(text).as_bytes())?;
        self.place = if text.ends_with('\n') { Place::LineStart } else { Place::InLine };
        out.flush()
    }

    /// A piece of reasoning: dimmed on a terminal, and not for pipes.
    pub fn reasoning(&mut self, text: &str) -> io::Result<()> {
        if !self.terminal {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        if self.place != Place::InReasoning && self.dim_out {
            out.write_all(DIM.as_bytes())?;
        }
        out.write_all(self.printable(text).as_bytes())?;
        self.place = Place::InReasoning;
        out.flush()
    }

    /// Ends the answer's last line.
    pub fn end_of_answer(&mut self) -> io::Result<()> {
        let end = match self.place {
            Place::LineStart => "",
            Place::InLine => "\n",
            Place::InReasoning => self.after_reasoning(),
        };
        self.place = Place::LineStart;
        let mut out = io::stdout().lock();
        out.write_all(end.as_bytes())?;
        out.flush()
    }

    /// A line about the conversation, not of it.
    pub fn note(&mut self, line: &str) -> io::Result<()> {
        self.end_of_answer()?;
        let line = self.printable(line);
        let mut err = io::stderr().lock();
        if self.dim_err { writeln!(err, "{DIM}{line}{PLAIN}") } else { writeln!(err, "{line}") }
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

    #[test]
    fn an_answer_cannot_steer_the_terminal_but_a_pipe_gets_it_as_it_is() {
        let text = "a\x1b]0;title\x07\r\n\tb";
        let screen = |terminal| Screen { terminal, dim_out: false, dim_err: false, place: Place::LineStart };
        assert_eq!(screen(true).printable(text), "a\u{fffd}]0;title\u{fffd}\n\tb");
        assert_eq!(screen(false).printable(text), text);
    }
}
