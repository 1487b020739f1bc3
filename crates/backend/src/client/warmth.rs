//! Keeping connections warm: what is asked of a connection so that it stays open and quick, and for how long that is done.
//! Knows no turn.

use crate::client::pool::Connection;
use crate::openai::request::Template;
use bytes::Bytes;
use flashlane_wire::http1::Event;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// How long the answer to such a request may take: it says nothing that is needed.
pub(crate) const TOUCH_MAX: Duration = Duration::from_secs(1);

/// An endpoint's wish for warm connections.
pub(crate) struct Warmth {
    /// A whole GET request of HTTP/1.1.
    pub(crate) head: Bytes,
    /// Its target, and its fields for HTTP/2.
    pub(crate) target: String,
    pub(crate) fields: http::HeaderMap,
    pub(crate) connections: usize,
    /// Between two rounds.
    pub(crate) every: Duration,
    /// After the last session began or the last turn.
    pub(crate) lasts: Duration,
    /// Until when rounds are made; `None`: nobody makes them.
    until: Mutex<Option<Instant>>,
}

impl Warmth {
    pub(crate) fn new(
        template: &Template,
        target: String,
        connections: usize,
        (every, lasts): (Duration, Duration),
    ) -> Self {
        let (head, fields) = template.get(&target);
        Self { head, fields, target, connections, every, lasts, until: Mutex::new(None) }
    }

    /// Somebody is there. `true`: and nobody makes rounds, so the caller is to.
    pub(crate) fn begin(&self) -> bool {
        self.until().replace(Instant::now() + self.lasts).is_none()
    }

    /// A turn runs: rounds that are being made go on.
    pub(crate) fn extend(&self) {
        if let Some(until) = self.until().as_mut() {
            *until = Instant::now() + self.lasts;
        }
    }

    /// Whether another round is due; if not, nobody makes rounds from here on.
    pub(crate) fn goes_on(&self) -> bool {
        let mut until = self.until();
        if until.is_some_and(|until| Instant::now() < until) {
            return true;
        }
        *until = None;
        false
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks over a connection at rest, and reads the answer to its end. `None`: the connection cannot be used again.
pub(crate) async fn touch(mut connection: Connection, head: &[u8]) -> Option<Connection> {
    let exchange = async {
        connection.begin(u64::try_from(TOUCH_MAX.as_millis()).unwrap_or(u64::MAX));
        connection.io.write_all(head).await?;
        connection.io.flush().await?;
        read(&mut connection).await
    };
    match tokio::time::timeout(TOUCH_MAX, exchange).await {
        Ok(Ok(true)) => {
            connection.settled = true;
            Some(connection)
        }
        Ok(Ok(false) | Err(_)) | Err(_) => None,
    }
}

/// Whether the connection may be used again after the answer.
async fn read(connection: &mut Connection) -> io::Result<bool> {
    loop {
        let bytes = connection.io.read(&mut connection.buffer).await?;
        let input = connection.buffer.get(..bytes).filter(|input| !input.is_empty());
        let Some(input) = input else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let (mut end, mut keep_alive) = (None, None);
        let used = connection.reader.read(input, |event| match event {
            Event::Head(head) => keep_alive = Some(head.keep_alive),
            Event::End { reusable } => end = Some(reusable),
            Event::Body(_) => {}
        });
        let used = used.map_err(io::Error::other)?;
        if let Some(keep_alive) = keep_alive {
            connection.heed(keep_alive);
        }
        if let Some(reusable) = end {
            return Ok(reusable && used == bytes);
        }
    }
}
