//! Two tiers beside each other: whether fast streams on one keep new requests on the other waiting. The same is done to the
//! engine directly, since its threads and the clients' share the processors with the gateway.

use super::clock::Clock;
use super::load::{self, Aim, Client, Load, quantile_us};
use super::report::{Report, Sample};
use super::seen::Seen;
use super::upstream::{LATENCY_MODEL, MODEL, Script};
use super::{Bench, Error};
use std::time::Duration;

/// 49,000 tokens a second for 3 seconds: a wafer's engine sends some at a time.
const STREAMS: u32 = 49;
const FAST: Script =
    Script { tokens: 3000, first_token: Duration::ZERO, interval: Duration::from_millis(1), tokens_per_write: 8 };
const ALONE_NS: u64 = 3_000_000_000;
const BETWEEN_REQUESTS_NS: u64 = 3_000_000;

/// Each gateway, the throughput tier alone and then beside the latency tier.
///
/// # Errors
/// When a turn fails, on either tier.
pub fn round(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let name = format!("interference: {STREAMS} streams at 1,000 tokens/s on one tier, new requests on the other");
    for (subject, aim) in bench.aims() {
        let way = aim.protocol.to_string();
        bench.step(report, [&name, &subject.name, &way], || run(bench, aim).map(Some))?;
    }
    Ok(())
}

fn run(bench: &Bench<'_>, aim: &Aim) -> Result<Sample, Error> {
    let (upstream, clock) = (&bench.upstream, bench.clock);
    upstream.play(Script::SHORT);
    let until_ns = clock.ns() + ALONE_NS;
    let mut alone_ns = requests(aim, clock, || clock.ns() < until_ns)?;
    let load = Load { model: LATENCY_MODEL, ..Load::new(STREAMS, 1, FAST).evenly() };
    let beside = load::beside(aim, load, (upstream, clock), |running| requests(aim, clock, || running.any()))?;
    let (streams, mut beside_ns) = (beside.0, beside.1?);
    let [alone_p99_us, beside_p99_us] = [&mut alone_ns, &mut beside_ns].map(|ttfts_ns| quantile_us(ttfts_ns, 0.99));
    let mut sample = Sample::default();
    sample.push("alone_ttft_p50_us", quantile_us(&mut alone_ns, 0.5));
    sample.push("beside_ttft_p50_us", quantile_us(&mut beside_ns, 0.5));
    sample.push("alone_ttft_p99_us", alone_p99_us);
    sample.push("beside_ttft_p99_us", beside_p99_us);
    sample.push("p99_ratio", beside_p99_us / alone_p99_us);
    sample.push("new_requests", beside_ns.len() as f64);
    for name in ["tokens_per_s", "token_p50_us", "token_p99_us"] {
        sample.push(name, streams.value(name).unwrap_or(f64::NAN));
    }
    Ok(sample)
}

/// One after the other on one connection: the time to each one's first token.
fn requests(aim: &Aim, clock: Clock, go_on: impl Fn() -> bool) -> Result<Vec<u64>, Error> {
    let (mut seen, mut ttfts_ns) = (Seen::new(clock), Vec::new());
    let mut client = Client::connect(aim, MODEL)?;
    client.turn(&mut seen)?;
    while go_on() {
        let turn = client.turn(&mut seen)?;
        ttfts_ns.push(turn.first_token_ns.saturating_sub(turn.started_ns));
        clock.sleep_until(turn.ended_ns + BETWEEN_REQUESTS_NS);
    }
    Ok(ttfts_ns)
}
