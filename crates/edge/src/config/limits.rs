//! `[server.limits]`: what clients may send and hold, connection by connection and in all. Turns have limits of their own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// The largest request body: a full history with images.
    pub request_bytes_max: usize,
    /// How long a request body may take to arrive.
    pub request_ms_max: u64,
    /// How slowly a request body may come, on the average of the time behind `request_grace_ms`: one byte at a time holds a connection
    /// otherwise. 0: any.
    pub request_bytes_per_second_min: u32,
    /// How long a request body may come at any speed. 0: none.
    pub request_grace_ms: u64,
    /// The largest request head. Also the most that is read from or buffered for a client's HTTP/1.1 connection at once.
    pub header_bytes_max: usize,
    /// Most fields of a request head, over HTTP/2 too.
    pub headers_max: usize,
    /// How long a request head may take to arrive, or a connection's first bytes, and how long a connection may idle between requests; one
    /// of HTTP/2 up to twice as long.
    pub header_ms_max: u64,
    /// The largest WebSocket message, after inflating: twenty times what a full context of text needs.
    pub message_bytes_max: usize,
    /// Most frames that one WebSocket message may come in.
    pub message_fragments_max: u32,
    /// How long a WebSocket message may take from its first byte to its last.
    pub message_ms_max: u64,
    /// WebSocket messages and request bodies that have begun to come and are not whole, of all connections together; a WebSocket that would
    /// hold more is closed 1013, a request is answered 503. Sixteen of the largest messages, at once and half sent.
    /// [While memory runs short](OPERATIONS.md#when-memory-runs-short) bodies have a sixteenth of it.
    pub assembling_bytes_max: usize,
    /// Most WebSocket pings from one client in a second: more is a flood.
    pub pings_per_second_max: u32,
    /// Most client connections at once. Who comes while all are taken waits a quarter of a second in the kernel's backlog, and is then
    /// refused by a 503 with `retry-after`, over TLS closed. At the start it is cut, with a warning, to what the limit on open files has room
    /// for: two a client, and 128 that stay free for operators, the store and the rest.
    pub connections_max: u32,
    /// Most connections of one client address at once, of IPv6 one /64. Of clients whom a proxy names request by request, most requests and
    /// WebSockets. One more is answered 429, over TLS closed. This machine's own are not counted; 0: any number. One that is not below
    /// `connections_max` is warned of at the start.
    ///
    /// Default: an eighth of `connections_max`, and at least 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_address_max: Option<u32>,
    /// Most TLS handshakes in flight, some 40 MB; one more is closed before it costs anything. 0: any number.
    pub handshakes_waiting_max: u32,
    /// The same of one client address. 0: any number.
    pub handshakes_waiting_per_address_max: u32,
    /// Most TLS handshakes begun in a second, with a second's worth at once; one more is closed at once: less than one core can compute with ECDSA. 0: any number.
    pub handshakes_per_second_max: u32,
    /// The same of one client address. 0: any number.
    pub handshakes_per_second_per_address_max: u32,
    /// What the process may hold: from 80 % on no new sessions, from 90 % no turns of the throughput tier, from 95 % no new connections
    /// ([what that means](OPERATIONS.md#when-memory-runs-short)). 0: nothing is kept away.
    ///
    /// Default: what the control group allows, or else the machine has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes_max: Option<u64>,
    /// Most requests at once over one HTTP/2 connection.
    pub http2_streams_max: u32,
    /// Most HTTP/2 frames of one connection in a second that ask for work and bring nothing (PING, SETTINGS, RST_STREAM, PRIORITY,
    /// CONTINUATION, empty DATA): one more ends it with GOAWAY. A client that cancels all its requests at once sends half as many.
    pub http2_control_frames_per_second_max: u32,
    /// How often a silent WebSocket client is pinged; 0 never.
    pub ping_ms: u64,
    /// How many pings a client may leave unanswered: one that answers none of them until the next is due is dropped, with both defaults 40
    /// seconds after its last byte at most, and its turns are cancelled. An HTTP/2 client is pinged once and has as long to answer, and an
    /// HTTP client that takes no byte is dropped by the kernel in the same time.
    pub pings_unanswered_max: u32,
    /// How long a client may take no byte while there is something to write to it: then it is dropped, and its turns are cancelled. It may
    /// answer pings all the while. Over HTTP/2 a stream that is not read is reset alone; the connection ends when it takes no byte at all.
    pub write_stall_ms_max: u64,
    /// How long a client may take to answer a WebSocket close. 0: it is not waited for.
    pub close_ms_max: u64,
    /// How long a turn waits for the store; then it ends in 503 `store_unavailable`. Far beyond a disk that works. What was to be written
    /// may be written all the same.
    pub store_ms_max: u64,
    /// From how many unwritten bytes on a client's upstreams are not read, until the client has read. The same bound holds for answers to
    /// the client's own messages: from there on the client is not read.
    pub outgoing_bytes_high: usize,
    /// Responses that run in the background at once; one more is refused. 0: each is. Each may hold what a session may (`[session]`).
    pub background_turns_max: usize,
    /// What is kept of children of responses (`session.children_max`), beside the store and in memory alone: results that are to join their
    /// parents, and, as much again, the responses of those whose parents are not stored. What has ended makes room for the newest:
    /// the oldest of the key that has the most first. 0: nothing is kept, and none runs.
    pub children_bytes_max: usize,
    /// For so long, from a child's end on.
    pub children_ms_max: u64,
}

