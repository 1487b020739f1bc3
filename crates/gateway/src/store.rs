//! `[store]`: where responses are kept that clients may come back to (`store: true`), how much and how long. Knows nothing of responses.

use flashlane_store::{Error, Limits, MemoryStore, Options, SqliteStore, Store};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// Each field may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The data folder, of this process alone; made if it is not there. Default none: in memory, forgotten at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Bytes of all of it together; the oldest make room. Default 256 MiB, in a folder 16 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<usize>,
    /// How many. Default 100,000, in a folder 1,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_max: Option<usize>,
    /// How long each is kept, in milliseconds. Default a day, in a folder 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms_max: Option<u64>,
    /// What the folder's database may grow to, in bytes, whatever `bytes_max` counts. Default 64 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes_max: Option<u64>,
    /// How long the folder's ledger of usage goes back, in milliseconds. Default 400 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_age_ms_max: Option<u64>,
}

/// What `[store]` amounts to.
#[derive(Debug, Clone)]
pub enum Place {
    Memory(Limits),
    Folder(Options),
}

impl StoreConfig {
    /// # Errors
    /// A field that means nothing without another: its name, and why.
    pub fn place(self) -> Result<Place, (&'static str, &'static str)> {
        let Self { folder, bytes_max, records_max, age_ms_max, file_bytes_max, usage_age_ms_max } = self;
        let limits = |default: Limits| Limits {
            bytes_max: bytes_max.unwrap_or(default.bytes_max),
            records_max: records_max.unwrap_or(default.records_max),
            age_ms_max: age_ms_max.unwrap_or(default.age_ms_max),
        };
        let Some(folder) = folder else {
            let of_folders =
                [("file_bytes_max", file_bytes_max.is_some()), ("usage_age_ms_max", usage_age_ms_max.is_some())];
            return match of_folders.into_iter().find(|(_, is_set)| *is_set) {
                Some((field, _)) => Err((field, "is of a store in a folder: expected store.folder beside it")),
                None => Ok(Place::Memory(limits(Limits::default()))),
            };
        };
        if folder.as_os_str().is_empty() {
            return Err(("folder", "must not be empty"));
        }
        let default = Options::new(folder);
        Ok(Place::Folder(Options {
            limits: limits(default.limits),
            file_bytes_max: file_bytes_max.unwrap_or(default.file_bytes_max),
            usage_age_ms_max: usage_age_ms_max.unwrap_or(default.usage_age_ms_max),
            ..default
        }))
    }
}

impl Place {
    /// Whether there is or can be such a folder. Leaves nothing behind.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Folder(options) => options.check_folder(),
        }
    }

    /// # Errors
    /// A folder that another process holds, that cannot be used, or that is not ours to use.
    pub fn open(self) -> Result<Arc<dyn Store>, Error> {
        Ok(match self {
            Self::Memory(limits) => Arc::new(MemoryStore::new(limits)),
            Self::Folder(options) => {
                let store = SqliteStore::open(&options)?;
                tracing::info!("responses are kept in {}", options.folder.display());
                Arc::new(store)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<Place, (&'static str, &'static str)> {
        toml::from_str::<StoreConfig>(text).unwrap().place()
    }

    #[test]
    fn without_a_folder_it_is_memory() {
        let Place::Memory(limits) = place("records_max = 7").unwrap() else { panic!("a folder from nowhere") };
        assert_eq!((limits.records_max, limits.bytes_max), (7, Limits::default().bytes_max));
        assert_eq!(place("file_bytes_max = 1").unwrap_err().0, "file_bytes_max");
        assert_eq!(place("usage_age_ms_max = 1").unwrap_err().0, "usage_age_ms_max");
        assert_eq!(place("folder = \"\"").unwrap_err().0, "folder");
    }

    #[test]
    fn a_folder_keeps_more_and_longer() {
        let Place::Folder(options) = place("folder = \"data\"\nage_ms_max = 5").unwrap() else { panic!("no folder") };
        assert_eq!((options.limits.age_ms_max, options.limits.bytes_max), (5, 16 << 30));
        assert_eq!(options.folder, PathBuf::from("data"));
    }
}
