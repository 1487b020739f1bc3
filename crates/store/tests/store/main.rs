//! The stores' tests: what both promise, what each promises alone, and what outlives a kill.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail this way"
)]

mod contract;
mod crash;
mod lasting;
mod memory;
mod script;
mod support;
