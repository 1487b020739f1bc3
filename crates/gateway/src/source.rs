//! Where the config's text comes from: a file, the embedded default, or what the flags `--latency` and `--throughput` amount
//! to. Whatever it is, it is one TOML text that goes the same way.

use crate::config::{File, ModelConfig, RouteName};
use flashlane_backend::detect::{self, Detected, DetectedModel, Look, detect};
use flashlane_backend::{CEREBRAS_KEY_ENV, CEREBRAS_URL, Dialect, EndpointConfig, Kind, Secret, Tier, Way};
use flashlane_telemetry::Format;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

const DEFAULT: &str = include_str!("default.toml");
const WAIT_MS_MAX: u64 = 10_000;

/// A config's text.
pub struct Source {
    /// For errors.
    pub name: String,
    pub text: String,
    /// Made from flags: the person has not seen it yet.
    pub is_new: bool,
    /// None: no file holds it.
    pub path: Option<PathBuf>,
}

/// What `--latency` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Latency {
    Simulator,
    Cerebras,
    /// By its base URL.
    Engine(String),
}

/// What `--latency` cannot name.
#[derive(Debug, thiserror::Error)]
#[error("expected simulator, cerebras, or the base URL of an engine (http://..., https://...)")]
pub struct NoLatency;

impl FromStr for Latency {
    type Err = NoLatency;

    fn from_str(what: &str) -> Result<Self, NoLatency> {
        match what {
            "simulator" => Ok(Self::Simulator),
            "cerebras" => Ok(Self::Cerebras),
            url if url.starts_with("http://") || url.starts_with("https://") => Ok(Self::Engine(url.to_owned())),
            _ => Err(NoLatency),
        }
    }
}

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the config {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{flag}: {variable} is not set: make a key at {keys_url}, then `export {variable}=...`")]
    NoKey { flag: String, variable: &'static str, keys_url: &'static str },
    #[error("{flag}: {reason}: is the engine running, and does it listen there?")]
    Unreachable { flag: String, reason: String },
    #[error("{flag}: the engine wants a key (HTTP {status}): set {variable}")]
    KeyWanted { flag: String, status: u16, variable: &'static str },
    #[error("{flag}: the engine refuses the key in {variable} (HTTP {status})")]
    KeyRefused { flag: String, status: u16, variable: &'static str },
    #[error("{flag}")]
    Engine { flag: String, source: detect::Error },
    #[error("the config cannot be written as TOML")]
    Write(#[from] toml::ser::Error),
}

impl Source {
    /// What it asks the log to be, also where the rest of it cannot be read.
    pub fn log_format(&self) -> Format {
        let telemetry = toml::from_str::<toml::Table>(&self.text).ok().and_then(|mut file| file.remove("telemetry"));
        let is_json = match &telemetry {
            Some(telemetry) => telemetry.get("log_format").and_then(toml::Value::as_str) == Some("json"),
            None => self.text.lines().any(|line| line.replace(' ', "").starts_with("log_format=\"json\"")),
        };
        if is_json { Format::Json } else { Format::Text }
    }

    /// Its text as it is now: what no file holds is as it was.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn read_again(&self) -> Result<String, Error> {
        self.path.as_ref().map_or_else(|| Ok(self.text.clone()), |path| file(path).map(|source| source.text))
    }
}

/// Reads a file.
///
/// # Errors
/// [`Error::Read`].
pub fn file(path: &Path) -> Result<Source, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(Source { name: path.display().to_string(), text, is_new: false, path: Some(path.to_owned()) })
}

/// The embedded default.
pub fn embedded() -> Source {
    Source { name: "the embedded default".to_owned(), text: DEFAULT.to_owned(), is_new: false, path: None }
}

/// The flags that make a config.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub latency: Option<Latency>,
    pub throughput: Option<String>,
    pub listen: Option<SocketAddr>,
    pub admin_listen: Option<SocketAddr>,
}

