//! Conversations: lists of items that responses are made in, and that clients change. Knows nothing of what an item says.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use super::responses::{listing, numbered};
use super::room::{ITEM_BYTES, Newest, RECORD_BYTES};
use super::{Writing, blob, integer, moment, size};
use crate::item::head;
use crate::{Conversation, Error, Listing, OwnerId, Page, Record};

pub(super) fn create(writing: &Writing<'_>, new: &Conversation, items: &[Bytes]) -> Result<(), Error> {
    if let Some(number) = number(writing.db, new.owner, &new.id, 0)? {
        writing.remove_conversation(number)?;
    }
    let bytes = RECORD_BYTES + new.id.len() + new.metadata.len();
    let created = moment(new.created_unix_ms);
    let mut insert = writing.db.prepare_cached(
        "INSERT INTO conversations (owner, id, created_unix_ms, changed_unix_ms, items, bytes, metadata)
         VALUES (?1, ?2, ?3, ?3, 0, ?4, ?5)",
    )?;
    let number = insert.insert((new.owner.0, &new.id, created, integer(bytes), new.metadata.as_ref()))?;
    writing.count_records(0, 1);
    writing.count_bytes(0, bytes);
    add(writing, number, items, new.created_unix_ms)?;
    writing.make_room(Newest { response: None, conversation: Some(number) })
}

/// Of one that was changed at `since_unix_ms` or later.
fn number(db: &Connection, owner: OwnerId, id: &str, since_unix_ms: u64) -> Result<Option<i64>, Error> {
    let mut query =
        db.prepare_cached("SELECT number FROM conversations WHERE owner = ?1 AND id = ?2 AND changed_unix_ms >= ?3")?;
    Ok(query.query_row((owner.0, id, moment(since_unix_ms)), |row| row.get(0)).optional()?)
}

/// The response whose context is all items of the conversation, if there are as many as this.
pub(super) fn tip(db: &Connection, owner: OwnerId, id: &str, items: usize) -> Result<Option<i64>, Error> {
    let mut query = db.prepare_cached("SELECT tip FROM conversations WHERE owner = ?1 AND id = ?2 AND items = ?3")?;
    Ok(query.query_row((owner.0, id, integer(items)), |row| row.get(0)).optional()?.flatten())
}

/// Adds a response's own items to the conversation that it was made in, and remembers it if it knows all of them.
pub(super) fn follow(writing: &Writing<'_>, record: &Record, response: i64) -> Result<Option<i64>, Error> {
    let Some(id) = &record.conversation else { return Ok(None) };
    let since_unix_ms = record.created_unix_ms.saturating_sub(writing.limits.age_ms_max);
    let Some(number) = number(writing.db, record.owner, id, since_unix_ms)? else { return Ok(None) };
    let mut query = writing.db.prepare_cached("SELECT items FROM conversations WHERE number = ?1")?;
    let items: i64 = query.query_row([number], |row| row.get(0))?;
    add(writing, number, record.own_items(), record.created_unix_ms)?;
    if size(items) == record.inherited {
        let mut update = writing.db.prepare_cached("UPDATE conversations SET tip = ?2 WHERE number = ?1")?;
        update.execute((number, response))?;
    }
    Ok(Some(number))
}

fn add<'a>(
    writing: &Writing<'_>,
    number: i64,
    items: impl IntoIterator<Item = &'a Bytes>,
    now_unix_ms: u64,
) -> Result<(), Error> {
    let mut insert = writing
        .db
        .prepare_cached("INSERT INTO conversation_items (conversation, id, kind, json) VALUES (?1, ?2, ?3, ?4)")?;
    let (mut count, mut new) = (0, 0);
    for item in items {
        let head = head(item);
        insert.execute((number, head.id, head.kind, item.as_ref()))?;
        (count, new) = (count + 1, new + item.len() + ITEM_BYTES);
    }
    let mut update = writing.db.prepare_cached(
        "UPDATE conversations SET items = items + ?2, bytes = bytes + ?3, tip = NULL,
         changed_unix_ms = max(changed_unix_ms, ?4) WHERE number = ?1 RETURNING bytes",
    )?;
    let values = (number, integer(count), integer(new), moment(now_unix_ms));
    let bytes = update.query_row(values, |row| row.get(0))?;
    writing.count_bytes(0, new);
    writing.check_size(size(bytes))
}

pub(super) fn load(
    db: &Connection,
    owner: OwnerId,
    id: &str,
    since_unix_ms: u64,
) -> Result<Option<Conversation>, Error> {
    let Some(number) = number(db, owner, id, since_unix_ms)? else { return Ok(None) };
    let mut query = db.prepare_cached("SELECT metadata, created_unix_ms FROM conversations WHERE number = ?1")?;
    let found = query.query_row([number], |row| {
        let created_unix_ms = row.get::<_, i64>(1)?.unsigned_abs();
        Ok(Conversation { id: id.to_owned(), owner, metadata: blob(row, 0)?, created_unix_ms })
    })?;
    Ok(Some(found))
}

