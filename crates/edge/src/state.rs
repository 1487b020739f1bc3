//! What all client connections share. Touched per turn, never per token.

use crate::admin::Glance;
use crate::assembling::Assembling;
use crate::background::Jobs;
use crate::children::{Children, Place};
use crate::clock::{Clock, unix_ms};
use crate::config::EdgeConfig;
use crate::count::Counting;
use crate::current::{Current, Shown};
use crate::desk::{Desk, Signal};
use crate::drain::{Haste, Stop};
use crate::keys::{KeyConfig, Keys, own_limits};
use crate::listen::Connections;
use crate::live::Live;
use crate::memory::Memory;
use crate::patience::Patient;
use crate::places::{self, Places};
use crate::tls::Tls;
use arc_swap::{ArcSwap, Guard};
use flashlane_backend::{Backends, Stats};
use flashlane_engine::admission::limit::Allowance;
use flashlane_engine::admission::{self, Admission, Ahead, Asked, Ending, Foreseen, Grant, Prefill, Ticket};
use flashlane_engine::router::{Change, Traits};
use flashlane_engine::{Fleet, Now, Shared, Tier};
use flashlane_store::{OwnerId, Store, UsageEntry};
use flashlane_telemetry::label::Excess;
use flashlane_telemetry::metrics::{RenderError, Runtime, Upstream};
use flashlane_telemetry::{Metrics, Refusals, Turns, log};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What the edge is built from.
pub struct Parts {
    pub config: EdgeConfig,
    /// What `config.tls` amounts to.
    pub tls: Option<Tls>,
    /// What `config.admin.tls` amounts to.
    pub admin_tls: Option<Tls>,
    pub shared: Arc<Shared>,
    /// None: whoever reaches the server may use it.
    pub keys: Vec<KeyConfig>,
    pub backends: Arc<Backends>,
    /// The whole config, as operators may see it.
    pub shown: Shown,
    /// `own` is that of `keys`.
    pub admission: admission::Settings,
    pub store: Arc<dyn Store>,
    pub metrics: Arc<Metrics>,
    /// The last turns that have ended.
    pub turns: Arc<Turns>,
    /// How many of the traces that begin here are kept, in percent. None: turns are not traced.
    pub trace_sample_percent: Option<u8>,
}

/// See [`Parts`]; one a process.
pub struct State {
    pub(crate) current: ArcSwap<Current>,
    /// Its number, to be compared.
    generation: AtomicU64,
    pub(crate) backends: ArcSwap<Backends>,
    /// What was counted at endpoints of these names whose connections are closed.
    counted: Mutex<BTreeMap<Arc<str>, Stats>>,
    pub(crate) desk: Desk,
    pub(crate) store: Arc<dyn Store>,
    /// How long it is waited for.
    store_ms_max: Arc<AtomicU64>,
    pub metrics: Arc<Metrics>,
    pub turns: Arc<Turns>,
    pub(crate) trace_sample_percent: Option<u8>,
    pub(crate) refusals: Refusals,
    pub(crate) live: Arc<Live>,
    pub(crate) glance: Glance,
    pub(crate) started_unix_ms: u64,
    pub(crate) clock: Clock,
    pub(crate) counting: Counting,
    pub(crate) connections: Arc<Connections>,
    pub(crate) assembling: Arc<Assembling>,
    pub(crate) places: Arc<Places>,
    pub(crate) memory: Memory,
    pub(crate) jobs: Jobs,
    pub(crate) children: Children,
    pub(crate) stop: Stop,
}

