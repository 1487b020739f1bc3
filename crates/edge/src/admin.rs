//! What operators ask: is it alive, is it ready, what has it counted; and what they change while it runs. On a listener of its own, so
//! that it can stay private.

mod drain;
mod endpoints;

use crate::drain::Phase;
use crate::reply::Refused;
use crate::state::State;
use crate::{limits, origin};
use axum::Router;
use axum::extract::{self, Request};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use flashlane_engine::ErrorKind;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use std::sync::Arc;

const METRICS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(crate) fn router(state: &Arc<State>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/limits", get(limits::show))
        .route("/drain", post(drain::begin).layer(middleware::from_fn_with_state(Arc::clone(state), origin::guard)))
        // A web page must not change anything here.
        .route(
            "/limits/{tier}",
            patch(limits::change).layer(middleware::from_fn_with_state(Arc::clone(state), origin::guard)),
        )
        .route("/endpoints", get(endpoints::show))
        .route(
            "/endpoints/{name}",
            patch(endpoints::change).layer(middleware::from_fn_with_state(Arc::clone(state), origin::guard)),
        )
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(state))
}

async fn ready(extract::State(state): extract::State<Arc<State>>) -> Response {
    if state.connections.phase() > Phase::Serving {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    "ready\n".into_response()
}

async fn metrics(extract::State(state): extract::State<Arc<State>>) -> Response {
    match state.render_metrics() {
        Ok(text) => ([(CONTENT_TYPE, METRICS_TEXT)], text).into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the metrics cannot be written");
            Refused::new(ErrorKind::Internal, "The metrics cannot be written.").into_response()
        }
    }
}

async fn unknown_path(request: Request) -> Refused {
    let message = format!(
        "Unknown path {}: there are /livez, /readyz, /metrics, /limits, /endpoints and /drain.",
        request.uri().path()
    );
    Refused::new(ErrorKind::RouteNotFound, message)
}

async fn wrong_method(request: Request) -> Refused {
    Refused::new(
        ErrorKind::MethodNotAllowed,
        format!("Not allowed to {} on {}.", request.method(), request.uri().path()),
    )
}
