//! Blobs that a client keeps for us and brings back: the summary of a compaction, a reasoning that is not stored. Sealed, so
//! that nobody reads or alters them, and bound to their owner, so that another's do not open. Knows no item and no config.
//!
//! A blob is base64url of `version (1) | key id (4) | nonce (24) | XChaCha20-Poly1305 of the content, with its tag (16)`. Its
//! version, purpose, key id and owner are authenticated with it. A key's id is derived from the key, so that a config lists
//! keys and nothing else: a new one is put in front, and an old one stays for as long as its blobs are to open.

use crate::Owner;
use crate::ids::IdSource;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use flashlane_wire::responses::{ParseError, Reason};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Random bytes, never the same twice: from [`IdSource`](crate::IdSource).
pub type Nonce = [u8; NONCE_BYTES];

pub const NONCE_BYTES: usize = 24;
const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_BYTES;
const TAG_BYTES: usize = 16;
/// Keys that a ring may hold.
pub const KEYS_MAX: usize = 16;

type KeyId = [u8; KEY_ID_BYTES];

/// What a blob is for: one sealed for one purpose does not open for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A `compaction` item.
    Compaction,
    /// `encrypted_content` of a `reasoning` item.
    Reasoning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    #[error("a key is there twice")]
    KeyTwice,
    #[error("there are more than {KEYS_MAX} keys")]
    TooManyKeys,
    #[error("the content has more than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("it is no blob of this server")]
    NotABlob,
    #[error("it is of version {version}, which this server does not know")]
    UnknownVersion { version: u8 },
    #[error("it was sealed with a key that this server does not have (any more)")]
    UnknownKey,
    /// Altered, or another owner's, or of another purpose: which of these, nobody can tell.
    #[error("it was altered, or was made for another caller")]
    NotAuthentic,
}

impl SealError {
    /// What a client hears of a blob that does not open; `param` is its path.
    #[must_use]
    pub fn at(self, param: String) -> ParseError {
        let message = format!("The encrypted content of '{param}' cannot be used: {self}.");
        ParseError { reason: Reason::Value, message, param: Some(param) }
    }
}

/// A key and its id.
struct Key {
    id: KeyId,
    cipher: XChaCha20Poly1305,
}

impl Key {
    fn new(secret: &[u8; 32]) -> Self {
        let cipher = XChaCha20Poly1305::new(secret.into());
        // A tag over a label, under a nonce of all ones that chance does not meet: it tells keys apart and nothing of them.
        let tag = cipher.encrypt(&XNonce::from([0xff; NONCE_BYTES]), Payload { msg: b"", aad: b"flashlane key id" });
        let mut id = [0; KEY_ID_BYTES];
        id.iter_mut().zip(tag.unwrap_or_default()).for_each(|(to, from)| *to = from);
        Self { id, cipher }
    }
}

/// The keys in use. A blob is sealed with the current one, and opened with the one that sealed it.
pub struct Keyring {
    current: Key,
    older: Vec<Key>,
    content_bytes_max: usize,
}

impl Keyring {
    /// Keys of 32 random bytes; contents of at most `content_bytes_max` bytes.
    ///
    /// # Errors
    /// A key that is there twice, or too many of them.
    pub fn new(current: &[u8; 32], older: &[[u8; 32]], content_bytes_max: usize) -> Result<Self, SealError> {
        if older.len() >= KEYS_MAX {
            return Err(SealError::TooManyKeys);
        }
        let ring = Self { current: Key::new(current), older: older.iter().map(Key::new).collect(), content_bytes_max };
        let mut ids: Vec<_> = ring.keys().map(|key| key.id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(SealError::KeyTwice);
        }
        Ok(ring)
    }

    /// Seals `content`; the blob is text that needs no escape in JSON.
    ///
    /// # Errors
    /// Content that is too large.
    pub fn seal(&self, purpose: Purpose, owner: Owner, nonce: Nonce, content: &[u8]) -> Result<String, SealError> {
        let too_large = SealError::TooLarge { bytes_max: self.content_bytes_max };
        if content.len() > self.content_bytes_max {
            return Err(too_large);
        }
        let key = &self.current;
        let aad = associated(purpose, key.id, owner);
        let sealed = key.cipher.encrypt(&XNonce::from(nonce), Payload { msg: content, aad: &aad });
        // The cipher's own limit is 256 GB.
        let sealed = sealed.map_err(|_| too_large)?;
        let mut blob = Vec::with_capacity(HEAD_BYTES + sealed.len());
        blob.push(VERSION);
        blob.extend_from_slice(&key.id);
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(&sealed);
        Ok(URL_SAFE_NO_PAD.encode(blob))
    }

