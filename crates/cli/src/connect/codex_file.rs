//! Codex's config on disk: found, backed up, written at once or not at all, restored. What is written, `codex` says.

use super::codex::{self, Settings};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const BACKUP: &str = ".flashlane-backup";

/// Why the file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("neither CODEX_HOME nor HOME is set: where is Codex's config?")]
    NoHome,
    #[error("there is nothing to undo: {0} does not exist")]
    NothingToUndo(PathBuf),
    #[error("{path} is not valid TOML; nothing was changed\n{source}")]
    Syntax { path: PathBuf, source: toml_edit::TomlError },
    #[error("the block is not valid TOML")]
    Edit(#[source] toml_edit::TomlError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Where Codex looks for its config.
///
/// # Errors
/// When the environment does not say.
pub fn path() -> Result<PathBuf, Error> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("CODEX_HOME").or_else(|| set("HOME").map(|home| home.join(".codex")));
    Ok(home.ok_or(Error::NoHome)?.join("config.toml"))
}

/// Points the Codex whose config is `path` at flashlane. Returns where the original is; a second time keeps the first
/// original.
///
/// # Errors
/// [`Error`]; the config is then unchanged.
pub fn write(path: &Path, settings: &Settings<'_>) -> Result<PathBuf, Error> {
    let io_error = |source| Error::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io_error)?;
    }
    // A link stays a link: what it points at is edited.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let before = read(path)?;
    let text = before.as_deref().unwrap_or_default();
    let after = codex::apply(text, settings).map_err(|source| Error::Syntax { path: path.clone(), source })?;
    let backup = beside(path, BACKUP);
    if !backup.exists() {
        replace(&backup, text, path)?;
    }
    replace(path, &after, path)?;
    Ok(backup)
}

/// Puts back what [`write`] changed and removes the backup. A config that did not exist before is removed, unless
/// something else was added to it.
///
/// # Errors
/// [`Error`]; the config and the backup are then unchanged.
pub fn undo(path: &Path) -> Result<(), Error> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let backup = beside(path, BACKUP);
    let Some(original) = read(&backup)? else { return Err(Error::NothingToUndo(backup)) };
    let current = read(path)?.unwrap_or_default();
    let after = codex::revert(&current, &original).map_err(|source| Error::Syntax { path: path.clone(), source })?;
    if after.is_empty() {
        remove(path)?;
    } else {
        replace(path, &after, path)?;
    }
    remove(&backup)
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Io { path: path.to_owned(), source }),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes `text` as a whole, with the permissions of `like`: a config may hold secrets.
fn replace(path: &Path, text: &str, like: &Path) -> Result<(), Error> {
    let io_error = |source| Error::Io { path: path.to_owned(), source };
    let new = beside(path, ".flashlane-new");
    fs::write(&new, "").map_err(io_error)?;
    if let Ok(metadata) = fs::metadata(like) {
        fs::set_permissions(&new, metadata.permissions()).map_err(io_error)?;
    }
    fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(io_error)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    /// A folder that is gone after the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = env::temp_dir().join(format!("flashlane-cli-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn config(&self) -> PathBuf {
            self.0.join("config.toml")
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn write_model(path: &Path, model: &str) -> Result<PathBuf, Error> {
        let address: Address = "127.0.0.1:8700".parse().unwrap();
        write(path, &Settings { address: &address, model, api_key_env: None })
    }

    const BEFORE: &str = "# mine\nmodel = \"gpt-5.5\" # good\n\n[features]\nplugins = false\n";

    #[test]
    fn write_and_undo_give_the_same_bytes_however_often_it_is_written() {
        let folder = Folder::new("twice");
        fs::write(folder.config(), BEFORE).unwrap();
        let backup = write_model(&folder.config(), "a").unwrap();
        write_model(&folder.config(), "b").unwrap();
        assert_eq!(fs::read_to_string(&backup).unwrap(), BEFORE);
        assert!(fs::read_to_string(folder.config()).unwrap().contains("model = \"b\" # good"));
        undo(&folder.config()).unwrap();
        assert_eq!(fs::read_to_string(folder.config()).unwrap(), BEFORE);
        assert_eq!(folder.names(), ["config.toml"]);
    }

    #[test]
    fn a_config_that_was_not_there_is_gone_after_undo() {
        let folder = Folder::new("fresh");
        write_model(&folder.config(), "a").unwrap();
        undo(&folder.config()).unwrap();
        assert!(folder.names().is_empty());
    }

    #[test]
    fn a_second_undo_says_that_there_is_nothing() {
        let folder = Folder::new("nothing");
        fs::write(folder.config(), BEFORE).unwrap();
        assert!(matches!(undo(&folder.config()), Err(Error::NothingToUndo(_))));
        assert_eq!(fs::read_to_string(folder.config()).unwrap(), BEFORE);
    }

    #[test]
    fn a_config_that_is_not_toml_is_not_touched() {
        let folder = Folder::new("syntax");
        fs::write(folder.config(), "model = ").unwrap();
        assert!(matches!(write_model(&folder.config(), "a"), Err(Error::Syntax { .. })));
        assert_eq!(fs::read_to_string(folder.config()).unwrap(), "model = ");
        assert_eq!(folder.names(), ["config.toml"]);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_and_links_are_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = Folder::new("links");
        let real = folder.0.join("real.toml");
        fs::write(&real, BEFORE).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&real, folder.config()).unwrap();
        let backup = write_model(&folder.config(), "a").unwrap();
        for file in [&real, &backup] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
        assert!(fs::symlink_metadata(folder.config()).unwrap().is_symlink());
        undo(&folder.config()).unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), BEFORE);
    }
}
