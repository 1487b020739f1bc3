//! Puts the parts together: fleet, backends, store and metrics become the state that the edge serves.

use crate::config::Config;
use crate::export::{Exporter, Exporting};
use crate::shown;
use anyhow::Context as _;
use flashlane_backend::{Change, Full, Post};
use flashlane_cli::certificate::{date, expiry, names};
use flashlane_edge::{Parts, Renewal, State};
use flashlane_engine::Shared;
use flashlane_telemetry::metrics::Build;
use flashlane_telemetry::{Metrics, Turns};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Begins to export traces.
pub fn export(post: Post, state: &State) -> Exporting {
    let (stop, stopped) = oneshot::channel();
    let exporter = Exporter::new(post, Arc::clone(&state.turns), Arc::clone(&state.metrics));
    Exporting::new(stop, tokio::spawn(exporter.run(stopped)))
}

/// What was built, as `build.rs` found it.
const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    commit: env!("FLASHLANE_COMMIT"),
    rustc: env!("FLASHLANE_RUSTC"),
    profile: env!("FLASHLANE_PROFILE"),
    target: env!("FLASHLANE_TARGET"),
};

/// The state of one process.
///
/// # Errors
/// When the store cannot be opened; when the metrics cannot be registered: a mistake of ours.
pub fn state(config: Config, source_name: &str) -> anyhow::Result<Arc<State>> {
    let shown = shown::of(&config, source_name)?;
    let mut fleet = config.fleet;
    fleet.created_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let metrics = Metrics::new().context("the metrics")?;
    metrics.build(&BUILD).context("the metrics")?;
    let telemetry = config.telemetry.config;
    let state = State::new(Parts {
        config: config.server,
        tls: config.tls,
        admin_tls: config.admin_tls,
        shared: Arc::new(Shared::new(config.settings, Arc::new(fleet), config.seal.ring()?)),
        keys: config.keys,
        backends: Arc::new(config.backends),
        admission: config.admission,
        store: config.store.open().context("the store (`store.folder` in the config)")?,
        metrics: Arc::new(metrics),
        shown,
        turns: Arc::new(Turns::new(telemetry.turns_kept_max)),
        trace_sample_percent: telemetry.otlp_endpoint.is_some().then_some(telemetry.trace_sample_percent),
    });
    tell_certificates(&state);
    Ok(Arc::new(state))
}

/// What another config has made of the one that ran.
pub struct Renewed {
    pub generation: u64,
    pub endpoints: Vec<Change>,
    /// What clients and operators are shown now, where it is another: `certificate of clients: flash.example, until 2027-01-31`.
    pub certificates: Vec<String>,
}

/// Another config in the place of the one that runs.
///
/// # Errors
/// [`Unfit`]. Then nothing has changed.
pub fn renew(state: &State, mut config: Config, source_name: &str) -> Result<Renewed, Unfit> {
    let before = state.current();
    // It holds until a restart, as many as there were files for.
    config.server.limits.connections_max = before.connections_max();
    let shown = shown::of(&config, source_name)?;
    let (generation, endpoints) = state.renew(Renewal {
        config: config.server,
        tls: config.tls,
        admin_tls: config.admin_tls,
        settings: config.settings,
        fleet: config.fleet,
        backends: config.backends,
        ring: config.seal.given(),
        keys: config.keys,
        admission: config.admission,
        shown,
    })?;
    tell_certificates(state);
    let after = state.current();
    let certificates =
        after.certificates().into_iter().zip(before.certificates()).filter_map(|((listener, tls), (_, before))| {
            let certificate = tls?.certificate();
            let is_other = before.is_none_or(|before| before.certificate() != certificate);
            is_other.then(|| format!("certificate of {listener}: {}", certificate_told(certificate)))
        });
    Ok(Renewed { generation, endpoints, certificates: certificates.collect() })
}

/// Why a good config cannot take the place of the one that runs.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error(transparent)]
    Full(#[from] Full),
    #[error("the config cannot be shown")]
    Shown(#[from] serde_json::Error),
}

/// Whom it is for, and how long.
fn certificate_told(certificate: &[u8]) -> String {
    let until = expiry(certificate).map_or_else(|| "an end that cannot be read".to_owned(), date);
    let names = names(certificate);
    let names = if names.is_empty() { "no name".to_owned() } else { names.join(" ") };
    format!("{names}, until {until}")
}

fn tell_certificates(state: &State) {
    for (listener, tls) in state.current().certificates() {
        if let Some(unix_s) = tls.and_then(|tls| expiry(tls.certificate())) {
            state.metrics.certificate_expires(listener, unix_s);
        }
    }
}

/// Does what may take a while, such as reading files, where no turn waits for it. None: it has panicked.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
