//! The one list of metrics, and the log lines.
