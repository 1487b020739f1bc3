//! What clients may have of connections and handshakes, shared by all of them: the places that they take, given back when they are
//! dropped. How many there are, [`addresses`] knows. This machine's own clients are not counted by address.

mod addresses;

use crate::config::{EdgeConfig, LimitsConfig};
use crate::listen::Permit;
use crate::peer::Peer;
use crate::reply::Refused;
use crate::routes::RequestId;
use crate::state::State;
pub(crate) use addresses::Network;
use addresses::{Addresses, Handshakes, Most};
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use flashlane_engine::{ErrorKind, Refusal};
use flashlane_telemetry::label::Excess;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

/// Until one that was refused may try again.
const RETRY_AFTER_MS: u64 = 1000;

/// One a process.
pub(crate) struct Places {
    addresses: Mutex<Addresses>,
    began: Instant,
}

/// A connection of an address.
pub(crate) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

/// A TLS handshake.
pub(crate) struct Handshaking {
    places: Arc<Places>,
    address: Option<IpAddr>,
}

impl Places {
    pub(crate) fn new(config: &EdgeConfig) -> Arc<Self> {
        let most = Most::from(&config.limits);
        Arc::new(Self { addresses: Mutex::new(Addresses::new(most)), began: Instant::now() })
    }

    /// Other limits from here on.
    pub(crate) fn adopt(&self, limits: &LimitsConfig) {
        self.addresses().adopt(Most::from(limits));
    }

    /// None: it is not counted.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Option<Place>, Excess> {
        let Some(address) = counted(address) else { return Ok(None) };
        self.addresses().open(address, self.now_ns())?;
        Ok(Some(Place { places: Arc::clone(self), address }))
    }

    pub(crate) fn handshake(self: &Arc<Self>, address: IpAddr) -> Result<Handshaking, Excess> {
        let address = counted(address);
        self.addresses().begin_handshake(address, self.now_ns())?;
        Ok(Handshaking { places: Arc::clone(self), address })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// None: this machine's.
fn counted(address: IpAddr) -> Option<IpAddr> {
    Some(address).filter(|address| !address.to_canonical().is_loopback())
}

impl From<&LimitsConfig> for Most {
    fn from(limits: &LimitsConfig) -> Self {
        let most = |limit: u32| Some(limit).filter(|&limit| limit > 0);
        let handshakes = |waiting, per_second| Handshakes { waiting: most(waiting), per_second: most(per_second) };
        Self {
            connections: most(limits.connections_per_address()),
            handshakes: handshakes(limits.handshakes_waiting_max, limits.handshakes_per_second_max),
            address_handshakes: handshakes(
                limits.handshakes_waiting_per_address_max,
                limits.handshakes_per_second_per_address_max,
            ),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.addresses().close(self.address, self.places.now_ns());
    }
}

impl Drop for Handshaking {
    fn drop(&mut self) {
        self.places.addresses().end_handshake(self.address);
    }
}

/// The answer to who is refused for one of these.
pub(crate) fn refusal(excess: Excess) -> Refusal {
    let (kind, message) = match excess {
        Excess::Connections => {
            (ErrorKind::Overloaded, "The server has as many connections as it may. Please try again in 1s.")
        }
        Excess::AddressConnections => {
            (ErrorKind::RateLimited, "This address has too many connections. Please try again in 1s.")
        }
        Excess::HandshakesWaiting
        | Excess::HandshakesPerSecond
        | Excess::AddressHandshakesWaiting
        | Excess::AddressHandshakesPerSecond => {
            (ErrorKind::RateLimited, "Too many connections are being made. Please try again in 1s.")
        }
        Excess::MemorySession | Excess::MemoryTurn => {
            (ErrorKind::Overloaded, "The server is short of memory. Please try again later.")
        }
        Excess::Operators => (ErrorKind::RateLimited, "Too many operators are connected. Please try again in 1s."),
        Excess::Proxy => (ErrorKind::InvalidValue, "The proxy does not say who its client is."),
    };
    Refusal::new(kind, message).with_retry_after_ms(Some(RETRY_AFTER_MS))
}

/// A request of a client whom a proxy names takes a place of that client's; a WebSocket keeps it.
pub(crate) fn take(state: &State, request: &mut Request) -> Result<Option<Arc<Place>>, Refused> {
    let forwarded = request.extensions().get::<Peer>().filter(|peer| peer.is_forwarded).map(|peer| peer.address);
    let Some(address) = forwarded else { return Ok(None) };
    let taken = state.places.take(address).map_err(|excess| {
        let id = request.extensions().get::<RequestId>().map(|RequestId(id)| &**id);
        state.exceeded(excess, Some(address), id);
        Refused(refusal(excess))
    });
    let place = taken?.map(Arc::new);
    if let (Some(place), Some(permit)) = (&place, request.extensions_mut().get_mut::<Permit>()) {
        permit.hold(Arc::clone(place));
    }
    Ok(place)
}

/// The answer takes the place with it, until it has ended.
pub(crate) fn hold(place: Option<Arc<Place>>, response: Response) -> Response {
    match place {
        Some(place) => response.map(|body| Body::new(Held { body, _place: place })),
        None => response,
    }
}

/// A body that holds its client's place.
struct Held {
    body: Body,
    _place: Arc<Place>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
