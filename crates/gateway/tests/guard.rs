//! A model's guard, asked over real sockets by the built binary: what it is told, what its word does, and what it costs.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use rig::Gateway;
use rig::guard::{GUARD_MS, Guard};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use std::{env, fs};

/// How long the simulated engines think before their first token: one is quicker than the guard, one slower.
const QUICK_MS: u64 = 5;
const SLOW_MS: u64 = 60;
/// Turns of each kind in one measurement, in turns.
const TURNS: usize = 15;
/// Of so many measurements one must hold: the machine may be busy with something else in the others.
const TRIES: usize = 6;
/// What a passing turn's first token may wait beyond the slower of guard and engine.
const COST_MAX: Duration = Duration::from_millis(1);

fn start(guard: &Guard) -> Gateway {
    let config = format!(
        r#"
[[endpoints]]
name = "wafer-simulated"
tier = "latency"
backend = "simulator"
first_token_ms = {QUICK_MS}
tokens_per_second = 2000

[[endpoints]]
name = "gpu-simulated"
tier = "throughput"
backend = "simulator"
first_token_ms = {SLOW_MS}
tokens_per_second = 2000

[[guards]]
name = "policy"
url = "{url}"
api_key_env = "POLICY_KEY"
deadline_ms = 500

[[guards]]
name = "lenient"
url = "{url}"
deadline_ms = 200
without_verdict = "pass"

[[models]]
name = "free"
route = "latency-only"

[[models]]
name = "guarded"
route = "latency-only"
guard = "policy"

[[models]]
name = "lenient"
route = "latency-only"
guard = "lenient"

[[models]]
name = "free-slow"
route = "throughput-only"

[[models]]
name = "guarded-slow"
route = "throughput-only"
guard = "policy"
"#,
        url = guard.url
    );
    let path = env::temp_dir().join(format!("flashlane-guard-{}-{:p}.toml", std::process::id(), guard));
    fs::write(&path, config).unwrap();
    let variables = [("FLASHLANE_LOG", "warn"), ("POLICY_KEY", "secret-of-the-guard")];
    let gateway = Gateway::start_with(&["--config", path.to_str().unwrap()], &variables);
    fs::remove_file(&path).unwrap();
    gateway
}

