//! The ledger of usage: a row for each turn, and their sums. Knows nothing of prices.

use std::ops::Range;
use std::path::Path;

use rusqlite::{Connection, Row};

use super::{Writing, folder, moment, owner_of};
use crate::{Error, OwnerId, Tokens, UsageEntry, UsageTotal};

/// The ledger of a data folder, for one who only looks on: the gateway may be running or not.
pub struct Ledger {
    db: Connection,
}

impl Ledger {
    /// # Errors
    /// When there is no database in the folder, it cannot be read, or is not ours.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let db = folder::look_on(path)?;
        // All sums are of one moment, whatever is written meanwhile.
        db.execute_batch("BEGIN")?;
        Ok(Self { db })
    }

    /// As [`Store::usage_sum`](crate::Store::usage_sum), of everybody's.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn sum(&self, span_unix_ms: &Range<u64>) -> Result<Vec<UsageTotal>, Error> {
        sum(&self.db, None, span_unix_ms)
    }
}

pub(super) fn append(writing: &Writing<'_>, entry: &UsageEntry) -> Result<(), Error> {
    let mut insert = writing.db.prepare_cached(
        "INSERT INTO usage (unix_ms, owner, response_id, model, tier, input_tokens, cached_tokens, output_tokens,
         reasoning_tokens) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let Tokens { input, cached, output, reasoning } = entry.tokens;
    insert.execute((
        moment(entry.unix_ms),
        entry.owner.0,
        &entry.response_id,
        &entry.model,
        &entry.tier,
        moment(input),
        moment(cached),
        moment(output),
        moment(reasoning),
    ))?;
    Ok(())
}

pub(super) fn sum(db: &Connection, owner: Option<OwnerId>, span: &Range<u64>) -> Result<Vec<UsageTotal>, Error> {
    let mut query = db.prepare_cached(
        "SELECT owner, model, tier, count(*), sum(input_tokens), sum(cached_tokens), sum(output_tokens),
         sum(reasoning_tokens) FROM usage
         WHERE unix_ms >= ?1 AND unix_ms < ?2 AND (?3 IS NULL OR owner = ?3) GROUP BY owner, model, tier
         ORDER BY owner, model, tier",
    )?;
    let read = |row: &Row<'_>| {
        let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        let tokens = Tokens { input: count(4)?, cached: count(5)?, output: count(6)?, reasoning: count(7)? };
        let (model, tier) = (row.get(1)?, row.get(2)?);
        Ok(UsageTotal { owner: owner_of(row, 0)?, model, tier, turns: count(3)?, tokens })
    };
    let values = (moment(span.start), moment(span.end), owner.map(|owner| owner.0));
    Ok(query.query_map(values, read)?.collect::<Result<_, _>>()?)
}
