//! `GET /v1/responses` with an upgrade: RFC 6455's opening handshake. What comes after it, [`crate::socket`] does.

use crate::config::LimitsConfig;
use crate::drive::Drive;
use crate::inspected::Inspected;
use crate::keys::Caller;
use crate::listen::Permit;
use crate::reply::Refused;
use crate::routes::{RequestId, only_post};
use crate::socket::Socket;
use crate::state::State;
use crate::watch::Watched;
use crate::{allowance, auth, places, trace};
use axum::body::Body;
use axum::extract::{self, Extension, Request};
use axum::response::{IntoResponse, Response};
use flashlane_backend::Io;
use flashlane_engine::admission::limit::Allowance;
use flashlane_engine::router::Traits;
use flashlane_engine::{ErrorKind, Session};
use flashlane_telemetry::label::Excess;
use flashlane_wire::websocket::{Decoder, Deflate, Encoder, Limits, accept_key};
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::{Parts, downcast};
use std::sync::Arc;

/// Codex asks by it for a timing event, and reads no further than a response's last one.
const CODEX_TIMING: HeaderName = HeaderName::from_static("x-responsesapi-include-timing-metrics");
/// A client that sends `1`, or Codex's own header, is told its limits before each turn.
const RATE_LIMITS: HeaderName = HeaderName::from_static("x-flashlane-rate-limits");
const CODEX: HeaderName = HeaderName::from_static("x-codex-turn-metadata");

pub(crate) async fn upgrade(
    extract::State(state): extract::State<Arc<State>>,
    Extension(RequestId(id)): Extension<RequestId>,
    Extension(permit): Extension<Permit>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
) -> Response {
    if !wants_websocket(&request) {
        return only_post();
    }
    if state.memory.stage().refuses_sessions() {
        state.exceeded(Excess::MemorySession, None, Some(&id));
        return Refused(places::refusal(Excess::MemorySession)).into_response();
    }
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let handshake = match Handshake::read(&state, request.headers()) {
        Ok(handshake) => handshake,
        Err(refused) => return refused,
    };
    let Some(on_upgrade) = on_upgrade else { return bad_handshake("this connection cannot be upgraded") };
    let limits = frame_limits(&state.current().config.limits);
    let Handshake { accept, deflate, deflate_header, timing, timing_within, rate_limits } = handshake;
    let decoder = Decoder::new(limits, deflate);
    let (current, caller) = match auth::still(&state, Some(&caller)) {
        Ok(still) => still,
        Err(refused) => return refused.into_response(),
    };
    let origin = caller.origin(request.headers());
    let model = auth::model(request.headers());
    let tracing = trace::tracing(&state, request.headers());
    let mut allowance = Allowance::default();
    let drive = Drive::new(Arc::clone(&state), (current, &caller), id, |shared, ids, owner| {
        let traits = Traits { owner, origin, keys: origin.keys(None), ..Traits::default() };
        let foreseen = state.expect(&shared.fleet, traits, model.as_deref());
        allowance = foreseen.map(|foreseen| foreseen.allowance).unwrap_or_default();
        Session::websocket(shared, ids, owner, Encoder::new(deflate), timing)
            .with_origin(origin)
            .with_tracing(tracing)
            .with_planned(foreseen.map(|foreseen| foreseen.endpoint))
            .with_limits_told(rate_limits)
            .with_timing_within(timing_within)
    });
    let mut drive = match drive {
        Ok(drive) => drive,
        Err(error) => return Refused::from(error).into_response(),
    };
    let now = drive.now();
    drive.handle(now, Session::handle_connected);
    let connections = Arc::clone(&state.connections);
    state.connections.spawn(async move {
        if let Some((io, early)) = taken_over(on_upgrade).await {
            // A task of its own: this one's memory, which holds what both of its halves need, goes back.
            connections.spawn(Socket::new(io, decoder, drive, permit).run(early));
        }
    });
    let mut response = switching_protocols(accept, deflate_header);
    allowance::insert(response.headers_mut(), allowance);
    response
}

