//! The SQLite store alone: its folder, its format, its limits, what it leaves on the disk, and what it says when the disk fails it.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use flashlane_store::{
    Conversation, Error, Event, Limits, Options, OwnerId, Record, SqliteStore, Store, Tokens, UsageEntry,
};

use crate::support::{ANN, PLENTY, Scratch, answer, first, items, next, now};

fn database(scratch: &Scratch) -> rusqlite::Connection {
    rusqlite::Connection::open(scratch.path().join("store.sqlite")).unwrap()
}

fn count(scratch: &Scratch, sql: &str) -> i64 {
    database(scratch).query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn what_was_committed_is_there_after_it_is_opened_again() {
    let scratch = Scratch::new();
    let record = next(&first("resp_1"), "resp_2");
    let store = scratch.open();
    now(store.commit(first("resp_1")));
    // Not waited for: closing does it.
    drop(store.commit(record.clone()));
    drop(store);
    assert_eq!(now(scratch.open().load(ANN, "resp_2", 0)).as_deref(), Some(&record));
}

#[test]
fn the_folder_and_its_files_are_their_owners_alone() {
    let scratch = Scratch::new();
    let store = scratch.open();
    now(store.commit(first("resp_1")));
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(scratch.path()), 0o700);
    let files: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn a_folder_that_is_held_is_refused_and_freed_by_the_end() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let refused = SqliteStore::open(&scratch.options()).err().unwrap();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    assert!(refused.to_string().contains(&*scratch.path().to_string_lossy()));
    drop(store);
    scratch.open();
}

#[test]
fn a_folder_is_tried_without_a_trace_and_what_cannot_be_one_is_told() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let check = |folder: &str| Options { folder: scratch.path().join(folder), ..scratch.options() }.check_folder();
    let names = || std::fs::read_dir(scratch.path()).unwrap().map(|file| file.unwrap().file_name()).collect::<Vec<_>>();
    std::fs::write(scratch.path().join("file"), "").unwrap();
    std::fs::create_dir_all(scratch.path().join("odd/store.sqlite")).unwrap();
    let before = names();
    assert!(check("").is_ok() && check("not/yet/there").is_ok());
    for folder in ["file", "file/below", "odd"] {
        let refused = check(folder).expect_err(folder);
        assert!(matches!(refused, Error::Folder { .. }), "{refused}");
    }
    assert_eq!(names(), before);
    // A folder that runs is as good as one that does not.
    let store = scratch.open();
    assert!(scratch.options().check_folder().is_ok());
    drop(store);
}

#[test]
fn a_newer_format_another_programs_file_and_no_database_are_refused() {
    let scratch = Scratch::new();
    let open = || SqliteStore::open(&scratch.options()).err().unwrap();
    scratch.open();
    database(&scratch).pragma_update(None, "user_version", 2).unwrap();
    let newer = open();
    assert!(matches!(newer, Error::TooNew { found: 2, known: 1, .. }), "{newer}");
    database(&scratch).pragma_update(None, "application_id", 7).unwrap();
    assert!(matches!(open(), Error::NotOurs { .. }));
    std::fs::write(scratch.path().join("store.sqlite"), [7; 8192]).unwrap();
    let damaged = open();
    assert!(matches!(damaged, Error::Damaged { .. }), "{damaged}");
    std::fs::remove_file(scratch.path().join("store.sqlite")).unwrap();
    std::fs::create_dir(scratch.path().join("store.sqlite")).unwrap();
    assert!(matches!(open(), Error::Folder { .. }));
}

#[test]
fn damage_is_told_and_kills_nobody() {
    let scratch = Scratch::new();
    let store = scratch.open();
    for number in 0..200 {
        now(store.commit(first(&format!("resp_{number}"))));
    }
    drop(store);
    let path = scratch.path().join("store.sqlite");
    let mut file = std::fs::read(&path).unwrap();
    file[3 * 4096..].fill(0xa5);
    std::fs::write(&path, file).unwrap();
    let Ok(store) = SqliteStore::open(&scratch.options()) else { return };
    let mut errors = 0;
    for number in 0..20 {
        errors += u32::from(answer(store.load(ANN, &format!("resp_{number}"), 0)).is_err());
        errors += u32::from(answer(store.commit(first(&format!("resp_{number}")))).is_err());
    }
    assert!(errors > 0);
}

