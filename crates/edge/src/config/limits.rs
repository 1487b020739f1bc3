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
    /// How slowly a request body may come, in bytes a second, on the average of the time since `request_grace_ms`. Default 1,000; 0: any.
    pub request_bytes_per_second_min: u32,
    /// How long a request body may come at any speed, in milliseconds. Default 5,000.
    pub request_grace_ms: u64,
    /// The largest request head, in bytes, at least 8,192. Default 65,536. Also the most that is read from or buffered for a client's HTTP/1.1 connection at once.
    pub header_bytes_max: usize,
    /// Most fields of a request head. Default 100.
    pub headers_max: usize,
    /// How long a request head, or a connection's first bytes, may take to arrive, and how long a connection may idle between two
    /// requests (one of HTTP/2: up to twice as long), in milliseconds. Default 60,000.
    pub header_ms_max: u64,
    /// The largest WebSocket message, in bytes after inflating. Default 16 MiB: twenty times what a full context of text needs.
    pub message_bytes_max: usize,
    /// The most frames that one WebSocket message may come in. Default 4,096.
    pub message_fragments_max: u32,
    /// How long a WebSocket message may take from its first byte to its last, in milliseconds. Default 30,000.
    pub message_ms_max: u64,
    /// Most bytes of WebSocket messages that are not whole yet, of all connections together. Default 256 MiB.
    pub assembling_bytes_max: usize,
    /// Most WebSocket pings a client may send in one second. Default 32.
    pub pings_per_second_max: u32,
    /// Most client connections at once. Default 8,192. More wait in the kernel's backlog.
    pub connections_max: u32,
    /// Most connections of one client address at once, of IPv6 one network of 64 bits; over trusted proxies, which name it request by
    /// request, most requests and WebSockets. Default 1,024: an eighth of all. 0: any number. Loopback is not counted.
    pub connections_per_address_max: u32,
    /// Most TLS handshakes in flight; one more is closed at once. Default 2,048: some 40 MB. 0: any number.
    pub handshakes_waiting_max: u32,
    /// The same of one client address. Default 256. 0: any number.
    pub handshakes_waiting_per_address_max: u32,
    /// Most TLS handshakes begun in a second; one more is closed at once. Default 2,000: less than one core can do. 0: any number.
    pub handshakes_per_second_max: u32,
    /// The same of one client address. Default 200. 0: any number.
    pub handshakes_per_second_per_address_max: u32,
    /// What the process may hold in memory, in bytes: from 80 % of it on there are no new sessions, from 90 % no turns of the throughput
    /// tier, from 95 % no new connections. Default what the system allows (control groups, or all of the machine's). 0: none of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes_max: Option<u64>,
    /// Most requests at once over one HTTP/2 connection. Default 128.
    pub http2_streams_max: u32,
    /// Most HTTP/2 frames in one second that ask for work and bring nothing (PING, SETTINGS, RST_STREAM, PRIORITY, CONTINUATION, empty
    /// DATA), over one connection. Default 256: a client that cancels all its requests at once sends half as many.
    pub http2_control_frames_per_second_max: u32,
    /// How often a silent WebSocket client is pinged, in milliseconds. Default 10,000; 0 never. See `pings_unanswered_max`.
    pub ping_ms: u64,
    /// How many pings a client may leave unanswered. Default 2. One that answers none of them until the next is due is dropped, and its
    /// turns are cancelled: with both defaults 40 seconds after its last byte, at most. An HTTP/2 client is pinged once, and has as
    /// long to answer; so has an HTTP client to take a byte.
    pub pings_unanswered_max: u32,
    /// How long a client may take no byte while there is something to write to it, in milliseconds. Default 30,000. One that takes longer is
    /// dropped, and its turns are cancelled; of HTTP/2 one stream is reset alone.
    pub write_stall_ms_max: u64,
    /// How long a client may take to answer a WebSocket close, in milliseconds. Default 2,000.
    pub close_ms_max: u64,
    /// How long a turn waits for the store, in milliseconds; then it is refused or failed by a 503. Default 10,000: far beyond a disk that works.
    pub store_ms_max: u64,
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
            request_bytes_per_second_min: 1_000,
            request_grace_ms: 5_000,
            header_bytes_max: 64 * 1024,
            headers_max: 100,
            header_ms_max: 60_000,
            message_bytes_max: 16 * 1024 * 1024,
            message_fragments_max: 4096,
            message_ms_max: 30_000,
            assembling_bytes_max: 256 * 1024 * 1024,
            pings_per_second_max: 32,
            connections_max: 8192,
            connections_per_address_max: 1024,
            handshakes_waiting_max: 2048,
            handshakes_waiting_per_address_max: 256,
            handshakes_per_second_max: 2000,
            handshakes_per_second_per_address_max: 200,
            memory_bytes_max: None,
            http2_streams_max: 128,
            http2_control_frames_per_second_max: 256,
            ping_ms: 10_000,
            pings_unanswered_max: 2,
            write_stall_ms_max: 30_000,
            close_ms_max: 2_000,
            store_ms_max: 10_000,
            outgoing_bytes_high: 64 * 1024,
            background_turns_max: 256,
        }
    }
}
