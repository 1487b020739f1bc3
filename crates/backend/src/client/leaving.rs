//! A turn that is not wanted any more, until its engine has let go of it. Knows nothing of HTTP.

use crate::client::pool::Connection;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

/// How long an engine has to notice: it looks between two tokens, or between two pieces of a prompt.
const LEAVING_MAX: Duration = Duration::from_secs(1);

/// Resolves when the engine has stopped, or has had its time.
///
/// An engine whose prefix cache belongs to a slot has the best one in the slot of the turn that was just cancelled, and gives that slot to no
/// request that comes while it is busy.
pub struct Leaving(oneshot::Receiver<()>);

impl Future for Leaving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

/// What is awaited, and the work that brings it about: whether the engine has let go in its time.
pub(crate) fn leave(connection: Connection) -> (Leaving, impl Future<Output = bool> + Send) {
    let (left, leaving) = oneshot::channel();
    let work = async move {
        // Whatever comes of it, the connection is closed, and whoever waits is told.
        let seen_off = tokio::time::timeout(LEAVING_MAX, see_off(connection)).await;
        drop(left);
        seen_off.is_ok()
    };
    (Leaving(leaving), work)
}

/// Closes our half, which tells the engine, and waits until it has closed its own.
async fn see_off(mut connection: Connection) {
    if connection.io.shutdown().await.is_ok() {
        while connection.io.read(&mut connection.buffer).await.is_ok_and(|bytes| bytes > 0) {}
    }
}
