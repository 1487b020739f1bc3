//! The config file: one TOML, composed of each room's own part, parsed and checked once. An error names the file, the line
//! and the field. Knows nothing of flags.

use crate::places::Places;
use crate::runtime::RuntimeConfig;
use crate::store::{Place, StoreConfig};
use flashlane_backend::{Backends, EndpointConfig};
use flashlane_edge::{EdgeConfig, Tls, TlsError};
use flashlane_engine::{Fleet, Modality, Model, Route, Settings, Tier};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

/// Of addresses to listen on. A name may mean many addresses, and another one tomorrow.
pub const ADDRESS_EXPECTED: &str =
    "expected an IP address and a port, such as 127.0.0.1:8700 or [::1]:8700, and no name";

/// A checked config, ready to run.
pub struct Config {
    pub runtime: RuntimeConfig,
    pub server: EdgeConfig,
    /// What `server.tls` amounts to.
    pub tls: Option<Tls>,
    pub settings: Settings,
    pub store: Place,
    pub backends: Backends,
    /// `created_unix_s` is the caller's.
    pub fleet: Fleet,
}

/// The file as it is written. Every part may be left out but endpoints and models.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    #[serde(default, skip_serializing_if = "is_default")]
    pub server: EdgeConfig,
    #[serde(default, skip_serializing_if = "is_default")]
    pub session: Settings,
    #[serde(default, skip_serializing_if = "is_default")]
    pub store: StoreConfig,
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime: RuntimeConfig,
    #[serde(default)]
    pub endpoints: Vec<EndpointConfig>,
    #[serde(default)]
    pub models: Vec<ModelConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<toml::Value>,
}

fn is_default<T: Default + PartialEq>(part: &T) -> bool {
    *part == T::default()
}

/// `[[models]]`: what clients ask for.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// What clients send as `model`. Unique.
    pub name: String,
    /// Tokens of input and output together. Clients are told, so that they keep below it (Codex compacts at 95 %); a longer
    /// input is refused before any engine sees it. Default 131,072: what the open models of today have.
    #[serde(default = "context_tokens_max_default")]
    pub context_tokens_max: u32,
    /// What it takes in: `"text"`, `"image"`, `"file"`. Default text alone.
    #[serde(default = "modalities_default")]
    pub modalities: Vec<ModalityName>,
    /// The tiers that may serve it, in order: `"latency-first"`, `"throughput-first"`, `"latency-only"`, `"throughput-only"`.
    /// Default latency-first, or the only tier that has endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteName>,
    /// The model's name at each tier's endpoints. Default its own name.
    #[serde(default, skip_serializing_if = "Upstream::is_empty")]
    pub upstream: Upstream,
}

impl ModelConfig {
    /// A model with nothing set beyond what it is.
    pub fn new(name: &str, route: RouteName) -> Self {
        Self {
            name: name.to_owned(),
            context_tokens_max: context_tokens_max_default(),
            modalities: modalities_default(),
            route: Some(route),
            upstream: Upstream::default(),
        }
    }
}

/// `upstream = { latency = "..", throughput = ".." }`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<String>,
}

impl Upstream {
    fn is_empty(&self) -> bool {
        self.latency.is_none() && self.throughput.is_none()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteName {
    LatencyFirst,
    ThroughputFirst,
    LatencyOnly,
    ThroughputOnly,
    /// Not served yet.
    Split,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModalityName {
    Text,
    Image,
    File,
}

fn context_tokens_max_default() -> u32 {
    131_072
}

fn modalities_default() -> Vec<ModalityName> {
    vec![ModalityName::Text]
}

impl From<ModalityName> for Modality {
    fn from(name: ModalityName) -> Self {
        match name {
            ModalityName::Text => Self::Text,
            ModalityName::Image => Self::Image,
            ModalityName::File => Self::File,
        }
    }
}

/// A config that cannot be served. Shows `file:line: field: what is wrong and what was expected`.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The file, or what stands for it.
    pub source_name: String,
    pub line: Option<usize>,
    pub field: Option<String>,
    pub message: String,
}

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source_name)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A fault that still has to be placed in its text.
struct Fault {
    path: String,
    message: String,
}

fn fault(path: impl Into<String>, message: impl Into<String>) -> Fault {
    Fault { path: path.into(), message: message.into() }
}

impl Config {
    /// Parses and checks `text`; `source_name` is for errors. Reads keys and certificates, connects to nothing.
    ///
    /// # Errors
    /// [`Invalid`], at the first fault.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, Invalid> {
        let places = Places::new(text);
        let file: File = toml::from_str(text).map_err(|error| {
            let offset = error.span().map(|span| span.start);
            Invalid {
                source_name: source_name.to_owned(),
                line: offset.map(|offset| places.line(offset)),
                field: offset.and_then(|offset| places.path_at(offset)).map(str::to_owned),
                message: explained(error.message()),
            }
        })?;
        check(file).map_err(|Fault { path, message }| Invalid {
            source_name: source_name.to_owned(),
            line: places.line_of(&path),
            field: Some(path),
            message,
        })
    }
}

