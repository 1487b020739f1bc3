//! `flashlane explain`: where a turn went, what it waited for, what failed it, and where its time went. Reads the records that a running
//! gateway keeps, on its admin port; knows no config and no protocol of clients.

mod picture;

use crate::address;
use crate::admin::{self, Reply, TOKEN_VARIABLE};
use flashlane_telemetry::TurnRecord;
use picture::Picture;
use serde::Deserialize;
use std::io::{self, IsTerminal as _, Write};
use std::net::SocketAddr;

/// Turns of one id that are asked for.
const TURNS_MAX: usize = 1000;
const WIDTH_DEFAULT: usize = 100;

/// Arguments of `flashlane explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "A request id is the x-request-id of an answer, of a WebSocket's handshake, or of a line in the
log; over one WebSocket all turns have the same, and are listed. A gateway keeps its last turns
(telemetry.turns_kept_max in its config) in memory: none of before its start, none that still
runs. Where its admin port asks for a token, FLASHLANE_ADMIN_TOKEN holds it.

Examples:
  flashlane explain req_5c7e...          the turns of a request, or of a connection
  flashlane explain resp_91d2...         one turn
  flashlane explain req_5c7e... --json   as the admin port has it")]
pub struct Args {
    /// A request id (req_...) or a response id (resp_..., chatcmpl-...)
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
    /// Where the gateway's operators connect
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8701", value_parser = address::listen)]
    admin: SocketAddr,
    /// Print the records as JSON
    #[arg(long)]
    json: bool,
}

/// Ids have no blanks, and nothing that a path could not have.
fn id(text: &str) -> Result<String, &'static str> {
    let is_id = text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if is_id && !text.is_empty() { Ok(text.to_owned()) } else { Err("expected an id such as req_… or resp_…") }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no gateway answers at {admin} (server.admin_listen): its turns are in its memory, so it has to run; name it by --admin"
    )]
    Silent { admin: SocketAddr, source: io::Error },
    #[error("{admin} asks for the admin token: set {TOKEN_VARIABLE}")]
    Token { admin: SocketAddr },
    #[error("{said}")]
    NotFound { said: String },
    #[error("{admin} answered {status}: is it the admin port of a gateway of this version?")]
    Status { admin: SocketAddr, status: String },
    #[error("what {admin} answered are no turns")]
    Unread { admin: SocketAddr, source: serde_json::Error },
    #[error("standard output")]
    Io(#[from] io::Error),
}

#[derive(Deserialize)]
struct Answer {
    turns: Vec<TurnRecord>,
}

#[derive(Deserialize)]
struct Refused {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    message: String,
}

/// Prints what became of a request's turns.
///
/// # Errors
/// Nobody keeps them, or standard output cannot be written.
pub fn run(args: &Args) -> Result<(), Error> {
    let body = asked(args)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{body}")?;
        return Ok(());
    }
    let Answer { turns } = serde_json::from_str(&body).map_err(|source| Error::Unread { admin: args.admin, source })?;
    let has_colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let width = std::env::var("COLUMNS").ok().and_then(|width| width.parse().ok()).unwrap_or(WIDTH_DEFAULT);
    Ok(out.write_all(Picture::new(width, has_colour).of(&turns).as_bytes())?)
}

fn asked(args: &Args) -> Result<String, Error> {
    let admin = args.admin;
    let target = format!("/turns/{}?limit={TURNS_MAX}", args.id);
    let Reply { status, body } = admin::ask(admin, &target).map_err(|source| Error::Silent { admin, source })?;
    match status.split(' ').next() {
        Some("200") => Ok(body),
        Some("401") => Err(Error::Token { admin }),
        Some("404") => Err(match serde_json::from_str(&body) {
            Ok(Refused { error: Said { message } }) => Error::NotFound { said: message },
            Err(_) => Error::Status { admin, status },
        }),
        Some(_) | None => Err(Error::Status { admin, status: status.chars().take(80).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_what_a_path_can_have() {
        assert!(id("req_5c7e").is_ok() && id("chatcmpl-1").is_ok());
        assert!(id("").is_err() && id("req_1/../metrics").is_err() && id("a b").is_err() && id("a?b").is_err());
    }
}
