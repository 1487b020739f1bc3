//! A process that is killed while it commits: what it acknowledged is there, and the file is whole.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use bytes::Bytes;
use flashlane_store::{Event, Store};

use crate::support::{ANN, Chance, Scratch, first, next, now};

/// Names the folder to the process that will be killed.
const FOLDER: &str = "FLASHLANE_STORE_TEST_FOLDER";
const THREADS: u64 = 4;

/// Not a test by itself: what the process that is killed does. Each line that it writes is what it was promised.
#[test]
fn commits_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let options = flashlane_store::Options { clock: || 0, ..flashlane_store::Options::new(folder.into()) };
    let store = flashlane_store::SqliteStore::open(&options).unwrap();
    let round = now(store.jobs_unfinished()).len();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || commit_for_ever(store, &format!("{round}_{thread}")));
        }
    });
}

fn commit_for_ever(store: &dyn Store, name: &str) {
    let promised = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "PROMISED {line}").unwrap();
        out.flush().unwrap();
    };
    let job = format!("job_{name}");
    now(store.job_create(first(&job), Bytes::from_static(b"request")));
    let mut record = first(&format!("resp_{name}_0"));
    for number in 1.. {
        now(store.commit(record.clone()));
        promised(record.id.clone());
        let event = Event { sequence_number: number, json: Bytes::from(record.id.clone()) };
        assert!(now(store.job_append(ANN, &job, vec![event])));
        promised(format!("{job} {number}"));
        let id = format!("resp_{name}_{number}");
        // A new chain at times, and a parent that goes, so that all that writes is at work.
        record = if number % 20 == 0 { first(&id) } else { next(&record, &id) };
        if number % 7 == 3 {
            now(store.delete(ANN, &format!("resp_{name}_{}", number - 2), 0));
        }
    }
}

#[test]
fn what_was_acknowledged_outlives_a_kill() {
    let scratch = Scratch::new();
    let mut chance = Chance(7);
    for round in 0..8 {
        let promises = promises_until_killed(&scratch, 5 + chance.below(400));
        let store = scratch.open();
        for promise in &promises {
            let (id, event) = promise.split_once(' ').unwrap_or((promise, ""));
            let number = id.rsplit('_').next().unwrap().parse::<u64>().unwrap();
            if let Ok(number) = event.parse::<u64>() {
                let journal = now(store.job_events(ANN, id, Some(number - 1), 0)).unwrap();
                assert_eq!(journal.events.first().map(|event| event.sequence_number), Some(number));
            } else if (number + 2) % 7 != 3 {
                let record = now(store.load(ANN, id, 0)).unwrap_or_else(|| panic!("round {round}: {id} is lost"));
                assert_eq!(record.items.len() as u64, 2 * (number % 20 + 1), "round {round}: {id}");
                assert_eq!(record.items.iter().next_back(), first(id).items.iter().next_back());
            }
        }
        drop(store);
        let file = rusqlite::Connection::open(scratch.path().join("store.sqlite")).unwrap();
        let verdict: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
        let broken: i64 =
            file.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0)).unwrap();
        assert_eq!(broken, 0);
    }
}

/// All that a process was promised until it was killed, after at least so many.
fn promises_until_killed(scratch: &Scratch, promises_min: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::commits_until_it_is_killed", "--nocapture"])
        .env(FOLDER, scratch.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut promises = Vec::new();
    let mut lines = out.lines();
    while let Some(Ok(line)) = lines.next() {
        // The test harness writes lines of its own, and one of them without an end.
        if let Some((_, promise)) = line.split_once("PROMISED ") {
            promises.push(promise.to_owned());
        }
        if promises.len() == promises_min {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(promises.len() >= promises_min, "it ended by itself, after {}", promises.len());
    promises
}
