//! `flashlane explain`: where a turn went, what it waited for, what failed it, and where its time went. Reads the records that a running
//! gateway keeps, on its admin port; knows no config and no protocol of clients.

mod picture;

use crate::admin::{self, Admin};
use flashlane_telemetry::TurnRecord;
use picture::Picture;
use serde::Deserialize;
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;

/// Turns of one id that are asked for.
const TURNS_MAX: usize = 1000;
/// What every terminal has.
const WIDTH_DEFAULT: usize = 80;

/// Arguments of `flashlane explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "A request id is the x-request-id of an answer, of a WebSocket's handshake, or of a line in the
log; over one WebSocket all turns have the same, and are listed. A gateway keeps its last turns
(telemetry.turns_kept_max in its config) in memory: none of before its start, none that still
runs. Where its admin port asks for a token, FLASHLANE_ADMIN_TOKEN or --token-file holds it; where
it asks for a client certificate, --cert names that.

Examples:
  flashlane explain req_5c7e...          the turns of a request, or of a connection
  flashlane explain resp_91d2...         one turn
  flashlane explain req_5c7e... --json   as the admin port has it: {\"turns\": [...]}
  flashlane explain resp_91d2... --admin https://10.0.0.5:8701 --cacert admin-ca.crt")]
pub struct Args {
    /// A request id (req_...) or a response id (resp_..., chatcmpl-...)
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
    /// The config that says where operators connect, a TOML file [env: FLASHLANE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    admin: admin::Flags,
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
    /// Its turns are in its memory: it has to run.
    #[error(transparent)]
    Gateway(#[from] admin::Error),
    #[error("standard output")]
    Io(#[from] io::Error),
}

#[derive(Deserialize)]
struct Answer {
    turns: Vec<TurnRecord>,
}

/// Prints what became of a request's turns. `configured` is the admin port of the config, as a URL.
///
/// # Errors
/// Nobody keeps them, or standard output cannot be written.
pub async fn run(args: &Args, configured: Option<&str>) -> Result<(), Error> {
    let admin = Admin::new(&args.admin, configured)?;
    let body = admin.ask(&format!("/turns/{}?limit={TURNS_MAX}", args.id)).await?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{body}")?;
        return Ok(());
    }
    let Answer { turns } = admin.parse(&body)?;
    let has_colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let width = std::env::var("COLUMNS").ok().and_then(|width| width.parse().ok()).unwrap_or(WIDTH_DEFAULT);
    Ok(out.write_all(Picture::new(width, has_colour).of(&turns).as_bytes())?)
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
