//! Connection storms: what bursts of new connections do to streams that run, and how long the newcomers wait. The engine
//! and the clients share the processors with the gateway, so the same is done to the engine directly, for comparison.

use super::clock::Clock;
use super::load::{self, Aim, Client, Load, Running, quantile_us};
use super::report::{Report, Sample};
use super::seen::Seen;
use super::upstream::{LATENCY_MODEL, Script};
use super::{Bench, Error};
use std::thread;
use std::time::Duration;

const STREAMS: u32 = 16;
/// 250 tokens a second for 2 seconds.
const STEADY: Script =
    Script { tokens: 500, first_token: Duration::ZERO, interval: Duration::from_millis(4), tokens_per_write: 1 };
const BURST_CONNECTIONS: u32 = 64;
const BURST_INTERVAL: Duration = Duration::from_millis(250);

/// What became of the newcomers.
#[derive(Default)]
struct Newcomers {
    /// From before the connect, or the handshakes, to the first token.
    ttfts_ns: Vec<u64>,
    refused: u32,
}

/// Each gateway, without and with bursts.
///
/// # Errors
/// When a stream that runs fails; refused newcomers are counted.
pub fn round(bench: &Bench<'_>, round: u32, report: &mut Report) -> Result<(), Error> {
    let name = format!("storm: {STREAMS} streams at 250 tokens/s, {BURST_CONNECTIONS} new connections every 250 ms");
    for (subject, aim) in bench.aims() {
        let way = aim.protocol.to_string();
        bench.step(report, [&name, &subject.name, &way], || run(bench, aim, round.is_multiple_of(2)).map(Some))?;
    }
    Ok(())
}

fn run(bench: &Bench<'_>, aim: &Aim, bursts_first: bool) -> Result<Sample, Error> {
    let load = Load::new(STREAMS, 1, STEADY).evenly();
    let stage = (&bench.upstream, bench.clock);
    bench.upstream.play_latency(Script::SHORT);
    let with_bursts = || load::beside(aim, load, stage, |running| bursts(aim, running, bench.clock));
    let without = || load::run(aim, load, &bench.upstream, bench.clock);
    let (quiet, (stormy, mut newcomers)) = if bursts_first {
        let with_bursts = with_bursts()?;
        (without()?, with_bursts)
    } else {
        (without()?, with_bursts()?)
    };
    let value = |sample: &Sample, name| sample.value(name).unwrap_or(f64::NAN);
    let [quiet_p50_us, quiet_p99_us] = ["token_p50_us", "token_p99_us"].map(|name| value(&quiet, name));
    let [p50_us, p99_us] = ["token_p50_us", "token_p99_us"].map(|name| value(&stormy, name));
    let mut sample = Sample::default();
    sample.push("quiet_token_p50_us", quiet_p50_us);
    sample.push("token_p50_us", p50_us);
    sample.push("p50_more_percent", (p50_us / quiet_p50_us - 1.0) * 100.0);
    sample.push("quiet_token_p99_us", quiet_p99_us);
    sample.push("token_p99_us", p99_us);
    sample.push("p99_more_ms", (p99_us - quiet_p99_us) / 1e3);
    sample.push("new_ttft_p50_us", quantile_us(&mut newcomers.ttfts_ns, 0.5));
    sample.push("new_ttft_p99_us", quantile_us(&mut newcomers.ttfts_ns, 0.99));
    sample.push("new_connections", newcomers.ttfts_ns.len() as f64);
    sample.push("refused_connections", f64::from(newcomers.refused));
    Ok(sample)
}

/// One burst after the other, while the streams run.
fn bursts(aim: &Aim, running: &Running<'_>, clock: Clock) -> Newcomers {
    let mut all = Newcomers::default();
    let interval_ns = u64::try_from(BURST_INTERVAL.as_nanos()).unwrap_or(u64::MAX);
    let mut next_ns = clock.ns();
    while running.any() {
        let burst = thread::scope(|scope| {
            let threads: Vec<_> = (0..BURST_CONNECTIONS).map(|_| scope.spawn(|| newcomer(aim, clock))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Error::Turn))).collect::<Vec<_>>()
        });
        for newcomer in burst {
            match newcomer {
                Ok(ttft_ns) => all.ttfts_ns.push(ttft_ns),
                Err(_) => all.refused += 1,
            }
        }
        next_ns += interval_ns;
        clock.sleep_until(next_ns);
    }
    all
}

/// Connects, and has one turn of one token.
fn newcomer(aim: &Aim, clock: Clock) -> Result<u64, Error> {
    let started_ns = clock.ns();
    let turn = Client::connect(aim, LATENCY_MODEL)?.turn(&mut Seen::new(clock))?;
    Ok(turn.first_token_ns.saturating_sub(started_ns))
}
