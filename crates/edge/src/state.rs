//! What all client connections share. Touched per turn, never per token.

use crate::background::Jobs;
use crate::config::EdgeConfig;
use crate::count::Counting;
use crate::desk::Desk;
use crate::drive::Clock;
use crate::keys::{KeyConfig, Keys};
use crate::listen::Connections;
use crate::tls::Tls;
use arc_swap::ArcSwap;
use flashlane_backend::Backends;
use flashlane_engine::admission::{self, Admission, Foreseen, Ticket};
use flashlane_engine::router::Traits;
use flashlane_engine::{EndpointId, Fleet, Now, Shared};
use flashlane_store::Store;
use flashlane_telemetry::Metrics;
use flashlane_telemetry::metrics::{RenderError, Upstream};
use std::sync::Arc;

/// What the edge is built from.
pub struct Parts {
    pub config: EdgeConfig,
    /// What `config.tls` amounts to.
    pub tls: Option<Tls>,
    pub shared: Arc<Shared>,
    /// None: whoever reaches the server may use it.
    pub keys: Vec<KeyConfig>,
    pub backends: Arc<Backends>,
    pub admission: admission::Settings,
    pub store: Arc<dyn Store>,
    pub metrics: Arc<Metrics>,
}

/// See [`Parts`]; one a process.
pub struct State {
    pub(crate) config: EdgeConfig,
    pub(crate) tls: Option<Tls>,
    /// The fleet's snapshot that the next session begins with.
    pub shared: ArcSwap<Shared>,
    pub(crate) keys: Keys,
    pub(crate) backends: Arc<Backends>,
    pub(crate) desk: Desk,
    pub(crate) store: Arc<dyn Store>,
    pub metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) counting: Counting,
    pub(crate) connections: Arc<Connections>,
    pub(crate) jobs: Jobs,
}

impl State {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, tls, shared, keys, backends, admission, store, metrics } = parts;
        Self {
            desk: Desk::new(Admission::new(&admission, Arc::clone(&shared.fleet), seed())),
            connections: Connections::new(config.connections_max),
            jobs: Jobs::new(config.background_turns_max),
            config,
            tls,
            keys: Keys::new(&keys, &shared),
            shared: ArcSwap::new(shared),
            backends,
            store,
            metrics,
            clock: Clock::new(),
            counting: Counting::default(),
        }
    }

    /// Opens the connection that such a turn would need, and looks up what else it will find.
    pub(crate) fn foresee(&self, ticket: &Ticket, now: Now) -> Option<Foreseen> {
        let foreseen = self.desk.foresee(ticket, now)?;
        self.backends.warm(foreseen.endpoint);
        Some(foreseen)
    }

    /// The same for a client that has said no more than who it is, and maybe its model; if not, for each that it may ask for.
    pub(crate) fn expect(&self, fleet: &Fleet, traits: Traits, model: Option<&str>) -> Option<Foreseen> {
        let now = self.clock.now();
        let mut ticket = Ticket { model: "".into(), traits, tried: Vec::new(), prefer: None, planned: None };
        let named = model.and_then(|name| fleet.model(name));
        let mut first = None;
        for model in named.map_or(&fleet.models[..], std::slice::from_ref) {
            ticket.model = Arc::clone(&model.name);
            first = first.or(self.foresee(&ticket, now));
            // Models of one tier share what is drawn there.
            ticket.planned = first.map(|foreseen: Foreseen| foreseen.endpoint);
        }
        first
    }

    /// All metrics in Prometheus' text format.
    pub(crate) fn render_metrics(&self) -> Result<String, RenderError> {
        let upstreams = (0u16..).map(EndpointId).zip(self.backends.endpoints()).map(|(id, endpoint)| {
            let stats = self.backends.stats(id);
            let upstream = Upstream {
                connections_opened: stats.connections_opened,
                connections_reused: stats.connections_reused,
                requests_resent: stats.requests_resent,
                connections_idle: stats.connections_idle,
                turns_in_flight: u64::from(self.desk.in_flight(id)),
            };
            (&*endpoint.name, upstream)
        });
        self.metrics.render(upstreams, self.desk.standings())
    }
}

/// For draws between endpoints. Without the system's generator they are the same at each start, and no worse.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    let _ = getrandom::fill(&mut seed);
    seed
}
