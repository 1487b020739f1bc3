//! `[server.limits]`: what clients may send and hold, connection by connection and in all. Turns have limits of their own.

use serde::{Deserialize, Serialize};

/// Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// The largest request body, in bytes. Default 64 MiB: a full history with images.
    pub request_bytes_max: usize,
    /// How long a request body may take to arrive, in milliseconds. Default 60,000.
    pub request_ms_max: u64,
    /// The largest request head, in bytes, at least 8,192. Default 65,536. Also the most that is read from or buffered for a client's HTTP/1.1 connection at once.
    pub header_bytes_max: usize,
    /// How long a request head, or a connection's first bytes, may take to arrive, and how long a connection may idle between two
    /// requests (one of HTTP/2: up to twice as long), in milliseconds. Default 60,000.
    pub header_ms_max: u64,
    /// The largest WebSocket message, in bytes after inflating. Default 16 MiB: twenty times what a full context of text needs.
    pub message_bytes_max: usize,
    /// Most WebSocket pings a client may send in one second. Default 32.
    pub pings_per_second_max: u32,
    /// Most client connections at once. Default 8,192. More wait in the kernel's backlog.
    pub connections_max: u32,
    /// Most requests at once over one HTTP/2 connection. Default 128.
    pub http2_streams_max: u32,
    /// How often a silent WebSocket client is pinged, in milliseconds. Default 30,000; 0 never. After three unanswered pings the
    /// connection is dropped and its turns are cancelled. An HTTP/2 client is pinged too, and dropped when it leaves one ping unanswered
    /// for three times as long; so is an HTTP client that takes no byte for three times as long.
    pub ping_ms: u64,
    /// How long a client may take to answer a WebSocket close, in milliseconds. Default 2,000.
    pub close_ms_max: u64,
    /// From how many unwritten bytes on a client's upstreams are not read, until the client has read. Default 65,536. From as many
    /// unwritten bytes of answers to its own messages on (errors, pongs), the client itself is not read.
    pub outgoing_bytes_high: usize,
    /// Most responses that run in the background at once; one more is refused. Default 256.
    pub background_turns_max: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            request_bytes_max: 64 * 1024 * 1024,
            request_ms_max: 60_000,
            header_bytes_max: 64 * 1024,
            header_ms_max: 60_000,
            message_bytes_max: 16 * 1024 * 1024,
            pings_per_second_max: 32,
            connections_max: 8192,
            http2_streams_max: 128,
            ping_ms: 30_000,
            close_ms_max: 2_000,
            outgoing_bytes_high: 64 * 1024,
            background_turns_max: 256,
        }
    }
}
