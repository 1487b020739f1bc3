//! `POST /v1/responses` and `POST /v1/chat/completions`: one request is a session of one turn. The handler polls it until the session
//! knows how to answer; a streamed answer's body is the same session, polled on by the connection's own task.
//!
//! When the client leaves, the handler or the body is dropped, and with it the session: that is how its upstream is cancelled.

use crate::afterwards::Afterwards;
use crate::allowance;
use crate::auth;
use crate::background;
use crate::drive::{Drive, Rest};
use crate::follow::Reader;
use crate::idle::Requests;
use crate::keys::Caller;
use crate::listen::{Draining, Heard};
use crate::paced::{Crowded, Late, Paced};
use crate::reply::{JSON, Refused};
use crate::routes::RequestId;
use crate::state::State;
use crate::trace;
use crate::watch::{Watch, Watching};
use axum::body::Body;
use axum::extract::{self, Extension, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flashlane_engine::{Answer, Enlisting, ErrorKind, Now, Refusal, Session};
use flashlane_store::OwnerId;
use flashlane_telemetry::label::Cut;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A frame up to so long is copied out of its buffer, a longer one takes the buffer along.
const FRAME_BYTES_COPIED_MAX: usize = 4096;
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
/// Tells proxies (nginx first) to pass each event on at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const CROWDED_RETRY_AFTER_MS: u64 = 1_000;
const TOOLS_NOT_FORWARDED: HeaderName = HeaderName::from_static("x-flashlane-tools-not-forwarded");

pub(crate) async fn responses(
    extract::State(state): extract::State<Arc<State>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Refused> {
    serve(state, id, request, |session, body, now| session.handle_responses_body(body, now)).await
}

pub(crate) async fn input_tokens(
    extract::State(state): extract::State<Arc<State>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Refused> {
    serve(state, id, request, |session, body, now| session.handle_input_tokens_body(body, now)).await
}

pub(crate) async fn compact(
    extract::State(state): extract::State<Arc<State>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Refused> {
    serve(state, id, request, |session, body, now| session.handle_compact_body(body, now)).await
}

pub(crate) async fn chat(
    extract::State(state): extract::State<Arc<State>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Refused> {
    serve(state, id, request, |session, body, now| session.handle_chat_body(body, now)).await
}

async fn serve(
    state: Arc<State>,
    RequestId(id): RequestId,
    request: Request,
    begin: impl FnOnce(&mut Session, &[u8], Now),
) -> Result<Response, Refused> {
    let began_ns = state.clock.now().mono_ns;
    let (head, body) = request.into_parts();
    let body = collect(&state, &head.headers, body).await?;
    let (current, caller) = auth::still(&state, head.extensions.get::<Caller>())?;
    let origin = caller.origin(&head.headers);
    let wants_timing = allowance::wants_timing(&head.headers);
    let tracing = trace::tracing(&state, &head.headers);
    // Boxed: what holds it is moved several times.
    let mut drive = Box::new(Drive::new(state, (current, &caller), id, |shared, ids, owner| {
        Session::http(shared, ids, owner).with_origin(origin).with_timing_told(wants_timing).with_tracing(tracing)
    })?);
    let wants_route = head.headers.contains_key(allowance::ROUTE);
    let mut ear = Ear::new(&drive, head.version);
    let held = Held::of(head);
    if let Some(afterwards) = &held.afterwards {
        drive.set_timer(afterwards.timer());
    }
    let now = drive.now();
    drive.handle(now, |session, now| {
        session.handle_arriving(began_ns);
        begin(session, &body, now);
    });
    drive.was_busy_since(now);
    drop(body);
    let answer = poll_fn(|cx| {
        ear.hear(cx, &mut drive);
        drive.poll_answer(cx)
    })
    .await;
    let not_forwarded = tools_not_forwarded(&drive);
    let (routed, route) = (drive.routed(), if wants_route { drive.route() } else { None });
    let timing = drive.server_timing();
    let mut response = match answer {
        Answer::Stream => event_stream(Body::new(EventStream { drive: Some(drive), quiet_in: None, held, ear })),
        Answer::Json(json) => {
            held.end(drive);
            ([(CONTENT_TYPE, JSON)], json).into_response()
        }
        Answer::Background(enlisting) => in_background(drive, *enlisting, held).await,
        Answer::Refused(refusal) => {
            held.end(drive);
            counted(Refused(refusal))
        }
    };
    if let Some(names) = not_forwarded {
        response.headers_mut().insert(TOOLS_NOT_FORWARDED, names);
    }
    if let Some(route) = route.and_then(|route| HeaderValue::try_from(route).ok()) {
        response.headers_mut().insert(allowance::ROUTE, route);
    }
    allowance::insert(response.headers_mut(), routed.allowance);
    allowance::insert_timing(response.headers_mut(), timing);
    Ok(response)
}

/// A refusal that the session has counted already, with its turn.
fn counted(refused: Refused) -> Response {
    let mut response = refused.into_response();
    response.extensions_mut().remove::<ErrorKind>();
    response
}

/// The response is kept, and runs on by itself.
async fn in_background(drive: Box<Drive>, enlisting: Enlisting, held: Held) -> Response {
    let (owner, id) = (OwnerId(enlisting.record.owner.0), enlisting.record.id.clone());
    let (state, is_streamed) = (drive.shared_state(), enlisting.is_streamed);
    match background::start(drive, enlisting).await {
        Ok(_) if is_streamed => Reader::new(state, owner, id, None).stream(held),
        Ok(queued) => ([(CONTENT_TYPE, JSON)], queued).into_response(),
        Err(refusal) => counted(Refused(refusal)),
    }
}

pub(crate) fn event_stream(body: Body) -> Response {
    let headers =
        [(CONTENT_TYPE, EVENT_STREAM), (CACHE_CONTROL, NO_CACHE), (ACCEL_BUFFERING, HeaderValue::from_static("no"))];
    (headers, body).into_response()
}

/// The tools that the client offered and no upstream sees, by type.
fn tools_not_forwarded(drive: &Drive) -> Option<HeaderValue> {
    let kinds: Vec<_> = drive.tools_not_forwarded().iter().copied().collect();
    if kinds.is_empty() { None } else { HeaderValue::from_str(&kinds.join(", ")).ok() }
}

/// The whole body, within the limits of size and time.
pub(crate) async fn collect(state: &State, headers: &HeaderMap, body: Body) -> Result<Bytes, Refused> {
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let message = "Only uncompressed request bodies are accepted: leave Content-Encoding out.";
        return Err(Refused::new(ErrorKind::UnsupportedMediaType, message));
    }
    let bytes_max = state.current().config.limits.request_bytes_max;
    let too_large = || {
        Refused::new(
            ErrorKind::PayloadTooLarge,
            format!("The request body is larger than the {bytes_max} bytes allowed."),
        )
    };
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large());
    }
    let part = match state.memory.stage().refuses_sessions() {
        true => state.assembling.scarce_part(),
        false => state.assembling.part(),
    };
    let paced = Paced::new(body, &state.current().config.limits, part);
    match Limited::new(paced, bytes_max).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) if error.is::<Crowded>() => {
            state.metrics.client_cut(Cut::Crowded);
            let refusal = Refusal::new(ErrorKind::Overloaded, error.to_string());
            Err(Refused(refusal.with_retry_after_ms(Some(CROWDED_RETRY_AFTER_MS))))
        }
        Err(error) => match error.downcast_ref::<Late>() {
            Some(late) => {
                state.metrics.client_cut(Cut::Late);
                Err(Refused::new(ErrorKind::InvalidJson, late.to_string()))
            }
            None => Err(Refused::new(ErrorKind::InvalidJson, "The request body could not be read.")),
        },
    }
}

