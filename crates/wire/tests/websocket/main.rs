//! `wire::websocket` as a client meets it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code, its shared part included, fails by panicking"
)]

#[path = "../chance/mod.rs"]
mod chance;
mod client;
mod deflate;
mod encoder;
mod rules;
mod splits;
mod tungstenite;
