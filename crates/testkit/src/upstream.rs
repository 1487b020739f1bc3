//! A scripted inference server for tests: it sends what it is told to, byte for byte and fault for fault, and remembers what it got.
//!
//! Knows nothing of models or pools, and of HTTP only how to find a request's end. Loopback only, on a free port.

mod connection;
mod script;

pub use connection::Identity;
pub use script::{Step, chat_events, error, stream, wire};

use connection::{Connection, Framing};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which connection it came over, counted from 0.
    pub connection: usize,
    /// Request line and fields, without the empty line.
    pub head: String,
    pub body: Vec<u8>,
    /// When its script was played to its end ([`Step::Again`]), or its connection was closed.
    pub ended: Option<Instant>,
}

impl Request {
    /// A field by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

/// All that an upstream has met so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub requests: Vec<Request>,
    /// When each connection was closed, by either side; `None`: it is open.
    pub closed: Vec<Option<Instant>>,
}

/// How an upstream serves.
#[derive(Clone, Default)]
pub struct Options {
    pub tls: Option<Identity>,
    /// Nagle's algorithm stays on: a small write waits until the one before is acknowledged.
    pub nagle: bool,
}

/// A running upstream. Dropping it closes its connections and its port.
pub struct Upstream {
    address: SocketAddr,
    tls: bool,
    stage: Arc<Stage>,
    /// Aborted on drop.
    tasks: JoinSet<()>,
}

/// What all connections share.
struct Stage {
    options: Options,
    parts: Mutex<Parts>,
    seen: watch::Sender<Seen>,
    hang_up: Notify,
}

struct Parts {
    /// Counts what was played before.
    edition: u64,
    scripts: Vec<Arc<[Step]>>,
}

impl Upstream {
    /// Each connection plays the script of its number, those beyond the last play the last again.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(scripts: Vec<Vec<Step>>) -> io::Result<Self> {
        Self::start_with(Options::default(), scripts).await
    }

    /// # Errors
    /// When no port can be bound.
    pub async fn start_with(options: Options, scripts: Vec<Vec<Step>>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let tls = options.tls.is_some();
        let parts = Mutex::new(Parts { edition: 0, scripts: scripts.into_iter().map(Arc::from).collect() });
        let stage = Arc::new(Stage { options, parts, seen: watch::Sender::default(), hang_up: Notify::new() });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&stage)));
        Ok(Self { address, tls, stage, tasks })
    }

    /// Every connection plays this one from its next request on, those to come from their beginning.
    pub fn play(&self, script: Vec<Step>) {
        let mut parts = self.stage.parts();
        parts.edition += 1;
        parts.scripts = vec![script.into()];
    }

    /// Closes all connections, and takes new ones.
    pub fn hang_up(&self) {
        self.stage.hang_up.notify_one();
    }

    /// Closes all connections and the port: who connects is refused.
    pub async fn shut(&mut self) {
        self.tasks.shutdown().await;
        self.stage.seen.send_modify(Seen::close_all);
    }

    /// Takes connections again, at the same port.
    ///
    /// # Errors
    /// When somebody else has it by now.
    pub async fn reopen(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.tasks.spawn(accept(listener, Arc::clone(&self.stage)));
        Ok(())
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT/v1`, or with https.
    #[must_use]
    pub fn base_url(&self) -> String {
        base_url(self.address, self.tls)
    }

    #[must_use]
    pub fn seen(&self) -> Seen {
        self.stage.seen.borrow().clone()
    }

    /// Waits until what was seen fulfils `condition`. Bound it with a timeout.
    pub async fn until(&self, condition: impl FnMut(&Seen) -> bool) -> Seen {
        until(self.stage.seen.subscribe(), condition).await
    }
}

pub(crate) fn base_url(address: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{address}/v1")
}

/// What was seen, once it fulfils `condition`.
pub(crate) async fn until<S: Clone>(mut seen: watch::Receiver<S>, condition: impl FnMut(&S) -> bool) -> S {
    let met = seen.wait_for(condition).await.ok().map(|met| met.clone());
    // The sender lives as long as the server, which whoever waits here holds.
    met.unwrap_or_else(|| seen.borrow().clone())
}

impl Seen {
    fn close_all(&mut self) {
        let now = Instant::now();
        self.closed.iter_mut().for_each(|closed| *closed = closed.or(Some(now)));
        self.requests.iter_mut().for_each(|request| request.ended = request.ended.or(Some(now)));
    }
}

impl Stage {
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The script of a connection, and its edition.
    fn part(&self, connection: usize) -> Option<(u64, Arc<[Step]>)> {
        let parts = self.parts();
        let script = parts.scripts.get(connection).or(parts.scripts.last())?;
        Some((parts.edition, Arc::clone(script)))
    }
}

async fn accept(listener: TcpListener, stage: Arc<Stage>) {
    let mut connections = JoinSet::new();
    loop {
        let tcp = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => tcp,
                Err(_) => return,
            },
            () = stage.hang_up.notified() => {
                connections.shutdown().await;
                stage.seen.send_modify(Seen::close_all);
                continue;
            }
        };
        let mut number = 0;
        stage.seen.send_modify(|seen| {
            number = seen.closed.len();
            seen.closed.push(None);
        });
        let stage = Arc::clone(&stage);
        connections.spawn(async move {
            // A broken connection is what many scripts are for.
            let _ = serve(tcp, number, &stage).await;
            stage.seen.send_modify(|seen| {
                let now = Instant::now();
                if let Some(closed) = seen.closed.get_mut(number) {
                    *closed = Some(now);
                }
                end_last(seen, number, now);
            });
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(tcp: TcpStream, connection: usize, stage: &Stage) -> io::Result<()> {
    tcp.set_nodelay(!stage.options.nagle)?;
    let mut peer = Connection::accept(tcp, stage.options.tls.as_ref()).await?;
    let Some((mut edition, mut script)) = stage.part(connection) else { return Ok(()) };
    let mut at = 0;
    while let Some(step) = script.get(at) {
        at += 1;
        match step {
            Step::Expect => {
                let Some((head, body)) = peer.request().await? else { return Ok(()) };
                stage.seen.send_modify(|seen| seen.requests.push(Request { connection, head, body, ended: None }));
                // It may be told to play something else while it waits for a request.
                let Some(other) = stage.part(connection).filter(|(newer, _)| *newer != edition) else { continue };
                (edition, script) = other;
                at = script.iter().position(|step| matches!(step, Step::Expect)).map_or(0, |expects| expects + 1);
            }
            Step::Send(bytes) => peer.send(bytes).await?,
            Step::Chunk(bytes) => peer.chunk(bytes, Framing::OneWrite).await?,
            Step::ChunkInParts(bytes) => peer.chunk(bytes, Framing::WritePerPart).await?,
            Step::Wait(time) => tokio::time::sleep(*time).await,
            Step::Hold => return peer.hold().await,
            Step::Watch(time) => {
                if peer.is_closed_within(*time).await? {
                    return Ok(());
                }
            }
            Step::Again => {
                stage.seen.send_modify(|seen| end_last(seen, connection, Instant::now()));
                at = 0;
            }
            Step::Reset => return peer.reset(),
        }
    }
    peer.close().await
}

/// The connection's last request is over, if it was not before.
fn end_last(seen: &mut Seen, connection: usize, now: Instant) {
    if let Some(last) = seen.requests.iter_mut().rfind(|request| request.connection == connection) {
        last.ended.get_or_insert(now);
    }
}