/// A streamed answer: each frame is all that is ready, in whole events.
struct EventStream {
    /// None once it has ended.
    drive: Option<Box<Drive>>,
    /// The poll of the connection in which all wakers were left with what may be next.
    quiet_in: Option<u64>,
    held: Held,
    ear: Ear,
}

/// By what a request's turn hears that the server can wait no longer, or that another config holds.
struct Ear {
    draining: Draining,
    /// It has a task of its own. That of an HTTP/1.1 connection is woken for its requests.
    is_alone: bool,
}

impl Ear {
    fn new(drive: &Drive, version: Version) -> Self {
        Self { draining: drive.state().connections.draining(), is_alone: version >= Version::HTTP_2 }
    }

    fn hear(&mut self, cx: &Context<'_>, drive: &mut Drive) {
        let heard = if self.is_alone { self.draining.poll(cx) } else { self.draining.heard() };
        let Some(heard) = heard else { return };
        let now = drive.now();
        match heard {
            Heard::Over => drive.handle(now, Session::handle_over),
            Heard::Renewed => drive.heed_renewal(now),
            Heard::Close { .. } => {}
        }
    }
}

/// By what the connection knows that the request is still being answered.
pub(crate) struct Held {
    _watching: Option<Watching>,
    _request: Option<Requests>,
    afterwards: Option<Afterwards>,
}

