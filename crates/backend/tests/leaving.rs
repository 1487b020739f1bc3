//! A turn that takes another's place: at an engine with slots it waits until the engine has let go of the first.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail this way")]

mod rig;

use flashlane_backend::{Backends, Dialect, EndpointConfig};
use flashlane_engine::Ended;
use flashlane_testkit::upstream::{Step, Upstream, chat_events, stream};
use rig::{ONLY, backends, config, request, run_until};
use std::time::Duration;

/// An answer that has begun, then `after`.
fn begun(after: &[Step]) -> Vec<Step> {
    let events = chat_events(&["hi"]).into_iter().take(2).map(Step::Chunk);
    [Step::Expect, Step::stream_head()].into_iter().chain(events).chain(after.iter().cloned()).collect()
}

/// Cancels a turn that has begun, and runs one in its place. Whether the first one's connection was closed before the second one's answer.
async fn replaced(upstream: &Upstream, backends: &Backends) -> bool {
    let mut first = backends.open(ONLY, request());
    run_until(&mut first, |ran| !ran.bytes.is_empty()).await;
    let mut second = backends.open(ONLY, request());
    second.wait_for(first.cancel().unwrap());
    assert_eq!(backends.stats(ONLY).cancelled_generating, 1, "until it has let go");
    let ran = run_until(&mut second, |_| false).await;
    assert_eq!(ran.ended, Some(Ended::Complete));
    upstream.seen().closed[0].is_some()
}

/// Cancelled requests that the engine has not let go of now, and those that it had not in its time.
fn left(backends: &Backends) -> (u64, u64) {
    let stats = backends.stats(ONLY);
    (stats.cancelled_generating, stats.cancels_unanswered)
}

fn at(upstream: &Upstream, dialect: Dialect) -> Backends {
    backends(EndpointConfig { dialect: Some(dialect), ..config(upstream) })
}

#[tokio::test]
async fn an_engine_with_slots_has_let_go_of_one_turn_before_it_is_asked_for_the_next() {
    // It hears of the cancel, and needs a moment to stop.
    let stopping = begun(&[Step::Hold, Step::Wait(Duration::from_millis(60))]);
    for dialect in [Dialect::LlamaCpp, Dialect::Ollama] {
        let upstream = Upstream::start(vec![stopping.clone(), stream(&chat_events(&["again"]))]).await.unwrap();
        let backends = at(&upstream, dialect);
        assert!(replaced(&upstream, &backends).await, "{dialect:?}");
        assert_eq!(left(&backends), (0, 0), "{dialect:?}");
    }
}

#[tokio::test]
async fn an_engine_without_slots_is_not_waited_for() {
    let upstream = Upstream::start(vec![begun(&[Step::Hold])]).await.unwrap();
    let mut first = at(&upstream, Dialect::Vllm).open(ONLY, request());
    run_until(&mut first, |ran| !ran.bytes.is_empty()).await;
    assert!(first.cancel().is_none());
}

#[tokio::test]
async fn an_engine_that_does_not_let_go_is_asked_all_the_same() {
    let deaf = begun(&[Step::Wait(Duration::from_secs(60))]);
    let upstream = Upstream::start(vec![deaf, stream(&chat_events(&["again"]))]).await.unwrap();
    let backends = at(&upstream, Dialect::LlamaCpp);
    assert!(!replaced(&upstream, &backends).await);
    assert_eq!(left(&backends), (0, 1));
}
