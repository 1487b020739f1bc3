//! Sessions by the thousand: how much a gateway's process grows for each WebSocket that is open and says nothing, and what
//! they cost where half of them have a slow turn. What a process frees it keeps and uses again, so memory is measured in the
//! first round alone, and only the first measurement of a process tells the truth: one scenario and one way a run.

use super::client::{Offer, WebSocketClient};
use super::connection::Connection;
use super::grid::Switch;
use super::load::{self, Aim, Load};
use super::process::Process;
use super::report::{Report, Sample};
use super::target::Protocol;
use super::upstream::Script;
use super::{Bench, Error};
use std::thread;
use std::time::Duration;

/// The last handshakes' memory is given back after their answers are written.
const SETTLE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(100);
/// 20 tokens a second for 5 seconds.
const SLOW: Script =
    Script { tokens: 100, first_token: Duration::ZERO, interval: Duration::from_millis(50), tokens_per_write: 1 };

/// Idle sessions, without compression or with it.
///
/// # Errors
/// When a WebSocket cannot be opened.
pub fn round(bench: &Bench<'_>, round: u32, report: &mut Report) -> Result<(), Error> {
    let sessions = bench.args.sessions;
    let name = format!("idle: {sessions} WebSockets");
    for (subject, aim) in measured(bench).filter(|_| round == 1) {
        for switch in &bench.args.rollout.deflate {
            let (offer, way) = match switch {
                Switch::Off => (Offer::Nothing, "websocket"),
                Switch::On => (Offer::Deflate, "websocket, deflate"),
            };
            bench.step(report, [&name, &subject.name, way], || match idle(aim, sessions, offer) {
                // Not every gateway compresses.
                Err(Error::Upgrade { .. }) if offer == Offer::Deflate => Ok(None),
                other => other,
            })?;
        }
    }
    Ok(())
}

/// Half of them have a turn.
///
/// # Errors
/// When a WebSocket cannot be opened, or a turn fails.
pub fn half_busy(bench: &Bench<'_>, round: u32, report: &mut Report) -> Result<(), Error> {
    let sessions = bench.args.half_busy_sessions;
    let name = format!("half-busy: {sessions} WebSockets, every other with 20 tokens/s");
    for (subject, aim) in measured(bench) {
        let way = aim.protocol.to_string();
        bench.step(report, [&name, &subject.name, &way], || half(bench, aim, sessions, round))?;
    }
    Ok(())
}

fn measured<'a>(bench: &'a Bench<'_>) -> impl Iterator<Item = (&'a super::Subject, &'a Aim)> {
    bench.aims().filter(|(_, aim)| aim.protocol == Protocol::WebSocket && aim.process.rss_kib().is_some())
}

fn open(aim: &Aim, sessions: u32, offer: Offer) -> Result<Vec<Connection>, Error> {
    (0..sessions).map(|_| WebSocketClient::connect(&aim.place, offer).map(WebSocketClient::into_idle)).collect()
}

/// Nothing where the process is not known.
fn idle(aim: &Aim, sessions: u32, offer: Offer) -> Result<Option<Sample>, Error> {
    let before_kib = aim.process.rss_kib();
    let idle = open(aim, sessions, offer)?;
    thread::sleep(SETTLE);
    let after_kib = aim.process.rss_kib();
    drop(idle);
    Ok(before_kib.zip(after_kib).map(|(before_kib, after_kib)| {
        let mut sample = Sample::default();
        sample.push("before_kib", before_kib as f64);
        sample.push("each_kib", each(before_kib, after_kib, sessions));
        sample
    }))
}

fn each(before_kib: u64, after_kib: u64, sessions: u32) -> f64 {
    (after_kib as f64 - before_kib as f64) / f64::from(sessions)
}

fn half(bench: &Bench<'_>, aim: &Aim, sessions: u32, round: u32) -> Result<Option<Sample>, Error> {
    let Some(before_kib) = aim.process.rss_kib() else { return Ok(None) };
    let idle = open(aim, sessions / 2, Offer::Nothing)?;
    let busy = Load::new(sessions - sessions / 2, 1, SLOW).evenly();
    let stage = (&bench.upstream, bench.clock);
    let (seen, largest_kib) = load::beside(aim, busy, stage, |running| largest(aim.process, || running.any()))?;
    drop(idle);
    let mut sample = Sample::default();
    if round == 1 {
        sample.push("each_kib", each(before_kib, largest_kib, sessions));
    }
    for name in ["token_p50_us", "token_p99_us", "tokens_per_s", "cpu_us_per_token"] {
        sample.push(name, seen.value(name).unwrap_or(f64::NAN));
    }
    let cpu_us_per_s = seen.value("cpu_us_per_token").zip(seen.value("tokens_per_s")).map(|(us, per_s)| us * per_s);
    sample.push("cpu_percent", cpu_us_per_s.map_or(f64::NAN, |us| us / 1e4));
    Ok(Some(sample))
}

/// The most memory that was seen.
fn largest(process: Process, go_on: impl Fn() -> bool) -> u64 {
    let mut largest_kib = 0;
    while go_on() {
        thread::sleep(LOOK);
        largest_kib = largest_kib.max(process.rss_kib().unwrap_or_default());
    }
    largest_kib
}