fn check(file: File) -> Result<Config, Fault> {
    if file.keys.is_some() {
        return Err(fault("keys", "keys are not served yet: leave [[keys]] out; without keys only loopback is served"));
    }
    check_loopback("server.listen", file.server.listen)?;
    check_loopback("server.admin_listen", file.server.admin_listen)?;
    let tls = file.server.tls.as_ref().map(Tls::load).transpose();
    let tls = tls.map_err(|TlsError { field, problem }| fault(format!("server.tls.{field}"), told(&problem)))?;
    if file.endpoints.is_empty() {
        return Err(fault("endpoints", "no endpoint: expected at least one [[endpoints]] table"));
    }
    let backends = Backends::new(&file.endpoints).map_err(|error| {
        let named = |endpoint: &EndpointConfig| endpoint.name == error.endpoint;
        let i = file.endpoints.iter().rposition(named).unwrap_or_default();
        fault(format!("endpoints[{i}].{}", error.field), told(&error.problem))
    })?;
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
        let model = check_model(model, &fleet).map_err(|(field, message)| fault(field, &message))?;
        fleet.models.push(model);
    }
    let store = file.store.place().map_err(|(field, message)| fault(format!("store.{field}"), message))?;
    let settings = file.session;
    Ok(Config { runtime: file.runtime, server: file.server, tls, settings, store, backends, fleet })
}

/// The parser's message on one line, with what was expected where it does not say so.
fn explained(message: &str) -> String {
    let message = message.trim_end().replace('\n', "; ");
    match message.contains("invalid socket address") {
        true => format!("{message}: {ADDRESS_EXPECTED}"),
        false => message,
    }
}

/// Who can reach the port can use the endpoints: without keys, only this machine may.
fn check_loopback(path: &str, address: SocketAddr) -> Result<(), Fault> {
    match address.ip().is_loopback() {
        true => Ok(()),
        false => Err(fault(path, not_loopback(address))),
    }
}

/// What is wrong with an address beyond loopback.
pub fn not_loopback(address: SocketAddr) -> String {
    format!(
        "{address} is reachable from elsewhere, and keys are not served yet: expected a loopback address (127.0.0.1, [::1])"
    )
}

/// A problem with its reason: the field is named by the place.
fn told(problem: &impl std::error::Error) -> String {
    match problem.source() {
        Some(source) => format!("{problem}: {source}"),
        None => problem.to_string(),
    }
}

fn check_model(config: &ModelConfig, fleet: &Fleet) -> Result<Model, (&'static str, String)> {
    if config.name.is_empty() {
        return Err(("name", "must not be empty".to_owned()));
    }
    if config.context_tokens_max == 0 {
        return Err(("context_tokens_max", "must be at least 1".to_owned()));
    }
    let modalities: BTreeSet<_> = config.modalities.iter().copied().collect();
    if !modalities.contains(&ModalityName::Text) {
        return Err(("modalities", "must have \"text\" in it".to_owned()));
    }
    let has = |tier: Tier| fleet.tier(tier).next().is_some();
    let route = match config.route {
        Some(RouteName::LatencyFirst) => Route::LatencyFirst,
        Some(RouteName::ThroughputFirst) => Route::ThroughputFirst,
        Some(RouteName::LatencyOnly) => Route::LatencyOnly,
        Some(RouteName::ThroughputOnly) => Route::ThroughputOnly,
        Some(RouteName::Split) => {
            let others = "latency-first, throughput-first, latency-only or throughput-only";
            return Err(("route", format!("\"split\" is not served yet: expected {others}")));
        }
        None if !has(Tier::Latency) => Route::ThroughputOnly,
        None if !has(Tier::Throughput) => Route::LatencyOnly,
        None => Route::LatencyFirst,
    };
    if let Some(tier) = route.tiers().iter().find(|&&tier| !has(tier)) {
        let tier = tier.name();
        return Err((
            "route",
            format!("names tier {tier}, which has no endpoint: expected an [[endpoints]] table with tier = \"{tier}\""),
        ));
    }
    let upstream = |name: &Option<String>| name.as_deref().map(Into::into);
    Ok(Model {
        name: config.name.as_str().into(),
        context_tokens_max: config.context_tokens_max,
        modalities: modalities.into_iter().map(Modality::from).collect(),
        route,
        upstream_latency: upstream(&config.upstream.latency),
        upstream_throughput: upstream(&config.upstream.throughput),
    })
}

#[cfg(test)]
mod tests;
