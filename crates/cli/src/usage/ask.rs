//! The ledger of a running gateway, by `GET /usage` on its admin port. Prints nothing.

use super::{Sum, Used};
use crate::admin::{self, Admin};
use flashlane_store::Tokens;
use serde::Deserialize;
use std::ops::Range;

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

pub(super) async fn used(admin: &Admin, span_unix_ms: &Range<u64>) -> Result<Vec<Used>, admin::Error> {
    let path = format!("/usage?since_unix_ms={}&until_unix_ms={}", span_unix_ms.start, span_unix_ms.end);
    let Answer { rows } = admin.read(&path).await?;
    let used = |row: Row| {
        let Row { key, model, tier, turns, .. } = row;
        let (input, cached) = (row.input_tokens, row.cached_tokens);
        let tokens = Tokens { input, cached, output: row.output_tokens, reasoning: row.reasoning_tokens };
        Used { key, model, tier, sum: Sum { turns, tokens } }
    };
    Ok(rows.into_iter().map(used).collect())
}
