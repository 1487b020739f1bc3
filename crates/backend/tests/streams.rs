//! One turn over HTTP/1.1: what reaches it, however the upstream sends or fails.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use bytes::Bytes;
use flashlane_backend::EndpointConfig;
use flashlane_engine::{Ended, UpstreamFailure};
use flashlane_testkit::upstream::{Identity, Options, Step, Upstream, chat_events, error, stream};
use rig::{ONLY, Ran, backends, config, request, run, run_until, within};
use std::time::{Duration, Instant};

fn events() -> Vec<Bytes> {
    chat_events(&["Hel", "lo", "\u{1f980}"])
}

fn whole() -> Ran {
    Ran { opened: 1, bytes: events().concat(), ended: Some(Ended::Complete) }
}

/// A turn against an upstream that answers its request with these bytes and closes.
async fn answered(answer: impl Into<Bytes>) -> Ran {
    let upstream = Upstream::start(vec![vec![Step::Expect, Step::Send(answer.into())]]).await.unwrap();
    run(&backends(config(&upstream))).await
}

#[tokio::test]
async fn the_body_of_an_event_stream_reaches_the_turn() {
    let upstream = Upstream::start(vec![stream(&events())]).await.unwrap();
    let backends = backends(config(&upstream));
    assert_eq!(run(&backends).await, whole());

    let seen = upstream.seen();
    let asked = seen.requests.first().unwrap();
    assert!(asked.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", asked.head);
    assert_eq!(asked.header("host").unwrap(), upstream.address().to_string());
    assert_eq!(asked.header("accept"), Some("text/event-stream"));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert!(asked.header("user-agent").unwrap().starts_with("flashlane/"));
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(
        String::from_utf8_lossy(&asked.body),
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"max_completion_tokens":16,"messages":[{"role":"user","content":"hello"}]}"#
    );
}

#[tokio::test]
async fn tls_gives_the_same_bytes_and_untrusted_certificates_give_none() {
    let identity = Identity::new(&[]).unwrap();
    let options = Options { tls: Some(identity.clone()), ..Options::default() };
    let upstream = Upstream::start_with(options, vec![stream(&events())]).await.unwrap();
    let ca_file = rig::file("ca.pem", identity.pem());
    let mut config = config(&upstream);
    let UpstreamFailure::Unreachable { reason } = run(&backends(config.clone())).await.failure() else {
        panic!("an unknown certificate was trusted");
    };
    assert!(reason.contains("TLS"), "{reason}");
    config.ca_file = Some(ca_file);
    assert_eq!(run(&backends(config)).await, whole());
}

#[tokio::test]
async fn a_body_split_byte_by_byte_is_the_same() {
    let mut steps = vec![Step::Expect];
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks: String =
        events().iter().map(|e| format!("{:x}\r\n{}\r\n", e.len(), String::from_utf8_lossy(e))).collect();
    let answer = format!("{head}{chunks}0\r\n\r\n");
    steps.extend(answer.bytes().map(|byte| Step::Send(Bytes::copy_from_slice(&[byte]))));
    let upstream = Upstream::start(vec![steps]).await.unwrap();
    assert_eq!(run(&backends(config(&upstream))).await, whole());
}

#[tokio::test]
async fn a_real_engines_bytes_on_the_wire_become_its_events() {
    let recorded = include_bytes!("../../../proto/llama.cpp/plain.http").as_slice();
    let ran = answered(recorded).await;
    assert_eq!((ran.opened, &ran.ended), (1, &Some(Ended::Complete)));
    let text = String::from_utf8(ran.bytes).unwrap();
    assert!(text.starts_with("data: {\"choices\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    // Every line is whole: nothing of the chunk framing is left.
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with("data: ")), "{text}");
}

#[tokio::test]
async fn a_body_by_length_or_by_close_is_whole() {
    let body = String::from_utf8(events().concat()).unwrap();
    let length = body.len();
    let by_length =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{body}");
    assert_eq!(answered(by_length).await, whole());
    let by_close = format!("HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{body}");
    assert_eq!(answered(by_close).await, whole());
}

