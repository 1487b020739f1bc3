//! The `[telemetry]` part of the config: what is written down of turns, and where it goes.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most records that anybody can mean: a gigabyte of them.
const TURNS_KEPT_MAX: usize = 1_000_000;

/// `[telemetry]`. Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// How the log looks: `"text"`, readable lines, or `"json"`, an object a line. Default text. The variable `FLASHLANE_LOG_FORMAT`
    /// goes before it.
    pub log_format: Format,
    /// Of how many turns that have ended a record is kept in memory, for `flashlane explain` and the status page. Default 10,000:
    /// some 15 MB when they are full. 0: none.
    pub turns_kept_max: usize,
    /// Where traces go: an OpenTelemetry collector's base URL, as `http://127.0.0.1:4318`. Default none: turns are not traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// Certificates to trust for it beside the public ones, a PEM file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_ca_file: Option<PathBuf>,
    /// How many of the traces that begin here are kept, in percent, 0 to 100. Default 100. What a client traces itself is kept as its
    /// `traceparent` says.
    pub trace_sample_percent: u8,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_format: Format::Text,
            turns_kept_max: 10_000,
            otlp_endpoint: None,
            otlp_ca_file: None,
            trace_sample_percent: 100,
        }
    }
}

impl TelemetryConfig {
    /// # Errors
    /// The field at fault, and what was expected.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.turns_kept_max > TURNS_KEPT_MAX {
            return Err(("turns_kept_max", format!("is {}, and {TURNS_KEPT_MAX} is the most", self.turns_kept_max)));
        }
        if self.trace_sample_percent > 100 {
            return Err(("trace_sample_percent", format!("is {}: expected 0 to 100", self.trace_sample_percent)));
        }
        if self.otlp_endpoint.is_some() && self.turns_kept_max == 0 {
            return Err((
                "otlp_endpoint",
                "traces are made of the turns that are kept: expected `turns_kept_max` above 0".to_owned(),
            ));
        }
        Ok(())
    }
}

/// How a log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One readable line an event.
    Text,
    /// One JSON object a line, with the same names.
    Json,
}
