//! Where the person's lines come from: one message, a pipe, or an edited line on a terminal. Knows nothing of what is done
//! with them.

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};
use std::cell::Cell;
use std::io::{self, BufRead, IsTerminal};
use tokio::task::JoinHandle;

const LINE_BYTES_MAX: u64 = 1 << 20;
const PROMPT: &str = "> ";

/// The source, with what it has left.
pub enum Input {
    /// The message of the command line; `None` once it was taken.
    Once(Option<String>),
    /// Standard input, a line at a time.
    Lines,
    /// A terminal, with editing and a history that lasts as long as the process.
    Editor(Box<Editor<Typed, DefaultHistory>>),
}

/// Whether the line holds anything: the editor tells of a Ctrl-C, but not of the line that it met. It shows every line to
/// its hinter.
#[derive(Default)]
pub struct Typed(Cell<bool>);

impl Hinter for Typed {
    type Hint = String;

    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<String> {
        self.0.set(!line.is_empty());
        None
    }
}

impl Completer for Typed {
    type Candidate = String;
}

impl Highlighter for Typed {}
impl Validator for Typed {}
impl Helper for Typed {}

impl Input {
    /// The message where there is one; otherwise standard input, edited where it is a terminal.
    ///
    /// # Errors
    /// When the terminal cannot be set up.
    pub fn new(message: Option<String>) -> io::Result<Self> {
        if message.is_some() {
            return Ok(Self::Once(message));
        }
        if !io::stdin().is_terminal() {
            return Ok(Self::Lines);
        }
        let mut editor = Editor::new().map_err(io::Error::other)?;
        editor.set_helper(Some(Typed::default()));
        Ok(Self::Editor(Box::new(editor)))
    }

    #[must_use]
    pub fn is_interactive(&self) -> bool {
        matches!(self, Self::Editor(_))
    }

    /// Waits for the next line on a thread that may block; `None` is the end. The source comes back with it.
    pub fn read(mut self) -> JoinHandle<(Self, io::Result<Option<String>>)> {
        tokio::task::spawn_blocking(move || {
            let line = self.read_blocking();
            (self, line)
        })
    }

    fn read_blocking(&mut self) -> io::Result<Option<String>> {
        match self {
            Self::Once(message) => Ok(message.take()),
            Self::Lines => read_line(&mut io::stdin().lock()),
            Self::Editor(editor) => read_edited(editor),
        }
    }
}

/// Ctrl-C gives up the line; on an empty one it is the end, as Ctrl-D is.
fn read_edited(editor: &mut Editor<Typed, DefaultHistory>) -> io::Result<Option<String>> {
    loop {
        match editor.readline(PROMPT) {
            Ok(line) => {
                let _ = editor.add_history_entry(&line);
                return Ok(Some(line));
            }
            Err(ReadlineError::Interrupted) if editor.helper().is_some_and(|typed| typed.0.take()) => {}
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(None),
            Err(ReadlineError::Io(error)) => return Err(error),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

fn read_line(source: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = io::Read::take(source, LINE_BYTES_MAX).read_line(&mut line)?;
    if read as u64 == LINE_BYTES_MAX && !line.ends_with('\n') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a line is longer than {LINE_BYTES_MAX} bytes"),
        ));
    }
    Ok((read > 0).then_some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_read_line_by_line_to_its_end() {
        let mut source = &b"one\ntwo"[..];
        let lines: Vec<_> = std::iter::from_fn(|| read_line(&mut source).unwrap()).collect();
        assert_eq!(lines, ["one\n", "two"]);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let long = vec![b'a'; LINE_BYTES_MAX as usize + 1];
        assert_eq!(read_line(&mut long.as_slice()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
