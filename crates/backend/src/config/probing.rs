//! The check of `probe_ms`: whose metrics are known, and where they are.

use super::{CONNECT_MS, EndpointConfig};
use crate::client::address::Address;
use crate::client::dial::{Dialer, Version};
use crate::client::probing::Probing;
use crate::error::{Error, Problem};
use crate::openai::dialect::Dialect;
use crate::probe::{self, Gauges};
use std::time::Duration;

/// Oftener costs the engine more than it tells.
pub(super) const MS_MIN: u64 = 50;
/// What was said longer ago is not heeded.
pub(super) const MS_MAX: u64 = 10_000;

impl EndpointConfig {
    /// What its requests ask for besides.
    pub(super) fn asked_for(&self, dialect: Dialect) -> Vec<(&'static str, String)> {
        let (name, value) = probe::ASKED;
        match (self.probe_ms, dialect) {
            (Some(_), Dialect::Vllm) => vec![(name, value.to_owned())],
            _ => Vec::new(),
        }
    }

    pub(super) fn probing(&self, base_url: &str, dialect: Dialect) -> Result<Option<Probing>, Error> {
        let Some(ms) = self.probe_ms else { return Ok(None) };
        let Some(gauges) = Gauges::of(dialect) else {
            return Err(self.error("probe_ms", Problem::NeedsDialect { values: &["vllm", "sglang", "llama_cpp"] }));
        };
        let every = Duration::from_millis(self.within("probe_ms", ms, MS_MIN, MS_MAX)?);
        let address = Address::parse(base_url).map_err(|problem| self.error("base_url", problem))?;
        // Beside /v1, not below it.
        let target = format!("{}/metrics", address.path.trim_end_matches("/v1"));
        let (_, key) = self.key(self.api_key_env.as_ref())?;
        let connect_ms_max = self.ms("connect_ms_max", self.connect_ms_max, CONNECT_MS)?;
        let dialer = Dialer::new(address, &self.way()?, Version::Http1, connect_ms_max)
            .map_err(|(field, problem)| self.error(field, problem))?;
        Ok(Some(Probing::new(dialer, target, key, (gauges, every))))
    }
}
