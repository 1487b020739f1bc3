//! A value that is used and never shown.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A longer one is a secret.
const NAME_BYTES_MAX: usize = 64;

/// An API key. It has no `Display`, is not serialised, and its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// What a file holds, blanks around it included. No more of it is read than such a secret may have: a wrong path may lead to
    /// anything, a device without an end too.
    ///
    /// # Errors
    /// A file that cannot be read, is no text, or has more than `bytes_max` bytes.
    pub fn read(path: &Path, bytes_max: usize) -> io::Result<Self> {
        let mut value = String::new();
        let beyond = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        let result = File::open(path)?.take(beyond).read_to_string(&mut value);
        if value.len() > bytes_max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {bytes_max} bytes")));
        }
        result.map(|_| Self(value))
    }

    /// The value itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// What a config calls a variable that holds a secret, as it may be shown: a secret that stands there by mistake is not.
#[must_use]
pub fn shown_name(variable: &str) -> &str {
    let is_name = variable.len() <= NAME_BYTES_MAX
        && variable.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    if is_name { variable } else { "(not shown: names of variables are upper case)" }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_the_place_of_its_variables_name_is_not_shown() {
        assert_eq!(shown_name("CEREBRAS_API_KEY_2"), "CEREBRAS_API_KEY_2");
        for secret in ["sk-1234", "csk_abc", "0123456789abcdef", &"A".repeat(65)] {
            assert!(!shown_name(secret).contains(secret), "{secret}");
        }
    }

    #[test]
    fn of_a_file_no_more_is_read_than_a_secret_may_have() {
        let path = std::env::temp_dir().join(format!("flashlane-secret-{}", std::process::id()));
        std::fs::write(&path, " abc\n").unwrap();
        let (fits, too_long) = (Secret::read(&path, 5), Secret::read(&path, 4));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(fits.unwrap().expose(), " abc\n");
        assert_eq!(too_long.unwrap_err().to_string(), "more than 4 bytes");
        let endless = Secret::read(Path::new("/dev/zero"), 1000);
        assert_eq!(endless.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(Secret::read(Path::new("no/such/file"), 1000).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
