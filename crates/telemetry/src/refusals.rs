//! Log lines of clients that were refused, for their key, for the bytes of their request, or since there are too many: where from and why,
//! never what was sent. So many in a while at most, whoever calls, so that nobody fills a disk by being refused.

use crate::label::{Excess, Flaw, KeyFault};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SECOND_NS: u64 = 1_000_000_000;
/// For a key, and for a request's bytes.
const SOME: Pace = Pace { lines_max: 5, period_ns: SECOND_NS };
/// A limit that is reached is one piece of news for a while.
const RARE: Pace = Pace { lines_max: 1, period_ns: 10 * SECOND_NS };

#[derive(Debug, Clone, Copy)]
struct Pace {
    lines_max: u32,
    period_ns: u64,
}

/// The lines of one process.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    keys: Lately,
    requests: Lately,
    excess: [Lately; Excess::ALL.len()],
}

#[derive(Debug, Default)]
struct Lately {
    since_ns: Option<u64>,
    lines: u32,
    left_out: u64,
}

impl Lately {
    /// How many were left out since the last line, where there may be another one now.
    fn pass(&mut self, pace: Pace, now_ns: u64) -> Option<u64> {
        if self.since_ns.is_none_or(|since_ns| now_ns.saturating_sub(since_ns) >= pace.period_ns) {
            (self.since_ns, self.lines) = (Some(now_ns), 0);
        }
        if self.lines >= pace.lines_max {
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
        let Some(left_out) = self.all().keys.pass(SOME, now_ns) else { return };
        let (from, left_out) = (from.map(tracing::field::display), more(left_out));
        tracing::warn!(from, reason = %fault.name(), request = %request_id, left_out, "key refused");
    }

    /// A request was refused before any route. None: it was not answered, or by its own route, with an id of its own.
    pub fn unreadable(&self, flaw: Flaw, from: IpAddr, request_id: Option<&str>, now_ns: u64) {
        let Some(left_out) = self.all().requests.pass(SOME, now_ns) else { return };
        let (request, left_out) = (request_id.map(tracing::field::display), more(left_out));
        tracing::warn!(%from, reason = %flaw.name(), request, left_out, "request refused, unread");
    }

    /// There was too much of something.
    pub fn exceeded(&self, excess: Excess, from: Option<IpAddr>, request_id: Option<&str>, now_ns: u64) {
        let Some(left_out) = self.lately(excess, now_ns) else { return };
        let from = from.map(tracing::field::display);
        let (request, left_out) = (request_id.map(tracing::field::display), more(left_out));
        let setting = excess.setting().map(tracing::field::display);
        tracing::warn!(reason = %excess.name(), setting, from, request, left_out, "a limit is reached, and clients are refused");
    }

    fn lately(&self, excess: Excess, now_ns: u64) -> Option<u64> {
        let number = Excess::ALL.iter().position(|other| *other == excess)?;
        self.all().excess.get_mut(number)?.pass(RARE, now_ns)
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn more(left_out: u64) -> Option<u64> {
    Some(left_out).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_has_some_lines_a_second_and_is_counted() {
        let mut lately = Lately::default();
        let passed = |lately: &mut Lately, times: usize, at_ns| {
            (0..times).filter_map(|_| lately.pass(SOME, at_ns)).collect::<Vec<_>>()
        };
        assert_eq!(passed(&mut lately, 1_000, 7 * SECOND_NS), [0, 0, 0, 0, 0]);
        assert!(passed(&mut lately, 5, 8 * SECOND_NS - 1).is_empty());
        assert_eq!(passed(&mut lately, 2, 8 * SECOND_NS), [1_000, 0]);
    }

    #[test]
    fn each_limit_has_one_line_in_ten_seconds() {
        let refusals = Refusals::default();
        let passed = |excess, at_s: u64| refusals.lately(excess, at_s * SECOND_NS);
        assert_eq!([passed(Excess::Connections, 0), passed(Excess::Operators, 0)], [Some(0); 2]);
        assert_eq!([passed(Excess::Connections, 1), passed(Excess::Connections, 9)], [None; 2]);
        assert_eq!(passed(Excess::Connections, 10), Some(2));
    }
}
