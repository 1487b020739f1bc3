//! Endpoints that speak the Responses API themselves, over HTTP or over a WebSocket. Over HTTP the request's body is theirs, and all else is
//! as with Chat Completions.

mod pool;
mod websocket;

pub(crate) use pool::Sockets;
pub(crate) use websocket::WebSocket;

use crate::client::Remote;
use crate::client::dial::Version;
use crate::openai::http1::Http1;
use crate::openai::http2::Http2;
use crate::openai::request::{Body, Coding, Outbound};
use crate::stream::TokenStream;
use flashlane_engine::UpstreamRequest;
use flashlane_wire::responses;
use std::sync::Arc;

/// One such endpoint.
pub struct Responses {
    pub(crate) remote: Arc<Remote>,
    /// `None`: over HTTP.
    sockets: Option<Arc<Sockets>>,
}

impl Responses {
    pub(crate) fn new(remote: Remote, sockets: Option<Sockets>) -> Self {
        Self { remote: Arc::new(remote), sockets: sockets.map(Arc::new) }
    }

    /// Open and idle WebSockets.
    pub(crate) fn idle(&self) -> usize {
        self.sockets.as_ref().map_or(0, |sockets| sockets.len())
    }

    pub(crate) fn open(&self, request: &UpstreamRequest) -> TokenStream {
        if let Some(sockets) = &self.sockets {
            let turn = WebSocket::new(Arc::clone(&self.remote), Arc::clone(sockets), request);
            return TokenStream::WebSocket(Box::new(turn));
        }
        let pieces = responses::body(&request.model, &request.fields, &request.messages);
        let body = Body { pieces, coding: Coding::Identity, trace: request.trace.clone() };
        let remote = Arc::clone(&self.remote);
        match remote.version {
            Version::Http1 => {
                let outbound = Outbound::new(&remote.template, body);
                TokenStream::Http1(Box::new(Http1::new(remote, outbound, false)))
            }
            Version::Http2 => TokenStream::Http2(Box::new(Http2::new(remote, body, None))),
        }
    }
}
