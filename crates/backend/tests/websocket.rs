//! A server of the Responses API over its WebSocket: what goes out, which connections are kept, and what becomes of a turn when one ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail this way")]

mod rig;

use flashlane_backend::{Backends, EndpointConfig, Kind, Tier, Transport};
use flashlane_engine::{UpstreamFailure, UpstreamRequest};
use futures_util::{SinkExt, StreamExt};
use rig::{ONLY, Ran, backends, request, run_until, within};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const DELTA: &str = "{\"type\":\"response.output_text.delta\",\n\"delta\":\"hi\"}";
const DONE: &str = r#"{"type":"response.completed","response":{"usage":null}}"#;
const TOO_OLD: &str =
    r#"{"type":"error","status":400,"error":{"code":"websocket_connection_limit_reached","message":"60 minutes"}}"#;

struct Server {
    listener: TcpListener,
    backends: Backends,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = EndpointConfig {
            base_url: Some(format!("http://{}/v1", listener.local_addr().unwrap())),
            transport: Some(Transport::Websocket),
            ..EndpointConfig::new("test", Tier::Throughput, Kind::Responses)
        };
        Self { listener, backends: backends(config) }
    }

    async fn accept(&self) -> WebSocketStream<TcpStream> {
        let (tcp, _) = within(self.listener.accept()).await.unwrap();
        within(tokio_tungstenite::accept_async(tcp)).await.unwrap()
    }

    /// A turn as the engine runs it: parked at its last event.
    async fn turn(&self) -> Ran {
        let mut stream = self.backends.open(ONLY, asked());
        let ran = run_until(&mut stream, |ran| ran.bytes.ends_with(b"}\n\n") && ends(&ran.bytes)).await;
        if ran.ended.is_none() {
            stream.park();
        }
        ran
    }
}

fn ends(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(bytes).contains("response.completed")
}

fn asked() -> UpstreamRequest {
    UpstreamRequest { fields: Vec::new(), ..request() }
}

async fn say(socket: &mut WebSocketStream<TcpStream>, texts: &[&str]) {
    for text in texts {
        socket.send(Message::text(*text)).await.unwrap();
    }
}

/// The next request that a connection brings.
async fn hear(socket: &mut WebSocketStream<TcpStream>) -> String {
    loop {
        match within(socket.next()).await.expect("a message").expect("a message") {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) | Message::Pong(_) => {}
            other @ (Message::Binary(_) | Message::Close(_) | Message::Frame(_)) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_turn_is_a_response_create_and_its_connection_serves_the_next() {
    let server = Server::start().await;
    let serve = async {
        let mut socket = server.accept().await;
        for _ in 0..3 {
            let expected = r#"{"type":"response.create","model":"m","stream":true,"store":false,"input":[{"role":"user","content":"hello"}]}"#;
            assert_eq!(hear(&mut socket).await, expected);
            socket.send(Message::Ping("?".into())).await.unwrap();
            say(&mut socket, &[DELTA, DONE]).await;
        }
    };
    let ask = async {
        for _ in 0..3 {
            let ran = server.turn().await;
            let expected = format!("data: {}\n\ndata: {DONE}\n\n", DELTA.replace('\n', " "));
            assert_eq!((ran.opened, &*String::from_utf8_lossy(&ran.bytes)), (1, &*expected));
        }
    };
    tokio::join!(serve, ask);
    let stats = server.backends.stats(ONLY);
    assert_eq!((stats.connections_opened, stats.connections_reused, stats.connections_idle), (1, 2, 1));
}

#[tokio::test]
async fn a_kept_connection_that_is_closed_or_too_old_costs_no_turn() {
    let server = Server::start().await;
    let serve = async {
        let mut first = server.accept().await;
        hear(&mut first).await;
        say(&mut first, &[DONE]).await;
        hear(&mut first).await;
        say(&mut first, &[TOO_OLD]).await;
        let mut second = server.accept().await;
        hear(&mut second).await;
        say(&mut second, &[DONE]).await;
        let frame = CloseFrame { code: CloseCode::Restart, reason: "".into() };
        hear(&mut second).await;
        second.close(Some(frame)).await.unwrap();
        let mut third = server.accept().await;
        hear(&mut third).await;
        say(&mut third, &[DONE]).await;
    };
    let ask = async {
        for _ in 0..3 {
            assert_eq!(server.turn().await.ended, None);
        }
    };
    tokio::join!(serve, ask);
    assert_eq!(server.backends.stats(ONLY).requests_resent, 2);
}

#[tokio::test]
async fn an_error_before_the_answer_is_a_refusal_and_an_end_inside_of_it_a_cut() {
    let server = Server::start().await;
    let refusal = r#"{"type":"error","status":429,"error":{"code":"rate_limit_exceeded","message":"slow"}}"#;
    let serve = async {
        let mut first = server.accept().await;
        hear(&mut first).await;
        say(&mut first, &[refusal]).await;
        let mut second = server.accept().await;
        hear(&mut second).await;
        say(&mut second, &[DELTA]).await;
        second.close(Some(CloseFrame { code: CloseCode::Away, reason: "later".into() })).await.unwrap();
    };
    let ask = async {
        let UpstreamFailure::Refused { status: 429, body, .. } = server.turn().await.failure() else { panic!() };
        assert_eq!(body, refusal);
        let ran = server.turn().await;
        assert_eq!(ran.opened, 1);
        let UpstreamFailure::Cut { reason } = ran.failure() else { panic!() };
        assert!(reason.contains("1001"), "{reason}");
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn a_turn_that_is_left_closes_its_connection() {
    let server = Server::start().await;
    let serve = async {
        let mut socket = server.accept().await;
        hear(&mut socket).await;
        say(&mut socket, &[DELTA]).await;
        assert!(!matches!(within(socket.next()).await, Some(Ok(Message::Text(_)))));
    };
    let ask = async {
        let mut stream = server.backends.open(ONLY, asked());
        run_until(&mut stream, |ran| !ran.bytes.is_empty()).await;
        assert!(stream.cancel().is_none());
    };
    tokio::join!(serve, ask);
    assert_eq!(server.backends.stats(ONLY).connections_idle, 0);
}

#[tokio::test]
async fn a_server_without_the_mode_refuses_by_its_status() {
    let server = Server::start().await;
    let serve = async {
        let (mut tcp, _) = within(server.listener.accept()).await.unwrap();
        let mut head = [0; 1024];
        tokio::io::AsyncReadExt::read(&mut tcp, &mut head).await.unwrap();
        let answer = b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\n{}";
        tokio::io::AsyncWriteExt::write_all(&mut tcp, answer).await.unwrap();
        tcp
    };
    let (_tcp, ran) = tokio::join!(serve, server.turn());
    assert!(matches!(ran.failure(), UpstreamFailure::Refused { status: 426, .. }));
}