    /// The content of a blob that was sealed for this purpose and this owner.
    ///
    /// # Errors
    /// Anything else.
    pub fn open(&self, purpose: Purpose, owner: Owner, blob: &str) -> Result<Vec<u8>, SealError> {
        if blob.len() / 4 * 3 > HEAD_BYTES + self.content_bytes_max + TAG_BYTES {
            return Err(SealError::TooLarge { bytes_max: self.content_bytes_max });
        }
        let bytes = URL_SAFE_NO_PAD.decode(blob).map_err(|_| SealError::NotABlob)?;
        let (version, rest) = bytes.split_first().ok_or(SealError::NotABlob)?;
        if *version != VERSION {
            return Err(SealError::UnknownVersion { version: *version });
        }
        let (id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(SealError::NotABlob)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::NotABlob)?;
        let key = self.keys().find(|key| key.id == *id).ok_or(SealError::UnknownKey)?;
        let aad = associated(purpose, *id, owner);
        let content = key.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &aad });
        content.map_err(|_| SealError::NotAuthentic)
    }

    /// Whether a blob names a key of this ring; not whether it opens.
    #[must_use]
    pub fn has_made(&self, blob: &str) -> bool {
        // Four letters are three bytes.
        let head = blob.get(..(1 + KEY_ID_BYTES).div_ceil(3) * 4).and_then(|head| URL_SAFE_NO_PAD.decode(head).ok());
        let id = head.as_deref().and_then(|head| head.strip_prefix(&[VERSION])).and_then(|rest| rest.first_chunk());
        id.is_some_and(|id| self.keys().any(|key| key.id == *id))
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.older)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.keys().count()).finish_non_exhaustive()
    }
}

/// What one caller may have opened.
#[derive(Debug, Clone, Copy)]
pub struct Opener<'a> {
    pub ring: &'a Keyring,
    pub owner: Owner,
    pub takes: Takes,
    /// Most tools that may be among its items.
    pub tools_max: usize,
}

/// What a caller's items may have beside what is this server's own and known to it: what an upstream made that speaks the
/// Responses API itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Takes {
    #[default]
    Own,
    /// Reasoning that was sealed elsewhere.
    Sealed,
    /// That, and items of types that are not known here.
    Any,
}

impl Opener<'_> {
    /// Refuses a reasoning that is sealed and not for this server, nor for its upstreams; `path` is where the blob stands.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn check_reasoning(&self, blob: &str, path: impl FnOnce() -> String) -> Result<(), ParseError> {
        if self.takes >= Takes::Sealed && !self.ring.has_made(blob) {
            return Ok(());
        }
        self.open(Purpose::Reasoning, blob, path).map(drop)
    }

    /// The text that was sealed; `path` is where the blob stands.
    ///
    /// # Errors
    /// A blob that this server did not make for this purpose and caller, by its path.
    pub fn open(&self, purpose: Purpose, blob: &str, path: impl FnOnce() -> String) -> Result<String, ParseError> {
        let opened = self.ring.open(purpose, self.owner, blob);
        let text = opened.and_then(|content| String::from_utf8(content).map_err(|_| SealError::NotABlob));
        text.map_err(|error| error.at(path()))
    }
}

/// Seals what one response's caller is to keep.
#[derive(Debug)]
pub struct Sealer {
    pub ring: Arc<Keyring>,
    pub owner: Owner,
    pub nonces: IdSource,
}

impl Sealer {
    /// # Errors
    /// A text that is too large.
    pub fn seal(&mut self, purpose: Purpose, text: &str) -> Result<String, SealError> {
        self.ring.seal(purpose, self.owner, self.nonces.nonce(), text.as_bytes())
    }
}

