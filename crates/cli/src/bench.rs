//! `flashlane bench`: measures a gateway, ours or any other. It plays the engine behind the gateway and the clients before
//! it in one process, so that one clock sees each token leave and arrive. Knows no gateway: it is told a URL.

mod args;
mod bound;
mod child;
mod client;
mod clock;
mod connection;
mod conversation;
mod deflate;
mod error;
mod grid;
mod idle;
mod link;
mod load;
mod process;
mod report;
mod rollout;
mod schedule;
mod seen;
mod target;
#[cfg(test)]
mod tests;
mod transcript;
mod upstream;
mod wording;

pub use args::{Args, Scenario};
use child::Serve;
use clock::Clock;
use connection::Trust;
pub use error::Error;
use load::{Aim, Load};
use process::Process;
use report::{Report, Sample};
use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;
use target::{Gateway, Place, Protocol};
use upstream::{Script, Upstream};

/// Measures, and prints the tables.
///
/// # Errors
/// When a gateway cannot be measured at all, or a turn of it fails.
pub fn run(args: &Args) -> Result<(), Error> {
    let trust = args.ca.as_deref().map(Trust::load).transpose()?;
    let clock = Clock::start();
    let upstream = Upstream::start(args.listen, clock)?;
    let own = if args.url.is_empty() { Some(Serve::start(upstream.address)?) } else { None };
    let direct = Gateway { name: "direct".to_owned(), address: address_of(upstream.address)? };
    let mut subjects = vec![subject(&direct, Process(None), None, &upstream, clock)?];
    match &own {
        Some(own) => subjects.push(subject(&own.gateway, Process(Some(own.pid())), None, &upstream, clock)?),
        None => {
            let pids = args.pid.iter().copied().map(Some).chain(std::iter::repeat(None));
            for (gateway, pid) in args.url.iter().zip(pids) {
                subjects.push(subject(gateway, Process(pid), trust.as_ref(), &upstream, clock)?);
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

fn subject(
    gateway: &Gateway,
    process: Process,
    trust: Option<&Trust>,
    upstream: &Upstream,
    clock: Clock,
) -> Result<Subject, Error> {
    let place = Place::of(&gateway.address, trust)?;
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
                    grid::round(self, round, report)?;
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
