//! Upstream I/O: where tokens come from. Endpoints with their connections, TLS, pools and warm-up, and the engines' dialects.
//!
//! [`Backends::open`] begins a turn's request at an endpoint, and whoever runs the turn polls the [`TokenStream`]: connecting, sending
//! and reading all happen in that poll. Between the socket's bytes and the turn there is no task, no channel and no allocation
//! (HTTP/2 excepted, whose connection task is hyper's).
//!
//! Knows nothing of clients, and decides nothing: which endpoint serves a turn is the engine's affair.

mod alarm;
mod backends;
mod client;
mod config;
pub mod detect;
mod error;
pub mod exam;
pub mod files;
mod guard;
mod hosted;
mod openai;
mod post;
mod probe;
mod responses;
mod secret;
mod simulator;
mod stream;
mod succession;

pub use alarm::Alarm;
pub use backends::{Backend, Backends, Stats};
pub use client::io::Io;
pub use client::leaving::Leaving;
pub use client::way::Way;
pub use config::{EndpointConfig, Kind, ProfileName, Tier, Transport};
pub use error::{Error, Problem};
pub use guard::{GuardConfig, GuardError, Guards};
pub use hosted::profile::{CEREBRAS_KEY_ENV, CEREBRAS_URL};
pub use openai::dialect::Dialect;
pub use post::{Post, PostError};
pub use secret::{Secret, shown_name};
pub use stream::{Handed, TokenStream};
pub use succession::{Change, Full};
