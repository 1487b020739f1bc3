//! One remote endpoint: its connections, their warm-up and their limits. The only place of this crate that spawns.
//!
//! Knows nothing of what passes over a connection beyond HTTP.

pub(crate) mod address;
pub(crate) mod calls;
pub(crate) mod dial;
pub(crate) mod io;
pub(crate) mod leaving;
pub(crate) mod packing;
pub(crate) mod pool;
pub(crate) mod probing;
pub(crate) mod reach;
pub(crate) mod warmth;
pub(crate) mod watch;
pub(crate) mod way;
pub(crate) mod witness;

use crate::backends::Stats;
use crate::error::chain;
use crate::openai::http2::{self, Pieces};
use crate::openai::request::{Body, Template};
use dial::{DialError, Dialer, Version};
use flashlane_engine::UpstreamFailure;
use flashlane_engine::router::Load;
use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use leaving::Leaving;
use pool::{Connection, Pool};
use probing::Probing;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use warmth::{TOUCH_MAX, Warmth, touch};
use watch::Watch;
use witness::{Head, Witness};

/// A shared connection that is silent for so long is asked for a sign of life ...
const PING_EVERY: Duration = Duration::from_secs(20);
/// ... and given up when none comes within this time.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// An endpoint at the other end of a network.
pub(crate) struct Remote {
    pub(crate) template: Template,
    pub(crate) version: Version,
    pub(crate) first_byte_ms_max: u64,
    pub(crate) idle_ms_max: u64,
    pub(crate) counters: Counters,
    dialer: Dialer,
    pool: Pool,
    /// The HTTP/2 connection that all turns share. Whoever finds none opens it while the others wait.
    shared: tokio::sync::Mutex<Option<(SendRequest<Pieces>, Instant)>>,
    /// How long a connection gets new turns.
    life: Duration,
    warming: AtomicBool,
    /// `None`: a connection is opened ahead when somebody asks, and that is all.
    warmth: Option<Warmth>,
    probing: Option<Probing>,
    /// Somebody looks on: nobody does while turns run.
    witness: OnceLock<Arc<Witness>>,
}

/// What a [`Remote`] heeds, besides where it is.
pub(crate) struct Limits {
    pub(crate) first_byte_ms_max: u64,
    pub(crate) idle_ms_max: u64,
    pub(crate) idle_connections_max: usize,
    pub(crate) idle_connection_ms_max: u64,
    /// From a connection's opening on.
    pub(crate) connection_ms_max: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) opened: AtomicU64,
    pub(crate) reused: AtomicU64,
    pub(crate) resent: AtomicU64,
    /// Cancelled requests whose engine has not let go, now.
    pub(crate) leaving: AtomicU64,
    /// Those whose engine did not in its time.
    pub(crate) unanswered: AtomicU64,
}

impl Counters {
    pub(crate) fn resent(&self) {
        self.resent.fetch_add(1, Ordering::Relaxed);
    }
}

impl Remote {
    pub(crate) fn new(dialer: Dialer, template: Template, version: Version, limits: &Limits) -> Self {
        let life = Duration::from_millis(limits.connection_ms_max);
        Self {
            template,
            version,
            first_byte_ms_max: limits.first_byte_ms_max,
            idle_ms_max: limits.idle_ms_max,
            counters: Counters::default(),
            dialer,
            pool: Pool::new(limits.idle_connections_max, (limits.idle_connection_ms_max, life)),
            shared: tokio::sync::Mutex::new(None),
            life,
            warming: AtomicBool::new(false),
            warmth: None,
            probing: None,
            witness: OnceLock::new(),
        }
    }

    /// What its base URL has behind the host.
    pub(crate) fn base_path(&self) -> &str {
        &self.dialer.address.path
    }

