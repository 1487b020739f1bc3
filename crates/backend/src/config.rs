//! An endpoint's part of the config file, and its check. Knows nothing of the other parts.

mod exam;
mod hosted;
mod own;
mod probing;

use crate::backends::Backend;
use crate::client::address::Address;
use crate::client::dial::{Dialer, Version};
use crate::client::way::{Identity, Proxy, Way};
use crate::client::{Limits, Remote};
use crate::error::{Error, Problem};
use crate::hosted::profile::{QUEUE_MS_MAX, QUEUE_MS_MIN};
use crate::openai::OpenAi;
use crate::openai::dialect::Dialect;
use crate::openai::request::Template;
use crate::responses::{Responses, Sockets};
use crate::secret::Secret;
use crate::simulator::Simulator;
use flashlane_engine as engine;
use flashlane_engine::{Continues, Hidden, Share, Speaks};
use flashlane_simulator::Profile;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// An hour: longer waits are no limits.
const MS_MAX: u64 = 3_600_000;
const CONNECT_MS: u64 = 3_000;
const FIRST_BYTE_MS: u64 = 120_000;
const IDLE_MS: u64 = 60_000;
const IDLE_CONNECTIONS: u64 = 8;
const IDLE_CONNECTIONS_MAX: u64 = 1024;
const IDLE_CONNECTION_MS: u64 = 55_000;
const CONNECTION_MS: u64 = 300_000;
const WEIGHT: u32 = 1;
const WEIGHT_MAX: u64 = 1000;
/// Wide enough for any key; a longer one is some other file.
const KEY_BYTES_MAX: usize = 8 * 1024;