#[tokio::test]
async fn a_long_history_in_many_pieces_arrives_whole() {
    let upstream = Upstream::start(vec![stream(&events())]).await.unwrap();
    let backends = backends(config(&upstream));
    let piece = |n: usize| Bytes::from(format!(r#"{{"role":"user","content":"{}"}}"#, "x".repeat(n * 997)));
    let mut request = request();
    request.messages = (0..150).map(piece).collect();
    let expected = flashlane_wire::chat::body(&request.model, &request.fields, &request.messages).concat();
    let ran = run_until(&mut backends.open(ONLY, request), |_| false).await;
    assert_eq!(ran, whole());
    assert!(upstream.seen().requests.first().unwrap().body == expected, "the body differs");
}

#[tokio::test]
async fn a_long_request_over_tls_arrives_whole_at_a_slow_reader() {
    let identity = Identity::new(&[]).unwrap();
    let options = Options { tls: Some(identity.clone()), ..Options::default() };
    let slow = [vec![Step::Wait(Duration::from_millis(50))], stream(&events())].concat();
    let upstream = Upstream::start_with(options, vec![slow]).await.unwrap();
    let ca_file = Some(rig::file("slow.pem", identity.pem()));
    let backends = backends(EndpointConfig { ca_file, ..config(&upstream) });
    let mut long = request();
    // More than the socket's buffers take, and the last write is small.
    long.messages = vec![Bytes::from(vec![b'1'; 8 * 1024 * 1024]), Bytes::from_static(b"2")];
    let ran = run_until(&mut backends.open(ONLY, long), |_| false).await;
    assert_eq!(ran, whole());
    assert!(upstream.seen().requests.first().unwrap().body.ends_with(b"1,2]}"));
}

#[tokio::test]
async fn a_stream_cut_anywhere_is_never_complete() {
    let mut answer =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let head = answer.len();
    answer.extend_from_slice(b"d\r\ndata: [DONE]\n\r\n0\r\n\r\n");
    for cut in [0, 1, head - 1, head, head + 1, head + 5, answer.len() - 6, answer.len() - 1] {
        let ran = answered(Bytes::copy_from_slice(&answer[..cut])).await;
        assert_eq!(ran.opened, usize::from(cut >= head), "{cut}");
        assert!(matches!(ran.failure(), UpstreamFailure::Cut { .. }), "{cut}");
    }
    assert_eq!(answered(answer).await.ended, Some(Ended::Complete));
}

#[tokio::test]
async fn a_broken_connection_is_a_cut() {
    let steps = vec![Step::Expect, Step::stream_head(), Step::Chunk(Bytes::from_static(b"data: {}\n\n")), Step::Reset];
    let upstream = Upstream::start(vec![steps]).await.unwrap();
    let failure = run(&backends(config(&upstream))).await.failure();
    assert!(matches!(&failure, UpstreamFailure::Cut { reason } if reason.contains("broke")), "{failure:?}");
}

#[tokio::test]
async fn what_is_not_http_is_a_cut() {
    let failure = answered("220 mail.example.org ESMTP\r\n").await.failure();
    assert!(matches!(&failure, UpstreamFailure::Cut { reason } if reason.contains("HTTP")), "{failure:?}");
}

#[tokio::test]
async fn an_error_status_comes_with_its_wait_and_its_body() {
    let upstream =
        Upstream::start(vec![error(429, "retry-after: 3\r\n", r#"{"error":{"message":"slow down"}}"#)]).await.unwrap();
    let body = Bytes::from_static(br#"{"error":{"message":"slow down"}}"#);
    let expected = UpstreamFailure::Refused { status: 429, retry_after_ms: Some(3000), body };
    let ran = run(&backends(config(&upstream))).await;
    assert_eq!(ran.opened, 0);
    assert_eq!(ran.failure(), expected);
}

#[tokio::test]
async fn an_error_body_is_cut_at_64_kib_and_when_it_breaks_off() {
    let huge = format!("HTTP/1.1 500 Oh\r\n\r\n{}", "x".repeat(200_000));
    let UpstreamFailure::Refused { status: 500, body, .. } = answered(huge).await.failure() else {
        panic!("not refused")
    };
    assert_eq!(body.len(), 64 * 1024);
    let broken = "HTTP/1.1 503 Oh\r\ncontent-length: 100\r\n\r\nbusy";
    let UpstreamFailure::Refused { status: 503, body, .. } = answered(broken).await.failure() else {
        panic!("not refused")
    };
    assert_eq!(&*body, b"busy");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let moved = "HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:9/v1/chat/completions\r\ncontent-length: 0\r\n\r\n";
    let failure = answered(moved).await.failure();
    assert!(matches!(failure, UpstreamFailure::Refused { status: 307, .. }), "{failure:?}");
}

#[tokio::test]
async fn an_answer_that_is_no_event_stream_is_a_cut_that_names_its_type() {
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let ran = answered(json).await;
    assert_eq!((ran.opened, ran.bytes.len()), (0, 0));
    let failure = ran.failure();
    assert!(matches!(&failure, UpstreamFailure::Cut { reason } if reason.contains("application/json")), "{failure:?}");
}

#[tokio::test]
async fn an_early_refusal_of_a_long_request_is_heard() {
    // The answer comes before the request is read, and then the connection closes.
    let answer = "HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nlong";
    let upstream = Upstream::start(vec![vec![Step::Send(Bytes::from(answer)), Step::Hold]]).await.unwrap();
    let backends = backends(config(&upstream));
    let mut long = request();
    long.messages = vec![Bytes::from(vec![b'1'; 16 * 1024 * 1024])];
    let failure = run_until(&mut backends.open(ONLY, long), |_| false).await.failure();
    assert!(matches!(failure, UpstreamFailure::Refused { status: 413, .. }), "{failure:?}");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let upstream = Upstream::start(vec![]).await.unwrap();
    let config = config(&upstream);
    drop(upstream);
    let failure = run(&backends(config)).await.failure();
    assert!(matches!(failure, UpstreamFailure::Unreachable { .. }), "{failure:?}");
}

#[tokio::test]
async fn a_handshake_that_hangs_is_unreachable_in_time() {
    let upstream = Upstream::start(vec![vec![Step::Hold]]).await.unwrap();
    let mut config = config(&upstream);
    config.base_url = Some(upstream.base_url().replace("http", "https"));
    config.connect_ms_max = Some(50);
    let failure = run(&backends(config)).await.failure();
    assert!(matches!(&failure, UpstreamFailure::Unreachable { reason } if reason.contains("50 ms")), "{failure:?}");
}

#[tokio::test]
async fn silence_before_the_answer_ends_the_turn() {
    let upstream = Upstream::start(vec![vec![Step::Expect, Step::Hold]]).await.unwrap();
    let mut config = config(&upstream);
    config.first_byte_ms_max = Some(60);
    let start = Instant::now();
    assert_eq!(run(&backends(config)).await.failure(), UpstreamFailure::Silent { waited_ms: 60 });
    assert!(start.elapsed() >= Duration::from_millis(60));
    within(upstream.until(|seen| seen.closed[0].is_some())).await;
}

#[tokio::test]
async fn a_prompt_that_is_read_behind_the_head_has_the_time_of_a_first_byte() {
    let [first, rest @ ..] = events().try_into().map(|events: [Bytes; 7]| events).unwrap();
    let mut steps = vec![Step::Expect, Step::stream_head(), Step::Wait(Duration::from_millis(300)), Step::Chunk(first)];
    steps.extend(rest.map(Step::Chunk));
    steps.push(Step::Hold);
    let upstream = Upstream::start(vec![steps]).await.unwrap();
    let mut config = config(&upstream);
    (config.first_byte_ms_max, config.idle_ms_max) = (Some(5000), Some(100));
    let ran = run(&backends(config)).await;
    assert_eq!(ran.bytes, events().concat());
    assert_eq!(ran.failure(), UpstreamFailure::Silent { waited_ms: 100 });
}

#[tokio::test]
async fn silence_in_the_answer_ends_the_turn_and_its_tokens_put_it_off() {
    let mut steps = vec![Step::Expect, Step::stream_head()];
    for event in events() {
        steps.extend([Step::Wait(Duration::from_millis(60)), Step::Chunk(event)]);
    }
    steps.push(Step::Hold);
    let upstream = Upstream::start(vec![steps]).await.unwrap();
    let mut config = config(&upstream);
    config.idle_ms_max = Some(200);
    let start = Instant::now();
    let ran = run(&backends(config)).await;
    assert_eq!(ran.bytes, events().concat());
    assert_eq!(ran.failure(), UpstreamFailure::Silent { waited_ms: 200 });
    assert!(start.elapsed() >= Duration::from_millis(7 * 60 + 200), "{:?}", start.elapsed());
}

#[tokio::test]
async fn dropping_a_turn_closes_its_connection_at_once() {
    for opening in
        [vec![Step::Expect], vec![Step::Expect, Step::stream_head(), Step::Chunk(Bytes::from_static(b"data: {}\n\n"))]]
    {
        let is_open = opening.len() > 1;
        let upstream = Upstream::start(vec![[opening, vec![Step::Hold]].concat()]).await.unwrap();
        let backends = backends(config(&upstream));
        let mut stream = backends.open(ONLY, request());
        let _pending = std::future::poll_fn(|cx| {
            let _ = stream.poll(cx, &mut |_| {});
            std::task::Poll::Ready(())
        })
        .await;
        tokio::select! {
            _ = run_until(&mut stream, |ran| is_open && !ran.bytes.is_empty()) => {}
            seen = upstream.until(|seen| !is_open && seen.requests.len() == 1) => assert_eq!(seen.closed, [None]),
        }
        let dropped = Instant::now();
        drop(stream);
        let seen = within(upstream.until(|seen| seen.closed[0].is_some())).await;
        let took = seen.closed[0].unwrap() - dropped;
        assert!(took < Duration::from_millis(10), "{took:?}");
    }
}

#[tokio::test]
async fn an_unknown_endpoint_fails_and_does_not_panic() {
    let upstream = Upstream::start(vec![]).await.unwrap();
    let backends = backends(config(&upstream));
    let mut stream = backends.open(flashlane_engine::EndpointId(7), request());
    let failure = run_until(&mut stream, |_| false).await.failure();
    assert!(matches!(failure, UpstreamFailure::Unreachable { .. }), "{failure:?}");
}