    /// How far away it is; `None`: no connection was opened yet.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.dialer.round_trip()
    }

    pub(crate) fn kept_warm(self, warmth: Warmth) -> Self {
        Self { warmth: Some(warmth), ..self }
    }

    pub(crate) fn probed(self, probing: Probing) -> Self {
        Self { probing: Some(probing), ..self }
    }

    /// What the engine has said of its load since this was asked last. From then on it is asked in time; call it within a tokio runtime.
    pub(crate) fn load(self: &Arc<Self>) -> Option<Load> {
        let (load, is_to_begin) = self.probing.as_ref()?.take();
        if is_to_begin {
            tokio::spawn(probes(Arc::downgrade(self)));
        }
        load
    }

    /// An answer has a word of the engine's load.
    pub(crate) fn heard_load(&self, header: &[u8]) {
        self.probing.iter().for_each(|probing| probing.heard(header));
    }

    /// From here on somebody looks on.
    pub(crate) fn witnessed(&self) -> Arc<Witness> {
        Arc::clone(self.witness.get_or_init(Arc::default))
    }

    /// A request with this body goes out.
    pub(crate) fn sends(&self, body: &Body, is_packed: bool) {
        if let Some(witness) = self.witness.get() {
            witness.sent(&body.pieces, is_packed);
        }
    }

    /// An answer begins.
    pub(crate) fn answered(&self, head: impl FnOnce() -> Head) {
        if let Some(witness) = self.witness.get() {
            witness.answered(head());
        }
    }

    /// Asks the engine for its load, now. `None`: nothing says where it tells it.
    pub(crate) async fn look_at_load(&self) -> Option<Result<Load, String>> {
        Some(self.probing.as_ref()?.look().await)
    }

    /// A turn runs here.
    pub(crate) fn is_in_use(&self) {
        self.warmth.iter().for_each(Warmth::extend);
    }

    /// Host and port, as a URL has them.
    pub(crate) fn authority(&self) -> &str {
        &self.dialer.address.authority
    }

    pub(crate) fn connect_max(&self) -> Duration {
        self.dialer.connect_max()
    }

    /// A turn has found a connection open that is not in this pool.
    pub(crate) fn reused(&self) {
        self.counters.reused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn check_out(&self) -> Option<Connection> {
        let connection = self.pool.check_out()?;
        self.counters.reused.fetch_add(1, Ordering::Relaxed);
        Some(connection)
    }

    pub(crate) fn park(&self, connection: Connection) {
        self.pool.park(connection);
    }

    /// Connections at rest.
    pub(crate) fn idle(&self) -> usize {
        self.pool.len()
    }

    pub(crate) async fn connect(&self) -> Result<Connection, DialError> {
        let io = self.dialer.dial().await?;
        self.counters.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Connection::new(io, Watch::new(self.first_byte_ms_max)))
    }

    /// How its connections were used so far.
    pub(crate) fn stats(&self) -> Stats {
        let Counters { opened, reused, resent, leaving, unanswered } = &self.counters;
        Stats {
            connections_opened: opened.load(Ordering::Relaxed),
            connections_reused: reused.load(Ordering::Relaxed),
            requests_resent: resent.load(Ordering::Relaxed),
            connections_idle: self.idle() as u64,
            cancelled_generating: leaving.load(Ordering::Relaxed),
            cancels_unanswered: unanswered.load(Ordering::Relaxed),
        }
    }

    /// Ends a turn at its connection's other end. Returns at once.
    pub(crate) fn leave(self: &Arc<Self>, connection: Connection) -> Leaving {
        let (leaving, work) = leaving::leave(connection);
        let remote = Arc::clone(self);
        remote.counters.leaving.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let has_let_go = work.await;
            remote.counters.leaving.fetch_sub(1, Ordering::Relaxed);
            remote.counters.unanswered.fetch_add(u64::from(!has_let_go), Ordering::Relaxed);
        });
        leaving
    }

    /// Sees to it that a connection is open and idle. Returns at once; asked again meanwhile, it does nothing.
    pub(crate) fn warm(self: &Arc<Self>) {
        if let Some(warmth) = &self.warmth {
            if warmth.begin() {
                tokio::spawn(rounds(Arc::downgrade(self)));
            }
            return;
        }
        let needless = match self.version {
            Version::Http1 => self.pool.has_live(),
            Version::Http2 => false,
        };
        if needless || self.warming.swap(true, Ordering::AcqRel) {
            return;
        }
        let remote = Arc::clone(self);
        tokio::spawn(async move {
            let result = match remote.version {
                Version::Http1 => remote.connect().await.map(|connection| remote.park(connection)),
                Version::Http2 => remote.shared().await.map(drop),
            };
            if let Err(error) = result {
                tracing::debug!(error = chain(&error), "no warm connection");
            }
            remote.warming.store(false, Ordering::Release);
        });
    }

    /// Touches the connections that are at rest, and opens those that lack. One at a time: a turn that comes meanwhile finds the others.
    async fn round(&self, warmth: &Warmth) {
        let mut warm = 0;
        for _ in 0..self.idle().min(warmth.connections) {
            let Some(connection) = self.pool.take_oldest() else { break };
            if let Some(connection) = touch(connection, &warmth.head).await {
                self.park(connection);
                warm += 1;
            }
        }
        for _ in warm..warmth.connections {
            match self.connect().await {
                Ok(connection) => {
                    let touched = touch(connection, &warmth.head).await;
                    touched.into_iter().for_each(|connection| self.park(connection));
                }
                Err(error) => {
                    tracing::debug!(error = chain(&error), "no warm connection");
                    return;
                }
            }
        }
    }

    async fn touch_shared(&self, warmth: &Warmth) {
        let exchange = async {
            let (mut sender, _) = self.shared().await.map_err(|error| unreachable(&error))?;
            let uri = self.dialer.address.url(&warmth.target);
            let request = http2::get(&uri, warmth.fields.clone()).map_err(|error| unreachable(&error))?;
            let response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
            // Its body is short, and dropping it costs no more than a reset of its stream.
            drop(response);
            Ok::<_, UpstreamFailure>(())
        };
        match tokio::time::timeout(TOUCH_MAX + self.dialer.connect_max(), exchange).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => tracing::debug!(?failure, "the shared connection is not warm"),
            Err(_) => tracing::debug!("the shared connection is not warm in time"),
        }
    }

    /// Sends a request over the shared connection; once again over a fresh one if the first, used before, was closed before an
    /// answer began. `connected` is set each time that the connection is there.
    pub(crate) async fn send(
        &self,
        body: Pieces,
        connected: &AtomicBool,
    ) -> Result<Response<Incoming>, UpstreamFailure> {
        let uri = self.dialer.address.url(&self.template.target);
        let waited_ms = self.first_byte_ms_max;
        let mut may_resend = true;
        loop {
            let (mut sender, reused) = self.shared().await.map_err(|error| unreachable(&error))?;
            connected.store(true, Ordering::Relaxed);
            let fields = self.template.fields(body.len(), body.coding, body.trace.as_deref());
            let request = http2::request(&uri, fields, body.clone()).map_err(|error| unreachable(&error))?;
            let answer = tokio::time::timeout(Duration::from_millis(waited_ms), sender.send_request(request));
            match answer.await {
                Err(_) => return Err(UpstreamFailure::Silent { waited_ms }),
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) if may_resend && reused && (error.is_canceled() || sender.is_closed()) => {
                    self.counters.resent();
                    may_resend = false;
                }
                Ok(Err(error)) => return Err(UpstreamFailure::Cut { reason: chain(&error) }),
            }
        }
    }

    /// The shared connection, and whether it was open before.
    async fn shared(&self) -> Result<(SendRequest<Pieces>, bool), DialError> {
        let mut shared = self.shared.lock().await;
        // What runs on one that has had its time runs on: its connection ends with the last of them.
        if let Some((sender, opened)) = shared.as_ref()
            && !sender.is_closed()
            && opened.elapsed() < self.life
        {
            self.counters.reused.fetch_add(1, Ordering::Relaxed);
            return Ok((sender.clone(), true));
        }
        let io = self.dialer.dial().await?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|source| DialError::Http2 { source })?;
        self.counters.opened.fetch_add(1, Ordering::Relaxed);
        // Ends by itself once the last sender is gone.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = chain(&error), "a shared connection ended");
            }
        });
        *shared = Some((sender.clone(), Instant::now()));
        Ok((sender, false))
    }
}

