//! Fields that older configs have at another place, so that whoever upgrades is told where each is now. Knows their names alone.

/// The old path, and the part that the field is in now.
const MOVED: [(&str, &str); 12] = [
    ("server.background_turns_max", "server.limits"),
    ("server.close_ms_max", "server.limits"),
    ("server.connections_max", "server.limits"),
    ("server.header_bytes_max", "server.limits"),
    ("server.header_ms_max", "server.limits"),
    ("server.http2_streams_max", "server.limits"),
    ("server.message_bytes_max", "server.limits"),
    ("server.outgoing_bytes_high", "server.limits"),
    ("server.ping_ms", "server.limits"),
    ("server.pings_per_second_max", "server.limits"),
    ("server.request_bytes_max", "server.limits"),
    ("server.request_ms_max", "server.limits"),
];

/// How the field that once was at `path` is written now, as `ping_ms` under `[server.limits]`.
pub fn place(path: &str) -> Option<String> {
    let (_, part) = MOVED.into_iter().find(|(old, _)| *old == path)?;
    let (_, name) = path.rsplit_once('.')?;
    Some(format!("`{name}` under `[{part}]`"))
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::*;

    #[test]
    fn what_has_moved_is_where_it_is_said_to_be() {
        for (old, part) in MOVED {
            let (_, name) = old.rsplit_once('.').unwrap();
            let error = toml::from_str::<File>(&format!("[{part}]\n{name} = \"x\"\n")).err().unwrap();
            assert!(!error.message().contains("unknown field"), "{old}: {error}");
        }
        assert_eq!(place("server.ping_ms").as_deref(), Some("`ping_ms` under `[server.limits]`"));
        assert_eq!(place("server.listen"), None);
    }
}
