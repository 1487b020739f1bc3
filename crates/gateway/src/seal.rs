//! `[seal]`: the keys of what clients keep for this server and bring back, summaries and reasoning. Knows nothing of what is sealed.

use flashlane_backend::{Secret, shown_name};
use flashlane_engine::seal::{KEYS_MAX, Keyring, SealError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

const KEY_BYTES: usize = 32;
/// Of a variable or file: as many keys as a ring takes, and what stands between them.
const TEXT_BYTES_MAX: usize = KEYS_MAX * 4 * KEY_BYTES;

/// Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SealConfig {
    /// The environment variable that holds the keys, 64 hex digits each, with blanks or commas between them. The first one seals, each
    /// opens what it sealed. At most 16.
    ///
    /// Default: a random key, and a line in the log: what it sealed cannot be used after a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_env: Option<String>,
    /// The file that holds them, as mounted by an orchestrator; instead of the variable.
    ///
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_file: Option<PathBuf>,
    /// One sealed text: beyond any summary, and any model's reasoning in one turn. What is longer is not sealed.
    pub content_bytes_max: usize,
}

impl Default for SealConfig {
    fn default() -> Self {
        Self { keys_env: None, keys_file: None, content_bytes_max: 1024 * 1024 }
    }
}

/// Why there are no keys. Shows nothing of any.
#[derive(Debug, Error)]
pub enum Problem {
    #[error("only one of keys_env and keys_file may be given")]
    TwoPlaces,
    #[error("the environment variable {} is not set, or is no text", shown_name(variable))]
    NoSuchVariable { variable: String },
    #[error("{} cannot be read", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("no key: expected one or more of 64 hex digits each, as `openssl rand -hex 32` prints them")]
    NoKey,
    #[error("key {number} is not 64 hex digits, as `openssl rand -hex 32` prints them")]
    NotAKey { number: usize },
    #[error("more than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    #[error(transparent)]
    Ring(#[from] SealError),
}

/// What `[seal]` amounts to.
#[derive(Debug)]
pub enum Keys {
    Given(Keyring),
    /// One of this process alone, once it runs; with contents of so many bytes.
    Random(usize),
}

impl SealConfig {
    /// Whether its key is one of this process alone.
    pub fn is_random(&self) -> bool {
        self.keys_env.is_none() && self.keys_file.is_none()
    }

    /// # Errors
    /// The field at fault, and why.
    pub fn keys(&self) -> Result<Keys, (&'static str, Problem)> {
        let (field, text) = match (&self.keys_env, &self.keys_file) {
            (None, None) => return Ok(Keys::Random(self.content_bytes_max)),
            (Some(_), Some(_)) => return Err(("keys_file", Problem::TwoPlaces)),
            (Some(variable), None) => {
                let absent = |_| ("keys_env", Problem::NoSuchVariable { variable: variable.clone() });
                ("keys_env", Secret::new(env::var(variable).map_err(absent)?))
            }
            (None, Some(path)) => {
                let unread = |source| ("keys_file", Problem::File { path: path.clone(), source });
                ("keys_file", Secret::read(path, TEXT_BYTES_MAX).map_err(unread)?)
            }
        };
        let ring = ring(text.expose(), self.content_bytes_max).map_err(|problem| (field, problem))?;
        Ok(Keys::Given(ring))
    }
}

impl Keys {
    /// None: there is one of this process alone already.
    pub fn given(self) -> Option<Arc<Keyring>> {
        match self {
            Self::Given(ring) => Some(Arc::new(ring)),
            Self::Random(_) => None,
        }
    }

