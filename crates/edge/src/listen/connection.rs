//! One client's or operator's connection: its options, its TLS, and HTTP over it until it ends or becomes a WebSocket.

use super::connections::{Connections, Heard, Permit};
use super::entry::{Entered, Entry};
use super::guests::{Came, Guests};
use super::seats::Seat;
use super::streams::Streams;
use crate::afterwards::Afterwards;
use crate::again::Again;
use crate::config::LimitsConfig;
use crate::current::Current;
use crate::idle::{Idle, Requests};
use crate::inspected::Inspected;
use crate::peer::Peer;
use crate::routes;
use crate::stall::{Mark, Stall};
use crate::state::State;
use crate::strict;
use crate::tls::Tls;
use crate::watch::{Watch, Watched};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use flashlane_backend::Io;
use flashlane_telemetry::label::{Cut, Excess, Transport};
use http::Version;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{SockRef, TcpKeepalive};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tower::Service as _;

/// How long a connection may take to ask for something that had not yet when the drain began: it may have been on its way.
pub(super) const UNASKED_WAIT: Duration = Duration::from_secs(1);
/// How long a connection of an operator may take until its first request, its TLS handshake included.
const GUEST_WAIT_MAX: Duration = Duration::from_secs(5);
/// hyper's own lower bound.
const HEADER_BYTES_MIN: usize = 8192;
/// Requests over one HTTP/2 connection that were reset before anybody saw them, and those that we had to reset for what they were. One
/// more, and the connection is told to calm down and ended.
const HTTP2_RESETS_MAX: usize = 64;

/// What the connections of one listener are served with.
#[derive(Clone)]
pub(super) struct App {
    router: Router,
    tls: fn(&Current) -> Option<Tls>,
    state: Arc<State>,
    pub(super) connections: Arc<Connections>,
    /// None: it is for clients.
    guests: Option<Arc<Guests>>,
}

impl App {
    pub(super) fn for_clients(state: &Arc<State>) -> Self {
        let (router, connections) = (routes::router(state), Arc::clone(&state.connections));
        Self::new(router, |current| current.tls.clone(), state, connections)
    }

    /// So many at once.
    pub(super) fn for_operators(
        router: Router,
        state: &Arc<State>,
        connections: Arc<Connections>,
        count_max: usize,
    ) -> Self {
        let app = Self::new(router, |current| current.admin_tls.clone(), state, connections);
        Self { guests: Some(Guests::new(count_max)), ..app }
    }

    fn new(
        router: Router,
        tls: fn(&Current) -> Option<Tls>,
        state: &Arc<State>,
        connections: Arc<Connections>,
    ) -> Self {
        Self { router, tls, state: Arc::clone(state), connections, guests: None }
    }

    fn refuse(&self, (stream, address): (TcpStream, IpAddr), refusing: Option<OwnedSemaphorePermit>) {
        let (state, tls) = (Arc::clone(&self.state), (self.tls)(&self.state.current()));
        self.connections.spawn(async move {
            let entry = Entry { state: &state, tls, operator_until: None };
            entry.refuse((stream, address), Excess::Connections).await;
            drop(refusing);
        });
    }

    pub(super) fn is_for_clients(&self) -> bool {
        self.guests.is_none()
    }

    /// Serves one, or refuses it, in a task of its own.
    pub(super) fn begin(&self, (stream, address): (TcpStream, IpAddr), seat: Seat) {
        let permit = match seat {
            Seat::Served(permit) => permit,
            Seat::Refused(refusing) => match self.connections.permit_now() {
                Some(permit) => permit,
                None => return self.refuse((stream, address), refusing),
            },
        };
        let came = self.guests.as_ref().map(|guests| guests.enter(address));
        if let Some(Came::Instead(_) | Came::NoRoom) = &came {
            self.state.exceeded(Excess::Operators, Some(address), None);
        }
        let stay = match came {
            None => None,
            Some(Came::In(stay) | Came::Instead(stay)) => Some(Arc::new(stay)),
            Some(Came::NoRoom) => return,
        };
        let task = self.connections.spawn(serve((stream, address), self.clone(), permit.with_stay(stay.clone())));
        if let Some(stay) = stay {
            stay.begins_by(task);
        }
    }

    /// Waits while memory is too short for one more connection.
    pub(super) async fn memory_allows(&self) {
        self.state.memory.accepts().await;
    }
}

