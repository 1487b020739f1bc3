//! What an endpoint's config says to whoever examines the endpoint: where its key is, where it is, and what is assumed of it.

use super::EndpointConfig;
use crate::backends::Backend;
use crate::detect::Look;
use crate::error::{Error, Problem};
use crate::exam::{KeySource, Queue, Ways};
use crate::hosted::profile::Profile;
use crate::openai::dialect::Dialect;

/// What `GET /models` may take.
const LOOK_MS_MAX: u64 = 10_000;

impl EndpointConfig {
    /// Where its key is looked for; `None`: it sends none.
    #[must_use]
    pub fn key_source(&self) -> Option<KeySource> {
        match &self.api_key_file {
            Some(path) => Some(KeySource::File(path.clone())),
            None => self.key_variable().map(KeySource::Variable),
        }
    }

    /// The variable that holds its key: a service has one of its own.
    pub(super) fn key_variable(&self) -> Option<String> {
        match (&self.api_key_env, &self.api_key_file) {
            (None, None) => Profile::of(self.backend).map(|profile| profile.api_key_env.to_owned()),
            (named, _) => named.clone(),
        }
    }

    /// How its models are asked for.
    pub(crate) fn look(&self) -> Result<Look, Error> {
        let own = Profile::of(self.backend).map(|profile| profile.base_url);
        let base_url = self.base_url.as_deref().or(own).ok_or_else(|| self.error("base_url", Problem::Missing))?;
        let (_, api_key) = self.key(self.key_variable().as_ref())?;
        Ok(Look { base_url: base_url.to_owned(), api_key, way: self.way()?, wait_ms_max: LOOK_MS_MAX })
    }
}

impl Ways {
    pub(crate) fn of(backend: &Backend) -> Self {
        let (dialect, profile) = match backend {
            Backend::Hosted(hosted) => (hosted.profile.dialect, Some(hosted.profile)),
            Backend::OpenAi(openai) => (openai.dialect, None),
            Backend::Simulator(_) | Backend::Responses(_) => (Dialect::Generic, None),
        };
        let queue = profile.and_then(|profile| profile.queue.as_ref());
        Self {
            dialect,
            is_chat: !matches!(backend, Backend::Responses(_)),
            is_hosted: profile.is_some(),
            warm_path: profile.and_then(|profile| profile.warm_path),
            tiers: profile.map_or(&[], |profile| profile.tiers),
            queue: queue.map(|queue| Queue { header: queue.name, tiers: queue.tiers, ms_max: queue.ms_max }),
            takes_gzip: profile.is_some_and(|profile| profile.takes_gzip),
            has_strict_rules: profile.is_some_and(|profile| profile.strict_schemas),
            sends_cache_key: dialect.sends_cache_key(),
            has_slots: dialect.has_slots(),
        }
    }
}
