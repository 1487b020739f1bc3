//! The values that labels may have. An enum each, so that no user, key or prompt text can become a label.

use flashlane_engine::Tier;

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    /// Any HTTP connection that is not upgraded, the moments before an upgrade included.
    Http,
}

impl Transport {
    pub(crate) const ALL: [Self; 2] = [Self::WebSocket, Self::Http];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Http => "http",
        }
    }
}

/// By what a request asked for a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildKind {
    /// `delegate`: it runs in the background.
    Delegate,
    /// `fan_out`: its parent waits for it.
    FanOut,
}

impl ChildKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delegate => "delegate",
            Self::FanOut => "fan_out",
        }
    }
}

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildEnd {
    Completed,
    Incomplete,
    Failed,
    Cancelled,
    /// It never began.
    Refused,
}

impl ChildEnd {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }
}

/// Why a client's connection was ended before it wished to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// HTTP that can be read in two ways, WebSocket frames against RFC 6455.
    Malformed,
    /// A message beyond its size.
    Large,
    /// More pings, fragments or frames that bring nothing than are allowed.
    Flood,
    /// A body or message that did not come in its time.
    Late,
    /// All clients together had begun to send too much.
    Crowded,
    /// It took nothing of what there was for it.
    Stalled,
    /// It answered no ping.
    Silent,
}

impl Cut {
    pub(crate) const ALL: [Self; 7] =
        [Self::Malformed, Self::Large, Self::Flood, Self::Late, Self::Crowded, Self::Stalled, Self::Silent];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Large => "large",
            Self::Flood => "flood",
            Self::Late => "late",
            Self::Crowded => "crowded",
            Self::Stalled => "stalled",
            Self::Silent => "silent",
        }
    }
}

/// Which way bytes went, as the gateway sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

impl Direction {
    pub(crate) const ALL: [Self; 2] = [Self::In, Self::Out];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// What came of reading the config again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// It holds.
    Adopted,
    /// It was at fault, and the one of before holds.
    Refused,
}

impl Reload {
    pub(crate) const ALL: [Self; 2] = [Self::Adopted, Self::Refused];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Adopted => "adopted",
            Self::Refused => "refused",
        }
    }
}

/// Why a caller was refused for its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFault {
    /// There is none.
    Missing,
    /// What was sent is no bearer key.
    Malformed,
    /// It is none of the config's.
    Unknown,
}

impl KeyFault {
    pub(crate) const ALL: [Self; 3] = [Self::Missing, Self::Malformed, Self::Unknown];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a TLS handshake with a client came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// Refused by either side, or broken off.
    Failed,
    /// Not whole within its time.
    Late,
    /// The client spoke something else than TLS.
    Plain,
}

impl Handshake {
    pub(crate) const ALL: [Self; 3] = [Self::Failed, Self::Late, Self::Plain];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Late => "late",
            Self::Plain => "plain",
        }
    }
}

/// Who sent the first close frame of a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closer {
    Client,
    Server,
    /// The connection broke, or the client left without a word.
    Nobody,
}

impl Closer {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Nobody => "nobody",
        }
    }
}

/// What the store was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreWork {
    Read,
    Write,
}

impl StoreWork {
    pub(crate) const ALL: [Self; 2] = [Self::Read, Self::Write];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// A close code as a label: those that RFC 6455 and its registry know. A client may make up others.
pub(crate) fn close_code(code: Option<u16>) -> &'static str {
    const KNOWN: [(u16, &str); 13] = [
        (1000, "1000"),
        (1001, "1001"),
        (1002, "1002"),
        (1003, "1003"),
        (1005, "1005"),
        (1007, "1007"),
        (1008, "1008"),
        (1009, "1009"),
        (1010, "1010"),
        (1011, "1011"),
        (1012, "1012"),
        (1013, "1013"),
        (1014, "1014"),
    ];
    let Some(code) = code else { return "none" };
    KNOWN.iter().find(|(known, _)| *known == code).map_or("other", |(_, name)| name)
}

