//! What a commit costs: its latency, how many a second, bytes on the disk, and what a load costs, for a turn of 2 KB on a history of 400 KB.
//!
//! `cargo run --profile ci -p flashlane-store --example commit_cost -- FOLDER`: the folder says which disk is measured; it must not exist.
#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flashlane_store::{Answer, Error, MemoryStore, Options, OwnerId, Record, SqliteStore, Store};

const HISTORY_ITEMS: usize = 100;
const HISTORY_ITEM_BYTES: usize = 4096;
const TURNS: usize = 40;
const OWNER: OwnerId = OwnerId([7; 32]);

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        println!("which folder?");
        return ExitCode::from(64);
    };
    match measure(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(folder: &std::path::Path) -> Result<(), Error> {
    let memory = MemoryStore::new(flashlane_store::Limits { bytes_max: 2 << 30, ..Default::default() });
    report("memory, 1 at a time", &chains(&memory, "m", 1)?);
    for sessions in [1, 16, 64] {
        let folder = folder.join(sessions.to_string());
        let store = SqliteStore::open(&Options { clock: || 0, ..Options::new(folder.clone()) })?;
        report(&format!("sqlite, {sessions} at a time"), &chains(&store, "s", sessions)?);
        let id = format!("resp_s_0_{}", TURNS - 1);
        let mut loads: Vec<Duration> = Vec::new();
        for _ in 0..50 {
            let began = Instant::now();
            drop(wait(store.load(OWNER, &id, 0))?);
            loads.push(began.elapsed());
        }
        loads.sort();
        let retrieves = Instant::now();
        for _ in 0..50 {
            drop(wait(store.retrieve(OWNER, &id, 0))?);
        }
        let retrieve = retrieves.elapsed() / 50;
        drop(store);
        let bytes = std::fs::metadata(folder.join("store.sqlite")).map_or(0, |file| file.len());
        let (count, history) = (sessions * TURNS, sessions * HISTORY_ITEMS * HISTORY_ITEM_BYTES);
        let of_turn = usize::try_from(bytes).unwrap_or_default().saturating_sub(history) / count;
        println!(
            "    load p50 {:?}, retrieve {retrieve:?}; {bytes} bytes in the file, {of_turn} a turn",
            middle(&loads)
        );
    }
    Ok(())
}

struct Cost {
    /// In order.
    latencies: Vec<Duration>,
    total: Duration,
}

/// Sessions at once, each with a history that is there already, and its turns one after the other.
fn chains(store: &dyn Store, name: &str, sessions: usize) -> Result<Cost, Error> {
    let mut histories = Vec::new();
    for session in 0..sessions {
        let history = history(&format!("resp_{name}_{session}"));
        wait(store.commit(history.clone()))?;
        histories.push(history);
    }
    let began = Instant::now();
    let latencies: Result<Vec<Vec<Duration>>, Error> = thread::scope(|scope| {
        let threads: Vec<_> = histories.into_iter().map(|history| scope.spawn(move || turns(store, history))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| Error::Closed)?).collect()
    });
    let total = began.elapsed();
    let mut latencies: Vec<_> = latencies?.into_iter().flatten().collect();
    latencies.sort();
    Ok(Cost { latencies, total })
}

fn item(id: &str, bytes: usize) -> Bytes {
    Bytes::from(format!(r#"{{"type":"message","id":"{id}","text":"{}"}}"#, "t".repeat(bytes)))
}

fn history(id: &str) -> Record {
    let items = (0..HISTORY_ITEMS).map(|at| item(&format!("msg_{id}_{at}"), HISTORY_ITEM_BYTES - 80)).collect();
    Record { id: id.to_owned(), owner: OWNER, items, response: object(), ..Record::default() }
}

/// A response object with its output in it.
fn object() -> Bytes {
    item("resp", 2048)
}

fn turns(store: &dyn Store, mut before: Record) -> Result<Vec<Duration>, Error> {
    let first = before.id.clone();
    let mut latencies = Vec::with_capacity(TURNS);
    for turn in 0..TURNS {
        let id = format!("{first}_{turn}");
        let inherited = before.items.len();
        let mut items = before.items.to_vec();
        items.extend([item(&format!("in_{id}"), 970), item(&format!("out_{id}"), 970)]);
        let previous = Some(before.id);
        let record = Record {
            id,
            owner: OWNER,
            previous,
            items: items.into(),
            inherited,
            outputs: 1,
            response: object(),
            ..Record::default()
        };
        let began = Instant::now();
        wait(store.commit(record.clone()))?;
        latencies.push(began.elapsed());
        before = record;
    }
    Ok(latencies)
}

fn middle(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn report(what: &str, cost: &Cost) {
    let count = cost.latencies.len();
    let late = cost.latencies.get(count * 99 / 100).copied().unwrap_or_default();
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let per_second = count as f64 / cost.total.as_secs_f64();
    println!("{what}: p50 {:?}, p99 {late:?}, {per_second:.0} commits/s", middle(&cost.latencies));
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait<T>(mut asked: Answer<T>) -> Result<T, Error> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match asked.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}
