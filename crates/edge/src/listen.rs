//! The listeners and the tasks of connections. Each task belongs to [`Connections`], which ends it at shutdown.

use crate::admin;
use crate::afterwards::Afterwards;
use crate::again::Again;
use crate::background;
use crate::config::EdgeConfig;
use crate::error::Error;
use crate::idle::{Idle, Requests};
use crate::routes;
use crate::state::State;
use crate::tls::Tls;
use crate::watch::{Watch, Watched};
use axum::Router;
use axum::body::Body;
use dashmap::DashMap;
use flashlane_backend::Io;
use flashlane_telemetry::label::Transport;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{SockRef, TcpKeepalive};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tower::Service as _;

/// Most operator connections at once.
const ADMIN_CONNECTIONS_MAX: u32 = 64;
/// After an `accept` that failed for want of resources (file descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// After the drain, for followers of what it has ended: one read of the store and one write.
const FOLLOW_WAIT_MAX: Duration = Duration::from_millis(250);
/// Pings, or as many times their interval, after which a silent client counts as gone.
pub(crate) const PINGS_MAX: u32 = 3;
/// hyper's own lower bound.
const HEADER_BYTES_MIN: usize = 8192;

/// Bound sockets, not yet served.
#[derive(Debug)]
pub struct Listeners {
    clients: TcpListener,
    admin: TcpListener,
}

impl Listeners {
    /// Binds both addresses; a port of 0 takes a free one.
    ///
    /// # Errors
    /// An address that cannot be bound; the error names the setting that changes it.
    pub async fn bind(config: &EdgeConfig) -> Result<Self, Error> {
        Ok(Self {
            clients: bind(config.listen, "listen", "listen").await?,
            admin: bind(config.admin_listen, "admin_listen", "admin-listen").await?,
        })
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn clients_address(&self) -> io::Result<SocketAddr> {
        self.clients.local_addr()
    }

    /// Where operators connect.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until `shutdown` is done and running turns have ended, or `drain_ms_max` later.
    pub async fn serve(self, state: Arc<State>, shutdown: impl Future<Output = ()>) {
        let Self { clients, admin } = self;
        background::recover(&state).await;
        let operators = Connections::new(ADMIN_CONNECTIONS_MAX);
        let admin_app = App::new(admin::router(&state), None, &state, Arc::clone(&operators));
        operators.spawn(accept_all(admin, admin_app));
        let client_app = App::new(routes::router(&state), state.tls.clone(), &state, Arc::clone(&state.connections));
        tokio::select! {
            () = shutdown => {}
            () = accept_all(clients, client_app) => {}
        }
        // Operators are answered until the end: /readyz tells them that this is one.
        let wait_max = Duration::from_millis(state.config.drain_ms_max);
        let (have_ended, ()) = tokio::join!(state.connections.drain(wait_max), state.jobs.drain(wait_max));
        // Who follows a background response that was failed just now reads that it is.
        if !have_ended && !state.connections.have_ended(FOLLOW_WAIT_MAX).await {
            tracing::warn!("turns still running after {} ms are cancelled", wait_max.as_millis());
        }
        state.connections.end().await;
        operators.end().await;
    }
}

async fn bind(address: SocketAddr, setting: &'static str, flag: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            return Error::Taken { address, setting, flag };
        }
        Error::Bind { address, setting, flag, source }
    })
}

/// What the connections of one listener are served with.
#[derive(Clone)]
struct App {
    router: Router,
    tls: Option<Tls>,
    state: Arc<State>,
    connections: Arc<Connections>,
}

impl App {
    fn new(router: Router, tls: Option<Tls>, state: &Arc<State>, connections: Arc<Connections>) -> Self {
        Self { router, tls, state: Arc::clone(state), connections }
    }
}

/// Ends only by being dropped.
async fn accept_all(listener: TcpListener, app: App) {
    loop {
        // Before the accept: what there is no place for waits in the kernel's bounded backlog.
        let permit = app.connections.permit().await;
        match listener.accept().await {
            Ok((stream, _)) => app.connections.spawn(serve_connection(stream, app.clone(), permit)),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, app: App, permit: Permit) {
    set_options(&stream, &app.state.config);
    let App { router, tls, state, connections } = app;
    let mut draining = connections.draining();
    let Some(io) = opened(stream, tls, &state, &mut draining).await else { return };
    let open = state.metrics.connection(Transport::Http);
    let watch = Watch::default();
    let requests = Requests::default();
    let afterwards = Afterwards::default();
    let mut idle = Idle::new(requests.clone(), Duration::from_millis(state.config.header_ms_max));
    let io = TokioIo::new(Watched::new(io, watch.clone()));
    let after = afterwards.clone();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(permit.clone());
        request.extensions_mut().insert(watch.clone());
        request.extensions_mut().insert(after.clone());
        request.extensions_mut().insert(requests.begin());
        router.clone().call(request.map(Body::new))
    });
    let protocol = protocol(&state.config);
    let mut connection = pin!(protocol.serve_connection_with_upgrades(io, service));
    let again = Again::new();
    // An error is the client's: it left, or spoke no HTTP.
    let _ = poll_fn(|cx| {
        if draining.poll_begun(cx) || idle.poll_over(cx) {
            connection.as_mut().graceful_shutdown();
        }
        let polled = again.poll(cx, |cx| {
            afterwards.begin_poll();
            connection.as_mut().poll(cx)
        });
        afterwards.settle();
        polled
    })
    .await;
    drop(open);
}