/// What the flags amount to. Each engine is asked what it is and which models it has. A model is offered by its own name; a
/// name found at both tiers is one model with both, latency first.
///
/// # Errors
/// [`Error`], when an engine does not answer, or wants a key that is not there.
pub async fn flags(flags: Flags) -> Result<Source, Error> {
    let latency = match flags.latency {
        Some(Latency::Simulator) => Some(Side::simulator()),
        Some(Latency::Cerebras) => Some(Named::cerebras().ask().await?),
        Some(Latency::Engine(url)) => Some(Named::latency(url).ask().await?),
        None => None,
    };
    let throughput = match flags.throughput {
        Some(url) => Some(Named::throughput(url).ask().await?),
        None => None,
    };
    let mut text = String::new();
    for (setting, address) in [("listen", flags.listen), ("admin_listen", flags.admin_listen)] {
        let Some(address) = address else { continue };
        text += if text.is_empty() { "[server]\n" } else { "" };
        text += &format!("{setting} = \"{address}\"\n");
    }
    text += if text.is_empty() { "" } else { "\n" };
    text += &tiers(latency, throughput)?;
    Ok(Source { name: "the config that the flags amount to".to_owned(), text, is_new: true, path: None })
}

/// An engine that a flag names, and how to ask it.
struct Named {
    /// As it was given, for errors.
    flag: String,
    name: &'static str,
    tier: Tier,
    base_url: String,
    /// The variable that holds its key.
    key_variable: &'static str,
    service: Option<Service>,
}

/// A hosted service: it has its ways and asks everybody for a key.
struct Service {
    backend: Kind,
    /// Where keys are made.
    keys_url: &'static str,
}

impl Named {
    fn cerebras() -> Self {
        let service = Service { backend: Kind::Cerebras, keys_url: "https://cloud.cerebras.ai" };
        Self {
            flag: "--latency cerebras".to_owned(),
            name: "cerebras",
            tier: Tier::Latency,
            base_url: CEREBRAS_URL.to_owned(),
            key_variable: CEREBRAS_KEY_ENV,
            service: Some(service),
        }
    }

    fn latency(url: String) -> Self {
        Self {
            flag: format!("--latency {url}"),
            name: "latency-1",
            tier: Tier::Latency,
            base_url: url,
            key_variable: "FLASHLANE_LATENCY_API_KEY",
            service: None,
        }
    }

    fn throughput(url: String) -> Self {
        Self {
            flag: format!("--throughput {url}"),
            name: "throughput-1",
            tier: Tier::Throughput,
            base_url: url,
            key_variable: "FLASHLANE_THROUGHPUT_API_KEY",
            service: None,
        }
    }

    async fn ask(self) -> Result<Side, Error> {
        let key = std::env::var(self.key_variable).ok().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        let has_key = key.is_some();
        if let Some(Service { keys_url, .. }) = self.service.as_ref().filter(|_| !has_key) {
            return Err(Error::NoKey { flag: self.flag, variable: self.key_variable, keys_url });
        }
        let api_key = key.map(Secret::new);
        let look = Look { base_url: self.base_url.clone(), api_key, way: Way::default(), wait_ms_max: WAIT_MS_MAX };
        match detect(&look).await {
            Ok(detected) => Ok(self.side(has_key, detected)),
            Err(error) => Err(self.error(has_key, error)),
        }
    }

    fn error(self, has_key: bool, error: detect::Error) -> Error {
        let Self { flag, key_variable: variable, service, .. } = self;
        if let detect::Error::Key { status, .. } = error {
            return match has_key {
                true => Error::KeyRefused { flag, status, variable },
                false => Error::KeyWanted { flag, status, variable },
            };
        }
        if service.is_none()
            && let detect::Error::Unreachable { reason } = error
        {
            return Error::Unreachable { flag, reason };
        }
        Error::Engine { flag, source: error }
    }

    fn side(self, has_key: bool, detected: Detected) -> Side {
        let (backend, dialect) = match (self.service, detected.dialect) {
            (Some(service), _) => (service.backend, None),
            // What asks for no key only looks like it.
            (None, Dialect::Cerebras) if has_key => (Kind::Cerebras, None),
            (None, dialect) => (Kind::OpenAi, Some(dialect)),
        };
        let endpoint = EndpointConfig {
            base_url: Some(detected.base_url),
            dialect,
            api_key_env: has_key.then(|| self.key_variable.to_owned()),
            simulated: detected.simulated.then_some(true),
            ..EndpointConfig::new(self.name, self.tier, backend)
        };
        Side { endpoint, simulated: detected.simulated, models: detected.models }
    }
}

