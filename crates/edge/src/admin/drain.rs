//! `POST /drain`: the server leaves, as after SIGTERM.

use crate::drain::Haste;
use crate::state::State;
use axum::extract;
use http::StatusCode;
use std::sync::Arc;

pub(crate) async fn begin(extract::State(state): extract::State<Arc<State>>) -> (StatusCode, &'static str) {
    if state.stop(Haste::Announced) {
        tracing::info!("a stop was asked for by POST /drain");
    }
    (StatusCode::ACCEPTED, "draining\n")
}
