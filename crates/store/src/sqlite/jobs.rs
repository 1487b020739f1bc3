//! Background jobs and their journals, beside the responses that they make. Knows nothing of who runs them.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row};

use super::room::{EVENT_BYTES, Newest, RECORD_BYTES};
use super::{Writing, blob, conversations, integer, moment, owner_of, responses, size};
use crate::{EVENTS_READ_MAX, Error, Event, JobState, Journal, OwnerId, Record, UnfinishedJob};

pub(super) fn state(number: i64) -> JobState {
    match number {
        0 => JobState::Queued,
        1 => JobState::InProgress,
        _ => JobState::Finished,
    }
}

pub(super) fn create(writing: &Writing<'_>, record: &Record, request: &Bytes) -> Result<(), Error> {
    let number = responses::insert(writing, record)?;
    let mut job =
        writing.db.prepare_cached("INSERT INTO jobs (response, state, is_cancelled, request) VALUES (?1, 0, 0, ?2)")?;
    job.execute((number, request.as_ref()))?;
    writing.add_bytes(number, request.len())?;
    writing.make_room(Newest { response: Some(number), conversation: None })
}

fn unfinished_number(db: &Connection, owner: OwnerId, id: &str) -> Result<Option<i64>, Error> {
    let mut query = db.prepare_cached(
        "SELECT number FROM responses JOIN jobs ON response = number WHERE owner = ?1 AND id = ?2 AND state < 2",
    )?;
    Ok(query.query_row((owner.0, id), |row| row.get(0)).optional()?)
}

pub(super) fn start(writing: &Writing<'_>, owner: OwnerId, id: &str, response: &Bytes) -> Result<bool, Error> {
    let Some(number) = unfinished_number(writing.db, owner, id)? else { return Ok(false) };
    writing.db.prepare_cached("UPDATE jobs SET state = 1 WHERE response = ?1")?.execute([number])?;
    let mut before = writing.db.prepare_cached("SELECT length(json) FROM bodies WHERE response = ?1")?;
    writing.take_bytes(number, size(before.query_row([number], |row| row.get(0))?))?;
    let mut body = writing.db.prepare_cached("UPDATE bodies SET json = ?2 WHERE response = ?1")?;
    body.execute((number, response.as_ref()))?;
    writing.add_bytes(number, response.len())?;
    writing.make_room(Newest { response: Some(number), conversation: None })?;
    Ok(true)
}

pub(super) fn append(writing: &Writing<'_>, owner: OwnerId, id: &str, events: &[Event]) -> Result<bool, Error> {
    let Some(number) = unfinished_number(writing.db, owner, id)? else { return Ok(false) };
    write_events(writing, number, events)?;
    writing.make_room(Newest { response: Some(number), conversation: None })?;
    Ok(true)
}

fn write_events(writing: &Writing<'_>, number: i64, events: &[Event]) -> Result<(), Error> {
    let mut insert = writing
        .db
        .prepare_cached("INSERT OR REPLACE INTO events (response, sequence_number, json) VALUES (?1, ?2, ?3)")?;
    for event in events {
        insert.execute((number, moment(event.sequence_number), event.json.as_ref()))?;
    }
    writing.add_bytes(number, events.iter().map(|event| event.json.len() + EVENT_BYTES).sum())
}

pub(super) fn finish(writing: &Writing<'_>, record: &Record, events: &[Event]) -> Result<bool, Error> {
    let Some(number) = unfinished_number(writing.db, record.owner, &record.id)? else { return Ok(false) };
    write_events(writing, number, events)?;
    // What was written when it was queued makes way for the whole.
    let mut query = writing.db.prepare_cached(
        "SELECT item_bytes, length(json) + length(request) FROM responses JOIN bodies ON bodies.response = number
         JOIN jobs ON jobs.response = number WHERE number = ?1",
    )?;
    let (item_bytes, other_bytes): (i64, i64) = query.query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let other_bytes = size(other_bytes) + RECORD_BYTES + record.id.len();
    for sql in [
        "UPDATE jobs SET state = 2, request = NULL WHERE response = ?1",
        "DELETE FROM items WHERE response = ?1",
        "UPDATE responses SET item_bytes = 0 WHERE number = ?1",
    ] {
        writing.db.prepare_cached(sql)?.execute([number])?;
    }
    writing.count_bytes(size(item_bytes), 0);
    writing.take_bytes(number, other_bytes)?;
    responses::fill(writing, number, record)?;
    let conversation = conversations::follow(writing, record, number)?;
    writing.make_room(Newest { response: Some(number), conversation })?;
    Ok(true)
}

