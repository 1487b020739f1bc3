//! Responses and their items. A response whose parent is kept has only its own items; its context is those of its parents, from the
//! root, then its own. One that goes while others go on from it loses its name and body, and its items stay as long as they do.
//!
//! Knows nothing of transactions: whoever calls is in one.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row};

use super::room::{ITEM_BYTES, Newest, RECORD_BYTES};
use super::{Writing, blob, conversations, integer, jobs, moment, size};
use crate::item::{self, head};
use crate::{Error, Items, Listing, OwnerId, Page, Record, Retrieved};

/// Where a record's items go: all of them, or its own beside those of a parent that has the others.
struct Place {
    parent: Option<i64>,
    /// How many the parent has.
    above: usize,
}

impl Place {
    fn items<'a>(&self, record: &'a Record) -> impl Iterator<Item = &'a Bytes> + Clone {
        record.items.iter().skip(self.above)
    }
}

pub(super) fn commit(writing: &Writing<'_>, record: &Record) -> Result<(), Error> {
    let number = insert(writing, record)?;
    let conversation = conversations::follow(writing, record, number)?;
    writing.make_room(Newest { response: Some(number), conversation })
}

/// A new row with all that belongs to it, in the place of one with the same name. Room is the caller's to make.
pub(super) fn insert(writing: &Writing<'_>, record: &Record) -> Result<i64, Error> {
    if let Some(number) = number(writing.db, record.owner, &record.id)? {
        remove(writing, number)?;
    }
    let mut row = writing.db.prepare_cached(
        "INSERT INTO responses (owner, id, created_unix_ms, inherited, outputs, items, item_bytes, other_bytes)
         VALUES (?1, ?2, ?3, 0, 0, 0, 0, 0)",
    )?;
    let number = row.insert((record.owner.0, &record.id, moment(record.created_unix_ms)))?;
    writing.count_records(0, 1);
    fill(writing, number, record)?;
    Ok(number)
}

