//! Configs in quick succession under many streams: every stream is whole. The endpoints are a server's, so that connections to it are given up under
//! running turns; half of the clients come anew for each stream, half stay on one WebSocket. `FLASHLANE_RELOADS` and `FLASHLANE_STREAMS` say how many;
//! by themselves as few as every run of the tests can afford.

use super::place::{Place, SERVER, model};
use super::rig::Running;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// What each stream counts to.
const COUNTED: u32 = 40;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

/// At `engine`, and another one with another number.
fn endpoint(name: &str, tier: &str, engine: &str, number: u64) -> String {
    format!(
        "[[endpoints]]\nname = \"{name}\"\ntier = \"{tier}\"\nbackend = \"openai\"\nbase_url = \"{engine}\"\n\
         simulated = true\nidle_connections_max = {}\n",
        8 + number
    )
}

/// Endpoints come, go and change, and so do models, limits and queues. `m` is always there, and always has an endpoint.
fn config(engine: &str, round: u64) -> String {
    let mut text = SERVER.to_owned();
    text += &format!(
        "[limits.latency]\nburst_ms = {}\n[queue.throughput]\nwait_ms_max = {}\n",
        60_000 + round,
        2_000 + round % 7
    );
    text += &endpoint("stays", "latency", engine, 0);
    text += &endpoint("changes", "latency", engine, round % 2);
    if round.is_multiple_of(3) {
        text += &endpoint("comes-and-goes", "throughput", engine, 0);
    }
    text += &model("m");
    if round.is_multiple_of(5) {
        text += &model("sometimes");
    }
    text
}

/// The simulator as a server of its own, and its base URL.
fn engine() -> (Running, String) {
    let arguments = ["simulate", "--listen", "127.0.0.1:0", "--first-token-ms", "0", "--tokens-per-second", "20"];
    let mut running = Running::start(&arguments);
    let line = running.line();
    let url = line.split(' ').find(|word| word.starts_with("http://")).unwrap().trim_end_matches(':').to_owned();
    (running, url)
}

fn words() -> String {
    format!("count from 1 to {COUNTED}")
}

/// What a stream's events came to: its text by its pieces, and that of its end.
#[derive(Debug, Default)]
struct Seen {
    pieces: String,
    whole: Option<String>,
    /// Of the response that completed.
    id: Option<String>,
}

impl Seen {
    fn see(&mut self, event: &Value) {
        let response = &event["response"];
        match event["type"].as_str().unwrap_or_default() {
            "response.output_text.delta" => self.pieces += event["delta"].as_str().unwrap_or_default(),
            "response.completed" => {
                self.whole = response["output"][0]["content"][0]["text"].as_str().map(str::to_owned);
                self.id = response["id"].as_str().map(str::to_owned);
            }
            _ => {}
        }
    }

    fn is_right(&self) -> bool {
        let expected = (1..=COUNTED).map(|number| number.to_string()).collect::<Vec<_>>().join("\n");
        self.pieces == expected && self.whole.as_ref() == Some(&expected)
    }
}

/// One stream over HTTP, and whether it came whole.
async fn stream(address: &str) -> Result<(), String> {
    let body = json!({"model": "m", "input": words(), "stream": true, "store": false}).to_string();
    let mut socket = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await.map_err(|error| error.to_string())?;
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).await.map_err(|error| error.to_string())?;
    let reply = String::from_utf8(reply).map_err(|error| error.to_string())?;
    let events = reply.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let mut seen = Seen::default();
    events.for_each(|event| seen.see(&event));
    if seen.is_right() { Ok(()) } else { Err(reply) }
}

/// One after the other, until it is over: the first that is broken.
async fn streams_on(address: String, is_over: Arc<AtomicBool>, whole: Arc<AtomicU64>) -> Option<String> {
    while !is_over.load(Ordering::Relaxed) {
        if let Err(broken) = stream(&address).await {
            return Some(broken);
        }
        whole.fetch_add(1, Ordering::Relaxed);
    }
    None
}

/// Turns of one conversation, over a WebSocket that is open through all of it: the first that is broken.
async fn turns_on(address: String, is_over: Arc<AtomicBool>, whole: Arc<AtomicU64>) -> Option<String> {
    let (mut socket, _) = connect_async(format!("ws://{address}/v1/responses")).await.unwrap();
    let mut previous = Value::Null;
    while !is_over.load(Ordering::Relaxed) {
        let create = json!({"type": "response.create", "model": "m", "input": words(), "store": false, "previous_response_id": previous});
        socket.send(Message::text(create.to_string())).await.unwrap();
        let mut seen = Seen::default();
        while seen.id.is_none() {
            match socket.next().await {
                Some(Ok(Message::Text(text))) if !text.contains("\"error\":{") => {
                    seen.see(&serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return Some(format!("{other:?} behind {seen:?}")),
            }
        }
        if !seen.is_right() {
            return Some(format!("{seen:?}"));
        }
        whole.fetch_add(1, Ordering::Relaxed);
        previous = json!(seen.id);
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stream_is_dropped_or_damaged_by_reloads() {
    let (reloads, streams) = (number("FLASHLANE_RELOADS", 100), number("FLASHLANE_STREAMS", 50));
    let (_engine, url) = engine();
    let place = Place::start("storm", &config(&url, 0));
    let (is_over, whole) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..streams)
        .map(|number| {
            let (address, is_over, whole) = (place.clients.clone(), Arc::clone(&is_over), Arc::clone(&whole));
            if number % 2 == 0 {
                tokio::spawn(streams_on(address, is_over, whole))
            } else {
                tokio::spawn(turns_on(address, is_over, whole))
            }
        })
        .collect();
    let began = Instant::now();
    for round in 1..=reloads {
        let next = round + 1;
        place.write(&config(&url, round));
        place.running.signal("HUP");
        let asked = Instant::now();
        while place.metric("flashlane_config_generation") < next as f64 {
            assert!(asked.elapsed() < Duration::from_secs(60), "reload {round}: {}", place.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let took = began.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let mut broken = Vec::new();
    for task in tasks {
        broken.extend(task.await.unwrap());
    }
    let whole = whole.load(Ordering::Relaxed);
    println!("{reloads} reloads in {took:?} under {streams} streams: {whole} whole, {} broken", broken.len());
    assert!(broken.is_empty(), "{}", broken[0]);
    assert!(whole >= streams, "{whole}");
    let is_clean = || {
        let metrics = place.metrics();
        let rows: Vec<_> =
            metrics.lines().filter(|line| line.starts_with("flashlane_upstream_turns_in_flight{")).collect();
        rows.iter().all(|row| row.ends_with(" 0")) && rows.len() <= 3
    };
    place.until("nothing runs, and nobody is left who is gone", is_clean);
}