/// `[[endpoints]]`: where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// What logs and metrics call it; unique.
    pub name: String,
    /// `"latency"` (wafer-scale hardware) or `"throughput"` (GPUs): what a model's route names.
    pub tier: Tier,
    /// `"openai"` (any server of the Chat Completions API), `"responses"` (one that speaks the Responses API itself:
    /// [when](BACKENDS.md#servers-of-the-responses-api)), `"cerebras"`, `"groq"` or `"sambanova"` (these services, with what their limits,
    /// queues and tiers ask for: [how](BACKENDS.md#hosted-services)), or `"simulator"` (plays a model in this process, needs nothing else,
    /// and says everywhere that it is simulated).
    pub backend: Kind,
    /// Turns that this gateway runs there at once: what an engine would queue is better placed elsewhere.
    ///
    /// Default: as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub concurrency_max: Option<u32>,
    /// Its share of its tier's turns beside the others': twice the weight is twice the turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = WEIGHT_MAX), extend("default" = WEIGHT))]
    pub weight: Option<u32>,
    /// A free name: endpoints that have the same have the same weights, template and tokenizer, and as good as the same arithmetic. What one of
    /// them has begun at temperature 0, another goes on with exactly as it would have ([migration](ROUTING.md#migration)).
    ///
    /// Default: none, it is like no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,

    /// The URL below which `/chat/completions` lies (`/responses` with `"responses"`), such as `"http://127.0.0.1:8000/v1"`; not where
    /// flashlane itself listens.
    ///
    /// Default: required; a hosted service's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The engine's ways, since engines differ in the fields that they know or refuse: [what
    /// differs](BACKENDS.md).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Dialect::default()))]
    pub dialect: Option<Dialect>,
    /// What its turns go over: `"http"`, a request for each turn; `"websocket"`, the API's WebSocket mode, on connections that are kept for
    /// the next turns, for servers that have it, such as another flashlane ([which servers have it](BACKENDS.md#servers-of-the-responses-api)). It needs `http_version` 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Transport::default()))]
    pub transport: Option<Transport>,
    /// The environment variable that holds the API key. Keys themselves are never written in a config.
    ///
    /// Default: no key is sent; a hosted service's own (`CEREBRAS_API_KEY`, `GROQ_API_KEY`, `SAMBANOVA_API_KEY`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// The file that holds it, as mounted by an orchestrator; instead of the variable. Blanks around the key are dropped.
    ///
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    /// 1: a connection of its own for every running turn, the fastest way. 2: one connection for all, for servers that want it:
    /// negotiated over `https://`, and over `http://` assumed without asking.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2), extend("default" = 1))]
    pub http_version: Option<u8>,
    /// PEM certificates to trust beside the public ones, for servers with a private authority. Certificates are always checked. `https://`
    /// only.
    ///
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM: the certificate by which this gateway shows who it is, with those that lead to its authority. `https://` only.
    ///
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_file: Option<PathBuf>,
    /// PEM: its private key, unencrypted.
    ///
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_file: Option<PathBuf>,
    /// `"http://proxy:3128"`: the proxy that is asked for a tunnel (`CONNECT`). TLS goes through it to the endpoint, whose name the proxy
    /// resolves.
    ///
    /// Default: none; those of the environment are not heeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The environment variable that holds the proxy's `user:password`.
    ///
    /// Default: none is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_login_env: Option<String>,
    /// Name, TCP and TLS together: long enough for one lost packet, short enough to try the next endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MS_MAX), extend("default" = CONNECT_MS))]
    pub connect_ms_max: Option<u64>,
    /// From the request to the first byte of the answer's body: engines queue and read the prompt before it, whether or not they send the
    /// head at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MS_MAX), extend("default" = FIRST_BYTE_MS))]
    pub first_byte_ms_max: Option<u64>,
    /// Without a byte in the middle of an answer: engines pause while they read a long prompt beside it, and a pause beyond that is a dead
    /// peer. Noticed up to a quarter late.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MS_MAX), extend("default" = IDLE_MS))]
    pub idle_ms_max: Option<u64>,
    /// Open connections kept for the next turns: each costs 16 KiB here and a descriptor there. HTTP/1.1 only. 0 keeps none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = IDLE_CONNECTIONS_MAX), extend("default" = IDLE_CONNECTIONS))]
    pub idle_connections_max: Option<u64>,
    /// How long each is kept: below the 60 s of common load balancers, and the 5 s after which vLLM and SGLang close without a word. A
    /// shorter `Keep-Alive` of the server is heeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MS_MAX), extend("default" = IDLE_CONNECTION_MS, "x-else" = {"with dialect `\"vllm\"` or `\"sglang\"`": Dialect::Vllm.idle_ms()}))]
    pub idle_connection_ms_max: Option<u64>,
    /// After which a connection gets no more turns, however well it is kept: the next one resolves the name anew, so that a service that
    /// has moved is found. Names are resolved for each connection, by the system; no redirect is followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MS_MAX), extend("default" = CONNECTION_MS))]
    pub connection_ms_max: Option<u64>,

    /// The server only plays a model, as `flashlane simulate` does: every place that shows the endpoint says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub simulated: Option<bool>,

    /// Only with dialect `"vllm"`, `"sglang"` or `"llama_cpp"`: how often to look at the engine's `/metrics`, so that the
    /// least loaded endpoint of a tier is told by all of its requests and not by this gateway's own. SGLang and llama.cpp have metrics only
    /// when told to (`--enable-metrics`, `--metrics`).
    ///
    /// Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = probing::MS_MIN, max = probing::MS_MAX))]
    pub probe_ms: Option<u64>,

    /// Only with dialect `"vllm"` or `"sglang"`: each request says whether it is urgent (`service_tier` `priority`, `fast`, `ultrafast`, or
    /// the header `x-flashlane-tier: latency`), ordinary or patient (background responses, sub-agents, `flex`), so that the engine lets
    /// some go first. Only for an engine that was started with `--scheduling-policy priority` (vLLM) or `--enable-priority-scheduling`
    /// (SGLang): others ignore it or refuse the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub priorities: Option<bool>,

    /// The service's tier for all requests: `"auto"`, `"default"`, `"flex"`, `"priority"` at Cerebras (an account may have fewer);
    /// `"auto"`, `"on_demand"`, `"flex"`, `"performance"` at Groq; SambaNova has none.
    ///
    /// Default: none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// Cerebras, tiers `"auto"` and `"flex"`: how long a request may wait in its queue. What would wait longer is refused
    /// there at once, and another tier takes the turn.
    ///
    /// Default: as long as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = QUEUE_MS_MIN, max = QUEUE_MS_MAX))]
    pub queue_ms_max: Option<u64>,
    /// Tokens that an answer may have where the client sets no limit. The service reserves them from the key's tokens a minute, so the
    /// whole context would allow a fraction of the requests; an agent's longest answers are below.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = hosted::TOKENS_MAX), extend("default" = hosted::COMPLETION_TOKENS))]
    pub completion_tokens_max: Option<u64>,
    /// Cerebras: requests from this size on go out in gzip. On code it saves some 70 % for some 8 ms a 400 KB, which pays where the way
    /// there has less than some 200 Mbit/s. After a 415 none is sent so.
    ///
    /// Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = hosted::GZIP_BYTES_MIN, max = hosted::GZIP_BYTES_MAX))]
    pub gzip_bytes_min: Option<u64>,
    /// Cerebras: how far away the service must be for that, by the quickest of its answers to a new connection: packing costs 8 ms a 400
    /// KB, and saves such a request some 1.7 round trips. 0: wherever it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = hosted::GZIP_ROUND_TRIP_MS_MAX), extend("default" = hosted::GZIP_ROUND_TRIP_MS))]
    pub gzip_round_trip_ms_min: Option<u64>,
    /// Connections kept open and warm while sessions use the endpoint: a session's and its first sub-agent's. HTTP/2 keeps its one; 0 opens
    /// none ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = hosted::WARM_CONNECTIONS_MAX), extend("default" = hosted::WARM_CONNECTIONS))]
    pub warm_connections: Option<u64>,
    /// How long they are kept warm after the last session began or turn ran: as long as the service promises to keep a prompt in its cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MS_MAX), extend("default" = hosted::WARM_MS))]
    pub warm_ms_max: Option<u64>,

    /// The hardware to play: `"wafer"` (first token after 30 ms, 1,500 tokens a second) in tier latency, `"gpu"` (250 ms, 65 tokens a second) in tier throughput.
    /// Chosen paces, not measurements of any hardware.
    ///
    /// Default: by tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// Until the first token. 0: at once.
    ///
    /// Default: the profile's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u32>,
    /// Tokens a second after the first; 0: all at once.
    ///
    /// Default: the profile's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    Latency,
    Throughput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Simulator,
    OpenAi,
    Cerebras,
    Groq,
    Sambanova,
    Responses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProfileName {
    Wafer,
    Gpu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    #[default]
    Http,
    Websocket,
}

