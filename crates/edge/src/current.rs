//! What the config makes of a running server, swapped whole: whoever begins something takes the one that holds then, and a WebSocket takes
//! over the next between two of its turns. Reads no file.

use crate::config::EdgeConfig;
use crate::keys::{Caller, KeyConfig, Keys, own_limits};
use crate::state::State;
use crate::tls::Tls;
use flashlane_backend::{Backends, Change, Full, Guards};
use flashlane_engine::router::Digest;
use flashlane_engine::seal::Keyring;
use flashlane_engine::{EndpointId, Fleet, Owner, Settings, Shared, Tier, admission};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::{Arc, PoisonError};

/// How long what runs may go on after its key was revoked: within a minute of the config's change the connection is closed.
const REVOKED_MS_MAX: u64 = 55_000;
/// Over so long the idle connections of revoked keys are closed.
const SPREAD_MS: u64 = 1_000;

/// The config that holds, as far as it can be another one without a restart.
pub struct Current {
    /// 1: the one of the start.
    pub number: u64,
    pub(crate) read_unix_ms: u64,
    pub(crate) config: EdgeConfig,
    pub(crate) tls: Option<Tls>,
    pub(crate) admin_tls: Option<Tls>,
    pub shared: Arc<Shared>,
    /// Those that its models name: who goes by an older config asks the guards of that one.
    pub(crate) guards: Arc<Guards>,
    pub(crate) keys: Keys,
    /// What the file says; operators may have changed it since.
    pub(crate) admission: admission::Settings,
    pub(crate) shown: Shown,
}

/// The whole config, as operators may see it.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The file, or what stands for it.
    pub source: String,
    pub config: Value,
}

/// What another config says.
pub struct Renewal {
    pub config: EdgeConfig,
    /// What `config.tls` and `config.admin.tls` amount to.
    pub tls: Option<Tls>,
    pub admin_tls: Option<Tls>,
    pub settings: Settings,
    /// Its endpoints are those of `backends`.
    pub fleet: Fleet,
    pub backends: Backends,
    /// None: as before.
    pub ring: Option<Arc<Keyring>>,
    pub keys: Vec<KeyConfig>,
    /// `own` is that of `keys`.
    pub admission: admission::Settings,
    pub shown: Shown,
}

/// What a client that came with an earlier config may do by a later one.
pub(crate) struct Rights {
    pub(crate) shared: Arc<Shared>,
    pub(crate) only: Option<Tier>,
}

/// When a connection of a key that is gone is closed, if nothing runs on it, and by when whatever runs. The first is a moment of its own for each, by
/// its random id.
pub(crate) fn closing_ms(id: &str) -> (u64, u64) {
    let sum = id.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    (sum % SPREAD_MS, REVOKED_MS_MAX)
}

impl Current {
    /// None: its key is not one of this config's.
    pub(crate) fn rights(&self, owner: Owner, secret: Option<Digest>) -> Option<Rights> {
        if self.keys.is_empty() && secret.is_none() {
            return Some(Rights { shared: Arc::clone(&self.shared), only: None });
        }
        // Who came by a key has no rights but by that: the last one may have been taken out.
        let Caller { shared, only, .. } = self.keys.of(&secret?).filter(|caller| caller.owner == owner)?;
        Some(Rights { shared: Arc::clone(shared), only: *only })
    }

    /// The same caller by this config. None: its key is not one of this config's.
    pub(crate) fn again<'a>(&self, caller: &'a Caller) -> Option<Cow<'a, Caller>> {
        if caller.generation == self.number {
            return Some(Cow::Borrowed(caller));
        }
        let Rights { shared, only } = self.rights(caller.owner, caller.secret)?;
        Some(Cow::Owned(Caller { shared, only, generation: self.number, ..caller.clone() }))
    }

    /// What clients are shown in TLS, and operators.
    #[must_use]
    pub fn certificates(&self) -> [(&'static str, Option<&Tls>); 2] {
        [("clients", self.tls.as_ref()), ("admin", self.admin_tls.as_ref())]
    }

    /// How many connections of clients there may be.
    #[must_use]
    pub fn connections_max(&self) -> u32 {
        self.config.limits.connections_max
    }

    /// The one after this one.
    fn next(&self, renewal: Renewal, backends: &Backends, read_unix_ms: u64) -> Self {
        let Renewal { config, tls, admin_tls, settings, mut fleet, ring, keys, admission, shown, .. } = renewal;
        fleet.endpoints = backends.endpoints().cloned().collect();
        fleet.created_unix_s = self.shared.fleet.created_unix_s;
        let ring = ring.unwrap_or_else(|| Arc::clone(&self.shared.ring));
        let shared = Arc::new(Shared { settings, fleet: Arc::new(fleet), ring, ..Shared::clone(&self.shared) });
        let number = self.number + 1;
        Self {
            number,
            read_unix_ms,
            config,
            tls: Tls::kept(self.tls.as_ref(), tls),
            admin_tls: Tls::kept(self.admin_tls.as_ref(), admin_tls),
            keys: Keys::new(&keys, &shared, number),
            admission: admission::Settings { own: own_limits(&keys), ..admission },
            shared,
            guards: Arc::clone(backends.guards()),
            shown,
        }
    }
}

impl State {
    /// Puts another config in the place of the one that holds: at once for whatever begins from here on, while what runs goes on. Its number,
    /// and what became of endpoints. To be called by one at a time.
    ///
    /// # Errors
    /// There is no place for more endpoints. Then nothing has changed.
    pub fn renew(&self, mut renewal: Renewal) -> Result<(u64, Vec<Change>), Full> {
        self.sweep();
        let (before, held) = (self.current.load_full(), self.backends.load_full());
        let (backends, changes) = held.succeeded_by(std::mem::take(&mut renewal.backends))?;
        let other: Vec<EndpointId> = backends.other_than(&held).collect();
        before.shared.ratios.lock().unwrap_or_else(PoisonError::into_inner).forget(|id| other.contains(&id));
        let now = self.clock.now();
        let current = Arc::new(before.next(renewal, &backends, now.unix_ms));
        let number = current.number;
        // Whoever still knows the config of before finds its endpoints there too.
        self.backends.store(Arc::new(backends));
        let publish = || self.publish(Arc::clone(&current));
        self.desk.renew(&current.shared.fleet, (&before.admission, &current.admission), publish, now);
        self.places.adopt(&current.config.limits);
        self.connections.renew(number);
        self.jobs.renewed();
        Ok((number, changes))
    }

    /// Closes the connections of retired endpoints where nothing runs any more. Costs nothing where there is none.
    pub fn sweep(&self) {
        let held = self.backends.load_full();
        let idle: Vec<EndpointId> = held
            .retired()
            .filter(|id| !self.desk.is_in_use(*id) && held.stats(*id).cancelled_generating == 0)
            .collect();
        if idle.is_empty() {
            return;
        }
        let swept = held.without(&idle);
        let mut counted = self.counted();
        for id in idle {
            let Some(endpoint) = held.endpoints().nth(usize::from(id.0)) else { continue };
            if swept.open_endpoints().any(|(_, open)| open.name == endpoint.name) {
                let (sum, more) = (counted.entry(Arc::clone(&endpoint.name)).or_default(), held.stats(id));
                sum.connections_opened += more.connections_opened;
                sum.connections_reused += more.connections_reused;
                sum.requests_resent += more.requests_resent;
                sum.cancels_unanswered += more.cancels_unanswered;
            } else {
                counted.remove(&endpoint.name);
                self.metrics.endpoint_gone(&endpoint.name);
            }
        }
        self.backends.store(Arc::new(swept));
    }
}
