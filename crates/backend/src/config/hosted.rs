//! The check of an endpoint at a hosted service: what its profile leaves to the config, and what it does not allow.

use super::EndpointConfig;
use crate::backends::Backend;
use crate::client::warmth::Warmth;
use crate::error::{Error, Problem};
use crate::hosted::profile::Profile;
use crate::hosted::{Gzip, Hosted, Settings};
use std::time::Duration;

/// Between two rounds that keep connections warm: a third of the time after which load balancers close what is silent.
const WARM_EVERY_MS: u64 = 20_000;
pub(super) const COMPLETION_TOKENS: u64 = 32_768;
pub(super) const TOKENS_MAX: u64 = 1 << 24;
/// Below this a request is a packet or two, in whatever coding.
pub(super) const GZIP_BYTES_MIN: u64 = 1024;
pub(super) const GZIP_BYTES_MAX: u64 = 1 << 30;
/// 400 KB of code take 8 ms to pack, and a third of them as many windows of a young connection less as are worth that from here on.
pub(super) const GZIP_ROUND_TRIP_MS: u64 = 5;
pub(super) const GZIP_ROUND_TRIP_MS_MAX: u64 = 1000;
pub(super) const WARM_CONNECTIONS: u64 = 2;
pub(super) const WARM_CONNECTIONS_MAX: u64 = 64;
pub(super) const WARM_MS: u64 = 300_000;

impl EndpointConfig {
    /// # Errors
    /// Names the first field that is at fault.
    pub(super) fn hosted(&self) -> Result<Backend, Error> {
        let Some(profile) = Profile::of(self.backend) else {
            return Err(self.error("backend", Problem::Missing));
        };
        let own = self.own_fields(profile)?;
        let base_url = self.base_url.as_deref().unwrap_or(profile.base_url);
        let mut remote = self.remote(base_url, self.key_variable().as_ref(), &own)?;
        if let Some(warmth) = self.warmth(profile, &remote)? {
            remote = remote.kept_warm(warmth);
        }
        let tokens = self.completion_tokens_max.unwrap_or(COMPLETION_TOKENS);
        let settings = Settings {
            completion_tokens_max: self.within("completion_tokens_max", tokens, 1, TOKENS_MAX)?,
            service_tier: self.service_tier.clone(),
            gzip: self.gzip(profile)?,
        };
        Ok(Backend::Hosted(Hosted::new(remote, profile, settings)))
    }

    fn gzip(&self, profile: &Profile) -> Result<Option<Gzip>, Error> {
        let fields = [("gzip_bytes_min", self.gzip_bytes_min), ("gzip_round_trip_ms_min", self.gzip_round_trip_ms_min)];
        if let Some((field, _)) = fields.iter().find(|(_, set)| set.is_some() && !profile.takes_gzip) {
            return Err(self.not_for_backend(field));
        }
        let ms = self.gzip_round_trip_ms_min.unwrap_or(GZIP_ROUND_TRIP_MS);
        let ms = self.within("gzip_round_trip_ms_min", ms, 0, GZIP_ROUND_TRIP_MS_MAX)?;
        let Some(bytes) = self.gzip_bytes_min else { return Ok(None) };
        let bytes = self.within("gzip_bytes_min", bytes, GZIP_BYTES_MIN, GZIP_BYTES_MAX)?;
        let bytes_min = usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(Some(Gzip { bytes_min, round_trip_min: Duration::from_millis(ms) }))
    }

    /// The fields of the head that the service asks for.
    fn own_fields(&self, profile: &Profile) -> Result<Vec<(&'static str, String)>, Error> {
        let mut own: Vec<_> = profile.headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let tier = self.service_tier.as_deref();
        if tier.is_some_and(|tier| !profile.tiers.contains(&tier)) {
            return Err(match profile.tiers {
                [] => self.not_for_backend("service_tier"),
                tiers => self.error("service_tier", Problem::NotOneOf { values: tiers }),
            });
        }
        let Some(ms) = self.queue_ms_max else { return Ok(own) };
        let Some(queue) = &profile.queue else { return Err(self.not_for_backend("queue_ms_max")) };
        if !tier.is_some_and(|tier| queue.tiers.contains(&tier)) {
            return Err(self.error("queue_ms_max", Problem::NeedsTier { values: queue.tiers }));
        }
        let ms = self.within("queue_ms_max", ms, queue.ms_min, queue.ms_max)?;
        own.push((queue.name, ms.to_string()));
        Ok(own)
    }

    fn warmth(&self, profile: &Profile, remote: &crate::client::Remote) -> Result<Option<Warmth>, Error> {
        let connections = self.warm_connections.unwrap_or(WARM_CONNECTIONS);
        let connections = self.within("warm_connections", connections, 0, WARM_CONNECTIONS_MAX)?;
        let lasts_ms = self.ms("warm_ms_max", self.warm_ms_max, WARM_MS)?;
        let every_ms = WARM_EVERY_MS.min(self.idle_connection_ms_max()? / 2).max(1);
        let Some(path) = profile.warm_path.filter(|_| connections > 0) else { return Ok(None) };
        let target = format!("{}{path}", remote.base_path());
        let times = (Duration::from_millis(every_ms), Duration::from_millis(lasts_ms));
        Ok(Some(Warmth::new(&remote.template, target, usize::try_from(connections).unwrap_or(usize::MAX), times)))
    }

    fn not_for_backend(&self, field: &'static str) -> Error {
        self.error(field, Problem::NotForBackend { backend: self.backend.name() })
    }
}
