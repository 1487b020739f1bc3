//! Configs in quick succession under many streams: every stream is whole. `FLASHLANE_RELOADS` and `FLASHLANE_STREAMS` say how many; by themselves
//! as few as every run of the tests can afford.

use super::place::{Place, SERVER, endpoint, model};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What each stream counts to.
const COUNTED: u32 = 40;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

/// Endpoints come, go and change, and so do models, limits and queues. `m` is always there, and always has an endpoint.
fn config(round: u64) -> String {
    let mut text = SERVER.to_owned();
    text += &format!(
        "[limits.latency]\nburst_ms = {}\n[queue.throughput]\nwait_ms_max = {}\n",
        60_000 + round,
        2_000 + round % 7
    );
    text += &endpoint("stays", "latency", 20);
    text += &endpoint("changes", "latency", 20 + u32::try_from(round % 2).unwrap());
    if round.is_multiple_of(3) {
        text += &endpoint("comes-and-goes", "throughput", 20);
    }
    text += &model("m");
    if round.is_multiple_of(5) {
        text += &model("sometimes");
    }
    text
}

/// One stream, and whether it came whole: its text by its pieces, and that of its end.
async fn stream(address: &str) -> Result<(), String> {
    let body = json!({"model": "m", "input": format!("count from 1 to {COUNTED}"), "stream": true, "store": false})
        .to_string();
    let mut socket = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await.map_err(|error| error.to_string())?;
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).await.map_err(|error| error.to_string())?;
    let reply = String::from_utf8(reply).map_err(|error| error.to_string())?;
    let events =
        reply.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line.strip_prefix("data: ")?).ok());
    let (mut pieces, mut whole) = (String::new(), None);
    for event in events {
        match event["type"].as_str().unwrap_or_default() {
            "response.output_text.delta" => pieces += event["delta"].as_str().unwrap_or_default(),
            "response.completed" => {
                whole = event["response"]["output"][0]["content"][0]["text"].as_str().map(str::to_owned)
            }
            _ => {}
        }
    }
    let expected = (1..=COUNTED).map(|number| number.to_string()).collect::<Vec<_>>().join("\n");
    if pieces == expected && whole.as_ref() == Some(&expected) { Ok(()) } else { Err(reply) }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stream_is_dropped_or_damaged_by_reloads() {
    let (reloads, streams) = (number("FLASHLANE_RELOADS", 100), number("FLASHLANE_STREAMS", 50));
    let place = Place::start("storm", &config(0));
    let (is_over, whole) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..streams)
        .map(|_| {
            let (address, is_over, whole) = (place.clients.clone(), Arc::clone(&is_over), Arc::clone(&whole));
            tokio::spawn(streams_on(address, is_over, whole))
        })
        .collect();
    let began = Instant::now();
    for round in 1..=reloads {
        let next = round + 1;
        place.write(&config(round));
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
