//! `flashlane bench`: measures a gateway, ours or any other. It plays the engine behind the gateway and the clients before
//! it in one process, so that one clock sees each token leave and arrive. Knows no gateway: it is told a URL.

mod child;
mod client;
mod clock;
mod idle;
mod link;
mod load;
mod process;
mod report;
mod rollout;
mod seen;
mod target;
#[cfg(test)]
mod tests;
mod upstream;

use child::Serve;
use clock::Clock;
use flashlane_wire::http1;
use link::Link;
use load::{Aim, Load};
use process::Process;
use report::{Report, Sample};
use rollout::{Rollout, Stage, Way};
use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use target::{Gateway, Place, Protocol};
use upstream::{MODEL, Script, Upstream};

/// Arguments of `flashlane bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --url it starts a gateway of its own. Any other must have http://127.0.0.1:8720/v1 as its engine and serve
its model `bench`. What a gateway does not speak (Chat Completions, Responses, its WebSocket) is left out. The engine
itself, spoken to directly, is always measured beside. Results go to standard output, progress to standard error.

Examples:
  flashlane bench
  flashlane bench --scenario one,flat --rounds 7 --json result.json
  flashlane bench --url ours=http://127.0.0.1:8700 --pid 4711 --url theirs=http://127.0.0.1:8800 --pid 4712
  flashlane bench --scenario rollout --rtt-ms 20,80 --mbit-per-s 100 --token-ms 1")]
pub struct Args {
    /// A gateway to measure; may be given many times, and is measured in turns
    #[arg(long, value_name = "[NAME=]URL")]
    pub url: Vec<Gateway>,
    /// The process of each --url, in the same order: its processor time is read (Linux)
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// What to measure
    #[arg(
        long,
        value_name = "NAME",
        value_enum,
        value_delimiter = ',',
        default_value = "idle,one,joined,flat,paced,rollout"
    )]
    pub scenario: Vec<Scenario>,
    /// How often; medians are shown
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: u32,
    /// Where to write every round's numbers
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where the scripted engine listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8720")]
    pub listen: SocketAddr,
    /// Streams at once, of flat and paced
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub streams: u32,
    /// Tokens of each stream, of flat
    #[arg(long, value_name = "N", default_value_t = 4000)]
    pub tokens: u32,
    /// WebSockets of idle
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub sessions: u32,
    /// Turns of a rollout
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub turns: u32,
    /// What a rollout's first turn sends beside its own input, in KiB
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "40")]
    pub history_kib: Vec<u32>,
    /// Round trips between client and gateway, of rollouts; 0 is loopback as it is
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0,20")]
    pub rtt_ms: Vec<u32>,
    /// Bandwidth between them, each way, where there is a round trip
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "20")]
    pub mbit_per_s: Vec<u32>,
    /// The engine's time for a token, of rollouts
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0")]
    pub token_ms: Vec<u32>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// WebSockets that are open and say nothing: memory of each, measured in the first round alone
    Idle,
    /// One stream at 2,000 tokens/s: 10 turns of 200 tokens
    One,
    /// One stream as fast as it goes, 8 tokens a write: 10 turns of 8,000
    Joined,
    /// Many streams as fast as they go, one token a write
    Flat,
    /// Many streams at 250 tokens/s each: one turn of 500
    Paced,
    /// A coding agent: 40 turns of 2 KiB in and 100 tokens out, over plain HTTP and the WebSocket
    Rollout,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}; --listen takes another address")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot start a gateway of its own")]
    Serve(#[source] io::Error),
    #[error("{url}: it measures plain HTTP, no TLS")]
    Tls { url: String },
    #[error("cannot connect to {host}")]
    Connect {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("the connection broke")]
    Socket(#[source] io::Error),
    #[error("not HTTP")]
    Http(#[source] http1::Error),
    #[error("status {status}: {body}")]
    Status { status: u16, body: String },
    #[error("no WebSocket: {answer}")]
    Upgrade { answer: String },
    #[error("refused: {event}")]
    Refused { event: String },
    #[error("a turn did not end as it should")]
    Turn,
    #[error("its tokens are not the scripted engine's: its engine must be http://{upstream}/v1, its model `{MODEL}`")]
    NoTokens { upstream: SocketAddr },
    #[error("of {sent} tokens that were sent {arrived} arrived")]
    Lost { sent: u64, arrived: u64 },
    #[error("{name} speaks nothing that can be measured")]
    Silent {
        name: String,
        #[source]
        source: Box<Error>,
    },
    #[error("cannot write the results")]
    Write(#[source] io::Error),
}

/// Measures, and prints the tables.
///
/// # Errors
/// When a gateway cannot be measured at all, or a turn of it fails.
pub fn run(args: &Args) -> Result<(), Error> {
    let clock = Clock::start();
    let upstream = Upstream::start(args.listen, clock)?;
    let own = if args.url.is_empty() { Some(Serve::start(upstream.address)?) } else { None };
    let direct = Gateway { name: "direct".to_owned(), address: address_of(upstream.address)? };
    let mut subjects = vec![subject(&direct, Process(None), &upstream, clock)?];
    match &own {
        Some(own) => subjects.push(subject(&own.gateway, Process(Some(own.pid())), &upstream, clock)?),
        None => {
            let pids = args.pid.iter().copied().map(Some).chain(std::iter::repeat(None));
            for (gateway, pid) in args.url.iter().zip(pids) {
                subjects.push(subject(gateway, Process(pid), &upstream, clock)?);
            }
        }
    }
    let mut report = Report {
        machine: machine(),
        load_average: load_average(),
        processors: thread::available_parallelism().map_or(0, usize::from),
        command: env::args().skip(1).collect::<Vec<_>>().join(" "),
        rows: Vec::new(),
    };
    let bench = Bench { args, upstream, clock, subjects };
    for round in 1..=args.rounds {
        bench.round(round, &mut report)?;
    }
    report.print(&mut io::stdout().lock()).map_err(Error::Write)?;
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| Error::Write(error.into()))?;
        fs::write(path, json + "\n").map_err(Error::Write)?;
    }
    Ok(())
}

fn address_of(socket: SocketAddr) -> Result<crate::address::Address, Error> {
    let url = format!("http://{socket}");
    url.parse().map_err(|_| Error::Tls { url })
}

fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| env::consts::ARCH.to_owned(), |(_, model)| model.to_owned())
}

fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// A gateway, and one aim for each protocol that it speaks.
struct Subject {
    name: String,
    aims: Vec<Aim>,
}

fn subject(gateway: &Gateway, process: Process, upstream: &Upstream, clock: Clock) -> Result<Subject, Error> {
    let place = Place::of(&gateway.address)?;
    let (mut aims, mut last) = (Vec::new(), Error::Turn);
    for protocol in Protocol::ALL {
        let aim = Aim { place: place.clone(), protocol, process };
        match load::probe(&aim, upstream, clock) {
            Ok(()) => aims.push(aim),
            Err(error) => last = error,
        }
    }
    let name = gateway.name.clone();
    if aims.is_empty() { Err(Error::Silent { name, source: Box::new(last) }) } else { Ok(Subject { name, aims }) }
}

struct Bench<'a> {
    args: &'a Args,
    upstream: Upstream,
    clock: Clock,
    subjects: Vec<Subject>,
}

impl Bench<'_> {
    fn round(&self, round: u32, report: &mut Report) -> Result<(), Error> {
        for scenario in &self.args.scenario {
            let script = |tokens, interval_us, tokens_per_write| Script {
                tokens,
                first_token: Duration::ZERO,
                interval: Duration::from_micros(interval_us),
                tokens_per_write,
            };
            let Args { streams, tokens, .. } = *self.args;
            let (name, load) = match scenario {
                Scenario::One => (
                    "one: 1 stream, 2,000 tokens/s".to_owned(),
                    Load { streams: 1, turns: 10, script: script(200, 500, 1) },
                ),
                Scenario::Joined => (
                    "joined: 1 stream, flat out, 8 tokens a write".to_owned(),
                    Load { streams: 1, turns: 10, script: script(8000, 0, 8) },
                ),
                Scenario::Flat => (
                    format!("flat: {streams} streams, flat out"),
                    Load { streams, turns: 1, script: script(tokens, 0, 1) },
                ),
                Scenario::Paced => (
                    format!("paced: {streams} streams, 250 tokens/s each"),
                    Load { streams, turns: 1, script: script(500, 4000, 1) },
                ),
                Scenario::Idle => {
                    self.idle(round, report)?;
                    continue;
                }
                Scenario::Rollout => {
                    self.rollouts(round, report)?;
                    continue;
                }
            };
            for (subject, aim) in self.aims() {
                let sample = load::run(aim, load, &self.upstream, self.clock)?;
                self.add(report, round, [&name, &subject.name, &aim.protocol.to_string()], sample);
            }
        }
        Ok(())
    }

    fn idle(&self, round: u32, report: &mut Report) -> Result<(), Error> {
        let sessions = self.args.sessions;
        let name = format!("idle: {sessions} WebSockets");
        for (subject, aim) in self.aims().filter(|(_, aim)| aim.protocol == Protocol::WebSocket && round == 1) {
            if let Some(sample) = idle::run(aim, sessions)? {
                self.add(report, round, [&name, &subject.name, &aim.protocol.to_string()], sample);
            }
        }
        Ok(())
    }

    fn rollouts(&self, round: u32, report: &mut Report) -> Result<(), Error> {
        for rollout in self.grid() {
            let Rollout { turns, history_bytes, token_ms, link, .. } = rollout;
            let kib = history_bytes / 1024;
            let name = format!("rollout: {turns} turns on {kib} KiB, {link}, {token_ms} ms a token");
            for (subject, aim, way) in self.aims().flat_map(|(subject, aim)| Way::ALL.map(|way| (subject, aim, way))) {
                // Responses where it is spoken, else Chat Completions: a history goes over HTTP in one of them.
                let is_doubled = aim.protocol == Protocol::Chat
                    && subject.aims.iter().any(|other| other.protocol == Protocol::Responses);
                if way.is_websocket() == (aim.protocol == Protocol::WebSocket) && !is_doubled {
                    let stage = Stage { aim, upstream: &self.upstream, clock: self.clock };
                    let sample = rollout::run(&stage, &rollout, way)?;
                    self.add(report, round, [&name, &subject.name, &way.to_string()], sample);
                }
            }
        }
        Ok(())
    }

    /// Every rollout that was asked for.
    fn grid(&self) -> Vec<Rollout> {
        let args = self.args;
        let mut grid = Vec::new();
        for (&history_kib, &token_ms) in
            args.history_kib.iter().flat_map(|kib| args.token_ms.iter().map(move |ms| (kib, ms)))
        {
            for &rtt_ms in &args.rtt_ms {
                // On loopback as it is there is no bandwidth to vary.
                let bandwidths =
                    if rtt_ms == 0 { args.mbit_per_s.get(..1).unwrap_or_default() } else { &args.mbit_per_s };
                grid.extend(bandwidths.iter().map(|&mbit_per_s| Rollout {
                    turns: args.turns,
                    history_bytes: history_kib as usize * 1024,
                    input_bytes: 2048,
                    tokens: 100,
                    token_ms,
                    link: Link { rtt_ms, mbit_per_s },
                }));
            }
        }
        grid
    }

    fn aims(&self) -> impl Iterator<Item = (&Subject, &Aim)> {
        self.subjects.iter().flat_map(|subject| subject.aims.iter().map(move |aim| (subject, aim)))
    }

    fn add(&self, report: &mut Report, round: u32, names: [&str; 3], sample: Sample) {
        let [scenario, gateway, way] = names;
        let rounds = self.args.rounds;
        // Progress that cannot be shown is no reason to stop.
        let _ = writeln!(io::stderr(), "round {round} of {rounds}  {scenario}  {gateway}  {way}");
        report.add(names, sample);
    }
}
