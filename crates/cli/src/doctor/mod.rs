//! `flashlane doctor`: looks at a config and at what surrounds it, as an experienced operator would, and with `--live` asks an endpoint
//! whether it is what its adapter takes it to be. It changes nothing; without `--live` it costs no token.
//!
//! Knows no TOML: the config comes in as [`Subject`].

mod endpoint;
mod guard;
mod live;
mod machine;
mod report;

use crate::admin;
use flashlane_backend::{EndpointConfig, GuardConfig, Tier};
use live::Live;
use report::{Line, Screen, State};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Arguments of `flashlane doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without --live no token is spent. Keys are never shown and stand in no capture.
Exit code 0: all is well, or worth no more than a warning; 1: something failed.

Examples:
  flashlane doctor                                        the embedded default, and this machine
  flashlane doctor --config flashlane.toml                a config, its endpoints, this machine
  flashlane doctor --config flashlane.toml --live wafer-1
  flashlane doctor --config flashlane.toml --live wafer-1 --yes --capture wafer-1.jsonl --json")]
pub struct Args {
    /// The config, a TOML file [env: FLASHLANE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Ask these endpoints whether what their adapters assume of them holds; costs tokens of their keys
    #[arg(long, value_name = "ENDPOINT", num_args = 1..)]
    pub live: Vec<String>,
    /// Tokens that --live may cost at each endpoint, prompts and answers together
    #[arg(long, value_name = "N", default_value_t = 20_000, requires = "live")]
    pub tokens_max: u64,
    /// Do not ask before tokens are spent
    #[arg(long, requires = "live")]
    pub yes: bool,
    /// Write what --live asked and heard to a file, without keys, cookies, organisations and request ids
    #[arg(long, value_name = "FILE", requires = "live")]
    pub capture: Option<PathBuf>,
    /// Print one JSON object at the end
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub admin: admin::Flags,
}

/// A config, as far as it could be read.
pub struct Subject {
    /// The file, or what stands for it.
    pub name: String,
    /// Why it cannot be served: what `serve --check` says.
    pub fault: Option<String>,
    /// `None`: it could not be read.
    pub parts: Option<Parts>,
}

/// What of a config is looked at.
pub struct Parts {
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub connections_max: u32,
    /// The gateway's own, for clients.
    pub certificate_file: Option<PathBuf>,
    /// The one for operators; they speak TLS where there is one.
    pub admin_certificate_file: Option<PathBuf>,
    /// Where responses are kept, and whether it can be written; `None`: in memory.
    pub folder: Option<(PathBuf, Result<(), String>)>,
    pub endpoints: Vec<EndpointConfig>,
    pub models: Vec<Model>,
    pub guards: Vec<GuardConfig>,
}

impl Default for Parts {
    fn default() -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: nowhere,
            admin_listen: nowhere,
            connections_max: 0,
            certificate_file: None,
            admin_certificate_file: None,
            folder: None,
            endpoints: Vec::new(),
            models: Vec::new(),
            guards: Vec::new(),
        }
    }
}

/// A model, by its name at each tier that its route leads to.
pub struct Model {
    pub name: String,
    pub context_tokens_max: u32,
    pub latency: Option<String>,
    pub throughput: Option<String>,
    /// The name of the one that it has.
    pub guard: Option<String>,
}

impl Model {
    fn tiers(&self) -> Vec<Tier> {
        let named = [(Tier::Latency, &self.latency), (Tier::Throughput, &self.throughput)];
        named.into_iter().filter(|(_, name)| name.is_some()).map(|(tier, _)| tier).collect()
    }

    fn upstream(&self, tier: Tier) -> &str {
        let name = match tier {
            Tier::Latency => &self.latency,
            Tier::Throughput => &self.throughput,
        };
        name.as_deref().unwrap_or(&self.name)
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Well,
    /// Something failed, or does not hold.
    Unwell,
    /// The person said no.
    Declined,
}

/// Why it could not be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--live {named}: no such endpoint in the config: there is {known}")]
    NoSuchEndpoint { named: String, known: String },
    #[error("the capture {} cannot be written", path.display())]
    Capture { path: PathBuf, source: io::Error },
    #[error("the report cannot be written")]
    Report(#[from] io::Error),
}

/// All of it, for JSON.
#[derive(Serialize)]
struct Report<'a> {
    config: &'a str,
    is_well: bool,
    checks: Vec<Line>,
    live: Vec<Live>,
}

/// Looks, and says what it sees.
///
/// # Errors
/// The report or the capture cannot be written, or `--live` names nobody.
pub async fn run(args: &Args, subject: Subject) -> Result<Outcome, Error> {
    let mut screen = Screen::new(args.json);
    let asked = named(args, &subject)?;
    let mut checks = vec![config(&subject)];
    for line in &checks {
        screen.line(line)?;
    }
    let parts = subject.parts.as_ref();
    if let Some(parts) = parts {
        for line in machine::lines(parts, &args.admin).await {
            screen.line(&line)?;
            checks.push(line);
        }
        for endpoint in &parts.endpoints {
            checks.extend(endpoint::check(parts, endpoint, &mut screen).await?);
        }
        for guard in &parts.guards {
            checks.extend(guard::check(guard, &parts.models, &mut screen).await?);
        }
    }
    let mut live = Vec::new();
    if let Some(parts) = parts.filter(|_| !asked.is_empty()) {
        if !is_agreed(args, &asked)? {
            screen.note("nothing was asked")?;
            return Ok(Outcome::Declined);
        }
        let mut capture = live::Capture::new(args.capture.as_deref())
            .map_err(|source| Error::Capture { path: args.capture.clone().unwrap_or_default(), source })?;
        for endpoint in asked {
            live.extend(live::run(parts, endpoint, (&mut screen, &mut capture), args.tokens_max).await?);
        }
    }
    let is_well = checks.iter().all(|line| line.state != State::Failed) && live.iter().all(Live::is_well);
    let outcome = if is_well { Outcome::Well } else { Outcome::Unwell };
    match args.json {
        true => screen.json(&Report { config: &subject.name, is_well, checks, live })?,
        false => screen.note(summary(&checks))?,
    }
    Ok(outcome)
}

fn config(subject: &Subject) -> Line {
    let line = match &subject.fault {
        None => Line::ok("check", format!("{} can be served", subject.name)),
        Some(fault) => Line::failed("check", "a config that can be served", fault.clone())
            .advise("change it; docs/CONFIG.md has all fields, `flashlane serve --check` says the same"),
    };
    line.about("config")
}

fn named<'a>(args: &Args, subject: &'a Subject) -> Result<Vec<&'a EndpointConfig>, Error> {
    // What could not be read names nobody; its own line says why.
    let Some(Parts { endpoints, .. }) = &subject.parts else { return Ok(Vec::new()) };
    let find = |named: &String| {
        endpoints.iter().find(|endpoint| endpoint.name == *named).ok_or_else(|| {
            let known: Vec<&str> = endpoints.iter().map(|endpoint| &*endpoint.name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Error::NoSuchEndpoint { named: named.clone(), known }
        })
    };
    args.live.iter().map(find).collect()
}

/// Says what it may cost, and asks whoever sits there.
fn is_agreed(args: &Args, asked: &[&EndpointConfig]) -> io::Result<bool> {
    let mut err = io::stderr();
    for endpoint in asked {
        writeln!(err, "{}: at most {} tokens are spent with its key (--tokens-max)", endpoint.name, args.tokens_max)?;
    }
    if args.yes || !io::stdin().is_terminal() || !err.is_terminal() {
        return Ok(true);
    }
    write!(err, "Go on? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn summary(checks: &[Line]) -> String {
    let count = |state| checks.iter().filter(|line| line.state == state).count();
    format!("{} ok, {} to look at, {} failed", count(State::Ok), count(State::Warning), count(State::Failed))
}
