//! The config file: one TOML, composed of each room's own part, parsed and checked once. An error names the file, the line
//! and the field, or the flag that went before it.

mod base_url;
mod bounds;
mod check;
mod fixed;
mod keys;
mod moved;
mod other;
mod profile;
mod routing;
mod schema;
mod trust;
pub mod verb;
mod whole;
mod words;

use crate::export::Telemetry;
use crate::places::Places;
use crate::runtime::RuntimeConfig;
use crate::seal::{Keys, SealConfig};
use crate::store::{Place, StoreConfig};
use check::{Fault, check};
use flashlane_backend::{Backends, EndpointConfig, GuardConfig};
use flashlane_edge::{EdgeConfig, KeyConfig, Tls, TlsConfig};
use flashlane_engine::admission::limit::Limits;
use flashlane_engine::admission::{self, PerTier, Queueing};
use flashlane_engine::router::{Effort, Routing, Rule};
use flashlane_engine::{Fleet, Modality, Settings};
use flashlane_telemetry::TelemetryConfig;
use routing::{AtTier, MIGRATIONS_MAX};
pub use schema::schema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use whole::whole;

/// A checked config, ready to run.
pub struct Config {
    /// What all of it is made of.
    pub file: File,
    pub runtime: RuntimeConfig,
    pub telemetry: Telemetry,
    pub server: EdgeConfig,
    /// What `server.tls` amounts to.
    pub tls: Option<Tls>,
    /// What `server.admin.tls` amounts to.
    pub admin_tls: Option<Tls>,
    pub settings: Settings,
    /// `[routing]`, `[limits]` and `[queue]`.
    pub admission: admission::Settings,
    /// What seals blobs that clients keep.
    pub seal: Keys,
    /// `[[keys]]`. None: only loopback is served.
    pub keys: Vec<KeyConfig>,
    pub store: Place,
    pub backends: Backends,
    /// `created_unix_s` is the caller's.
    pub fleet: Fleet,
}

/// Addresses that go before the file's: those of flags.
#[derive(Debug, Clone, Copy, Default)]
pub struct Listen {
    pub clients: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

impl Listen {
    fn over(self, mut file: File) -> File {
        file.server.listen = self.clients.unwrap_or(file.server.listen);
        file.server.admin_listen = self.admin.unwrap_or(file.server.admin_listen);
        file
    }
}

/// The config of flashlane. Every part may be left out, but for at least one endpoint and one model.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where clients and operators connect, and what they may send and hold.
    #[serde(default, skip_serializing_if = "is_default")]
    pub server: EdgeConfig,
    /// What one connection's turns may take.
    #[serde(default, skip_serializing_if = "is_default")]
    pub session: Settings,
    /// How turns find their endpoints.
    #[serde(default, skip_serializing_if = "is_default")]
    pub routing: Routing,
    /// The keys of what clients keep for this server and bring back: summaries of compacted conversations, and reasoning.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seal: SealConfig,
    /// What each key may take of a tier that has no limits of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: PerTier<Limits>,
    /// How many turns a tier runs at once, and how the others wait.
    #[serde(default, skip_serializing_if = "is_default")]
    pub queue: PerTier<Queueing>,
    /// Where responses are kept that clients may come back to, how many and how long.
    #[serde(default, skip_serializing_if = "is_default")]
    pub store: StoreConfig,
    /// The threads that everything runs on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime: RuntimeConfig,
    /// What is written down of turns, and where it goes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub telemetry: TelemetryConfig,
    /// Where tokens come from. At least one.
    #[serde(default)]
    pub endpoints: Vec<EndpointConfig>,
    /// What clients ask for. At least one.
    #[serde(default)]
    pub models: Vec<ModelConfig>,
    /// Services that are asked whether a turn's input may be answered. Models name theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardConfig>,
    /// Other routes for some turns of all models; the first that fits. Asked after a model's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Who may call this server. Without any, it binds loopback only, and serves whoever reaches it there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyConfig>,
}

impl File {
    /// The files whose content is part of the config.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.server.tls.iter().chain(&self.server.admin.tls).flat_map(TlsConfig::files);
        let seal = self.seal.keys_file.iter().map(PathBuf::as_path);
        let guards = self.guards.iter().flat_map(GuardConfig::files);
        self.endpoints.iter().flat_map(EndpointConfig::files).chain(guards).chain(tls).chain(seal)
    }
}

fn is_default<T: Default + PartialEq>(part: &T) -> bool {
    *part == T::default()
}

