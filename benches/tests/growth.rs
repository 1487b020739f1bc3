//! What a request of many parts costs grows as the parts do: twice as many, twice as much. Processor time of this thread, so that a busy
//! machine does not matter.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

use flashlane_engine::seal::Keyring;
use flashlane_engine::{Answer, Endpoint, Fleet, IdSource, Model, Route};
use flashlane_engine::{Now, Owner, Session, Settings, Shared, Tier};
use std::fs;
use std::sync::Arc;

const FEW: usize = 2_000;
const TIMES: usize = 16;

fn own_ns() -> u64 {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    schedstat.split_whitespace().next().unwrap().parse().unwrap()
}

fn shared() -> Arc<Shared> {
    let endpoint = Endpoint::named("one", Tier::Latency);
    let model = Model { context_tokens_max: u32::MAX, route: Route::LatencyOnly, ..Model::named("m") };
    let fleet = Fleet { endpoints: vec![endpoint], models: vec![model], ..Fleet::default() };
    let ring = Keyring::new(&[7; 32], &[], 1 << 20).unwrap();
    let settings = Settings { tools_max: usize::MAX, ..Settings::default() };
    Arc::new(Shared::new(settings, Arc::new(fleet), Arc::new(ring)))
}

/// What it takes to read such a request.
fn read_ns(body: &str) -> u64 {
    let mut session = Session::http(shared(), IdSource::new([2; 32]), Owner::default());
    let before = own_ns();
    session.handle_responses_body(body.as_bytes(), Now::default());
    let took = own_ns() - before;
    let refused = matches!(session.answer(), Some(Answer::Refused(_)));
    assert!(!refused, "{}", body.get(..200).unwrap_or(body));
    took
}

fn grows_evenly(body: impl Fn(usize) -> String) {
    let (few, many) = (read_ns(&body(FEW)).max(1_000_000), read_ns(&body(FEW * TIMES)));
    let times = many / few;
    assert!(times < 4 * TIMES as u64, "{TIMES} times as many took {times} times as long: {few} ns, {many} ns");
}

fn listed(count: usize, part: impl Fn(usize) -> String) -> String {
    (0..count).map(part).collect::<Vec<_>>().join(",")
}

fn function(number: usize) -> String {
    format!(r#"{{"type":"function","name":"f{number}"}}"#)
}

#[test]
fn tools_are_read_in_a_time_that_grows_as_they_do() {
    grows_evenly(|count| {
        let tools = listed(count, function);
        format!(r#"{{"model":"m","input":"x","tools":[{tools}]}}"#)
    });
}

#[test]
fn hosted_tools_are_read_in_a_time_that_grows_as_they_do() {
    grows_evenly(|count| {
        let tools = listed(count, |number| format!(r#"{{"type":"t{number}"}}"#));
        format!(r#"{{"model":"m","input":"x","tools":[{tools}]}}"#)
    });
}

#[test]
fn a_choice_among_tools_is_read_in_a_time_that_grows_as_they_do() {
    grows_evenly(|count| {
        let tools = listed(count, function);
        format!(
            r#"{{"model":"m","input":"x","tools":[{tools}],"tool_choice":{{"type":"allowed_tools","mode":"auto","tools":[{tools}]}}}}"#
        )
    });
}

#[test]
fn a_history_is_read_in_a_time_that_grows_as_it_does() {
    grows_evenly(|count| {
        let calls = listed(count, |number| {
            format!(r#"{{"type":"function_call","call_id":"call_{number}","name":"f","arguments":"{{}}"}}"#)
        });
        let outputs = listed(count, |number| {
            format!(r#"{{"type":"function_call_output","call_id":"call_{number}","output":"x"}}"#)
        });
        format!(r#"{{"model":"m","input":[{calls},{outputs}]}}"#)
    });
}
