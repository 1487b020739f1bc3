//! How many clients the system's limit on open files has room for. Reads Linux' /proc; where there is none, nothing is cut. Knows nothing
//! of what the files are.

use std::fs;

/// A client's connection, and the one upstream that its turn may have.
const FILES_PER_CLIENT: u64 = 2;
/// For 64 operators and 16 of them who are leaving, 16 clients who are being refused, the store, listeners, names that are looked up, and connections that are kept warm: never for clients.
const FILES_RESERVED: u64 = 128;

/// At most so many clients as configured, and as there are files for; says so where these are fewer.
pub fn clients_max(configured: u32) -> u32 {
    let Some(files) = files_max() else { return configured };
    let clients = within(configured, files);
    if clients < configured {
        tracing::warn!(
            connections_max = clients,
            configured,
            files_max = files,
            "fewer connections than configured: the limit on open files has no room for them; raise it (ulimit -n, LimitNOFILE=)"
        );
    }
    clients
}

fn within(configured: u32, files: u64) -> u32 {
    let clients = files.saturating_sub(FILES_RESERVED.min(files / 2)) / FILES_PER_CLIENT;
    configured.min(u32::try_from(clients).unwrap_or(u32::MAX)).max(1)
}

/// The soft limit; None: there is none, or it cannot be told.
fn files_max() -> Option<u64> {
    soft_limit(&fs::read_to_string("/proc/self/limits").ok()?)
}

fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_files_for_operators() {
        assert_eq!(within(8192, 1_048_576), 8192);
        assert_eq!(within(8192, 1024), 448);
        assert_eq!(within(8192, 256), 64);
        assert_eq!(within(8192, 64), 16);
        assert_eq!(within(8192, 0), 1);
        assert_eq!(within(10, 1024), 10);
    }

    #[test]
    fn the_soft_limit_is_the_first_number() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(limits), Some(1024));
        assert_eq!(soft_limit(&limits.replace("1024  ", "unlimited")), None);
        assert!(files_max().is_some_and(|files| files > 0));
    }
}
