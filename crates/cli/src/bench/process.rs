//! What Linux tells of a process: the time its threads had on a processor. Knows nothing of what it does.
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
}
