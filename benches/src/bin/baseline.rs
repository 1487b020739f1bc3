//! The textbook gateway, kept simple on purpose: axum before, reqwest behind, `serde_json::Value` for everything, and one
//! send through a channel for each token. It speaks as much of the Responses API as the bench needs: a request with its
//! whole history becomes a Chat Completions request, and each chunk that comes back becomes an event. This is what a
//! capable engineer writes in an afternoon, and what our own numbers are compared with.
//!
//! `baseline LISTEN UPSTREAM_BASE_URL` prints `ready ADDRESS`.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use flashlane_benches::textbook;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, Sender, channel};

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
    let mut answer = Answer { api, sequence: 0, text: String::new() };
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

/// One response on its way to the client.
struct Answer {
    api: Api,
    sequence: u64,
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

    fn response(&self, status: &str) -> Value {
        let content = json!([{"type": "output_text", "text": self.text, "annotations": []}]);
        let output =
            json!([{"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": content}]);
        json!({"response": {"id": "resp_1", "object": "response", "status": status, "output": output}})
    }

    fn begin(&mut self) -> Vec<String> {
        if self.api == Api::Chat {
            return Vec::new();
        }
        let item =
            json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []});
        let part = json!({"type": "output_text", "text": "", "annotations": []});
        vec![
            self.event("response.created", self.response("in_progress")),
            self.event("response.in_progress", self.response("in_progress")),
            self.event("response.output_item.added", json!({"output_index": 0, "item": item})),
            self.event(
                "response.content_part.added",
                json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "part": part}),
            ),
        ]
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
        match chunk.pointer("/choices/0/delta/content").and_then(Value::as_str) {
            None | Some("") => Vec::new(),
            Some(delta) => {
                self.text.push_str(delta);
                let fields =
                    json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": delta, "logprobs": []});
                vec![self.event("response.output_text.delta", fields)]
            }
        }
    }

    fn end(&mut self) -> Vec<String> {
        let done = "data: [DONE]\n\n".to_owned();
        if self.api == Api::Chat {
            return vec![done];
        }
        let text =
            json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "text": self.text, "logprobs": []});
        vec![
            self.event("response.output_text.done", text),
            self.event("response.completed", self.response("completed")),
            done,
        ]
    }
}

async fn serve(listen: SocketAddr, upstream: &str) -> io::Result<()> {
    let gateway = Gateway { client: reqwest::Client::new(), chat_url: format!("{upstream}/chat/completions") };
    let router = Router::new()
        .route("/v1/responses", post(responses))
        .route("/v1/chat/completions", post(chat_completions))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(gateway);
    let listener = TcpListener::bind(listen).await?;
    writeln!(io::stdout(), "ready {}", listener.local_addr()?)?;
    let listener = listener.tap_io(|socket| {
        // Without it, every short write waits for the last one's acknowledgement.
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
    if serve(listen, &upstream).await.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
