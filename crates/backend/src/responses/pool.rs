//! The idle WebSockets of one endpoint. Knows nothing of requests.

use crate::client::io::Io;
use futures_util::Stream;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Servers end a connection after 60 minutes, and what runs on it.
const LIFE_MAX: Duration = Duration::from_mins(50);
/// Messages that an idle connection may have got, such as timings behind a response.
const STALE_MESSAGES_MAX: usize = 16;

/// An open WebSocket.
pub(crate) struct Socket {
    pub(crate) stream: WebSocketStream<Io>,
    until: Instant,
}

impl Socket {
    pub(crate) fn new(stream: WebSocketStream<Io>) -> Self {
        Self { stream, until: Instant::now() + LIFE_MAX }
    }

    /// Takes what has come meanwhile; false where it was closed.
    fn is_live(&mut self) -> bool {
        for _ in 0..STALE_MESSAGES_MAX {
            match Pin::new(&mut self.stream).poll_next(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => return true,
                Poll::Ready(Some(Ok(Message::Close(_)) | Err(_)) | None) => return false,
                Poll::Ready(Some(Ok(_))) => {}
            }
        }
        false
    }
}

/// Sockets at rest, the most recently used first out. Bounded in number and in age.
pub(crate) struct Sockets {
    parked: Mutex<Vec<(Socket, Instant)>>,
    sockets_max: usize,
    idle_max: Duration,
}

impl Sockets {
    pub(crate) fn new(sockets_max: usize, idle_ms_max: u64) -> Self {
        Self { parked: Mutex::default(), sockets_max, idle_max: Duration::from_millis(idle_ms_max) }
    }

    pub(crate) fn park(&self, socket: Socket) {
        let now = Instant::now();
        let until = socket.until.min(now + self.idle_max);
        let mut all = self.lock();
        all.retain(|(_, until)| now < *until);
        all.push((socket, until));
        if all.len() > self.sockets_max {
            all.remove(0);
        }
    }

    pub(crate) fn check_out(&self) -> Option<Socket> {
        loop {
            // One at a time, so that the lock is not held while the kernel is asked.
            let (mut socket, until) = self.lock().pop()?;
            if Instant::now() < until && socket.is_live() {
                return Some(socket);
            }
        }
    }

    /// Closes those whose time is over, and counts the others. A pool that no turn comes to is emptied by whoever looks at it.
    pub(crate) fn len(&self) -> usize {
        let mut all = self.lock();
        let now = Instant::now();
        all.retain(|(_, until)| now < *until);
        all.len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Socket, Instant)>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
