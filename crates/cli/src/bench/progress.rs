//! How far a bench is: what runs now and about how long it will go on, on standard error. It knows the names of all steps
//! beforehand, and learns from each round what they take.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// The steps of all rounds, in their order.
#[derive(Debug, Default)]
pub struct Progress {
    steps: Vec<String>,
    done: usize,
    took: BTreeMap<String, Duration>,
}

impl Progress {
    /// One more step, at the end.
    pub fn plan(&mut self, names: [&str; 3]) {
        self.steps.push(names.join("  "));
    }

    /// Says that the next step begins; it must be ended with what this returns.
    #[must_use]
    pub fn begin(&self, names: [&str; 3]) -> Instant {
        let (step, steps) = (self.done + 1, self.steps.len());
        let left = self.left().map_or_else(String::new, |left| format!("  {} left", human(left)));
        // Progress that cannot be shown is no reason to stop.
        let _ = writeln!(io::stderr(), "[{step}/{steps}{left}]  {}", names.join("  "));
        Instant::now()
    }

    pub fn end(&mut self, names: [&str; 3], began: Instant) {
        self.done += 1;
        self.took.insert(names.join("  "), began.elapsed());
    }

    /// What is left took in an earlier round what it takes now; what was never run takes what others take. `None` before
    /// anything has.
    fn left(&self) -> Option<Duration> {
        let count = u32::try_from(self.took.len()).ok().filter(|count| *count > 0)?;
        let mean = self.took.values().sum::<Duration>() / count;
        let left = self.steps.iter().skip(self.done);
        Some(left.map(|step| self.took.get(step).copied().unwrap_or(mean)).sum())
    }
}

fn human(left: Duration) -> String {
    match left.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_what_it_took_before_or_what_others_take() {
        let mut progress = Progress::default();
        for name in ["a", "b", "c", "a", "b", "c"] {
            progress.plan([name; 3]);
        }
        assert_eq!(progress.left(), None);
        progress.took = [("a  a  a", 10), ("b  b  b", 20)].map(|(s, n)| (s.to_owned(), Duration::from_secs(n))).into();
        progress.done = 2;
        assert_eq!(progress.left(), Some(Duration::from_secs(15 + 10 + 20 + 15)));
        assert_eq!((human(Duration::from_secs(99)), human(Duration::from_secs(100))), ("99 s".into(), "2 min".into()));
    }
}