/// Why a client's connection, or its next request or turn, is not served although nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// There are as many connections as there may be.
    Connections,
    /// Its address has as many connections as one may.
    AddressConnections,
    /// Too many TLS handshakes in flight.
    HandshakesWaiting,
    /// Too many TLS handshakes in a second.
    HandshakesPerSecond,
    /// The same of its address.
    AddressHandshakesWaiting,
    AddressHandshakesPerSecond,
    /// A new session while memory runs short.
    MemorySession,
    /// A turn of the throughput tier while memory runs shorter.
    MemoryTurn,
    /// A trusted proxy did not say who its client is, or not in time.
    Proxy,
    /// On the admin listener, which is full: somebody who had not shown who they are was closed for another one.
    Operators,
}

impl Excess {
    pub(crate) const ALL: [Self; 10] = [
        Self::Connections,
        Self::AddressConnections,
        Self::HandshakesWaiting,
        Self::HandshakesPerSecond,
        Self::AddressHandshakesWaiting,
        Self::AddressHandshakesPerSecond,
        Self::MemorySession,
        Self::MemoryTurn,
        Self::Proxy,
        Self::Operators,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::AddressConnections => "address_connections",
            Self::HandshakesWaiting => "handshakes_waiting",
            Self::HandshakesPerSecond => "handshakes_per_second",
            Self::AddressHandshakesWaiting => "address_handshakes_waiting",
            Self::AddressHandshakesPerSecond => "address_handshakes_per_second",
            Self::MemorySession => "memory_session",
            Self::MemoryTurn => "memory_turn",
            Self::Proxy => "proxy_protocol",
            Self::Operators => "operators",
        }
    }

    /// What of `[server.limits]` says how much is too much; None: it is no number of the config.
    #[must_use]
    pub fn setting(self) -> Option<&'static str> {
        match self {
            Self::Connections => Some("connections_max"),
            Self::AddressConnections => Some("connections_per_address_max"),
            Self::HandshakesWaiting => Some("handshakes_waiting_max"),
            Self::HandshakesPerSecond => Some("handshakes_per_second_max"),
            Self::AddressHandshakesWaiting => Some("handshakes_waiting_per_address_max"),
            Self::AddressHandshakesPerSecond => Some("handshakes_per_second_per_address_max"),
            Self::MemorySession | Self::MemoryTurn => Some("memory_bytes_max"),
            Self::Proxy | Self::Operators => None,
        }
    }
}

/// What is wrong with the bytes of a request, so that no route sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    BareLf,
    /// No request line of HTTP/1, or one that is not served.
    RequestLine,
    Field,
    Host,
    /// Where its body ends can be read in two ways.
    Framing,
    Chunk,
    /// A WebSocket handshake with a body.
    Upgrade,
    /// A head beyond its size or number of fields.
    Large,
    /// A target that no head has room for.
    LongTarget,
    /// HTTP/2 frames that bring nothing, too many in a second.
    Flood,
    /// Something else, by the HTTP library's own word.
    Other,
}

impl Flaw {
    pub(crate) const ALL: [Self; 11] = [
        Self::BareLf,
        Self::RequestLine,
        Self::Field,
        Self::Host,
        Self::Framing,
        Self::Chunk,
        Self::Upgrade,
        Self::Large,
        Self::LongTarget,
        Self::Flood,
        Self::Other,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::RequestLine => "request_line",
            Self::Field => "field",
            Self::Host => "host",
            Self::Framing => "framing",
            Self::Chunk => "chunk",
            Self::Upgrade => "upgrade",
            Self::Large => "large",
            Self::LongTarget => "long_target",
            Self::Flood => "flood",
            Self::Other => "other",
        }
    }
}

/// The tier's label; `none` for a turn that ended before a tier was granted.
pub(crate) fn tier(tier: Option<Tier>) -> &'static str {
    tier.map_or("none", Tier::name)
}
