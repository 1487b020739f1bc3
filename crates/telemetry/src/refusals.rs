//! Log lines of callers that were refused for their key: where from and why, never what was sent. So many in a second at most, whoever
//! calls, so that nobody fills a disk by guessing keys.

use crate::label::KeyFault;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

const LINES_PER_SECOND_MAX: u32 = 5;
const SECOND_NS: u64 = 1_000_000_000;

/// The lines of one process.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Lately>);

#[derive(Debug, Default)]
struct Lately {
    since_ns: u64,
    lines: u32,
    left_out: u64,
}

impl Lately {
    /// How many were left out since the last line, where there may be another one now.
    fn pass(&mut self, now_ns: u64) -> Option<u64> {
        if now_ns.saturating_sub(self.since_ns) >= SECOND_NS {
            (self.since_ns, self.lines) = (now_ns, 0);
        }
        if self.lines >= LINES_PER_SECOND_MAX {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Refusals {
    /// A caller was refused. `request_id` is the `x-request-id` of the answer.
    pub fn refused(&self, fault: KeyFault, from: Option<IpAddr>, request_id: &str, now_ns: u64) {
        let Some(left_out) = self.0.lock().unwrap_or_else(PoisonError::into_inner).pass(now_ns) else { return };
        let (from, left_out) = (from.map(tracing::field::display), Some(left_out).filter(|count| *count > 0));
        tracing::warn!(from, reason = %fault.name(), request = %request_id, left_out, "key refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_has_some_lines_a_second_and_is_counted() {
        let mut lately = Lately::default();
        let passed = |lately: &mut Lately, times: usize, at_ns| {
            (0..times).filter_map(|_| lately.pass(at_ns)).collect::<Vec<_>>()
        };
        assert_eq!(passed(&mut lately, 1_000, 7 * SECOND_NS), [0, 0, 0, 0, 0]);
        assert!(passed(&mut lately, 5, 8 * SECOND_NS - 1).is_empty());
        assert_eq!(passed(&mut lately, 2, 8 * SECOND_NS), [1_000, 0]);
    }
}
