//! One WebSocket to a Responses API, as a client: requests out, events in. Knows nothing of turns and chains.

use super::event::ServerEvent;
use crate::address::Address;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, StatusCode, header};
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// Asks flashlane for the timing event; other servers ignore it.
const TIMING_HEADER: &str = "x-flashlane-timing";
const CONNECT_MS_MAX: u64 = 10_000;

pub struct Connection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("nothing listens at {url}: is flashlane running? Start it with `flashlane serve`")]
    Refused { url: String },
    #[error("{url} did not answer within {} s", CONNECT_MS_MAX / 1000)]
    Silent { url: String },
    #[error("{url} wants another key (HTTP {status}): set FLASHLANE_API_KEY, or name a variable with --api-key-env")]
    Key { url: String, status: u16 },
    #[error("{url} has no WebSocket for us (HTTP {status})")]
    Status { url: String, status: u16 },
    #[error("the key holds characters that a header cannot carry")]
    KeyCharacters,
    #[error("cannot connect to {url}")]
    Other { url: String, source: Box<tungstenite::Error> },
}

/// The connection is gone; the text says how.
#[derive(Debug)]
pub struct Lost(pub String);

impl Connection {
    /// Opens the WebSocket of `address`.
    ///
    /// # Errors
    /// [`ConnectError`], in words for the person at the terminal.
    pub async fn open(address: &Address, api_key: Option<&str>) -> Result<Self, ConnectError> {
        let url = address.websocket();
        let mut request = url.as_str().into_client_request().map_err(|source| failure(source, url.clone()))?;
        request.headers_mut().insert(TIMING_HEADER, HeaderValue::from_static("1"));
        if let Some(key) = api_key {
            let mut bearer =
                HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| ConnectError::KeyCharacters)?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        let handshake = connect_async_with_config(request, None, true);
        match tokio::time::timeout(Duration::from_millis(CONNECT_MS_MAX), handshake).await {
            Ok(Ok((socket, _))) => Ok(Self { socket }),
            Ok(Err(error)) => Err(failure(error, url)),
            Err(_) => Err(ConnectError::Silent { url }),
        }
    }

    /// Sends one client event.
    ///
    /// # Errors
    /// [`Lost`] when the connection is gone.
    pub async fn send(&mut self, event: &serde_json::Value) -> Result<(), Lost> {
        self.socket.send(Message::text(event.to_string())).await.map_err(|error| Lost(error.to_string()))
    }

    /// The next server event. Pings are answered on the way; dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Lost`] when the connection is gone, with the server's reason where it gave one.
    pub async fn next(&mut self) -> Result<ServerEvent, Lost> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(ServerEvent::parse(&text)),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(Lost(format!("closed by the server, {} {}", u16::from(frame.code), frame.reason)));
                }
                Some(Ok(Message::Close(None))) | None => return Err(Lost("closed by the server".to_owned())),
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Err(Lost(error.to_string())),
            }
        }
    }
}

fn failure(error: tungstenite::Error, url: String) -> ConnectError {
    if let tungstenite::Error::Http(response) = &error {
        let status = response.status();
        return match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ConnectError::Key { url, status: status.as_u16() },
            _ => ConnectError::Status { url, status: status.as_u16() },
        };
    }
    if matches!(&error, tungstenite::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused) {
        return ConnectError::Refused { url };
    }
    ConnectError::Other { url, source: Box::new(error) }
}
