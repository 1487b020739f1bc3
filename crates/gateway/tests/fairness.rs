//! A quiet key beside one with ten times its load, on real sockets through the built binary and its simulated wafer tier.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use rig::Gateway;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

/// Sixteen slots; a turn has its first token after 100 ms and ends after another 100.
const CONFIG: &str = r#"
[[endpoints]]
name = "wafer-simulated"
tier = "latency"
backend = "simulator"
first_token_ms = 100
tokens_per_second = 100

[[models]]
name = "m"
route = "latency-only"

[queue.latency]
concurrency_max = 16
concurrency_min = 16
wait_ms_max = 20000
"#;
/// Between the quiet key's turns: two run at once in the mean, three at times.
const GAPS_MS: [u64; 6] = [50, 130, 70, 150, 90, 110];
/// The heavy key always has ten times as many in flight or waiting: more than there are slots.
const HEAVY_CLIENTS: usize = 20;
/// Alone and beside, in turns: of each so many, twice.
const QUIET_TURNS: usize = 12;
/// Of so many measurements one must hold: the machine may be busy with something else in the others.
const TRIES: usize = 3;

/// Until the first token; the rest of the answer is read too.
fn turn(address: &str, key: &str) -> Duration {
    let body = r#"{"model":"m","input":"count from 1 to 50","stream":true,"store":false,"max_output_tokens":10}"#;
    let head = format!("POST /v1/responses HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n");
    let length = body.len();
    let request =
        format!("{head}content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let (mut answer, mut first) = (Vec::new(), None);
    let mut bytes = [0; 4096];
    loop {
        let read = stream.read(&mut bytes).unwrap();
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&bytes[..read]);
        if first.is_none() && rig::text(&answer).contains("response.output_text.delta") {
            first = Some(began.elapsed());
        }
    }
    first.unwrap_or_else(|| panic!("no token: {}", rig::text(&answer)))
}

fn quiet_turns(address: &str) -> Vec<Duration> {
    thread::scope(|scope| {
        let turns = (0..QUIET_TURNS).map(|number| {
            thread::sleep(Duration::from_millis(GAPS_MS[number % GAPS_MS.len()]));
            scope.spawn(|| turn(address, "quiet"))
        });
        turns.collect::<Vec<_>>().into_iter().map(|turn| turn.join().unwrap()).collect()
    })
}

fn quiet_turns_beside_a_heavy_key(address: &str) -> Vec<Duration> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..HEAVY_CLIENTS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    turn(address, "heavy");
                }
            });
        }
        let quiet = quiet_turns(address);
        is_over.store(true, Ordering::Relaxed);
        quiet
    })
}

fn p99(mut waits: Vec<Duration>) -> Duration {
    waits.sort_unstable();
    waits[waits.len() * 99 / 100]
}

/// How many turns have waited for a place.
fn waited(gateway: &Gateway) -> u64 {
    let mut stream = TcpStream::connect(&gateway.admin).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    let name = "flashlane_queue_wait_seconds_count{tier=\"latency\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}

#[test]
fn a_quiet_keys_first_tokens_come_as_soon_beside_ten_times_its_load() {
    let path = env::temp_dir().join(format!("flashlane-fairness-{}.toml", std::process::id()));
    fs::write(&path, CONFIG).unwrap();
    // A line for each turn would fill the pipe that nobody reads.
    let gateway = Gateway::start_with(&["--config", path.to_str().unwrap()], &[("FLASHLANE_LOG", "warn")]);
    fs::remove_file(&path).unwrap();
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            alone.extend(quiet_turns(&gateway.clients));
            beside.extend(quiet_turns_beside_a_heavy_key(&gateway.clients));
        }
        seen.push((p99(alone), p99(beside)));
        if seen.iter().any(|(alone, beside)| *beside * 2 <= *alone * 3) {
            break;
        }
    }
    eprintln!("TTFT p99 alone and beside: {seen:?}; {} turns waited", waited(&gateway));
    assert!(waited(&gateway) > 20, "the heavy key fills all slots");
    assert!(seen.iter().any(|(alone, beside)| *beside * 2 <= *alone * 3), "TTFT p99 alone and beside: {seen:?}");
}
