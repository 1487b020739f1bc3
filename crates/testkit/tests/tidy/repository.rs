//! The repository as files: what git tracks or would track. It knows no rule.

use crate::source::Source;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Every file that git does not ignore, read once.
pub struct Repository {
    files: Vec<(String, String)>,
    pub sources: Vec<Source>,
}

/// The repository that these tests stand in.
pub fn repository() -> &'static Repository {
    static REPOSITORY: OnceLock<Repository> = OnceLock::new();
    REPOSITORY.get_or_init(|| Repository::read(&root()))
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Repository {
    fn read(root: &Path) -> Self {
        let listed = Command::new("git")
            .arg("-C")
            .arg(root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()
            .expect("git is needed to list the files");
        assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
        let names = String::from_utf8(listed.stdout).expect("file names are UTF-8");
        // A file that is tracked and was removed is gone; one that is no text has nothing to check.
        let read = |path: &str| Some((path.to_owned(), std::fs::read_to_string(root.join(path)).ok()?));
        let mut files: Vec<_> = names.split_terminator('\0').filter_map(read).collect();
        files.sort();
        files.dedup();
        let ours = |path: &str| ["crates/", "benches/", "fuzz/"].iter().any(|room| path.starts_with(room));
        let rust = files.iter().filter(|(path, _)| path.ends_with(".rs") && ours(path));
        let sources = rust.map(|(path, text)| Source::new(path, text)).collect();
        Self { files, sources }
    }

    /// A file's text; nothing if there is no such file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|(name, _)| name == path).map(|(_, text)| text.as_str())
    }

    /// The files under a folder, with their texts.
    pub fn under<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.starts_with(folder))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Whether a file or a folder stands there.
    pub fn has(&self, path: &str) -> bool {
        root().join(path).exists()
    }
}
