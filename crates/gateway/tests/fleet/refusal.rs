//! Endpoints that answer with an error, or are not there.

use crate::client::{End, Transport};
use crate::fleet::Fault::{Refuses, Status};
use crate::fleet::Tier::{Latency, Throughput};
use crate::fleet::{Fleet, Setup};
use crate::row::Told::{Error, Nothing};
use crate::row::{Row, rows, show};
use flashlane_engine::ErrorKind::{ContextLengthExceeded, RateLimited, UpstreamFailed, UpstreamInvalidRequest};

const BOTH: &[crate::fleet::Tier] = &[Latency, Throughput];

const fn refused(fault: &'static str, status: u16, body: &'static str) -> Row {
    let inject = Status(status, body);
    Row { fault, inject, tiers: BOTH, left: Nothing, none: Error(UpstreamFailed), counts: true }
}

rows! {
    a_refused_connection: Row { inject: Refuses, ..refused("the connection is refused", 0, "") };
    a_rate_limit: Row {
        none: Error(RateLimited), counts: false, tiers: &[Throughput],
        ..refused("429", 429, r#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#)
    };
    a_full_queue: Row {
        none: Error(RateLimited), counts: false, tiers: &[Latency],
        ..refused("a hosted service's refusal to queue", 429, r#"{"message":"too long","type":"too_many_requests_error","param":"queue","code":"queue_exceeded"}"#)
    };
    an_overload: refused("503", 503, r#"{"error":{"message":"overloaded"}}"#);
    an_error_of_the_server: refused("500, 502 and any other", 500, "Internal Server Error");
    credentials_refused: refused("401 and 403: the gateway's own key", 401, r#"{"error":{"message":"no such key csk-1"}}"#);
    an_unknown_model: Row { counts: false, ..refused("404: no such model there", 404, r#"{"error":{"message":"no such model"}}"#) };
    a_request_that_is_wrong: Row {
        left: Error(UpstreamInvalidRequest), none: Error(UpstreamInvalidRequest), counts: false,
        ..refused("400 and 422: the request is wrong", 400, r#"{"error":{"message":"bad temperature"}}"#)
    };
    an_input_too_long: Row {
        left: Error(ContextLengthExceeded), none: Error(ContextLengthExceeded), counts: false,
        ..refused("400: the input is too long for the model", 400, r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#)
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_statuses_of_a_row_are_told_alike() {
    for (test, statuses) in [
        ("an_error_of_the_server", &[502, 504, 418][..]),
        ("credentials_refused", &[403]),
        ("a_request_that_is_wrong", &[422]),
    ] {
        let (_, row) = ROWS.iter().find(|(name, _)| *name == test).unwrap();
        for &status in statuses {
            show(&Row { inject: Status(status, r#"{"error":{"message":"no"}}"#), ..*row }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_at_its_limits_is_passed_over_and_costs_no_retries() {
    let routing = "retry_percent_max = 0\nretries_per_second_max = 2\n".to_owned();
    let fleet = Fleet::start(&Setup { routing, ..Setup::default() }).await;
    // Both say for how long: hours.
    fleet.wafers.iter().for_each(|wafer| wafer.alter(|ways| ways.requests_left = 0));
    for turn in 0..40 {
        let end = fleet.ask(Transport::BOTH[turn % 2], Latency.first()).await;
        assert!(matches!(&end, End::Completed(text) if text.starts_with("from gpu-")), "turn {turn}: {end:?}");
    }
    assert_eq!((fleet.turns_seen(0), fleet.turns_seen(1)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_without_a_model_serves_the_others() {
    let mut fleet = Fleet::start(&Setup { routing: String::new(), ..Setup::default() }).await;
    for endpoint in Latency.endpoints() {
        fleet.inject(endpoint, &Status(404, "{}")).await;
    }
    // The other tier serves it, and it is not asked for again.
    for _ in 0..10 {
        let end = fleet.ask(Transport::Http, Latency.first()).await;
        assert!(matches!(&end, End::Completed(text) if text.starts_with("from gpu-")), "{end:?}");
    }
    assert_eq!((fleet.turns_seen(0), fleet.turns_seen(1)), (1, 1));
    fleet.heal(Latency.endpoints(), &Status(404, "{}")).await;
    let end = fleet.ask(Transport::Http, Latency.only()).await;
    assert!(matches!(&end, End::Completed(text) if text.starts_with("from wafer-")), "{end:?}");
}