/// Writes what a record holds into its row, and its items and body beside it. There are no items in its name yet.
pub(super) fn fill(writing: &Writing<'_>, number: i64, record: &Record) -> Result<(), Error> {
    let place = place(writing, number, record)?;
    let item_bytes: usize = place.items(record).map(|item| item.len() + ITEM_BYTES).sum();
    let other_bytes = RECORD_BYTES + record.id.len() + record.response.len();
    writing.check_size(item_bytes + other_bytes)?;
    let mut row = writing.db.prepare_cached(
        "UPDATE responses SET parent = ?2, previous = ?3, conversation = ?4, inherited = ?5, outputs = ?6, items = ?7,
         created_unix_ms = ?8, item_bytes = item_bytes + ?9, other_bytes = other_bytes + ?10 WHERE number = ?1",
    )?;
    row.execute((
        number,
        place.parent,
        &record.previous,
        &record.conversation,
        integer(record.inherited),
        integer(record.outputs),
        integer(record.items.len()),
        moment(record.created_unix_ms),
        integer(item_bytes),
        integer(other_bytes),
    ))?;
    let mut body = writing.db.prepare_cached("INSERT OR REPLACE INTO bodies (response, json) VALUES (?1, ?2)")?;
    body.execute((number, record.response.as_ref()))?;
    let mut insert = writing
        .db
        .prepare_cached("INSERT INTO items (response, is_own, id, kind, json) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let inherited = place.items(record).count() - record.own_items().count();
    for (at, item) in place.items(record).enumerate() {
        let head = head(item);
        insert.execute((number, at >= inherited, head.id, head.kind, item.as_ref()))?;
    }
    writing.count_bytes(0, item_bytes + other_bytes);
    Ok(())
}

/// A parent must have exactly the items that the record inherits, and gain no more. So no line of parents comes back to where it began:
/// whoever is given a parent here was nobody's until now.
fn place(writing: &Writing<'_>, child: i64, record: &Record) -> Result<Place, Error> {
    // Once found it stays, whether it still has a name or not: its items would be nobody's.
    let mut present = writing.db.prepare_cached("SELECT parent FROM responses WHERE number = ?1")?;
    let present: Option<i64> = present.query_row([child], |row| row.get(0)).optional()?.flatten();
    let candidate = match (&record.previous, &record.conversation) {
        _ if present.is_some() => present,
        (Some(previous), _) => number(writing.db, record.owner, previous)?,
        (None, Some(conversation)) => conversations::tip(writing.db, record.owner, conversation, record.inherited)?,
        (None, None) => None,
    };
    let candidate = candidate.filter(|parent| *parent != child && record.inherited > 0);
    let Some(parent) = candidate else { return Ok(Place { parent: None, above: 0 }) };
    let mut query = writing.db.prepare_cached(
        "SELECT items = ?2 AND NOT EXISTS (SELECT 1 FROM jobs WHERE response = number AND state < 2)
         FROM responses WHERE number = ?1",
    )?;
    let is_parent = query.query_row((parent, integer(record.inherited)), |row| row.get(0)).optional()?;
    if is_parent == Some(true) && record.inherited <= record.items.len() {
        return Ok(Place { parent: Some(parent), above: record.inherited });
    }
    Ok(Place { parent: None, above: 0 })
}

/// Whatever its age.
pub(super) fn number(db: &Connection, owner: OwnerId, id: &str) -> Result<Option<i64>, Error> {
    number_since(db, owner, id, 0)
}

/// Of one that was created at `since_unix_ms` or later.
pub(super) fn number_since(
    db: &Connection,
    owner: OwnerId,
    id: &str,
    since_unix_ms: u64,
) -> Result<Option<i64>, Error> {
    let mut query =
        db.prepare_cached("SELECT number FROM responses WHERE owner = ?1 AND id = ?2 AND created_unix_ms >= ?3")?;
    Ok(query.query_row((owner.0, id, moment(since_unix_ms)), |row| row.get(0)).optional()?)
}

/// Takes a response away, and with it those before it that were kept only for its sake.
pub(super) fn remove(writing: &Writing<'_>, number: i64) -> Result<(), Error> {
    writing.count_records(1, 0);
    if has_children(writing.db, number)? {
        return keep_items_only(writing, number);
    }
    let mut delete = writing
        .db
        .prepare_cached("DELETE FROM responses WHERE number = ?1 RETURNING item_bytes + other_bytes, parent")?;
    let mut next = Some(number);
    while let Some(number) = next {
        let (bytes, parent): (i64, Option<i64>) = delete.query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        writing.count_bytes(size(bytes), 0);
        next = match parent {
            Some(parent) if is_nameless(writing.db, parent)? && !has_children(writing.db, parent)? => Some(parent),
            Some(_) | None => None,
        };
    }
    Ok(())
}

fn keep_items_only(writing: &Writing<'_>, number: i64) -> Result<(), Error> {
    for sql in ["DELETE FROM bodies WHERE response = ?1", "DELETE FROM jobs WHERE response = ?1"] {
        writing.db.prepare_cached(sql)?.execute([number])?;
    }
    let mut query = writing.db.prepare_cached("SELECT other_bytes FROM responses WHERE number = ?1")?;
    let gone = query.query_row([number], |row| row.get(0))?;
    let mut update = writing.db.prepare_cached(
        "UPDATE responses SET id = NULL, previous = NULL, conversation = NULL, other_bytes = ?2 WHERE number = ?1",
    )?;
    update.execute((number, integer(RECORD_BYTES)))?;
    // A conversation goes on from what is there by name alone.
    writing.db.prepare_cached("UPDATE conversations SET tip = NULL WHERE tip = ?1")?.execute([number])?;
    writing.count_bytes(size(gone), RECORD_BYTES);
    Ok(())
}

fn has_children(db: &Connection, number: i64) -> Result<bool, Error> {
    let mut query = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM responses WHERE parent = ?1)")?;
    Ok(query.query_row([number], |row| row.get(0))?)
}

fn is_nameless(db: &Connection, number: i64) -> Result<bool, Error> {
    let mut query = db.prepare_cached("SELECT id IS NULL FROM responses WHERE number = ?1")?;
    Ok(query.query_row([number], |row| row.get(0))?)
}

pub(super) fn delete(writing: &Writing<'_>, owner: OwnerId, id: &str, since_unix_ms: u64) -> Result<bool, Error> {
    let Some(number) = number_since(writing.db, owner, id, since_unix_ms)? else { return Ok(false) };
    remove(writing, number)?;
    Ok(true)
}

pub(super) fn load(db: &Connection, owner: OwnerId, id: &str, since_unix_ms: u64) -> Result<Option<Record>, Error> {
    let mut query = db.prepare_cached(
        "SELECT previous, conversation, inherited, outputs, items, created_unix_ms, json, number
         FROM responses JOIN bodies ON response = number WHERE owner = ?1 AND id = ?2 AND created_unix_ms >= ?3",
    )?;
    let found = query.query_row((owner.0, id, moment(since_unix_ms)), |row| {
        let record = Record {
            id: id.to_owned(),
            owner,
            previous: row.get(0)?,
            conversation: row.get(1)?,
            items: Items::default(),
            inherited: size(row.get(2)?),
            outputs: size(row.get(3)?),
            response: blob(row, 6)?,
            created_unix_ms: row.get::<_, i64>(5)?.unsigned_abs(),
        };
        Ok((record, row.get(7)?, size(row.get(4)?)))
    });
    let Some((mut record, number, count)) = found.optional()? else { return Ok(None) };
    let mut items = Vec::with_capacity(count);
    let mut own = db.prepare_cached("SELECT json FROM items WHERE response = ?1 ORDER BY number")?;
    for number in lineage(db, number)? {
        for item in own.query_map([number], |row| blob(row, 0))? {
            items.push(item?);
        }
    }
    record.items = items.into();
    Ok(Some(record))
}

