//! The expired go, a few at a time, while nobody waits. Until then nobody can see them. Knows nothing of contents.

use rusqlite::Connection;

use super::{Writing, moment, responses};
use crate::{Error, Limits};

/// Of responses and of conversations, in one step.
const STEP_ROWS_MAX: i64 = 64;
/// Of the ledger: its rows are small, lie together, and come as quickly as turns do.
const STEP_USAGE_ROWS_MAX: usize = 512;
/// A step ends with what goes beyond this: a commit may be waiting for it, and what goes is written over.
const STEP_BYTES: usize = 1024 * 1024;

pub(super) fn is_due(db: &Connection, limits: &Limits, usage_age_ms_max: u64, now_unix_ms: u64) -> Result<bool, Error> {
    let since = moment(now_unix_ms.saturating_sub(limits.age_ms_max));
    let usage_since = moment(now_unix_ms.saturating_sub(usage_age_ms_max));
    let mut query = db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM responses WHERE id IS NOT NULL AND created_unix_ms < ?1)
         OR EXISTS (SELECT 1 FROM conversations WHERE changed_unix_ms < ?1)
         OR EXISTS (SELECT 1 FROM usage WHERE unix_ms < ?2)",
    )?;
    Ok(query.query_row((since, usage_since), |row| row.get(0))?)
}

/// `true`: it took all of a kind that one step may take, so that there may be more.
pub(super) fn step(writing: &Writing<'_>, usage_age_ms_max: u64, now_unix_ms: u64) -> Result<bool, Error> {
    let since = moment(now_unix_ms.saturating_sub(writing.limits.age_ms_max));
    let numbers = |sql: &str| -> Result<Vec<i64>, Error> {
        let mut query = writing.db.prepare_cached(sql)?;
        Ok(query.query_map((since, STEP_ROWS_MAX), |row| row.get(0))?.collect::<Result<_, _>>()?)
    };
    let old = "SELECT number FROM responses WHERE id IS NOT NULL AND created_unix_ms < ?1
               ORDER BY created_unix_ms LIMIT ?2";
    let bytes_before = writing.totals.get().bytes;
    let is_enough = || bytes_before - writing.totals.get().bytes >= STEP_BYTES;
    let responses = numbers(old)?;
    let mut is_full = responses.len() as i64 == STEP_ROWS_MAX;
    for number in responses.into_iter().take_while(|_| !is_enough()) {
        responses::remove(writing, number)?;
    }
    let old = "SELECT number FROM conversations WHERE changed_unix_ms < ?1 LIMIT ?2";
    let conversations = numbers(old)?;
    is_full |= conversations.len() as i64 == STEP_ROWS_MAX;
    for number in conversations.into_iter().take_while(|_| !is_enough()) {
        writing.remove_conversation(number)?;
    }
    let usage_since = moment(now_unix_ms.saturating_sub(usage_age_ms_max));
    let mut usage = writing
        .db
        .prepare_cached("DELETE FROM usage WHERE number IN (SELECT number FROM usage WHERE unix_ms < ?1 LIMIT ?2)")?;
    is_full |= usage.execute((usage_since, STEP_USAGE_ROWS_MAX as i64))? == STEP_USAGE_ROWS_MAX;
    Ok(is_full || is_enough())
}
