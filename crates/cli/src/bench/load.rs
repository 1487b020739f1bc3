//! Streams side by side: so many clients, each taking so many turns, all on warm connections. Measures each token's way
//! from the upstream's write to the client's read, and what the gateway's process spent meanwhile.

use super::Error;
use super::client::{HttpClient, Offer, Turn, WebSocketClient};
use super::clock::Clock;
use super::process::Process;
use super::report::Sample;
use super::seen::Seen;
use super::target::{Place, Protocol};
use super::upstream::{LATENCY_MODEL, MODEL, Script, Upstream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// So many clients, so many turns each.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub streams: u32,
    pub turns: u32,
    pub script: Script,
    pub model: &'static str,
    /// From one client's first turn to the next one's: tokens of many streams are not all due at once.
    pub stagger: Duration,
}

impl Load {
    /// All at once, of the first model.
    #[must_use]
    pub const fn new(streams: u32, turns: u32, script: Script) -> Load {
        Load { streams, turns, script, model: MODEL, stagger: Duration::ZERO }
    }

    /// Its streams begin evenly through the time between two writes of one.
    #[must_use]
    pub fn evenly(self) -> Load {
        Load { stagger: self.script.interval * self.script.tokens_per_write / self.streams.max(1), ..self }
    }

    fn play(&self, script: Script, upstream: &Upstream) {
        if self.model == LATENCY_MODEL { upstream.play_latency(script) } else { upstream.play(script) }
    }
}

/// Where, how, and on whose processor time.
#[derive(Debug, Clone)]
pub struct Aim {
    pub place: Place,
    pub protocol: Protocol,
    pub process: Process,
}

/// One connection of any protocol, for one turn after the other.
pub enum Client {
    Http(HttpClient, &'static str, String),
    WebSocket(WebSocketClient, String),
}

impl Client {
    /// Opens a WebSocket; over HTTP the first turn connects.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn connect(aim: &Aim, model: &str) -> Result<Client, Error> {
        let http = |path, body| Client::Http(HttpClient::new(aim.place.clone(), true), path, body);
        Ok(match aim.protocol {
            Protocol::Chat => {
                let body =
                    format!(r#"{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"Go on."}}]}}"#);
                http("/chat/completions", body)
            }
            Protocol::Responses => {
                let body = format!(r#"{{"model":"{model}","stream":true,"store":false,"input":"Go on."}}"#);
                http("/responses", body)
            }
            Protocol::WebSocket => {
                let message =
                    format!(r#"{{"type":"response.create","model":"{model}","store":false,"input":"Go on."}}"#);
                Client::WebSocket(WebSocketClient::connect(&aim.place, Offer::Nothing)?, message)
            }
        })
    }

    /// # Errors
    /// When the turn fails.
    pub fn turn(&mut self, seen: &mut Seen) -> Result<Turn, Error> {
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
    Client::connect(aim, MODEL)?.turn(&mut seen)?;
    if seen.transits_ns.is_empty() { Err(Error::NoTokens { upstream: upstream.address }) } else { Ok(()) }
}

/// Whether any stream of a load has turns left.
pub struct Running<'a>(&'a AtomicU32);

impl Running<'_> {
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// Runs the load once.
///
/// # Errors
/// When any turn of it fails.
pub fn run(aim: &Aim, load: Load, upstream: &Upstream, clock: Clock) -> Result<Sample, Error> {
    beside(aim, load, (upstream, clock), |_| ()).map(|(sample, ())| sample)
}

/// Runs the load once, and something else while it runs.
///
/// # Errors
/// When any turn of the load fails.
pub fn beside<T>(
    aim: &Aim,
    load: Load,
    (upstream, clock): (&Upstream, Clock),
    during: impl FnOnce(&Running<'_>) -> T,
) -> Result<(Sample, T), Error> {
    load.play(Script::SHORT, upstream);
    let (warm, go) = (Barrier::new(load.streams as usize + 1), Barrier::new(load.streams as usize + 1));
    let left = AtomicU32::new(load.streams);
    let gates = Gates { warm: &warm, go: &go, left: &left };
    let (began_ns, cpu_ns, during, streams) = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..load.streams).map(|n| scope.spawn(move || stream(aim, (load, n), clock, gates))).collect();
        warm.wait();
        load.play(load.script, upstream);
        let (began_ns, cpu_ns) = (clock.ns(), aim.process.cpu_ns());
        go.wait();
        let during = during(&Running(&left));
        let streams: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Error::Turn))).collect();
        (began_ns, cpu_ns, during, streams)
    });
    let cpu_ns = cpu_ns.and_then(|before| Some(aim.process.cpu_ns()?.saturating_sub(before)));
    // Its part of these turns is nothing: the first token is due at once.
    drop(upstream.turns());
    Ok((sample(streams, load, began_ns, cpu_ns)?, during))
}

/// What one client saw.
type Stream = Result<(Vec<Turn>, Seen), Error>;

fn sample(streams: Vec<Stream>, load: Load, began_ns: u64, cpu_ns: Option<u64>) -> Result<Sample, Error> {
    let (mut ttfts_ns, mut transits_ns) = (Vec::new(), Vec::new());
    let (mut up_bytes, mut down_bytes, mut ended_ns) = (0, 0, 0);
    for stream in streams {
        let (turns, seen) = stream?;
        transits_ns.extend(seen.transits_ns);
        for turn in turns {
            ttfts_ns.push(turn.first_token_ns.saturating_sub(turn.started_ns));
            ended_ns = ended_ns.max(turn.ended_ns);
            up_bytes += turn.wire.up_bytes;
            down_bytes += turn.wire.down_bytes;
        }
    }
    let sent = u64::from(load.streams) * u64::from(load.turns) * u64::from(load.script.tokens);
    let arrived = transits_ns.len() as u64;
    if arrived != sent {
        return Err(Error::Lost { sent, arrived });
    }
    let took_ns = ended_ns.saturating_sub(began_ns);
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

/// Where the clients of a load wait for each other.
#[derive(Clone, Copy)]
struct Gates<'a> {
    warm: &'a Barrier,
    go: &'a Barrier,
    left: &'a AtomicU32,
}

fn stream(aim: &Aim, (load, n): (Load, u32), clock: Clock, gates: Gates<'_>) -> Stream {
    let mut seen = Seen::new(clock);
    let connected = Client::connect(aim, load.model).and_then(|mut client| client.turn(&mut seen).map(|_| client));
    seen.transits_ns = Vec::with_capacity(load.turns as usize * load.script.tokens as usize);
    // All are passed in any case: the others wait here.
    gates.warm.wait();
    gates.go.wait();
    thread::sleep(load.stagger * n);
    let turns =
        connected.and_then(|mut client| (0..load.turns).map(|_| client.turn(&mut seen)).collect::<Result<Vec<_>, _>>());
    gates.left.fetch_sub(1, Ordering::Relaxed);
    turns.map(|turns| (turns, seen))
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
