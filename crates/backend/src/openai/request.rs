//! The request of a turn as bytes: a head that is the same for every turn of an endpoint, and the body's pieces, written
//! where they lie.

use crate::client::address::Address;
use crate::client::io::Io;
use crate::secret::Secret;
use bytes::Bytes;
use flashlane_engine::trace::TraceHeaders;
use flashlane_wire::http1::{RequestError, RequestHead, request_head};
use http::HeaderMap;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT,
};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

pub(crate) const AGENT: &str = concat!("flashlane/", env!("CARGO_PKG_VERSION"));
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Pieces in one write. The kernel takes up to 1,024; a body has some 130 at most.
const SLICES_MAX: usize = 64;

/// The body of a turn's request.
#[derive(Clone)]
pub(crate) struct Body {
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) coding: Coding,
    /// Where turns are traced.
    pub(crate) trace: Option<Arc<TraceHeaders>>,
}

/// `content-encoding`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
}

impl Body {
    /// In gzip.
    pub(crate) fn packed(bytes: Bytes, trace: Option<Arc<TraceHeaders>>) -> Self {
        Self { pieces: vec![bytes], coding: Coding::Gzip, trace }
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }
}

/// The head of an endpoint's requests, for both versions of HTTP. Holds the key, so it has no `Debug`.
pub(crate) struct Template {
    /// Up to the fields that say how the body comes.
    http1: Vec<u8>,
    http2: HeaderMap,
    pub(crate) target: String,
}

