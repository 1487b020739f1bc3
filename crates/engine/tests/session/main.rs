//! The session machine as its driver sees it, without a socket or a clock.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that meets what it does not expect shall fail"
)]

mod again;
mod background;
mod calls;
mod children;
mod compact;
mod fan_out;
mod guard;
mod handover;
mod hedge;
mod http;
mod lanes;
mod limit;
mod migrate;
mod nursery;
mod passing;
mod peer;
mod prefill;
mod profile;
mod queue;
mod references;
mod revoke;
mod rules;
mod scripts;
mod seal;
mod steer;
mod traits;
mod truncate;
mod watch;
