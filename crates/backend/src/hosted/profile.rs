//! What differs between the services that rent out fast hardware by the token: one row each.
//!
//! Where a service tells its times, and under which name its reasoning comes, is no column: `wire::chat` reads all their ways.

use crate::config::Kind;
use crate::openai::dialect::Dialect;

/// One service.
#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) base_url: &'static str,
    pub(crate) api_key_env: &'static str,
    pub(crate) dialect: Dialect,
    /// Sent with every request.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// Below the base URL: a request that does nothing but open the way.
    pub(crate) warm_path: Option<&'static str>,
    /// What `service_tier` may be.
    pub(crate) tiers: &'static [&'static str],
    pub(crate) queue: Option<QueueHeader>,
    /// Takes requests in gzip.
    pub(crate) takes_gzip: bool,
    /// Strict schemas must close each object, and name their definitions `$defs`.
    pub(crate) strict_schemas: bool,
}

/// A header by which a request says how long it would wait in the service's queue.
#[derive(Debug)]
pub(crate) struct QueueHeader {
    pub(crate) name: &'static str,
    /// The service tiers that heed it.
    pub(crate) tiers: &'static [&'static str],
    pub(crate) ms_min: u64,
    pub(crate) ms_max: u64,
}

/// What Cerebras's queue takes.
pub(crate) const QUEUE_MS_MIN: u64 = 50;
pub(crate) const QUEUE_MS_MAX: u64 = 20_000;
pub const CEREBRAS_URL: &str = "https://api.cerebras.ai/v1";
/// The environment variable in which its key is looked for.
pub const CEREBRAS_KEY_ENV: &str = "CEREBRAS_API_KEY";

/// From the types of its SDK 1.91.0, whose constructor asks `/v1/tcp_warming`, and from its documentation. Never run.
const CEREBRAS: Profile = Profile {
    base_url: CEREBRAS_URL,
    api_key_env: CEREBRAS_KEY_ENV,
    dialect: Dialect::Cerebras,
    headers: &[("x-cerebras-version-patch", "2")],
    warm_path: Some("/tcp_warming"),
    tiers: &["auto", "default", "flex", "priority"],
    queue: Some(QueueHeader {
        name: "queue_threshold",
        tiers: &["auto", "flex"],
        ms_min: QUEUE_MS_MIN,
        ms_max: QUEUE_MS_MAX,
    }),
    takes_gzip: true,
    strict_schemas: true,
};

/// From the types of its SDK 1.7.0, whose paths begin with `/openai`. Never run.
const GROQ: Profile = Profile {
    base_url: "https://api.groq.com/openai/v1",
    api_key_env: "GROQ_API_KEY",
    dialect: Dialect::Groq,
    headers: &[],
    warm_path: Some("/models"),
    tiers: &["auto", "flex", "on_demand", "performance"],
    queue: None,
    takes_gzip: false,
    strict_schemas: false,
};

/// From the types of its SDK 1.13.0. Never run.
const SAMBANOVA: Profile = Profile {
    base_url: "https://api.sambanova.ai/v1",
    api_key_env: "SAMBANOVA_API_KEY",
    dialect: Dialect::Sambanova,
    headers: &[],
    warm_path: Some("/models"),
    tiers: &[],
    queue: None,
    takes_gzip: false,
    strict_schemas: false,
};

impl Profile {
    /// `None`: not a service of this kind.
    pub(crate) fn of(kind: Kind) -> Option<&'static Self> {
        match kind {
            Kind::Cerebras => Some(&CEREBRAS),
            Kind::Groq => Some(&GROQ),
            Kind::Sambanova => Some(&SAMBANOVA),
            Kind::Simulator | Kind::OpenAi | Kind::Responses => None,
        }
    }
}
