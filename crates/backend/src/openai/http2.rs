//! One turn over a shared HTTP/2 connection. The connection's own task belongs to hyper, so this is the compatible way, not the
//! fast one; dropping the turn resets its stream.

use crate::client::Remote;
use crate::client::packing::Packing;
use crate::client::watch::Watch;
use crate::client::witness::Head;
use crate::error::chain;
use crate::hosted::account::Charge;
use crate::openai::request::{self, Coding};
use crate::openai::verdict::{Refused, Verdict};
use crate::probe;
use bytes::{Buf, Bytes};
use flashlane_engine::trace::TraceHeaders;
use flashlane_engine::{Ended, UpstreamEvent, UpstreamFailure};
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

/// After so many frames the turn gets its say.
const FRAMES_PER_POLL_MAX: usize = 16;

pub struct Http2 {
    remote: Arc<Remote>,
    /// What it costs, where somebody keeps account.
    charge: Option<Charge>,
    /// Said by `opening`: the shared connection is there.
    connected: Arc<AtomicBool>,
    state: State,
}

/// ```text
/// Opening ──event stream──► Stream ───► Done
///   ├──error status───────► Refused ──►│
///   └──failure────────────────────────►│
/// ```
enum State {
    Opening(Pin<Box<dyn Future<Output = Result<Response<Incoming>, UpstreamFailure>> + Send>>),
    Stream(Incoming, Watch),
    Refused(Incoming, Watch, Refused),
    Done,
}

impl Http2 {
    /// With `packing`, the request goes out packed, once it is.
    pub(crate) fn new(remote: Arc<Remote>, body: request::Body, packing: Option<Packing>) -> Self {
        let connected = Arc::new(AtomicBool::new(false));
        let opening = {
            let (remote, connected) = (Arc::clone(&remote), Arc::clone(&connected));
            Box::pin(async move {
                let packed = match packing {
                    Some(packing) => packing.await,
                    None => None,
                };
                let trace = body.trace.clone();
                let body = packed.map_or(body, |bytes| request::Body::packed(bytes, trace));
                remote.send(Pieces::new(body), &connected).await
            })
        };
        Self { remote, charge: None, connected, state: State::Opening(opening) }
    }

