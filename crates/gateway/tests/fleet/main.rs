//! A whole flashlane before two wafer-shaped and three GPU-shaped servers that fail in every way known: what its clients see of it, and
//! what it learns. Each row of the table in docs/ROUTING.md is a test here; `table.rs` compares the two.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails this way"
)]

mod client;
mod fleet;
#[path = "../rig/mod.rs"]
mod rig;
mod row;

mod cut;
mod dead;
mod garbage;
mod migrate;
mod refusal;
mod silence;
mod table;
mod transport;
