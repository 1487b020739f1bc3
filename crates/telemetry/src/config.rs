//! The `[telemetry]` part of the config: what is written down of turns, and where it goes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most records that anybody can mean: a gigabyte of them.
const TURNS_KEPT_MAX: usize = 1_000_000;
const PERCENT_MAX: u8 = 100;

/// `[telemetry]`. Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// `"text"`: readable lines. `"json"`: an object a line, with the same names, for what collects logs. The variable
    /// `FLASHLANE_LOG_FORMAT` goes before it.
    pub log_format: Format,
    /// Of how many turns that have ended a record is kept, for `flashlane explain` and the status page: ids, route, queue, attempts, times
    /// and counts, no text. In memory alone, some 1.5 KB each. 0 keeps none.
    #[schemars(range(max = TURNS_KEPT_MAX))]
    pub turns_kept_max: usize,
    /// An OpenTelemetry collector's base URL for OTLP over HTTP, as `"http://127.0.0.1:4318"`: each turn goes to its `/v1/traces` as a span
    /// with its stages and attempts ([OPERATIONS](OPERATIONS.md#traces)), in protobuf.
    ///
    /// Default: none; turns are not traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// Certificates to trust for it beside the public ones, a PEM file.
    ///
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_ca_file: Option<PathBuf>,
    /// How many of the traces that begin here are kept, 0: none; those that a client began are kept as its `traceparent` says.
    #[schemars(range(max = PERCENT_MAX))]
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
        if self.trace_sample_percent > PERCENT_MAX {
            return Err((
                "trace_sample_percent",
                format!("is {}: expected 0 to {PERCENT_MAX}", self.trace_sample_percent),
            ));
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One readable line an event.
    Text,
    /// One JSON object a line, with the same names.
    Json,
}
