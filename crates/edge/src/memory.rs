//! What is kept away while memory runs short, before the system ends the process: first new sessions, then turns of the throughput
//! tier, then new connections altogether. What runs goes on. A stage is left only five points below where it began, so that it does not
//! flap. Reads files of Linux; elsewhere the machine's memory is not known, and there is no stage unless the config says what to hold to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How often it is looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Percent of the most, below the stage's own, at which it is left.
const SLACK_PERCENT: u64 = 5;

/// Each keeps away what those before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Calm,
    /// No new session.
    NoSessions,
    /// And no turn of the throughput tier.
    Shedding,
    /// And no connection is accepted.
    Closed,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Calm, Self::NoSessions, Self::Shedding, Self::Closed];

    pub(crate) fn refuses_sessions(self) -> bool {
        self >= Self::NoSessions
    }

    pub(crate) fn sheds_throughput(self) -> bool {
        self >= Self::Shedding
    }

    /// From how many percent on.
    const fn percent(self) -> u64 {
        match self {
            Self::Calm => 0,
            Self::NoSessions => 80,
            Self::Shedding => 90,
            Self::Closed => 95,
        }
    }

    /// What follows it at so many of the most bytes.
    fn next(self, used: u64, most: u64) -> Self {
        let reached = |percent: u64| u128::from(used) * 100 >= u128::from(most) * u128::from(percent);
        let held = |stage: &Self| {
            let slack = if *stage <= self { SLACK_PERCENT } else { 0 };
            reached(stage.percent().saturating_sub(slack))
        };
        Self::ALL.into_iter().rev().find(held).unwrap_or(Self::Calm)
    }
}

/// Looked at by one task, asked by all: a load each time.
#[derive(Debug)]
pub(crate) struct Memory {
    /// None: there is nothing to hold to.
    bytes_max: Option<u64>,
    used: AtomicU64,
    stage: AtomicU8,
    changed: Notify,
}

impl Memory {
    /// `bytes_max` as the config has it: None is what the system allows, 0 is off.
    pub(crate) fn new(bytes_max: Option<u64>) -> Self {
        let bytes_max = bytes_max.map_or_else(allowed, Some).filter(|&bytes| bytes > 0);
        Self { bytes_max, used: AtomicU64::new(0), stage: AtomicU8::new(0), changed: Notify::new() }
    }

    pub(crate) fn stage(&self) -> Stage {
        let number = usize::from(self.stage.load(Ordering::Relaxed));
        Stage::ALL.get(number).copied().unwrap_or(Stage::Calm)
    }

    pub(crate) fn bytes_max(&self) -> Option<u64> {
        self.bytes_max
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Ends only by being dropped, or where there is nothing to look at.
    pub(crate) async fn watch(&self) {
        if self.bytes_max.is_none() {
            return;
        }
        loop {
            // Without /proc it stays as it is.
            if let Some(used) = resident() {
                self.saw(used);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn saw(&self, used: u64) {
        let Some(most) = self.bytes_max else { return };
        self.used.store(used, Ordering::Relaxed);
        let (before, after) = (self.stage(), self.stage().next(used, most));
        if before == after {
            return;
        }
        self.stage.store(after as u8, Ordering::Relaxed);
        self.changed.notify_waiters();
        if after > before {
            tracing::warn!(stage = ?after, used_bytes = used, bytes_max = most, "memory runs short");
        } else {
            tracing::info!(stage = ?after, used_bytes = used, bytes_max = most, "memory is freed");
        }
    }

    /// Waits until connections may be accepted.
    pub(crate) async fn accepts(&self) {
        loop {
            let changed = self.changed.notified();
            if self.stage() < Stage::Closed {
                return;
            }
            changed.await;
        }
    }
}

/// What this process holds in memory now.
fn resident() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The least of what the control groups that this process is in allow, and the machine has.
fn allowed() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kibibytes(&text, "MemTotal:"));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group_files(&groups).into_iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    limits.chain(machine).min()
}

/// Files that may hold a limit in bytes; `max`, where there is none, is no number.
fn group_files(groups: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut files = vec![root.join("memory/memory.limit_in_bytes")];
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    files.extend(Path::new(own).ancestors().map(|group| root.join(group).join("memory.max")));
    files
}

fn kibibytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_begins_at_its_percent_and_is_left_five_below() {
        let mut stage = Stage::Calm;
        let mut seen = Vec::new();
        for percent in [79, 80, 79, 76, 75, 74, 80, 89, 90, 86, 85, 84, 95, 94, 91, 90, 89, 84, 74, 100, 0] {
            stage = stage.next(percent, 100);
            seen.push(stage as u8);
        }
        assert_eq!(seen, [0, 1, 1, 1, 1, 0, 1, 1, 2, 2, 2, 1, 3, 3, 3, 3, 2, 1, 0, 3, 0]);
    }

    #[test]
    fn what_is_closed_opens_when_memory_is_freed() {
        let memory = Memory::new(Some(1000));
        memory.saw(960);
        assert_eq!((memory.stage(), memory.used_bytes()), (Stage::Closed, 960));
        let mut accepts = std::pin::pin!(memory.accepts());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(accepts.as_mut().poll(&mut cx).is_pending());
        memory.saw(930);
        assert!(accepts.as_mut().poll(&mut cx).is_pending());
        memory.saw(899);
        assert!(accepts.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn zero_switches_it_off_and_nothing_is_what_the_system_allows() {
        assert_eq!(Memory::new(Some(0)).bytes_max(), None);
        assert_eq!(Memory::new(None).bytes_max(), allowed());
    }

    #[test]
    fn the_systems_files_are_read() {
        assert_eq!(kibibytes("Name:\tx\nVmRSS:\t    1234 kB\n", "VmRSS:"), Some(1234 * 1024));
        assert_eq!(kibibytes("VmRSS:\t1234\n", "VmRSS:"), None);
        let files = group_files("0::/system.slice/flashlane.service\n");
        let named = |name: &str| files.iter().any(|file| file == Path::new(name));
        assert!(named("/sys/fs/cgroup/system.slice/flashlane.service/memory.max"));
        assert!(named("/sys/fs/cgroup/system.slice/memory.max") && named("/sys/fs/cgroup/memory.max"));
    }
}
