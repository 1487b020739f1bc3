//! One turn over a shared HTTP/2 connection, against hyper's server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail this way")]

mod rig;

use bytes::Bytes;
use flashlane_backend::{Backends, Dialect, EndpointConfig, Kind, Stats, Tier};
use flashlane_engine::router::Load;
use flashlane_engine::{Ended, UpstreamFailure};
use flashlane_testkit::upstream::{Identity, chat_events};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rig::{ONLY, Ran, request, run, run_until, within};
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Sleep;

/// What the server does with each request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Play {
    Whole,
    /// Sends all events and then nothing more.
    Hang,
    /// Resets the stream after the first event.
    Cut,
    /// Answers 429 with a body.
    Refuse,
    /// Answers with JSON.
    Json,
    /// Never answers.
    Silent,
    /// Closes the connection after each answer.
    Leave,
}

#[derive(Default, Clone)]
struct Seen {
    connections: usize,
    requests: Vec<(http::request::Parts, Bytes)>,
    dropped_bodies: usize,
}

struct Server {
    address: SocketAddr,
    seen: watch::Receiver<Seen>,
    _tasks: JoinSet<()>,
}

struct Answer {
    frames: VecDeque<Bytes>,
    play: Play,
    /// A stream that is reset at once loses what it had to send before.
    pause: Pin<Box<Sleep>>,
    seen: Arc<watch::Sender<Seen>>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.seen.send_modify(|seen| seen.dropped_bodies += 1);
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match (self.frames.pop_front(), self.play) {
            (Some(bytes), _) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (None, Play::Hang) => Poll::Pending,
            (None, Play::Cut) => self.pause.as_mut().poll(cx).map(|()| Some(Err(std::io::ErrorKind::Other.into()))),
            (None, Play::Whole | Play::Refuse | Play::Json | Play::Silent | Play::Leave) => Poll::Ready(None),
        }
    }
}

async fn answer(play: Play, request: Request<Incoming>, seen: Arc<watch::Sender<Seen>>) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    seen.send_modify(|seen| seen.requests.push((head, body)));
    let frames = match play {
        Play::Whole | Play::Hang | Play::Leave => chat_events(&["hi"]).into(),
        Play::Cut => chat_events(&["hi"]).into_iter().take(1).collect(),
        Play::Refuse => [Bytes::from_static(b"slow "), Bytes::from_static(b"down")].into(),
        Play::Json => [Bytes::from_static(b"{}")].into(),
        Play::Silent => std::future::pending().await,
    };
    let (status, content_type) = match play {
        Play::Refuse => (429, "application/json"),
        Play::Json => (200, "application/json"),
        Play::Whole | Play::Hang | Play::Cut | Play::Silent | Play::Leave => (200, "text/event-stream"),
    };
    let load = "TEXT named_metrics.num_requests_running=4, named_metrics.num_requests_waiting=1";
    let response = Response::builder().status(status).header("content-type", content_type).header("retry-after", "1");
    let response = response.header("endpoint-load-metrics", load);
    let pause = Box::pin(tokio::time::sleep(Duration::from_millis(20)));
    response.body(Answer { frames, play, pause, seen }).unwrap()
}

async fn converse(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    play: Play,
    seen: Arc<watch::Sender<Seen>>,
) {
    let mut served = seen.subscribe();
    let count = served.borrow().dropped_bodies;
    let service = service_fn(move |request| {
        let seen = Arc::clone(&seen);
        async move { Ok::<_, std::convert::Infallible>(answer(play, request, seen).await) }
    });
    let mut connection =
        std::pin::pin!(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service));
    let answered = async {
        let _ = served.wait_for(|seen| play == Play::Leave && seen.dropped_bodies > count).await;
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = answered => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn accepted(tcp: TcpStream, identity: Option<Identity>, play: Play, seen: Arc<watch::Sender<Seen>>) {
    match identity {
        None => converse(tcp, play, seen).await,
        Some(identity) => {
            if let Ok(tls) = identity.acceptor().accept(tcp).await {
                converse(tls, play, seen).await;
            }
        }
    }
}

async fn server(play: Play, identity: Option<Identity>) -> Server {
    server_at("127.0.0.1:0".parse().unwrap(), play, identity).await
}

async fn server_at(address: SocketAddr, play: Play, identity: Option<Identity>) -> Server {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, seen) = watch::channel(Seen::default());
    let sender = Arc::new(sender);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let (identity, seen) = (identity.clone(), Arc::clone(&sender));
            seen.send_modify(|seen| seen.connections += 1);
            connections.spawn(accepted(tcp, identity, play, seen));
        }
    });
    Server { address, seen, _tasks: tasks }
}

impl Server {
    fn config(&self, scheme: &str) -> EndpointConfig {
        EndpointConfig {
            base_url: Some(format!("{scheme}://{}/v1", self.address)),
            http_version: Some(2),
            idle_ms_max: Some(100),
            first_byte_ms_max: Some(100),
            ..EndpointConfig::new("test", Tier::Throughput, Kind::OpenAi)
        }
    }

    fn backends(&self) -> Backends {
        rig::backends(self.config("http"))
    }
}

fn whole() -> Ran {
    Ran { opened: 1, bytes: chat_events(&["hi"]).concat(), ended: Some(Ended::Complete) }
}

