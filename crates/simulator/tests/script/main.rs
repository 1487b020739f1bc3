//! The simulator's contract, through its public face and in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod behaviour;
mod play;
mod rejection;
mod stream;
