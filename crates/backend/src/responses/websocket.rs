//! One turn over a WebSocket to a server of the Responses API: the connection is the turn's while it runs, and goes back to its pool when the
//! upstream's response has ended. What comes is handed on as an event stream's bytes. Driven wholly by whoever polls it.
//!
//! The API has no cancel: a turn that is left closes its connection. Pings are answered by the codec.

use super::pool::{Socket, Sockets};
use crate::client::Remote;
use crate::client::io::Io;
use crate::client::watch::Watch;
use crate::error::chain;
use crate::openai::request::AGENT;
use crate::stream::Handed;
use bytes::Bytes;
use flashlane_engine::{Ended, UpstreamEvent, UpstreamFailure, UpstreamRequest};
use flashlane_wire::chat::StreamError;
use flashlane_wire::responses::{self, Ending, Said, ServerEvent};
use futures_util::{Sink, Stream};
use http::HeaderValue;
use http::header::{AUTHORIZATION, USER_AGENT};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// Bytes of one message of the server's: beyond any event, which have an item in them at most, or a response.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What the server says of a connection that has had its time; the request was not begun.
const TOO_OLD: &str = "websocket_connection_limit_reached";
/// After so many messages the turn gets its say.
const MESSAGES_PER_POLL_MAX: usize = 16;

pub struct WebSocket {
    remote: Arc<Remote>,
    sockets: Arc<Sockets>,
    /// `response.create`.
    request: Utf8Bytes,
    watch: Watch,
    state: State,
}

/// ```text
/// Begin ──idle socket──────────────► Exchange ──end, failure──► Done
///   └──none──► Dialing ──upgraded──►│   │
///                ▲──reused, closed or too old before its answer began (once)
/// ```
#[expect(clippy::large_enum_variant, reason = "the whole stream lies in one box already")]
enum State {
    Begin,
    Dialing(Pin<Box<dyn Future<Output = Result<Socket, UpstreamFailure>> + Send>>),
    Exchange(Exchange),
    Done,
}

struct Exchange {
    socket: Socket,
    reused: bool,
    /// Until it is handed to the codec.
    request: Option<Utf8Bytes>,
    /// Something was handed over in this poll.
    handed: bool,
    /// The answer has begun.
    is_opened: bool,
    /// The upstream's response has ended, and nothing comes behind it.
    is_whole: bool,
}

/// What a message, or the end of them, leads to.
enum Step {
    GoOn,
    SendAgain,
    Failed(UpstreamFailure),
}

impl WebSocket {
    pub(crate) fn new(remote: Arc<Remote>, sockets: Arc<Sockets>, request: &UpstreamRequest) -> Self {
        let body = responses::body(&request.model, &request.fields, &request.messages);
        let mut text = b"{\"type\":\"response.create\",".to_vec();
        body.iter().enumerate().for_each(|(index, piece)| {
            text.extend_from_slice(piece.get(usize::from(index == 0)..).unwrap_or_default());
        });
        // Its pieces were read as JSON, or written here.
        let request = Utf8Bytes::try_from(Bytes::from(text)).unwrap_or_default();
        let watch = Watch::new(remote.first_byte_ms_max);
        Self { remote, sockets, request, watch, state: State::Begin }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, on: &mut impl FnMut(UpstreamEvent<'_>)) -> Poll<Handed> {
        loop {
            match &mut self.state {
                State::Begin => self.begin(),
                State::Dialing(dialing) => match dialing.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(socket)) => self.exchange(socket, false),
                    Poll::Ready(Err(failure)) => return self.fail(failure, on),
                },
                State::Exchange(exchange) => {
                    exchange.handed = false;
                    match exchange.poll(cx, &mut self.watch, &self.remote, on) {
                        Poll::Pending if exchange.handed => return Poll::Ready(Handed::All),
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Step::GoOn) => return Poll::Ready(Handed::More),
                        Poll::Ready(Step::SendAgain) => self.send_again(),
                        Poll::Ready(Step::Failed(failure)) => return self.fail(failure, on),
                    }
                }
                State::Done => return Poll::Pending,
            }
        }
    }

    /// The turn has all that it needs: the connection goes back to its pool.
    pub(crate) fn park(self) {
        if let State::Exchange(Exchange { socket, is_whole: true, .. }) = self.state {
            self.sockets.park(socket);
        }
    }

    fn begin(&mut self) {
        self.watch.restart(self.remote.first_byte_ms_max);
        let Some(socket) = self.sockets.check_out() else { return self.dial() };
        self.remote.reused();
        self.exchange(socket, true);
    }

    fn send_again(&mut self) {
        self.remote.counters.resent();
        self.dial();
    }

    fn dial(&mut self) {
        let remote = Arc::clone(&self.remote);
        self.state = State::Dialing(Box::pin(connect(remote)));
    }

    fn exchange(&mut self, socket: Socket, reused: bool) {
        let request = Some(self.request.clone());
        let (handed, is_opened, is_whole) = (false, false, false);
        self.state = State::Exchange(Exchange { socket, reused, request, handed, is_opened, is_whole });
    }

    fn fail(&mut self, failure: UpstreamFailure, on: &mut impl FnMut(UpstreamEvent<'_>)) -> Poll<Handed> {
        self.state = State::Done;
        on(UpstreamEvent::Ended(Ended::Failed(failure)));
        Poll::Ready(Handed::All)
    }
}

