//! The `[server]` part of the config: where clients are listened for, and by [`limits`] every limit on what they may send and hold.

mod limits;
mod network;

pub use limits::LimitsConfig;
pub use network::Network;

use crate::drain::DrainConfig;
use flashlane_engine::router::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

/// `[server]`. Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeConfig {
    /// Where clients connect. The port is clear of those of engines and tools beside it. Beyond loopback only with [`[[keys]]`](#keys).
    /// `--listen` overrides it; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where operators connect. Never the clients' address, so that it can stay private. Beyond loopback only with a token or client
    /// certificates in [`[server.admin]`](#serveradmin). `--admin-listen` overrides it.
    pub admin_listen: SocketAddr,
    /// Web pages that may use this server, as the browser's `Origin` says it: `"https://app.example"`, with the port if it is not the
    /// scheme's own. Pages on `localhost` and loopback addresses always may; any other would use it by the browser of whoever opens it,
    /// since no key is asked for. No CORS headers are sent: such a page may open WebSockets, and must read HTTP answers through a proxy of
    /// its own origin.
    pub allowed_origins: Vec<String>,
    /// Names, without port, by which clients may call this server beside `localhost` and IP addresses: a name that a web page's owner
    /// points at this machine is refused.
    pub allowed_hosts: Vec<String>,
    /// Proxies that are believed when they say who their clients are, by address or network: `["10.0.0.0/8", "::1"]`
    /// ([how](OPERATIONS.md#behind-a-proxy)). `X-Forwarded-For` of anybody else is ignored.
    pub trusted_proxies: Vec<Network>,
    /// `true`: each client connection from one of `trusted_proxies` begins with a head of the PROXY protocol, version 2.
    pub proxy_protocol: bool,
    /// Whether `GET /v1/responses` may become a WebSocket. `false` answers 426, and clients such as Codex go on over HTTP.
    pub websocket: bool,
    /// Accept permessage-deflate from clients that offer it: it saves them four fifths of their upload, for some 52 KiB of memory on each such
    /// connection.
    pub websocket_deflate: bool,
    /// What clients may send and hold.
    pub limits: LimitsConfig,
    /// How it leaves.
    pub drain: DrainConfig,
    /// TLS for clients.
    ///
    /// Default: none; plain HTTP and WebSocket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Who may ask what on the admin listener.
    ///
    /// Default: nothing is asked for on loopback.
    #[serde(skip_serializing_if = "AdminConfig::is_default")]
    pub admin: AdminConfig,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8700)),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8701)),
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            websocket: true,
            websocket_deflate: true,
            limits: LimitsConfig::default(),
            drain: DrainConfig::default(),
            tls: None,
            admin: AdminConfig::default(),
        }
    }
}

/// `[server.admin]`: who may ask what on the admin listener. On loopback it may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// SHA-256 of the operators' token, 64 hex digits: of one, or of two while it is changed. They send it as `Authorization: Bearer
    /// TOKEN`. `/config` and `/drain` always ask for it, and where there is one, so does what changes limits and endpoints; all but
    /// `/livez` and `/readyz` where the listener is beyond loopback. `flashlane keys create --admin` makes one and prints this table.
    pub token_sha256: Vec<Digest>,
    /// `true` opens `/metrics` beyond loopback, and nothing else, to who has no token.
    pub metrics_open: bool,
    /// TLS for operators, as [`[server.tls]`](#servertls): with a `client_ca_file` a client certificate stands for the token.
    ///
    /// Default: none; plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
}

impl AdminConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an operator can show that they are one: what a listener beyond loopback needs.
    #[must_use]
    pub fn can_ask(&self) -> bool {
        !self.token_sha256.is_empty() || self.takes_certificates()
    }

    pub(crate) fn takes_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some())
    }
}

/// `[server.tls]`, `[server.admin.tls]`: TLS 1.3 or 1.2 is spoken there, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM: the server's certificate, then those that lead to its authority.
    pub certificate_file: PathBuf,
    /// PEM: the certificate's private key, unencrypted (PKCS#8, PKCS#1 or SEC1). With an ECDSA P-256 key a handshake costs some 0.2 ms of a
    /// core, with RSA 2048 some 0.75 ms.
    pub key_file: PathBuf,
    /// How long a handshake may take: the slowest links need some two seconds.
    #[serde(default = "handshake_ms_max_default")]
    pub handshake_ms_max: u64,
    /// Handshakes computed at the same time; more wait, within their time. Clients that are slow to answer take no place. One is enough for
    /// some 3,000 new connections a second with ECDSA, 1,200 with RSA, and holds up running streams least.
    #[serde(default = "handshakes_max_default")]
    pub handshakes_max: NonZeroU16,
    /// PEM: the authorities whose client certificates are taken. A key is asked for besides, where there are `[[keys]]`. Who shows one that
    /// none of them signed, or that has expired, is refused in the handshake.
    ///
    /// Default: none; no certificate is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
    /// Whether who shows no certificate is refused. `"optional"` serves who shows none, too.
    ///
    /// Default: `"required"`, with `client_ca_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificates>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// One that is shown must be good.
    Optional,
    Required,
}

impl TlsConfig {
    /// The files whose content is part of it.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate_file, &self.key_file].into_iter().chain(&self.client_ca_file).map(PathBuf::as_path)
    }
}

fn handshake_ms_max_default() -> u64 {
    10_000
}

fn handshakes_max_default() -> NonZeroU16 {
    NonZeroU16::MIN
}
