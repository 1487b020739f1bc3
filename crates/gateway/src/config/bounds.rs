//! The least that each limit of the file may be. Knows their names and numbers, and nothing of what they limit.

use super::File;
use toml::Value;

/// Limits of which 0 switches one thing off and leaves the rest. Of every other, 0 would let nothing through at all.
const ZERO_IS_OFF: [&str; 32] = [
    "routing.affinity_entries_max",
    "routing.affinity_turns_max",
    "routing.hedge_tokens_percent_max",
    "routing.outlier_factor",
    "routing.retries_per_second_max",
    "routing.retry_percent_max",
    "server.limits.background_turns_max",
    "server.limits.children_bytes_max",
    "server.limits.close_ms_max",
    "server.limits.connections_per_address_max",
    "server.limits.handshakes_per_second_max",
    "server.limits.handshakes_per_second_per_address_max",
    "server.limits.handshakes_waiting_max",
    "server.limits.handshakes_waiting_per_address_max",
    "server.limits.memory_bytes_max",
    "server.drain.busy_ms_max",
    "server.drain.idle_ms",
    "server.drain.listen_ms",
    "server.limits.ping_ms",
    "server.limits.request_bytes_per_second_min",
    "server.limits.request_grace_ms",
    "session.announce_after_ms",
    "session.children_max",
    "session.lanes_max",
    "session.queued_bytes_max",
    "session.queued_turns_max",
    "session.recognised_bytes_max",
    "session.recognised_bytes_per_key_max",
    "session.steers_max",
    "session.warm_ups_max",
    "telemetry.trace_sample_percent",
    "telemetry.turns_kept_max",
];
/// What the HTTP library needs to read a head at all.
const HEADER_BYTES_MIN: i64 = 8192;

/// The first limit that is too small: its path, and why.
pub fn too_small(file: &File) -> Option<(String, String)> {
    limits(file).into_iter().find_map(|(path, limit)| fault(&path, limit).map(|why| (path, why)))
}

/// Every limit of the file's parts by its path, as the file would have it with every default written out. Endpoints, models and the
/// tiers' terms have checks of their own.
fn limits(file: &File) -> Vec<(String, i64)> {
    let parts = [
        ("server", Value::try_from(&file.server)),
        ("session", Value::try_from(&file.session)),
        ("routing", Value::try_from(&file.routing)),
        ("seal", Value::try_from(&file.seal)),
        ("store", Value::try_from(&file.store)),
        ("telemetry", Value::try_from(&file.telemetry)),
    ];
    let mut limits = Vec::new();
    for (name, part) in parts {
        part.iter().for_each(|part| collect(name, part, &mut limits));
    }
    limits
}

fn collect(path: &str, value: &Value, limits: &mut Vec<(String, i64)>) {
    match value {
        Value::Table(fields) => {
            fields.iter().for_each(|(name, value)| collect(&format!("{path}.{name}"), value, limits));
        }
        Value::Integer(limit) => limits.push((path.to_owned(), *limit)),
        Value::String(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) => {}
    }
}

fn fault(path: &str, limit: i64) -> Option<String> {
    match least(path) {
        least if limit >= least => None,
        1 => Some("is 0, which would let nothing through: expected at least 1".to_owned()),
        least => Some(format!("is {limit}: expected at least {least}")),
    }
}

/// The least that the limit at this path may be.
pub fn least(path: &str) -> i64 {
    match path {
        "server.limits.header_bytes_max" => HEADER_BYTES_MIN,
        _ => i64::from(!ZERO_IS_OFF.contains(&path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_at_fault(text: &str) -> Option<String> {
        let file: File = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        Some(too_small(&file)?.0)
    }

    /// Every limit that the file can hold, by its path.
    fn paths() -> Vec<String> {
        let mut paths: Vec<_> = limits(&File::default()).into_iter().map(|(path, _)| path).collect();
        let of_store = ["bytes_max", "records_max", "age_ms_max", "file_bytes_max", "usage_age_ms_max"];
        let unsaid = ["server.limits.memory_bytes_max", "server.limits.connections_per_address_max"];
        paths.extend(unsaid.map(str::to_owned));
        paths.extend(of_store.map(|field| format!("store.{field}")));
        paths
    }

    #[test]
    fn zero_is_refused_wherever_it_switches_nothing_off() {
        for path in paths() {
            let (part, field) = path.rsplit_once('.').unwrap();
            let at_fault = limit_at_fault(&format!("[{part}]\n{field} = 0\n"));
            assert_eq!(at_fault.is_none(), ZERO_IS_OFF.contains(&path.as_str()), "{path}: {at_fault:?}");
        }
        assert!(ZERO_IS_OFF.iter().all(|path| paths().iter().any(|limit| limit == path)), "a name that is no field's");
        assert_eq!(
            limit_at_fault("[server.limits]\nheader_bytes_max = 8191\n").as_deref(),
            Some("server.limits.header_bytes_max")
        );
        assert_eq!(limit_at_fault("[seal]\ncontent_bytes_max = 0\n").as_deref(), Some("seal.content_bytes_max"));
        let tls = "[server.tls]\ncertificate_file = \"c\"\nkey_file = \"k\"\nhandshake_ms_max = 0\n";
        assert_eq!(limit_at_fault(tls).as_deref(), Some("server.tls.handshake_ms_max"));
    }
}