impl Exchange {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        watch: &mut Watch,
        remote: &Remote,
        on: &mut impl FnMut(UpstreamEvent<'_>),
    ) -> Poll<Step> {
        if let Some(request) = self.request.take()
            && let Err(error) = Pin::new(&mut self.socket.stream).start_send(Message::Text(request))
        {
            return Poll::Ready(self.ended(&chain(&error)));
        }
        for _ in 0..MESSAGES_PER_POLL_MAX {
            // Answers to pings go out with it, too. What cannot be written is told by the read.
            drop(Pin::new(&mut self.socket.stream).poll_flush(cx));
            let message = match Pin::new(&mut self.socket.stream).poll_next(cx) {
                Poll::Pending => {
                    return match watch.poll(cx) {
                        Poll::Pending => Poll::Pending,
                        Poll::Ready(_) if self.handed => Poll::Pending,
                        Poll::Ready(waited_ms) => Poll::Ready(Step::Failed(UpstreamFailure::Silent { waited_ms })),
                    };
                }
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.ended(&chain(&error))),
                Poll::Ready(None) => return Poll::Ready(self.ended("the connection was closed")),
            };
            watch.heard();
            match message {
                Message::Text(text) => {
                    watch.limit(remote.idle_ms_max);
                    self.handed = true;
                    if let Some(step) = self.take(&text, on) {
                        return Poll::Ready(step);
                    }
                }
                Message::Close(frame) => return Poll::Ready(self.ended(&closed(frame.as_ref()))),
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        if self.handed {
            return Poll::Ready(Step::GoOn);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One event of the server's. `None`: the answer goes on.
    fn take(&mut self, text: &str, on: &mut impl FnMut(UpstreamEvent<'_>)) -> Option<Step> {
        let said = ServerEvent::parse(text.as_bytes()).ok().map(|event| event.said);
        if let (Some(Said::Ended(Ending::Failed(error))), false) = (&said, self.is_opened) {
            if self.reused && error.code.as_deref() == Some(TOO_OLD) {
                return Some(Step::SendAgain);
            }
            return Some(Step::Failed(refused(error, text)));
        }
        if !self.is_opened {
            self.is_opened = true;
            on(UpstreamEvent::Opened);
        }
        self.is_whole = matches!(said, Some(Said::Ended(Ending::Whole { .. })));
        let mut event = Vec::with_capacity(text.len() + 8);
        event.extend_from_slice(b"data: ");
        // In JSON a line break stands between tokens alone; in an event stream it ends the line.
        event.extend(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        event.extend_from_slice(b"\n\n");
        on(UpstreamEvent::Bytes(&event));
        // What comes behind it is the next turn's affair, and be it the connection's end.
        self.is_whole.then_some(Step::GoOn)
    }

    /// There will be no more.
    fn ended(&self, reason: &str) -> Step {
        match self.is_opened {
            false if self.reused => Step::SendAgain,
            false | true => Step::Failed(UpstreamFailure::Cut { reason: reason.to_owned() }),
        }
    }
}

/// What the server refuses before it begins, as it would over HTTP.
fn refused(error: &StreamError, text: &str) -> UpstreamFailure {
    let body = Bytes::copy_from_slice(text.as_bytes());
    UpstreamFailure::Refused { status: error.status.unwrap_or(500), retry_after_ms: None, body }
}

fn closed(frame: Option<&CloseFrame>) -> String {
    match frame {
        Some(frame) => format!("the connection was closed with {} {}", u16::from(frame.code), frame.reason),
        None => "the connection was closed".to_owned(),
    }
}

/// A connection of the endpoint's, warm or new, upgraded.
async fn connect(remote: Arc<Remote>) -> Result<Socket, UpstreamFailure> {
    if let Some(warm) = remote.check_out()
        && let Ok(socket) = upgrade(&remote, warm.io).await
    {
        return Ok(socket);
    }
    let fresh = remote.connect().await;
    let fresh = fresh.map_err(|error| UpstreamFailure::Unreachable { reason: chain(&error) })?;
    upgrade(&remote, fresh.io).await
}

async fn upgrade(remote: &Remote, io: Io) -> Result<Socket, UpstreamFailure> {
    let unusable = |error: Error| UpstreamFailure::Unreachable { reason: chain(&error) };
    let template = &remote.template;
    let (_, fields) = template.get(&template.target);
    let url = format!("ws://{}{}", remote.authority(), template.target);
    let mut request = url.into_client_request().map_err(unusable)?;
    let head = request.headers_mut();
    head.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    head.extend(fields.get(AUTHORIZATION).map(|key| (AUTHORIZATION, key.clone())));
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let upgrading = tokio_tungstenite::client_async_with_config(request, io, Some(config));
    match tokio::time::timeout(remote.connect_max(), upgrading).await {
        Ok(Ok((stream, _))) => Ok(Socket::new(stream)),
        Ok(Err(Error::Http(answer))) => Err(UpstreamFailure::Refused {
            status: answer.status().as_u16(),
            retry_after_ms: None,
            body: answer.into_body().map(Bytes::from).unwrap_or_default(),
        }),
        Ok(Err(error)) => Err(unusable(error)),
        Err(_) => Err(UpstreamFailure::Unreachable { reason: "the upgrade took too long".to_owned() }),
    }
}
