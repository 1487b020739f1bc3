//! Downstream I/O: listeners, routes, the WebSocket and HTTP edges.
