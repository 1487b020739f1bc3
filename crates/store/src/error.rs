//! What can go wrong with a store. Knows nothing of how clients are told.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a record of {bytes} bytes, and the store holds {bytes_max}")]
    RecordTooLarge { bytes: usize, bytes_max: usize },
    #[error("no room in the {bytes_max} bytes and {records_max} records of the store: what it holds is not finished")]
    Full { bytes_max: usize, records_max: usize },
    #[error("{queue_max} requests wait for the store already")]
    Busy { queue_max: usize },
    #[error("the store has not answered within {ms_max} ms")]
    Slow { ms_max: u64 },
    #[error("the store is closed")]
    Closed,
    #[error("another process holds the data folder {}", folder.display())]
    Locked { folder: PathBuf },
    #[error("{} cannot be used", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} was written by a newer version: its format is {found}, and this version knows {known}", path.display())]
    TooNew { path: PathBuf, found: i64, known: i64 },
    #[error("{} is a database, but not of this program", path.display())]
    NotOurs { path: PathBuf },
    #[error("{} does not take the setting {setting}: is it on a file system of this machine?", path.display())]
    Setting { path: PathBuf, setting: &'static str },
    #[error("the store's disk is full, or its file has reached its limit")]
    DiskFull {
        #[source]
        source: rusqlite::Error,
    },
    #[error("the store's disk fails")]
    Disk {
        #[source]
        source: rusqlite::Error,
    },
    #[error("the store's file is damaged, or is no database")]
    Damaged {
        #[source]
        source: rusqlite::Error,
    },
    #[error("the store's database refuses")]
    Database {
        #[source]
        source: rusqlite::Error,
    },
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull { source },
            Some(
                rusqlite::ErrorCode::SystemIoFailure
                | rusqlite::ErrorCode::CannotOpen
                | rusqlite::ErrorCode::ReadOnly
                | rusqlite::ErrorCode::PermissionDenied,
            ) => Self::Disk { source },
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => Self::Damaged { source },
            Some(_) | None => Self::Database { source },
        }
    }
}
