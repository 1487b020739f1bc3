//! One of three endpoints is dead, and many clients ask at once: what is served all the same, and how often endpoints are asked for it.
//! With the defaults of `[routing]`.

#![allow(clippy::print_stdout, reason = "docs/ROUTING.md holds what is printed")]

use crate::client::{End, Transport};
use crate::fleet::{Fault, Fleet, Setup, Tier};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What docs/ROUTING.md tells is of the tests' own profile.
const REQUESTS: usize = if cfg!(debug_assertions) { 3_000 } else { 20_000 };
const CLIENTS: usize = 64;
const DEAD: usize = 3;

async fn serve(fault: &Fault, routing: &str) -> (usize, f64) {
    let setup = Setup { routing: routing.to_owned(), log: "error", ..Setup::default() };
    let mut fleet = Fleet::start(&setup).await;
    fleet.inject(DEAD, fault).await;
    let (fleet, begun, served) = (&fleet, &AtomicUsize::new(0), &AtomicUsize::new(0));
    let began = Instant::now();
    let client = async |number: usize| {
        while begun.fetch_add(1, Ordering::Relaxed) < REQUESTS {
            let end = fleet.ask(Transport::BOTH[number % 2], Tier::Throughput.only()).await;
            served.fetch_add(usize::from(matches!(end, End::Completed(_))), Ordering::Relaxed);
        }
    };
    futures_util::future::join_all((0..CLIENTS).map(client)).await;
    let took = began.elapsed();
    let metrics = fleet.metrics().await;
    let failed = metrics.sum("flashlane_upstream_attempts_failed_total", &[]);
    let resent = metrics.sum("flashlane_upstream_requests_resent_total", &[]);
    let answered = Tier::Throughput.endpoints().filter(|endpoint| *endpoint != DEAD);
    let answered: usize = answered.map(|endpoint| fleet.turns_seen(endpoint)).sum();
    let attempts = answered + usize::try_from(failed + resent).unwrap();
    let served = served.load(Ordering::Relaxed);
    println!(
        "{fault:?}: {served} of {REQUESTS} served, {attempts} attempts, {failed} failed, {resent} sent again, {took:?}"
    );
    assert_eq!(answered, served, "an endpoint that is well serves what it is asked, once");
    (served, attempts as f64 / REQUESTS as f64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_that_refuses_connections_is_hardly_noticed() {
    let (served, attempts) = serve(&Fault::Refuses, "").await;
    assert!(served * 1000 >= REQUESTS * 999 && attempts <= 1.1, "{served} served, {attempts} attempts each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_that_takes_requests_and_closes_is_hardly_noticed() {
    let (served, attempts) = serve(&Fault::Cut(0), "").await;
    assert!(served * 1000 >= REQUESTS * 999 && attempts <= 1.1, "{served} served, {attempts} attempts each");
}
