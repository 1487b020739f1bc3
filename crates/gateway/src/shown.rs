//! The config as operators may see it: every field, those that nobody wrote down too. It holds no secret, since a config names variables and
//! files.

use crate::config::{File, ModelConfig};
use crate::runtime::RuntimeConfig;
use crate::seal::SealConfig;
use crate::store::StoreConfig;
use flashlane_backend::{EndpointConfig, GuardConfig};
use flashlane_edge::{EdgeConfig, KeyConfig, Shown};
use flashlane_engine::Settings;
use flashlane_engine::admission::limit::Limits;
use flashlane_engine::admission::{PerTier, Queueing};
use flashlane_engine::router::{Routing, Rule};
use flashlane_telemetry::TelemetryConfig;
use serde::Serialize;

/// A [`File`] of which no part is left out.
#[derive(Serialize)]
struct Whole<'a> {
    server: &'a EdgeConfig,
    session: &'a Settings,
    routing: &'a Routing,
    seal: &'a SealConfig,
    limits: &'a PerTier<Limits>,
    queue: &'a PerTier<Queueing>,
    store: &'a StoreConfig,
    runtime: &'a RuntimeConfig,
    telemetry: &'a TelemetryConfig,
    endpoints: &'a [EndpointConfig],
    models: &'a [ModelConfig],
    guards: &'a [GuardConfig],
    rules: &'a [Rule],
    keys: &'a [KeyConfig],
}

/// # Errors
/// What cannot be written as JSON: our own mistake.
pub fn of(file: &File, source_name: &str) -> Result<Shown, serde_json::Error> {
    let File {
        server,
        session,
        routing,
        seal,
        limits,
        queue,
        store,
        runtime,
        telemetry,
        endpoints,
        models,
        guards,
        rules,
        keys,
    } = file;
    let whole = Whole {
        server,
        session,
        routing,
        seal,
        limits,
        queue,
        store,
        runtime,
        telemetry,
        endpoints,
        models,
        guards,
        rules,
        keys,
    };
    Ok(Shown { source: source_name.to_owned(), config: serde_json::to_value(whole)? })
}
