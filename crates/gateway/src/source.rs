//! Where the config's text comes from: a file, the embedded default, or what the flags `--latency` and `--throughput` amount
//! to. Whatever it is, it is one TOML text that goes the same way.

use crate::config::{File, ModelConfig, RouteName};
use flashlane_backend::detect::{self, Look, detect};
use flashlane_backend::{EndpointConfig, Kind, Secret, Tier};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const DEFAULT: &str = include_str!("default.toml");
/// The key of the engine that `--throughput` names, where it asks for one.
const KEY_VARIABLE: &str = "FLASHLANE_THROUGHPUT_API_KEY";
const WAIT_MS_MAX: u64 = 10_000;

/// A config's text.
pub struct Source {
    /// For errors.
    pub name: String,
    pub text: String,
    /// Made from flags: the person has not seen it yet.
    pub is_new: bool,
}

/// What `--latency` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Latency {
    Simulator,
    /// Not served yet.
    Cerebras,
}

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the config {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "--latency cerebras: the adapter for Cerebras comes with a later version; --latency simulator plays the tier until then"
    )]
    Cerebras,
    #[error("--throughput {url}: {reason}: is the engine running, and does it listen there?")]
    Unreachable { url: String, reason: String },
    #[error("--throughput {url}: the engine wants a key (HTTP {status}): set {KEY_VARIABLE}")]
    Key { url: String, status: u16 },
    #[error("--throughput {url}: {source}")]
    Engine { url: String, source: detect::Error },
    #[error("the config cannot be written as TOML")]
    Write(#[from] toml::ser::Error),
}

/// Reads a file.
///
/// # Errors
/// [`Error::Read`].
pub fn file(path: &Path) -> Result<Source, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(Source { name: path.display().to_string(), text, is_new: false })
}

/// The embedded default.
pub fn embedded() -> Source {
    Source { name: "the embedded default".to_owned(), text: DEFAULT.to_owned(), is_new: false }
}

/// The flags that make a config.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub latency: Option<Latency>,
    pub throughput: Option<String>,
    pub listen: Option<SocketAddr>,
    pub admin_listen: Option<SocketAddr>,
}

/// What the flags amount to. The engine is asked what it is and which models it has; each is offered by its own name, and
/// only from that engine: a simulated tier never answers in a real model's name.
///
/// # Errors
/// [`Error`], when the engine does not answer.
pub async fn flags(flags: Flags) -> Result<Source, Error> {
    let mut file = File::default();
    let mut text = String::new();
    for (setting, address) in [("listen", flags.listen), ("admin_listen", flags.admin_listen)] {
        let Some(address) = address else { continue };
        text += if text.is_empty() { "[server]\n" } else { "" };
        text += &format!("{setting} = \"{address}\"\n");
    }
    text += if text.is_empty() { "" } else { "\n" };
    match flags.latency {
        Some(Latency::Cerebras) => return Err(Error::Cerebras),
        Some(Latency::Simulator) => {
            file.endpoints.push(EndpointConfig::new("wafer-simulated", Tier::Latency, Kind::Simulator));
            file.models.push(ModelConfig::new("flashlane-demo", RouteName::LatencyOnly));
        }
        None => {}
    }
    if let Some(url) = flags.throughput {
        let is_simulated = add_engine(&mut file, url).await?;
        text += if is_simulated { "# engine-1 is flashlane's own simulator: it plays a model.\n" } else { "" };
    }
    text += &toml::to_string(&file)?;
    Ok(Source { name: "the config that the flags amount to".to_owned(), text, is_new: true })
}

/// Whether the engine only plays a model.
async fn add_engine(file: &mut File, url: String) -> Result<bool, Error> {
    let api_key = std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty());
    let look = Look {
        base_url: url.clone(),
        api_key: api_key.clone().map(Secret::new),
        ca_file: None,
        wait_ms_max: WAIT_MS_MAX,
    };
    let detected = match detect(&look).await {
        Ok(detected) => detected,
        Err(detect::Error::Unreachable { reason }) => return Err(Error::Unreachable { url, reason }),
        Err(detect::Error::Key { status, .. }) => return Err(Error::Key { url, status }),
        Err(source) => return Err(Error::Engine { url, source }),
    };
    file.endpoints.push(EndpointConfig {
        base_url: Some(detected.base_url),
        dialect: Some(detected.dialect),
        api_key_env: api_key.map(|_| KEY_VARIABLE.to_owned()),
        ..EndpointConfig::new("engine-1", Tier::Throughput, Kind::OpenAi)
    });
    for model in detected.models {
        // A list may name a model twice (vLLM's adapters); the simulated one's name is taken as well.
        if file.models.iter().any(|known| known.name == model.name) {
            continue;
        }
        let mut config = ModelConfig::new(&model.name, RouteName::ThroughputOnly);
        if let Some(tokens) = model.context_tokens_max {
            config.context_tokens_max = tokens;
        }
        file.models.push(config);
    }
    Ok(detected.simulated)
}
