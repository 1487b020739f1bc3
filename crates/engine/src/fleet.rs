//! The fleet: which models are offered and which endpoints may serve them. A snapshot, swapped whole; it knows no address.

use crate::guard::Guard;
use crate::hidden::Hidden;
use crate::profile::Profiles;
use crate::router::Rule;
use crate::seal::Takes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The kind of hardware behind an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Wafer-scale: first token in milliseconds, limits of its own.
    Latency,
    /// GPUs.
    Throughput,
}

impl Tier {
    pub const ALL: [Self; 2] = [Self::Latency, Self::Throughput];

    /// The name in configs, logs and metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Throughput => "throughput",
        }
    }

    /// What `service_tier` in a response says when this tier served it.
    #[must_use]
    pub fn service_tier(self) -> &'static str {
        match self {
            Self::Latency => "priority",
            Self::Throughput => "default",
        }
    }
}

/// The order in which a model's tiers are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    LatencyFirst,
    ThroughputFirst,
    LatencyOnly,
    ThroughputOnly,
}

impl Route {
    /// The tiers that may serve, in order.
    #[must_use]
    pub fn tiers(self) -> &'static [Tier] {
        match self {
            Self::LatencyFirst => &[Tier::Latency, Tier::Throughput],
            Self::ThroughputFirst => &[Tier::Throughput, Tier::Latency],
            Self::LatencyOnly => &[Tier::Latency],
            Self::ThroughputOnly => &[Tier::Throughput],
        }
    }

    /// The tier that is tried first, and the one after it.
    #[must_use]
    pub fn parts(self) -> (Tier, Option<Tier>) {
        match self {
            Self::LatencyFirst => (Tier::Latency, Some(Tier::Throughput)),
            Self::ThroughputFirst => (Tier::Throughput, Some(Tier::Latency)),
            Self::LatencyOnly => (Tier::Latency, None),
            Self::ThroughputOnly => (Tier::Throughput, None),
        }
    }

    /// The same tiers, this one first. None: it is not among them.
    #[must_use]
    pub fn led_by(self, tier: Tier) -> Option<Self> {
        match (self, tier) {
            (Self::LatencyOnly, Tier::Throughput) | (Self::ThroughputOnly, Tier::Latency) => None,
            (Self::LatencyOnly | Self::ThroughputOnly, _) => Some(self),
            (Self::LatencyFirst | Self::ThroughputFirst, Tier::Latency) => Some(Self::LatencyFirst),
            (Self::LatencyFirst | Self::ThroughputFirst, Tier::Throughput) => Some(Self::ThroughputFirst),
        }
    }

    /// This tier alone.
    #[must_use]
    pub fn only(tier: Tier) -> Self {
        match tier {
            Tier::Latency => Self::LatencyOnly,
            Tier::Throughput => Self::ThroughputOnly,
        }
    }
}

/// What a model takes in besides text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Modality {
    Text,
    Image,
    File,
}

impl Modality {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::File => "file",
        }
    }
}

/// An endpoint's place in the fleet, and in the backend's table of connections. It stays an endpoint's own from one config to the next, for as
/// long as nothing about the endpoint changes; another has it only after a config in which it was retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u16);

/// Which of OpenAI's contracts an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speaks {
    /// Chat Completions.
    #[default]
    Chat,
    /// The Responses API: its events pass.
    Responses,
}

/// Where tokens come from, as far as decisions need to know it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub name: Arc<str>,
    pub tier: Tier,
    pub speaks: Speaks,
    /// Plays a model: every place that shows this endpoint says so.
    pub simulated: bool,
    pub share: Share,
    pub continues: Continues,
    /// No config has it any more: it gets no turns, and those that run there run on.
    pub retired: bool,
    /// The key that it is asked with: nothing that it says of it reaches a client.
    pub hidden: Hidden,
}

impl Endpoint {
    /// One that speaks Chat Completions, asked without a key, for as many turns as come.
    #[must_use]
    pub fn named(name: &str, tier: Tier) -> Self {
        Self {
            name: name.into(),
            tier,
            speaks: Speaks::Chat,
            simulated: false,
            share: Share::default(),
            continues: Continues::default(),
            retired: false,
            hidden: Hidden::default(),
        }
    }
}

/// What an endpoint can make of an answer that another one has begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Continues {
    /// Its engine goes on with a last message of the assistant's.
    pub by_prefill: bool,
    /// Those of one name have the same weights, template and tokenizer, as the config says.
    pub identity: Option<Arc<str>>,
}

/// How much of its tier's load an endpoint takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Turns at once; None: as many as come.
    pub concurrency_max: Option<u32>,
    /// Its share beside the others': twice the weight is twice the load. At least 1.
    pub weight: u32,
}

impl Default for Share {
    fn default() -> Self {
        Self { concurrency_max: None, weight: 1 }
    }
}

/// What clients ask for.
#[derive(Debug, Clone)]
pub struct Model {
    pub name: Arc<str>,
    pub context_tokens_max: u32,
    pub modalities: Vec<Modality>,
    pub route: Route,
    /// The model's name at each tier's endpoints, where it is not its own.
    pub upstream_latency: Option<Arc<str>>,
    pub upstream_throughput: Option<Arc<str>>,
    pub routing: ModelRouting,
    /// Who is asked about what its turns bring.
    pub guard: Option<Arc<Guard>>,
    /// How it is to work at each tier.
    pub profiles: Profiles,
}