/// Of one address where nothing is said: a few people behind one router.
const CONNECTIONS_PER_ADDRESS_MIN: u32 = 32;

impl LimitsConfig {
    /// What `connections_per_address_max` is, said or not.
    #[must_use]
    pub fn connections_per_address(&self) -> u32 {
        let share = (self.connections_max / 8).max(CONNECTIONS_PER_ADDRESS_MIN);
        self.connections_per_address_max.unwrap_or(share)
    }

    /// Limits of one address that those of all leave nothing to do: one address can take all there is. By their names.
    #[must_use]
    pub fn idle_limits(&self) -> Vec<(&'static str, &'static str)> {
        let said = self.connections_per_address_max.unwrap_or(1);
        let (waiting, per_second) = (self.handshakes_waiting_max, self.handshakes_per_second_max);
        [
            (said, self.connections_max, "connections_per_address_max", "connections_max"),
            (
                self.handshakes_waiting_per_address_max,
                waiting,
                "handshakes_waiting_per_address_max",
                "handshakes_waiting_max",
            ),
            (
                self.handshakes_per_second_per_address_max,
                per_second,
                "handshakes_per_second_per_address_max",
                "handshakes_per_second_max",
            ),
        ]
        .into_iter()
        .filter(|(of_one, of_all, ..)| *of_one > 0 && *of_all > 0 && of_one >= of_all)
        .map(|(_, _, of_one, of_all)| (of_one, of_all))
        .collect()
    }
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
            connections_per_address_max: None,
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
            children_bytes_max: 32 * 1024 * 1024,
            children_ms_max: 60 * 60 * 1000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_an_eighth_unless_the_config_says_otherwise() {
        let of = |connections_max, connections_per_address_max| LimitsConfig {
            connections_max,
            connections_per_address_max,
            ..LimitsConfig::default()
        };
        assert_eq!([8192, 512, 64].map(|all| of(all, None).connections_per_address()), [1024, 64, 32]);
        assert_eq!(of(8192, Some(0)).connections_per_address(), 0);
        assert_eq!(of(64, None).idle_limits(), []);
        assert_eq!(of(64, Some(1024)).idle_limits(), [("connections_per_address_max", "connections_max")]);
        let handshakes = LimitsConfig { handshakes_per_second_max: 100, ..LimitsConfig::default() };
        let told = [("handshakes_per_second_per_address_max", "handshakes_per_second_max")];
        assert_eq!(handshakes.idle_limits(), told);
    }
}
