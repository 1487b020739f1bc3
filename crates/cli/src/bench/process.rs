//! What Linux tells of a process: the time its threads had on a processor, and its memory. Knows nothing of what it does.
//! Elsewhere, and of processes that are gone, it says nothing.

use std::fs;
use std::path::PathBuf;

/// A gateway's process, or none.
#[derive(Debug, Clone, Copy)]
pub struct Process(pub Option<u32>);

impl Process {
    /// Nanoseconds on a processor, of all threads that live, user and kernel together.
    #[must_use]
    pub fn cpu_ns(self) -> Option<u64> {
        let tasks = fs::read_dir(PathBuf::from(format!("/proc/{}/task", self.0?))).ok()?;
        let of_each = tasks.flatten().map(|task| {
            let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            schedstat.split_whitespace().next()?.parse::<u64>().ok()
        });
        Some(of_each.flatten().sum())
    }

    /// Resident memory, in KiB.
    #[must_use]
    pub fn rss_kib(self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
}

/// Nanoseconds on a processor of the thread that asks.
#[must_use]
pub fn own_thread_ns() -> Option<u64> {
    fs::read_to_string("/proc/thread-self/schedstat").ok()?.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_has_time_and_memory() {
        let own = Process(Some(std::process::id()));
        let before_ns = own.cpu_ns().unwrap();
        let work: Vec<u64> = (0..4_000_000).map(std::hint::black_box).collect();
        assert!(own.cpu_ns().unwrap() > before_ns && own.rss_kib().unwrap() > 30_000, "{}", work.len());
        assert_eq!((Process(None).cpu_ns(), Process(None).rss_kib()), (None, None));
    }
}