/// The rows whose items are a response's context, from the first to its own.
fn lineage(db: &Connection, number: i64) -> Result<Vec<i64>, Error> {
    let mut query = db.prepare_cached("SELECT parent FROM responses WHERE number = ?1")?;
    let mut rows = vec![number];
    let mut at = number;
    while let Some(parent) = query.query_row([at], |row| row.get::<_, Option<i64>>(0))? {
        rows.push(parent);
        at = parent;
    }
    rows.reverse();
    Ok(rows)
}

pub(super) fn retrieve(
    db: &Connection,
    owner: OwnerId,
    id: &str,
    since_unix_ms: u64,
) -> Result<Option<Retrieved>, Error> {
    let mut query = db.prepare_cached(
        "SELECT json, created_unix_ms, state FROM responses JOIN bodies ON bodies.response = number
         LEFT JOIN jobs ON jobs.response = number WHERE owner = ?1 AND id = ?2 AND created_unix_ms >= ?3",
    )?;
    let retrieved = query.query_row((owner.0, id, moment(since_unix_ms)), |row| {
        Ok(Retrieved {
            response: blob(row, 0)?,
            created_unix_ms: row.get::<_, i64>(1)?.unsigned_abs(),
            job: row.get::<_, Option<i64>>(2)?.map(jobs::state),
        })
    });
    Ok(retrieved.optional()?)
}

pub(super) fn input_items(
    db: &Connection,
    owner: OwnerId,
    id: &str,
    page: &Page,
    since_unix_ms: u64,
) -> Result<Option<Listing>, Error> {
    let Some(number) = number_since(db, owner, id, since_unix_ms)? else { return Ok(None) };
    let outputs: i64 =
        db.prepare_cached("SELECT outputs FROM responses WHERE number = ?1")?.query_row([number], |row| row.get(0))?;
    let mut own = db.prepare_cached("SELECT number, id FROM items WHERE response = ?1 ORDER BY number")?;
    let mut all = Vec::new();
    for number in lineage(db, number)? {
        for item in own.query_map([number], numbered)? {
            all.push(item?);
        }
    }
    all.truncate(all.len().saturating_sub(size(outputs)));
    let mut json = db.prepare_cached("SELECT json FROM items WHERE number = ?1")?;
    listing(&all, page, |number| Ok(json.query_row([number], |row| blob(row, 0))?)).map(Some)
}

/// The number of an item's row, and the item's id.
pub(super) fn numbered(row: &Row<'_>) -> rusqlite::Result<(i64, Option<String>)> {
    Ok((row.get(0)?, row.get(1)?))
}

/// A page of items, of which only those on it are read.
pub(super) fn listing(
    all: &[(i64, Option<String>)],
    page: &Page,
    mut read: impl FnMut(i64) -> Result<Bytes, Error>,
) -> Result<Listing, Error> {
    let all: Vec<(i64, Option<&str>)> = all.iter().map(|(number, id)| (*number, id.as_deref())).collect();
    let Some((taken, has_more)) = item::page(&all, page, |(_, id), after| id == Some(after)) else {
        return Ok(Listing::NoSuchItem);
    };
    let items = taken.into_iter().map(|(number, _)| read(number)).collect::<Result<_, _>>()?;
    Ok(Listing::Items { items, has_more })
}

pub(super) fn find_items(
    db: &Connection,
    owner: OwnerId,
    ids: &[String],
    since_unix_ms: u64,
) -> Result<Vec<Option<Bytes>>, Error> {
    let mut query = db.prepare_cached(
        "SELECT json FROM items JOIN responses ON responses.number = items.response
         WHERE items.id = ?1 AND is_own = 1 AND owner = ?2 AND responses.id IS NOT NULL AND created_unix_ms >= ?3
         ORDER BY items.number DESC LIMIT 1",
    )?;
    let mut find = |id: &String| {
        let found = query.query_row((id, owner.0, moment(since_unix_ms)), |row| blob(row, 0));
        found.optional()
    };
    Ok(ids.iter().map(&mut find).collect::<Result<_, _>>()?)
}