/// A streamed turn: all that came, and when the first token did.
fn turn(gateway: &Gateway, model: &str, text: &str) -> (String, Option<Duration>) {
    let body = format!(r#"{{"model":"{model}","input":"{text}","stream":true,"store":false}}"#);
    let head = "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let request = format!("{head}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let began = Instant::now();
    let mut stream = TcpStream::connect(&gateway.clients).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let (mut answer, mut first, mut bytes) = (Vec::new(), None, [0; 4096]);
    loop {
        let read = stream.read(&mut bytes).unwrap();
        if read == 0 {
            return (rig::text(&answer), first);
        }
        answer.extend_from_slice(&bytes[..read]);
        if first.is_none() && rig::text(&answer).contains("response.output_text.delta") {
            first = Some(began.elapsed());
        }
    }
}

fn metrics(gateway: &Gateway) -> String {
    let mut stream = TcpStream::connect(&gateway.admin).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    metrics
}

fn metric(gateway: &Gateway, name: &str) -> u64 {
    let metrics = metrics(gateway);
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Of a guard: its ruling and what became of the turn, and how often.
fn ruled(gateway: &Gateway, guard: &str) -> Vec<(String, u64)> {
    let rows = format!(r#"flashlane_guard_rulings_total{{guard="{guard}",ruling=""#);
    let row = |line: &str| {
        let (ruling, rest) = line.strip_prefix(&rows)?.split_once(r#"",turn=""#)?;
        let (turn, count) = rest.split_once(r#""} "#)?;
        Some((format!("{ruling} {turn}"), count.parse().unwrap()))
    };
    metrics(gateway).lines().filter_map(row).collect()
}

fn own((words, count): (&str, u64)) -> (String, u64) {
    (words.to_owned(), count)
}

#[test]
fn what_it_refuses_is_told_and_counted_and_what_it_passes_comes() {
    let guard = Guard::start();
    let gateway = start(&guard);
    let (refused, first) = turn(&gateway, "guarded", "a forbidden thing");
    assert!(refused.contains("400 Bad Request") || refused.contains("response.failed"), "{refused}");
    assert!(refused.contains(r#""code":"cyber_policy""#) && refused.contains("Not this."), "{refused}");
    assert_eq!(first, None, "{refused}");
    let (passed, _) = turn(&gateway, "guarded", "a good thing");
    assert!(passed.contains("response.completed"), "{passed}");
    let (free, _) = turn(&gateway, "free", "a forbidden thing");
    assert!(free.contains("response.completed"), "{free}");
    let asked = guard.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].starts_with("POST /check HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[0].to_lowercase().contains("authorization: bearer secret-of-the-guard"), "{}", asked[0]);
    assert!(asked[0].contains(r#""model":"guarded""#) && asked[0].contains("a forbidden thing"), "{}", asked[0]);
    assert_eq!(ruled(&gateway, "policy"), [("passed went_on", 1), ("refused refused", 1)].map(own));
    // One of the two had a first token.
    assert_eq!(metric(&gateway, r#"flashlane_guard_seconds_count{guard="policy"}"#), 2);
    assert_eq!(metric(&gateway, r#"flashlane_guard_hold_seconds_count{guard="policy"}"#), 1);
    assert_eq!(metric(&gateway, r#"flashlane_errors_total{kind="cyber_policy"}"#), 1);
    assert_eq!(metric(&gateway, r#"flashlane_upstream_turns_in_flight{endpoint="wafer-simulated"}"#), 0);
}

#[test]
fn without_a_verdict_in_time_the_config_decides() {
    let guard = Guard::start();
    let gateway = start(&guard);
    for text in ["hang", "nonsense"] {
        let (refused, first) = turn(&gateway, "guarded", text);
        assert!(refused.contains("policy check of this request could not be made") && first.is_none(), "{refused}");
        assert!(refused.contains(r#""code":"server_error""#) && !refused.contains(&guard.url), "{refused}");
        let (passed, first) = turn(&gateway, "lenient", text);
        assert!(passed.contains("response.completed") && first.is_some(), "{passed}");
    }
    assert_eq!(ruled(&gateway, "policy"), [("failed refused", 1), ("timed_out refused", 1)].map(own));
    assert_eq!(ruled(&gateway, "lenient"), [("failed went_on", 1), ("timed_out went_on", 1)].map(own));
    assert_eq!(metric(&gateway, r#"flashlane_errors_total{kind="guard_unavailable"}"#), 2);
}

/// What a guard adds to the median first token of a turn beyond the slower of the two, the gateway's own share being in both.
fn cost(gateway: &Gateway, (free, guarded): (&str, &str), engine_ms: u64) -> Duration {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for number in 0..TURNS {
        let text = format!("number {number}");
        alone.push(turn(gateway, free, &text).1.unwrap());
        beside.push(turn(gateway, guarded, &text).1.unwrap());
    }
    let of_gateway = median(alone).saturating_sub(Duration::from_millis(engine_ms));
    let (beside, slower) = (median(beside), Duration::from_millis(engine_ms.max(GUARD_MS)));
    assert!(beside >= slower, "it waits for neither: {beside:?}");
    beside.saturating_sub(slower + of_gateway)
}

#[test]
fn a_passing_turn_waits_for_the_slower_of_guard_and_engine_and_hardly_longer() {
    let guard = Guard::start();
    let gateway = start(&guard);
    for (models, engine_ms) in [(("free", "guarded"), QUICK_MS), (("free-slow", "guarded-slow"), SLOW_MS)] {
        let mut seen = Vec::new();
        while seen.len() < TRIES && seen.last().is_none_or(|cost| *cost > COST_MAX) {
            seen.push(cost(&gateway, models, engine_ms));
        }
        eprintln!("cost of a guard of {GUARD_MS} ms before an engine of {engine_ms} ms: {seen:?}");
        assert!(seen.last().is_some_and(|cost| *cost <= COST_MAX), "{seen:?}");
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