impl Held {
    pub(crate) fn of(mut head: Parts) -> Self {
        // HTTP/2 reads on always, and its turns are many at once.
        let is_exclusive = head.version < Version::HTTP_2;
        let watch = head.extensions.remove::<Watch>().filter(|_| is_exclusive);
        let afterwards = head.extensions.remove::<Afterwards>().filter(|_| is_exclusive);
        Self { _watching: watch.map(Watch::begin), _request: head.extensions.remove(), afterwards }
    }

    /// The turn's answer is whole.
    fn end(&self, drive: Box<Drive>) {
        if let Some(afterwards) = &self.afterwards {
            afterwards.end(drive);
        }
    }
}

impl http_body::Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    // hot: per token
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self { drive, quiet_in, held, ear } = self.get_mut();
        let Some(running) = drive else { return Poll::Ready(None) };
        ear.hear(cx, running);
        // hyper asks again after a frame, and again after it has flushed: without a wake there is nothing new.
        let poll_number = held.afterwards.as_ref().map(Afterwards::poll_number);
        if poll_number.is_some() && *quiet_in == poll_number && !running.is_drained() {
            return Poll::Pending;
        }
        let (polled, rest) = running.poll_ready(cx);
        *quiet_in = poll_number.filter(|_| rest == Rest::Quiet);
        let frame = ready!(polled);
        if frame.is_none()
            && let Some(ended) = drive.take()
        {
            held.end(ended);
        }
        Poll::Ready(frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drive {
    /// All that is ready to be written, None when all has been; and why there is no more.
    // hot: per token
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> (Poll<Option<Bytes>>, Rest) {
        let now = self.now();
        let rest = self.poll(cx, now, None);
        self.was_busy_since(now);
        if !self.outgoing().is_empty() {
            return (Poll::Ready(Some(self.take_frame())), rest);
        }
        if self.is_drained() {
            return (Poll::Ready(None), rest);
        }
        match rest {
            Rest::Quiet => {}
            Rest::Busy | Rest::Full => cx.waker().wake_by_ref(),
        }
        (Poll::Pending, rest)
    }

    /// A small frame is copied, so that the outgoing buffer keeps its room: one allocation, where a new buffer grows by five.
    // hot: per token
    fn take_frame(&mut self) -> Bytes {
        let outgoing = self.outgoing();
        let bytes = outgoing.len();
        if bytes > FRAME_BYTES_COPIED_MAX {
            return outgoing.take();
        }
        let frame = Bytes::copy_from_slice(outgoing.ready());
        outgoing.consume(bytes);
        frame
    }
}
