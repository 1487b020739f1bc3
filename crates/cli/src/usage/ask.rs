//! The ledger of a running gateway, by `GET /usage` on its admin port. Prints nothing.

use super::{Sum, Used};
use flashlane_store::Tokens;
use serde::Deserialize;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

const WAIT_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const TOKEN_VARIABLE: &str = "FLASHLANE_ADMIN_TOKEN";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no gateway answers at {admin} (server.admin_listen): its ledger is in memory, so it has to run; or name a data folder by --folder"
    )]
    Silent { admin: SocketAddr, source: io::Error },
    #[error("{admin} asks for the admin token: set {TOKEN_VARIABLE}")]
    Token { admin: SocketAddr },
    #[error("{admin} answered {status}: is it the admin port of a gateway of this version?")]
    Status { admin: SocketAddr, status: String },
    #[error("what {admin} answered is no ledger")]
    Unread { admin: SocketAddr, source: serde_json::Error },
}

#[derive(Deserialize)]
struct Answer {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    key: String,
    model: String,
    tier: String,
    turns: u64,
    input_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
}

pub(super) fn used(admin: SocketAddr, span_unix_ms: &Range<u64>) -> Result<Vec<Used>, Error> {
    let target = format!("/usage?since_unix_ms={}&until_unix_ms={}", span_unix_ms.start, span_unix_ms.end);
    let answer = exchange(admin, &target).map_err(|source| Error::Silent { admin, source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    let status = status.split_once(' ').map_or(status, |(_, status)| status);
    match status.split(' ').next() {
        Some("200") => {}
        Some("401") => return Err(Error::Token { admin }),
        Some(_) | None => {
            let status = if status.is_empty() { "nothing" } else { status };
            return Err(Error::Status { admin, status: status.chars().take(80).collect() });
        }
    }
    let Answer { rows } = serde_json::from_str(body).map_err(|source| Error::Unread { admin, source })?;
    let used = |row: Row| {
        let Row { key, model, tier, turns, .. } = row;
        let (input, cached) = (row.input_tokens, row.cached_tokens);
        let tokens = Tokens { input, cached, output: row.output_tokens, reasoning: row.reasoning_tokens };
        Used { key, model, tier, sum: Sum { turns, tokens } }
    };
    Ok(rows.into_iter().map(used).collect())
}

fn exchange(admin: SocketAddr, target: &str) -> io::Result<String> {
    let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
    let token = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    let mut socket = TcpStream::connect_timeout(&admin, WAIT_MAX)?;
    socket.set_read_timeout(Some(WAIT_MAX))?;
    socket.set_write_timeout(Some(WAIT_MAX))?;
    let head = format!("GET {target} HTTP/1.1\r\nhost: {admin}\r\n{token}connection: close\r\n\r\n");
    socket.write_all(head.as_bytes())?;
    let mut answer = String::new();
    socket.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