/// What is authenticated with the content and not part of it.
fn associated(purpose: Purpose, key: KeyId, owner: Owner) -> Vec<u8> {
    let purpose = match purpose {
        Purpose::Compaction => b'c',
        Purpose::Reasoning => b'r',
    };
    let mut aad = vec![VERSION, purpose];
    aad.extend_from_slice(&key);
    aad.extend_from_slice(&owner.0);
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;
    const ADA: Owner = Owner([1; 32]);
    const BOB: Owner = Owner([2; 32]);

    fn ring(current: u8, older: &[u8]) -> Keyring {
        Keyring::new(&[current; 32], &older.iter().map(|byte| [*byte; 32]).collect::<Vec<_>>(), MAX).unwrap()
    }

    fn sealed(ring: &Keyring, content: &[u8]) -> String {
        ring.seal(Purpose::Compaction, ADA, [7; 24], content).unwrap()
    }

    #[test]
    fn what_was_sealed_opens() {
        let ring = ring(1, &[]);
        for content in [&b""[..], b"a", "a summary, \u{e9}".as_bytes(), &[0; MAX]] {
            let blob = sealed(&ring, content);
            assert!(blob.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            assert_eq!(ring.open(Purpose::Compaction, ADA, &blob).unwrap(), content);
        }
    }

    #[test]
    fn another_owner_or_purpose_does_not_open_it() {
        let ring = ring(1, &[]);
        let blob = sealed(&ring, b"secret");
        assert_eq!(ring.open(Purpose::Compaction, BOB, &blob), Err(SealError::NotAuthentic));
        assert_eq!(ring.open(Purpose::Reasoning, ADA, &blob), Err(SealError::NotAuthentic));
    }

    #[test]
    fn a_blob_of_another_server_is_taken_only_where_its_maker_may_be_asked() {
        let (ours, theirs) = (ring(1, &[]), ring(2, &[]));
        let blob = |ring: &Keyring, owner| ring.seal(Purpose::Reasoning, owner, [7; 24], b"thought").unwrap();
        for (takes, is_taken) in [(Takes::Own, false), (Takes::Sealed, true), (Takes::Any, true)] {
            let opener = Opener { ring: &ours, owner: ADA, takes, tools_max: 1 };
            let takes = |blob: &str| opener.check_reasoning(blob, String::new).is_ok();
            assert!(takes(&blob(&ours, ADA)));
            assert!(!takes(&blob(&ours, BOB)), "another caller's");
            for foreign in [&*blob(&theirs, ADA), "gAAAAABo==", "AQ", ""] {
                assert_eq!(takes(foreign), is_taken, "{foreign:?}");
            }
        }
    }

    #[test]
    fn no_byte_of_it_can_be_altered() {
        let ring = ring(1, &[]);
        let blob = URL_SAFE_NO_PAD.decode(sealed(&ring, b"secret")).unwrap();
        for place in 0..blob.len() {
            for bit in 0..8 {
                let mut altered = blob.clone();
                altered[place] ^= 1 << bit;
                let error = ring.open(Purpose::Compaction, ADA, &URL_SAFE_NO_PAD.encode(altered)).unwrap_err();
                match place {
                    0 => assert!(matches!(error, SealError::UnknownVersion { .. })),
                    1..=4 => assert_eq!(error, SealError::UnknownKey),
                    _ => assert_eq!(error, SealError::NotAuthentic),
                }
            }
        }
        for length in 0..blob.len() {
            assert!(ring.open(Purpose::Compaction, ADA, &URL_SAFE_NO_PAD.encode(&blob[..length])).is_err());
        }
    }

    #[test]
    fn a_key_opens_its_blobs_for_as_long_as_it_is_kept() {
        let blob = sealed(&ring(1, &[]), b"old");
        let rotated = ring(2, &[1]);
        assert_eq!(rotated.open(Purpose::Compaction, ADA, &blob).unwrap(), b"old");
        let new = sealed(&rotated, b"new");
        assert_eq!(ring(1, &[]).open(Purpose::Compaction, ADA, &new), Err(SealError::UnknownKey));
        assert_eq!(ring(2, &[]).open(Purpose::Compaction, ADA, &blob), Err(SealError::UnknownKey));
        assert_eq!(ring(3, &[2]).open(Purpose::Compaction, ADA, &new).unwrap(), b"new");
    }

    #[test]
    fn sizes_have_their_maximum() {
        let ring = ring(1, &[]);
        let too_large = SealError::TooLarge { bytes_max: MAX };
        assert_eq!(ring.seal(Purpose::Reasoning, ADA, [0; 24], &[0; MAX + 1]), Err(too_large));
        let larger = Keyring::new(&[1; 32], &[], 2 * MAX).unwrap();
        assert_eq!(ring.open(Purpose::Compaction, ADA, &sealed(&larger, &[0; 2 * MAX])), Err(too_large));
    }

    #[test]
    fn what_is_no_blob_is_told_so() {
        let ring = ring(1, &[]);
        for text in ["", "AQ", "a summary", "AQ==", "AQ\u{e9}", "gAAAAABo"] {
            let error = ring.open(Purpose::Compaction, ADA, text).unwrap_err();
            assert!(matches!(error, SealError::NotABlob | SealError::UnknownVersion { .. }), "{text}: {error:?}");
        }
    }

    #[test]
    fn a_ring_has_each_key_once_and_not_too_many() {
        assert_eq!(Keyring::new(&[1; 32], &[[2; 32], [1; 32]], MAX).unwrap_err(), SealError::KeyTwice);
        assert_eq!(Keyring::new(&[1; 32], &[[2; 32]; KEYS_MAX], MAX).unwrap_err(), SealError::TooManyKeys);
    }

    #[test]
    fn a_refusal_names_the_place_and_nothing_of_the_ring() {
        let refusal = SealError::NotAuthentic.at("input[2].encrypted_content".into());
        assert_eq!((refusal.reason, refusal.param.as_deref()), (Reason::Value, Some("input[2].encrypted_content")));
        assert_eq!(format!("{:?}", ring(1, &[2])), "Keyring { keys: 2, .. }");
    }
}