/// The connection once the answer is out, and what was read behind the handshake. None: the client left first.
pub(crate) async fn taken_over(on_upgrade: OnUpgrade) -> Option<(Io, Vec<u8>)> {
    let Parts { io, read_buf, .. } = downcast::<TokioIo<Watched<Inspected<Io>>>>(on_upgrade.await.ok()?).ok()?;
    let (stream, ahead) = io.into_inner().into_parts();
    Some((stream.into_inner(), [&read_buf[..], &ahead].concat()))
}

/// The answer to an opening handshake without extensions.
///
/// # Errors
/// It is none: the answer that says so.
#[expect(clippy::result_large_err, reason = "the refusal is the answer itself, made once a connection")]
pub(crate) fn accept(request: &Request) -> Result<Response, Response> {
    let headers = request.headers();
    if !wants_websocket(request) || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(bad_handshake("`Upgrade: websocket` is missing"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(wrong_version());
    }
    match headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()) {
        Some(key) => Ok(switching_protocols(accept_key(key), None)),
        None => Err(bad_handshake("`Sec-WebSocket-Key` is missing")),
    }
}

fn frame_limits(config: &LimitsConfig) -> Limits {
    Limits {
        message_bytes_max: config.message_bytes_max,
        message_fragments_max: config.message_fragments_max,
        pings_per_second_max: config.pings_per_second_max,
    }
}

fn wants_websocket(request: &Request) -> bool {
    request.version() == Version::HTTP_11 && has_token(request.headers(), &UPGRADE, "websocket")
}

/// What the client's opening handshake amounts to.
struct Handshake {
    accept: String,
    deflate: Option<Deflate>,
    deflate_header: Option<String>,
    timing: bool,
    timing_within: bool,
    rate_limits: bool,
}

impl Handshake {
    #[expect(clippy::result_large_err, reason = "the refusal is the answer itself, made once a connection")]
    fn read(state: &State, headers: &HeaderMap) -> Result<Self, Response> {
        if !state.current().config.websocket {
            let message = "WebSocket connections are switched off here (`server.websocket`). Use HTTP.";
            return Err(Refused::new(ErrorKind::UpgradeRequired, message).into_response());
        }
        if !has_token(headers, &CONNECTION, "upgrade") {
            return Err(bad_handshake("`Connection: upgrade` is missing"));
        }
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(wrong_version());
        }
        let Some(key) = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()) else {
            return Err(bad_handshake("`Sec-WebSocket-Key` is missing"));
        };
        let (deflate, deflate_header) =
            if state.current().config.websocket_deflate { negotiate(headers) } else { None }.unzip();
        let timing = allowance::wants_timing(headers);
        let timing_within = !timing && headers.get(CODEX_TIMING).is_some_and(|value| value == "true");
        let rate_limits = headers.contains_key(CODEX) || headers.get(RATE_LIMITS).is_some_and(|value| value == "1");
        Ok(Self { accept: accept_key(key), deflate, deflate_header, timing, timing_within, rate_limits })
    }
}

fn negotiate(headers: &HeaderMap) -> Option<(Deflate, String)> {
    let mut offers = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|offer| offer.to_str().ok());
    offers.find_map(Deflate::negotiate)
}

/// Whether a header that is a list of tokens has this one.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

fn bad_handshake(what: &str) -> Response {
    Refused::new(ErrorKind::InvalidValue, format!("This is no WebSocket handshake: {what}.")).into_response()
}

/// RFC 6455, 4.4.
fn wrong_version() -> Response {
    let mut response = bad_handshake("`Sec-WebSocket-Version` must be 13");
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

fn switching_protocols(accept: String, deflate: Option<String>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(Ok(deflate)) = deflate.map(HeaderValue::try_from) {
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, deflate);
    }
    response
}
