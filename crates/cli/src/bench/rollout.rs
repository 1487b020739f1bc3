//! A coding agent's rollout: many turns, each with some new input on a growing history, over plain HTTP (the whole history
//! each time) or one WebSocket (what is new). Overhead is a turn's wall time less the engine's own, both measured.

use super::Error;
use super::client::{HttpClient, Offer, Turn, WebSocketClient};
use super::clock::Clock;
use super::link::{self, Link};
use super::load::Aim;
use super::report::Sample;
use super::seen::Seen;
use super::target::{Place, Protocol};
use super::upstream::{EngineTurn, MODEL, Script, Upstream};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// One message of the history that the rollout begins with.
const MESSAGE_BYTES: usize = 2048;

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rollout {
    pub turns: u32,
    /// What the first turn sends beside its own input.
    pub history_bytes: usize,
    /// New in each turn.
    pub input_bytes: usize,
    pub tokens: u32,
    /// The engine's pace.
    pub token_ms: u32,
    pub link: Link,
}

/// How the client goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Plain HTTP, a new connection and the whole history for each turn.
    A,
    /// The same on one connection, kept alive and open before the first turn.
    B,
    /// One WebSocket; the first turn connects and sends the history.
    C,
    /// One WebSocket; it was connected and the history sent by a warm-up, before the first turn.
    D,
}

impl Way {
    pub const ALL: [Way; 4] = [Way::A, Way::B, Way::C, Way::D];

    #[must_use]
    pub fn is_websocket(self) -> bool {
        match self {
            Way::A | Way::B => false,
            Way::C | Way::D => true,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Way::A => "A new connection",
            Way::B => "B kept alive",
            Way::C => "C websocket, cold",
            Way::D => "D websocket, warm",
        })
    }
}

/// Where the turns of a rollout happen.
pub struct Stage<'a> {
    pub aim: &'a Aim,
    pub upstream: &'a Upstream,
    pub clock: Clock,
}

/// Runs it once.
///
/// # Errors
/// When any turn of it fails.
pub fn run(stage: &Stage<'_>, rollout: &Rollout, way: Way) -> Result<Sample, Error> {
    let Stage { aim, upstream, clock } = *stage;
    let mut place = aim.place.clone();
    if !rollout.link.is_bare() {
        place.connect = link::start(rollout.link, place.connect, clock)?;
    }
    let interval = Duration::from_millis(u64::from(rollout.token_ms));
    let script = Script { tokens: rollout.tokens, first_token: interval, interval, tokens_per_write: 1 };
    let cpu_ns = aim.process.cpu_ns();
    let turns = if way.is_websocket() {
        over_websocket(stage, &place, (rollout, script), way)?
    } else {
        over_http(stage, &place, (rollout, script), way)?
    };
    let cpu_ns = cpu_ns.and_then(|before| Some(aim.process.cpu_ns()?.saturating_sub(before)));
    drop(upstream.turns());
    Ok(sample(&turns, rollout, way, cpu_ns))
}

/// A turn at the client, and the engine's part of it.
type Both = (Turn, EngineTurn);

/// In how the two HTTP APIs write the same item.
fn item(protocol: Protocol, role: &str, text: &str) -> String {
    let part = if role == "assistant" { "output_text" } else { "input_text" };
    match protocol {
        Protocol::Chat => format!(r#"{{"role":"{role}","content":"{text}"}}"#),
        Protocol::Responses | Protocol::WebSocket => {
            format!(r#"{{"type":"message","role":"{role}","content":[{{"type":"{part}","text":"{text}"}}]}}"#)
        }
    }
}

/// The conversation before the first turn, and an input.
fn history(protocol: Protocol, bytes: usize) -> Vec<String> {
    let count = bytes / MESSAGE_BYTES;
    let roles = ["user", "assistant"].into_iter().cycle();
    roles.take(count).enumerate().map(|(n, role)| item(protocol, role, &prose(n, MESSAGE_BYTES))).collect()
}

/// Text that is like code, escapes included, and differs from turn to turn.
fn prose(seed: usize, bytes: usize) -> String {
    const WORDS: [&str; 12] = [
        "let ",
        "fn ",
        "if ",
        "return ",
        "\\n    ",
        "buffer",
        " = ",
        "(count)",
        ";\\n",
        "\\\"name\\\"",
        " -> ",
        "{ }\\n",
    ];
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS.get((state >> 33) as usize % WORDS.len()).copied().unwrap_or_default());
    }
    text
}

