//! The data folder: nobody else's, and one process's at a time; the database file in it, in a format that this version knows.
//!
//! Knows nothing of what the tables hold.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::Error;

/// Each brings the format from its index to the next. Those that have been released never change.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];

const DATABASE: &str = "store.sqlite";

/// Marks a database as this program's (`PRAGMA application_id`): "flsh".
const APPLICATION_ID: i64 = 0x666c_7368;

/// Readers do not block the writer nor it them, but for moments (a checkpoint's end, recovery).
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Of the connection that writes.
const SETTINGS: [(&str, &str); 6] = [
    // Readers see the last commit while another is written.
    ("journal_mode", "wal"),
    // FULL: a commit has been flushed to the disk when it is answered.
    ("synchronous", "2"),
    ("foreign_keys", "1"),
    // What is deleted is overwritten with zeros.
    ("secure_delete", "1"),
    // The log keeps its size between checkpoints, up to 64 MiB.
    ("journal_size_limit", "67108864"),
    // Pages. The writer thread brings the log back between commits; this is for one that never rests.
    ("wal_autocheckpoint", "8000"),
];

/// A folder that this process holds, until it is dropped.
pub(super) struct Folder {
    pub(super) database: PathBuf,
    lock: File,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let unusable = |source| Error::Folder { path: path.to_owned(), source };
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        }
        let lock = private_file(&path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { folder: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let database = path.join(DATABASE);
        // SQLite gives its log and index the permissions of the database.
        drop(private_file(&database)?);
        Ok(Self { database, lock })
    }

    /// The one connection that writes, with the tables as this version wants them.
    pub(super) fn writer(&self, file_bytes_max: u64) -> Result<Connection, Error> {
        let mut db = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        check_format(&self.database, &db)?;
        for (setting, value) in SETTINGS {
            self.set(&db, setting, value)?;
        }
        let page_bytes: u64 = db.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0))?.into();
        let pages_max =
            i64::try_from(file_bytes_max / page_bytes).unwrap_or(i64::MAX).clamp(1, i64::from(u32::MAX) - 1);
        db.pragma_update_and_check(None, "max_page_count", pages_max, |_| Ok(()))?;
        migrate(&mut db)?;
        Ok(db)
    }

    pub(super) fn reader(&self) -> Result<Connection, Error> {
        self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn connect(&self, access: OpenFlags) -> Result<Connection, Error> {
        connect(&self.database, access)
    }

    /// Sets a pragma and sees that it is so: some file systems cannot.
    fn set(&self, db: &Connection, setting: &'static str, value: &str) -> Result<(), Error> {
        db.execute_batch(&format!("PRAGMA {setting} = {value}"))?;
        let is: Value = db.pragma_query_value(None, setting, |row| row.get(0))?;
        let is_set = match is {
            Value::Integer(number) => number.to_string() == value,
            Value::Text(text) => text == value,
            Value::Null | Value::Real(_) | Value::Blob(_) => false,
        };
        if is_set { Ok(()) } else { Err(Error::Setting { path: self.database.clone(), setting }) }
    }
}

/// Said aloud: a process that was just begun has this file too, until it becomes its own program, and would hold the lock for as long.
impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.lock.unlock());
    }
}

/// A folder's database for one who only looks on, whether or not a process holds the folder.
pub(super) fn look_on(path: &Path) -> Result<Connection, Error> {
    let database = path.join(DATABASE);
    database.metadata().map_err(|source| Error::Folder { path: database.clone(), source })?;
    let db = connect(&database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    check_format(&database, &db)?;
    Ok(db)
}

fn connect(database: &Path, access: OpenFlags) -> Result<Connection, Error> {
    let db = Connection::open_with_flags(database, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY_WAIT)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

fn check_format(database: &Path, db: &Connection) -> Result<(), Error> {
    let path = database.to_owned();
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let known = format_known();
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION_ID, found) if found > known => Err(Error::TooNew { path, found, known }),
        (APPLICATION_ID, _) => Ok(()),
        (0, 0) if is_empty(db)? => Ok(()),
        _ => Err(Error::NotOurs { path }),
    }
}

fn is_empty(db: &Connection) -> Result<bool, Error> {
    Ok(db.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))?)
}

fn format_known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// All steps that are missing, in one transaction: a fall between them leaves the format as it was.
fn migrate(db: &mut Connection) -> Result<(), Error> {
    let step = Transaction::new(db, TransactionBehavior::Immediate)?;
    let found: i64 = step.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == format_known() {
        return Ok(());
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or_default()) {
        step.execute_batch(migration)?;
    }
    step.pragma_update(None, "application_id", APPLICATION_ID)?;
    step.pragma_update(None, "user_version", format_known())?;
    Ok(step.commit()?)
}

/// Writes to the folder, or to the nearest around it where it is not there yet, and takes that back.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let unusable = |source| Error::Folder { path: path.to_owned(), source };
    let is_there = |folder: &&Path| folder.as_os_str().is_empty() || folder.exists();
    let nearest = path.ancestors().find(is_there).unwrap_or(path);
    let trial = nearest.join(".flashlane-trial");
    open_private(&trial).map_err(unusable)?;
    // Another process may have tried at the same time.
    match fs::remove_file(&trial) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(unusable(source)),
        Ok(()) | Err(_) => {}
    }
    match OpenOptions::new().write(true).open(path.join(DATABASE)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(unusable(source)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A file that its owner alone may read and write, made if need be.
fn private_file(path: &Path) -> Result<File, Error> {
    open_private(path).map_err(|source| Error::Folder { path: path.to_owned(), source })
}

fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}
