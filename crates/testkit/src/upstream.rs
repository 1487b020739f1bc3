//! A scripted inference server for tests: it sends what it is told to, byte for byte and fault for fault, and remembers what it got.
//!
//! Knows nothing of models or pools, and of HTTP only how to find a request's end. Loopback only, on a free port.

mod connection;
mod script;

pub use connection::Identity;
pub use script::{Step, chat_events, error, stream};

use connection::{Connection, Framing};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which connection it came over, counted from 0.
    pub connection: usize,
    /// Request line and fields, without the empty line.
    pub head: String,
    pub body: Vec<u8>,
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
    seen: watch::Receiver<Seen>,
    /// Aborted on drop.
    _tasks: JoinSet<()>,
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
        let (sender, seen) = watch::channel(Seen::default());
        let tls = options.tls.is_some();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, options, scripts.into_iter().map(Arc::from).collect(), Arc::new(sender)));
        Ok(Self { address, tls, seen, _tasks: tasks })
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
        self.seen.borrow().clone()
    }

    /// Waits until what was seen fulfils `condition`. Bound it with a timeout.
    pub async fn until(&self, condition: impl FnMut(&Seen) -> bool) -> Seen {
        until(self.seen.clone(), condition).await
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

type Scripts = Vec<Arc<[Step]>>;

async fn accept(listener: TcpListener, options: Options, scripts: Scripts, seen: Arc<watch::Sender<Seen>>) {
    let mut connections = JoinSet::new();
    for number in 0.. {
        let Ok((tcp, _)) = listener.accept().await else { return };
        let Some(script) = scripts.get(number).or(scripts.last()).map(Arc::clone) else { return };
        let (options, seen) = (options.clone(), Arc::clone(&seen));
        seen.send_modify(|seen| seen.closed.push(None));
        connections.spawn(async move {
            // A broken connection is what many scripts are for.
            let _ = serve(tcp, &options, &script, (number, &seen)).await;
            seen.send_modify(|seen| {
                if let Some(closed) = seen.closed.get_mut(number) {
                    *closed = Some(Instant::now());
                }
            });
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(
    tcp: TcpStream,
    options: &Options,
    script: &[Step],
    (connection, seen): (usize, &watch::Sender<Seen>),
) -> io::Result<()> {
    tcp.set_nodelay(!options.nagle)?;
    let mut peer = Connection::accept(tcp, options.tls.as_ref()).await?;
    let mut at = 0;
    while let Some(step) = script.get(at) {
        at += 1;
        match step {
            Step::Expect => {
                let Some((head, body)) = peer.request().await? else { return Ok(()) };
                seen.send_modify(|seen| seen.requests.push(Request { connection, head, body }));
            }
            Step::Send(bytes) => peer.send(bytes).await?,
            Step::Chunk(bytes) => peer.chunk(bytes, Framing::OneWrite).await?,
            Step::ChunkInParts(bytes) => peer.chunk(bytes, Framing::WritePerPart).await?,
            Step::Wait(time) => tokio::time::sleep(*time).await,
            Step::Hold => return peer.hold().await,
            Step::Again => at = 0,
            Step::Reset => return peer.reset(),
        }
    }
    peer.close().await
}
