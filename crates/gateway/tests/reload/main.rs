//! The config read again by a running gateway: what is taken over, what is kept, and that nothing which runs takes harm.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail this way")]

mod changes;
mod children;
mod keys;
mod place;
#[path = "../rig/mod.rs"]
mod rig;
mod storm;
mod tls;
mod upload;