/// One tier: its endpoint, and what models there are.
struct Side {
    endpoint: EndpointConfig,
    /// It only plays a model.
    simulated: bool,
    models: Vec<DetectedModel>,
}

impl Side {
    fn simulator() -> Self {
        let demo = DetectedModel { name: "flashlane-demo".to_owned(), context_tokens_max: None };
        let endpoint = EndpointConfig::new("wafer-simulated", Tier::Latency, Kind::Simulator);
        Self { endpoint, simulated: true, models: vec![demo] }
    }
}

/// The endpoints and models as TOML, with a hint where no model is at both tiers.
fn tiers(latency: Option<Side>, throughput: Option<Side>) -> Result<String, toml::ser::Error> {
    let mut text = String::new();
    for Side { endpoint, simulated, .. } in latency.iter().chain(&throughput) {
        if *simulated && endpoint.backend == Kind::OpenAi {
            text += &format!("# {} is flashlane's own simulator: it plays a model.\n", endpoint.name);
        }
    }
    let models = models(latency.as_ref(), throughput.as_ref());
    let hint = hint(&models, latency.as_ref(), throughput.as_ref());
    let endpoints = latency.into_iter().chain(throughput).map(|side| side.endpoint).collect();
    Ok(text + &toml::to_string(&File { models, endpoints, ..File::default() })? + &hint)
}

/// What is offered. A simulated tier never answers in a real model's name: of two such engines only the real one's is offered.
fn models(latency: Option<&Side>, throughput: Option<&Side>) -> Vec<ModelConfig> {
    let mut models: Vec<ModelConfig> = Vec::new();
    let sides = [(latency, throughput, RouteName::LatencyOnly), (throughput, latency, RouteName::ThroughputOnly)];
    for (side, other, only) in sides {
        let Some(side) = side else { continue };
        for model in &side.models {
            let twin = other.and_then(|other| Some((other, other.models.iter().find(|twin| twin.name == model.name)?)));
            let (route, twin) = match twin {
                Some((other, twin)) if other.simulated == side.simulated => (RouteName::LatencyFirst, Some(twin)),
                Some(_) if side.simulated => continue,
                Some(_) | None => (only, None),
            };
            // It is at both tiers, or the list names it twice (vLLM's adapters).
            if models.iter().any(|known| known.name == model.name) {
                continue;
            }
            let mut config = ModelConfig::new(&model.name, route);
            let tokens = |model: &DetectedModel| model.context_tokens_max.unwrap_or(config.context_tokens_max);
            // Either tier may serve it, so the smaller context counts.
            config.context_tokens_max = twin.map_or(u32::MAX, tokens).min(tokens(model));
            models.push(config);
        }
    }
    models
}

/// How to join two names of one model. Which names mean the same model is for a person to say.
fn hint(models: &[ModelConfig], latency: Option<&Side>, throughput: Option<&Side>) -> String {
    let (Some(latency), Some(throughput)) = (latency, throughput) else { return String::new() };
    let is_joined = |model: &ModelConfig| model.route == Some(RouteName::LatencyFirst);
    if latency.simulated != throughput.simulated || models.iter().any(is_joined) {
        return String::new();
    }
    let (Some(at_latency), Some(at_throughput)) = (latency.models.first(), throughput.models.first()) else {
        return String::new();
    };
    let (at_latency, at_throughput) = (&at_latency.name, &at_throughput.name);
    // `Debug` escapes line ends: no name from outside ends the comment.
    format!(
        "\n# No name is at both tiers, so no turn goes over from one to the other. Where two names mean one model, a table such\n\
         # as this, in the place of the two, joins them:\n\
         # [[models]]\n\
         # name = {at_latency:?}\n\
         # route = \"latency-first\"\n\
         # upstream = {{ latency = {at_latency:?}, throughput = {at_throughput:?} }}\n"
    )
}

#[cfg(test)]
mod tests;
