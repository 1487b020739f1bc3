//! The binary `flashlane`: one verb a run. It reads the command line, runs the verb, and turns its end into an exit code.

mod announce;
mod app;
mod config;
mod descriptors;
mod doctor;
mod explain;
mod export;
mod handover;
mod keys;
mod lifetime;
mod notify;
mod places;
mod reload;
mod runtime;
mod seal;
mod serve;
mod shown;
mod shutdown;
mod source;
mod store;
mod usage;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use flashlane_cli::{bench, chat, completions, connect, simulate};
use flashlane_telemetry::log;
use mimalloc::MiMalloc;
use std::io::{self, Write};
use std::process::ExitCode;
use tokio::runtime::Builder;
use tracing::Level;

/// What it gives and costs: docs/adr/0009-allocator.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("FLASHLANE_COMMIT"),
    "; tls: rustls, websocket: permessage-deflate, simulator)"
);

/// EX_USAGE of sysexits.h: the config is at fault.
const EXIT_CONFIG: u8 = 64;
/// What a shell gives a command that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;
/// The same of one whose reader has gone (`flashlane doctor | head`).
const EXIT_UNREAD: u8 = 141;

/// A low-latency gateway for inference: persistent WebSocket sessions over a latency tier and a throughput tier
#[derive(Debug, Parser)]
#[command(name = "flashlane", version = VERSION, term_width = 100, max_term_width = 100)]
#[command(after_help = "Examples:
  flashlane serve             a gateway over two simulated tiers, on this machine alone
  flashlane chat              talk to it
  flashlane connect codex     point a client at it
  flashlane serve --throughput http://127.0.0.1:8000/v1   a gateway before your own engine")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the gateway
    Serve(serve::Args),
    /// Talk to a gateway from the terminal
    Chat(chat::Args),
    /// Print what points a client at a gateway
    Connect(connect::Args),
    /// Look at a config, its endpoints and this machine, and say what is wrong
    Doctor(flashlane_cli::doctor::Args),
    /// Run the simulator as an inference server of its own
    Simulate(simulate::Args),
    /// Measure a gateway, this one or any other
    Bench(Box<bench::Args>),
    /// Make keys for clients
    Keys(flashlane_cli::keys::Args),
    /// Sum up the ledger: turns and tokens by key, model, tier and day
    Usage(flashlane_cli::usage::Args),
    /// Show where a turn went, what it waited for, and where its time went
    Explain(flashlane_cli::explain::Args),
    /// Print what editors check a config by
    Config(config::verb::Args),
    /// Print completions for a shell
    Completions(completions::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.verb) {
        Ok(code) => code,
        Err(error) if is_unread(&error) => ExitCode::from(EXIT_UNREAD),
        Err(error) => {
            let text = if log::is_json() {
                log::object(Level::ERROR, &format!("{error:#}"), serde_json::Map::default())
            } else {
                format!("flashlane: {error:#}\n")
            };
            let _ = io::stderr().write_all(text.as_bytes());
            let unread = matches!(error.downcast_ref(), Some(source::Error::Read { .. }));
            if unread || error.is::<config::Invalid>() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether a verb ended because nobody reads on what it prints. A connection that breaks is something else.
fn is_unread(error: &anyhow::Error) -> bool {
    if let Some(error) = error.downcast_ref::<chat::Error>() {
        return matches!(error, chat::Error::Terminal(error) if error.kind() == io::ErrorKind::BrokenPipe);
    }
    let is_broken = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    !error.is::<bench::Error>() && error.chain().any(is_broken)
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Serve(args) => Ok(match serve::run(&args)? {
            serve::End::Checked | serve::End::Drained => ExitCode::SUCCESS,
            serve::End::CutShort => ExitCode::from(EXIT_INTERRUPTED),
        }),
        Verb::Chat(args) => Ok(match block_on(Builder::new_current_thread(), chat::run(args))?? {
            chat::Outcome::Fine => ExitCode::SUCCESS,
            chat::Outcome::TurnFailed => ExitCode::FAILURE,
            chat::Outcome::Interrupted => ExitCode::from(EXIT_INTERRUPTED),
        }),
        Verb::Connect(args) => {
            block_on(Builder::new_current_thread(), connect::run(args))??;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Simulate(args) => {
            block_on(Builder::new_multi_thread(), simulate::run(args))??;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Bench(args) => {
            bench::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Keys(args) => {
            keys::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Usage(args) => {
            usage::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Explain(args) => {
            explain::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Config(args) => {
            config::verb::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Completions(args) => {
            completions::run(&args, Cli::command())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs a verb to its end. Threads that still wait for a person's input are left behind.
pub(crate) fn block_on<F: Future>(mut builder: Builder, verb: F) -> anyhow::Result<F::Output> {
    let runtime = builder.enable_all().build().context("the system gives no threads")?;
    let output = runtime.block_on(verb);
    runtime.shutdown_background();
    Ok(output)
}