impl Template {
    /// `own` are fields beside those that every request has.
    ///
    /// # Errors
    /// When the key or the path would break the head.
    pub(crate) fn new(
        address: &Address,
        path: &str,
        key: Option<&Secret>,
        own: &[(&'static str, String)],
    ) -> Result<Self, RequestError> {
        let target = format!("{}{path}", address.path);
        let bearer = key.map(|key| Secret::new(format!("Bearer {}", key.expose())));
        let mut fields =
            vec![("content-type", "application/json"), ("accept", "text/event-stream"), ("user-agent", AGENT)];
        fields.extend(bearer.as_ref().map(|bearer| ("authorization", bearer.expose())));
        fields.extend(own.iter().map(|(name, value)| (*name, &**value)));
        let mut http1 = Vec::with_capacity(512);
        let (host, headers) = (&*address.authority, &*fields);
        request_head(
            &mut http1,
            &RequestHead { method: "POST", target: &target, host, headers, content_length: None },
        )?;
        http1.truncate(http1.len() - 2);
        Ok(Self { http1, http2: http2_fields(bearer.as_ref(), own)?, target })
    }

    /// The head of a request with this body.
    fn head(&self, body: &Body) -> Bytes {
        let mut head = Vec::with_capacity(self.http1.len() + 64);
        head.extend_from_slice(&self.http1);
        match body.coding {
            Coding::Identity => {}
            Coding::Gzip => head.extend_from_slice(b"content-encoding: gzip\r\n"),
        }
        head.extend_from_slice(b"content-length: ");
        head.extend_from_slice(body.len().to_string().as_bytes());
        if let Some(TraceHeaders { parent, state }) = body.trace.as_deref() {
            head.extend_from_slice(format!("\r\ntraceparent: {parent}").as_bytes());
            for part in state.iter().flat_map(|state| ["\r\ntracestate: ", state]) {
                head.extend_from_slice(part.as_bytes());
            }
        }
        head.extend_from_slice(b"\r\n\r\n");
        Bytes::from(head)
    }

    /// A request without a body, for this target: whole for HTTP/1.1, its fields for HTTP/2.
    pub(crate) fn get(&self, target: &str) -> (Bytes, HeaderMap) {
        let mut head = format!("GET {target} HTTP/1.1\r\n").into_bytes();
        for line in self.http1.split_inclusive(|&byte| byte == b'\n').skip(1) {
            if !line.starts_with(b"content-type:") && !line.starts_with(b"accept:") {
                head.extend_from_slice(line);
            }
        }
        head.extend_from_slice(b"\r\n");
        let mut fields = self.http2.clone();
        fields.remove(CONTENT_TYPE);
        fields.remove(ACCEPT);
        (Bytes::from(head), fields)
    }

    /// The fields of an HTTP/2 request with this body.
    pub(crate) fn fields(&self, body_bytes: usize, coding: Coding, trace: Option<&TraceHeaders>) -> HeaderMap {
        let mut fields = self.http2.clone();
        match coding {
            Coding::Identity => {}
            Coding::Gzip => {
                fields.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        fields.insert(CONTENT_LENGTH, HeaderValue::from(body_bytes));
        if let Some(TraceHeaders { parent, state }) = trace {
            let parent = HeaderValue::try_from(parent.to_string()).ok();
            let state = state.as_deref().and_then(|state| HeaderValue::try_from(state).ok());
            let headers = [(TRACEPARENT, parent), (TRACESTATE, state)];
            fields.extend(headers.into_iter().filter_map(|(name, value)| Some((name, value?))));
        }
        fields
    }
}

fn http2_fields(bearer: Option<&Secret>, own: &[(&'static str, String)]) -> Result<HeaderMap, RequestError> {
    let mut fields = HeaderMap::with_capacity(8);
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    fields.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some(bearer) = bearer {
        let mut value =
            HeaderValue::from_str(bearer.expose()).map_err(|_| RequestError::HeaderValue { index: fields.len() })?;
        value.set_sensitive(true);
        fields.insert(AUTHORIZATION, value);
    }
    for (name, value) in own {
        let value = HeaderValue::from_str(value).map_err(|_| RequestError::HeaderValue { index: fields.len() })?;
        fields.insert(HeaderName::from_static(name), value);
    }
    Ok(fields)
}

/// The bytes of a request on their way out. Kept until an answer begins, since they may have to be sent again.
pub(crate) struct Outbound {
    pieces: Vec<Bytes>,
    trace: Option<Arc<TraceHeaders>>,
    /// The first piece that is not written wholly, and what of it is.
    at: usize,
    offset: usize,
    flushed: bool,
}

impl Outbound {
    pub(crate) fn new(template: &Template, body: Body) -> Self {
        let head = template.head(&body);
        let Body { mut pieces, trace, .. } = body;
        pieces.insert(0, head);
        Self { pieces, trace, at: 0, offset: 0, flushed: false }
    }

    /// The same with another body, in gzip.
    pub(crate) fn packed(&self, template: &Template, bytes: Bytes) -> Self {
        Self::new(template, Body::packed(bytes, self.trace.clone()))
    }

    pub(crate) fn rewind(&mut self) {
        (self.at, self.offset, self.flushed) = (0, 0, false);
    }

    /// All of it is with the kernel.
    pub(crate) fn is_sent(&self) -> bool {
        self.flushed
    }

    /// Lets go of what is written. It cannot be sent again.
    pub(crate) fn forget_written(&mut self) {
        self.pieces.drain(..self.at.min(self.pieces.len()));
        self.at = 0;
    }

    /// Writes all of it, on plain TCP straight from where it lies.
    pub(crate) fn poll_write(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.at < self.pieces.len() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let rest = self.pieces.iter().skip(self.at);
            let skipped = std::iter::once(self.offset).chain(std::iter::repeat(0));
            for (slice, (piece, skip)) in slices.iter_mut().zip(rest.zip(skipped)) {
                *slice = IoSlice::new(piece.get(skip..).unwrap_or_default());
            }
            let filled = slices.get(..(self.pieces.len() - self.at).min(SLICES_MAX)).unwrap_or_default();
            match ready!(Pin::new(&mut *io).poll_write_vectored(cx, filled))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.advance(bytes),
            }
        }
        ready!(Pin::new(io).poll_flush(cx))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, bytes: usize) {
        self.offset += bytes;
        while let Some(piece) = self.pieces.get(self.at) {
            if self.offset < piece.len() {
                return;
            }
            self.offset -= piece.len();
            self.at += 1;
        }
    }
}
