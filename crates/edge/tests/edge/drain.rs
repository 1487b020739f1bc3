//! The way out, phase by phase: who is served on, who is closed when, and what they hear.

use crate::support::{Gateway, Socket, begun, exchange, kinds, request, simulated, soon, text, upstream};
use bytes::Bytes;
use flashlane_backend::EndpointConfig;
use flashlane_edge::Haste;
use flashlane_testkit::upstream::Upstream;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

fn create() -> Value {
    json!({"type": "response.create", "model": "demo", "input": "count from 1 to 3", "store": false})
}

/// A gateway before an upstream that streams three chunks and then says nothing.
async fn stuck(turns: usize, busy_ms_max: u64) -> (Upstream, Gateway) {
    let server = Upstream::start((0..turns).map(|_| begun()).collect()).await.unwrap();
    let gateway =
        Gateway::start_with(upstream(&server.base_url()), |config, _| config.drain.busy_ms_max = busy_ms_max).await;
    (server, gateway)
}

async fn closed_with(socket: &mut Socket) -> u16 {
    loop {
        match socket.message().await {
            Some(Message::Close(Some(frame))) => return frame.code.into(),
            Some(Message::Ping(_)) => {}
            other => panic!("{other:?} in the place of a close frame"),
        }
    }
}

#[tokio::test]
async fn while_it_leaves_whoever_comes_is_served_and_only_told_not_to_stay() {
    let gateway = Gateway::start_with(simulated(), |config, _| {
        config.drain.listen_ms = 600_000;
        config.drain.idle_ms = 0;
        config.drain.busy_ms_max = 601_000;
    })
    .await;
    let mut before = gateway.websocket().await;
    let reply = gateway.get("/v1/models").await;
    assert_eq!(reply.status, 200);
    let mut kept = gateway.connect().await;
    gateway.stop_as(Haste::Announced);
    soon("not ready", async { while exchange(gateway.admin, "GET", "/readyz", "", b"").await.status != 503 {} }).await;

    before.turn(&create()).await;
    let mut after = gateway.websocket().await;
    after.turn(&create()).await;
    // It asks for nothing of the kind, and is told that this was the last answer.
    kept.write_all(&request("GET", "/v1/models", "", b"")).await.unwrap();
    let mut answer = Vec::new();
    soon("the answer and its end", kept.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");
    before.turn(&create()).await;
}

/// Of `abc`, as `sha256sum` prints it.
const TOKEN_SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[tokio::test]
async fn post_drain_does_what_a_signal_does() {
    let gateway = Gateway::start_with(simulated(), |config, _| {
        config.drain.listen_ms = 50;
        config.drain.idle_ms = 0;
        config.admin.token_sha256 = vec![TOKEN_SHA256.to_owned().try_into().unwrap()];
    })
    .await;
    let mut idle = gateway.websocket().await;
    // On loopback too.
    assert_eq!(exchange(gateway.admin, "POST", "/drain", "", b"").await.status, 401);
    let refused = exchange(gateway.admin, "POST", "/drain", "origin: https://elsewhere.example\r\n", b"").await;
    assert_eq!(refused.status, 403);
    assert_eq!(exchange(gateway.admin, "GET", "/readyz", "", b"").await.status, 200);
    assert_eq!(exchange(gateway.admin, "POST", "/drain", "authorization: Bearer abc\r\n", b"").await.status, 202);
    assert_eq!(closed_with(&mut idle).await, 1012);
    let address = gateway.address;
    drop(idle);
    gateway.ended().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn idle_sockets_are_closed_one_by_one_and_those_that_ask_meanwhile_are_answered() {
    let gateway = Gateway::start_with(simulated(), |config, _| {
        config.drain.listen_ms = 0;
        config.drain.idle_ms = 1_000;
    })
    .await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(gateway.websocket().await);
    }
    let began = Instant::now();
    gateway.stop_as(Haste::Announced);
    let closed = sockets.into_iter().enumerate().map(|(number, mut socket)| async move {
        // One that has asked by the time that it is closed hears the whole answer before.
        if number % 2 == 0 {
            socket.send(&create()).await;
            let first = socket.message().await.unwrap();
            if let Message::Text(_) = first {
                socket.until("response.completed").await;
                assert_eq!(closed_with(&mut socket).await, 1012);
            }
            return began.elapsed();
        }
        assert_eq!(closed_with(&mut socket).await, 1012);
        began.elapsed()
    });
    let closed = futures_util::future::join_all(closed).await;
    let (first, last) = (closed.iter().min().unwrap(), closed.iter().max().unwrap());
    assert!(*last - *first > Duration::from_millis(500), "all at once: {closed:?}");
    gateway.ended().await;
}

#[tokio::test]
async fn what_had_connected_before_the_listener_closed_is_answered() {
    let gateway = Gateway::start(simulated()).await;
    let mut fresh = gateway.connect().await;
    // Until it is served, it is in the kernel's backlog.
    gateway.get("/v1/models").await;
    gateway.stop();
    soon("the listener's end", async { while TcpStream::connect(gateway.address).await.is_ok() {} }).await;
    fresh.write_all(&request("GET", "/v1/models", "", b"")).await.unwrap();
    let mut answer = Vec::new();
    soon("the answer", fresh.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    gateway.ended().await;
}

#[tokio::test]
async fn a_websocket_turn_that_lasts_too_long_is_failed_and_so_is_what_waits_behind_it() {
    let (server, gateway) = stuck(1, 300).await;
    let mut socket = gateway.websocket().await;
    socket.send(&create()).await;
    socket.until("response.output_text.delta").await;
    socket.send(&create()).await;
    gateway.stop();
    let events = socket.until("response.failed").await;
    let failed = &events.last().unwrap()["response"];
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("server_error")));
    let refused = socket.event().await;
    assert_eq!((&refused["type"], &refused["status"]), (&json!("error"), &json!(503)), "{refused}");
    assert_eq!(refused["error"]["code"], "server_shutting_down");
    assert_eq!(closed_with(&mut socket).await, 1012);
    soon("the cancel", server.until(|seen| seen.closed[0].is_some())).await;
    drop(socket);
    gateway.ended().await;
}

