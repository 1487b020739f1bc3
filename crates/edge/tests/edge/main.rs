//! The edge from outside: real sockets on loopback, a scripted or simulated upstream behind it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod background;
mod cancel;
mod cancels;
mod children;
mod compact;
mod conversations;
mod crowd;
mod double;
mod drain;
mod endpoints;
mod errors;
mod fan_out;
mod faults;
mod handover;
mod handshakes;
mod hostile;
mod http;
mod http2;
mod idle;
mod keys;
mod life;
mod limit;
mod limits;
mod models;
mod operators;
mod origin;
mod pressure;
mod queue;
mod status;
mod stored;
mod strict;
mod support;
mod timing;
mod tls;
mod trust;
mod turns;
mod warm;
mod websocket;