impl From<Tier> for engine::Tier {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Latency => Self::Latency,
            Tier::Throughput => Self::Throughput,
        }
    }
}

impl Kind {
    /// As the config writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Simulator => "simulator",
            Self::OpenAi => "openai",
            Self::Cerebras => "cerebras",
            Self::Groq => "groq",
            Self::Sambanova => "sambanova",
            Self::Responses => "responses",
        }
    }
}

impl EndpointConfig {
    /// An endpoint with nothing set beyond what it is; add the rest with `..`.
    #[must_use]
    pub fn new(name: impl Into<String>, tier: Tier, backend: Kind) -> Self {
        Self {
            name: name.into(),
            tier,
            backend,
            concurrency_max: None,
            weight: None,
            identity: None,
            base_url: None,
            dialect: None,
            transport: None,
            api_key_env: None,
            api_key_file: None,
            http_version: None,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            proxy: None,
            proxy_login_env: None,
            connect_ms_max: None,
            first_byte_ms_max: None,
            idle_ms_max: None,
            idle_connections_max: None,
            idle_connection_ms_max: None,
            connection_ms_max: None,
            simulated: None,
            probe_ms: None,
            priorities: None,
            service_tier: None,
            queue_ms_max: None,
            completion_tokens_max: None,
            gzip_bytes_min: None,
            gzip_round_trip_ms_min: None,
            warm_connections: None,
            warm_ms_max: None,
            profile: None,
            first_token_ms: None,
            tokens_per_second: None,
        }
    }

