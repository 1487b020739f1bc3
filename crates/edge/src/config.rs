//! The `[server]` part of the config: where clients are listened for, and every limit on what they may send and hold.

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;

/// `[server]`. Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeConfig {
    /// Where clients connect. Default `127.0.0.1:8700`: clear of the ports of the engines and tools that run beside flashlane.
    pub listen: SocketAddr,
    /// Where operators connect (`/metrics`, `/livez`, `/readyz`). Default `127.0.0.1:8701`: never on the clients' address, so that it can stay private.
    pub admin_listen: SocketAddr,
    /// Web pages that may use this server, by their `Origin` (`https://app.example:8443`); pages on loopback always may. Default none.
    pub allowed_origins: Vec<String>,
    /// Names, without port, by which clients may call this server, beside `localhost` and IP addresses. Default none.
    pub allowed_hosts: Vec<String>,
    /// Whether `GET /v1/responses` may become a WebSocket. Default true; false answers 426, and clients such as Codex go on over HTTP.
    pub websocket: bool,
    /// Whether permessage-deflate is accepted from clients that offer it. Default true: it saves them four fifths of their upload,
    /// and costs some 52 KiB a connection.
    pub websocket_deflate: bool,
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
    /// How long running turns, those in the background too, may go on after a stop was asked for, in milliseconds. Default 30,000.
    pub drain_ms_max: u64,
    /// From how many unwritten bytes on a client's upstreams are not read, until the client has read. Default 65,536. From as many
    /// unwritten bytes of answers to its own messages on (errors, pongs), the client itself is not read.
    pub outgoing_bytes_high: usize,
    /// Most responses that run in the background at once; one more is refused. Default 256.
    pub background_turns_max: usize,
    /// TLS for clients; see [`TlsConfig`]. Default none: plain HTTP and WebSocket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8700)),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8701)),
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            websocket: true,
            websocket_deflate: true,
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
            drain_ms_max: 30_000,
            outgoing_bytes_high: 64 * 1024,
            background_turns_max: 256,
            tls: None,
        }
    }
}

/// `[server.tls]`: clients speak TLS 1.3 or 1.2, and nothing else. The admin port stays plain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// A PEM file: the server's certificate, then those that lead to its authority.
    pub certificate_file: PathBuf,
    /// A PEM file: the certificate's private key, unencrypted.
    pub key_file: PathBuf,
    /// How long a handshake may take, in milliseconds. Default 10,000: the slowest links need some two seconds.
    #[serde(default = "handshake_ms_max_default")]
    pub handshake_ms_max: u64,
    /// Most handshakes computed at the same time; more wait, within their time. Each takes a fraction of a millisecond of a core,
    /// so that a storm of new connections holds up running streams by no more. Default 1.
    #[serde(default = "handshakes_max_default")]
    pub handshakes_max: NonZeroU16,
}

fn handshake_ms_max_default() -> u64 {
    10_000
}

fn handshakes_max_default() -> NonZeroU16 {
    NonZeroU16::MIN
}
