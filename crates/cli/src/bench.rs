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
mod history;
mod idle;
mod interference;
mod link;
mod load;
mod machine;
mod process;
mod progress;
mod report;
mod request;
mod rollout;
mod schedule;
mod seen;
mod start;
mod storm;
mod subject;
mod target;
#[cfg(test)]
mod tests;
mod transcript;
mod upstream;
mod wording;

pub use args::{Args, Scenario};
use child::Serve;
use clock::Clock;
pub use error::Error;
use load::{Aim, Load};
use progress::Progress;
use report::{Report, Sample};
use std::cell::RefCell;
use std::env;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;
use subject::Subject;
use upstream::{Script, Upstream};

const fn load(turns: u32, tokens: u32, interval_us: u64, tokens_per_write: u32) -> Load {
    let interval = Duration::from_micros(interval_us);
    Load::new(1, turns, Script { tokens, first_token: Duration::ZERO, interval, tokens_per_write })
}

const ONE: Load = load(10, 200, 500, 1);
const JOINED: Load = load(10, 8000, 0, 8);
const PACED: Script = Script { tokens: 500, interval: Duration::from_millis(4), ..Script::SHORT };

/// Measures, and prints the tables.
///
/// # Errors
/// When a gateway cannot be measured at all, or a turn of it fails.
pub fn run(args: &Args) -> Result<(), Error> {
    let clock = Clock::start();
    let upstream = Upstream::start(args.listen, clock)?;
    let own = if args.url.is_empty() { Some(Serve::start(upstream.address)?) } else { None };
    let subjects = subject::all(args, own.as_ref(), &upstream, clock)?;
    let mut report = Report {
        machine: machine::processor(),
        load_average: machine::load_average(),
        processors: thread::available_parallelism().map_or(0, usize::from),
        command: env::args().skip(1).collect::<Vec<_>>().join(" "),
        rows: Vec::new(),
    };
    let mut bench = Bench { args, upstream, clock, subjects, progress: RefCell::default(), is_rehearsal: true };
    for is_rehearsal in [true, false] {
        bench.is_rehearsal = is_rehearsal;
        for round in 1..=args.rounds {
            bench.round(round, &mut report)?;
        }
    }
    report.print(&mut io::stdout().lock()).map_err(Error::Write)?;
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| Error::Write(error.into()))?;
        fs::write(path, json + "\n").map_err(Error::Write)?;
    }
    Ok(())
}

struct Bench<'a> {
    args: &'a Args,
    upstream: Upstream,
    clock: Clock,
    subjects: Vec<Subject>,
    progress: RefCell<Progress>,
    /// Steps are planned and not taken.
    is_rehearsal: bool,
}

impl Bench<'_> {
    fn round(&self, round: u32, report: &mut Report) -> Result<(), Error> {
        for scenario in &self.args.scenario {
            match scenario {
                Scenario::Start => start::round(self, report)?,
                Scenario::Idle => idle::round(self, round, report)?,
                Scenario::HalfBusy => idle::half_busy(self, round, report)?,
                Scenario::One => self.streams(report, "one: 1 stream, 2,000 tokens/s", ONE)?,
                Scenario::Joined => self.streams(report, "joined: 1 stream, flat out, 8 tokens a write", JOINED)?,
                Scenario::Flat => {
                    for &streams in &self.args.streams {
                        let load = Load::new(streams, 1, Script { tokens: self.args.tokens, ..Script::SHORT });
                        self.streams(report, &format!("flat: {streams} streams, flat out"), load)?;
                    }
                }
                Scenario::Paced => {
                    for &streams in &self.args.streams {
                        let load = Load::new(streams, 1, PACED);
                        self.streams(report, &format!("paced: {streams} streams, 250 tokens/s each"), load)?;
                    }
                }
                Scenario::Request => request::round(self, report)?,
                Scenario::History => history::round(self, report)?,
                Scenario::Storm => storm::round(self, round, report)?,
                Scenario::Interference => interference::round(self, report)?,
                Scenario::Rollout => grid::round(self, report)?,
            }
        }
        Ok(())
    }

    fn streams(&self, report: &mut Report, name: &str, load: Load) -> Result<(), Error> {
        for (subject, aim) in self.aims() {
            let way = aim.protocol.to_string();
            let run = || load::run(aim, load, &self.upstream, self.clock).map(Some);
            self.step(report, [name, &subject.name, &way], run)?;
        }
        Ok(())
    }

    fn aims(&self) -> impl Iterator<Item = (&Subject, &Aim)> {
        self.subjects.iter().flat_map(|subject| subject.aims.iter().map(move |aim| (subject, aim)))
    }

    /// One measurement: by scenario, gateway and way.
    fn step(
        &self,
        report: &mut Report,
        names: [&str; 3],
        measure: impl FnOnce() -> Result<Option<Sample>, Error>,
    ) -> Result<(), Error> {
        if self.is_rehearsal {
            self.progress.borrow_mut().plan(names);
            return Ok(());
        }
        let began = self.progress.borrow().begin(names);
        if let Some(sample) = measure()? {
            report.add(names, sample);
        }
        self.progress.borrow_mut().end(names, began);
        Ok(())
    }
}
