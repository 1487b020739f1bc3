//! Of the process itself: what it is, its memory, descriptors, time and tasks. Read from `/proc` by a scrape, under the names that all of
//! Prometheus' clients give them; where there is no `/proc`, they are absent or 0.

use super::Metrics;
use super::family::{gauges, lift, registered, set};
use prometheus::{Counter, IntCounter, IntGauge, Registry};
use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the kernel counts a second of processor time in, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(super) struct Process {
    resident: IntGauge,
    cpu: Counter,
    descriptors: IntGauge,
    descriptors_max: IntGauge,
    threads: IntGauge,
    tasks: IntGauge,
    workers: IntGauge,
    busy: Counter,
    queued: IntGauge,
    parks: IntCounter,
    build: OnceLock<()>,
}

/// What was built.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    pub version: &'static str,
    pub commit: &'static str,
    pub rustc: &'static str,
    pub profile: &'static str,
    pub target: &'static str,
}

/// The runtime's own account.
#[derive(Debug, Clone, Copy, Default)]
pub struct Runtime {
    pub tasks: usize,
    pub workers: usize,
    /// Of all workers together, since the start.
    pub busy: Duration,
    /// Tasks that are ready and that no worker has taken yet.
    pub queued: usize,
    /// Times that workers had nothing to do.
    pub parks: u64,
}

impl Process {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::new(name, help)?);
        let started = gauge("process_start_time_seconds", "When the process began, in seconds since the Unix epoch")?;
        set(&started, SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
        let busy = Counter::new("flashlane_runtime_busy_seconds_total", "Time that worker threads were not waiting")?;
        let parks = IntCounter::new("flashlane_runtime_parks_total", "Times that a worker thread had nothing to do")?;
        let cpu = Counter::new("process_cpu_seconds_total", "Processor time of the process, user and system")?;
        Ok(Self {
            resident: gauge("process_resident_memory_bytes", "Memory of the process that is resident")?,
            descriptors: gauge("process_open_fds", "File descriptors that are open")?,
            descriptors_max: gauge("process_max_fds", "File descriptors that may be open")?,
            threads: gauge("process_threads", "Threads of the process")?,
            tasks: gauge("flashlane_runtime_tasks", "Tasks that live now: connections, and what serves them")?,
            workers: gauge("flashlane_runtime_workers", "Threads that run tasks")?,
            queued: gauge("flashlane_runtime_tasks_ready", "Tasks that are ready and that no worker has taken yet")?,
            busy: registered(registry, busy)?,
            parks: registered(registry, parks)?,
            cpu: registered(registry, cpu)?,
            build: OnceLock::new(),
        })
    }

    /// What `/proc` says now.
    pub(super) fn look(&self) {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let status = read("status");
        let limits = read("limits");
        let stat = read("stat");
        for (gauge, value) in [
            (&self.resident, number_after(&status, "VmRSS:").map(|kib| kib.saturating_mul(1024))),
            (&self.threads, number_after(&status, "Threads:")),
            (&self.descriptors_max, number_after(&limits, "Max open files")),
            (&self.descriptors, fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64)),
        ] {
            value.iter().for_each(|value| set(gauge, *value));
        }
        let cpu = ticks(&stat).unwrap_or(0) as f64 / TICKS_PER_SECOND;
        self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
    }
}

impl Metrics {
    /// Says once what was built.
    ///
    /// # Errors
    /// When it was said before under another name: our own mistake.
    pub fn build(&self, build: &Build) -> Result<(), prometheus::Error> {
        if self.process.build.set(()).is_err() {
            return Ok(());
        }
        let labels = ["version", "commit", "rustc", "profile", "target"];
        let family = gauges(&self.registry, "flashlane_build_info", "1, and what was built in its labels", &labels)?;
        let Build { version, commit, rustc, profile, target } = *build;
        family.with_label_values(&[version, commit, rustc, profile, target]).set(1);
        Ok(())
    }

    /// How the runtime stands.
    pub fn runtime(&self, runtime: &Runtime) {
        let process = &self.process;
        for (gauge, count) in
            [(&process.tasks, runtime.tasks), (&process.workers, runtime.workers), (&process.queued, runtime.queued)]
        {
            set(gauge, count as u64);
        }
        lift(&process.parks, runtime.parks);
        process.busy.inc_by((runtime.busy.as_secs_f64() - process.busy.get()).max(0.0));
    }
}

/// The first number behind a word at a line's start.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time of `/proc/self/stat`: the 12th and 13th word behind the command's name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, words) = stat.rsplit_once(')')?;
    let mut words = words.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_what_the_kernel_writes() {
        let status = "Name:\tflashlane\nVmRSS:\t   12340 kB\nThreads:\t4\n";
        assert_eq!((number_after(status, "VmRSS:"), number_after(status, "Threads:")), (Some(12_340), Some(4)));
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files            20000   524288    files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(20_000));
        assert_eq!(number_after("Max open files unlimited", "Max open files"), None);
        let stat = "4242 (a ) name) S 1 4242 4242 0 -1 4194560 900 0 0 0 73 21 0 0 20 0 4 0 12345 1 2";
        assert_eq!(ticks(stat), Some(94));
    }
}
