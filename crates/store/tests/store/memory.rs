//! The memory store: how much of what is kept, and who goes first.

use std::sync::Arc;

use bytes::Bytes;
use flashlane_store::{Conversation, Error, Event, Items, Limits, MemoryStore, OwnerId, Record, Store, Usage};

use crate::support::{ANN, BOB, Chance, answer, first, items, now};

const PLENTY: Limits = Limits { bytes_max: 1 << 20, records_max: 100, age_ms_max: 1000 };

fn record(owner: OwnerId, id: &str, bytes: usize, created_unix_ms: u64) -> Record {
    let items = vec![Bytes::from(vec![b'i'; bytes / 2]), Bytes::from(vec![b'o'; bytes - bytes / 2])];
    Record {
        id: id.to_owned(),
        owner,
        items: items.into(),
        response: Bytes::from_static(b"{}"),
        created_unix_ms,
        ..Record::default()
    }
}

fn load(store: &dyn Store, owner: OwnerId, id: &str, at: u64) -> Option<Arc<Record>> {
    now(store.load(owner, id, at))
}

#[test]
fn what_is_deleted_is_gone_and_frees_its_bytes() {
    let store = MemoryStore::new(PLENTY);
    now(store.commit(record(ANN, "resp_1", 100, 0)));
    assert!(now(store.delete(ANN, "resp_1", 0)));
    assert!(!now(store.delete(ANN, "resp_1", 0)));
    assert_eq!(load(&store, ANN, "resp_1", 0), None);
    assert_eq!(store.usage(), Usage::default());
}

#[test]
fn a_record_expires_and_the_next_commit_sweeps_it() {
    let store = MemoryStore::new(PLENTY);
    now(store.commit(record(ANN, "resp_1", 100, 5000)));
    now(store.commit(record(ANN, "resp_2", 100, 5500)));
    assert!(load(&store, ANN, "resp_1", 6000).is_some());
    assert!(load(&store, ANN, "resp_1", 6001).is_none());
    assert!(load(&store, ANN, "resp_1", 0).is_some(), "a clock that went back expires nothing");
    now(store.commit(record(ANN, "resp_3", 100, 6001)));
    assert_eq!(store.usage().records, 2);
    assert!(load(&store, ANN, "resp_2", 6001).is_some());
}

#[test]
fn the_oldest_make_room() {
    let store = MemoryStore::new(Limits { records_max: 2, ..PLENTY });
    for id in ["resp_1", "resp_2", "resp_1", "resp_3"] {
        now(store.commit(record(ANN, id, 10, 0)));
    }
    let there = ["resp_1", "resp_2", "resp_3"].map(|id| load(&store, ANN, id, 0).is_some());
    assert_eq!(there, [true, false, true], "resp_1 was committed again, after resp_2");
}

#[test]
fn a_record_larger_than_the_store_is_refused_and_nothing_is_lost_for_it() {
    let store = MemoryStore::new(Limits { bytes_max: 10_000, ..PLENTY });
    now(store.commit(record(ANN, "resp_1", 100, 0)));
    let before = store.usage();
    let Err(Error::RecordTooLarge { bytes, bytes_max }) = answer(store.commit(record(ANN, "resp_1", 10_000, 0))) else {
        panic!("it was kept")
    };
    assert!(bytes > bytes_max);
    assert_eq!(store.usage(), before);
    assert_eq!(load(&store, ANN, "resp_1", 0), Some(Arc::new(record(ANN, "resp_1", 100, 0))));
}

#[test]
fn what_is_not_finished_makes_no_room() {
    let store = MemoryStore::new(Limits { bytes_max: 40_000, ..PLENTY });
    let request = || Bytes::from(vec![b'q'; 9_000]);
    now(store.job_create(record(ANN, "resp_job", 10, 0), request()));
    for number in 0..50 {
        now(store.commit(record(ANN, &format!("resp_{number}"), 5_000, 0)));
    }
    assert!(load(&store, ANN, "resp_job", 0).is_some());
    for id in ["resp_2", "resp_3", "resp_4"] {
        now(store.job_create(record(ANN, id, 10, 0), request()));
    }
    let Err(Error::Full { .. }) = answer(store.commit(record(ANN, "resp_5", 5_000, 0))) else { panic!("it was kept") };
    let event = Event { sequence_number: 0, json: request() };
    let Err(Error::Full { .. }) = answer(store.job_append(ANN, "resp_2", vec![event])) else { panic!("it was kept") };
    assert_eq!(now(store.jobs_unfinished()).len(), 4);
    assert!(now(store.job_finish(record(ANN, "resp_2", 10, 0), vec![])));
    now(store.commit(record(ANN, "resp_5", 5_000, 0)));
    for id in ["resp_job", "resp_2", "resp_3", "resp_4", "resp_5"] {
        now(store.delete(ANN, id, 0));
    }
    assert_eq!(store.usage(), Usage::default());
}

