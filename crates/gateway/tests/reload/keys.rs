//! Keys that are taken back, or may do something else, while their connections are open.

use super::place::{Place, SERVER, endpoint, key, model};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const OLD: &str = "old-secret-of-ada-0000";
const NEW: &str = "new-secret-of-ada-0000";
const BOB: &str = "the-secret-of-bob-0000";

struct Socket(WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>);

/// What ends a turn, or the connection.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Completed,
    /// With its code.
    Error(String),
    /// Code and reason.
    Closed(u16, String),
}

impl Socket {
    async fn open(place: &Place, secret: &str) -> Self {
        let mut asks = format!("ws://{}/v1/responses", place.clients).into_client_request().unwrap();
        asks.headers_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
        Self(connect_async(asks).await.unwrap().0)
    }

    async fn create(&mut self, model: &str, words: &str) {
        let create = json!({"type": "response.create", "model": model, "input": words, "store": false});
        self.0.send(Message::text(create.to_string())).await.unwrap();
    }

    async fn end(&mut self) -> End {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(90), self.0.next()).await;
            match next.unwrap().unwrap().unwrap() {
                Message::Text(text) => {
                    let event: Value = serde_json::from_str(&text).unwrap();
                    match event["type"].as_str().unwrap() {
                        "response.completed" => return End::Completed,
                        "error" => return End::Error(event["error"]["code"].as_str().unwrap().to_owned()),
                        _ => {}
                    }
                }
                Message::Close(frame) => {
                    let frame = frame.unwrap();
                    return End::Closed(frame.code.into(), frame.reason.to_string());
                }
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    async fn turn(&mut self, model: &str, words: &str) -> End {
        self.create(model, words).await;
        self.end().await
    }
}

fn revoked() -> End {
    End::Closed(CloseCode::Policy.into(), "the API key was revoked".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_keys_sockets_close_the_idle_at_once_and_the_busy_after_their_turn() {
    let config = |keys: &str| format!("{SERVER}{}{}{keys}", endpoint("sim", "latency", 40), model("m"));
    let bob = key("bob", &[BOB], "");
    let place = Place::start("revoked", &config(&format!("{}{bob}", key("ada", &[OLD, NEW], ""))));
    let (mut idle, mut busy) = (Socket::open(&place, OLD).await, Socket::open(&place, OLD).await);
    let (mut kept, mut other) = (Socket::open(&place, NEW).await, Socket::open(&place, BOB).await);
    assert_eq!(idle.turn("m", "hi").await, End::Completed);
    busy.create("m", "count from 1 to 100").await;
    place.until("it runs", || place.metrics().contains("flashlane_upstream_turns_in_flight{endpoint=\"sim\"} 1"));
    place.reload(&config(&format!("{}{bob}", key("ada", &[NEW], ""))));
    let began = Instant::now();
    assert_eq!(idle.end().await, revoked());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // Nothing more begins, and what runs is whole.
    busy.create("m", "hi").await;
    assert_eq!(busy.end().await, End::Error("invalid_api_key".to_owned()));
    assert_eq!(busy.end().await, End::Completed);
    assert_eq!(busy.end().await, revoked());
    for socket in [&mut kept, &mut other] {
        assert_eq!(socket.turn("m", "hi").await, End::Completed, "another secret of the key, and another key");
    }
    let mut asks = format!("ws://{}/v1/responses", place.clients).into_client_request().unwrap();
    asks.headers_mut().insert("authorization", format!("Bearer {OLD}").parse().unwrap());
    assert!(connect_async(asks).await.unwrap_err().to_string().contains("401"));
    // The whole key.
    place.reload(&config(&bob));
    assert_eq!((kept.end().await, other.turn("m", "hi").await), (revoked(), End::Completed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_turn_of_a_socket_finds_the_models_and_keys_of_the_config_that_holds() {
    let config = |models: &str, more: &str| {
        format!("{SERVER}{}{}{models}{}", endpoint("sim", "latency", 0), model("m"), key("ada", &[NEW], more))
    };
    let place = Place::start("next", &config(&model("n"), "models = [\"m\"]"));
    let mut socket = Socket::open(&place, NEW).await;
    assert_eq!(socket.turn("n", "hi").await, End::Error("model_not_found".to_owned()));
    place.reload(&config(&model("n"), "models = [\"m\", \"n\"]"));
    assert_eq!(socket.turn("n", "hi").await, End::Completed);
    place.reload(&config(&model("new"), ""));
    assert_eq!(socket.turn("n", "hi").await, End::Error("model_not_found".to_owned()));
    assert_eq!(socket.turn("new", "hi").await, End::Completed);
}

#[test]
fn what_waits_by_a_revoked_key_over_http_is_refused_and_what_runs_is_whole() {
    let config = |keys: &str| {
        format!(
            "{SERVER}{}{}[queue.latency]\nconcurrency_max = 1\nwait_ms_max = 60000\n{keys}",
            endpoint("sim", "latency", 40),
            model("m")
        )
    };
    let bob = key("bob", &[BOB], "");
    let place = Place::start("revoked-http", &config(&format!("{}{bob}", key("ada", &[OLD], ""))));
    let ask = |input: &str, more: Value| {
        let mut body = json!({"model": "m", "input": input, "store": false});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        place.post("/v1/responses", &format!("authorization: Bearer {OLD}\r\n"), &body)
    };
    std::thread::scope(|scope| {
        let runs = scope.spawn(|| ask("count from 1 to 120", json!({"stream": true})));
        place.until("it runs", || place.metrics().contains("flashlane_upstream_turns_in_flight{endpoint=\"sim\"} 1"));
        let waits = [json!({}), json!({"stream": true})].map(|more| scope.spawn(|| ask("hi", more)));
        let background = ask("hi", json!({"background": true, "store": true}));
        place.until("they wait", || place.metrics().contains("flashlane_queue_turns_waiting{tier=\"latency\"} 3"));
        place.reload(&config(&bob));
        for waits in waits {
            let (_, reply) = waits.join().unwrap();
            assert!(reply.contains("\"invalid_api_key\""), "{reply}");
        }
        place.until("nobody waits", || place.metrics().contains("flashlane_queue_turns_waiting{tier=\"latency\"} 0"));
        assert!(!runs.is_finished(), "the job in the background heard of it as well, and not by the end of what ran");
        let (status, reply) = runs.join().unwrap();
        assert!(status == 200 && reply.contains("response.completed"), "{reply}");
        assert_eq!(background.0, 200, "{}", background.1);
    });
    assert_eq!(place.metric("flashlane_errors_total{kind=\"invalid_api_key\"}"), 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taking_the_last_key_out_revokes_it() {
    let config = |keys: &str| format!("{SERVER}{}{}{keys}", endpoint("sim", "latency", 0), model("m"));
    let place = Place::start("last", &config(&key("ada", &[OLD], "")));
    let mut socket = Socket::open(&place, OLD).await;
    assert_eq!(socket.turn("m", "hi").await, End::Completed);
    place.reload(&config(""));
    assert_eq!(socket.end().await, revoked());
}
