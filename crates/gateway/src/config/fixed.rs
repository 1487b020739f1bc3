//! What only a restart changes: it was bound, opened or built with the start's values. Knows nothing of how the rest is changed.

use super::File;

/// A field or a whole part by its path, and what leaves it as it is in the file that runs; true where it would have been another.
type Fixed = (&'static str, fn(&File, &mut File) -> bool);

macro_rules! fixed {
    ($($($field:ident).+),+ $(,)?) => {
        [$((stringify!($($field).+), |running, next| keep_one(&running.$($field).+, &mut next.$($field).+))),+]
    };
}

/// How many paths are fixed.
pub const PATHS: usize = 13;
/// Fixed whatever stands in them.
const FIXED: [Fixed; PATHS] = fixed![
    server.listen,
    server.admin_listen,
    server.limits.connections_max,
    server.limits.memory_bytes_max,
    server.limits.assembling_bytes_max,
    server.limits.background_turns_max,
    server.limits.children_bytes_max,
    server.limits.children_ms_max,
    session.recognised_bytes_max,
    session.recognised_bytes_per_key_max,
    store,
    telemetry,
    runtime,
];

/// Leaves what is fixed of another config as it is in the one that runs. Tells those parts that would have been others, by their paths.
pub fn keep(running: &File, next: &mut File) -> Vec<&'static str> {
    let mut kept: Vec<_> = FIXED.iter().filter(|(_, keep)| keep(running, next)).map(|(path, _)| *path).collect();
    // Whether TLS is spoken at all.
    let (old, new) = (&running.server, &mut next.server);
    for (path, old, new) in
        [("server.tls", &old.tls, &mut new.tls), ("server.admin.tls", &old.admin.tls, &mut new.admin.tls)]
    {
        if old.is_some() != new.is_some() && keep_one(old, new) {
            kept.push(path);
        }
    }
    // A random key stays one.
    if (running.seal.is_random() || next.seal.is_random()) && keep_one(&running.seal, &mut next.seal) {
        kept.push("seal");
    }
    kept
}

/// Whether only a restart changes what is at this path, whatever it is.
pub fn is_fixed(path: &str) -> bool {
    FIXED.iter().any(|(fixed, _)| *fixed == path)
}

fn keep_one<T: Clone + PartialEq>(running: &T, next: &mut T) -> bool {
    let is_other = running != next;
    if is_other {
        next.clone_from(running);
    }
    is_other
}
