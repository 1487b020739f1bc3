//! Endpoints that speak Chat Completions over HTTP: what a request looks like, what an answer means, and the two ways to carry them.

pub(crate) mod dialect;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod request;
pub(crate) mod verdict;

use crate::client::Remote;
use crate::client::dial::Version;
use crate::stream::TokenStream;
use dialect::Dialect;
use flashlane_engine::UpstreamRequest;
use flashlane_wire::chat;
use http1::Http1;
use http2::Http2;
use request::{Body, Coding, Outbound};
use std::sync::Arc;

/// One such endpoint.
pub struct OpenAi {
    pub(crate) remote: Arc<Remote>,
    pub(crate) dialect: Dialect,
    /// The engine lets requests go first, and is told which.
    has_priorities: bool,
}

impl OpenAi {
    pub(crate) fn new(remote: Remote, dialect: Dialect, has_priorities: bool) -> Self {
        Self { remote: Arc::new(remote), dialect, has_priorities }
    }

    pub(crate) fn open(&self, mut request: UpstreamRequest) -> TokenStream {
        self.dialect.alter(&mut request.fields, request.cache_key.as_deref());
        if request.continues {
            request.fields.extend(self.dialect.continuation());
        }
        if self.has_priorities {
            request.fields.extend(self.dialect.priority(request.urgency));
        }
        let pieces = chat::body(&request.model, &request.fields, &request.messages);
        let body = Body { pieces, coding: Coding::Identity, trace: request.trace.clone() };
        self.remote.sends(&body, false);
        let remote = Arc::clone(&self.remote);
        match remote.version {
            Version::Http1 => {
                let outbound = Outbound::new(&remote.template, body);
                TokenStream::Http1(Box::new(Http1::new(remote, outbound, self.dialect.has_slots())))
            }
            Version::Http2 => TokenStream::Http2(Box::new(Http2::new(remote, body, None))),
        }
    }
}