    /// Reads the key and the certificates too. Connects to nothing.
    ///
    /// # Errors
    /// Names the first field that is at fault.
    pub(crate) fn check(&self) -> Result<Backend, Error> {
        if self.name.is_empty() {
            return Err(self.error("name", Problem::Empty));
        }
        self.has_no_field_of_others()?;
        match self.backend {
            Kind::Simulator => Ok(self.simulator()),
            Kind::OpenAi => self.openai(),
            Kind::Cerebras | Kind::Groq | Kind::Sambanova => self.hosted(),
            Kind::Responses => self.responses(),
        }
    }

    /// The files whose content is part of it: its key, and whom it trusts.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let identity = self.client_certificate_file.iter().chain(&self.client_key_file);
        self.api_key_file.iter().chain(&self.ca_file).chain(identity).map(PathBuf::as_path)
    }

    /// The contract that its requests follow.
    pub(crate) fn speaks(&self) -> Speaks {
        match self.backend {
            Kind::Simulator | Kind::OpenAi | Kind::Cerebras | Kind::Groq | Kind::Sambanova => Speaks::Chat,
            Kind::Responses => Speaks::Responses,
        }
    }

    /// How much of its tier's load it takes.
    pub(crate) fn share(&self) -> Result<Share, Error> {
        let unlimited = u64::from(u32::MAX);
        self.within("concurrency_max", self.concurrency_max.map_or(1, u64::from), 1, unlimited)?;
        self.within("weight", self.weight.map_or(1, u64::from), 1, WEIGHT_MAX)?;
        Ok(Share { concurrency_max: self.concurrency_max, weight: self.weight.unwrap_or(WEIGHT) })
    }

    /// What it can make of an answer that another endpoint has begun.
    pub(crate) fn continues(&self) -> Continues {
        let by_prefill = match self.backend {
            Kind::OpenAi => self.dialect.unwrap_or_default().continues(),
            Kind::Responses | Kind::Cerebras | Kind::Groq | Kind::Sambanova | Kind::Simulator => false,
        };
        Continues { by_prefill, identity: self.identity.as_deref().map(Into::into) }
    }

    /// Whether it only plays a model.
    pub(crate) fn is_simulated(&self) -> bool {
        matches!(self.backend, Kind::Simulator) || self.simulated == Some(true)
    }

    pub(crate) fn error(&self, field: &'static str, problem: Problem) -> Error {
        Error { endpoint: self.name.clone(), field, problem }
    }

    /// What a simulator plays, and by what name.
    #[must_use]
    pub fn played(&self) -> (ProfileName, Profile) {
        let name = self.profile.unwrap_or(match self.tier {
            Tier::Latency => ProfileName::Wafer,
            Tier::Throughput => ProfileName::Gpu,
        });
        let profile = match name {
            ProfileName::Wafer => Profile::WAFER,
            ProfileName::Gpu => Profile::GPU,
        };
        let first_token_ms = self.first_token_ms.unwrap_or(profile.first_token_ms);
        let tokens_per_second = self.tokens_per_second.unwrap_or(profile.tokens_per_second);
        (name, Profile { first_token_ms, tokens_per_second, ..profile })
    }

    fn simulator(&self) -> Backend {
        Backend::Simulator(Simulator::new(self.played().1))
    }

    fn openai(&self) -> Result<Backend, Error> {
        let base_url = self.base_url.as_deref().ok_or_else(|| self.error("base_url", Problem::Missing))?;
        let dialect = self.dialect.unwrap_or_default();
        if self.priorities.is_some() && !dialect.has_priorities() {
            return Err(self.error("priorities", Problem::NeedsDialect { values: &["vllm", "sglang"] }));
        }
        let mut remote = self.remote(base_url, self.api_key_env.as_ref(), &self.asked_for(dialect))?;
        if let Some(probing) = self.probing(base_url, dialect)? {
            remote = remote.probed(probing);
        }
        Ok(Backend::OpenAi(OpenAi::new(remote, dialect, self.priorities == Some(true))))
    }

    fn responses(&self) -> Result<Backend, Error> {
        let base_url = self.base_url.as_deref().ok_or_else(|| self.error("base_url", Problem::Missing))?;
        let remote = self.remote(base_url, self.api_key_env.as_ref(), &[])?;
        let sockets = match self.transport.unwrap_or_default() {
            Transport::Http => None,
            Transport::Websocket if remote.version == Version::Http2 => {
                return Err(self.error("http_version", Problem::NeedsHttp1));
            }
            Transport::Websocket => Some(Sockets::new(self.idle_connections_max()?, self.idle_connection_ms_max()?)),
        };
        Ok(Backend::Responses(Responses::new(remote, sockets)))
    }

    /// An endpoint at `base_url`; `own` are fields that its requests have beside those of all.
    pub(crate) fn remote(
        &self,
        base_url: &str,
        api_key_env: Option<&String>,
        own: &[(&'static str, String)],
    ) -> Result<Remote, Error> {
        let address = Address::parse(base_url).map_err(|problem| self.error("base_url", problem))?;
        let version = match self.http_version {
            None | Some(1) => Version::Http1,
            Some(2) => Version::Http2,
            Some(_) => return Err(self.error("http_version", Problem::HttpVersion)),
        };
        let (key_field, key) = self.key(api_key_env)?;
        let path = match self.speaks() {
            Speaks::Chat => "/chat/completions",
            Speaks::Responses => "/responses",
        };
        let template =
            Template::new(&address, path, key.as_ref(), own).map_err(|_| self.error(key_field, Problem::Key))?;
        let connect_ms_max = self.ms("connect_ms_max", self.connect_ms_max, CONNECT_MS)?;
        let limits = Limits {
            first_byte_ms_max: self.ms("first_byte_ms_max", self.first_byte_ms_max, FIRST_BYTE_MS)?,
            idle_ms_max: self.ms("idle_ms_max", self.idle_ms_max, IDLE_MS)?,
            idle_connections_max: self.idle_connections_max()?,
            idle_connection_ms_max: self.idle_connection_ms_max()?,
            connection_ms_max: self.ms("connection_ms_max", self.connection_ms_max, CONNECTION_MS)?,
        };
        self.needs_tls(&address)?;
        let dialer = Dialer::new(address, &self.way()?, version, connect_ms_max)
            .map_err(|(field, problem)| self.error(field, problem))?;
        Ok(Remote::new(dialer, template, version, &limits))
    }

    /// How it is reached beside its address.
    pub(crate) fn way(&self) -> Result<Way, Error> {
        let identity = match (&self.client_certificate_file, &self.client_key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some(Identity { certificate_file: certificate.clone(), key_file: key.clone() })
            }
            (Some(_), None) => return Err(self.error("client_key_file", Problem::Missing)),
            (None, Some(_)) => return Err(self.error("client_certificate_file", Problem::Missing)),
        };
        let proxy = match (&self.proxy, &self.proxy_login_env) {
            (None, None) => None,
            (None, Some(_)) => return Err(self.error("proxy", Problem::Missing)),
            (Some(url), login) => Some(self.proxy(url, login.as_ref())?),
        };
        Ok(Way { ca_file: self.ca_file.clone(), identity, proxy })
    }

    fn proxy(&self, url: &str, login: Option<&String>) -> Result<Proxy, Error> {
        let address = Address::parse(url).map_err(|problem| self.error("proxy", problem))?;
        if address.tls || !address.path.is_empty() {
            return Err(self.error("proxy", Problem::ProxyUrl));
        }
        let login = read_key(login, None).map_err(|(_, problem)| self.error("proxy_login_env", problem))?;
        if login.as_ref().is_some_and(|login| !login.expose().contains(':')) {
            return Err(self.error("proxy_login_env", Problem::ProxyLogin));
        }
        Ok(Proxy { address, login })
    }

    /// Certificates have no meaning without TLS: whoever sets them believes that there is some.
    fn needs_tls(&self, address: &Address) -> Result<(), Error> {
        let set =
            [("ca_file", self.ca_file.is_some()), ("client_certificate_file", self.client_certificate_file.is_some())];
        match set.into_iter().find(|(_, is_set)| *is_set && !address.tls) {
            Some((field, _)) => Err(self.error(field, Problem::NeedsTls)),
            None => Ok(()),
        }
    }

    fn idle_connections_max(&self) -> Result<usize, Error> {
        let set = self.idle_connections_max.unwrap_or(IDLE_CONNECTIONS);
        let max = self.within("idle_connections_max", set, 0, IDLE_CONNECTIONS_MAX)?;
        Ok(usize::try_from(max).unwrap_or(usize::MAX))
    }

    pub(crate) fn idle_connection_ms_max(&self) -> Result<u64, Error> {
        let default = self.dialect.and_then(Dialect::idle_ms).unwrap_or(IDLE_CONNECTION_MS);
        self.ms("idle_connection_ms_max", self.idle_connection_ms_max, default)
    }

    pub(crate) fn ms(&self, field: &'static str, set: Option<u64>, default: u64) -> Result<u64, Error> {
        self.within(field, set.unwrap_or(default), 1, MS_MAX)
    }

    pub(crate) fn within(&self, field: &'static str, value: u64, min: u64, max: u64) -> Result<u64, Error> {
        match (min..=max).contains(&value) {
            true => Ok(value),
            false => Err(self.error(field, Problem::OutOfRange { min, max })),
        }
    }

    /// The key, where there is one that can be read.
    pub(crate) fn hidden(&self) -> Hidden {
        let key = self.key(self.key_variable().as_ref()).ok().and_then(|(_, key)| key);
        key.map_or_else(Hidden::default, |key| Hidden::new(key.expose()))
    }

    /// The key, and the field that leads to it.
    pub(crate) fn key(&self, api_key_env: Option<&String>) -> Result<(&'static str, Option<Secret>), Error> {
        let field = match (api_key_env, &self.api_key_file) {
            (None, None) => "base_url",
            (Some(_), _) => "api_key_env",
            (None, Some(_)) => "api_key_file",
        };
        let key = read_key(api_key_env, self.api_key_file.as_deref());
        key.map(|key| (field, key)).map_err(|(field, problem)| self.error(field, problem))
    }
}

