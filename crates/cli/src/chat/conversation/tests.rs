//! A conversation against a scripted server, over real sockets.

use super::*;
use crate::address::Address;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// What the server does with request number `n` (from 0, warm-ups included).
struct Reply {
    events: Vec<Value>,
    then_close: bool,
}

/// Answers by a script, and notes each request with the number of its connection.
struct Server {
    address: Address,
    seen: Arc<Mutex<Vec<(usize, Value)>>>,
}

impl Server {
    async fn start(mut script: impl FnMut(usize, &Value) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let mut socket = accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    answer_message(&mut socket, connection, &message, &noted, &mut script).await;
                }
            }
        });
        Self { address, seen }
    }

    async fn conversation(&self) -> Conversation {
        let gateway = Gateway { address: self.address.clone(), api_key: None, cacert: None };
        Conversation::open(gateway, "m".to_owned()).await.unwrap().0
    }

    /// Of each request: its connection, and what it continues.
    fn chain(&self) -> Vec<(usize, Option<String>)> {
        let previous = |request: &Value| request["previous_response_id"].as_str().map(str::to_owned);
        self.seen.lock().unwrap().iter().map(|(connection, request)| (*connection, previous(request))).collect()
    }
}

async fn answer_message(
    socket: &mut WebSocketStream<TcpStream>,
    connection: usize,
    message: &Message,
    noted: &Mutex<Vec<(usize, Value)>>,
    script: &mut impl FnMut(usize, &Value) -> Reply,
) {
    let Message::Text(text) = message else { return };
    let request: Value = serde_json::from_str(text).unwrap();
    let n = noted.lock().unwrap().len();
    noted.lock().unwrap().push((connection, request.clone()));
    let reply = script(n, &request);
    for event in reply.events {
        socket.send(Message::text(event.to_string())).await.unwrap();
    }
    if reply.then_close {
        let _ = socket.close(None).await;
    }
}

fn answer(n: usize) -> Reply {
    let id = format!("resp_{n}");
    let events = vec![
        json!({"type": "response.created", "response": {"id": id}}),
        json!({"type": "response.output_text.delta", "delta": "hi"}),
        json!({"type": "response.completed", "response": {"id": id, "usage": {"output_tokens": 1}}}),
        json!({"type": "responsesapi.websocket_timing", "response_id": id, "timing": {"tier": "latency", "gateway_ms": 0.1}}),
    ];
    Reply { events, then_close: false }
}

fn refusal(code: &str) -> Reply {
    let event = json!({"type": "error", "status": 400, "error": {"code": code, "message": "no"}});
    Reply { events: vec![event], then_close: false }
}

fn screen() -> Screen {
    Screen::pipes(io::sink(), io::sink())
}

fn from(connection: usize, previous: &str) -> (usize, Option<String>) {
    (connection, Some(previous.to_owned()))
}

#[tokio::test]
async fn each_turn_continues_the_one_before_it_and_the_first_the_warm_up() {
    let server = Server::start(|n, _| answer(n)).await;
    let mut conversation = server.conversation().await;
    for text in ["a", "b"] {
        assert_eq!(conversation.turn(text, &mut screen()).await.unwrap(), TurnEnd::Answered);
    }
    assert_eq!(server.chain(), [(0, None), from(0, "resp_0"), from(0, "resp_1")]);
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen[0].1["generate"], false);
    assert_eq!((&seen[1].1["input"], &seen[1].1["store"]), (&json!("a"), &json!(false)));
}

#[tokio::test]
async fn a_chain_that_the_server_has_lost_starts_anew_with_the_same_question() {
    let script = |n, request: &Value| match request["previous_response_id"].as_str() {
        Some("resp_1") => refusal("previous_response_not_found"),
        _ => answer(n),
    };
    let server = Server::start(script).await;
    let mut conversation = server.conversation().await;
    for text in ["a", "b"] {
        assert_eq!(conversation.turn(text, &mut screen()).await.unwrap(), TurnEnd::Answered);
    }
    assert_eq!(server.chain(), [(0, None), from(0, "resp_0"), from(0, "resp_1"), (0, None)]);
}

#[tokio::test]
async fn a_connection_that_has_reached_its_age_is_opened_anew() {
    let script = |n, _: &Value| if n == 1 { refusal("websocket_connection_limit_reached") } else { answer(n) };
    let server = Server::start(script).await;
    let mut conversation = server.conversation().await;
    assert_eq!(conversation.turn("a", &mut screen()).await.unwrap(), TurnEnd::Answered);
    assert_eq!(server.chain(), [(0, None), from(0, "resp_0"), (1, None)]);
}

#[tokio::test]
async fn a_connection_closed_between_turns_is_opened_anew_without_the_chain() {
    let server = Server::start(|n, _| Reply { then_close: n == 1, ..answer(n) }).await;
    let mut conversation = server.conversation().await;
    assert_eq!(conversation.turn("a", &mut screen()).await.unwrap(), TurnEnd::Answered);
    while matches!(conversation.link, Link::Open(_)) {
        let _ = timeout(Duration::from_millis(10), conversation.idle()).await;
    }
    assert_eq!(conversation.turn("b", &mut screen()).await.unwrap(), TurnEnd::Answered);
    assert_eq!(server.chain(), [(0, None), from(0, "resp_0"), (1, None)]);
}

#[tokio::test]
async fn a_refused_or_failed_turn_leaves_the_chain_where_it_was() {
    let script = |n, _: &Value| match n {
        1 => refusal("invalid_value"),
        2 => {
            let failed =
                json!({"type": "response.failed", "response": {"id": "resp_2", "error": {"code": "server_error"}}});
            Reply { events: vec![failed], then_close: false }
        }
        _ => answer(n),
    };
    let server = Server::start(script).await;
    let mut conversation = server.conversation().await;
    let mut ends = Vec::new();
    for text in ["a", "b", "c"] {
        ends.push(conversation.turn(text, &mut screen()).await.unwrap());
    }
    assert_eq!(ends, [TurnEnd::Failed, TurnEnd::Failed, TurnEnd::Answered]);
    assert_eq!(server.chain()[1..], [from(0, "resp_0"), from(0, "resp_0"), from(0, "resp_0")]);
}

#[tokio::test]
async fn a_server_without_warm_ups_or_timing_is_talked_to_as_well() {
    let script = |n, request: &Value| {
        let mut reply = if request["generate"] == false { refusal("unknown_parameter") } else { answer(n) };
        reply.events.retain(|event| event["type"] != "responsesapi.websocket_timing");
        reply
    };
    let server = Server::start(script).await;
    let mut conversation = server.conversation().await;
    assert_eq!(conversation.turn("a", &mut screen()).await.unwrap(), TurnEnd::Answered);
    assert_eq!(server.chain(), [(0, None), (0, None)]);
    assert_eq!(conversation.sends_timing, Some(false), "the next turn would wait for it again");
}
