//! `GET /usage`: what was used in a span of time, by key, model and tier, from the ledger. For `flashlane usage`, where the ledger is in
//! memory, and for whoever else asks. Sums nothing itself.

use crate::reply::{JSON, Refused};
use crate::state::State;
use crate::stored::{Query, failed};
use axum::extract::{self, RawQuery};
use axum::response::{IntoResponse, Response};
use flashlane_engine::{ErrorKind, Owner, Refusal};
use flashlane_store::UsageTotal;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use std::sync::Arc;

const SPAN_MS_DEFAULT: u64 = 7 * 24 * 60 * 60 * 1000;

/// Moments in milliseconds since 1970; without any, the last seven days.
pub(crate) async fn show(
    extract::State(state): extract::State<Arc<State>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::parse(query.as_deref());
    let now_unix_ms = state.clock.now().unix_ms;
    let until = query.number("until_unix_ms")?.unwrap_or(now_unix_ms);
    let since = query.number("since_unix_ms")?.unwrap_or_else(|| until.saturating_sub(SPAN_MS_DEFAULT));
    let totals = state.store.usage_sum(None, since..until).await.map_err(|error| failed(&error))?;
    let rows: Vec<Value> = totals.into_iter().map(|total| row(&state, total)).collect();
    let text = format!("{:#}\n", json!({"since_unix_ms": since, "until_unix_ms": until, "rows": rows}));
    Ok(([(CONTENT_TYPE, JSON)], text).into_response())
}

fn row(state: &State, total: UsageTotal) -> Value {
    let UsageTotal { owner, model, tier, turns, tokens } = total;
    let owner = Owner(owner.0);
    json!({
        "key": state.current().keys.name(&owner).map_or_else(|| owner.unnamed(), str::to_owned),
        "model": model,
        "tier": tier,
        "turns": turns,
        "input_tokens": tokens.input,
        "cached_tokens": tokens.cached,
        "output_tokens": tokens.output,
        "reasoning_tokens": tokens.reasoning,
    })
}

impl Query {
    fn number(&self, name: &'static str) -> Result<Option<u64>, Refused> {
        let Some(value) = self.value(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| {
            let message = format!("Invalid '{name}': it is a moment, in milliseconds since 1970.");
            Refused(Refusal::new(ErrorKind::InvalidValue, message).with_param(name))
        })
    }
}
