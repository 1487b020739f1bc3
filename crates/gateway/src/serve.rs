//! `flashlane serve`: config, build, bind, announce, serve, drain. Each step has its own file; this one is their order.

use crate::announce;
use crate::app;
use crate::config::{Config, Invalid, Listen};
use crate::descriptors;
use crate::handover::{Childless, Inherited, Legacy};
use crate::lifetime::Lifetime;
use crate::notify::Supervisor;
use crate::reload::{Hangup, Reloading};
use crate::shutdown::Signals;
use crate::source::{self, Flags, Latency, Source};
use crate::store::Place;
use anyhow::Context as _;
use flashlane_cli::address;
use flashlane_edge::Listeners;
use flashlane_telemetry::{log, panics};
use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Builder;

const CONFIG_VARIABLE: &str = "FLASHLANE_CONFIG";
const NO_THREADS: &str = "the system gives no threads";

/// Of `memory_bytes_max`: less than this is more likely a mistake in the unit.
const MEMORY_BYTES_FEW: u64 = 64 << 20;

/// Arguments of `flashlane serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without a file and without --latency or --throughput it serves the embedded default: two
simulated tiers on loopback, no key. FLASHLANE_LOG sets what is logged (info, flashlane_edge=debug).
Keys are read from the environment: CEREBRAS_API_KEY for --latency cerebras; for engines that are
named by URL and ask for one, FLASHLANE_LATENCY_API_KEY and FLASHLANE_THROUGHPUT_API_KEY.

Examples:
  flashlane serve                                         two simulated tiers, to try it out
  flashlane serve --throughput http://127.0.0.1:8000/v1   before vLLM, SGLang, llama.cpp, Ollama ...
  flashlane serve --throughput http://127.0.0.1:8000/v1 --latency cerebras
  flashlane serve --throughput http://127.0.0.1:8000/v1 --latency simulator
  flashlane serve --check > flashlane.toml                the embedded default, to begin with
  flashlane serve --config flashlane.toml --check         check a config
  flashlane serve --config flashlane.toml")]
pub struct Args {
    /// The config, a TOML file [env: FLASHLANE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the config, print it where there is no file yet, and end; exit code 64 for a bad one
    #[arg(long)]
    check: bool,
    /// Where clients connect, in place of the config's; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", value_parser = address::listen)]
    listen: Option<SocketAddr>,
    /// Where operators connect, in place of the config's
    #[arg(long, value_name = "ADDRESS", value_parser = address::listen)]
    admin_listen: Option<SocketAddr>,
    /// The latency tier: cerebras, simulator, or the base URL of an engine that speaks Chat Completions
    #[arg(long, value_name = "WHAT")]
    latency: Option<Latency>,
    /// The throughput tier: the base URL of an engine that speaks Chat Completions
    #[arg(long, value_name = "URL")]
    throughput: Option<String>,
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `--check`: nothing was served.
    Checked,
    /// A signal came, and what was running has ended.
    Drained,
    /// A second signal came first.
    CutShort,
}

/// The config that the environment names.
pub fn config_named() -> Option<PathBuf> {
    env::var_os(CONFIG_VARIABLE).filter(|named| !named.is_empty()).map(PathBuf::from)
}

/// Serves until a signal.
///
/// # Errors
/// [`Invalid`] for a bad config; otherwise what kept it from serving.
pub fn run(args: &Args) -> anyhow::Result<End> {
    let inherited = Inherited::of_environment()?;
    let named = config_named();
    let file = match (&args.config, &named) {
        (Some(path), _) => Some(("--config", path)),
        (None, Some(path)) => Some((CONFIG_VARIABLE, path)),
        (None, None) => None,
    };
    let source = read(args, file)?;
    // Sockets that are there go before any address, and are held to the same rules.
    let listen = Listen {
        clients: inherited.clients_address().or(args.listen),
        admin: inherited.admin_address().or(args.admin_listen),
    };
    if !args.check {
        // Before the config is checked: what is wrong with it is told in the form that it asks for.
        log::set_up(source.log_format())?;
        panics::set_up();
    }
    let config = Config::parse(&source.name, &source.text, listen)?;
    if args.check {
        return check(&source, file.is_none());
    }
    if source.is_new {
        announce::flags(&mut io::stdout().lock(), &source.text)?;
    }
    let source_name = source.name.clone();
    let reloading = Reloading::new(source, listen, config.file.clone());
    let runtime = config.runtime.build().context(NO_THREADS)?;
    let end = runtime.block_on(serve(config, source_name, reloading, inherited));
    // A name that is still being looked up must not hold up the end.
    runtime.shutdown_background();
    end
}

