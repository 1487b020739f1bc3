//! What passes between a turn and its upstream: the request that goes out, and what comes back. The backend moves it; it
//! decides nothing.

use crate::fleet::EndpointId;
use crate::router::Urgency;
use crate::trace::TraceHeaders;
use bytes::Bytes;
use flashlane_wire::chat::Field;
use std::sync::Arc;

/// A request of the contract that its endpoint speaks, ready but for what the endpoint's dialect alters.
#[derive(Debug, Clone)]
pub struct UpstreamRequest {
    pub endpoint: EndpointId,
    /// The model's name at the endpoint.
    pub model: Arc<str>,
    /// Top-level fields in OpenAI's names (`max_completion_tokens`, `tools`, `reasoning_effort` ...), each value raw JSON.
    /// `model`, `messages`, `stream` and `stream_options` are not among them. For an endpoint that speaks the Responses API: that
    /// API's names, without `model`, `input`, `stream` and `store`.
    pub fields: Vec<Field>,
    /// What the model reads, in order: the inside of the `messages` array, or of `input`. Each piece is one element or more, joined by
    /// commas; none is empty.
    pub messages: Vec<Bytes>,
    /// The last message is the assistant's, and is to be gone on with.
    pub continues: bool,
    /// Keeps a session's turns on one endpoint's cache; forwarded as `prompt_cache_key` where the dialect knows it.
    pub cache_key: Option<Arc<str>>,
    /// For engines that let some requests go first.
    pub urgency: Urgency,
    /// Where turns are traced: which span of which trace asks.
    pub trace: Option<Arc<TraceHeaders>>,
}

/// What an upstream stream hands to its turn, in this order: `Connected`, `Opened` once, `Bytes` any number of times, `Ended` once.
/// `Ended` may come first.
#[derive(Debug)]
pub enum UpstreamEvent<'a> {
    /// The request goes out over a connection: for where the time goes, and for nothing else. Again where it goes out again.
    Connected,
    /// A success status arrived; the body follows.
    Opened,
    /// Bytes of an event stream, in any split: of Chat Completions chunks, or of the Responses API's events.
    Bytes(&'a [u8]),
    Ended(Ended),
}

/// How an upstream stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The body ended where its framing says so. Whether the answer in it is whole, the turn decides.
    Complete,
    Failed(UpstreamFailure),
}

/// Why an upstream gave no whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// No connection (name, TCP, TLS): no byte of the request was sent.
    Unreachable { reason: String },
    /// An HTTP error status, with the first 64 KiB of its body.
    Refused { status: u16, retry_after_ms: Option<u64>, body: Bytes },
    /// The connection broke, or its bytes were not HTTP.
    Cut { reason: String },
    /// Nothing came for longer than the endpoint's setting allows.
    Silent { waited_ms: u64 },
}
