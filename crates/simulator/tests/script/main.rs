//! The simulator's contract, through its public face and in virtual time.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod behaviour;
mod play;
mod rejection;
mod stream;
