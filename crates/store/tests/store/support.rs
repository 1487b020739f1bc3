//! What the tests of the stores share: waiting, chance from a seed, records, folders that go away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bytes::Bytes;
use flashlane_store::{Answer, Limits, Options, OwnerId, Record, SqliteStore};

pub const ANN: OwnerId = OwnerId([1; 32]);
pub const BOB: OwnerId = OwnerId([2; 32]);
pub const PLENTY: Limits = Limits { bytes_max: 1 << 30, records_max: 1_000_000, age_ms_max: 1000 };

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The answer, waited for.
pub fn answer<T>(mut asked: Answer<T>) -> Result<T, flashlane_store::Error> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match asked.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}

pub fn now<T>(asked: Answer<T>) -> T {
    answer(asked).unwrap()
}

/// Chance that is the same for the same seed (`SplitMix64`).
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(end).unwrap()).unwrap()
    }
}

pub fn item(id: &str, text: &str) -> Bytes {
    Bytes::from(format!(r#"{{"type":"message","id":"{id}","text":"{text}"}}"#))
}

pub fn items(ids: &[&str]) -> Vec<Bytes> {
    ids.iter().map(|id| item(id, "hello")).collect()
}

/// A response of Ann's from the beginning of a chain: one item in, one out.
pub fn first(id: &str) -> Record {
    Record {
        id: id.to_owned(),
        owner: ANN,
        items: vec![item(&format!("{id}_in"), "in"), item(&format!("{id}_out"), "out")].into(),
        outputs: 1,
        response: Bytes::from(format!(r#"{{"id":"{id}"}}"#)),
        ..Record::default()
    }
}

/// The response after that one.
pub fn next(before: &Record, id: &str) -> Record {
    let own = first(id);
    Record {
        previous: Some(before.id.clone()),
        inherited: before.items.len(),
        items: before.items.iter().chain(own.items.iter()).cloned().collect(),
        ..own
    }
}

/// A folder of this test's, which goes with it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("flashlane-store-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Plenty of room, and nothing is swept.
    pub fn options(&self) -> Options {
        Options { limits: PLENTY, clock: || 0, ..Options::new(self.0.clone()) }
    }

    pub fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.options()).unwrap()
    }

    /// All that the store has on the disk.
    pub fn contents(&self) -> Vec<u8> {
        let files = std::fs::read_dir(&self.0).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    pub fn has(&self, canary: &str) -> bool {
        self.contents().windows(canary.len()).any(|part| part == canary.as_bytes())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
