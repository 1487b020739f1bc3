//! The config that holds, and the certificates that are shown to clients.

use super::Metrics;
use super::family::{counters, gauges, registered, set};
use crate::label::Reload;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Registry};

/// See the module.
#[derive(Debug)]
pub(super) struct Configs {
    generation: IntGauge,
    read: IntGauge,
    reloads: IntCounterVec,
    refused: IntGauge,
    expiry: IntGaugeVec,
}

impl Configs {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::new(name, help)?);
        let reloads = "Times that the config was read again, by what came of it";
        let expiry = "When a certificate that is shown to clients expires, in Unix seconds";
        let configs = Self {
            generation: gauge("flashlane_config_generation", "Which config holds: 1 is the one of the start")?,
            read: gauge("flashlane_config_read_timestamp_seconds", "When the config that holds was read")?,
            reloads: counters(registry, "flashlane_config_reloads_total", reloads, &["outcome"])?,
            refused: gauge("flashlane_config_refused", "1 while the config's file is not the one that holds")?,
            expiry: gauges(registry, "flashlane_certificate_expiry_seconds", expiry, &["certificate"])?,
        };
        for reload in Reload::ALL {
            configs.reloads.with_label_values(&[reload.name()]);
        }
        Ok(configs)
    }
}

impl Metrics {
    /// From here on this config holds.
    pub fn config_holds(&self, generation: u64, read_unix_ms: u64) {
        set(&self.configs.generation, generation);
        set(&self.configs.read, read_unix_ms / 1000);
    }

    /// The config was read again.
    pub fn config_reloaded(&self, outcome: Reload) {
        self.configs.reloads.with_label_values(&[outcome.name()]).inc();
        self.configs.refused.set(match outcome {
            Reload::Adopted => 0,
            Reload::Refused => 1,
        });
    }

    /// A certificate is shown to those who connect to this listener (`clients`, `admin`), until then in Unix seconds.
    pub fn certificate_expires(&self, certificate: &'static str, unix_s: i64) {
        self.configs.expiry.with_label_values(&[certificate]).set(unix_s);
    }
}
