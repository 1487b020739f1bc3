//! Our response reader and hyper's client read the same bytes: good responses, and damaged ones from fixed seeds.
#![allow(clippy::indexing_slicing, clippy::panic, reason = "a test may fail this way")]

mod chance;
mod hyper_reading;
#[allow(dead_code, reason = "shared with the other tests of http1")]
mod responses;

use chance::Chance;

#[test]
fn good_responses_are_read_alike() {
    for response in responses::RESPONSES {
        hyper_reading::compare(response.stream.as_bytes());
    }
}

#[test]
fn damaged_responses_are_read_or_refused_alike() {
    for seed in 0..5_000 {
        hyper_reading::compare(&responses::damaged(&mut Chance(seed)));
    }
}

#[test]
fn cut_responses_are_refused_alike() {
    for response in responses::RESPONSES {
        for cut in 0..response.stream.len() {
            hyper_reading::compare(&response.stream.as_bytes()[..cut]);
        }
    }
}