/// The connection, behind the handshake where there is one. None: it failed, or draining has begun.
async fn opened(stream: TcpStream, tls: Option<Tls>, state: &State, draining: &mut Draining) -> Option<Io> {
    let Some(tls) = tls else { return Some(Io::Plain(stream)) };
    let mut handshake = pin!(tls.accept(stream));
    let accepted = poll_fn(|cx| {
        if draining.poll_begun(cx) {
            return Poll::Ready(None);
        }
        handshake.as_mut().poll(cx).map(Some)
    });
    match accepted.await? {
        Ok(stream) => Some(Io::Tls(Box::new(stream.into()))),
        Err(failure) => {
            state.metrics.handshake_failed(failure);
            None
        }
    }
}

/// Small writes go out at once, and so do our acknowledgements, since a client with Nagle's algorithm on waits for them. A client that
/// is gone without a word, or does not read for as long as it takes to ping it in vain, is cut off by the kernel: an event stream has
/// no ping, and while it cannot be written nobody would notice.
fn set_options(stream: &TcpStream, config: &EdgeConfig) {
    // A socket that refuses an option still works.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let silence = Duration::from_millis(config.ping_ms);
    if !silence.is_zero() {
        let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(silence).with_interval(silence));
    }
    #[cfg(target_os = "linux")]
    {
        let _ = socket.set_tcp_quickack(true);
        if !silence.is_zero() {
            let _ = socket.set_tcp_user_timeout(Some(silence.saturating_mul(PINGS_MAX)));
        }
    }
}

fn protocol(config: &EdgeConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(config.header_ms_max))
        .max_buf_size(config.header_bytes_max.max(HEADER_BYTES_MIN));
    let silence = (config.ping_ms > 0).then(|| Duration::from_millis(config.ping_ms));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(silence)
        .keep_alive_timeout(silence.unwrap_or_default().saturating_mul(PINGS_MAX))
        .max_concurrent_streams(config.http2_streams_max)
        .max_header_list_size(u32::try_from(config.header_bytes_max).unwrap_or(u32::MAX));
    builder
}

/// A place among the connections, given back when the last task that holds it has ended.
#[derive(Clone)]
pub(crate) struct Permit {
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

/// The connections of one listener: their number, their tasks, and how they learn that it is time to end.
pub(crate) struct Connections {
    count_max: u32,
    permits: Arc<Semaphore>,
    tasks: Mutex<JoinSet<()>>,
    is_draining: AtomicBool,
    /// To be woken when draining begins, by [`Draining::id`].
    wakers: DashMap<u64, Waker>,
    next_id: AtomicU64,
}

impl Connections {
    pub(crate) fn new(count_max: u32) -> Arc<Self> {
        Arc::new(Self {
            count_max,
            permits: Arc::new(Semaphore::new(usize::try_from(count_max).unwrap_or(Semaphore::MAX_PERMITS))),
            tasks: Mutex::default(),
            is_draining: AtomicBool::new(false),
            wakers: DashMap::new(),
            next_id: AtomicU64::new(0),
        })
    }

    /// Waits until there is a place for one more.
    async fn permit(&self) -> Permit {
        // An Err would say that the semaphore is closed; nobody closes it.
        Permit { _permit: Arc::clone(&self.permits).acquire_owned().await.ok().map(Arc::new) }
    }

    /// Runs a task until it ends, or [`Self::end`]. It must hold its connection's [`Permit`].
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    pub(crate) fn draining(self: &Arc<Self>) -> Draining {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Draining { connections: Arc::clone(self), id, stage: Stage::New }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    /// Asks every connection to end, and waits for them, but not for ever; whether they have.
    async fn drain(&self, wait_max: Duration) -> bool {
        self.is_draining.store(true, Ordering::SeqCst);
        for waker in &self.wakers {
            waker.wake_by_ref();
        }
        self.have_ended(wait_max).await
    }

    async fn have_ended(&self, wait_max: Duration) -> bool {
        tokio::time::timeout(wait_max, self.permits.acquire_many(self.count_max)).await.is_ok()
    }

    /// Cancels whatever runs.
    async fn end(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        tasks.shutdown().await;
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's ear for the drain. Costs one load a poll, and no lock: it is asked on the token path.
pub(crate) struct Draining {
    connections: Arc<Connections>,
    id: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Listening,
    Begun,
}

impl Draining {
    /// True once, when draining has begun; the task is woken for it. All polls must be of one task.
    pub(crate) fn poll_begun(&mut self, cx: &Context<'_>) -> bool {
        match self.stage {
            Stage::New => {
                self.connections.wakers.insert(self.id, cx.waker().clone());
                self.stage = Stage::Listening;
            }
            Stage::Listening => {}
            Stage::Begun => return false,
        }
        if self.connections.is_draining() {
            self.stage = Stage::Begun;
            return true;
        }
        false
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.connections.wakers.remove(&self.id);
    }
}
