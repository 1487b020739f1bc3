//! `flashlane keys`: makes keys for clients, and the token for operators. What is made is shown once and kept nowhere; the config gets its digest. Knows no config file.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

/// So that whoever finds one knows what it is, and scanners for leaked secrets can.
const PREFIX: &str = "flk_";
const ADMIN_PREFIX: &str = "fla_";
const RANDOM_BYTES: usize = 32;
/// Of keys that others made. The digest has no salt, and is fast to try.
const KEY_BYTES_MIN: usize = 20;

/// Arguments of `flashlane keys`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  flashlane keys create --name design-partner-a
  flashlane keys create --name ci | tail -n 3 >> flashlane.toml   the key goes by; see it on the terminal
  flashlane keys create --admin                                   the token for operators
  printf %s \"$KEY\" | flashlane keys digest                        of a key that is there already")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a key: print it once, and the TOML that lets it in
    Create(Create),
    /// Print the digest of a key on standard input, as the config writes it; the key has 20 bytes at least
    #[command(after_help = "Example:\n  printf %s \"$KEY\" | flashlane keys digest")]
    Digest,
}

/// Arguments of `flashlane keys create`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The key goes to whoever calls the server, as `Authorization: Bearer KEY`; SDKs read it from OPENAI_API_KEY.
The three lines of TOML go into the server's config. To change a key, make another one of the same
name, put its digest beside the old one (sha256 = [\"old\", \"new\"]), and take the old one out when
nobody uses it any more: what the key has stored stays its own.

With --admin it is the token that operators send to the admin listener, for /config and /drain, and
for all of it beyond loopback.

Examples:
  flashlane keys create --name design-partner-a
  flashlane keys create --admin"
)]
struct Create {
    /// Whose key it is: rules go by it; limits and what is stored belong to it
    #[arg(long, value_name = "NAME", value_parser = name, required_unless_present = "admin", conflicts_with = "admin")]
    name: Option<String>,
    /// Make the token for operators instead
    #[arg(long)]
    admin: bool,
    /// The config that it is for, to see whether the name is in it already [env: FLASHLANE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Args {
    /// The config that a new key is compared with, where a flag names one.
    #[must_use]
    pub fn config(&self) -> Option<&Path> {
        match &self.verb {
            Verb::Create(create) => create.config.as_deref(),
            Verb::Digest => None,
        }
    }

    /// Whether a config is of use.
    #[must_use]
    pub fn is_for_config(&self) -> bool {
        matches!(self.verb, Verb::Create(_))
    }
}

/// The digests that a config has.
#[derive(Debug, Default)]
pub struct Known {
    /// By the key's name.
    pub keys: BTreeMap<String, Vec<String>>,
    pub admin: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    #[error("standard input and output")]
    Io(#[from] io::Error),
    #[error("standard input holds no key: send one, without blanks in it")]
    NoKey,
    #[error(
        "the key has {bytes} bytes, and {min} at least are asked for: a short one can be guessed from the digest in the config. \
         `flashlane keys create` makes one that cannot",
        min = KEY_BYTES_MIN
    )]
    Short { bytes: usize },
}

fn name(name: &str) -> Result<String, &'static str> {
    let is_name = !name.is_empty() && name.len() <= 64 && !name.chars().any(char::is_control);
    if is_name { Ok(name.to_owned()) } else { Err("expected 1 to 64 bytes without line breaks and the like") }
}

/// Makes a key, or tells the digest of one. `known` is what the config has already.
///
/// # Errors
/// When there are no random bytes, standard input holds no key or a short one, or standard input or output fails.
pub fn run(args: &Args, known: &Known) -> Result<(), Error> {
    match &args.verb {
        Verb::Create(create) => {
            let mut random = [0; RANDOM_BYTES];
            getrandom::fill(&mut random).map_err(Error::Random)?;
            // Without a name it is the operators': the arguments ask for one of the two.
            let prefix = if create.name.is_some() { PREFIX } else { ADMIN_PREFIX };
            let key = key(prefix, &random);
            let mut out = io::stdout().lock();
            // In a pipe the key would be lost in what reads it: a person sees it all the same.
            if out.is_terminal() {
                told(&mut out, &key)?;
            } else {
                told(&mut io::stderr().lock(), &key)?;
            }
            let table = create.name.as_ref().map_or_else(|| admin_table(&key), |name| table(name, &key));
            let before = create.name.as_ref().map_or(Some(&known.admin), |name| known.keys.get(name));
            if let Some(before) = before.filter(|before| !before.is_empty()) {
                let text = rotation(create.name.as_deref(), before, &hex(&Sha256::digest(&key)));
                io::stderr().lock().write_all(text.as_bytes())?;
                // Nothing to paste but that: the table is there.
                return Ok(out.flush()?);
            }
            write!(out, "{table}")?;
            Ok(out.flush()?)
        }
        Verb::Digest => {
            let text = io::read_to_string(io::stdin())?;
            Ok(writeln!(io::stdout().lock(), "{}", digest(&text)?)?)
        }
    }
}

