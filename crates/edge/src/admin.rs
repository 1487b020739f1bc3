//! What operators ask: is it alive, is it ready, what has it counted; and what they change while it runs. On a listener of its own, so
//! that it can stay private.

mod config;
mod drain;
mod endpoints;
mod guard;
mod limits;
mod status;
mod turns;
mod usage;

pub(crate) use status::glance::Glance;

use crate::drain::Phase;
use crate::reply::Refused;
use crate::routes::{self, RequestId};
use crate::state::State;
use axum::Router;
use axum::extract::{self, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use flashlane_engine::ErrorKind;
use guard::{Door, Gate};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use std::sync::Arc;

const METRICS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// `is_private`: only this machine reaches the listener.
pub(crate) fn router(state: &Arc<State>, is_private: bool) -> Router {
    let behind = |door| {
        let gate = Gate { state: Arc::clone(state), door, is_private };
        middleware::from_fn_with_state(gate, guard::guard)
    };
    open()
        .merge(Router::new().route("/metrics", get(metrics)).layer(behind(Door::Metrics)))
        .merge(guarded().layer(behind(Door::Guarded)))
        .merge(changing().layer(behind(Door::Changing)))
        .merge(Router::new().route("/status/live", get(status::live)).layer(behind(Door::Late)))
        .merge(always_guarded().layer(behind(Door::Always)))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(identified))
        .with_state(Arc::clone(state))
}

/// Each answer has an id, which its errors' log lines have too.
async fn identified(mut request: Request, next: Next) -> Response {
    let id = match routes::request_id() {
        Ok(id) => id,
        Err(error) => return Refused::from(error).into_response(),
    };
    let header = HeaderValue::from_str(&id);
    request.extensions_mut().insert(RequestId(id));
    let mut response = next.run(request).await;
    if let Ok(header) = header {
        response.headers_mut().insert(routes::REQUEST_ID, header);
    }
    response
}

/// For whoever reaches the listener: the health of the process, and a page that knows nothing by itself.
fn open() -> Router<Arc<State>> {
    Router::new().route("/", get(status::page)).route("/livez", get(async || "ok\n")).route("/readyz", get(ready))
}

/// For this machine; beyond loopback for those who prove that they may.
fn guarded() -> Router<Arc<State>> {
    Router::new()
        .route("/usage", get(usage::show))
        .route("/limits", get(limits::show))
        .route("/turns", get(turns::list))
        .route("/turns/{id}", get(turns::one))
        .route("/status", get(status::show))
        .route("/endpoints", get(endpoints::show))
}

/// For this machine, unless the config says how operators prove that they may: then for those alone who do.
fn changing() -> Router<Arc<State>> {
    Router::new().route("/limits/{tier}", patch(limits::change)).route("/endpoints/{name}", patch(endpoints::change))
}

/// For those alone who prove that they may: `/config`, `/drain`.
fn always_guarded() -> Router<Arc<State>> {
    Router::new().route("/config", get(config::show)).route("/drain", post(drain::begin))
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
        "Unknown path {}: there are /livez, /readyz, /metrics, /limits, /usage, /endpoints, /turns, /status, /config and /drain.",
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// `GET /limits`, of all that `.route("/limits", get(...))` says.
    fn routed() -> BTreeSet<String> {
        let source = include_str!("admin.rs").split("#[cfg(test)]").next().unwrap();
        let routes = source.split(".route(\"").skip(1).map(|route| {
            let (path, rest) = route.split_once("\", ").unwrap();
            format!("{} {path}", rest.split('(').next().unwrap().to_uppercase())
        });
        routes.collect()
    }

    #[test]
    fn operations_tells_of_every_path_and_of_no_other() {
        let page = include_str!("../../../docs/OPERATIONS.md");
        let table = page.split_once("\n## Who may ask the admin listener\n").unwrap().1;
        let rows = table.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        let cells = rows.filter_map(|row| row.split('|').nth(1));
        let named: BTreeSet<String> =
            cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned)).collect();
        assert_eq!(routed(), named);
    }
}
