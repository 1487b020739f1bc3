//! What a connection passes before anything is asked on it: who is behind its proxy, whether there is memory and place for one more of
//! that client, and the TLS handshake, the dearest, last. Knows nothing of HTTP but how to say no.

use super::connection::UNASKED_WAIT;
use super::connections::{Draining, Heard};
use crate::bare;
use crate::peer::is_trusted;
use crate::places::{self, Place};
use crate::routes;
use crate::state::State;
use crate::tls::Tls;
use flashlane_backend::Io;
use flashlane_telemetry::label::Excess;
use flashlane_wire::proxy_protocol::{BODY_BYTES_MAX, HEAD_BYTES, Head, Invalid};
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a proxy may take to say who its client is: it does so with its first bytes.
const PROXY_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a refused client may take to send what it is then told no to.
const REFUSAL_WAIT_MAX: Duration = Duration::from_millis(250);
/// How much of it is read, so that closing does not reset the connection before the answer is read.
const REFUSED_BYTES_MAX: usize = 4096;

/// What a listener's connections have to pass.
pub(super) struct Entry<'a> {
    pub(super) state: &'a State,
    pub(super) tls: Option<Tls>,
    /// Of operators: until when they are to have passed. Nothing else is kept away of them: they have places of their own.
    pub(super) operator_until: Option<Instant>,
}

/// A connection to be served.
pub(super) struct Entered {
    pub(super) io: Io,
    /// The client's.
    pub(super) address: IpAddr,
    pub(super) place: Option<Arc<Place>>,
}

#[derive(Debug, thiserror::Error)]
enum ProxyFault {
    #[error("the connection broke off")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl Entry<'_> {
    /// None: it is not served. Once draining has begun, it has a moment more.
    pub(super) async fn enter(self, stream: TcpStream, address: IpAddr, draining: &mut Draining) -> Option<Entered> {
        let mut last = self.operator_until.map(|until| Box::pin(sleep_until(until)));
        let mut entering = pin!(self.pass(stream, address));
        poll_fn(|cx| {
            if draining.poll(cx).is_some_and(Heard::is_end) {
                last = Some(Box::pin(sleep_until(Instant::now() + UNASKED_WAIT)));
            }
            if last.as_mut().is_some_and(|last| last.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(None);
            }
            entering.as_mut().poll(cx)
        })
        .await
    }

    fn is_for_clients(&self) -> bool {
        self.operator_until.is_none()
    }

    async fn pass(self, mut stream: TcpStream, peer: IpAddr) -> Option<Entered> {
        let (address, place) = if self.is_for_clients() {
            let address = self.client(&mut stream, peer).await?;
            match self.place(address) {
                Ok(place) => (address, place),
                Err(excess) => {
                    self.refuse((stream, address), excess).await;
                    return None;
                }
            }
        } else {
            (peer, None)
        };
        let io = self.shake_hands(stream, address).await?;
        Some(Entered { io, address, place })
    }

    /// Whether it is a proxy that begins by saying who its client is.
    fn is_told_of(&self, peer: IpAddr) -> bool {
        let current = self.state.current();
        let config = &current.config;
        config.proxy_protocol && is_trusted(&config.trusted_proxies, peer)
    }

    /// Who is behind the peer, where that is a proxy which says so.
    async fn client(&self, stream: &mut TcpStream, peer: IpAddr) -> Option<IpAddr> {
        if !self.is_told_of(peer) {
            return Some(peer);
        }
        let fault = match timeout(PROXY_WAIT_MAX, told(stream)).await {
            Ok(Ok(client)) => return Some(client.unwrap_or(peer)),
            Ok(Err(fault)) => fault.to_string(),
            Err(_) => "it says nothing".to_owned(),
        };
        self.state.exceeded(Excess::Proxy, Some(peer), None);
        tracing::debug!(proxy = %peer, fault, "a trusted proxy does not speak the PROXY protocol");
        None
    }

    /// Who comes over a proxy that names it request by request has its place by request.
    fn place(&self, address: IpAddr) -> Result<Option<Arc<Place>>, Excess> {
        if self.state.memory.stage().refuses_sessions() {
            return Err(Excess::MemorySession);
        }
        if is_trusted(&self.state.current().config.trusted_proxies, address) {
            return Ok(None);
        }
        Ok(self.state.places.take(address)?.map(Arc::new))
    }

    async fn shake_hands(&self, stream: TcpStream, address: IpAddr) -> Option<Io> {
        let Some(tls) = &self.tls else { return Some(Io::Plain(stream)) };
        let place = match self.is_for_clients().then(|| self.state.places.handshake(address)).transpose() {
            Ok(place) => place,
            Err(excess) => {
                self.state.exceeded(excess, Some(address), None);
                return None;
            }
        };
        let accepted = tls.accept(stream).await;
        drop(place);
        match accepted {
            Ok(stream) => Some(Io::Tls(Box::new(stream.into()))),
            Err(failure) => {
                tracing::debug!(client = %address, reason = failure.name(), "a TLS handshake came to nothing");
                self.state.metrics.handshake_failed(failure);
                None
            }
        }
    }

    /// Behind TLS a word would cost more than it is worth: closed without one.
    pub(super) async fn refuse(&self, (mut stream, address): (TcpStream, IpAddr), excess: Excess) {
        let id = if self.tls.is_some() { None } else { routes::request_id().ok() };
        self.state.exceeded(excess, Some(address), id.as_deref());
        let Some(id) = id else { return };
        let answer = async {
            let mut asked = [0; REFUSED_BYTES_MAX];
            let _ = stream.read(&mut asked).await?;
            stream.write_all(&answer(excess, &id)).await?;
            stream.shutdown().await
        };
        // Who is too slow for it, or gone, is not told.
        let _ = timeout(REFUSAL_WAIT_MAX, answer).await;
    }
}

/// None: the connection is the proxy's own.
async fn told(stream: &mut TcpStream) -> Result<Option<IpAddr>, ProxyFault> {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let head = Head::parse(head)?;
    let mut body = [0; BODY_BYTES_MAX];
    let body = body.get_mut(..head.body_bytes).ok_or(Invalid::TooLong)?;
    stream.read_exact(body).await?;
    Ok(head.source(body)?.map(|source| source.ip().to_canonical()))
}

fn answer(excess: Excess, id: &str) -> Vec<u8> {
    let refusal = places::refusal(excess);
    let status = http::StatusCode::from_u16(refusal.kind.row().status).unwrap_or(http::StatusCode::SERVICE_UNAVAILABLE);
    bare::answer(status, id, "retry-after: 1\r\n", &refusal.http_body())
}