/// Whatever is done to conversations and jobs, what is left is counted for what it is: nothing, in the end.
#[test]
fn the_counts_stay_true_through_all_that_changes_them() {
    let store = MemoryStore::new(PLENTY);
    let made = Conversation { id: "conv".into(), owner: ANN, metadata: Bytes::from_static(b"{}"), created_unix_ms: 0 };
    now(store.conversation_create(made, items(&["a", "b"])));
    now(store.conversation_append(ANN, "conv", items(&["c"]), 0));
    now(store.conversation_update(ANN, "conv", Bytes::from_static(b"{\"longer\":1}"), 0));
    now(store.conversation_update(ANN, "conv", Bytes::new(), 0));
    now(store.conversation_item_delete(ANN, "conv", "a", 0));
    let said = Record { conversation: Some("conv".into()), inherited: 0, ..first("resp_1") };
    now(store.job_create(said.clone(), Bytes::from_static(b"request")));
    now(store.job_start(ANN, "resp_1", Bytes::from_static(b"longer than before, by some bytes")));
    now(store.job_start(ANN, "resp_1", Bytes::new()));
    now(store.job_append(ANN, "resp_1", vec![Event { sequence_number: 0, json: Bytes::from_static(b"{}") }]));
    assert!(now(store.job_finish(said, vec![])));
    assert_eq!(store.usage().records, 2);
    now(store.delete(ANN, "resp_1", 0));
    now(store.conversation_delete(ANN, "conv", 0));
    assert_eq!(store.usage(), Usage::default());
    assert_eq!(now(store.find_items(ANN, vec!["resp_1_in".into()], 0)), [None]);
}

#[test]
fn what_many_share_is_counted_once_and_until_the_last_of_them_goes() {
    let store = MemoryStore::new(Limits { bytes_max: 250_000, ..PLENTY });
    let history = Bytes::from(vec![b'h'; 100_000]);
    let turn = |number: usize| Record {
        items: vec![history.clone(), Bytes::from(vec![b'i'; 100])].into(),
        ..record(ANN, &format!("resp_{number}"), 0, 0)
    };
    for number in 0..50 {
        now(store.commit(turn(number)));
    }
    assert_eq!(store.usage().records, 50);
    now(store.job_create(turn(50), Bytes::new()));
    let made = Conversation { id: "conv".into(), owner: ANN, metadata: Bytes::new(), created_unix_ms: 0 };
    now(store.conversation_create(made, vec![history.clone()]));
    for number in 0..50 {
        now(store.delete(ANN, &format!("resp_{number}"), 0));
    }
    assert_eq!((store.usage().records, store.usage().bytes > 100_000), (2, true));
    // What makes room is what it shares with nobody, and what is new is not evicted for what it shares itself.
    let Err(Error::Full { .. }) = answer(store.commit(record(ANN, "resp_big", 180_000, 0))) else { panic!("kept") };
    assert!(now(store.job_finish(turn(50), vec![])));
    now(store.commit(record(ANN, "resp_big", 180_000, 0)));
    assert_eq!(store.usage().records, 1, "the two that shared made room together");
    now(store.delete(ANN, "resp_big", 0));
    assert_eq!(store.usage(), Usage::default());
}

#[test]
fn a_copy_of_what_a_record_goes_on_from_is_not_kept() {
    let store = MemoryStore::new(PLENTY);
    let copied = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let root = record(ANN, "resp_1", 10_000, 0);
    now(store.commit(root.clone()));
    let alone = store.usage().bytes;
    let items = root.items.iter().map(copied).collect();
    let child = Record { previous: Some("resp_1".into()), inherited: 2, items, ..record(ANN, "resp_2", 0, 0) };
    now(store.commit(child.clone()));
    assert!(store.usage().bytes < alone + 2_000, "{:?}", store.usage());
    let theirs = Record { owner: BOB, ..child.clone() };
    now(store.commit(theirs));
    assert!(store.usage().bytes > 2 * alone, "nobody shares with another");
    now(store.delete(ANN, "resp_1", 0));
    assert_eq!(load(&store, ANN, "resp_2", 0).as_deref(), Some(&child));
}

