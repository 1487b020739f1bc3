//! What is asked of every request before its route, of clients and of operators, and cannot be seen from its bytes alone. That is seen
//! before ([`crate::inspected`]).

use crate::bare;
use crate::listen::marked;
use crate::peer::Peer;
use crate::reply::JSON;
use crate::routes;
use crate::stall::Mark;
use crate::state::State;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use flashlane_telemetry::label::Flaw;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{Method, StatusCode, Version};

/// `answer` is asked where nothing is wrong.
pub(crate) async fn guard<F: Future<Output = Response>>(
    state: &State,
    mut request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    // hyper counts those of HTTP/1.1 itself, and answers the same.
    if request.headers().len() > state.current().config.limits.headers_max {
        return too_many_fields(state, &request);
    }
    let may_upgrade = request.version() < Version::HTTP_2
        && request.method() == Method::GET
        && request.headers().contains_key(UPGRADE);
    let mark = request.extensions_mut().remove::<Mark>();
    let mut response = answer(request).await;
    if let Some(mark) = mark {
        response = response.map(|body| marked(body, mark));
    }
    // What comes behind a handshake is not inspected: it is no request, or it is never read.
    if may_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn too_many_fields(state: &State, request: &Request) -> Response {
    let (status, flaw) = (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Flaw::Large);
    state.metrics.unreadable(flaw);
    let mut response = Response::new(Body::from(bare::error(flaw)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    let id = routes::request_id().ok();
    if let Some(peer) = request.extensions().get::<Peer>() {
        state.refusals.unreadable(flaw, peer.address, id.as_deref(), state.clock.mono_ns());
    }
    if let Some(id) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
        response.headers_mut().insert(routes::REQUEST_ID, id);
    }
    response
}
