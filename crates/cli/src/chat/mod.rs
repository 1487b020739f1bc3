//! `flashlane chat`: a terminal client of the Responses API over its WebSocket. It is a client like any other: nothing here
//! needs the server to be flashlane, which only makes the line after each turn longer.

mod connection;
mod conversation;
mod event;
mod input;
mod screen;
mod stopwatch;

use crate::address::Address;
use crate::gateway::{Gateway, key, own_key};
use crate::models;
use conversation::{Conversation, TurnEnd, milliseconds};
use flashlane_backend::Secret;
use input::Input;
use screen::Screen;
use std::io;
use std::path::PathBuf;
use tokio::signal::ctrl_c;

pub use connection::ConnectError;

const OPENAI: &str = "https://api.openai.com/";
const COMMANDS: &str = "\
/model NAME  ask another model from the next turn on; without a name: which there are
/new         forget the conversation so far
/quit        leave (so do Ctrl-C and Ctrl-D on an empty line)
Ctrl-C clears the line that is being typed; during an answer it stops the answer";

/// Arguments of `flashlane chat`.
#[derive(Debug, clap::Args)]
#[command(after_help = "After each answer one line says which tier gave it, the time to its first token, its tokens a
second and the gateway's own share of the time: summed over the whole turn, and for one token.
Ctrl-C during an answer interrupts it and keeps the conversation.

Examples:
  flashlane chat                                 talk to the gateway on this machine
  flashlane chat \"count from 1 to 20\"            one turn
  printf 'hello\\nand again\\n' | flashlane chat   each line is a turn of one conversation
  flashlane chat --model flashlane-demo-gpu      another model
  flashlane chat --url wss://api.openai.com/v1 --model gpt-5.5 --api-key-env OPENAI_API_KEY")]
pub struct Args {
    /// One turn with this message; without it, standard input
    message: Vec<String>,
    /// The gateway: its WebSocket, or the base URL that HTTP clients use
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8700/v1/responses")]
    url: Address,
    /// The model; without it, the first that the gateway lists
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The environment variable that holds the API key [default: FLASHLANE_API_KEY, where it is set]
    #[arg(long, value_name = "VARIABLE")]
    api_key_env: Option<String>,
    /// Show after each answer what each stage of the turn took, where the gateway tells
    #[arg(long)]
    timing: bool,
    /// A PEM file: the authority that signed the gateway's certificate [default: the system's, or SSL_CERT_FILE]
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
}

