//! `[store]`: where responses are kept that clients may come back to (`store: true`), how much and how long. Knows nothing of responses.

use flashlane_store::{Error, Limits, MemoryStore, Options, SqliteStore, Store};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// Each field may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The data folder, on a file system of this machine; made if it is not there, for its owner alone. One process has it at a time.
    ///
    /// Default: none; in memory ([what that means](adr/0008-memory-store-first.md)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// All of it together, what responses of one chain share counted once; the oldest make room.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Limits::default().bytes_max, "x-else" = { "in a folder": of_a_folder().limits.bytes_max }))]
    pub bytes_max: Option<usize>,
    /// How many responses; in memory, as many turns of the ledger of usage as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Limits::default().records_max, "x-else" = { "in a folder": of_a_folder().limits.records_max }))]
    pub records_max: Option<usize>,
    /// How long each is kept; in a folder as long as at OpenAI.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Limits::default().age_ms_max, "x-else" = { "in a folder": of_a_folder().limits.age_ms_max }))]
    pub age_ms_max: Option<u64>,
    /// What the folder's database may grow to, whatever `bytes_max` counts; beyond it nothing more is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = of_a_folder().file_bytes_max))]
    pub file_bytes_max: Option<u64>,
    /// How long the folder's ledger of usage goes back: a turn's key (its digest), model, tier and token counts, and no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = of_a_folder().usage_age_ms_max))]
    pub usage_age_ms_max: Option<u64>,
}

/// What a folder has by default.
fn of_a_folder() -> Options {
    Options::new(PathBuf::new())
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
