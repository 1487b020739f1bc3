//! Puts the parts together: fleet, backends, store and metrics become the state that the edge serves.

use crate::config::Config;
use crate::export::{Exporter, Exporting};
use anyhow::Context as _;
use flashlane_backend::Post;
use flashlane_edge::{Parts, State};
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
pub fn state(config: Config) -> anyhow::Result<Arc<State>> {
    let mut fleet = config.fleet;
    fleet.created_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let metrics = Metrics::new().context("the metrics")?;
    metrics.build(&BUILD).context("the metrics")?;
    let telemetry = config.telemetry.config;
    Ok(Arc::new(State::new(Parts {
        config: config.server,
        tls: config.tls,
        admin_tls: config.admin_tls,
        shared: Arc::new(Shared::new(config.settings, Arc::new(fleet), config.seal.ring()?)),
        keys: config.keys,
        backends: Arc::new(config.backends),
        admission: config.admission,
        store: config.store.open().context("the store (`store.folder` in the config)")?,
        metrics: Arc::new(metrics),
        turns: Arc::new(Turns::new(telemetry.turns_kept_max)),
        trace_sample_percent: telemetry.otlp_endpoint.is_some().then_some(telemetry.trace_sample_percent),
    })))
}
