//! Every decision, as machines without sockets or clocks.
