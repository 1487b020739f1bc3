//! For whom there is a place among the connections, and who is told that there is none: a rush waits a moment in the kernel's backlog, and
//! whoever comes while all stays taken is refused at once. Knows nothing of how they are served, or refused.

use super::connection::App;
use super::connections::Permit;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// How long those who come wait for a place since there was one.
const PLACE_WAIT_MAX: Duration = Duration::from_millis(250);
/// Who is being refused at once: each holds a file for a moment.
const REFUSED_MAX: usize = 16;

/// What the next connection gets.
pub(super) enum Seat {
    Served(Permit),
    /// None was free, though one may be by now.
    Refused(Option<OwnedSemaphorePermit>),
}

/// The seats of one listener.
pub(super) struct Seats<'a> {
    app: &'a App,
    refusing: Arc<Semaphore>,
    /// When those who wait are refused; None: there was a place for the last one.
    until: Option<Instant>,
}

impl<'a> Seats<'a> {
    pub(super) fn new(app: &'a App) -> Self {
        Self { app, refusing: Arc::new(Semaphore::new(REFUSED_MAX)), until: None }
    }

    pub(super) async fn next(&mut self) -> Seat {
        let connections = &self.app.connections;
        if let Some(permit) = connections.permit_now() {
            self.until = None;
            return Seat::Served(permit);
        }
        // Operators have others who make room for them.
        if !self.app.is_for_clients() {
            return Seat::Served(connections.permit().await);
        }
        let until = *self.until.get_or_insert_with(|| Instant::now() + PLACE_WAIT_MAX);
        match timeout_at(until, connections.permit()).await {
            Ok(permit) => Seat::Served(permit),
            Err(_) => Seat::Refused(Arc::clone(&self.refusing).acquire_owned().await.ok()),
        }
    }
}
