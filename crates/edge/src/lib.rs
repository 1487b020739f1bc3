//! Downstream I/O: listeners, routes, the WebSocket and HTTP edges. Knows sockets, time and bytes; names no backend and decides no
//! policy: what a turn means, the engine says.
//!
//! Read it in this order: [`listen`] accepts, behind `tls` where it is configured, `routes` sends each request on, `ws` or `http`
//! makes it a session, and `drive` moves the session's bytes and effects until it ends.

mod admin;
mod afterwards;
mod again;
mod allowance;
mod assembling;
mod auth;
mod background;
mod bare;
mod children;
mod clock;
mod config;
mod conversations;
mod count;
mod current;
mod desk;
mod drain;
mod drive;
mod error;
mod follow;
mod http;
mod idle;
mod inspected;
mod keys;
mod listen;
mod live;
mod memory;
mod models;
mod orders;
mod origin;
mod paced;
mod panics;
mod patience;
mod peer;
mod places;
mod record;
mod reply;
mod revised;
mod routes;
mod socket;
mod stall;
mod state;
mod stored;
mod strict;
mod tls;
mod trace;
mod watch;
mod work;
mod ws;

pub use config::{AdminConfig, ClientCertificates, EdgeConfig, LimitsConfig, Network, TlsConfig};
pub use current::{Current, Renewal, Shown};
pub use drain::{DrainConfig, Haste};
pub use error::Error;
pub use keys::{KeyConfig, TierName};
pub use listen::Listeners;
pub use orders::{Orders, Patched};
pub use state::{Parts, State};
pub use tls::{Tls, TlsError, TlsProblem};