async fn serve((stream, address): (TcpStream, IpAddr), app: App, mut permit: Permit) {
    set_options(&stream, &app.state.current().config.limits);
    let is_for_clients = app.is_for_clients();
    let asks_until = (!is_for_clients).then(|| Instant::now() + GUEST_WAIT_MAX);
    let App { router, tls, state, connections, .. } = app;
    let mut draining = connections.draining();
    let entry = Entry { state: &state, tls: tls(&state.current()), operator_until: asks_until };
    let Some(Entered { io, address, place }) = entry.enter(stream, address, &mut draining).await else { return };
    if let Some(place) = place {
        permit.hold(place);
    }
    let peer = Peer::new(address, has_certificate(&io));
    let seen_by = Arc::clone(&state);
    let open = is_for_clients.then(|| state.metrics.connection(Transport::Http));
    let watch = Watch::default();
    let requests = Requests::default();
    let afterwards = Afterwards::default();
    let header_wait_max = Duration::from_millis(state.current().config.limits.header_ms_max);
    let mut idle = Idle::new(requests.clone(), header_wait_max, asks_until);
    let mark = Mark::default();
    let mut stall = Stall::new(&mark, state.current().config.limits.write_stall_ms_max);
    let io = TokioIo::new(Watched::new(Inspected::new((io, address), &state, mark), watch.clone()));
    let streams = Streams::new(&connections, &state);
    let protocol = protocol(&state.current().config.limits, streams.clone());
    let after = afterwards.clone();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        let peer = peer.behind(&seen_by.current().config, request.headers());
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(permit.clone());
        request.extensions_mut().insert(watch.clone());
        request.extensions_mut().insert(after.clone());
        if request.version() == Version::HTTP_2 {
            request.extensions_mut().insert(streams.begin());
        }
        request.extensions_mut().insert(requests.begin());
        answer(Arc::clone(&seen_by), (router.clone(), is_for_clients), request.map(Body::new))
    });
    let mut connection = pin!(protocol.serve_connection_with_upgrades(io, service));
    let again = Again::new();
    let mut is_leaving = draining.has_heard();
    if is_leaving {
        idle.hurry(UNASKED_WAIT);
    }
    // An error is the client's: it left, or spoke no HTTP.
    let _ = poll_fn(|cx| {
        if draining.poll(cx).is_some_and(Heard::is_end) {
            is_leaving = true;
            idle.hurry(UNASKED_WAIT);
        }
        if idle.poll_late(cx) {
            return Poll::Ready(Ok(()));
        }
        if idle.poll_over(cx) || (is_leaving && idle.was_asked()) {
            is_leaving = false;
            connection.as_mut().graceful_shutdown();
        }
        let polled = again.poll(cx, |cx| {
            afterwards.begin_poll();
            connection.as_mut().poll(cx)
        });
        afterwards.settle();
        if polled.is_pending() && stall.poll_over(cx) {
            state.metrics.client_cut(Cut::Stalled);
            return Poll::Ready(Ok(()));
        }
        polled
    })
    .await;
    drop(open);
}

/// What one listener's router, behind what is asked of every request, says to it.
async fn answer(
    state: Arc<State>,
    (mut router, is_for_clients): (Router, bool),
    request: Request,
) -> Result<Response, Infallible> {
    let routed = async |request| {
        if is_for_clients {
            return routes::answer(&state, router, request).await;
        }
        let Ok(response) = router.call(request).await;
        response
    };
    Ok(strict::guard(&state, request, routed).await)
}

/// The handshake has seen that it is good.
fn has_certificate(io: &Io) -> bool {
    match io {
        Io::Plain(_) => false,
        Io::Tls(stream) => stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty()),
    }
}

/// Small writes go out at once, and so do our acknowledgements, since a client with Nagle's algorithm on waits for them. A client that
/// is gone without a word, or does not read for as long as it takes to ping it in vain, is cut off by the kernel: an event stream has
/// no ping, and while it cannot be written nobody would notice.
fn set_options(stream: &TcpStream, limits: &LimitsConfig) {
    // A socket that refuses an option still works.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let silence = Duration::from_millis(limits.ping_ms);
    if !silence.is_zero() {
        let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(silence).with_interval(silence));
    }
    #[cfg(target_os = "linux")]
    {
        let _ = socket.set_tcp_quickack(true);
        if !silence.is_zero() {
            let _ = socket.set_tcp_user_timeout(Some(patience(limits)));
        }
    }
}

/// How long a client may be silent behind a ping.
fn patience(limits: &LimitsConfig) -> Duration {
    Duration::from_millis(limits.ping_ms).saturating_mul(limits.pings_unanswered_max.saturating_add(1))
}

fn protocol(limits: &LimitsConfig, streams: Streams) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_ms_max))
        .max_headers(limits.headers_max)
        .max_buf_size(limits.header_bytes_max.max(HEADER_BYTES_MIN));
    let silence = (limits.ping_ms > 0).then(|| Duration::from_millis(limits.ping_ms));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(silence)
        .keep_alive_timeout(patience(limits))
        .max_pending_accept_reset_streams(HTTP2_RESETS_MAX)
        .max_local_error_reset_streams(HTTP2_RESETS_MAX)
        .max_concurrent_streams(limits.http2_streams_max)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX));
    builder
}