#[tokio::test]
async fn turns_share_one_connection_and_get_the_same_bytes() {
    let server = server(Play::Whole, None).await;
    let backends = server.backends();
    let (a, b, c) = tokio::join!(run(&backends), run(&backends), run(&backends));
    assert_eq!((&a, &b, &c), (&whole(), &whole(), &whole()));
    let expected = Stats { connections_opened: 1, connections_reused: 2, ..Stats::default() };
    assert_eq!(backends.stats(ONLY), expected);

    let seen = server.seen.borrow().clone();
    assert_eq!(seen.connections, 1);
    let (head, body) = seen.requests.first().unwrap();
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/v1/chat/completions"));
    assert_eq!(head.uri.authority().unwrap().as_str(), server.address.to_string());
    assert_eq!(head.headers["content-length"], body.len().to_string());
    assert_eq!(head.headers["accept"], "text/event-stream");
    assert!(body.starts_with(br#"{"model":"m","stream":true"#) && body.ends_with(b"]}"));
}

#[tokio::test]
async fn an_answers_own_word_of_the_load_counts_as_over_http1() {
    let server = server(Play::Whole, None).await;
    let config = EndpointConfig { dialect: Some(Dialect::Vllm), probe_ms: Some(10_000), ..server.config("http") };
    let backends = rig::backends(config);
    assert_eq!(run(&backends).await, whole());
    let load = Load { waiting: 1, running: 4, kv_usage: None };
    assert_eq!(backends.loads().next(), Some((ONLY, load)));
}

#[tokio::test]
async fn over_tls_it_is_negotiated() {
    let identity = Identity::new(&["h2"]).unwrap();
    let with_ca = |server: &Server, name: &str, identity: &Identity| EndpointConfig {
        ca_file: Some(rig::file(name, identity.pem())),
        ..server.config("https")
    };
    let server_ = server(Play::Whole, Some(identity.clone())).await;
    let backends = rig::backends(with_ca(&server_, "h2.pem", &identity));
    assert_eq!(run(&backends).await, whole());

    let old = Identity::new(&[]).unwrap();
    let server_ = server(Play::Whole, Some(old.clone())).await;
    let failure = run(&rig::backends(with_ca(&server_, "h1.pem", &old))).await.failure();
    assert!(matches!(&failure, UpstreamFailure::Unreachable { reason } if reason.contains("HTTP/2")), "{failure:?}");
}

#[tokio::test]
async fn failures_are_the_same_as_over_http1() {
    let failure = run(&server(Play::Cut, None).await.backends()).await;
    assert_eq!(failure.opened, 1);
    assert!(matches!(failure.failure(), UpstreamFailure::Cut { .. }));

    let refused = run(&server(Play::Refuse, None).await.backends()).await.failure();
    let body = Bytes::from_static(b"slow down");
    assert_eq!(refused, UpstreamFailure::Refused { status: 429, retry_after_ms: Some(1000), body });

    let json = run(&server(Play::Json, None).await.backends()).await.failure();
    assert!(matches!(&json, UpstreamFailure::Cut { reason } if reason.contains("application/json")), "{json:?}");

    let silent = run(&server(Play::Silent, None).await.backends()).await.failure();
    assert_eq!(silent, UpstreamFailure::Silent { waited_ms: 100 });

    let hung = run(&server(Play::Hang, None).await.backends()).await;
    assert_eq!(hung.bytes, whole().bytes);
    assert_eq!(hung.failure(), UpstreamFailure::Silent { waited_ms: 100 });
}

#[tokio::test]
async fn dropping_a_turn_resets_its_stream_at_once_and_leaves_the_others() {
    let mut server = server(Play::Hang, None).await;
    let backends = server.backends();
    let (mut dropped, mut other) = (backends.open(ONLY, request()), backends.open(ONLY, request()));
    let all = |ran: &Ran| ran.bytes == whole().bytes;
    tokio::join!(run_until(&mut dropped, all), run_until(&mut other, all));
    let start = Instant::now();
    drop(dropped);
    within(server.seen.wait_for(|seen| seen.dropped_bodies == 1)).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(10), "{:?}", start.elapsed());
    // It still has its own silence to wait for.
    assert_eq!(run_until(&mut other, |_| false).await.failure(), UpstreamFailure::Silent { waited_ms: 100 });
    assert_eq!(backends.stats(ONLY).connections_opened, 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_is_replaced() {
    let server = server(Play::Leave, None).await;
    let backends = server.backends();
    for _ in 0..3 {
        assert_eq!(run(&backends).await, whole());
    }
    assert!(server.seen.borrow().connections >= 2);
}

#[tokio::test]
async fn a_request_lost_to_a_closing_connection_is_sent_again_once() {
    // A server with a runtime of its own, so that it can go while the client is not looking.
    let elsewhere = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = elsewhere.spawn(server(Play::Whole, None)).await.unwrap();
    let backends = first.backends();
    assert_eq!(run(&backends).await, whole());
    let address = first.address;
    elsewhere.shutdown_background();
    drop(first);
    std::thread::sleep(Duration::from_millis(20));
    let second = server_at(address, Play::Whole, None).await;
    assert_eq!(run(&backends).await, whole());
    assert_eq!((backends.stats(ONLY).requests_resent, second.seen.borrow().connections), (1, 1));
}

#[tokio::test]
async fn the_first_turn_uses_the_warm_connection() {
    let mut server = server(Play::Whole, None).await;
    let backends = server.backends();
    (0..3).for_each(|_| backends.warm(ONLY));
    within(server.seen.wait_for(|seen| seen.connections == 1)).await.unwrap();
    assert_eq!(run(&backends).await, whole());
    assert_eq!(server.seen.borrow().connections, 1);
}
