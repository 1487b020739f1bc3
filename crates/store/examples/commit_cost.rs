//! What a commit costs, of turns of 2 KB on histories of 400 KB: how long its response waits for it, processor time, bytes written.
//!
//! `benches/store/run` runs it and counts its flushes. By hand: `commit_cost memory|sqlite CLIENTS FOLDER`; the folder says which disk
//! is measured, and must not exist.
#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flashlane_store::{Answer, Error, Limits, MemoryStore, Options, OwnerId, Record, SqliteStore, Store};

const HISTORY_ITEMS: usize = 100;
const HISTORY_ITEM_BYTES: usize = 4096;
/// Of all clients together.
const TURNS: usize = 3200;
/// So many turns go on from each other, and the next one from the history again.
const TURNS_ON: usize = 40;
const OWNER: OwnerId = OwnerId([7; 32]);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, clients, folder] = arguments.as_slice() else { return ExitCode::from(64) };
    let Ok(clients) = clients.parse() else { return ExitCode::from(64) };
    match open(store, folder.into()).and_then(|store| measure(&*store, clients)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn open(store: &str, folder: PathBuf) -> Result<Box<dyn Store>, Error> {
    if store == "memory" {
        return Ok(Box::new(MemoryStore::new(Limits { bytes_max: 2 << 30, ..Limits::default() })));
    }
    Ok(Box::new(SqliteStore::open(&Options { clock: || 0, ..Options::new(folder) })?))
}

/// Clients at once, each with a history that is there already, and its turns one after the other.
fn measure(store: &dyn Store, clients: usize) -> Result<(), Error> {
    let mut histories = Vec::new();
    for client in 0..clients {
        let history = history(&format!("resp_{client}"));
        wait(store.commit(history.clone()))?;
        histories.push(history);
    }
    // For whoever reads a trace of its calls.
    println!("turns begin");
    let (before, began) = (spent(), Instant::now());
    let latencies: Result<Vec<Vec<Duration>>, Error> = thread::scope(|scope| {
        let turns_of = |history| move || turns(store, history, TURNS / clients);
        let threads: Vec<_> = histories.iter().map(|history| scope.spawn(turns_of(history))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| Error::Closed)?).collect()
    });
    let (took, after) = (began.elapsed(), spent());
    println!("turns end");
    let mut latencies_us: Vec<f64> = latencies?.into_iter().flatten().map(|took| took.as_secs_f64() * 1e6).collect();
    latencies_us.sort_by(f64::total_cmp);
    let count = latencies_us.len();
    let at = |part: usize| latencies_us.get(count * part / 100).copied().unwrap_or_default();
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let of_each = |before: u64, after: u64| after.saturating_sub(before) as f64 / count as f64;
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let per_s = count as f64 / took.as_secs_f64();
    println!("responses={count} p50_us={:.1} p99_us={:.1} per_s={per_s:.0}", at(50), at(99));
    println!(
        "cpu_us={:.2} written_bytes={:.0}",
        of_each(before.cpu_ns, after.cpu_ns) / 1e3,
        of_each(before.written_bytes, after.written_bytes)
    );
    Ok(())
}

/// What this process has spent so far.
struct Spent {
    /// All threads, also those that ended.
    cpu_ns: u64,
    written_bytes: u64,
}

fn spent() -> Spent {
    // In ticks of 10 ms: the fields behind the command's name, of which the 12th and 13th are user and system.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
    Spent { cpu_ns: ticks * 10_000_000, written_bytes: written.unwrap_or_default() }
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

fn turns(store: &dyn Store, history: &Record, turns: usize) -> Result<Vec<Duration>, Error> {
    let mut latencies = Vec::with_capacity(turns);
    let mut before = history.clone();
    for turn in 0..turns {
        if turn % TURNS_ON == 0 {
            before = history.clone();
        }
        let id = format!("{}_{turn}", history.id);
        let own = vec![item(&format!("in_{id}"), 970), item(&format!("out_{id}"), 970)];
        let record = Record {
            id,
            owner: OWNER,
            previous: Some(before.id),
            inherited: before.items.len(),
            items: before.items.and(own),
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
