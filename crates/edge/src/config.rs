//! The `[server]` part of the config: where clients are listened for, and by [`limits`] every limit on what they may send and hold.

mod limits;
mod network;

pub use limits::LimitsConfig;
pub use network::Network;

use crate::drain::DrainConfig;
use flashlane_engine::router::Digest;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

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
    /// Proxies that are believed when they say who their clients are: by `X-Forwarded-For`, and by the PROXY protocol where
    /// `proxy_protocol` is set. Addresses and networks (`10.0.0.0/8`). Default none: nobody is.
    pub trusted_proxies: Vec<Network>,
    /// Whether each client connection from one of `trusted_proxies` begins with a head of the PROXY protocol, version 2. Default false.
    pub proxy_protocol: bool,
    /// Whether `GET /v1/responses` may become a WebSocket. Default true; false answers 426, and clients such as Codex go on over HTTP.
    pub websocket: bool,
    /// Whether permessage-deflate is accepted from clients that offer it. Default true: it saves them four fifths of their upload,
    /// and costs some 52 KiB a connection.
    pub websocket_deflate: bool,
    /// What clients may send and hold; see [`LimitsConfig`].
    pub limits: LimitsConfig,
    /// How it leaves; see [`DrainConfig`].
    pub drain: DrainConfig,
    /// TLS for clients; see [`TlsConfig`]. Default none: plain HTTP and WebSocket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Who may ask what on the admin listener; see [`AdminConfig`].
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// SHA-256 of the token that operators send as `Authorization: Bearer TOKEN`, in hexadecimal: of one, or of two while it is changed.
    /// `/config` and `/drain` always ask for it, and where there is one, so does what changes limits and endpoints; all but `/livez` and
    /// `/readyz` where the listener is beyond loopback. Default none.
    pub token_sha256: Vec<Digest>,
    /// Whether `/metrics` is open beyond loopback too. Default false.
    pub metrics_open: bool,
    /// TLS for operators; see [`TlsConfig`]. A client certificate stands for the token. Default none: plain HTTP.
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
    /// A PEM file: the authorities whose client certificates are taken. Default none: no certificate is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
    /// Whether a connection without a client certificate is refused. Default `"required"`; only with `client_ca_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificates>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
