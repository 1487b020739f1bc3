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

/// The tier's label; `none` for a turn that ended before a tier was granted.
pub(crate) fn tier(tier: Option<Tier>) -> &'static str {
    tier.map_or("none", Tier::name)
}