/// Of a key that is there already.
fn digest(text: &str) -> Result<String, Error> {
    let key = text.trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(Error::NoKey);
    }
    if key.len() < KEY_BYTES_MIN {
        return Err(Error::Short { bytes: key.len() });
    }
    Ok(hex(&Sha256::digest(key)))
}

fn told(out: &mut impl Write, key: &str) -> io::Result<()> {
    writeln!(out, "The key, shown this once and kept nowhere:\n\n  {key}\n\nInto the server's config:\n")
}

/// The digits are hexadecimal: no character that a shell, a URL or a double click takes for an end.
fn key(prefix: &str, random: &[u8; RANDOM_BYTES]) -> String {
    format!("{prefix}{}", hex(random))
}

/// What to do where the table is there already: the new digest goes beside the one in use.
fn rotation(name: Option<&str>, before: &[String], digest: &str) -> String {
    let (what, field) = match name {
        Some(name) => (format!("the config has a key {name:?}"), "sha256"),
        None => ("the config has an admin token".to_owned(), "token_sha256"),
    };
    match before {
        [used] => format!(
            "{what} already: no second table of that name. To change from one to the other, in the table that is there\n\n\
             {field} = [\"{used}\", \"{digest}\"]\n\n\
             and take the first digest out when nobody uses it any more.\n"
        ),
        _ => format!(
            "{what} already, with two digests, which is as many as there may be: take out the one that nobody uses any more, and put\n\n\
             \"{digest}\"\n\nin its place.\n"
        ),
    }
}

fn admin_table(token: &str) -> String {
    format!("[server.admin]\ntoken_sha256 = [\"{}\"]\n", hex(&Sha256::digest(token)))
}

fn table(name: &str, key: &str) -> String {
    let name = toml_edit::Value::from(name);
    format!("[[keys]]\nname = {}\nsha256 = [\"{}\"]\n", name.to_string().trim(), hex(&Sha256::digest(key)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_lets_the_key_in() {
        let key = key(PREFIX, &[0xab; RANDOM_BYTES]);
        assert_eq!(key, format!("flk_{}", "ab".repeat(32)));
        let table: toml_edit::DocumentMut = table("a \"b\"", &key).parse().unwrap();
        let first = &table["keys"].as_array_of_tables().unwrap().iter().next().unwrap().clone();
        assert_eq!(first["name"].as_str(), Some("a \"b\""));
        let digest = first["sha256"].as_array().unwrap().get(0).unwrap().as_str().unwrap();
        assert_eq!(digest, hex(&Sha256::digest(key.as_bytes())));
    }

    #[test]
    fn an_admin_token_goes_into_a_table_of_its_own() {
        let token = key(ADMIN_PREFIX, &[0xab; RANDOM_BYTES]);
        let table: toml_edit::DocumentMut = admin_table(&token).parse().unwrap();
        let digests = table["server"]["admin"]["token_sha256"].as_array().unwrap();
        assert_eq!(digests.get(0).unwrap().as_str(), Some(hex(&Sha256::digest(&token)).as_str()));
    }

    #[test]
    fn a_name_that_is_there_gets_a_second_digest_and_no_second_table() {
        let said = rotation(Some("team-a"), &["old".to_owned()], "new");
        assert!(said.contains("a key \"team-a\" already") && said.contains("sha256 = [\"old\", \"new\"]"), "{said}");
        assert!(!said.contains("[[keys]]"), "{said}");
        let full = rotation(None, &["one".to_owned(), "two".to_owned()], "new");
        assert!(full.contains("admin token already, with two") && full.contains("\"new\""), "{full}");
    }

    #[test]
    fn a_key_that_can_be_guessed_gets_no_digest() {
        let key = "k".repeat(KEY_BYTES_MIN);
        assert_eq!(digest(&format!("{key}\n")).unwrap(), hex(&Sha256::digest(&key)));
        let short = digest(&key[1..]).unwrap_err().to_string();
        assert!(short.contains("has 19 bytes, and 20 at least") && short.contains("keys create"), "{short}");
        assert!(matches!(digest(" \n"), Err(Error::NoKey)) && matches!(digest(&format!("{key} b")), Err(Error::NoKey)));
    }

    #[test]
    fn a_name_is_short_and_on_one_line() {
        assert!(name("design-partner-a").is_ok() && name(&"x".repeat(64)).is_ok());
        assert!(name("").is_err() && name("a\nb").is_err() && name(&"x".repeat(65)).is_err());
    }
}
