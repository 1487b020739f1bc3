//! Connections that break: before, in and after a TLS handshake.

use crate::fleet::Fault::{HangsUp, Resets};
use crate::fleet::Tier::{Latency, Throughput};
use crate::row::Told::{Error, Nothing};
use crate::row::{Row, rows};
use flashlane_engine::ErrorKind::UpstreamFailed;

const fn broken(fault: &'static str) -> Row {
    Row { fault, inject: HangsUp, tiers: &[Latency], left: Nothing, none: Error(UpstreamFailed), counts: true }
}

rows! {
    a_reset_in_the_handshake: broken("TLS: a reset in the handshake");
    a_reset_after_the_handshake: Row { inject: Resets, ..broken("TLS: a reset when the request is there") };
    a_reset_at_once: Row { tiers: &[Throughput], ..broken("TCP: a reset before the request") };
    a_reset_after_the_request: Row { inject: Resets, tiers: &[Throughput], ..broken("TCP: a reset when the request is there") };
}
