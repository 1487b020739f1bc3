//! Connections between turns: kept, reused, dropped in time, opened ahead.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail this way")]

mod rig;

use bytes::Bytes;
use flashlane_backend::{Backends, Stats};
use flashlane_engine::{Ended, UpstreamFailure};
use flashlane_testkit::upstream::{Identity, Options, Step, Upstream, chat_events, error, stream};
use rig::{ONLY, backends, config, request, run, run_until, turn, within};
use std::time::{Duration, Instant};

fn kept() -> Vec<Step> {
    [stream(&chat_events(&["hi"])), vec![Step::Again]].concat()
}

/// A turn whose head carries `fields`, each line with its CRLF.
fn kept_saying(fields: &str) -> Vec<Step> {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n{fields}\r\n");
    let mut steps = kept();
    steps[1] = Step::Send(Bytes::from(head));
    steps
}

fn stats(backends: &Backends) -> Stats {
    backends.stats(ONLY)
}

async fn connections_of(upstream: &Upstream, turns: usize) -> Vec<usize> {
    let seen = within(upstream.until(|seen| seen.requests.len() >= turns)).await;
    seen.requests.iter().map(|request| request.connection).collect()
}

#[tokio::test]
async fn turns_one_after_the_other_share_a_connection() {
    let upstream = Upstream::start(vec![kept()]).await.unwrap();
    let backends = backends(config(&upstream));
    for _ in 0..3 {
        assert_eq!(turn(&backends).await.bytes, chat_events(&["hi"]).concat());
    }
    assert_eq!(run(&backends).await.ended, Some(Ended::Complete));
    assert_eq!(connections_of(&upstream, 4).await, [0, 0, 0, 0]);
    let expected = Stats { connections_opened: 1, connections_reused: 3, connections_idle: 1, ..Stats::default() };
    assert_eq!(stats(&backends), expected);
}

#[tokio::test]
async fn over_tls_too() {
    let identity = Identity::new(&["http/1.1"]).unwrap();
    let options = Options { tls: Some(identity.clone()), ..Options::default() };
    let upstream = Upstream::start_with(options, vec![kept()]).await.unwrap();
    let ca_file = Some(rig::file("pool-ca.pem", identity.pem()));
    let backends = backends(flashlane_backend::EndpointConfig { ca_file, ..config(&upstream) });
    for _ in 0..3 {
        assert_eq!(turn(&backends).await.bytes, chat_events(&["hi"]).concat());
    }
    assert_eq!(connections_of(&upstream, 3).await, [0, 0, 0]);
}

#[tokio::test]
async fn the_last_chunk_may_come_after_the_turn_was_parked() {
    let mut steps = stream(&chat_events(&["hi"]));
    let last = steps.pop().unwrap();
    steps.extend([Step::Wait(Duration::from_millis(30)), last, Step::Again]);
    let upstream = Upstream::start(vec![steps]).await.unwrap();
    let backends = backends(config(&upstream));
    assert_eq!(turn(&backends).await.ended, None, "the turn was to be parked before its last chunk");
    tokio::time::sleep(Duration::from_millis(60)).await;
    turn(&backends).await;
    // Not there yet: not worth waiting for, a new connection is opened.
    turn(&backends).await;
    assert_eq!(connections_of(&upstream, 3).await, [0, 0, 1]);
}

#[tokio::test]
async fn an_error_answer_leaves_its_connection_usable() {
    let steps = [error(429, "", "{}"), stream(&chat_events(&["hi"]))].concat();
    let upstream = Upstream::start(vec![steps]).await.unwrap();
    let backends = backends(config(&upstream));
    assert!(matches!(turn(&backends).await.failure(), UpstreamFailure::Refused { status: 429, .. }));
    turn(&backends).await;
    assert_eq!(connections_of(&upstream, 2).await, [0, 0]);
}

#[tokio::test]
async fn what_may_not_be_used_again_is_not_kept() {
    for fields in ["connection: close\r\n", "keep-alive: timeout=0\r\n", "keep-alive: timeout=5, max=1\r\n"] {
        let upstream = Upstream::start(vec![kept_saying(fields)]).await.unwrap();
        let backends = backends(config(&upstream));
        turn(&backends).await;
        turn(&backends).await;
        assert_eq!(connections_of(&upstream, 2).await, [0, 1], "{fields}");
    }
}

#[tokio::test]
async fn the_number_of_requests_that_a_peer_allows_is_kept_to() {
    let upstream = Upstream::start(vec![kept_saying("keep-alive: timeout=5, max=3\r\n")]).await.unwrap();
    let backends = backends(config(&upstream));
    for _ in 0..4 {
        turn(&backends).await;
    }
    assert_eq!(connections_of(&upstream, 4).await, [0, 0, 0, 1]);
}