#[test]
fn a_full_disk_is_told_and_what_is_deleted_makes_room() {
    let scratch = Scratch::new();
    let store = SqliteStore::open(&Options { file_bytes_max: 1 << 20, ..scratch.options() }).unwrap();
    let large = |id: String| Record { response: Bytes::from(vec![b'r'; 50_000]), ..first(&id) };
    let mut kept = 0;
    let error = loop {
        match answer(store.commit(large(format!("resp_{kept}")))) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert!(kept > 10);
    assert!(now(store.load(ANN, &format!("resp_{kept}"), 0)).is_none(), "what could not be kept is not there in part");
    assert!(now(store.load(ANN, "resp_0", 0)).is_some());
    assert!(now(store.delete(ANN, "resp_0", 0)));
    now(store.commit(large("resp_again".into())));
}

/// A write that fails must not take with it those that share its transaction.
#[test]
fn one_that_fails_spoils_no_others() {
    let scratch = Scratch::new();
    let limits = Limits { bytes_max: 100_000, ..PLENTY };
    let store = SqliteStore::open(&Options { limits, ..scratch.options() }).unwrap();
    let asked: Vec<_> = (0..60)
        .map(|number| {
            let bytes = if number % 10 == 3 { 200_000 } else { 10 };
            store.commit(Record { response: Bytes::from(vec![b'r'; bytes]), ..first(&format!("resp_{number}")) })
        })
        .collect();
    for (number, asked) in asked.into_iter().enumerate() {
        let id = format!("resp_{number}");
        match answer(asked) {
            Ok(()) => assert!(number % 10 != 3 && now(store.load(ANN, &id, 0)).is_some(), "{id}"),
            Err(error) => assert!(number % 10 == 3 && matches!(error, Error::RecordTooLarge { .. }), "{id}: {error}"),
        }
    }
}

#[test]
fn a_full_queue_refuses() {
    let scratch = Scratch::new();
    let store = SqliteStore::open(&Options { queue_max: 4, ..scratch.options() }).unwrap();
    let asked: Vec<_> = (0..2000).map(|number| store.commit(first(&format!("resp_{number}")))).collect();
    let (mut kept, mut refused) = (0, 0);
    for asked in asked {
        match answer(asked) {
            Ok(()) => kept += 1,
            Err(Error::Busy { queue_max: 4 }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(kept >= 4 && refused > 0, "{kept} kept, {refused} refused");
}

/// The files' pages that hold something.
fn bytes_on_disk(scratch: &Scratch) -> i64 {
    count(
        scratch,
        "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
    )
}

/// A chain of so many turns on a long history.
fn chain(turns: usize) -> Vec<Record> {
    let long = Record { items: (0..100).map(|at| item_of(4096, at)).collect(), outputs: 1, ..first("resp_0") };
    let mut records = vec![long];
    for turn in 1..turns {
        records.push(next(records.last().unwrap(), &format!("resp_{turn}")));
    }
    records
}

fn item_of(bytes: usize, number: usize) -> Bytes {
    Bytes::from(format!(r#"{{"id":"msg_{number}","text":"{}"}}"#, "x".repeat(bytes)))
}

#[test]
fn a_history_is_kept_once_however_many_turns_go_on_from_it() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let records = chain(41);
    now(store.commit(records[0].clone()));
    let asked: Vec<_> = records[1..].iter().map(|record| store.commit(record.clone())).collect();
    asked.into_iter().for_each(now);
    assert_eq!(now(store.load(ANN, "resp_40", 0)).as_deref(), records.last());
    drop(store);
    let bytes = bytes_on_disk(&scratch);
    assert!(bytes < 1_000_000, "{bytes} bytes for 400 KB and 40 turns");
}

#[test]
fn a_conversations_history_is_kept_once_too() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let made = Conversation { id: "conv".into(), owner: ANN, metadata: Bytes::new(), created_unix_ms: 0 };
    let mut all: Vec<_> = (0..100).map(|at| item_of(4096, at)).collect();
    now(store.conversation_create(made, all.clone()));
    for turn in 0..20 {
        let own = first(&format!("resp_{turn}"));
        let inherited = all.len();
        all.extend(own.items.iter().cloned());
        now(store.commit(Record { conversation: Some("conv".into()), inherited, items: all.clone().into(), ..own }));
    }
    drop(store);
    let bytes = bytes_on_disk(&scratch);
    assert!(bytes < 1_500_000, "{bytes} bytes for 400 KB, twice, and 20 turns");
}

#[test]
fn when_all_of_a_chain_is_deleted_nothing_of_it_is_left() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let records = chain(12);
    for record in &records {
        now(store.commit(record.clone()));
    }
    for record in &records {
        assert!(now(store.delete(ANN, &record.id, 0)));
    }
    drop(store);
    for table in ["responses", "bodies", "items"] {
        assert_eq!(count(&scratch, &format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
    assert!(!scratch.has("xxxxxxxxxxxxxxxx"), "what is deleted is overwritten");
}

#[test]
fn the_oldest_make_room_and_what_is_not_finished_stays() {
    let scratch = Scratch::new();
    let limits = Limits { records_max: 4, ..PLENTY };
    let store = SqliteStore::open(&Options { limits, ..scratch.options() }).unwrap();
    now(store.job_create(first("resp_job"), Bytes::new()));
    let made = Conversation { id: "conv".into(), owner: ANN, metadata: Bytes::new(), created_unix_ms: 2 };
    now(store.conversation_create(made, vec![]));
    let mut before = first("resp_0");
    for number in 1..=5 {
        let record = Record { created_unix_ms: number, ..next(&before, &format!("resp_{number}")) };
        now(store.commit(record.clone()));
        before = record;
    }
    let there = |id: &str| now(store.retrieve(ANN, id, 5)).is_some();
    assert_eq!(["resp_1", "resp_2", "resp_3", "resp_4", "resp_5"].map(there), [false, false, true, true, true]);
    assert!(there("resp_job") && now(store.conversation(ANN, "conv", 5)).is_none());
    assert_eq!(now(store.load(ANN, "resp_5", 5)).as_deref(), Some(&before), "with the context of those that went");
    for number in 6..9 {
        now(store.job_create(Record { created_unix_ms: number, ..first(&format!("resp_{number}")) }, Bytes::new()));
    }
    let full = answer(store.commit(first("resp_9"))).unwrap_err();
    assert!(matches!(full, Error::Full { .. }), "{full}");
    assert!(now(store.job_finish(first("resp_job"), vec![])));
    now(store.commit(first("resp_9")));
    assert!(!there("resp_job"));
}

/// The counts that the limits go by, as the file has them: what a store that is opened again begins with.
#[test]
fn the_counts_stay_true_through_all_that_changes_them() {
    let scratch = Scratch::new();
    let event = |number| Event { sequence_number: number, json: Bytes::from_static(b"{}") };
    let big = |id: &str| Record { response: Bytes::from(vec![b'r'; 60_000]), ..first(id) };
    let limits = Limits { bytes_max: 100_000, ..PLENTY };
    let options = Options { limits, ..scratch.options() };
    for round in 0..3 {
        let store = SqliteStore::open(&options).unwrap();
        for number in 0..30 {
            let id = format!("job_{round}_{number}");
            now(store.job_create(first(&id), Bytes::from(vec![b'q'; 20_000])));
            now(store.job_start(ANN, &id, Bytes::from(vec![b's'; 20_000])));
            now(store.job_append(ANN, &id, vec![event(0), event(1)]));
            now(store.job_finish(next(&first(&id), &id), vec![event(2)]));
            let made = Conversation { id: id.clone(), owner: ANN, metadata: Bytes::new(), created_unix_ms: 0 };
            now(store.conversation_create(made, items(&["a", "b"])));
            now(store.conversation_update(ANN, &id, Bytes::from(vec![b'm'; 9_000]), 0));
            now(store.conversation_item_delete(ANN, &id, "a", 0));
            now(store.conversation_delete(ANN, &id, 0));
        }
        // Ninety of them have gone by, in a store that holds five: so the counts neither leak nor lose.
        now(store.commit(big("resp_big")));
        assert!(now(store.retrieve(ANN, &format!("job_{round}_29"), 0)).is_some());
        assert!(now(store.retrieve(ANN, "resp_big", 0)).is_some());
        let refused = answer(store.commit(Record { response: Bytes::from(vec![b'r'; 99_900]), ..first("resp_2") }));
        assert!(matches!(refused, Err(Error::RecordTooLarge { .. })));
        now(store.delete(ANN, "resp_big", 0));
    }
    let db = database(&scratch);
    let wrong: i64 = db
        .query_row(
            "SELECT count(*) FROM responses WHERE item_bytes !=
             (SELECT sum(length(json) + 192) FROM items WHERE response = responses.number)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(wrong, 0);
    let wrong: i64 = db
        .query_row(
            "SELECT count(*) FROM responses WHERE other_bytes != 512 + length(id)
             + (SELECT length(json) FROM bodies WHERE response = number)
             + (SELECT sum(length(json) + 16) FROM events WHERE response = number)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(wrong, 0);
}

#[test]
fn the_expired_are_swept_while_nobody_asks() {
    static CLOCK: AtomicU64 = AtomicU64::new(0);
    let scratch = Scratch::new();
    let options = Options { usage_age_ms_max: 5_000, clock: || CLOCK.load(Ordering::Relaxed), ..scratch.options() };
    let store = SqliteStore::open(&options).unwrap();
    for record in chain(100) {
        now(store.commit(record));
    }
    let made = Conversation { id: "conv".into(), owner: ANN, metadata: Bytes::new(), created_unix_ms: 0 };
    now(store.conversation_create(made, items(&["msg"])));
    let entry = UsageEntry { owner: OwnerId::default(), tokens: Tokens::default(), ..UsageEntry::default() };
    now(store.usage_append(entry.clone()));
    now(store.usage_append(UsageEntry { unix_ms: 4_000, ..entry }));
    CLOCK.store(6_000, Ordering::Relaxed);
    let left = || {
        let db = database(&scratch);
        let rows = ["responses", "items", "conversations", "conversation_items", "usage"];
        rows.map(|table| {
            db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap()
        })
    };
    let began = std::time::Instant::now();
    while left() != [0, 0, 0, 0, 1] {
        assert!(began.elapsed().as_secs() < 30, "{:?}", left());
        std::thread::yield_now();
    }
}

#[test]
fn a_ledger_that_expires_as_quickly_as_turns_come_does_not_grow() {
    let scratch = Scratch::new();
    let options = Options { usage_age_ms_max: 5_000, clock: || 10_000, ..scratch.options() };
    drop(SqliteStore::open(&options).unwrap());
    let expired = "WITH RECURSIVE row(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM row LIMIT 8000)
        INSERT INTO usage SELECT number, 0, x'00', 'resp', 'model', 'latency', 0, 0, 0, 0 FROM row";
    database(&scratch).execute_batch(expired).unwrap();
    let began = std::time::Instant::now();
    let _store = SqliteStore::open(&options).unwrap();
    while count(&scratch, "SELECT count(*) FROM usage") > 0 {
        assert!(began.elapsed().as_secs() < 30, "fewer than 270 rows a second");
        std::thread::yield_now();
    }
}

#[test]
fn a_store_that_is_opened_again_counts_what_it_has() {
    let scratch = Scratch::new();
    let options = Options { limits: Limits { records_max: 3, ..PLENTY }, ..scratch.options() };
    for number in 0..6 {
        let store = SqliteStore::open(&options).unwrap();
        now(store.commit(Record { created_unix_ms: number, ..first(&format!("resp_{number}")) }));
    }
    assert_eq!(count(&scratch, "SELECT count(*) FROM responses"), 3);
}

#[test]
fn what_a_job_went_on_from_goes_with_it_though_it_was_deleted_while_the_job_ran() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let one = first("resp_1");
    now(store.commit(one.clone()));
    let two = next(&one, "resp_2");
    let queued = Record { outputs: 0, items: two.items.iter().take(3).cloned().collect(), ..two.clone() };
    now(store.job_create(queued, Bytes::from_static(b"{}")));
    assert!(now(store.delete(ANN, "resp_1", 0)));
    assert!(now(store.job_finish(two.clone(), Vec::new())));
    assert_eq!(now(store.load(ANN, "resp_2", 0)).unwrap().items, two.items, "its context is whole");
    assert!(now(store.delete(ANN, "resp_2", 0)));
    drop(store);
    for table in ["items", "responses", "bodies"] {
        assert_eq!(count(&scratch, &format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
}
