//! `GET /turns` and `GET /turns/{id}`: the last turns that have ended, as records. Reads them, and decides nothing.

use crate::reply::{JSON, Refused};
use crate::state::State;
use axum::extract::{self, Path, Query};
use axum::response::{IntoResponse, Response};
use flashlane_engine::ErrorKind;
use flashlane_telemetry::TurnRecord;
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Records in one answer, where no number is asked for, and at most.
const COUNT: usize = 50;
const COUNT_MAX: usize = 1000;

/// `?limit=`, and `?after=`: those that came after the one of this number, oldest first.
#[derive(Deserialize)]
pub(super) struct Wanted {
    limit: Option<usize>,
    after: Option<u64>,
}

#[derive(Serialize)]
struct Answer<'a> {
    turns: &'a [Shown],
    /// Turns that are kept now, and at most.
    kept: usize,
    kept_max: usize,
}

/// serde's shared pointers are a feature of theirs that nothing else needs.
struct Shown(Arc<TurnRecord>);

impl Serialize for Shown {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// The newest first.
pub(super) async fn list(
    extract::State(state): extract::State<Arc<State>>,
    Query(Wanted { limit, after }): Query<Wanted>,
) -> Result<Response, Refused> {
    let count_max = limit.unwrap_or(COUNT).min(COUNT_MAX);
    let found = match after {
        Some(number) => state.turns.since(number, count_max),
        None => state.turns.latest(count_max),
    };
    answer(&state, found)
}

/// Those of a request id or a response id, the newest first.
pub(super) async fn one(
    extract::State(state): extract::State<Arc<State>>,
    Path(id): Path<String>,
    Query(Wanted { limit, .. }): Query<Wanted>,
) -> Result<Response, Refused> {
    let found = state.turns.of(&id, limit.unwrap_or(COUNT).min(COUNT_MAX));
    if found.is_empty() {
        return Err(Refused::new(ErrorKind::ResponseNotFound, not_found(&state, &id)));
    }
    answer(&state, found)
}

fn answer(state: &State, found: Vec<Arc<TurnRecord>>) -> Result<Response, Refused> {
    let turns: Vec<_> = found.into_iter().map(Shown).collect();
    let answer = Answer { turns: &turns, kept: state.turns.len(), kept_max: state.turns.kept_max() };
    let json = serde_json::to_vec(&answer).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "turns cannot be written");
        Refused::new(ErrorKind::Internal, "The turns cannot be written.")
    })?;
    Ok(([(CONTENT_TYPE, JSON)], json).into_response())
}

/// Why it is not there, as far as can be told.
fn not_found(state: &State, id: &str) -> String {
    let kept_max = state.turns.kept_max();
    let Some(oldest) = state.turns.oldest() else {
        return match kept_max {
            0 => "No turn is kept here: `telemetry.turns_kept_max` is 0.".to_owned(),
            _ => format!("No turn of '{id}' is known: none has ended since the start."),
        };
    };
    let began_ms = oldest.began_unix_us / 1000;
    let minutes = state.clock.now().unix_ms.saturating_sub(began_ms) / 60_000;
    let whole = match oldest.number {
        1 => "all since the start".to_owned(),
        _ => format!("the oldest began {minutes} min ago"),
    };
    format!(
        "No turn of '{id}' is known. The last {kept_max} turns are kept (`telemetry.turns_kept_max`), {} now: {whole}. \
         A turn that still runs is not among them.",
        state.turns.len()
    )
}