#[test]
fn runs_that_many_share_are_counted_once_and_so_is_an_item_in_two_of_them() {
    let store = MemoryStore::new(Limits { bytes_max: 250_000, ..PLENTY });
    let history = Arc::new(vec![Bytes::from(vec![b'h'; 100_000])]);
    // As a chain merges its runs: the same item in another.
    let merged = Arc::new(vec![history[0].clone(), Bytes::from(vec![b'm'; 100])]);
    for number in 0..50 {
        let first = if number < 25 { &history } else { &merged };
        let runs = vec![Arc::clone(first), Arc::new(vec![Bytes::from(vec![b'i'; 100])])];
        let items = Items::new(runs);
        now(store.commit(Record { items, inherited: 1, ..record(ANN, &format!("resp_{number}"), 0, 0) }));
    }
    assert_eq!(store.usage().records, 50);
    for number in 0..49 {
        now(store.delete(ANN, &format!("resp_{number}"), 0));
    }
    assert_eq!((store.usage().records, store.usage().bytes > 100_000), (1, true));
    now(store.delete(ANN, "resp_49", 0));
    assert_eq!(store.usage(), Usage::default());
}

#[test]
fn records_without_contents_have_a_size_too() {
    let store = MemoryStore::new(Limits { bytes_max: 10_000, ..PLENTY });
    let hollow = Record { items: vec![Bytes::new(); 200].into(), ..record(ANN, "resp_0", 0, 0) };
    now(store.commit(hollow));
    assert!(store.usage().bytes > 200 * size_of::<Bytes>());
    for number in 0..50 {
        now(store.commit(record(ANN, &format!("resp_{number}"), 0, 0)));
    }
    assert!(store.usage().records < 20);
}

#[test]
fn contents_are_never_shown() {
    let shown = format!("{:?}", Record { response: Bytes::from_static(b"secret"), ..record(ANN, "resp_1", 100, 0) });
    assert!(shown.contains("resp_1") && !shown.contains("secret") && !shown.contains("iii"), "{shown}");
}

/// Against a list: the newest commits, as many as fit.
#[test]
fn any_script_of_commits_loads_and_deletes_keeps_the_newest_that_fit() {
    let limits = Limits { bytes_max: 8_000, records_max: 7, age_ms_max: 300 };
    for seed in 0..300 {
        let mut chance = Chance(seed);
        let store = MemoryStore::new(limits);
        let mut model: Vec<Record> = Vec::new();
        for at in (0..400).map(|step| step * 10) {
            let owner = if chance.below(2) == 0 { ANN } else { BOB };
            let id = format!("resp_{}", chance.below(12));
            let same = |record: &Record| record.owner == owner && record.id == id;
            match chance.below(4) {
                0 => {
                    let was_there = model.iter().any(same);
                    assert_eq!(now(store.delete(owner, &id, 0)), was_there, "seed {seed} at {at}");
                    model.retain(|record| !same(record));
                }
                1 => {
                    let expected = model.iter().find(|record| same(record) && at - record.created_unix_ms <= 300);
                    assert_eq!(load(&store, owner, &id, at).as_deref(), expected, "seed {seed} at {at}");
                }
                _ => {
                    let new = record(owner, &id, chance.below(3000), at);
                    now(store.commit(new.clone()));
                    model.retain(|record| !same(record) && at - record.created_unix_ms <= 300);
                    model.push(new);
                    let gone = model.len() - store.usage().records;
                    let dropped: Vec<_> = model.drain(..gone).collect();
                    if let Some(last) = dropped.last() {
                        let full = store.usage().records == 7 || store.usage().bytes + bytes(last) > limits.bytes_max;
                        assert!(full, "seed {seed} at {at}: dropped one more than need be");
                    }
                }
            }
            let used = Usage { bytes: model.iter().map(bytes).sum(), records: model.len() };
            assert_eq!(store.usage(), used, "seed {seed} at {at}");
            assert!(used.bytes <= limits.bytes_max && used.records <= limits.records_max);
        }
    }
}

/// What a store counts for the record alone.
fn bytes(record: &Record) -> usize {
    let store = MemoryStore::new(PLENTY);
    now(store.commit(record.clone()));
    store.usage().bytes
}

#[test]
fn threads_that_commit_and_delete_at_once_leave_a_true_count() {
    let store = Arc::new(MemoryStore::new(Limits { records_max: 5, ..PLENTY }));
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                let mut chance = Chance(seed);
                for _ in 0..2_000 {
                    let id = format!("resp_{}", chance.below(10));
                    match chance.below(3) {
                        0 => drop(now(store.delete(ANN, &id, 0))),
                        1 => drop(load(store.as_ref(), ANN, &id, 0)),
                        _ => now(store.commit(record(ANN, &id, 100, 0))),
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(store.usage().records <= 5);
    for number in 0..10 {
        now(store.delete(ANN, &format!("resp_{number}"), 0));
    }
    assert_eq!(store.usage(), Usage::default());
}
