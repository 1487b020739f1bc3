//! Of client connections: how many are open, what crosses them, and how handshakes fail.

use super::Metrics;
use super::buckets::LANES;
use super::family::{counters, gauges, registered, set};
use crate::label::{self, Closer, Cut, Direction, Excess, Flaw, Handshake, Transport};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

#[derive(Debug)]
pub(super) struct Connections {
    open: IntGaugeVec,
    /// Places: taken, and all.
    held: IntGauge,
    most: IntGauge,
    unreadable: IntCounterVec,
    clients_cut: IntCounterVec,
    handshakes_failed: IntCounterVec,
    websocket_bytes: [IntCounter; 2],
    refused: IntCounterVec,
    websockets_closed: IntCounterVec,
    lanes: Histogram,
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
        let cut = "Client connections that were ended for what the client did or did not do";
        let failed = "TLS handshakes with clients that came to nothing";
        let closed = "WebSockets that ended, by who closed them and with which code";
        let lanes = HistogramOpts::new("flashlane_websocket_lanes", "Lanes that a WebSocket has used, at its end");
        let unreadable = "Requests that were refused before any route, for what is wrong with their bytes";
        let refused = "What clients were refused since there was too much of it";
        let connections = Self {
            refused: counters(registry, "flashlane_excess_refused_total", refused, &["reason"])?,
            open: gauges(registry, "flashlane_connections_open", open, &["transport"])?,
            held: gauge(registry, "flashlane_connections_held", "Places of clients' connections that are taken")?,
            most: gauge(registry, "flashlane_connections_max", "Places of clients' connections that there are")?,
            unreadable: counters(registry, "flashlane_requests_unreadable_total", unreadable, &["reason"])?,
            clients_cut: counters(registry, "flashlane_clients_cut_total", cut, &["reason"])?,
            handshakes_failed: counters(registry, "flashlane_tls_handshakes_failed_total", failed, &["reason"])?,
            websocket_bytes: Direction::ALL.map(|d| bytes.with_label_values(&[d.name()])),
            websockets_closed: counters(registry, "flashlane_websockets_closed_total", closed, &["by", "code"])?,
            lanes: registered(registry, Histogram::with_opts(lanes.buckets(LANES.to_vec()))?)?,
        };
        for transport in Transport::ALL {
            connections.open.with_label_values(&[transport.name()]);
        }
        for failure in Handshake::ALL {
            connections.handshakes_failed.with_label_values(&[failure.name()]);
        }
        for flaw in Flaw::ALL {
            connections.unreadable.with_label_values(&[flaw.name()]);
        }
        for excess in Excess::ALL {
            connections.refused.with_label_values(&[excess.name()]);
        }
        for cut in Cut::ALL {
            connections.clients_cut.with_label_values(&[cut.name()]);
        }
        Ok(connections)
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registered(registry, IntGauge::new(name, help)?)
}

impl Metrics {
    /// How many of the places of clients' connections are taken; before a scrape.
    pub fn places(&self, held: u64, most: u64) {
        set(&self.connections.held, held);
        set(&self.connections.most, most);
    }

    /// A request is refused before any route sees it.
    pub fn unreadable(&self, flaw: Flaw) {
        self.connections.unreadable.with_label_values(&[flaw.name()]).inc();
    }

    /// Counts a client connection until the returned value is dropped.
    #[must_use]
    pub fn connection(&self, transport: Transport) -> OpenConnection {
        let gauge = self.connections.open.with_label_values(&[transport.name()]);
        gauge.inc();
        OpenConnection(gauge)
    }

    /// A client's connection is ended before the client wished to.
    pub fn client_cut(&self, cut: Cut) {
        self.connections.clients_cut.with_label_values(&[cut.name()]).inc();
    }

    /// A client's TLS handshake came to nothing.
    pub fn handshake_failed(&self, failure: Handshake) {
        self.connections.handshakes_failed.with_label_values(&[failure.name()]).inc();
    }

    /// A client was refused what there is too much of.
    pub fn excess(&self, excess: Excess) {
        self.connections.refused.with_label_values(&[excess.name()]).inc();
    }

    pub fn websocket_bytes(&self, direction: Direction, bytes: u64) {
        let [bytes_in, bytes_out] = &self.connections.websocket_bytes;
        match direction {
            Direction::In => bytes_in,
            Direction::Out => bytes_out,
        }
        .inc_by(bytes);
    }

    /// A WebSocket has ended. `code` is that of the first close frame; none where there was none.
    pub fn websocket_closed(&self, by: Closer, code: Option<u16>, lanes: usize) {
        self.connections.websockets_closed.with_label_values(&[by.name(), label::close_code(code)]).inc();
        self.connections.lanes.observe(lanes as f64);
    }
}
