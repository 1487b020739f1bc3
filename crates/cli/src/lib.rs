//! The verbs beside serve: chat, connect, simulate.