#[tokio::test]
async fn an_event_stream_that_lasts_too_long_ends_in_one_failed_event() {
    let (server, gateway) = stuck(1, 300).await;
    let body = json!({"model": "demo", "input": "hi", "stream": true, "store": false}).to_string();
    let (address, fields) = (gateway.address, "content-type: application/json\r\n");
    let asked = tokio::spawn(async move { exchange(address, "POST", "/v1/responses", fields, body.as_bytes()).await });
    soon("the upstream's request", server.until(|seen| seen.requests.len() == 1)).await;
    gateway.stop();
    let events = asked.await.unwrap().events();
    let kinds = kinds(&events);
    assert_eq!(kinds.iter().filter(|kind| **kind == "response.failed").count(), 1, "{kinds:?}");
    assert_eq!(kinds[kinds.len() - 2], "response.failed");
    assert_eq!(events.last().unwrap(), "[DONE]");
    soon("the cancel", server.until(|seen| seen.closed[0].is_some())).await;
    gateway.ended().await;
}

#[tokio::test]
async fn the_same_over_http_2_where_each_request_has_a_task() {
    let (server, gateway) = stuck(1, 300).await;
    let io = TokioIo::new(gateway.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let body = json!({"model": "demo", "input": "hi", "stream": true, "store": false}).to_string();
    let uri = format!("http://{}/v1/responses", gateway.address);
    let asked = sender.send_request(hyper::Request::post(uri).body(Full::new(Bytes::from(body))).unwrap());
    let response = soon("the head", asked).await.unwrap();
    gateway.stop();
    let body = soon("the body", response.into_body().collect()).await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains("event: response.failed") && text.ends_with("data: [DONE]\n\n"), "{text}");
    soon("the cancel", server.until(|seen| seen.closed[0].is_some())).await;
    // GOAWAY: no second request goes over this connection, and it ends by itself.
    let _ = soon("the connection's end", connection).await;
    gateway.ended().await;
}