pub(super) fn cancel(
    writing: &Writing<'_>,
    owner: OwnerId,
    id: &str,
    since_unix_ms: u64,
) -> Result<Option<JobState>, Error> {
    let Some((number, state)) = job(writing.db, owner, id, since_unix_ms)? else { return Ok(None) };
    let mut update = writing.db.prepare_cached("UPDATE jobs SET is_cancelled = 1 WHERE response = ?1 AND state < 2")?;
    update.execute([number])?;
    Ok(Some(state))
}

fn job(db: &Connection, owner: OwnerId, id: &str, since_unix_ms: u64) -> Result<Option<(i64, JobState)>, Error> {
    let mut query = db.prepare_cached(
        "SELECT number, state FROM responses JOIN jobs ON response = number
         WHERE owner = ?1 AND id = ?2 AND created_unix_ms >= ?3",
    )?;
    let found = query.query_row((owner.0, id, moment(since_unix_ms)), |row| Ok((row.get(0)?, state(row.get(1)?))));
    Ok(found.optional()?)
}

/// `after` is below 0 for all of it.
pub(super) fn events(
    db: &Connection,
    owner: OwnerId,
    id: &str,
    after: i64,
    since_unix_ms: u64,
) -> Result<Option<Journal>, Error> {
    let Some((number, state)) = job(db, owner, id, since_unix_ms)? else { return Ok(None) };
    let mut query = db.prepare_cached(
        "SELECT sequence_number, json FROM events WHERE response = ?1 AND sequence_number > ?2
         ORDER BY sequence_number LIMIT ?3",
    )?;
    let read = |row: &Row<'_>| Ok(Event { sequence_number: row.get::<_, i64>(0)?.unsigned_abs(), json: blob(row, 1)? });
    let events = query.query_map((number, after, integer(EVENTS_READ_MAX)), read)?.collect::<Result<_, _>>()?;
    Ok(Some(Journal { state, events }))
}

pub(super) fn request(db: &Connection, owner: OwnerId, id: &str) -> Result<Option<Bytes>, Error> {
    let Some(number) = unfinished_number(db, owner, id)? else { return Ok(None) };
    let mut query = db.prepare_cached("SELECT request FROM jobs WHERE response = ?1")?;
    Ok(Some(query.query_row([number], |row| blob(row, 0))?))
}

pub(super) fn unfinished(db: &Connection) -> Result<Vec<UnfinishedJob>, Error> {
    let mut query = db.prepare_cached(
        "SELECT owner, id, state, is_cancelled, created_unix_ms,
         (SELECT coalesce(max(sequence_number) + 1, 0) FROM events WHERE events.response = number)
         FROM jobs CROSS JOIN responses ON number = response WHERE state < 2 AND id IS NOT NULL
         ORDER BY created_unix_ms, number",
    )?;
    let read = |row: &Row<'_>| {
        Ok(UnfinishedJob {
            owner: owner_of(row, 0)?,
            id: row.get(1)?,
            state: state(row.get(2)?),
            is_cancelled: row.get(3)?,
            created_unix_ms: row.get::<_, i64>(4)?.unsigned_abs(),
            next_sequence_number: row.get::<_, i64>(5)?.unsigned_abs(),
        })
    };
    Ok(query.query_map([], read)?.collect::<Result<_, _>>()?)
}
