//! The verbs beside `serve`: each module has its `Args` and a `run`. They are clients, or tools about clients; they hold no
//! policy, and the binary decides which of them runs.

pub mod address;
pub mod admin;
pub mod bench;
mod calendar;
pub mod certificate;
pub mod chat;
pub mod completions;
pub mod connect;
pub mod doctor;
pub mod explain;
pub mod gateway;
pub mod keys;
pub mod models;
pub mod simulate;
pub mod usage;