    /// # Errors
    /// The system gives no random bytes.
    pub fn ring(self) -> anyhow::Result<Arc<Keyring>> {
        let ring = match self {
            Self::Given(ring) => ring,
            Self::Random(content_bytes_max) => {
                let mut key = [0; KEY_BYTES];
                getrandom::fill(&mut key)?;
                tracing::info!(
                    "summaries and reasoning are sealed with a random key: what clients keep of them cannot be used after a restart. \
                     Keys that last: seal.keys_env or seal.keys_file in the config"
                );
                Keyring::new(&key, &[], content_bytes_max)?
            }
        };
        Ok(Arc::new(ring))
    }
}

fn ring(text: &str, content_bytes_max: usize) -> Result<Keyring, Problem> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Problem::TooLong);
    }
    let words = text.split(|between: char| between.is_ascii_whitespace() || between == ',').filter(|w| !w.is_empty());
    let keys = words.zip(1..).map(|(word, number)| key(word).ok_or(Problem::NotAKey { number }));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let (current, older) = keys.split_first().ok_or(Problem::NoKey)?;
    Ok(Keyring::new(current, older, content_bytes_max)?)
}

/// 32 bytes from their hex digits.
fn key(word: &str) -> Option<[u8; KEY_BYTES]> {
    if word.len() != 2 * KEY_BYTES {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    for (byte, digits) in key.iter_mut().zip(word.as_bytes().chunks_exact(2)) {
        let digits = digits.iter().map(|digit| char::from(*digit).to_digit(16));
        let number = digits.reduce(|high, low| Some(high? * 16 + low?))??;
        *byte = u8::try_from(number).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashlane_engine::Owner;
    use flashlane_engine::seal::Purpose;

    const ADA: Owner = Owner([1; 32]);

    fn hex(byte: u8) -> String {
        format!("{byte:02x}").repeat(KEY_BYTES)
    }

    fn problem(text: &str) -> String {
        ring(text, 100).unwrap_err().to_string()
    }

    #[test]
    fn the_first_key_seals_and_each_opens_what_it_sealed() {
        let old = ring(&hex(0xa1), 100).unwrap();
        let blob = old.seal(Purpose::Compaction, ADA, [7; 24], b"before").unwrap();
        let rotated = ring(&format!(" {},\n{}\n", hex(0xb2).to_uppercase(), hex(0xa1)), 100).unwrap();
        assert_eq!(rotated.open(Purpose::Compaction, ADA, &blob).unwrap(), b"before");
        let new = rotated.seal(Purpose::Compaction, ADA, [8; 24], b"after").unwrap();
        assert_eq!(old.open(Purpose::Compaction, ADA, &new), Err(SealError::UnknownKey));
        assert_eq!(key(&hex(0xa1)), Some([0xa1; KEY_BYTES]));
    }

    #[test]
    fn what_is_no_key_is_told_by_its_place_and_not_shown() {
        assert!(problem(" ,\n").contains("no key"));
        let wrong = "canary-5e1d".repeat(6).get(..64).unwrap().to_owned();
        for wrong in [wrong.as_str(), "0", &hex(1)[1..], &format!("{}g", &hex(1)[1..])] {
            let told = problem(&format!("{} {wrong}", hex(1)));
            assert!(told.contains("key 2") && !told.contains(wrong.get(1..9).unwrap_or("canary")), "{told}");
        }
        assert_eq!(problem(&format!("{0} {0}", hex(1))), "a key is there twice");
        assert_eq!(problem(&"0".repeat(TEXT_BYTES_MAX + 1)), format!("more than {TEXT_BYTES_MAX} bytes"));
    }

    #[test]
    fn a_place_that_is_not_there_is_named() {
        let at = |text: &str| toml::from_str::<SealConfig>(text).unwrap().keys().map(|_| ()).unwrap_err();
        let (field, problem) = at("keys_env = \"FLASHLANE_NO_SUCH_VARIABLE\"");
        assert_eq!((field, problem.to_string().contains("FLASHLANE_NO_SUCH_VARIABLE")), ("keys_env", true));
        assert_eq!(at("keys_file = \"no/such/file\"").0, "keys_file");
        let (field, problem) = at("keys_file = \"/dev/zero\"");
        assert!(field == "keys_file" && matches!(problem, Problem::File { .. }), "{problem}");
        assert_eq!(at("keys_file = \"a\"\nkeys_env = \"b\"").0, "keys_file");
        assert!(matches!(SealConfig::default().keys(), Ok(Keys::Random(1_048_576))));
    }
}
