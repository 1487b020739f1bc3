//! From the file as it is written to what can be served: each part's own check, and what holds between the parts. Knows nothing of
//! lines.

use super::{Config, File, ModalityName, ModelConfig, RouteName};
use super::{base_url, bounds, keys, profile, routing, trust};
use crate::export::{self, Telemetry};
use flashlane_backend::{Backends, EndpointConfig, GuardConfig, Guards};
use flashlane_edge::EdgeConfig;
use flashlane_engine::admission::{self, Unfit};
use flashlane_engine::{Fleet, Modality, Model, Route, Tier};
use flashlane_telemetry::TelemetryConfig;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// A fault that still has to be placed in its text.
pub struct Fault {
    pub path: String,
    pub message: String,
}

impl Fault {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

fn fault(path: impl Into<String>, message: impl Into<String>) -> Fault {
    Fault::new(path, message)
}

/// Reads keys and certificates, connects to nothing.
///
/// # Errors
/// The first fault.
pub fn check(file: File) -> Result<Config, Fault> {
    let whole = file.clone();
    if file.keys.is_empty() {
        let why = "no key is configured: expected [[keys]] (`flashlane keys create`), or";
        check_loopback("server.listen", file.server.listen, why)?;
    }
    trust::check_admin(&file.server)?;
    trust::check_proxies(&file.server)?;
    check_apart(file.server.listen, file.server.admin_listen)?;
    if let Some((path, message)) = bounds::too_small(&file) {
        return Err(fault(path, message));
    }
    let (limits, queue, routing) = (file.limits, file.queue, file.routing);
    let admission = admission::Settings { limits, queue, routing, ..admission::Settings::default() };
    check_terms(&admission)?;
    check_names(&file.server)?;
    let tls = trust::tls("server.tls", file.server.tls.as_ref())?;
    let admin_tls = trust::tls("server.admin.tls", file.server.admin.tls.as_ref())?;
    let backends = backends(&whole)?;
    let guards = guards(&file.guards, [file.server.listen, file.server.admin_listen])?;
    let mut fleet = Fleet { endpoints: backends.endpoints().cloned().collect(), ..Fleet::default() };
    if file.models.is_empty() {
        return Err(fault("models", "no model: expected at least one [[models]] table"));
    }
    let mut names = BTreeSet::new();
    for (i, model) in file.models.iter().enumerate() {
        let fault = |field: &str, message: &str| fault(format!("models[{i}].{field}"), message);
        if !names.insert(&model.name) {
            return Err(fault("name", "is used by another model too"));
        }
        let guard = match &model.guard {
            Some(name) => Some(guards.named(name).cloned().ok_or_else(|| fault("guard", "names none of [[guards]]"))?),
            None => None,
        };
        let model = check_model(model, &fleet).map_err(|(field, message)| fault(&field, &message))?;
        fleet.models.push(Model { guard, ..model });
    }
    routing::check_rules(&file.rules, &fleet).map_err(|(field, message)| fault(field, message))?;
    keys::check(&file.keys, &fleet)?;
    keys::check_rules(&file.keys, "rules", &file.rules)?;
    for (i, model) in file.models.iter().enumerate() {
        keys::check_rules(&file.keys, &format!("models[{i}].rules"), &model.rules)?;
    }
    fleet.rules = file.rules.into();
    routing::check(&admission.routing).map_err(|(field, message)| fault(format!("routing.{field}"), message))?;
    let store = file.store.place().map_err(|(field, message)| fault(format!("store.{field}"), message))?;
    store.check().map_err(|error| {
        let expected = "expected a folder that this user may write, or the name of one to be made";
        fault("store.folder", format!("{}: {expected}", told(&error)))
    })?;
    let seal = file.seal.keys().map_err(|(field, problem)| fault(format!("seal.{field}"), told(&problem)))?;
    let (settings, backends) = (file.session, backends.guarded_by(guards));
    let (runtime, telemetry) = (file.runtime, telemetry(file.telemetry)?);
    let (server, keys) = (file.server, file.keys);
    Ok(Config {
        file: whole,
        runtime,
        telemetry,
        server,
        tls,
        admin_tls,
        settings,
        admission,
        seal,
        keys,
        store,
        backends,
        fleet,
    })
}

fn backends(file: &File) -> Result<Backends, Fault> {
    if file.endpoints.is_empty() {
        return Err(fault("endpoints", "no endpoint: expected at least one [[endpoints]] table"));
    }
    let backends = Backends::new(&file.endpoints).map_err(|error| {
        let named = |endpoint: &EndpointConfig| endpoint.name == error.endpoint;
        let i = file.endpoints.iter().rposition(named).unwrap_or_default();
        fault(format!("endpoints[{i}].{}", error.field), told(&error.problem))
    })?;
    for (i, endpoint) in file.endpoints.iter().enumerate() {
        let Some(base_url) = &endpoint.base_url else { continue };
        base_url::check(base_url, [file.server.listen, file.server.admin_listen], "an engine")
            .map_err(|message| fault(format!("endpoints[{i}].base_url"), message))?;
    }
    Ok(backends)
}

fn telemetry(config: TelemetryConfig) -> Result<Telemetry, Fault> {
    config.check().map_err(|(field, message)| fault(format!("telemetry.{field}"), message))?;
    let traces =
        export::post(&config).map_err(|(field, problem)| fault(format!("telemetry.{field}"), told(&problem)))?;
    Ok(Telemetry { config, traces })
}

fn guards(guards: &[GuardConfig], own: [SocketAddr; 2]) -> Result<Guards, Fault> {
    for (i, guard) in guards.iter().enumerate() {
        base_url::check(&guard.url, own, "the service that is asked")
            .map_err(|message| fault(format!("guards[{i}].url"), message))?;
    }
    Guards::new(guards).map_err(|error| fault(format!("guards[{}].{}", error.place, error.field), told(&error.problem)))
}

/// Who can reach a port that asks for no key can use it: only this machine may.
pub fn check_loopback(path: &str, address: SocketAddr, why: &str) -> Result<(), Fault> {
    match address.ip().is_loopback() {
        true => Ok(()),
        false => {
            let is = "is reachable from elsewhere, and";
            Err(fault(path, format!("{address} {is} {why} a loopback address (127.0.0.1, [::1])")))
        }
    }
}

/// What operators may change at runtime has the same check there.
fn check_terms(admission: &admission::Settings) -> Result<(), Fault> {
    for tier in Tier::ALL {
        if let Err(Unfit { field, problem }) = admission.of(tier).check() {
            let (part, field) = field.split_once('.').unwrap_or((field, ""));
            return Err(fault(format!("{part}.{}.{field}", tier.name()), problem));
        }
    }
    Ok(())
}

/// Port 0 is a free one, another for each.
fn check_apart(clients: SocketAddr, admin: SocketAddr) -> Result<(), Fault> {
    if clients != admin || clients.port() == 0 {
        return Ok(());
    }
    Err(fault("server.admin_listen", format!("{admin} is where clients connect, too: expected another port")))
}

/// What no browser and no client could send would let nobody in.
fn check_names(server: &EdgeConfig) -> Result<(), Fault> {
    let is_origin =
        |text: &str| text.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
    if let Some(i) = server.allowed_origins.iter().position(|origin| !is_origin(origin)) {
        let message = "is no origin: expected scheme and host, and the port where it is not the scheme's own, such as https://app.example:8443";
        return Err(fault(format!("server.allowed_origins[{i}]"), message));
    }
    if let Some(i) = server.allowed_hosts.iter().position(|host| host.is_empty() || host.contains(['/', ':'])) {
        let message = "is no host name: expected one without scheme and port, such as flash.example";
        return Err(fault(format!("server.allowed_hosts[{i}]"), message));
    }
    Ok(())
}

/// A problem with its reason: the field is named by the place.
pub fn told(problem: &impl std::error::Error) -> String {
    match problem.source() {
        Some(source) => format!("{problem}: {source}"),
        None => problem.to_string(),
    }
}

fn check_model(config: &ModelConfig, fleet: &Fleet) -> Result<Model, (String, String)> {
    let fault = |field: &str, message: String| Err((field.to_owned(), message));
    if config.name.is_empty() {
        return fault("name", "must not be empty".to_owned());
    }
    if config.context_tokens_max == 0 {
        return fault("context_tokens_max", "must be at least 1".to_owned());
    }
    let modalities: BTreeSet<_> = config.modalities.iter().copied().collect();
    if !modalities.contains(&ModalityName::Text) {
        return fault("modalities", "must have \"text\" in it".to_owned());
    }
    let has = |tier: Tier| fleet.tier(tier).next().is_some();
    let route = match config.route {
        Some(RouteName::LatencyFirst | RouteName::Split) => Route::LatencyFirst,
        Some(RouteName::ThroughputFirst) => Route::ThroughputFirst,
        Some(RouteName::LatencyOnly) => Route::LatencyOnly,
        Some(RouteName::ThroughputOnly) => Route::ThroughputOnly,
        None if !has(Tier::Latency) => Route::ThroughputOnly,
        None if !has(Tier::Throughput) => Route::LatencyOnly,
        None => Route::LatencyFirst,
    };
    if let Some(message) = routing::without_endpoint(route, fleet) {
        return fault("route", message);
    }
    for (field, name) in
        [("upstream.latency", &config.upstream.latency), ("upstream.throughput", &config.upstream.throughput)]
    {
        if name.as_ref().is_some_and(String::is_empty) {
            return fault(field, "must not be empty: leave it out where it is the model's own name".to_owned());
        }
    }
    let routing = routing::of_model(config, route, fleet)?;
    let upstream = |name: &Option<String>| name.as_deref().map(Into::into);
    Ok(Model {
        name: config.name.as_str().into(),
        context_tokens_max: config.context_tokens_max,
        modalities: modalities.into_iter().map(Modality::from).collect(),
        route,
        upstream_latency: upstream(&config.upstream.latency),
        upstream_throughput: upstream(&config.upstream.throughput),
        routing,
        guard: None,
        profiles: profile::of_model(config)?,
    })
}
