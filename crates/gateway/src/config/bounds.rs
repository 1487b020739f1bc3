//! The least that each limit of the file may be. Knows their names and numbers, and nothing of what they limit.

use super::File;
use serde::Serialize;
use toml::Value;

/// Limits of which 0 switches one thing off and leaves the rest. Of every other, 0 would let nothing through at all.
const ZERO_IS_OFF: [&str; 21] = [
    "queue.latency.turns_max",
    "queue.latency.wait_ms_max",
    "queue.throughput.turns_max",
    "queue.throughput.wait_ms_max",
    "routing.affinity_entries_max",
    "routing.affinity_turns_max",
    "routing.outlier_factor",
    "routing.retries_per_second_max",
    "routing.retry_percent_max",
    "server.background_turns_max",
    "server.close_ms_max",
    "server.drain_ms_max",
    "server.ping_ms",
    "session.announce_after_ms",
    "session.lanes_max",
    "session.queued_bytes_max",
    "session.queued_turns_max",
    "session.recognised_bytes_max",
    "session.recognised_bytes_per_key_max",
    "session.steers_max",
    "session.warm_ups_max",
];
/// What the HTTP library needs to read a head at all.
const HEADER_BYTES_MIN: i64 = 8192;

/// The first limit that is too small: its path, and why.
pub fn too_small(file: &File) -> Option<(String, String)> {
    let parts = [
        ("server", written(&file.server)),
        ("session", written(&file.session)),
        ("routing", written(&file.routing)),
        ("limits", written(&file.limits)),
        ("queue", written(&file.queue)),
        ("store", written(&file.store)),
    ];
    parts.into_iter().find_map(|(name, part)| in_part(name, &part?))
}

/// A part by its fields' names, as the file would have it with every default written out.
fn written(part: &impl Serialize) -> Option<Value> {
    Value::try_from(part).ok()
}

fn in_part(path: &str, value: &Value) -> Option<(String, String)> {
    match value {
        Value::Table(fields) => fields.iter().find_map(|(name, value)| in_part(&format!("{path}.{name}"), value)),
        Value::Integer(limit) => Some((path.to_owned(), fault(path, *limit)?)),
        Value::String(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) => None,
    }
}

fn fault(path: &str, limit: i64) -> Option<String> {
    match path {
        "server.header_bytes_max" if limit < HEADER_BYTES_MIN => {
            Some(format!("is {limit}: expected at least {HEADER_BYTES_MIN}"))
        }
        _ if limit == 0 && !ZERO_IS_OFF.contains(&path) => {
            Some("is 0, which would let nothing through: expected at least 1".to_owned())
        }
        _ => None,
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
    fn limits() -> Vec<String> {
        let file = File::default();
        let mut paths = Vec::new();
        let parts = [
            ("server", written(&file.server)),
            ("session", written(&file.session)),
            ("routing", written(&file.routing)),
            ("limits", written(&file.limits)),
            ("queue", written(&file.queue)),
        ];
        for (name, part) in parts {
            collect(name, &part.unwrap(), &mut paths);
        }
        // Their type refuses it.
        paths.retain(|path| !path.ends_with(".concurrency_min"));
        let of_store = ["bytes_max", "records_max", "age_ms_max", "file_bytes_max", "usage_age_ms_max"];
        paths.extend(of_store.map(|field| format!("store.{field}")));
        paths
    }

    fn collect(path: &str, value: &Value, paths: &mut Vec<String>) {
        match value {
            Value::Integer(_) => paths.push(path.to_owned()),
            Value::Table(fields) => {
                fields.iter().for_each(|(name, value)| collect(&format!("{path}.{name}"), value, paths));
            }
            Value::String(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) => {}
        }
    }

    #[test]
    fn zero_is_refused_wherever_it_switches_nothing_off() {
        for path in limits() {
            let (part, field) = path.rsplit_once('.').unwrap();
            let at_fault = limit_at_fault(&format!("[{part}]\n{field} = 0\n"));
            assert_eq!(at_fault.is_none(), ZERO_IS_OFF.contains(&path.as_str()), "{path}: {at_fault:?}");
        }
        assert!(ZERO_IS_OFF.iter().all(|path| limits().iter().any(|limit| limit == path)), "a name that is no field's");
        assert_eq!(limit_at_fault("[server]\nheader_bytes_max = 8191\n").as_deref(), Some("server.header_bytes_max"));
        let tls = "[server.tls]\ncertificate_file = \"c\"\nkey_file = \"k\"\nhandshake_ms_max = 0\n";
        assert_eq!(limit_at_fault(tls).as_deref(), Some("server.tls.handshake_ms_max"));
    }
}
