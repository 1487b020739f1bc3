//! The config as operators may see it: every field that holds, those that nobody wrote down too. It holds no secret, since a config names variables
//! and files.

use crate::config::{Config, RouteName, whole};
use flashlane_backend::{EndpointConfig, Kind};
use flashlane_edge::Shown;
use flashlane_engine::Route;
use serde_json::{Value, json};
use std::sync::Arc;

/// What the file says, what its absences mean, and what was made of both on this machine.
///
/// # Errors
/// What cannot be written as JSON: our own mistake.
pub fn of(config: &Config, source_name: &str) -> Result<Shown, serde_json::Error> {
    let mut shown = whole(&config.file)?;
    set(&mut shown, "/runtime/worker_threads", config.runtime.threads().into());
    // As many as there are files for.
    set(&mut shown, "/server/limits/connections_max", config.server.limits.connections_max.into());
    for (at, model) in config.fleet.models.iter().enumerate() {
        let route = match model.route {
            Route::LatencyFirst if model.routing.splits => RouteName::Split,
            Route::LatencyFirst => RouteName::LatencyFirst,
            Route::ThroughputFirst => RouteName::ThroughputFirst,
            Route::LatencyOnly => RouteName::LatencyOnly,
            Route::ThroughputOnly => RouteName::ThroughputOnly,
        };
        set(&mut shown, &format!("/models/{at}/route"), json!(route));
        let upstream = |name: &Option<Arc<str>>| json!(**name.as_ref().unwrap_or(&model.name));
        let names =
            json!({"latency": upstream(&model.upstream_latency), "throughput": upstream(&model.upstream_throughput)});
        set(&mut shown, &format!("/models/{at}/upstream"), names);
    }
    for (at, endpoint) in config.file.endpoints.iter().enumerate() {
        if endpoint.backend == Kind::Simulator {
            let (name, profile) = endpoint.played();
            set(&mut shown, &format!("/endpoints/{at}/profile"), json!(name));
            set(&mut shown, &format!("/endpoints/{at}/first_token_ms"), profile.first_token_ms.into());
            set(&mut shown, &format!("/endpoints/{at}/tokens_per_second"), profile.tokens_per_second.into());
        }
        let Some(shown) = shown.pointer_mut(&format!("/endpoints/{at}")).and_then(Value::as_object_mut) else {
            continue;
        };
        // What other backends have means nothing here.
        let foreign = EndpointConfig::fields_of_some().filter(|(kinds, _)| !kinds.contains(&endpoint.backend));
        foreign.flat_map(|(_, fields)| fields).for_each(|field| drop(shown.remove(field)));
    }
    Ok(Shown { source: source_name.to_owned(), config: shown })
}

fn set(shown: &mut Value, path: &str, value: Value) {
    if let Some(field) = shown.pointer_mut(path) {
        *field = value;
    }
}