/// What routing knows of a model beside its route.
#[derive(Debug, Clone, Default)]
pub struct ModelRouting {
    /// Asked before the fleet's.
    pub rules: Arc<[Rule]>,
    pub latency: Accepts,
    pub throughput: Accepts,
    /// Turns that answer a user go to the throughput tier first, those that answer tools to the latency tier.
    pub splits: bool,
    /// Where the latency tier's first token is late, the throughput tier is asked as well.
    pub hedges: bool,
    /// How often a turn may go on at another endpoint after its first token.
    pub migrations_max: u8,
}

/// What a model takes in at one tier, where it is less than the model does.
#[derive(Debug, Clone, Default)]
pub struct Accepts {
    pub context_tokens_max: Option<u32>,
    pub modalities: Option<Vec<Modality>>,
}

impl Model {
    /// One of text, with 128k tokens of context, that prefers the latency tier and asks for nothing else.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            context_tokens_max: 131_072,
            modalities: vec![Modality::Text],
            route: Route::LatencyFirst,
            upstream_latency: None,
            upstream_throughput: None,
            routing: ModelRouting::default(),
            guard: None,
            profiles: Profiles::default(),
        }
    }

    /// What it takes in at the endpoints of `tier`.
    #[must_use]
    pub fn accepts(&self, tier: Tier) -> &Accepts {
        match tier {
            Tier::Latency => &self.routing.latency,
            Tier::Throughput => &self.routing.throughput,
        }
    }

    /// The name this model has at the endpoints of `tier`.
    #[must_use]
    pub fn upstream(&self, tier: Tier) -> &Arc<str> {
        match tier {
            Tier::Latency => self.upstream_latency.as_ref(),
            Tier::Throughput => self.upstream_throughput.as_ref(),
        }
        .unwrap_or(&self.name)
    }
}

/// All models and endpoints of one config.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// `EndpointId` is the index.
    pub endpoints: Vec<Endpoint>,
    pub models: Vec<Model>,
    /// The routing rules of all models, asked after a model's own.
    pub rules: Arc<[Rule]>,
    /// When the config was read, in seconds since the epoch: the models' `created`.
    pub created_unix_s: u64,
}

impl Fleet {
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| &*model.name == name)
    }

    /// Whether something that routes turns of this model looks at the step that a turn is.
    #[must_use]
    pub fn asks_for_the_step(&self, model: &str) -> bool {
        let of_model = self.model(model).map(|model| &model.routing);
        of_model.is_some_and(|routing| routing.splits || routing.rules.iter().any(Rule::asks_for_the_step))
            || self.rules.iter().any(Rule::asks_for_the_step)
    }

    /// What somebody sees of it who may use these models alone (None: all), at this tier alone (None: both).
    #[must_use]
    pub fn narrowed(&self, models: Option<&[String]>, only: Option<Tier>) -> Self {
        let is_among = |model: &Model| models.is_none_or(|names| names.iter().any(|name| **name == *model.name));
        let is_reached = |model: &Model| only.is_none_or(|tier| self.reaches(model, tier));
        let models = self.models.iter().filter(|model| is_among(model) && is_reached(model)).cloned().collect();
        Self { models, ..self.clone() }
    }

    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(usize::from(id.0))
    }

    /// The same, unless it is retired.
    #[must_use]
    pub fn live(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoint(id).filter(|endpoint| !endpoint.retired)
    }

    /// The endpoints of a tier, in the order of their ids: the config's order, and after it those that came later.
    pub fn tier(&self, tier: Tier) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        (0u16..)
            .zip(&self.endpoints)
            .filter(move |(_, e)| e.tier == tier && !e.retired)
            .map(|(i, e)| (EndpointId(i), e))
    }

    /// Those of all tiers.
    pub fn all_live(&self) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        (0u16..).zip(&self.endpoints).filter(|(_, e)| !e.retired).map(|(i, e)| (EndpointId(i), e))
    }

    /// The endpoints that could serve `model`.
    pub fn serving(&self, model: &Model) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(|endpoint| !endpoint.retired && self.reaches(model, endpoint.tier))
    }

    /// Whether some endpoint that could serve `model` speaks so, to a caller that may use this tier alone (None: both).
    #[must_use]
    pub fn speaks(&self, model: &Model, only: Option<Tier>, speaks: Speaks) -> bool {
        let is_allowed = |endpoint: &Endpoint| only.is_none_or(|tier| endpoint.tier == tier);
        self.serving(model).any(|endpoint| endpoint.speaks == speaks && is_allowed(endpoint))
    }

    /// What a request for `model` may bring beside what is known here, of a caller that may use this tier alone (None: both).
    #[must_use]
    pub fn takes(&self, model: &Model, only: Option<Tier>) -> Takes {
        match (self.speaks(model, only, Speaks::Responses), self.speaks(model, only, Speaks::Chat)) {
            (false, _) => Takes::Own,
            // A chat engine is told of no reasoning, and would miss other items.
            (true, true) => Takes::Sealed,
            (true, false) => Takes::Any,
        }
    }

    /// The contract of an endpoint.
    #[must_use]
    pub fn contract(&self, endpoint: EndpointId) -> Speaks {
        self.endpoint(endpoint).map_or_else(Speaks::default, |endpoint| endpoint.speaks)
    }

    /// Whether every endpoint that could serve `model` only plays a model.
    #[must_use]
    pub fn is_simulated(&self, model: &Model) -> bool {
        self.serving(model).all(|endpoint| endpoint.simulated)
    }

    /// Whether any turn of `model` may be served by `tier`.
    #[must_use]
    pub fn reaches(&self, model: &Model, tier: Tier) -> bool {
        let mut ruled = model.routing.rules.iter().chain(self.rules.iter()).map(|rule| rule.route);
        model.route.tiers().contains(&tier) || ruled.any(|route| route.tiers().contains(&tier))
    }
}