async fn serve(
    mut config: Config,
    source_name: String,
    reloading: Reloading,
    mut inherited: Inherited,
) -> anyhow::Result<End> {
    let limits = &mut config.server.limits;
    limits.connections_max = descriptors::clients_max(limits.connections_max);
    for (of_one, of_all) in limits.idle_limits() {
        tracing::warn!("server.limits.{of_one} is not below {of_all}: one address can take all there is");
    }
    if let Some(bytes_max) = limits.memory_bytes_max.filter(|bytes| (1..MEMORY_BYTES_FEW).contains(bytes)) {
        tracing::warn!(
            bytes_max,
            "server.limits.memory_bytes_max is little: the process alone takes some 20 MB, and from 80 % on new sessions are refused"
        );
    }
    // From here on a signal drains: before it there is nothing to lose.
    let signals = Signals::new().context("signals cannot be listened for")?;
    let hangup = Hangup::new().context("signals cannot be listened for")?;
    let supervisor = Supervisor::of_environment();
    let listeners = Listeners::take(&config.server, inherited.clients, inherited.admin).await?;
    let legacy = match Childless::why(std::process::id(), matches!(config.store, Place::Folder(_))) {
        None => Ok(Arc::new(Legacy::of(&listeners)?)),
        Some(why) => Err(why),
    };
    let addresses = announce::Addresses {
        clients: listeners.clients_address()?,
        is_tls: config.tls.is_some(),
        admin: listeners.admin_address()?,
        is_admin_tls: config.admin_tls.is_some(),
        asks_for_keys: !config.keys.is_empty(),
    };
    if !addresses.is_tls && !config.keys.is_empty() && !addresses.clients.ip().is_loopback() {
        tracing::warn!("keys cross the network in the clear: there is no [server.tls]");
    }
    if !addresses.is_admin_tls && !addresses.admin.ip().is_loopback() {
        tracing::warn!("the admin token crosses the network in the clear: there is no [server.admin.tls]");
    }
    let traces = config.telemetry.traces.take();
    let state = app::state(config, &source_name)?;
    let exporting = traces.map(|post| app::export(post, &state));
    if let Some(predecessor) = &mut inherited.predecessor {
        match predecessor.orders().await {
            Ok(orders) => state.obey(orders),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the config holds"),
        }
    }
    let announced = announce::announce(&mut io::stdout().lock(), addresses, &state.current().shared.fleet);
    // Whoever has read enough of it (`| head`) has not said that it is to end.
    announced.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })?;
    supervisor.ready();
    if let Some(predecessor) = inherited.predecessor {
        predecessor.ready();
    }
    let (serving, reloading) =
        (listeners.serve(Arc::clone(&state)), reloading.run(Arc::clone(&state), hangup, &supervisor));
    let serving = async {
        tokio::select! {
            () = serving => {}
            never = reloading => match never {},
        }
    };
    let end = Lifetime { state, signals, supervisor: &supervisor, legacy }.last(serving).await;
    if let Some(exporting) = exporting {
        exporting.stop().await;
    }
    Ok(end)
}

/// `file` is the config's, and what names it.
fn read(args: &Args, file: Option<(&str, &PathBuf)>) -> anyhow::Result<Source> {
    let Args { latency, throughput, listen, admin_listen, .. } = args;
    if let Some((named_by, path)) = file {
        let flag =
            [("--latency", latency.is_some()), ("--throughput", throughput.is_some())].into_iter().find(|flag| flag.1);
        return match flag {
            Some((flag, _)) => Err(two_configs(named_by, path, flag).into()),
            None => Ok(source::file(path)?),
        };
    }
    if latency.is_none() && throughput.is_none() {
        return Ok(source::embedded());
    }
    let (latency, throughput) = (latency.clone(), throughput.clone());
    let flags = Flags { latency, throughput, listen: *listen, admin_listen: *admin_listen };
    // The config that says what to serve on is not there yet: one thread asks the engines.
    let runtime = Builder::new_current_thread().enable_all().build().context(NO_THREADS)?;
    Ok(runtime.block_on(source::flags(flags))?)
}

/// Neither goes before the other: what is served must not depend on what somebody forgot.
fn two_configs(named_by: &str, path: &Path, flag: &str) -> Invalid {
    let message =
        format!("names the config {}, and {flag} makes one of its own: leave one of the two out", path.display());
    Invalid { source_name: named_by.to_owned(), line: None, field: None, message }
}

fn check(source: &Source, is_printed: bool) -> anyhow::Result<End> {
    if is_printed {
        io::stdout().lock().write_all(source.text.as_bytes())?;
    }
    writeln!(io::stderr(), "{}: good", source.name)?;
    Ok(End::Checked)
}