    pub(crate) fn charged(self, charge: Charge) -> Self {
        Self { charge: Some(charge), ..self }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, on: &mut impl FnMut(UpstreamEvent<'_>)) -> Poll<()> {
        let mut handed = false;
        for _ in 0..FRAMES_PER_POLL_MAX {
            match self.step(cx, handed, on) {
                Poll::Pending if handed => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => handed = true,
                Poll::Ready(Some(ended)) => {
                    self.state = State::Done;
                    let judged = match (ended, &self.charge) {
                        (Ended::Failed(failure), Some(charge)) => Ended::Failed(charge.judge(failure)),
                        (ended, _) => ended,
                    };
                    on(UpstreamEvent::Ended(judged));
                    return Poll::Ready(());
                }
            }
        }
        Poll::Ready(())
    }

    /// Hands over one thing, or says how the turn ended.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        handed: bool,
        on: &mut impl FnMut(UpstreamEvent<'_>),
    ) -> Poll<Option<Ended>> {
        loop {
            let (result, refused) = match &mut self.state {
                State::Done => return Poll::Pending,
                State::Opening(opening) => {
                    let polled = opening.as_mut().poll(cx);
                    if self.connected.swap(false, Ordering::Relaxed) {
                        on(UpstreamEvent::Connected);
                    }
                    match ready!(polled).and_then(|head| self.opened(head, on)) {
                        Ok(true) => return Poll::Ready(None),
                        Ok(false) => continue,
                        Err(failure) => return Poll::Ready(Some(Ended::Failed(failure))),
                    }
                }
                State::Stream(body, watch) => (ready!(poll_body(body, watch, handed, cx)), None),
                State::Refused(body, watch, refused) => (ready!(poll_body(body, watch, handed, cx)), Some(refused)),
            };
            return Poll::Ready(match (result, refused) {
                (Ok(Some(bytes)), None) => {
                    on(UpstreamEvent::Bytes(&bytes));
                    if let State::Stream(_, watch) = &mut self.state {
                        watch.limit(self.remote.idle_ms_max);
                    }
                    None
                }
                (Ok(None), None) => Some(Ended::Complete),
                (Err(failure), None) => Some(Ended::Failed(failure)),
                (Ok(Some(bytes)), Some(refused)) => match refused.push(&bytes) {
                    true => Some(Ended::Failed(refused.failure())),
                    false => continue,
                },
                (Ok(None) | Err(_), Some(refused)) => Some(Ended::Failed(refused.failure())),
            });
        }
    }

    /// `true`: an event stream follows.
    fn opened(
        &mut self,
        response: Response<Incoming>,
        on: &mut impl FnMut(UpstreamEvent<'_>),
    ) -> Result<bool, UpstreamFailure> {
        let (head, body) = response.into_parts();
        self.remote.answered(|| {
            let fields = head.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
            Head::new(head.status.as_u16(), fields)
        });
        let header = |name: &'static str| head.headers.get(name).map(http::HeaderValue::as_bytes);
        if let Some(charge) = &self.charge {
            charge.heed(header);
        }
        if let Some(load) = header(probe::HEADER) {
            self.remote.heard_load(load);
        }
        let watch = Watch::new(self.remote.first_byte_ms_max);
        match Verdict::of(head.status.as_u16(), header) {
            Verdict::Stream => {
                self.state = State::Stream(body, watch);
                on(UpstreamEvent::Opened);
                Ok(true)
            }
            Verdict::Refused(refused) => {
                self.state = State::Refused(body, Watch::new(self.remote.idle_ms_max), refused);
                Ok(false)
            }
            Verdict::Unusable { reason } => Err(UpstreamFailure::Cut { reason }),
        }
    }
}

/// The next bytes; `None` at the end. Silence is looked for when nothing was handed over before.
fn poll_body(
    body: &mut Incoming,
    watch: &mut Watch,
    handed: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, UpstreamFailure>> {
    loop {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                watch.heard();
                if let Ok(bytes) = frame.into_data()
                    && !bytes.is_empty()
                {
                    return Poll::Ready(Ok(Some(bytes)));
                }
            }
            Poll::Ready(None) => return Poll::Ready(Ok(None)),
            Poll::Ready(Some(Err(error))) => {
                return Poll::Ready(Err(UpstreamFailure::Cut { reason: chain(&error) }));
            }
            Poll::Pending if handed => return Poll::Pending,
            Poll::Pending => return watch.poll(cx).map(|waited_ms| Err(UpstreamFailure::Silent { waited_ms })),
        }
    }
}

/// A request's body: its pieces as they are. A clone shares them.
#[derive(Clone)]
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    bytes: u64,
    pub(crate) coding: Coding,
    pub(crate) trace: Option<Arc<TraceHeaders>>,
}

impl Pieces {
    fn new(body: request::Body) -> Self {
        let bytes = body.len() as u64;
        Self { pieces: body.pieces.into(), bytes, coding: body.coding, trace: body.trace }
    }

    /// No body.
    pub(crate) fn none() -> Self {
        Self { pieces: VecDeque::new(), bytes: 0, coding: Coding::Identity, trace: None }
    }

    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let piece = this.pieces.pop_front();
        this.bytes -= piece.as_ref().map_or(0, |piece| piece.remaining() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}

/// A request without a body.
pub(crate) fn get(uri: &str, fields: HeaderMap) -> Result<http::Request<Pieces>, http::Error> {
    let mut request = http::Request::get(uri).body(Pieces::none())?;
    *request.headers_mut() = fields;
    Ok(request)
}

/// The request of a turn.
pub(crate) fn request(uri: &str, fields: HeaderMap, body: Pieces) -> Result<http::Request<Pieces>, http::Error> {
    let mut request = http::Request::post(uri).body(body)?;
    *request.headers_mut() = fields;
    Ok(request)
}
