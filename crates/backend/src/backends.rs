//! The table of all endpoints, each behind its kind. Decides nothing: which endpoint serves a turn is known when it comes here.

use crate::client::Remote;
use crate::config::EndpointConfig;
use crate::error::{Error, Problem};
use crate::files;
use crate::guard::Guards;
use crate::hosted::Hosted;
use crate::openai::OpenAi;
use crate::responses::Responses;
use crate::simulator::Simulator;
use crate::stream::TokenStream;
use flashlane_engine::router::Load;
use flashlane_engine::{Endpoint, EndpointId, UpstreamFailure, UpstreamRequest};
use std::collections::BTreeSet;
use std::sync::Arc;

/// As many as an [`EndpointId`] can tell apart, and more than anyone needs.
pub(crate) const ENDPOINTS_MAX: usize = 1024;

/// One kind of endpoint.
pub enum Backend {
    Simulator(Simulator),
    OpenAi(OpenAi),
    Responses(Responses),
    Hosted(Hosted),
}

/// The endpoints of one config, with their connections, and those of configs before it where turns still run. Shared by all sessions.
#[derive(Default)]
pub struct Backends {
    /// `EndpointId` is the index.
    pub(crate) places: Vec<Place>,
    pub(crate) guards: Arc<Guards>,
}

/// Where an endpoint is, or was.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) endpoint: Endpoint,
    pub(crate) made_of: Arc<MadeOf>,
    /// None: it is retired, and nothing runs there any more.
    pub(crate) backend: Option<Arc<Backend>>,
}

/// What makes an endpoint another one when it changes.
#[derive(PartialEq, Eq)]
pub(crate) struct MadeOf {
    config: EndpointConfig,
    /// What the files held that it names.
    files: u64,
}

/// How an endpoint's connections were used since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub connections_opened: u64,
    /// Turns that found a connection open.
    pub connections_reused: u64,
    /// Requests sent again on a fresh connection, because a reused one turned out to be closed.
    pub requests_resent: u64,
    /// Open and idle now.
    pub connections_idle: u64,
    /// Cancelled requests that the engine has not let go of now, where that is waited for (llama.cpp, Ollama).
    pub cancelled_generating: u64,
    /// Those that it had not let go of in its time.
    pub cancels_unanswered: u64,
}

impl Backends {
    /// Checks every endpoint, reads keys and certificates, and connects to nothing.
    ///
    /// # Errors
    /// Names the endpoint and the field at fault.
    pub fn new(configs: &[EndpointConfig]) -> Result<Self, Error> {
        let mut names = BTreeSet::new();
        let mut places = Vec::with_capacity(configs.len());
        for config in configs {
            if places.len() == ENDPOINTS_MAX {
                return Err(config.error("name", Problem::TooMany { count_max: ENDPOINTS_MAX }));
            }
            if !names.insert(&config.name) {
                return Err(config.error("name", Problem::Duplicate));
            }
            let endpoint = Endpoint {
                name: config.name.as_str().into(),
                tier: config.tier.into(),
                speaks: config.speaks(),
                simulated: config.is_simulated(),
                share: config.share()?,
                continues: config.continues(),
                retired: false,
                hidden: config.hidden(),
            };
            // Looked at before they are read: what changes in between is told by the next look.
            let made_of = Arc::new(MadeOf { config: config.clone(), files: files::digest(config.files()) });
            places.push(Place { endpoint, made_of, backend: Some(Arc::new(config.check()?)) });
        }
        Ok(Self { places, guards: Arc::default() })
    }

    /// With the guards of the same config.
    #[must_use]
    pub fn guarded_by(self, guards: Guards) -> Self {
        Self { guards: Arc::new(guards), ..self }
    }

    /// Those of the config that these endpoints came with.
    #[must_use]
    pub fn guards(&self) -> &Arc<Guards> {
        &self.guards
    }

    /// The endpoints as a fleet has them, by their ids: the retired ones too.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.places.iter().map(|place| &place.endpoint)
    }

    /// Those that have connections: all but the retired ones where nothing runs.
    pub fn open_endpoints(&self) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        let open = (0u16..).map(EndpointId).zip(&self.places).filter(|(_, place)| place.backend.is_some());
        open.map(|(id, place)| (id, &place.endpoint))
    }

    /// Begins a turn's request. Does nothing until the stream is polled, and then needs tokio's reactor and timer.
    #[must_use]
    pub fn open(&self, endpoint: EndpointId, request: UpstreamRequest) -> TokenStream {
        match self.backend(endpoint) {
            Some(Backend::OpenAi(openai)) => openai.open(request),
            Some(Backend::Responses(responses)) => responses.open(&request),
            Some(Backend::Hosted(hosted)) => hosted.open(request),
            Some(Backend::Simulator(simulator)) => simulator.open(&request),
            None => TokenStream::Failed(Some(UpstreamFailure::Unreachable {
                reason: format!("endpoint {} is not in the config", endpoint.0),
            })),
        }
    }

    /// Sees to it that the endpoint has an open, idle connection for the next turn. Returns at once; call it within a tokio runtime.
    pub fn warm(&self, endpoint: EndpointId) {
        if let Some(remote) = self.remote(endpoint) {
            remote.warm();
        }
    }

    /// Counters of one endpoint; all 0 for a simulated one.
    #[must_use]
    pub fn stats(&self, endpoint: EndpointId) -> Stats {
        match self.remote(endpoint) {
            Some(remote) => {
                let stats = remote.stats();
                let connections_idle = stats.connections_idle + self.idle_sockets(endpoint) as u64;
                Stats { connections_idle, ..stats }
            }
            None => Stats::default(),
        }
    }

    /// What engines have said of their load since this was asked last, each once. From the first time on they are asked in time
    /// (`probe_ms`), until nobody has asked for a minute. Call it within a tokio runtime.
    pub fn loads(&self) -> impl Iterator<Item = (EndpointId, Load)> {
        let ids = (0u16..).map(EndpointId).zip(&self.places).filter(|(_, place)| !place.endpoint.retired);
        ids.map(|(id, _)| id).filter_map(|id| Some((id, self.remote(id)?.load()?)))
    }

    fn idle_sockets(&self, endpoint: EndpointId) -> usize {
        match self.backend(endpoint) {
            Some(Backend::Responses(responses)) => responses.idle(),
            Some(Backend::OpenAi(_) | Backend::Hosted(_) | Backend::Simulator(_)) | None => 0,
        }
    }

    fn remote(&self, endpoint: EndpointId) -> Option<&Arc<Remote>> {
        match self.backend(endpoint)? {
            Backend::OpenAi(openai) => Some(&openai.remote),
            Backend::Responses(responses) => Some(&responses.remote),
            Backend::Hosted(hosted) => Some(&hosted.remote),
            Backend::Simulator(_) => None,
        }
    }

    fn backend(&self, endpoint: EndpointId) -> Option<&Backend> {
        self.places.get(usize::from(endpoint.0))?.backend.as_deref()
    }
}
