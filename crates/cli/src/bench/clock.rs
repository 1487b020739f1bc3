//! The one clock of a bench: upstream and client are threads of one process, so that a token's way through a gateway is
//! the difference of two readings. A stamp is a reading as text, the token that the upstream sends.

use std::thread;
use std::time::{Duration, Instant};

/// Before each stamp. It needs no escape in JSON, and no model here says it otherwise.
const MARK: u8 = b'~';
const DIGITS: usize = 13;
/// A stamp's bytes: 13 digits of nanoseconds last for two hours.
pub const STAMP_BYTES: usize = 1 + DIGITS;

/// Monotonic nanoseconds since the bench began.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    #[must_use]
    pub fn ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Sleeps until then; a moment that has passed is now.
    pub fn sleep_until(&self, ns: u64) {
        let left = ns.saturating_sub(self.ns());
        if left > 0 {
            thread::sleep(Duration::from_nanos(left));
        }
    }
}

/// The reading as a token.
#[must_use]
pub fn stamp(mut ns: u64) -> [u8; STAMP_BYTES] {
    let mut text = [MARK; STAMP_BYTES];
    for digit in text.iter_mut().skip(1).rev() {
        // A remainder of ten is one digit.
        *digit = b'0' + u8::try_from(ns % 10).unwrap_or_default();
        ns /= 10;
    }
    text
}

/// The readings in a text, in their order.
pub fn stamps(text: &[u8]) -> impl Iterator<Item = u64> {
    memchr::memchr_iter(MARK, text).filter_map(|at| {
        let digits = text.get(at + 1..at + STAMP_BYTES)?;
        digits.iter().try_fold(0, |ns, digit| digit.is_ascii_digit().then(|| ns * 10 + u64::from(digit - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_from_any_text() {
        let text = [b"{\"delta\":\"".as_slice(), &stamp(0), &stamp(1_234_567_890_123), b" ~12 ~\"}"].concat();
        assert_eq!(stamps(&text).collect::<Vec<_>>(), [0, 1_234_567_890_123]);
    }
}
