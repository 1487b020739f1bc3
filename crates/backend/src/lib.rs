//! Upstream I/O: connections, pools, adapters.