impl State {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, tls, admin_tls, shared, keys, backends, shown, admission, .. } = parts;
        let Parts { store, metrics, turns, trace_sample_percent, .. } = parts;
        let clock = Clock::new(unix_ms);
        let admission = admission::Settings { own: own_limits(&keys), ..admission };
        let current = Current {
            number: 1,
            read_unix_ms: clock.now().unix_ms,
            tls,
            admin_tls,
            keys: Keys::new(&keys, &shared, 1),
            shared,
            guards: Arc::clone(backends.guards()),
            admission,
            shown,
            config,
        };
        metrics.config_holds(current.number, current.read_unix_ms);
        let store_ms_max = Arc::new(AtomicU64::new(current.config.limits.store_ms_max));
        Self {
            desk: Desk::new(Admission::new(&current.admission, Arc::clone(&current.shared.fleet), seed())),
            assembling: Assembling::new(current.config.limits.assembling_bytes_max),
            places: Places::new(&current.config),
            memory: Memory::new(current.config.limits.memory_bytes_max),
            connections: Connections::new(current.config.limits.connections_max),
            jobs: Jobs::new(current.config.limits.background_turns_max),
            children: Children::new(&current.config.limits, Arc::clone(&metrics)),
            generation: AtomicU64::new(current.number),
            current: ArcSwap::from_pointee(current),
            backends: ArcSwap::new(backends),
            counted: Mutex::default(),
            store: Arc::new(Patient::new(store, Arc::clone(&metrics), Arc::clone(&store_ms_max))),
            store_ms_max,
            metrics,
            turns,
            trace_sample_percent,
            refusals: Refusals::default(),
            live: Arc::default(),
            glance: Glance::default(),
            started_unix_ms: clock.now().unix_ms,
            clock,
            counting: Counting::default(),
            stop: Stop::new(),
        }
    }

    /// With another clock on the wall: milliseconds since the Unix epoch, asked for once a second.
    #[must_use]
    pub fn with_wall(mut self, unix_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(unix_ms);
        self
    }

    /// Asks the server to leave. The first who asks decides how; whether this was the first.
    pub fn stop(&self, haste: Haste) -> bool {
        self.stop.ask(haste)
    }

    /// Waits until somebody has asked it to.
    pub async fn stopping(&self) -> Haste {
        self.stop.asked().await
    }

    /// The config that holds.
    pub fn current(&self) -> Guard<Arc<Current>> {
        self.current.load()
    }

    /// Its number.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whoever begins something from here on finds this one.
    pub(crate) fn publish(&self, current: Arc<Current>) {
        let (number, read_unix_ms) = (current.number, current.read_unix_ms);
        self.store_ms_max.store(current.config.limits.store_ms_max, Ordering::Relaxed);
        self.current.store(current);
        self.generation.store(number, Ordering::Release);
        self.metrics.config_holds(number, read_unix_ms);
    }

    pub(crate) fn counted(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Stats>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn backends(&self) -> Guard<Arc<Backends>> {
        self.backends.load()
    }

    /// Opens the connection that such a turn would need, and looks up what else it will find.
    pub(crate) fn foresee(&self, ticket: &Ticket, now: Now) -> Option<Foreseen> {
        let foreseen = self.desk.foresee(ticket, now)?;
        self.backends().warm(foreseen.endpoint);
        Some(foreseen)
    }

    /// The same for a client that has said no more than who it is, and maybe its model; if not, for each that it may ask for.
    pub(crate) fn expect(&self, fleet: &Fleet, traits: Traits, model: Option<&str>) -> Option<Foreseen> {
        let now = self.clock.now();
        let mut ticket =
            Ticket { model: "".into(), traits, tried: Vec::new(), prefer: None, planned: None, goes_on: None };
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

    /// The same where a prompt may be read as well. The signal says that it has to make room.
    pub(crate) fn prepare(&self, ahead: &Ahead, now: Now) -> Option<(Prefill, Signal)> {
        let (endpoint, prefill) = self.desk.prepare(ahead, self.backends().loads(), now)?;
        if prefill.is_none() {
            self.backends().warm(endpoint);
        }
        prefill
    }

    /// A second endpoint for a turn whose first token is late at this one, where memory suffices for both.
    pub(crate) fn hedge(&self, ticket: &Ticket, late: Grant, now: Now) -> Option<Grant> {
        let has_memory = !self.memory.stage().sheds_throughput();
        has_memory.then(|| self.desk.hedge(ticket, late, self.backends().loads(), now)).flatten()
    }

    /// An endpoint is left out, or is back.
    pub(crate) fn endpoint_changed(&self, fleet: &Fleet, change: Change) {
        if let Change::Out { endpoint, cause, .. } = change
            && let Some(endpoint) = fleet.endpoint(endpoint)
        {
            self.metrics.endpoint_out(&endpoint.name, cause);
        }
        log::endpoint(fleet, change);
    }

    /// Somebody is refused since there is too much of something. The id is that of the answer, if there is one.
    pub(crate) fn exceeded(&self, excess: Excess, from: Option<IpAddr>, request_id: Option<&str>) {
        self.metrics.excess(excess);
        self.refusals.exceeded(excess, from, request_id, self.clock.mono_ns());
    }

    /// Where the response of that id is kept, if it is.
    pub(crate) fn store_of(&self, owner: OwnerId, id: &str) -> &Arc<dyn Store> {
        match self.children.known(owner, id).map(|known| known.place) {
            Some(Place::Memory) => self.children.memory(),
            Some(Place::Nowhere | Place::Store) | None => &self.store,
        }
    }

    /// Writes a row of the ledger.
    pub(crate) fn bill(&self, row: UsageEntry) {
        if let Err(error) = taken(self.store.usage_append(row)) {
            self.metrics.usage_row_lost();
            tracing::warn!(error = &error as &dyn std::error::Error, "a turn's usage is not in the ledger");
        }
    }

    /// A turn that admission lets go to the throughput tier, or wait for it, is refused while memory runs too short for it.
    pub(crate) fn shed(&self, (asked, signal): (Asked, Option<Signal>), now: Now) -> (Asked, Option<Signal>) {
        if !self.memory.stage().sheds_throughput() {
            return (asked, signal);
        }
        let allowance = match asked {
            Asked::Granted(grant, allowance) if grant.decision.tier == Tier::Throughput => {
                self.desk.release(grant, &Ending::NOTHING, now);
                allowance
            }
            Asked::Queued(place) if place.tier == Tier::Throughput => {
                self.desk.forget(place.waiter, now);
                Allowance::default()
            }
            Asked::Granted(..) | Asked::Queued(_) | Asked::Refused(..) => return (asked, signal),
        };
        self.exceeded(Excess::MemoryTurn, None, None);
        (Asked::Refused(places::refusal(Excess::MemoryTurn), allowance), None)
    }

    /// All metrics in Prometheus' text format.
    pub(crate) fn render_metrics(&self) -> Result<String, RenderError> {
        self.metrics.store_bytes(self.store.bytes());
        self.metrics.runtime(&runtime());
        let now = self.clock.now();
        // In this order: what a sweep forgets meanwhile must not be written anew from what was before it.
        let counted = self.counted();
        let backends = self.backends();
        let mut upstreams = BTreeMap::<&str, Upstream>::new();
        for (id, endpoint) in backends.open_endpoints() {
            // What its connections of before counted: a counter never falls.
            let before = || upstream_of(counted.get(&endpoint.name).copied().unwrap_or_default());
            let upstream = upstreams.entry(&endpoint.name).or_insert_with(before);
            let (seen, _) = self.desk.seen(id, now);
            add(upstream, backends.stats(id));
            upstream.turns_in_flight += u64::from(seen.in_flight);
            if !endpoint.retired {
                upstream.health = seen.standing;
                upstream.running_told = self.desk.load_told(id, now).map(|load| load.running);
                self.metrics.endpoint_seen(&endpoint.name, seen);
            }
        }
        let (held, most) = self.connections.places();
        self.metrics.places(held, most);
        self.metrics.memory(self.memory.used_bytes(), self.memory.bytes_max(), self.memory.stage() as u8);
        self.metrics.render(upstreams, self.desk.standings())
    }
}

/// The runtime's account of itself; nothing outside of one.
fn runtime() -> Runtime {
    let Ok(handle) = tokio::runtime::Handle::try_current() else { return Runtime::default() };
    let metrics = handle.metrics();
    let workers = metrics.num_workers();
    Runtime {
        tasks: metrics.num_alive_tasks(),
        workers,
        busy: (0..workers).map(|worker| metrics.worker_total_busy_duration(worker)).sum(),
        queued: metrics.global_queue_depth(),
        parks: (0..workers).map(|worker| metrics.worker_park_count(worker)).sum(),
    }
}

fn upstream_of(stats: Stats) -> Upstream {
    let mut upstream = Upstream::default();
    add(&mut upstream, stats);
    upstream
}

fn add(upstream: &mut Upstream, stats: Stats) {
    upstream.connections_opened += stats.connections_opened;
    upstream.connections_reused += stats.connections_reused;
    upstream.requests_resent += stats.requests_resent;
    upstream.connections_idle += stats.connections_idle;
    upstream.cancelled_generating += stats.cancelled_generating;
    upstream.cancels_unanswered += stats.cancels_unanswered;
}

/// Whether the store has taken the row: what it takes it writes, whoever waits; what fails at its disk, the commits tell of.
fn taken(mut appended: flashlane_store::Answer<()>) -> Result<(), flashlane_store::Error> {
    match appended.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Ok(()),
    }
}

/// For draws between endpoints. Without the system's generator they are the same at each start, and no worse.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    let _ = getrandom::fill(&mut seed);
    seed
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashlane_store::Error;
    use std::future::{pending, ready};

    #[test]
    fn a_row_that_the_store_refuses_is_lost_and_one_that_waits_is_not() {
        assert!(matches!(taken(Box::pin(ready(Err(Error::Busy { queue_max: 1 })))), Err(Error::Busy { .. })));
        assert!(taken(Box::pin(ready(Ok(())))).is_ok());
        assert!(taken(Box::pin(pending())).is_ok());
    }
}