#[tokio::test]
async fn a_plain_answer_that_lasts_too_long_is_a_503() {
    let (_server, gateway) = stuck(2, 300).await;
    let gateway = &gateway;
    let post = |path: &'static str, body: Value| async move {
        let reply = gateway.post(path, &body).await;
        (reply.status, reply.json()["error"]["code"].as_str().map(str::to_owned))
    };
    let input = json!({"model": "demo", "input": "hi", "store": false});
    let messages = json!({"model": "demo", "messages": [{"role": "user", "content": "hi"}]});
    let stop = async {
        soon("both requests", _server.until(|seen| seen.requests.len() == 2)).await;
        gateway.stop();
    };
    let (first, second, ()) = tokio::join!(post("/v1/responses", input), post("/v1/chat/completions", messages), stop);
    assert_eq!(first, (503, Some("server_shutting_down".to_owned())));
    assert_eq!(second, first);
}

#[tokio::test]
async fn nothing_that_runs_is_nothing_to_wait_for_after_ctrl_c() {
    let gateway = Gateway::start(EndpointConfig { ..simulated() }).await;
    let socket = gateway.websocket().await;
    drop(socket);
    let began = Instant::now();
    gateway.stop();
    gateway.ended().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn of_500_busy_and_500_idle_sockets_none_is_cut_and_none_is_refused() {
    const EACH: usize = 500;
    let endpoint = EndpointConfig { first_token_ms: Some(500), tokens_per_second: Some(6), ..simulated() };
    let gateway = Gateway::start_with(endpoint, |config, _| {
        config.drain.listen_ms = 500;
        config.drain.idle_ms = 1_500;
    })
    .await;
    let gateway = &gateway;
    let busy_until_closed = |_| async move {
        let mut socket = gateway.websocket().await;
        let create = json!({"type": "response.create", "model": "demo", "input": "count from 1 to 9", "store": false});
        socket.send(&create).await;
        socket.until("response.created").await;
        socket
    };
    let mut busy = Vec::new();
    for some in (0..EACH).collect::<Vec<_>>().chunks(50) {
        busy.extend(futures_util::future::join_all(some.iter().map(busy_until_closed)).await);
    }
    let mut idle = Vec::new();
    for _ in 0..EACH {
        idle.push(gateway.websocket().await);
    }
    let began = Instant::now();
    gateway.stop_as(Haste::Announced);
    let whole = busy.into_iter().map(|mut socket| async move {
        let events = socket.until("response.completed").await;
        (text(&events.last().unwrap()["response"]).ends_with('9'), closed_with(&mut socket).await)
    });
    let gone = idle.into_iter().map(|mut socket| async move { closed_with(&mut socket).await });
    // Whoever comes before the listener is closed is served.
    let come = async {
        let mut served = 0;
        while let Ok(mut stream) = TcpStream::connect(gateway.address).await {
            let mut answer = Vec::new();
            let get = request("GET", "/v1/models", "connection: close\r\n", b"");
            // One that the kernel had taken when the listener was closed is reset: nobody can tell it apart.
            if stream.write_all(&get).await.is_err() || stream.read_to_end(&mut answer).await.is_err() {
                break;
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
            served += 1;
        }
        served
    };
    let (whole, gone, served) =
        tokio::join!(futures_util::future::join_all(whole), futures_util::future::join_all(gone), come);
    let (cut, refused) =
        (whole.iter().filter(|end| **end != (true, 1012)).count(), gone.iter().filter(|code| **code != 1012).count());
    println!(
        "{EACH} busy and {EACH} idle: {cut} truncated, {refused} not closed by 1012, {served} new ones served, over after {:?}",
        began.elapsed()
    );
    assert_eq!((cut, refused), (0, 0));
    assert!(served > 0);
}
