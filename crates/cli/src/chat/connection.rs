//! One WebSocket to a Responses API, as a client: requests out, events in. Knows nothing of turns and chains.

use super::event::{Failure, ServerEvent};
use crate::gateway::{Gateway, Untrusted};
use crate::models::NO_TLS;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, StatusCode, header};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

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
    #[error("{url} answered HTTP {status}: {} ({})", said.message, said.code)]
    Told { url: String, status: u16, said: Failure },
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error("{url}: {reason}: to trust a private authority, name its certificate by --cacert")]
    Certificate { url: String, reason: String },
    #[error("the key holds characters that a header cannot carry")]
    KeyCharacters,
    #[error("{url}: {reason}: does it speak TLS? Without, its URL begins with ws://")]
    Tls { url: String, reason: String },
    #[error("cannot connect to {url}: {reason}")]
    Other { url: String, reason: String },
}

/// The connection is gone; the text says how.
#[derive(Debug)]
pub struct Lost(pub String);

impl Connection {
    /// Opens the gateway's WebSocket.
    ///
    /// # Errors
    /// [`ConnectError`], in words for the person at the terminal.
    pub async fn open(gateway: &Gateway) -> Result<Self, ConnectError> {
        let url = gateway.address.websocket();
        let mut request = url.as_str().into_client_request().map_err(|error| failure(&error, url.clone()))?;
        request.headers_mut().insert(TIMING_HEADER, HeaderValue::from_static("1"));
        if let Some(key) = &gateway.api_key {
            let mut bearer =
                HeaderValue::from_str(&format!("Bearer {}", key.expose())).map_err(|_| ConnectError::KeyCharacters)?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        let tls = gateway.tls()?.map(|config| Connector::Rustls(Arc::new(config)));
        let handshake = connect_async_tls_with_config(request, None, true, tls);
        match tokio::time::timeout(Duration::from_millis(CONNECT_MS_MAX), handshake).await {
            Ok(Ok((socket, _))) => Ok(Self { socket }),
            Ok(Err(error)) => Err(failure(&error, url)),
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

fn failure(error: &tungstenite::Error, url: String) -> ConnectError {
    if let tungstenite::Error::Http(response) = error {
        return refused(response, url);
    }
    if matches!(error, tungstenite::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused) {
        return ConnectError::Refused { url };
    }
    let reason = error.to_string();
    // A fault of TLS comes as one of I/O, or as one of its own.
    match (reason.contains("certificate"), reason.contains(NO_TLS)) {
        (true, _) => ConnectError::Certificate { url, reason },
        (false, true) => ConnectError::Tls { url, reason },
        (false, false) => ConnectError::Other { url, reason },
    }
}

/// What the server says, where it says it as the API does.
fn refused(response: &http::Response<Option<Vec<u8>>>, url: String) -> ConnectError {
    let status = response.status();
    let said = response.body().as_deref().and_then(|body| std::str::from_utf8(body).ok()).and_then(Failure::parse);
    match (status, said) {
        (StatusCode::UNAUTHORIZED, _) | (StatusCode::FORBIDDEN, None) => {
            ConnectError::Key { url, status: status.as_u16() }
        }
        (_, Some(said)) => ConnectError::Told { url, status: status.as_u16(), said },
        (_, None) => ConnectError::Status { url, status: status.as_u16() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> String {
        let response = http::Response::builder().status(status).body(Some(body.as_bytes().to_vec())).unwrap();
        failure(&tungstenite::Error::Http(Box::new(response)), "ws://h".to_owned()).to_string()
    }

    #[test]
    fn a_refused_handshake_shows_what_the_server_says() {
        let body = r#"{"error":{"message":"Speak TLS.","type":"invalid_request_error","code":"tls_required"}}"#;
        assert_eq!(answered(400, body), "ws://h answered HTTP 400: Speak TLS. (tls_required)");
        assert_eq!(answered(404, "<html>"), "ws://h has no WebSocket for us (HTTP 404)");
        assert!(answered(401, body).contains("wants another key"));
        assert!(answered(403, "").contains("wants another key"));
        assert!(answered(403, body).contains("Speak TLS."));
    }
}
