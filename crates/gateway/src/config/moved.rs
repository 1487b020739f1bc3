//! Fields that older configs have at another place, so that whoever upgrades is told where each is now. Knows their names alone.

/// The old path, and the new one.
const MOVED: [(&str, &str); 13] = [
    ("server.background_turns_max", "server.limits.background_turns_max"),
    ("server.close_ms_max", "server.limits.close_ms_max"),
    ("server.connections_max", "server.limits.connections_max"),
    ("server.drain_ms_max", "server.drain.busy_ms_max"),
    ("server.header_bytes_max", "server.limits.header_bytes_max"),
    ("server.header_ms_max", "server.limits.header_ms_max"),
    ("server.http2_streams_max", "server.limits.http2_streams_max"),
    ("server.message_bytes_max", "server.limits.message_bytes_max"),
    ("server.outgoing_bytes_high", "server.limits.outgoing_bytes_high"),
    ("server.ping_ms", "server.limits.ping_ms"),
    ("server.pings_per_second_max", "server.limits.pings_per_second_max"),
    ("server.request_bytes_max", "server.limits.request_bytes_max"),
    ("server.request_ms_max", "server.limits.request_ms_max"),
];

/// How the field that once was at `path` is written now, as `ping_ms` under `[server.limits]`.
pub fn place(path: &str) -> Option<String> {
    let (_, new) = MOVED.into_iter().find(|(old, _)| *old == path)?;
    let (part, name) = new.rsplit_once('.')?;
    Some(format!("`{name}` under `[{part}]`"))
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::*;

    #[test]
    fn what_has_moved_is_where_it_is_said_to_be() {
        for (old, new) in MOVED {
            let (part, name) = new.rsplit_once('.').unwrap();
            let error = toml::from_str::<File>(&format!("[{part}]\n{name} = \"x\"\n")).err().unwrap();
            assert!(!error.message().contains("unknown field"), "{old}: {error}");
        }
        assert_eq!(place("server.ping_ms").as_deref(), Some("`ping_ms` under `[server.limits]`"));
        assert_eq!(place("server.drain_ms_max").as_deref(), Some("`busy_ms_max` under `[server.drain]`"));
        assert_eq!(place("server.listen"), None);
    }
}
