//! A turn's upstream, whatever carries it.

use crate::client::leaving::Leaving;
use crate::openai::http1::Http1;
use crate::openai::http2::Http2;
use crate::responses::WebSocket;
use crate::simulator::Playing;
use flashlane_engine::{Ended, UpstreamEvent, UpstreamFailure};
use std::task::{Context, Poll};

/// The answer to one request, as it comes. Dropping it before its end closes its connection (HTTP/2: resets its stream): that is how a
/// turn is cancelled upstream.
pub enum TokenStream {
    Http1(Box<Http1>),
    Http2(Box<Http2>),
    WebSocket(Box<WebSocket>),
    Simulator(Box<Playing>),
    /// Nothing could be sent.
    Failed(Option<UpstreamFailure>),
}

/// Whether a stream that handed something over has more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handed {
    /// There may be more at once.
    More,
    /// That was all for now: the waker is registered.
    All,
}

impl TokenStream {
    /// Hands over what is ready: `Connected`, `Opened` once, `Bytes` any number of times, `Ended` once; `Ended` may come first. `Ready` if
    /// anything else than `Connected` was handed over; `Pending` has registered the waker. Connecting and sending happen in here too. After `Ended` there is nothing to
    /// poll for.
    ///
    /// Does not block. Needs tokio's reactor and timer around it.
    // hot: per token
    pub fn poll(&mut self, cx: &mut Context<'_>, on: &mut impl FnMut(UpstreamEvent<'_>)) -> Poll<Handed> {
        match self {
            Self::Http1(stream) => stream.poll(cx, on),
            Self::Http2(stream) => stream.poll(cx, on).map(|()| Handed::More),
            Self::WebSocket(stream) => stream.poll(cx, on),
            Self::Simulator(stream) => stream.poll(cx, on).map(|()| Handed::More),
            Self::Failed(failure) => match failure.take() {
                Some(failure) => {
                    on(UpstreamEvent::Ended(Ended::Failed(failure)));
                    Poll::Ready(Handed::More)
                }
                None => Poll::Pending,
            },
        }
    }

    /// Ends a turn whose client goes on with another one: where that one should wait until the engine has let go of this one, `Some`.
    #[must_use]
    pub fn cancel(self) -> Option<Leaving> {
        match self {
            Self::Http1(stream) => stream.cancel(),
            Self::Http2(_) | Self::WebSocket(_) | Self::Simulator(_) | Self::Failed(_) => None,
        }
    }

    /// The request goes out when the engine has let go of another one. Called before the first poll.
    pub fn wait_for(&mut self, leaving: Leaving) {
        match self {
            Self::Http1(stream) => stream.wait_for(leaving),
            Self::Http2(_) | Self::WebSocket(_) | Self::Simulator(_) | Self::Failed(_) => {}
        }
    }

    /// The turn has all that it needs (`[DONE]` came): the connection goes back to its pool, even when the last bytes of its body have not been
    /// read yet.
    pub fn park(self) {
        match self {
            Self::Http1(stream) => stream.park(),
            Self::WebSocket(stream) => stream.park(),
            Self::Http2(_) | Self::Simulator(_) | Self::Failed(_) => {}
        }
    }
}
