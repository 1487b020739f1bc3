//! A panic is a mistake of ours: it ends the request or the turn that it came from, and nothing else. What comes of it for a turn,
//! [`crate::drive`] says.

use crate::reply::Refused;
use crate::state::State;
use axum::response::{IntoResponse, Response};
use flashlane_engine::{ErrorKind, Refusal};
use flashlane_telemetry::panics;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// What the client is told.
pub(crate) fn refusal() -> Refusal {
    Refusal::new(
        ErrorKind::Internal,
        "Sorry, the server made a mistake. Please try again, and report the request's id.",
    )
}

/// Counts and logs it.
pub(crate) fn tell(state: &State, request_id: &str) {
    state.metrics.panicked();
    let place = panics::take_place();
    tracing::error!(request = request_id, place, "a panic ended a turn or a request");
}

/// A request's answer, whatever happens to its handler.
pub(crate) async fn answered(state: &State, request_id: &str, handler: impl Future<Output = Response>) -> Response {
    let mut handler = pin!(handler);
    // What a panic leaves half done is the handler's own, and is dropped with it.
    let answer = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    });
    match answer.await {
        Some(response) => response,
        None => {
            tell(state, request_id);
            Refused(refusal()).into_response()
        }
    }
}