fn over_http(
    stage: &Stage<'_>,
    place: &Place,
    (rollout, script): (&Rollout, Script),
    way: Way,
) -> Result<Vec<Both>, Error> {
    let protocol = stage.aim.protocol;
    let (path, before, after) = match protocol {
        Protocol::Chat => ("/chat/completions", r#""messages":["#, "]}"),
        Protocol::Responses | Protocol::WebSocket => ("/responses", r#""store":false,"input":["#, "]}"),
    };
    let body = |items: &[String]| format!(r#"{{"model":"{MODEL}","stream":true,{before}{}{after}"#, items.join(","));
    let mut seen = Seen::new(stage.clock);
    let mut client = HttpClient::new(place.clone(), way == Way::B);
    stage.upstream.play(Script::SHORT);
    if way == Way::B {
        client.turn(path, &body(&[item(protocol, "user", "Hello.")]), &mut seen)?;
    }
    drop(stage.upstream.turns());
    stage.upstream.play(script);
    let mut items = history(protocol, rollout.history_bytes);
    let mut turns = Vec::new();
    for n in 0..rollout.turns {
        items.push(item(protocol, "user", &prose(1000 + n as usize, rollout.input_bytes)));
        let turn = client.turn(path, &body(&items), &mut seen)?;
        turns.push((turn, stage.upstream.turns().pop().ok_or(Error::Turn)?));
        items.push(item(protocol, "assistant", &seen.text));
    }
    Ok(turns)
}

fn over_websocket(
    stage: &Stage<'_>,
    place: &Place,
    (rollout, script): (&Rollout, Script),
    way: Way,
) -> Result<Vec<Both>, Error> {
    let create = |more: &str, items: &[String]| {
        let items = items.join(",");
        format!(r#"{{"type":"response.create","model":"{MODEL}","store":false{more},"input":[{items}]}}"#)
    };
    let mut seen = Seen::new(stage.clock);
    let mut items = history(Protocol::WebSocket, rollout.history_bytes);
    let mut chain = String::new();
    stage.upstream.play(Script::SHORT);
    let mut connect_ns = Some(stage.clock.ns());
    let mut client = WebSocketClient::connect(place, Offer::Nothing)?;
    if way == Way::D {
        client.turn(&create(r#","generate":false"#, &items), &mut seen)?;
        items.clear();
        chain = format!(r#","previous_response_id":"{}""#, seen.response_id);
        connect_ns = None;
    }
    drop(stage.upstream.turns());
    stage.upstream.play(script);
    let mut turns = Vec::new();
    for n in 0..rollout.turns {
        items.push(item(Protocol::WebSocket, "user", &prose(1000 + n as usize, rollout.input_bytes)));
        let mut turn = client.turn(&create(&chain, &items), &mut seen)?;
        turn.started_ns = connect_ns.take().unwrap_or(turn.started_ns);
        turns.push((turn, stage.upstream.turns().pop().ok_or(Error::Turn)?));
        items.clear();
        chain = format!(r#","previous_response_id":"{}""#, seen.response_id);
    }
    Ok(turns)
}

fn sample(turns: &[Both], rollout: &Rollout, way: Way, cpu_ns: Option<u64>) -> Sample {
    let count = turns.len().max(1) as f64;
    let ms = |ns: u64| ns as f64 / 1e6;
    let ttft = |(turn, engine): &Both| {
        let engine_ns = engine.first_token_ns.saturating_sub(engine.received_ns);
        ms(turn.first_token_ns.saturating_sub(turn.started_ns)) - ms(engine_ns)
    };
    let wall = |(turn, _): &Both| ms(turn.ended_ns.saturating_sub(turn.started_ns));
    let engine = |(_, engine): &Both| ms(engine.done_ns.saturating_sub(engine.received_ns));
    let walls: f64 = turns.iter().map(wall).sum();
    let engines: f64 = turns.iter().map(engine).sum();
    let ups: u64 = turns.iter().map(|(turn, _)| turn.wire.up_bytes).sum();
    let downs: u64 = turns.iter().map(|(turn, _)| turn.wire.down_bytes).sum();
    let overhead = (walls - engines) / count;
    let rtt = ms(rollout.link.rtt_ns());
    // What comes down while the engine thinks costs nothing.
    let down = (ms(rollout.link.occupied_ns(downs)) - engines).max(0.0);
    let trips = match way {
        Way::A => 2.0,
        Way::C => 1.0 + 2.0 / count,
        Way::B | Way::D => 1.0,
    };
    let mut sample = Sample::default();
    sample.push("overhead_ms", overhead);
    sample.push("less_one_rtt_ms", overhead - rtt);
    sample.push("bound_ms", trips * rtt + (ms(rollout.link.occupied_ns(ups)) + down) / count);
    sample.push("first_ttft_overhead_ms", turns.first().map_or(f64::NAN, ttft));
    sample.push("ttft_overhead_ms", turns.iter().map(ttft).sum::<f64>() / count);
    sample.push("wall_ms", walls);
    sample.push("up_bytes_per_turn", ups as f64 / count);
    if let Some(cpu_ns) = cpu_ns {
        sample.push("cpu_us_per_turn", cpu_ns as f64 / 1e3 / count);
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::super::connection::Wire;
    use super::*;

    #[test]
    fn every_item_is_json_and_as_long_as_was_asked() {
        for protocol in [Protocol::Chat, Protocol::Responses] {
            for item in history(protocol, 3 * MESSAGE_BYTES) {
                let value: serde_json::Value = serde_json::from_str(&item).unwrap();
                assert!(value["role"].is_string() && item.len() > MESSAGE_BYTES, "{item}");
            }
        }
        assert_ne!(prose(1, 100), prose(2, 100));
    }

    #[test]
    fn overhead_is_wall_time_less_the_engines_own() {
        let turn = Turn {
            started_ns: 0,
            first_token_ns: 31_000_000,
            ended_ns: 130_000_000,
            request_bytes: 2500,
            wire: Wire { up_bytes: 2500, down_bytes: 0 },
        };
        let engine = EngineTurn { received_ns: 11_000_000, first_token_ns: 21_000_000, done_ns: 111_000_000 };
        let link = Link { rtt_ms: 20, mbit_per_s: 20, slow_start: false };
        let rollout = Rollout { turns: 1, history_bytes: 0, input_bytes: 0, tokens: 1, token_ms: 10, link };
        let sample = sample(&[(turn, engine)], &rollout, Way::A, Some(5000));
        let expected = [
            ("overhead_ms", 30.0),
            ("less_one_rtt_ms", 10.0),
            ("bound_ms", 41.0),
            ("ttft_overhead_ms", 21.0),
            ("cpu_us_per_turn", 5.0),
        ];
        for (name, value) in expected {
            assert_eq!(sample.value(name), Some(value), "{name}");
        }
    }
}