#[tokio::test]
async fn an_idle_connection_is_dropped_before_the_peer_drops_it() {
    let upstream = Upstream::start(vec![kept_saying("keep-alive: timeout=1\r\n")]).await.unwrap();
    let backends_ = backends(config(&upstream));
    turn(&backends_).await;
    turn(&backends_).await;
    // A second, less the margin of half of it.
    tokio::time::sleep(Duration::from_millis(550)).await;
    turn(&backends_).await;
    assert_eq!(connections_of(&upstream, 3).await, [0, 0, 1]);

    let upstream = Upstream::start(vec![kept()]).await.unwrap();
    let mut config = config(&upstream);
    config.idle_connection_ms_max = Some(40);
    let backends_ = backends(config);
    turn(&backends_).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    turn(&backends_).await;
    assert_eq!(connections_of(&upstream, 2).await, [0, 1]);
}

#[tokio::test]
async fn a_connection_that_no_turn_comes_to_is_closed_by_whoever_looks() {
    let upstream = Upstream::start(vec![kept()]).await.unwrap();
    let mut config = config(&upstream);
    config.idle_connection_ms_max = Some(40);
    let backends = backends(config);
    turn(&backends).await;
    within(async {
        while stats(&backends).connections_idle != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    within(upstream.until(|seen| seen.closed[0].is_some())).await;
}

#[tokio::test]
async fn a_connection_that_its_peer_closed_is_noticed_before_it_is_used() {
    let once = stream(&chat_events(&["hi"]));
    let upstream = Upstream::start(vec![once]).await.unwrap();
    let backends = backends(config(&upstream));
    run(&backends).await;
    within(upstream.until(|seen| seen.closed[0].is_some())).await;
    run(&backends).await;
    assert_eq!(connections_of(&upstream, 2).await, [0, 1]);
    assert_eq!(stats(&backends).requests_resent, 0, "it was used");
}

#[tokio::test]
async fn a_connection_with_bytes_that_nobody_asked_for_is_not_used() {
    let late = Step::Send(Bytes::from_static(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"));
    let steps = [stream(&chat_events(&["hi"])), vec![Step::Wait(Duration::from_millis(20)), late, Step::Hold]].concat();
    let upstream = Upstream::start(vec![steps]).await.unwrap();
    let backends = backends(config(&upstream));
    run(&backends).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(run(&backends).await.ended, Some(Ended::Complete));
    assert_eq!(connections_of(&upstream, 2).await, [0, 1]);
}

#[tokio::test]
async fn bytes_right_behind_an_answer_spoil_its_connection() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1\r\n\r\n";
    let answer = |extra: &str| vec![Step::Expect, Step::Send(Bytes::from(format!("{head}x{extra}"))), Step::Again];
    for (extra, expected) in [("", [0, 0]), ("HTTP/1.1 408 Late\r\n\r\n", [0, 1])] {
        let upstream = Upstream::start(vec![answer(extra)]).await.unwrap();
        let backends = backends(config(&upstream));
        assert_eq!(run(&backends).await.bytes, b"x");
        assert_eq!(run(&backends).await.bytes, b"x");
        assert_eq!(connections_of(&upstream, 2).await, expected);
    }
}

#[tokio::test]
async fn a_request_lost_to_a_closing_connection_is_sent_again_once() {
    // The peer takes the second request and closes without a word.
    for loss in [vec![Step::Expect], vec![Step::Expect, Step::Reset]] {
        let first = [stream(&chat_events(&["hi"])), loss].concat();
        let upstream = Upstream::start(vec![first, stream(&chat_events(&["again"]))]).await.unwrap();
        let backends = backends(config(&upstream));
        run(&backends).await;
        let ran = run(&backends).await;
        assert_eq!((ran.opened, ran.bytes), (1, chat_events(&["again"]).concat()));
        assert_eq!(connections_of(&upstream, 3).await, [0, 0, 1]);
        let seen = upstream.seen();
        assert_eq!(seen.requests[1].body, seen.requests[2].body);
        assert_eq!(stats(&backends).requests_resent, 1);
    }
}

#[tokio::test]
async fn a_request_is_not_sent_again_once_an_answer_began_nor_on_a_fresh_connection() {
    for end in [None, Some(Step::Reset)] {
        let begun = Step::Send(Bytes::from_static(b"HTTP/1.1 2"));
        let pause = Step::Wait(Duration::from_millis(20));
        let first = [stream(&chat_events(&["hi"])), vec![Step::Expect, begun, pause], Vec::from_iter(end)].concat();
        let upstream = Upstream::start(vec![first, vec![Step::Expect]]).await.unwrap();
        let backends = backends(config(&upstream));
        run(&backends).await;
        assert!(matches!(run(&backends).await.failure(), UpstreamFailure::Cut { .. }));
        assert!(matches!(run(&backends).await.failure(), UpstreamFailure::Cut { .. }));
        assert_eq!(connections_of(&upstream, 3).await, [0, 0, 1]);
        assert_eq!(stats(&backends).requests_resent, 0);
    }
}

#[tokio::test]
async fn a_silent_reused_connection_is_not_sent_to_again() {
    let first = [stream(&chat_events(&["hi"])), vec![Step::Expect, Step::Hold]].concat();
    let upstream = Upstream::start(vec![first]).await.unwrap();
    let mut config = config(&upstream);
    config.first_byte_ms_max = Some(50);
    let backends = backends(config);
    run(&backends).await;
    assert_eq!(run(&backends).await.failure(), UpstreamFailure::Silent { waited_ms: 50 });
    assert_eq!(stats(&backends).requests_resent, 0);
}

#[tokio::test]
async fn no_more_connections_are_kept_than_allowed() {
    let upstream = Upstream::start(vec![kept()]).await.unwrap();
    let mut config = config(&upstream);
    config.idle_connections_max = Some(2);
    let backends = backends(config);
    tokio::join!(turn(&backends), turn(&backends), turn(&backends), turn(&backends));
    assert_eq!(stats(&backends).connections_opened, 4);
    assert_eq!(stats(&backends).connections_idle, 2);
    let closed = |seen: &flashlane_testkit::upstream::Seen| seen.closed.iter().flatten().count();
    assert_eq!(closed(&within(upstream.until(|seen| closed(seen) >= 2)).await), 2);
}

#[tokio::test]
async fn the_first_turn_uses_the_warm_connection() {
    let upstream = Upstream::start(vec![kept()]).await.unwrap();
    let backends = backends(config(&upstream));
    // Asked three times, opened once.
    (0..3).for_each(|_| backends.warm(ONLY));
    within(async {
        while stats(&backends).connections_idle == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    backends.warm(ONLY);
    let warm = Stats { connections_opened: 1, connections_idle: 1, ..Stats::default() };
    assert_eq!(stats(&backends), warm);
    turn(&backends).await;
    assert_eq!(stats(&backends), Stats { connections_reused: 1, ..warm });
    assert_eq!(upstream.seen().closed.len(), 1);
}

#[tokio::test]
async fn a_warm_connection_that_was_closed_is_replaced() {
    let upstream = Upstream::start(vec![vec![], kept()]).await.unwrap();
    let backends = backends(config(&upstream));
    backends.warm(ONLY);
    within(upstream.until(|seen| seen.closed.first().is_some_and(Option::is_some))).await;
    backends.warm(ONLY);
    within(upstream.until(|seen| seen.closed.len() == 2)).await;
    within(async {
        while stats(&backends).connections_opened < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    turn(&backends).await;
    assert_eq!(connections_of(&upstream, 1).await, [1]);
}

#[tokio::test]
async fn an_upstream_with_nagle_on_does_not_stall_short_turns() {
    // Without an immediate acknowledgement each turn would wait some 40 ms for its second small write: 1.6 s and more.
    let events = chat_events(&["a", "b"]);
    let mut steps = vec![Step::Expect, Step::stream_head()];
    steps.extend(events.iter().cloned().map(Step::ChunkInParts));
    steps.extend([Step::Chunk(Bytes::new()), Step::Again]);
    let options = Options { nagle: true, ..Options::default() };
    let upstream = Upstream::start_with(options, vec![steps]).await.unwrap();
    let backends = backends(config(&upstream));
    let start = Instant::now();
    for _ in 0..40 {
        assert_eq!(run(&backends).await.bytes, events.concat());
    }
    let took = start.elapsed();
    assert_eq!(stats(&backends).connections_opened, 1);
    assert!(took < Duration::from_millis(800), "40 turns took {took:?}");
}

#[tokio::test]
async fn a_request_in_several_writes_does_not_wait_for_acknowledgements() {
    let upstream = Upstream::start(vec![kept()]).await.unwrap();
    let backends = backends(config(&upstream));
    let mut long = request();
    long.messages = vec![Bytes::from_static(br#"{"role":"user","content":"x"}"#); 100];
    let start = Instant::now();
    for _ in 0..40 {
        run_until(&mut backends.open(ONLY, long.clone()), |_| false).await;
    }
    let took = start.elapsed();
    assert_eq!(stats(&backends).connections_opened, 1);
    assert!(took < Duration::from_millis(800), "40 turns took {took:?}");
}
