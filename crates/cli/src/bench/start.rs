//! What a gateway takes before anybody speaks to it: the time until it is ready (this binary's own, started anew in each
//! round), its memory, and the processor time of idling.

use super::child::Serve;
use super::process::Process;
use super::report::{Report, Sample};
use super::{Bench, Error};
use std::thread;
use std::time::{Duration, Instant};

const SETTLE: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(3);

/// This binary, and every gateway whose process is known, after the few turns that it has had.
///
/// # Errors
/// When this binary does not start.
pub fn round(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let name = "start: until ready, and then nothing to do";
    bench.step(report, [name, "this binary", "started anew"], || {
        let serve = Serve::start(bench.upstream.address)?;
        let mut sample = Sample::default();
        sample.push("ready_ms", serve.ready_after.as_secs_f64() * 1e3);
        Ok(idle(Process(Some(serve.pid())), sample))
    })?;
    for subject in &bench.subjects {
        let Some(process) = subject.aims.first().map(|aim| aim.process).filter(|process| process.0.is_some()) else {
            continue;
        };
        bench.step(report, [name, &subject.name, "running"], || Ok(idle(process, Sample::default())))?;
    }
    Ok(())
}

fn idle(process: Process, mut sample: Sample) -> Option<Sample> {
    thread::sleep(SETTLE);
    sample.push("rss_mib", process.rss_kib()? as f64 / 1024.0);
    let (before_ns, began) = (process.cpu_ns()?, Instant::now());
    thread::sleep(IDLE);
    let cpu_ns = process.cpu_ns()?.saturating_sub(before_ns);
    sample.push("idle_cpu_us_per_s", cpu_ns as f64 / 1e3 / began.elapsed().as_secs_f64());
    Some(sample)
}
