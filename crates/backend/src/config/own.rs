//! Which fields of an endpoint are some backends' own. Knows nothing of what they mean.

use super::{EndpointConfig, Kind};
use crate::error::{Error, Problem};

/// A field, and whether it is set.
type Field = (&'static str, fn(&EndpointConfig) -> bool);

macro_rules! fields {
    ($($field:ident),+ $(,)?) => {
        &[$((stringify!($field), |endpoint: &EndpointConfig| endpoint.$field.is_some())),+]
    };
}

/// The fields that not every backend has, by those that have them.
const OWN: [(&[Kind], &[Field]); 5] = [
    (
        &[Kind::OpenAi, Kind::Responses, Kind::Cerebras, Kind::Groq, Kind::Sambanova],
        fields![
            base_url,
            api_key_env,
            api_key_file,
            http_version,
            ca_file,
            client_certificate_file,
            client_key_file,
            proxy,
            proxy_login_env,
            connect_ms_max,
            first_byte_ms_max,
            idle_ms_max,
            idle_connections_max,
            idle_connection_ms_max,
            connection_ms_max,
            simulated,
        ],
    ),
    (&[Kind::OpenAi], fields![dialect, probe_ms, priorities]),
    (&[Kind::Responses], fields![transport]),
    (
        &[Kind::Cerebras, Kind::Groq, Kind::Sambanova],
        fields![
            service_tier,
            queue_ms_max,
            completion_tokens_max,
            gzip_bytes_min,
            gzip_round_trip_ms_min,
            warm_connections,
            warm_ms_max,
        ],
    ),
    (&[Kind::Simulator], fields![profile, first_token_ms, tokens_per_second]),
];

impl EndpointConfig {
    /// The fields that not every backend has, by those that have them.
    pub fn fields_of_some() -> impl Iterator<Item = (&'static [Kind], Vec<&'static str>)> {
        OWN.into_iter().map(|(kinds, fields)| (kinds, fields.iter().map(|(field, _)| *field).collect()))
    }

    pub(super) fn has_no_field_of_others(&self) -> Result<(), Error> {
        let others = OWN.iter().filter(|(kinds, _)| !kinds.contains(&self.backend));
        match others.flat_map(|(_, fields)| fields.iter()).find(|(_, is_set)| is_set(self)) {
            Some((field, _)) => Err(self.error(field, Problem::NotForBackend { backend: self.backend.name() })),
            None => Ok(()),
        }
    }
}