/// `[[models]]`: what clients ask for.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// What clients send as `model`; unique.
    pub name: String,
    /// Tokens of input and output together. Codex's catalog tells it to Codex, which compacts at 95 % of it. A longer input is refused before it is sent ([how it is
    /// counted](PROTOCOL.md#53-the-length-of-the-input)). More than the model has means that its engine refuses. The default is what the open models of today have.
    #[serde(default = "context_tokens_max_default")]
    #[schemars(range(min = 1))]
    pub context_tokens_max: u32,
    /// What it takes in; text is always among them.
    #[serde(default = "modalities_default")]
    pub modalities: Vec<ModalityName>,
    /// The tiers that may serve it, in order. `"split"` goes by what a turn answers ([how](ROUTING.md#a-split-model)): a user's words at the
    /// throughput tier first, what tools gave at the latency tier.
    ///
    /// Default: `"latency-first"`, or the only tier that has endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteName>,
    /// `{ latency = "…", throughput = "…" }`: the model's name at each tier's endpoints.
    ///
    /// Default: its own name.
    #[serde(default, skip_serializing_if = "Upstream::is_empty")]
    pub upstream: Upstream,
    /// What is added to the instructions of its turns, the same in each: at the end of their leading system message, or as one ([how](ROUTING.md#profiles)). At most
    /// 16,384 bytes.
    ///
    /// Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions_append: Option<String>,
    /// How hard it thinks in turns whose request does not say. Not for models that do not think: their engines may refuse it.
    ///
    /// Default: what its engine does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
    /// `{ context_tokens_max = …, modalities = […], instructions_append = …, effort = … }`: what it takes in at the latency tier's endpoints,
    /// where that is less, and how it is to work there, where that is not as the model's own fields say. A turn that does not fit goes to
    /// the other tier.
    ///
    /// Default: what the model takes in; text alone where the throughput tier may serve it too, since wafer-scale services read no images.
    #[serde(default, skip_serializing_if = "is_default")]
    pub latency: AtTier,
    /// `{ context_tokens_max = …, modalities = […], instructions_append = …, effort = … }`: the same at the throughput tier's endpoints.
    ///
    /// Default: what the model takes in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub throughput: AtTier,
    /// `[[models.rules]]`: other routes for some of its turns, as [`[[rules]]`](#rules) and asked before them; the first that fits.
    ///
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// The name of the one in [`[[guards]]`](#guards) that is asked whether what is new in a turn may be answered.
    ///
    /// Default: nobody is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
    /// Where a first token of the latency tier is later than 95 in 100 of the model's were, the throughput tier is asked as well, and who is
    /// first has the turn ([how](ROUTING.md#hedging)). What that may cost is `hedge_tokens_percent_max` of [`[routing]`](#routing).
    ///
    /// Default: `false`; a turn has one endpoint at a time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hedge: bool,
    /// How often a turn may go on at another endpoint of the same model when its own fails after the first token: what stands of the answer
    /// is frozen, and the other's engine goes on with it ([how](ROUTING.md#migration)). 0: such a turn fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MIGRATIONS_MAX), extend("default" = 0))]
    pub migrations_max: Option<u8>,
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
            instructions_append: None,
            effort: None,
            latency: AtTier::default(),
            throughput: AtTier::default(),
            rules: Vec::new(),
            guard: None,
            hedge: false,
            migrations_max: None,
        }
    }
}

/// `upstream = { latency = "..", throughput = ".." }`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RouteName {
    LatencyFirst,
    ThroughputFirst,
    LatencyOnly,
    ThroughputOnly,
    /// By what the turn answers: a user at the throughput tier first, tools at the latency tier.
    Split,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
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

impl Config {
    /// Parses and checks `text`, with what `listen` names in the place of its addresses; `source_name` is for errors. Reads keys and
    /// certificates, tries whether the data folder can be written, connects to nothing.
    ///
    /// # Errors
    /// [`Invalid`], at the first fault.
    pub fn parse(source_name: &str, text: &str, listen: Listen) -> Result<Self, Invalid> {
        let places = Places::new(text);
        let file = read(source_name, text, &places)?;
        let flags =
            [("server.listen", "--listen", listen.clients), ("server.admin_listen", "--admin-listen", listen.admin)];
        check(listen.over(file)).map_err(|fault| {
            let Fault { path, message } = &fault;
            match flags.into_iter().find(|(field, _, address)| field == path && address.is_some()) {
                Some((_, flag, _)) => {
                    Invalid { source_name: flag.to_owned(), line: None, field: None, message: message.clone() }
                }
                None => placed(source_name, &places, fault),
            }
        })
    }

    /// The same of a config that is to go on from the one that runs: what only a restart changes is left as it is there. Tells those fields that
    /// would have been others. The text is checked as it is written, too: the next start takes it so.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_again(
        source_name: &str,
        text: &str,
        listen: Listen,
        running: &File,
    ) -> Result<(Self, Vec<String>), Invalid> {
        let config = Self::parse(source_name, text, listen)?;
        let mut file = config.file.clone();
        if fixed::keep(running, &mut file).is_empty() {
            return Ok((config, Vec::new()));
        }
        let kept = config.file.other_than(&file);
        let places = Places::new(text);
        check(file).map(|config| (config, kept)).map_err(|fault| placed(source_name, &places, fault))
    }
}

fn placed(source_name: &str, places: &Places<'_>, Fault { path, message }: Fault) -> Invalid {
    Invalid { source_name: source_name.to_owned(), line: places.line_of(&path), field: Some(path), message }
}

impl File {
    /// Parses `text` and checks no more of it than that: for those that look at parts of a config.
    ///
    /// # Errors
    /// [`Invalid`], where a field is none, or of another type.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, Invalid> {
        read(source_name, text, &Places::new(text))
    }
}

fn read(source_name: &str, text: &str, places: &Places<'_>) -> Result<File, Invalid> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map(|span| span.start);
        let field = offset.and_then(|offset| places.path_at(offset));
        Invalid {
            source_name: source_name.to_owned(),
            line: offset.map(|offset| places.line(offset)),
            field: field.map(str::to_owned),
            message: words::explained(error.message(), field),
        }
    })
}

#[cfg(test)]
mod tests;