/// A conversation that is to be changed now: its name, and since when it must have been changed to be there.
pub(super) struct Target<'a> {
    pub(super) owner: OwnerId,
    pub(super) id: &'a str,
    pub(super) since_unix_ms: u64,
    pub(super) now_unix_ms: u64,
}

impl Target<'_> {
    fn number(&self, db: &Connection) -> Result<Option<i64>, Error> {
        number(db, self.owner, self.id, self.since_unix_ms)
    }
}

pub(super) fn update(writing: &Writing<'_>, target: &Target<'_>, metadata: &Bytes) -> Result<bool, Error> {
    let Some(number) = target.number(writing.db)? else { return Ok(false) };
    let mut query = writing.db.prepare_cached("SELECT length(metadata) FROM conversations WHERE number = ?1")?;
    let gone: i64 = query.query_row([number], |row| row.get(0))?;
    let mut update = writing.db.prepare_cached(
        "UPDATE conversations SET metadata = ?2, bytes = bytes + ?3,
         changed_unix_ms = max(changed_unix_ms, ?4) WHERE number = ?1",
    )?;
    let grown = integer(metadata.len()) - gone;
    update.execute((number, metadata.as_ref(), grown, moment(target.now_unix_ms)))?;
    writing.count_bytes(size(gone), metadata.len());
    writing.make_room(Newest { response: None, conversation: Some(number) })?;
    Ok(true)
}

pub(super) fn delete(writing: &Writing<'_>, target: &Target<'_>) -> Result<bool, Error> {
    let Some(number) = target.number(writing.db)? else { return Ok(false) };
    writing.remove_conversation(number)?;
    Ok(true)
}

pub(super) fn append(writing: &Writing<'_>, target: &Target<'_>, items: &[Bytes]) -> Result<bool, Error> {
    let Some(number) = target.number(writing.db)? else { return Ok(false) };
    add(writing, number, items, target.now_unix_ms)?;
    writing.make_room(Newest { response: None, conversation: Some(number) })?;
    Ok(true)
}

pub(super) fn items(
    db: &Connection,
    owner: OwnerId,
    id: &str,
    page: &Page,
    since_unix_ms: u64,
) -> Result<Option<Listing>, Error> {
    let Some(number) = number(db, owner, id, since_unix_ms)? else { return Ok(None) };
    let mut query =
        db.prepare_cached("SELECT number, id FROM conversation_items WHERE conversation = ?1 ORDER BY number")?;
    let all = query.query_map([number], numbered)?.collect::<Result<Vec<_>, _>>()?;
    let mut json = db.prepare_cached("SELECT json FROM conversation_items WHERE number = ?1")?;
    listing(&all, page, |number| Ok(json.query_row([number], |row| blob(row, 0))?)).map(Some)
}

pub(super) fn item(
    db: &Connection,
    owner: OwnerId,
    id: &str,
    item_id: &str,
    since_unix_ms: u64,
) -> Result<Option<Bytes>, Error> {
    let Some(number) = number(db, owner, id, since_unix_ms)? else { return Ok(None) };
    let mut query = db.prepare_cached(
        "SELECT json FROM conversation_items WHERE conversation = ?1 AND id = ?2 ORDER BY number DESC LIMIT 1",
    )?;
    Ok(query.query_row((number, item_id), |row| blob(row, 0)).optional()?)
}

pub(super) fn delete_item(writing: &Writing<'_>, target: &Target<'_>, item_id: &str) -> Result<bool, Error> {
    let Some(number) = target.number(writing.db)? else { return Ok(false) };
    let mut delete = writing.db.prepare_cached(
        "DELETE FROM conversation_items WHERE number =
         (SELECT max(number) FROM conversation_items WHERE conversation = ?1 AND id = ?2) RETURNING length(json)",
    )?;
    let found: Option<i64> = delete.query_row((number, item_id), |row| row.get(0)).optional()?;
    let Some(bytes) = found else { return Ok(false) };
    let gone = size(bytes) + ITEM_BYTES;
    let mut update = writing.db.prepare_cached(
        "UPDATE conversations SET items = items - 1, bytes = bytes - ?2, tip = NULL,
         changed_unix_ms = max(changed_unix_ms, ?3) WHERE number = ?1",
    )?;
    update.execute((number, integer(gone), moment(target.now_unix_ms)))?;
    writing.count_bytes(gone, 0);
    Ok(true)
}
