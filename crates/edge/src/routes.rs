//! Which request goes where, and what every answer has: a request id and the time it took. Unknown paths and wrong methods are
//! answered in the API's own error body too.

use crate::drain::Phase;
use crate::reply::Refused;
use crate::state::State;
use crate::{auth, conversations, http as turns, models, origin, panics, places, stored, ws};
use axum::Router;
use axum::extract::{self, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use flashlane_engine::ErrorKind;
use http::header::{ALLOW, CONNECTION, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use std::sync::Arc;
use tokio::time::Instant;

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
        .layer(middleware::from_fn_with_state(Arc::clone(state), auth::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(state), origin::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(state), places::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(state), stamp))
        .with_state(Arc::clone(state))
}

/// Puts an id on the request and its answer, and counts the answer if it is an error.
async fn stamp(extract::State(state): extract::State<Arc<State>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = match request_id() {
        Ok(id) => id,
        Err(error) => return Refused::from(error).into_response(),
    };
    let header = HeaderValue::from_str(&id);
    let version = request.version();
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    let mut response = panics::answered(&state, &id, next.run(request)).await;
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

/// An id for a request: `req_` and 32 hexadecimal digits.
pub(crate) fn request_id() -> Result<Arc<str>, crate::Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|source| crate::Error::Random { source })?;
    let mut id = String::with_capacity(4 + 2 * random.len());
    id.push_str("req_");
    let digits = random.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    id.extend(digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)));
    Ok(id.into())
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