/// Why the chat ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--api-key-env names {0}, which is not set")]
    KeyMissing(String),
    #[error(transparent)]
    Models(#[from] models::Error),
    #[error(transparent)]
    Conversation(#[from] conversation::Error),
    #[error("the terminal")]
    Terminal(#[from] io::Error),
}

/// How a chat ended, for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every turn had its answer, or a person was at the terminal.
    Fine,
    /// A turn failed.
    TurnFailed,
    /// A turn was interrupted by Ctrl-C.
    Interrupted,
}

/// Chats until the message, the pipe or the person has nothing more to say.
///
/// # Errors
/// [`Error`], in words for the person.
pub async fn run(args: Args) -> Result<Outcome, Error> {
    let api_key = api_key(args.api_key_env, &args.url)?;
    let gateway = Gateway { address: args.url, api_key, cacert: args.cacert };
    let model = match args.model {
        Some(model) => model,
        None => models::first(&gateway).await?,
    };
    let message = (!args.message.is_empty()).then(|| args.message.join(" "));
    let mut screen = Screen::new();
    let websocket = gateway.address.websocket();
    let opened = Conversation::open(gateway, model).await;
    let (mut conversation, warm_up) = opened.map_err(conversation::Error::from)?;
    if args.timing {
        conversation.show_stages();
    }
    let input = Input::new(message)?;
    if input.is_interactive() {
        let warm = warm_up.map(|took| format!(", warm in {}", milliseconds(took))).unwrap_or_default();
        screen.note(&format!("{} at {}{warm}", conversation.model, websocket))?;
        screen.note("/help shows the commands, Ctrl-D leaves")?;
    }
    talk(&mut conversation, input, &mut screen).await
}

async fn talk(conversation: &mut Conversation, mut input: Input, screen: &mut Screen) -> Result<Outcome, Error> {
    let interactive = input.is_interactive();
    let mut outcome = Outcome::Fine;
    loop {
        let read = tokio::select! {
            read = input.read() => read,
            never = conversation.idle() => match never {},
            // An edited line sees Ctrl-C itself.
            _ = ctrl_c(), if !interactive => return Ok(Outcome::Interrupted),
        };
        let line;
        (input, line) = read.map_err(io::Error::other)?;
        let Some(line) = line? else { return Ok(outcome) };
        let end = match Line::parse(line.trim()) {
            Line::Quit => return Ok(outcome),
            Line::Say(text) => conversation.turn(text, screen).await,
            Line::Blank => Ok(TurnEnd::Answered),
            Line::Do(command) => obey(command, conversation, screen).await.map_err(conversation::Error::from),
        };
        match end {
            Err(conversation::Error::Connect(error)) if interactive => screen.note(&error.to_string())?,
            Err(error) => return Err(error.into()),
            Ok(TurnEnd::Failed) if !interactive => outcome = Outcome::TurnFailed,
            Ok(TurnEnd::Interrupted) if !interactive => return Ok(Outcome::Interrupted),
            Ok(TurnEnd::Answered | TurnEnd::Failed | TurnEnd::Interrupted) => {}
        }
    }
}

/// What one line is.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Blank,
    Say(&'a str),
    Quit,
    Do(Command<'a>),
}

#[derive(Debug, PartialEq, Eq)]
enum Command<'a> {
    Help,
    New,
    Models,
    Model(&'a str),
    Unknown(&'a str),
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match (word, rest.trim()) {
            ("", _) => Self::Blank,
            ("/quit", _) => Self::Quit,
            ("/help", _) => Self::Do(Command::Help),
            ("/new", _) => Self::Do(Command::New),
            ("/model", "") => Self::Do(Command::Models),
            ("/model", name) => Self::Do(Command::Model(name)),
            // A path is no command.
            (word, _) if word.strip_prefix('/').is_some_and(|name| !name.contains('/')) => {
                Self::Do(Command::Unknown(word))
            }
            _ => Self::Say(line),
        }
    }
}

/// Does what is no turn.
async fn obey(command: Command<'_>, conversation: &mut Conversation, screen: &mut Screen) -> io::Result<TurnEnd> {
    match command {
        Command::Help => screen.note(COMMANDS)?,
        Command::New => {
            conversation.start_anew().await;
            screen.note("a new conversation")?;
        }
        Command::Models => match models::list(&conversation.gateway).await {
            Ok(names) => screen.note(&names.join("\n"))?,
            Err(error) => {
                screen.note(&error.to_string())?;
                return Ok(TurnEnd::Failed);
            }
        },
        Command::Model(name) => match models::list(&conversation.gateway).await {
            Ok(names) if !names.iter().any(|listed| listed == name) => {
                screen.note(&format!("there is no model {name} here, but {}", names.join(", ")))?;
                return Ok(TurnEnd::Failed);
            }
            // What cannot be asked for its models may have this one.
            Ok(_) | Err(_) => {
                name.clone_into(&mut conversation.model);
                screen.note(&format!("the next turn goes to {name}"))?;
            }
        },
        Command::Unknown(word) => {
            screen.note(&format!("{word}: no such command; /help shows them"))?;
            return Ok(TurnEnd::Failed);
        }
    }
    Ok(TurnEnd::Answered)
}

/// The key to send. OpenAI's own variable is read for OpenAI's own address alone: a key goes to nobody else by accident.
fn api_key(named: Option<String>, address: &Address) -> Result<Option<Secret>, Error> {
    match named {
        Some(name) => key(&name).map(Some).ok_or(Error::KeyMissing(name)),
        None if address.http().starts_with(OPENAI) => Ok(key("OPENAI_API_KEY")),
        None => Ok(own_key()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command_or_something_to_say() {
        assert_eq!(Line::parse(""), Line::Blank);
        assert_eq!(Line::parse("/model  flashlane-demo-gpu"), Line::Do(Command::Model("flashlane-demo-gpu")));
        assert_eq!(Line::parse("/model "), Line::Do(Command::Models));
        assert_eq!(Line::parse("/quit"), Line::Quit);
        assert_eq!(Line::parse("/quti now"), Line::Do(Command::Unknown("/quti")));
        assert_eq!(Line::parse("/etc/hosts: what is it?"), Line::Say("/etc/hosts: what is it?"));
        assert_eq!(Line::parse("count from 1 to 3"), Line::Say("count from 1 to 3"));
    }
}
