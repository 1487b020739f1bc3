//! The answers of one HTTP/2 connection, each in a task of its own, which hyper makes and this runs. One of which its client takes nothing
//! for too long is dropped: h2 resets that stream, and the others go on. Knows nothing of what is answered.

use super::connections::Connections;
use crate::stall::{Mark, Stall};
use crate::state::State;
use axum::body::Body;
use bytes::Bytes;
use flashlane_telemetry::label::Cut;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::Executor;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

/// One a connection. Its clones are hyper's.
#[derive(Clone)]
pub(super) struct Streams {
    connections: Arc<Connections>,
    state: Arc<State>,
    /// Of the request that hyper has asked for last: it hands over the answer's future before it asks for another.
    next: Arc<Mutex<Option<Mark>>>,
}

impl Streams {
    pub(super) fn new(connections: &Arc<Connections>, state: &Arc<State>) -> Self {
        Self { connections: Arc::clone(connections), state: Arc::clone(state), next: Arc::default() }
    }

    /// For the body that answers the request which is about to begin: see [`marked`].
    pub(super) fn begin(&self) -> Mark {
        let mark = Mark::default();
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(mark.clone());
        mark
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, answer: F) {
        let mark = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let state = Arc::clone(&self.state);
        let mut stall = Stall::new(&mark.unwrap_or_default(), state.current().config.limits.write_stall_ms_max);
        self.connections.spawn(async move {
            let mut answer = pin!(answer);
            poll_fn(|cx| {
                if answer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if stall.poll_over(cx) {
                    state.metrics.client_cut(Cut::Stalled);
                    return Poll::Ready(());
                }
                Poll::Pending
            })
            .await;
        });
    }
}

/// The same body, which marks that a frame waits until the next one is asked for.
pub(crate) fn marked(body: Body, mark: Mark) -> Body {
    Body::new(Marked { body, mark })
}

struct Marked {
    body: Body,
    mark: Mark,
}

impl HttpBody for Marked {
    type Data = Bytes;
    type Error = axum::Error;

    // hot: per token
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.mark.end();
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(_)) = &frame {
            self.mark.begin();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
