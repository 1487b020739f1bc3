//! The textbook gateway, kept simple on purpose: axum before, reqwest behind, `serde_json::Value` for everything, and one
//! send through a channel for each token. It speaks as much of the Responses API as the bench needs: a request with its
//! whole history becomes a Chat Completions request, and each chunk that comes back becomes an event. This is what a
//! capable engineer writes in an afternoon, and what our own numbers are compared with.
//!
//! `baseline LISTEN UPSTREAM_BASE_URL [CERTIFICATE_FILE KEY_FILE]` prints `ready URL`; with a certificate it speaks TLS.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::{Listener, ListenerExt};
use flashlane_benches::textbook;
use futures_util::{StreamExt, stream};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const BODY_BYTES_MAX: usize = 64 << 20;
const QUEUED_EVENTS_MAX: usize = 256;

#[derive(Clone)]
struct Gateway {
    client: reqwest::Client,
    chat_url: String,
}

/// The API that the client speaks.
#[derive(Clone, Copy, PartialEq)]
enum Api {
    Responses,
    Chat,
}

async fn responses(State(gateway): State<Gateway>, body: Bytes) -> Response {
    match textbook::chat_request(&body) {
        Some(chat) => gateway.open(Api::Responses, chat).await,
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn chat_completions(State(gateway): State<Gateway>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(request) => gateway.open(Api::Chat, request).await,
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

impl Gateway {
    async fn open(self, api: Api, request: Value) -> Response {
        let sent = self.client.post(&self.chat_url).json(&request).send().await;
        let upstream = match sent.and_then(reqwest::Response::error_for_status) {
            Ok(upstream) => upstream,
            Err(_) => return StatusCode::BAD_GATEWAY.into_response(),
        };
        let (tx, rx) = channel(QUEUED_EVENTS_MAX);
        tokio::spawn(pump(api, upstream, tx));
        let body = Body::from_stream(stream::unfold(rx, next));
        ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
    }
}

async fn next(mut rx: Receiver<String>) -> Option<(Result<String, Infallible>, Receiver<String>)> {
    Some((Ok(rx.recv().await?), rx))
}

/// Reads the upstream's events and sends the client's, one by one.
async fn pump(api: Api, upstream: reqwest::Response, tx: Sender<String>) {
    let mut answer = Answer { api, sequence: 0, call: None, text: String::new() };
    let (mut bytes, mut held) = (upstream.bytes_stream(), Vec::new());
    for event in answer.begin() {
        let _ = tx.send(event).await;
    }
    while let Some(Ok(piece)) = bytes.next().await {
        held.extend_from_slice(&piece);
        while let Some(end) = held.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = held.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&event);
            let Some(data) = text.trim_end().strip_prefix("data: ") else { continue };
            for event in answer.chunk(data) {
                // The client is gone: so is the upstream, when this returns.
                if tx.send(event).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// One response on its way to the client: one item, a text or a call.
struct Answer {
    api: Api,
    sequence: u64,
    /// Its id and name.
    call: Option<[Value; 2]>,
    /// Or the call's arguments.
    text: String,
}

impl Answer {
    fn event(&mut self, kind: &str, mut fields: Value) -> String {
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("type".to_owned(), json!(kind));
            fields.insert("sequence_number".to_owned(), json!(self.sequence));
        }
        self.sequence += 1;
        format!("event: {kind}\ndata: {fields}\n\n")
    }

    fn item(&self, status: &str) -> Value {
        if let Some([id, name]) = &self.call {
            return json!({"type": "function_call", "id": "fc_1", "status": status, "call_id": id, "name": name, "arguments": self.text});
        }
        let content = json!([{"type": "output_text", "text": self.text, "annotations": []}]);
        json!({"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": content})
    }

    fn response(&self, status: &str) -> Value {
        let output = if status == "completed" { vec![self.item(status)] } else { Vec::new() };
        json!({"response": {"id": "resp_1", "object": "response", "status": status, "output": output}})
    }

    /// Where in the answer.
    fn at(&self, name: &str, value: &Value) -> Value {
        let item_id = if self.call.is_some() { "fc_1" } else { "msg_1" };
        json!({"item_id": item_id, "output_index": 0, "content_index": 0, name: value})
    }

    fn begin(&mut self) -> Vec<String> {
        if self.api == Api::Chat {
            return Vec::new();
        }
        let response = self.response("in_progress");
        vec![self.event("response.created", response.clone()), self.event("response.in_progress", response)]
    }

    /// The client's events for one of the upstream's.
    fn chunk(&mut self, data: &str) -> Vec<String> {
        if data == "[DONE]" {
            return self.end();
        }
        let Ok(chunk) = serde_json::from_str::<Value>(data) else { return Vec::new() };
        if self.api == Api::Chat {
            return vec![format!("data: {chunk}\n\n")];
        }
        let Some(delta) = chunk.pointer("/choices/0/delta") else { return Vec::new() };
        if let Some(text) = delta.get("content").and_then(Value::as_str) {
            return self.text(text, "response.output_text.delta");
        }
        let Some(call) = delta.pointer("/tool_calls/0") else { return Vec::new() };
        if let (Some(id), Some(name)) = (call.get("id"), call.pointer("/function/name")) {
            self.call = Some([id.clone(), name.clone()]);
        }
        let arguments = call.pointer("/function/arguments").and_then(Value::as_str);
        self.text(arguments.unwrap_or_default(), "response.function_call_arguments.delta")
    }

    fn text(&mut self, delta: &str, kind: &str) -> Vec<String> {
        if delta.is_empty() {
            return Vec::new();
        }
        let mut events = Vec::new();
        if self.text.is_empty() {
            let item = self.item("in_progress");
            events.push(self.event("response.output_item.added", json!({"output_index": 0, "item": item})));
            if self.call.is_none() {
                let part = self.at("part", &json!({"type": "output_text", "text": "", "annotations": []}));
                events.push(self.event("response.content_part.added", part));
            }
        }
        self.text.push_str(delta);
        let delta = self.at("delta", &json!(delta));
        events.push(self.event(kind, delta));
        events
    }

    fn end(&mut self) -> Vec<String> {
        let done = "data: [DONE]\n\n".to_owned();
        if self.api == Api::Chat {
            return vec![done];
        }
        let (kind, name) = match self.call {
            Some(_) => ("response.function_call_arguments.done", "arguments"),
            None => ("response.output_text.done", "text"),
        };
        let whole = self.at(name, &json!(self.text));
        let item = json!({"output_index": 0, "item": self.item("completed")});
        let response = self.response("completed");
        vec![
            self.event(kind, whole),
            self.event("response.output_item.done", item),
            self.event("response.completed", response),
            done,
        ]
    }
}

/// TLS as textbooks have it: each connection shakes hands in a task of its own, and is taken once it has.
struct TlsListener {
    ready: Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    fn new(listener: TcpListener, config: ServerConfig) -> io::Result<Self> {
        let (tx, ready) = channel(QUEUED_EVENTS_MAX);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                tokio::spawn(shake_hands(acceptor.clone(), socket, peer, tx.clone()));
            }
        });
        Ok(Self { ready, address })
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    peer: SocketAddr,
    tx: Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    // Without it, every short write waits for the last one's acknowledgement.
    let _ = socket.set_nodelay(true);
    if let Ok(stream) = acceptor.accept(socket).await {
        let _ = tx.send((stream, peer)).await;
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

fn tls_config(certificate: &str, key: &str) -> io::Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?.with_no_client_auth();
    builder.with_single_cert(chain, key).map_err(io::Error::other)
}

async fn serve(listen: SocketAddr, upstream: &str, certificate_and_key: &[String]) -> io::Result<()> {
    let gateway = Gateway { client: reqwest::Client::new(), chat_url: format!("{upstream}/chat/completions") };
    let router = Router::new()
        .route("/v1/responses", post(responses))
        .route("/v1/chat/completions", post(chat_completions))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(gateway);
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    if let [certificate, key] = certificate_and_key {
        let listener = TlsListener::new(listener, tls_config(certificate, key)?)?;
        writeln!(io::stdout(), "ready https://{address}")?;
        return axum::serve(listener, router).await;
    }
    writeln!(io::stdout(), "ready http://{address}")?;
    let listener = listener.tap_io(|socket| {
        let _ = socket.set_nodelay(true);
    });
    axum::serve(listener, router).await
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(Ok(listen)), Some(upstream)) = (arguments.next().map(|text| text.parse()), arguments.next()) else {
        return ExitCode::from(64);
    };
    let certificate_and_key: Vec<String> = arguments.collect();
    match serve(listen, &upstream, &certificate_and_key).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
