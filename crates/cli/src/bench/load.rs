//! Streams side by side: so many clients, each taking so many turns, all on warm connections. Measures each token's way
//! from the upstream's write to the client's read, and what the gateway's process spent meanwhile.

use super::Error;
use super::client::{HttpClient, Offer, Turn, WebSocketClient};
use super::clock::Clock;
use super::process::Process;
use super::report::Sample;
use super::seen::Seen;
use super::target::{Place, Protocol};
use super::upstream::{MODEL, Script, Upstream};
use std::sync::Barrier;
use std::thread;

/// So many clients, so many turns each.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub streams: u32,
    pub turns: u32,
    pub script: Script,
}

/// Where, how, and on whose processor time.
#[derive(Debug, Clone)]
pub struct Aim {
    pub place: Place,
    pub protocol: Protocol,
    pub process: Process,
}

/// One connection of any protocol.
enum Client {
    Http(HttpClient, &'static str, String),
    WebSocket(WebSocketClient, String),
}

impl Client {
    fn connect(aim: &Aim) -> Result<Client, Error> {
        let http = |path, body| Client::Http(HttpClient::new(aim.place.clone(), true), path, body);
        Ok(match aim.protocol {
            Protocol::Chat => {
                let body =
                    format!(r#"{{"model":"{MODEL}","stream":true,"messages":[{{"role":"user","content":"Go on."}}]}}"#);
                http("/chat/completions", body)
            }
            Protocol::Responses => {
                let body = format!(r#"{{"model":"{MODEL}","stream":true,"store":false,"input":"Go on."}}"#);
                http("/responses", body)
            }
            Protocol::WebSocket => {
                let message =
                    format!(r#"{{"type":"response.create","model":"{MODEL}","store":false,"input":"Go on."}}"#);
                Client::WebSocket(WebSocketClient::connect(&aim.place, Offer::Nothing)?, message)
            }
        })
    }

    fn turn(&mut self, seen: &mut Seen) -> Result<Turn, Error> {
        match self {
            Client::Http(client, path, body) => client.turn(path, body, seen),
            Client::WebSocket(client, message) => client.turn(message, seen),
        }
    }
}

/// Whether the gateway speaks this protocol: one short turn.
///
/// # Errors
/// Why it does not.
pub fn probe(aim: &Aim, upstream: &Upstream, clock: Clock) -> Result<(), Error> {
    upstream.play(Script::SHORT);
    let mut seen = Seen::new(clock);
    Client::connect(aim)?.turn(&mut seen)?;
    if seen.transits_ns.is_empty() { Err(Error::NoTokens { upstream: upstream.address }) } else { Ok(()) }
}

/// Runs the load once.
///
/// # Errors
/// When any turn of it fails.
pub fn run(aim: &Aim, load: Load, upstream: &Upstream, clock: Clock) -> Result<Sample, Error> {
    upstream.play(Script::SHORT);
    let (warm, go) = (Barrier::new(load.streams as usize + 1), Barrier::new(load.streams as usize + 1));
    let (began_ns, cpu_ns, streams) = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..load.streams).map(|_| scope.spawn(|| stream(aim, load, clock, [&warm, &go]))).collect();
        warm.wait();
        upstream.play(load.script);
        let (began_ns, cpu_ns) = (clock.ns(), aim.process.cpu_ns());
        go.wait();
        let streams: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Error::Turn))).collect();
        (began_ns, cpu_ns, streams)
    });
    let took_ns = clock.ns().saturating_sub(began_ns);
    let cpu_ns = cpu_ns.and_then(|before| Some(aim.process.cpu_ns()?.saturating_sub(before)));
    // Its part of these turns is nothing: the first token is due at once.
    drop(upstream.turns());
    let (mut ttfts_ns, mut transits_ns) = (Vec::new(), Vec::new());
    let (mut up_bytes, mut down_bytes) = (0, 0);
    for stream in streams {
        let (turns, seen) = stream?;
        transits_ns.extend(seen.transits_ns);
        for turn in turns {
            ttfts_ns.push(turn.first_token_ns.saturating_sub(turn.started_ns));
            up_bytes += turn.wire.up_bytes;
            down_bytes += turn.wire.down_bytes;
        }
    }
    let sent = u64::from(load.streams) * u64::from(load.turns) * u64::from(load.script.tokens);
    let arrived = transits_ns.len() as u64;
    if arrived != sent {
        return Err(Error::Lost { sent, arrived });
    }
    let (turns, tokens) = (ttfts_ns.len() as f64, transits_ns.len() as f64);
    let mut sample = Sample::default();
    sample.push("ttft_p50_us", quantile_us(&mut ttfts_ns, 0.5));
    sample.push("token_p50_us", quantile_us(&mut transits_ns, 0.5));
    sample.push("token_p99_us", quantile_us(&mut transits_ns, 0.99));
    sample.push("tokens_per_s", tokens / (took_ns as f64 / 1e9));
    sample.push("up_bytes_per_turn", up_bytes as f64 / turns);
    sample.push("down_bytes_per_token", down_bytes as f64 / tokens);
    if let Some(cpu_ns) = cpu_ns {
        sample.push("cpu_us_per_token", cpu_ns as f64 / 1e3 / tokens);
    }
    Ok(sample)
}

fn stream(aim: &Aim, load: Load, clock: Clock, [warm, go]: [&Barrier; 2]) -> Result<(Vec<Turn>, Seen), Error> {
    let mut seen = Seen::new(clock);
    let connected = Client::connect(aim).and_then(|mut client| client.turn(&mut seen).map(|_| client));
    seen.transits_ns = Vec::with_capacity(load.turns as usize * load.script.tokens as usize);
    // Both are passed in any case: the others wait here.
    warm.wait();
    go.wait();
    let mut client = connected?;
    let turns = (0..load.turns).map(|_| client.turn(&mut seen)).collect::<Result<_, _>>()?;
    Ok((turns, seen))
}

/// In microseconds; nothing of nothing.
pub fn quantile_us(values_ns: &mut [u64], quantile: f64) -> f64 {
    values_ns.sort_unstable();
    let at = (values_ns.len().saturating_sub(1) as f64 * quantile).round();
    values_ns.get(at as usize).map_or(f64::NAN, |ns| *ns as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let mut values = [3_000, 1_000, 2_000];
        assert_eq!((quantile_us(&mut values, 0.5), quantile_us(&mut values, 0.99)), (2.0, 3.0));
    }
}
