//! Scripted peers for tests: upstreams with faults, clients, an echo server.

pub mod upstream;
pub mod wafer;