/// Keeps an endpoint warm for as long as it is there and somebody uses it.
async fn rounds(remote: Weak<Remote>) {
    while let Some(here) = remote.upgrade() {
        let Some(warmth) = here.warmth.as_ref().filter(|warmth| warmth.goes_on()) else { return };
        match here.version {
            Version::Http1 => here.round(warmth).await,
            Version::Http2 => here.touch_shared(warmth).await,
        }
        let every = warmth.every;
        drop(here);
        tokio::time::sleep(every).await;
    }
}

/// Asks an engine for as long as it is there and somebody wants to know.
async fn probes(remote: Weak<Remote>) {
    while let Some(here) = remote.upgrade() {
        let Some(probing) = &here.probing else { return };
        if !probing.ask().await {
            return;
        }
        let every = probing.every;
        drop(here);
        tokio::time::sleep(every).await;
    }
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> UpstreamFailure {
    UpstreamFailure::Unreachable { reason: chain(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::address::Address;
    use crate::client::way::Way;
    use tokio::net::TcpListener;

    fn remote(address: &Address, connection_ms_max: u64) -> Remote {
        let dialer = Dialer::new(address.clone(), &Way::default(), Version::Http1, 2_000).unwrap();
        let template = Template::new(address, "/x", None, &[]).unwrap();
        let limits = Limits {
            first_byte_ms_max: 1_000,
            idle_ms_max: 1_000,
            idle_connections_max: 4,
            idle_connection_ms_max: 60_000,
            connection_ms_max,
        };
        Remote::new(dialer, template, Version::Http1, &limits)
    }

    async fn peer_of_next_turn(remote: &Remote) -> Option<std::net::SocketAddr> {
        let connection = match remote.check_out() {
            Some(kept) => kept,
            None => remote.connect().await.unwrap(),
        };
        let peer = connection.io.peer();
        remote.park(connection);
        peer
    }

    #[tokio::test]
    async fn an_endpoint_that_moves_is_found_when_its_connections_have_had_their_time() {
        let (before, after) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = Address::parse("http://engine.invalid:8000/v1").unwrap();
        for (connection_ms_max, follows) in [(50, true), (60_000, false)] {
            let mut remote = remote(&address, connection_ms_max);
            remote.dialer.moved_to(before.local_addr().unwrap());
            assert_eq!(peer_of_next_turn(&remote).await, before.local_addr().ok());
            assert_eq!(peer_of_next_turn(&remote).await, before.local_addr().ok());
            assert_eq!(remote.counters.opened.load(Ordering::Relaxed), 1, "it is kept meanwhile");
            // The one before still answers: nothing but the name tells that it has moved.
            remote.dialer.moved_to(after.local_addr().unwrap());
            tokio::time::sleep(Duration::from_millis(80)).await;
            let expected = if follows { &after } else { &before };
            assert_eq!(peer_of_next_turn(&remote).await, expected.local_addr().ok());
        }
    }
}
