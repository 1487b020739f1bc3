//! How full the database is, and who makes room: the oldest that is finished. Knows nothing of contents.

use rusqlite::{Connection, OptionalExtension};

use super::{Writing, integer, responses, size};
use crate::{Error, Limits};

/// What a row of each kind costs beside its contents, the indexes included; measured, rounded up.
pub(super) const RECORD_BYTES: usize = 512;
pub(super) const ITEM_BYTES: usize = 192;
pub(super) const EVENT_BYTES: usize = 16;

/// Of records and conversations, the expired that nobody has swept yet included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) bytes: usize,
    pub(super) records: usize,
}

impl Totals {
    pub(super) fn of(db: &Connection) -> Result<Self, Error> {
        let read = |sql| db.query_row(sql, [], |row| Ok(Self { bytes: size(row.get(0)?), records: size(row.get(1)?) }));
        let responses: Self = read("SELECT coalesce(sum(item_bytes + other_bytes), 0), count(id) FROM responses")?;
        let conversations: Self = read("SELECT coalesce(sum(bytes), 0), count(*) FROM conversations")?;
        Ok(Self { bytes: responses.bytes + conversations.bytes, records: responses.records + conversations.records })
    }

    fn fits(self, limits: &Limits) -> bool {
        self.bytes <= limits.bytes_max && self.records <= limits.records_max.max(1)
    }
}

/// What has just been written, and is not to go for it.
#[derive(Clone, Copy, Default)]
pub(super) struct Newest {
    pub(super) response: Option<i64>,
    pub(super) conversation: Option<i64>,
}

impl Writing<'_> {
    /// Counts a change of the total size.
    pub(super) fn count_bytes(&self, gone: usize, new: usize) {
        let totals = self.totals.get();
        self.totals.set(Totals { bytes: (totals.bytes + new).saturating_sub(gone), ..totals });
    }

    pub(super) fn count_records(&self, gone: usize, new: usize) {
        let totals = self.totals.get();
        self.totals.set(Totals { records: (totals.records + new).saturating_sub(gone), ..totals });
    }

    /// Refuses what would not fit into an empty store.
    pub(super) fn check_size(&self, bytes: usize) -> Result<(), Error> {
        let bytes_max = self.limits.bytes_max;
        if bytes > bytes_max { Err(Error::RecordTooLarge { bytes, bytes_max }) } else { Ok(()) }
    }

    /// The oldest go until all is within the limits again.
    pub(super) fn make_room(&self, newest: Newest) -> Result<(), Error> {
        while !self.totals.get().fits(self.limits) {
            match (self.oldest_response(newest.response)?, self.oldest_conversation(newest.conversation)?) {
                (Some((number, at)), Some((_, other_at))) if at <= other_at => responses::remove(self, number)?,
                (_, Some((number, _))) => self.remove_conversation(number)?,
                (Some((number, _)), None) => responses::remove(self, number)?,
                (None, None) => {
                    let Limits { bytes_max, records_max, .. } = *self.limits;
                    return Err(Error::Full { bytes_max, records_max });
                }
            }
        }
        Ok(())
    }

    fn oldest_response(&self, but: Option<i64>) -> Result<Option<(i64, i64)>, Error> {
        self.oldest(
            "SELECT number, created_unix_ms FROM responses WHERE id IS NOT NULL AND number IS NOT ?1
             AND NOT EXISTS (SELECT 1 FROM jobs WHERE response = number AND state < 2)
             ORDER BY created_unix_ms, number LIMIT 1",
            but,
        )
    }

    fn oldest_conversation(&self, but: Option<i64>) -> Result<Option<(i64, i64)>, Error> {
        self.oldest(
            "SELECT number, changed_unix_ms FROM conversations WHERE number IS NOT ?1
             ORDER BY changed_unix_ms, number LIMIT 1",
            but,
        )
    }

    fn oldest(&self, sql: &str, but: Option<i64>) -> Result<Option<(i64, i64)>, Error> {
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row([but], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    }

    pub(super) fn remove_conversation(&self, number: i64) -> Result<(), Error> {
        let mut delete = self.db.prepare_cached("DELETE FROM conversations WHERE number = ?1 RETURNING bytes")?;
        let bytes = delete.query_row([number], |row| row.get(0))?;
        self.count_bytes(size(bytes), 0);
        self.count_records(1, 0);
        Ok(())
    }

    /// Adds to what a response is counted for beside its items.
    pub(super) fn add_bytes(&self, response: i64, bytes: usize) -> Result<(), Error> {
        let mut update =
            self.db.prepare_cached("UPDATE responses SET other_bytes = other_bytes + ?2 WHERE number = ?1")?;
        update.execute((response, integer(bytes)))?;
        self.count_bytes(0, bytes);
        Ok(())
    }

    pub(super) fn take_bytes(&self, response: i64, bytes: usize) -> Result<(), Error> {
        let mut update =
            self.db.prepare_cached("UPDATE responses SET other_bytes = other_bytes - ?2 WHERE number = ?1")?;
        update.execute((response, integer(bytes)))?;
        self.count_bytes(bytes, 0);
        Ok(())
    }
}
