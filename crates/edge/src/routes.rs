//! Which request goes where, and what every answer has: a request id and the time it took. Unknown paths and wrong methods are
//! answered in the API's own error body too.

use crate::drain::Phase;
use crate::reply::Refused;
use crate::state::State;
use crate::{auth, children, conversations, http as turns, models, origin, panics, places, stored, ws};
use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use flashlane_engine::{ErrorKind, hex};
use http::header::{ALLOW, CONNECTION, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use std::sync::Arc;
use tokio::time::Instant;
use tower::Service as _;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// What `x-request-id` says; in the log of the request's turns too.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// The clients' router.
pub(crate) fn router(state: &Arc<State>) -> Router {
    Router::new()
        .route("/v1/responses", post(turns::responses).get(ws::upgrade))
        .route("/v1/responses/compact", post(turns::compact))
        .route("/v1/responses/input_tokens", post(turns::input_tokens))
        .route("/v1/responses/{id}", get(stored::retrieve).delete(stored::delete))
        .route("/v1/responses/{id}/cancel", post(stored::cancel))
        .route("/v1/responses/{id}/input_items", get(stored::input_items))
        .route("/v1/responses/{id}/children", get(children::children))
        .route("/v1/conversations", post(conversations::create))
        .route(
            "/v1/conversations/{id}",
            get(conversations::retrieve).post(conversations::update).delete(conversations::delete),
        )
        .route("/v1/conversations/{id}/items", get(conversations::list_items).post(conversations::add_items))
        .route(
            "/v1/conversations/{id}/items/{item}",
            get(conversations::retrieve_item).delete(conversations::delete_item),
        )
        .route("/v1/chat/completions", post(turns::chat))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(state))
}

/// The answer to a client's request, with an id on both; it is counted if it is an error.
///
/// What comes before the route is called from here, not put around it as layers: each of those boxes a future and clones what it is around.
pub(crate) async fn answer(state: &State, router: Router, mut request: Request) -> Response {
    let began = Instant::now();
    let id = match request_id() {
        Ok(id) => id,
        Err(error) => return Refused::from(error).into_response(),
    };
    let header = HeaderValue::from_str(&id);
    let version = request.version();
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    let mut response = panics::answered(state, &id, admit(state, router, request)).await;
    if let Some(kind) = response.extensions().get::<ErrorKind>() {
        state.metrics.error(*kind);
    }
    let is_last = version < Version::HTTP_2
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
        && state.connections.phase() > Phase::Serving;
    let headers = response.headers_mut();
    if is_last {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Ok(header) = header {
        headers.insert(REQUEST_ID, header);
    }
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert(PROCESSING_MS, HeaderValue::from(ms));
    response
}

/// Who may not be served is told so, before the route is looked for.
async fn admit(state: &State, mut router: Router, mut request: Request) -> Response {
    let place = match places::take(state, &mut request) {
        Ok(place) => place,
        Err(refused) => return refused.into_response(),
    };
    if let Err(refused) = origin::check(state, &request).and_then(|()| auth::check(state, &mut request)) {
        return places::hold(place, refused.into_response());
    }
    let Ok(response) = router.call(request).await;
    places::hold(place, response)
}

/// An id for a request: `req_` and 32 hexadecimal digits.
pub(crate) fn request_id() -> Result<Arc<str>, crate::Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|source| crate::Error::Random { source })?;
    Ok(["req_", &hex(random)].concat().into())
}

const SERVED: &str = "This server has /v1/responses, /v1/conversations, /v1/chat/completions and /v1/models.";

async fn unknown_path(request: Request) -> Refused {
    let (method, path) = (request.method(), request.uri().path());
    let message = match path.strip_prefix("/v1/") {
        Some(known) if known.starts_with("responses/") || known.starts_with("chat/completions/") => {
            format!("{method} {path} is not served by this server yet.")
        }
        Some(_) => format!("Unknown request URL: {method} {path}. {SERVED}"),
        None => format!("Unknown request URL: {method} {path}. {SERVED} A client's base URL ends in /v1."),
    };
    Refused::new(ErrorKind::RouteNotFound, message)
}

/// The router adds `Allow`.
async fn wrong_method(request: Request) -> Refused {
    let message = format!("Not allowed to {} on {}.", request.method(), request.uri().path());
    Refused::new(ErrorKind::MethodNotAllowed, message)
}

/// 405 for a GET of `/v1/responses` that asks for no upgrade.
pub(crate) fn only_post() -> Response {
    let message =
        "Not allowed to GET on /v1/responses without a WebSocket upgrade. POST a request, or connect by WebSocket.";
    let mut response = Refused::new(ErrorKind::MethodNotAllowed, message).into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}