/// An API key by its variable or its file, without the blanks around it. None: neither is named.
///
/// # Errors
/// The field at fault.
pub(crate) fn read_key(
    variable: Option<&String>,
    file: Option<&Path>,
) -> Result<Option<Secret>, (&'static str, Problem)> {
    let (field, key) = match (variable, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(("api_key_file", Problem::TwoKeys)),
        (Some(variable), None) => {
            let absent = |_| ("api_key_env", Problem::NoSuchVariable { variable: variable.clone() });
            ("api_key_env", Secret::new(std::env::var(variable).map_err(absent)?))
        }
        (None, Some(path)) => {
            let unread = |source| ("api_key_file", Problem::File { path: path.to_owned(), source });
            ("api_key_file", Secret::read(path, KEY_BYTES_MAX).map_err(unread)?)
        }
    };
    let key = key.expose().trim();
    match key.len() {
        0 => Err((field, Problem::Empty)),
        1..=KEY_BYTES_MAX if key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(Secret::new(key.to_owned()))),
        _ => Err((field, Problem::Key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_rests_no_longer_than_its_engine_keeps_it() {
        let rests = |dialect, set| {
            let config = EndpointConfig::new("e", Tier::Throughput, Kind::OpenAi);
            EndpointConfig { dialect, idle_connection_ms_max: set, ..config }.idle_connection_ms_max().unwrap()
        };
        assert_eq!(rests(None, None), 55_000);
        assert_eq!(rests(Some(Dialect::LlamaCpp), None), 55_000, "it announces what it keeps");
        // Both were seen to close after 5 s.
        assert!(rests(Some(Dialect::Vllm), None) < 4640 && rests(Some(Dialect::Sglang), None) < 4640);
        assert_eq!(rests(Some(Dialect::Vllm), Some(70_000)), 70_000);
    }
}
