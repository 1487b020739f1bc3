//! Of client connections: how many are open, what crosses them, and how handshakes fail.

use super::Metrics;
use super::family::{counters, gauges};
use crate::label::{Direction, Handshake, Transport};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

#[derive(Debug)]
pub(super) struct Connections {
    open: IntGaugeVec,
    handshakes_failed: IntCounterVec,
    websocket_bytes: [IntCounter; 2],
}

/// An open client connection in the gauge; its drop closes it.
#[derive(Debug)]
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Connections {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let bytes = "Bytes over WebSocket connections, as on the wire";
        let bytes = counters(registry, "flashlane_websocket_bytes_total", bytes, &["direction"])?;
        let open = "Client connections open now";
        let failed = "TLS handshakes with clients that came to nothing";
        let connections = Self {
            open: gauges(registry, "flashlane_connections_open", open, &["transport"])?,
            handshakes_failed: counters(registry, "flashlane_tls_handshakes_failed_total", failed, &["reason"])?,
            websocket_bytes: Direction::ALL.map(|d| bytes.with_label_values(&[d.name()])),
        };
        for transport in Transport::ALL {
            connections.open.with_label_values(&[transport.name()]);
        }
        for failure in Handshake::ALL {
            connections.handshakes_failed.with_label_values(&[failure.name()]);
        }
        Ok(connections)
    }
}

impl Metrics {
    /// Counts a client connection until the returned value is dropped.
    #[must_use]
    pub fn connection(&self, transport: Transport) -> OpenConnection {
        let gauge = self.connections.open.with_label_values(&[transport.name()]);
        gauge.inc();
        OpenConnection(gauge)
    }

    /// A client's TLS handshake came to nothing.
    pub fn handshake_failed(&self, failure: Handshake) {
        self.connections.handshakes_failed.with_label_values(&[failure.name()]).inc();
    }

    pub fn websocket_bytes(&self, direction: Direction, bytes: u64) {
        let [bytes_in, bytes_out] = &self.connections.websocket_bytes;
        match direction {
            Direction::In => bytes_in,
            Direction::Out => bytes_out,
        }
        .inc_by(bytes);
    }
}
