//! What only a restart changes: it was bound, opened or built with the start's values. Knows nothing of how the rest is changed.

use super::File;

/// Leaves these fields of another config as they are in the one that runs. Tells those that would have been others, by their paths.
pub fn keep(running: &File, next: &mut File) -> Vec<&'static str> {
    let mut kept = Vec::new();
    let (old, new) = (&running.server, &mut next.server);
    keep_one("server.listen", &old.listen, &mut new.listen, &mut kept);
    keep_one("server.admin_listen", &old.admin_listen, &mut new.admin_listen, &mut kept);
    let (old, new) = (&old.limits, &mut new.limits);
    keep_one("server.limits.connections_max", &old.connections_max, &mut new.connections_max, &mut kept);
    keep_one("server.limits.memory_bytes_max", &old.memory_bytes_max, &mut new.memory_bytes_max, &mut kept);
    let assembling = (&old.assembling_bytes_max, &mut new.assembling_bytes_max);
    keep_one("server.limits.assembling_bytes_max", assembling.0, assembling.1, &mut kept);
    let background = (&old.background_turns_max, &mut new.background_turns_max);
    keep_one("server.limits.background_turns_max", background.0, background.1, &mut kept);
    if running.server.tls.is_some() != next.server.tls.is_some() {
        keep_one("server.tls", &running.server.tls, &mut next.server.tls, &mut kept);
    }
    let (old, new) = (&running.session, &mut next.session);
    let recognised = (&old.recognised_bytes_max, &mut new.recognised_bytes_max);
    keep_one("session.recognised_bytes_max", recognised.0, recognised.1, &mut kept);
    let by_key = (&old.recognised_bytes_per_key_max, &mut new.recognised_bytes_per_key_max);
    keep_one("session.recognised_bytes_per_key_max", by_key.0, by_key.1, &mut kept);
    if running.seal.is_random() || next.seal.is_random() {
        keep_one("seal", &running.seal, &mut next.seal, &mut kept);
    }
    keep_one("store", &running.store, &mut next.store, &mut kept);
    keep_one("telemetry", &running.telemetry, &mut next.telemetry, &mut kept);
    keep_one("runtime", &running.runtime, &mut next.runtime, &mut kept);
    kept
}

fn keep_one<T: Clone + PartialEq>(path: &'static str, running: &T, next: &mut T, kept: &mut Vec<&'static str>) {
    if running != next {
        next.clone_from(running);
        kept.push(path);
    }
}
