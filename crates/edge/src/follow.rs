//! An event stream that is read from a job's journal, as far as it is and as it grows. What was read once reads the same again.
//!
//! Knows nothing of who writes the journal.

use crate::background::Progress;
use crate::http::{Held, event_stream};
use crate::state::State;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use flashlane_store::{Event, JobState, OwnerId};
use http_body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;

/// A place in a journal.
pub(crate) struct Reader {
    state: Arc<State>,
    owner: OwnerId,
    id: String,
    /// The number of the last event that was read.
    after: Option<u64>,
    /// None: nobody writes any more.
    progress: Option<watch::Receiver<Progress>>,
}

impl Reader {
    pub(crate) fn new(state: Arc<State>, owner: OwnerId, id: String, after: Option<u64>) -> Self {
        let progress = state.jobs.live(owner, &id).map(|live| live.follow());
        Self { state, owner, id, after, progress }
    }

    /// The rest of the journal as an event stream.
    pub(crate) fn stream(self, held: Held) -> Response {
        event_stream(Body::new(Following { step: Some(Box::pin(self.next())), _held: held }))
    }

    /// All that is there, framed, and the place behind it; None when there is no more.
    async fn next(mut self) -> Step {
        loop {
            // What comes from here on wakes.
            let is_ended = match &mut self.progress {
                Some(progress) => *progress.borrow_and_update() == Progress::Ended,
                None => true,
            };
            let now = self.state.clock.now().unix_ms;
            let read = self.state.store.job_events(self.owner, &self.id, self.after, now).await;
            let journal = match read {
                Ok(Some(journal)) => journal,
                // Deleted, or not to be read: the stream breaks off.
                Ok(None) => return None,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a journal cannot be read");
                    return None;
                }
            };
            if let Some(last) = journal.events.last() {
                self.after = Some(last.sequence_number);
                return Some((framed(&journal.events), Some(self)));
            }
            match &mut self.progress {
                _ if journal.state == JobState::Finished => return Some((Bytes::from_static(DONE), None)),
                Some(progress) if !is_ended => {
                    let silence_max = Duration::from_millis(self.state.current().shared.settings.keepalive_ms);
                    if tokio::time::timeout(silence_max, progress.changed()).await.is_err() {
                        return Some((Bytes::from_static(KEEPALIVE), Some(self)));
                    }
                }
                Some(_) | None => return None,
            }
        }
    }
}

const DONE: &[u8] = b"data: [DONE]\n\n";
/// No client takes a comment for an event.
const KEEPALIVE: &[u8] = b": keepalive\n\n";

/// An event's name is its type, which is its first field.
fn framed(events: &[Event]) -> Bytes {
    let mut out = Vec::with_capacity(events.iter().map(|event| event.json.len() + 64).sum());
    for event in events {
        let name = event.json.strip_prefix(b"{\"type\":\"").unwrap_or_default();
        out.extend_from_slice(b"event: ");
        out.extend(name.iter().take_while(|byte| **byte != b'"'));
        out.extend_from_slice(b"\ndata: ");
        out.extend_from_slice(&event.json);
        out.extend_from_slice(b"\n\n");
    }
    Bytes::from(out)
}

type Step = Option<(Bytes, Option<Reader>)>;

struct Following {
    /// None once it has ended.
    step: Option<Pin<Box<dyn Future<Output = Step> + Send>>>,
    _held: Held,
}

impl http_body::Body for Following {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self { step, .. } = self.get_mut();
        let Some(running) = step else { return Poll::Ready(None) };
        let Some((bytes, rest)) = ready!(running.as_mut().poll(cx)) else {
            *step = None;
            return Poll::Ready(None);
        };
        *step = match rest {
            Some(rest) => Some(Box::pin(rest.next())),
            None => None,
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_framed_by_its_own_type() {
        let json = Bytes::from_static(br#"{"type":"response.created","response":{},"sequence_number":0}"#);
        let framed = framed(&[Event { sequence_number: 0, json: json.clone() }]);
        assert_eq!(framed, [b"event: response.created\ndata: ", &json[..], b"\n\n"].concat());
    }
}
