//! The ledger of a running gateway, by `GET /usage` on its admin port. Prints nothing.

use super::{Sum, Used};
use crate::admin::{self, Reply, TOKEN_VARIABLE};
use flashlane_store::Tokens;
use serde::Deserialize;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;

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
    let Reply { status, body } = admin::ask(admin, &target).map_err(|source| Error::Silent { admin, source })?;
    match status.split(' ').next() {
        Some("200") => {}
        Some("401") => return Err(Error::Token { admin }),
        Some(_) | None => {
            let status = if status.is_empty() { "nothing" } else { &status };
            return Err(Error::Status { admin, status: status.chars().take(80).collect() });
        }
    }
    let Answer { rows } = serde_json::from_str(&body).map_err(|source| Error::Unread { admin, source })?;
    let used = |row: Row| {
        let Row { key, model, tier, turns, .. } = row;
        let (input, cached) = (row.input_tokens, row.cached_tokens);
        let tokens = Tokens { input, cached, output: row.output_tokens, reasoning: row.reasoning_tokens };
        Used { key, model, tier, sum: Sum { turns, tokens } }
    };
    Ok(rows.into_iter().map(used).collect())
}
