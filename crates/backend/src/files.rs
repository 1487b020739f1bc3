//! What the files hold that a config names, told by a number that changes with it. Keeps nothing of it.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::path::Path;

/// Of each file: more than any key or chain of certificates has.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Of all these files together, in their order. One that cannot be read has nothing in it.
pub fn digest<'a>(files: impl IntoIterator<Item = &'a Path>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in files {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
        (read.is_ok(), bytes).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_changes_with_what_a_file_holds_and_with_whether_it_is_there() {
        let path = std::env::temp_dir().join(format!("flashlane-digest-{}", std::process::id()));
        let now = || digest([path.as_path()]);
        let absent = now();
        std::fs::write(&path, "").unwrap();
        let empty = now();
        std::fs::write(&path, "one").unwrap();
        let one = now();
        std::fs::write(&path, "two").unwrap();
        let two = now();
        std::fs::write(&path, "one").unwrap();
        let again = now();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((one, absent), (again, now()));
        assert!(absent != empty && empty != one && one != two, "{absent} {empty} {one} {two}");
    }
}
