//! What every store promises, each promise asked of both.

use bytes::Bytes;
use flashlane_store::{
    Conversation, EVENTS_READ_MAX, Event, JobState, Listing, MemoryStore, Order, Page, Record, Store, Tokens,
    UnfinishedJob, UsageEntry, UsageTotal,
};

use crate::support::{ANN, BOB, PLENTY, Scratch, first, item, items, next, now};

macro_rules! of_both {
    ($($promise:ident)*) => {
        mod of_memory {
            use super::*;
            $(#[test] fn $promise() { super::$promise(&MemoryStore::new(PLENTY)); })*
        }
        mod of_sqlite {
            use super::*;
            $(#[test] fn $promise() { let scratch = Scratch::new(); super::$promise(&scratch.open()); })*
        }
    };
}

of_both! {
    what_is_committed_is_loaded_as_it_was
    anothers_record_is_not_there
    what_is_deleted_is_gone_and_its_children_stay_whole
    what_is_expired_is_not_there
    a_record_replaces_one_of_its_name_and_children_stay_whole
    a_forgotten_parent_changes_nothing
    input_items_are_paged_without_the_output
    items_are_found_by_id_among_those_that_responses_brought
    a_job_goes_its_way
    a_job_that_is_gone_takes_nothing
    a_journal_is_read_in_parts
    a_conversation_is_changed_and_listed
    responses_follow_their_conversation
    use_is_summed_by_owner_model_and_tier
}

fn load(store: &dyn Store, id: &str) -> Option<Record> {
    now(store.load(ANN, id, 0)).map(|record| Record::clone(&record))
}

fn what_is_committed_is_loaded_as_it_was(store: &dyn Store) {
    let (one, two) = (first("resp_1"), next(&first("resp_1"), "resp_2"));
    now(store.commit(one.clone()));
    now(store.commit(two.clone()));
    let fork = Record { owner: ANN, created_unix_ms: 7, ..next(&one, "resp_3") };
    now(store.commit(fork.clone()));
    for record in [one, two, fork] {
        assert_eq!(load(store, &record.id).as_ref(), Some(&record));
        let retrieved = now(store.retrieve(ANN, &record.id, 0)).unwrap();
        assert_eq!((retrieved.response, retrieved.created_unix_ms), (record.response, record.created_unix_ms));
        assert_eq!(retrieved.job, None);
    }
    assert_eq!(load(store, "resp_4"), None);
}

fn anothers_record_is_not_there(store: &dyn Store) {
    now(store.commit(first("resp_1")));
    now(store.job_create(first("resp_job"), Bytes::from_static(b"{}")));
    let conversation =
        Conversation { id: "conv_1".into(), owner: ANN, metadata: Bytes::from_static(b"{}"), created_unix_ms: 0 };
    now(store.conversation_create(conversation, items(&["msg_1"])));
    assert_eq!(now(store.load(BOB, "resp_1", 0)), None);
    assert_eq!(now(store.retrieve(BOB, "resp_1", 0)), None);
    assert_eq!(now(store.input_items(BOB, "resp_1", Page::WHOLE, 0)), None);
    assert_eq!(now(store.find_items(BOB, vec!["resp_1_in".into()], 0)), [None]);
    assert!(!now(store.delete(BOB, "resp_1", 0)));
    assert!(!now(store.job_start(BOB, "resp_job", Bytes::new())));
    assert!(!now(store.job_append(BOB, "resp_job", vec![])));
    assert!(!now(store.job_finish(Record { owner: BOB, ..first("resp_job") }, vec![])));
    assert_eq!(now(store.job_cancel(BOB, "resp_job", 0)), None);
    assert_eq!(now(store.job_events(BOB, "resp_job", None, 0)), None);
    assert_eq!(now(store.job_request(BOB, "resp_job")), None);
    assert_eq!(now(store.conversation(BOB, "conv_1", 0)), None);
    assert!(!now(store.conversation_update(BOB, "conv_1", Bytes::new(), 0)));
    assert!(!now(store.conversation_append(BOB, "conv_1", items(&["msg_2"]), 0)));
    assert_eq!(now(store.conversation_items(BOB, "conv_1", Page::WHOLE, 0)), None);
    assert_eq!(now(store.conversation_item(BOB, "conv_1", "msg_1", 0)), None);
    assert!(!now(store.conversation_item_delete(BOB, "conv_1", "msg_1", 0)));
    assert!(!now(store.conversation_delete(BOB, "conv_1", 0)));
    // Nor can it be gone on from, or taken by a record of the same name.
    let (own, theirs) = (first("resp_1"), Record { owner: BOB, response: Bytes::from_static(b"2"), ..first("resp_1") });
    let child = Record { owner: BOB, ..next(&own, "resp_2") };
    now(store.commit(child.clone()));
    now(store.commit(theirs.clone()));
    now(store.delete(ANN, "resp_1", 0));
    assert_eq!(now(store.load(BOB, "resp_2", 0)).as_deref(), Some(&child));
    assert_eq!(now(store.load(BOB, "resp_1", 0)).as_deref(), Some(&theirs));
    assert_eq!(load(store, "resp_1"), None);
}

fn what_is_deleted_is_gone_and_its_children_stay_whole(store: &dyn Store) {
    let one = first("resp_1");
    let two = next(&one, "resp_2");
    let three = next(&two, "resp_3");
    for record in [&one, &two, &three] {
        now(store.commit(record.clone()));
    }
    assert!(now(store.delete(ANN, "resp_1", 0)));
    assert!(!now(store.delete(ANN, "resp_1", 0)));
    assert!(now(store.delete(ANN, "resp_2", 0)));
    assert_eq!((load(store, "resp_1"), load(store, "resp_2")), (None, None));
    assert_eq!(now(store.retrieve(ANN, "resp_1", 0)), None);
    assert_eq!(now(store.find_items(ANN, vec!["resp_1_in".into()], 0)), [None]);
    assert_eq!(load(store, "resp_3"), Some(three.clone()));
    // A name that was deleted is free, and its new bearer is not the parent of the old one's children.
    now(store.commit(Record { items: items(&["msg_new", "msg_other"]).into(), ..first("resp_2") }));
    assert_eq!(load(store, "resp_3"), Some(three));
    assert!(now(store.delete(ANN, "resp_3", 0)));
    assert_eq!(load(store, "resp_3"), None);
}

fn what_is_expired_is_not_there(store: &dyn Store) {
    now(store.commit(Record { created_unix_ms: 5000, ..first("resp_1") }));
    assert!(now(store.load(ANN, "resp_1", 6000)).is_some());
    assert!(now(store.load(ANN, "resp_1", 0)).is_some(), "a clock that went back expires nothing");
    assert!(now(store.load(ANN, "resp_1", 6001)).is_none());
    assert!(now(store.retrieve(ANN, "resp_1", 6001)).is_none());
    assert!(now(store.input_items(ANN, "resp_1", Page::WHOLE, 6001)).is_none());
    assert_eq!(now(store.find_items(ANN, vec!["resp_1_in".into()], 6001)), [None]);
    assert!(!now(store.delete(ANN, "resp_1", 6001)));
    let conversation = Conversation { id: "conv_1".into(), owner: ANN, metadata: Bytes::new(), created_unix_ms: 5000 };
    now(store.conversation_create(conversation, vec![]));
    assert!(now(store.conversation_append(ANN, "conv_1", vec![], 5500)), "a change keeps it for longer");
    assert!(now(store.conversation(ANN, "conv_1", 6500)).is_some());
    assert!(now(store.conversation(ANN, "conv_1", 6501)).is_none());
    assert!(!now(store.conversation_append(ANN, "conv_1", vec![], 6501)));
}

fn a_record_replaces_one_of_its_name_and_children_stay_whole(store: &dyn Store) {
    let one = first("resp_1");
    let two = next(&one, "resp_2");
    now(store.commit(one));
    now(store.commit(two.clone()));
    let again = Record { items: items(&["msg_1"]).into(), response: Bytes::from_static(b"again"), ..first("resp_1") };
    now(store.commit(again.clone()));
    assert_eq!(load(store, "resp_1"), Some(again.clone()));
    assert_eq!(load(store, "resp_2"), Some(two));
    now(store.commit(Record { previous: Some("resp_1".into()), ..again.clone() }));
    assert_eq!(load(store, "resp_1").unwrap().items, again.items, "one that goes on from its own name has all");
}

fn a_forgotten_parent_changes_nothing(store: &dyn Store) {
    let orphan = next(&first("resp_1"), "resp_2");
    now(store.commit(orphan.clone()));
    assert_eq!(load(store, "resp_2"), Some(orphan.clone()));
    let found = now(store.find_items(ANN, vec!["resp_1_in".into(), "resp_2_in".into()], 0));
    assert_eq!(found, [None, Some(orphan.items.to_vec()[2].clone())]);
    // One of the same name with other items is not the parent.
    now(store.commit(Record { items: items(&["msg_1"]).into(), ..first("resp_3") }));
    let child = next(&first("resp_3"), "resp_4");
    now(store.commit(child.clone()));
    assert_eq!(load(store, "resp_4"), Some(child));
}

fn ids(listing: Option<Listing>) -> (Vec<String>, bool) {
    let Some(Listing::Items { items, has_more }) = listing else { panic!("{listing:?}") };
    let id = |item: &Bytes| std::str::from_utf8(item).unwrap().split('"').nth(7).unwrap().to_owned();
    (items.iter().map(id).collect(), has_more)
}

fn page(after: Option<&str>, items_max: usize, order: Order) -> Page {
    Page { after: after.map(str::to_owned), items_max, order }
}

fn input_items_are_paged_without_the_output(store: &dyn Store) {
    let one = first("a");
    now(store.commit(one.clone()));
    now(store.commit(next(&one, "b")));
    let list = |page| now(store.input_items(ANN, "b", page, 0));
    let told = |names: &[&str], has_more| (names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), has_more);
    assert_eq!(ids(list(Page::WHOLE)), told(&["a_in", "a_out", "b_in"], false));
    assert_eq!(ids(list(page(None, 2, Order::NewestFirst))), told(&["b_in", "a_out"], true));
    assert_eq!(ids(list(page(Some("a_out"), 2, Order::NewestFirst))), told(&["a_in"], false));
    assert_eq!(ids(list(page(Some("a_in"), 2, Order::OldestFirst))), told(&["a_out", "b_in"], false));
    assert_eq!(ids(list(page(Some("b_in"), 2, Order::OldestFirst))), told(&[], false));
    assert_eq!(list(page(Some("b_out"), 2, Order::OldestFirst)), Some(Listing::NoSuchItem));
    assert_eq!(now(store.input_items(ANN, "c", Page::WHOLE, 0)), None);
}

fn items_are_found_by_id_among_those_that_responses_brought(store: &dyn Store) {
    let one = first("a");
    let odd = [Bytes::from_static(b"not json"), Bytes::from_static(b"{}"), Bytes::from(r#"{"id":"\u0061\""}"#)];
    let two = Record { items: one.items.iter().chain(&odd).cloned().collect(), ..next(&one, "b") };
    now(store.commit(one));
    now(store.commit(two.clone()));
    let asked = ["b", "a_out", "a\"", "a_in"].map(str::to_owned).to_vec();
    let expected = [None, Some(item("a_out", "out")), Some(odd[2].clone()), Some(item("a_in", "in"))];
    assert_eq!(now(store.find_items(ANN, asked, 0)), expected);
    assert_eq!(load(store, "b"), Some(two));
}

fn event(sequence_number: u64) -> Event {
    Event { sequence_number, json: Bytes::from(format!(r#"{{"sequence_number":{sequence_number}}}"#)) }
}

fn a_job_goes_its_way(store: &dyn Store) {
    let done = Record { created_unix_ms: 3, ..next(&first("resp_1"), "resp_2") };
    let queued = Record { items: done.input_items().cloned().collect(), outputs: 0, ..done.clone() };
    now(store.commit(first("resp_1")));
    now(store.job_create(queued.clone(), Bytes::from_static(b"request")));
    let state = || now(store.retrieve(ANN, "resp_2", 3)).unwrap().job;
    let unfinished = |state, is_cancelled, next_sequence_number| UnfinishedJob {
        owner: ANN,
        id: "resp_2".into(),
        state,
        is_cancelled,
        created_unix_ms: 3,
        next_sequence_number,
    };
    assert_eq!((load(store, "resp_2"), state()), (Some(queued.clone()), Some(JobState::Queued)));
    assert_eq!(now(store.jobs_unfinished()), [unfinished(JobState::Queued, false, 0)]);
    assert_eq!(now(store.job_request(ANN, "resp_2")), Some(Bytes::from_static(b"request")));
    assert!(now(store.job_start(ANN, "resp_2", Bytes::from_static(b"started"))));
    assert!(now(store.job_append(ANN, "resp_2", vec![event(0), event(1)])));
    assert_eq!(now(store.retrieve(ANN, "resp_2", 3)).unwrap().response, "started");
    assert_eq!(now(store.job_cancel(ANN, "resp_2", 3)), Some(JobState::InProgress));
    assert_eq!(now(store.jobs_unfinished()), [unfinished(JobState::InProgress, true, 2)]);
    // Nobody goes on from what is not finished, so what is said to is kept whole.
    let early = next(&queued, "resp_3");
    now(store.commit(early.clone()));
    assert!(now(store.job_finish(done.clone(), vec![event(2)])));
    assert_eq!((load(store, "resp_2"), state()), (Some(done), Some(JobState::Finished)));
    assert_eq!(load(store, "resp_3"), Some(early));
    let journal = now(store.job_events(ANN, "resp_2", Some(0), 3)).unwrap();
    assert_eq!((journal.state, journal.events), (JobState::Finished, vec![event(1), event(2)]));
    assert_eq!(now(store.jobs_unfinished()), []);
    assert_eq!(now(store.job_request(ANN, "resp_2")), None);
    assert_eq!(now(store.job_cancel(ANN, "resp_2", 3)), Some(JobState::Finished), "to cancel again is no error");
}

fn a_job_that_is_gone_takes_nothing(store: &dyn Store) {
    now(store.job_create(first("resp_1"), Bytes::new()));
    assert!(now(store.job_finish(first("resp_1"), vec![event(0)])));
    assert!(!now(store.job_finish(Record { response: Bytes::from_static(b"x"), ..first("resp_1") }, vec![event(1)])));
    assert!(!now(store.job_append(ANN, "resp_1", vec![event(1)])));
    assert!(!now(store.job_start(ANN, "resp_1", Bytes::new())));
    assert_eq!(now(store.job_events(ANN, "resp_1", None, 0)).unwrap().events, [event(0)]);
    assert_eq!(load(store, "resp_1"), Some(first("resp_1")));
    now(store.job_create(first("resp_2"), Bytes::new()));
    assert!(now(store.delete(ANN, "resp_2", 0)));
    assert!(!now(store.job_append(ANN, "resp_2", vec![event(1)])));
    assert!(!now(store.job_finish(first("resp_2"), vec![])));
    assert_eq!((load(store, "resp_2"), now(store.jobs_unfinished())), (None, vec![]));
    now(store.commit(first("resp_1")));
    assert_eq!(now(store.job_events(ANN, "resp_1", None, 0)), None, "a record that replaces a job is none");
    assert_eq!(now(store.job_cancel(ANN, "resp_1", 0)), None);
}

fn a_journal_is_read_in_parts(store: &dyn Store) {
    now(store.job_create(first("resp_1"), Bytes::new()));
    let last = u64::try_from(EVENTS_READ_MAX).unwrap() + 4;
    now(store.job_append(ANN, "resp_1", (0..=last).map(event).collect()));
    now(store.job_append(ANN, "resp_1", vec![event(last)]));
    let read = |after| now(store.job_events(ANN, "resp_1", after, 0)).unwrap().events;
    let part = read(None);
    assert_eq!((part.len(), part.last()), (EVENTS_READ_MAX, Some(&event(last - 5))));
    assert_eq!(read(Some(last - 5)), (last - 4..=last).map(event).collect::<Vec<_>>());
    assert_eq!(read(Some(last)), []);
    assert_eq!(read(Some(u64::MAX)), []);
}

fn a_conversation_is_changed_and_listed(store: &dyn Store) {
    let made =
        Conversation { id: "conv_1".into(), owner: ANN, metadata: Bytes::from_static(b"{}"), created_unix_ms: 1 };
    now(store.conversation_create(made.clone(), items(&["a", "b"])));
    assert_eq!(now(store.conversation(ANN, "conv_1", 1)), Some(made.clone()));
    assert!(now(store.conversation_append(ANN, "conv_1", items(&["c", "d"]), 1)));
    assert!(now(store.conversation_update(ANN, "conv_1", Bytes::from_static(b"{\"a\":1}"), 1)));
    assert_eq!(now(store.conversation(ANN, "conv_1", 1)).unwrap().metadata, "{\"a\":1}");
    let list = |page| now(store.conversation_items(ANN, "conv_1", page, 1));
    assert_eq!(ids(list(Page::WHOLE)).0, ["a", "b", "c", "d"]);
    assert_eq!(ids(list(page(Some("d"), 2, Order::NewestFirst))), (vec!["c".into(), "b".into()], true));
    assert_eq!(list(page(Some("e"), 2, Order::NewestFirst)), Some(Listing::NoSuchItem));
    assert_eq!(now(store.conversation_item(ANN, "conv_1", "b", 1)), Some(item("b", "hello")));
    assert!(now(store.conversation_item_delete(ANN, "conv_1", "b", 1)));
    assert!(!now(store.conversation_item_delete(ANN, "conv_1", "b", 1)));
    assert_eq!(now(store.conversation_item(ANN, "conv_1", "b", 1)), None);
    assert_eq!(ids(list(Page::WHOLE)).0, ["a", "c", "d"]);
    now(store.conversation_create(made, vec![]));
    assert_eq!(ids(list(Page::WHOLE)).0, [""; 0], "one of the same name is replaced");
    assert!(now(store.conversation_delete(ANN, "conv_1", 1)));
    assert!(!now(store.conversation_delete(ANN, "conv_1", 1)));
    assert_eq!(list(Page::WHOLE), None);
}

/// A response of two own items in the conversation.
fn said(before: &[Bytes], id: &str) -> Record {
    let own = first(id);
    let items = before.iter().chain(own.items.iter()).cloned().collect();
    Record { conversation: Some("conv_1".into()), inherited: before.len(), items, ..own }
}

fn responses_follow_their_conversation(store: &dyn Store) {
    let made = Conversation { id: "conv_1".into(), owner: ANN, metadata: Bytes::new(), created_unix_ms: 0 };
    now(store.conversation_create(made, items(&["msg_1"])));
    let all = || {
        let listing = now(store.conversation_items(ANN, "conv_1", Page::WHOLE, 0)).unwrap();
        let Listing::Items { items, .. } = listing else { panic!("{listing:?}") };
        items
    };
    let one = said(&all(), "a");
    now(store.commit(one.clone()));
    assert_eq!(all(), one.items.to_vec());
    let (two, at_once) = (said(&all(), "b"), said(&all(), "c"));
    now(store.commit(two.clone()));
    now(store.commit(at_once.clone()));
    assert_eq!(all()[5..], at_once.items.to_vec()[3..], "both of two at once are in it");
    let three = said(&all(), "d");
    now(store.commit(three.clone()));
    assert!(now(store.conversation_item_delete(ANN, "conv_1", "a_in", 0)));
    // As many as before, but others.
    assert!(now(store.conversation_append(ANN, "conv_1", items(&["msg_2"]), 0)));
    let four = said(&all(), "e");
    now(store
        .job_create(Record { items: four.input_items().cloned().collect(), outputs: 0, ..four.clone() }, Bytes::new()));
    assert_eq!(all(), four.items.to_vec()[..four.inherited], "a job's items are in it when it has finished");
    now(store.job_finish(four.clone(), vec![]));
    assert_eq!(all(), four.items.to_vec());
    assert!(now(store.delete(ANN, "d", 0)));
    let five = said(&all(), "f");
    now(store.commit(five.clone()));
    assert!(now(store.conversation_delete(ANN, "conv_1", 0)));
    let late = said(&five.items.to_vec(), "g");
    now(store.commit(late.clone()));
    for record in [one, two, at_once, four, five, late] {
        assert_eq!(load(store, &record.id), Some(record));
    }
}

fn use_is_summed_by_owner_model_and_tier(store: &dyn Store) {
    let tokens = Tokens { input: 10, cached: 4, output: 3, reasoning: 1 };
    let entry = |owner, model: &str, unix_ms| UsageEntry {
        owner,
        response_id: "resp_1".into(),
        model: model.into(),
        tier: "latency".into(),
        tokens,
        unix_ms,
    };
    for entry in [entry(BOB, "m", 5), entry(ANN, "m", 6), entry(ANN, "l", 7), entry(ANN, "m", 8), entry(ANN, "m", 9)] {
        now(store.usage_append(entry));
    }
    let twice = Tokens { input: 20, cached: 8, output: 6, reasoning: 2 };
    let total = |owner, model: &str, turns, tokens| UsageTotal {
        owner,
        model: model.into(),
        tier: "latency".into(),
        turns,
        tokens,
    };
    let (ann_l, ann_m) = (total(ANN, "l", 1, tokens), total(ANN, "m", 2, twice));
    assert_eq!(now(store.usage_sum(Some(ANN), 6..9)), [ann_l.clone(), ann_m.clone()]);
    assert_eq!(now(store.usage_sum(None, 0..9)), [ann_l, ann_m, total(BOB, "m", 1, tokens)]);
    assert_eq!(now(store.usage_sum(Some(BOB), 6..u64::MAX)), []);
}
