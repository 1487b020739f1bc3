//! Moments and spans as people write them. Knows no clock.

use crate::calendar;
use std::ops::Range;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;
const EXPECTED: &str = "expected a span before now such as 7d, 24h or 90m, or a day such as 2026-11-01";

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Milliseconds before now.
    Before(u64),
    /// Milliseconds since 1970.
    At(u64),
}

/// # Errors
/// What was expected.
pub fn parse(text: &str) -> Result<When, &'static str> {
    if let Some(unix_s) = calendar::day(text) {
        return Ok(When::At(u64::try_from(unix_s).unwrap_or(0) * 1000));
    }
    let unit_at = text.len().saturating_sub(1);
    let (number, unit_ms) = match text.split_at_checked(unit_at) {
        Some((number, "m")) => (number, MINUTE_MS),
        Some((number, "h")) => (number, 60 * MINUTE_MS),
        Some((number, "d")) => (number, DAY_MS),
        Some(_) | None => return Err(EXPECTED),
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|_| is_number).ok_or(EXPECTED)?;
    Ok(When::Before(number.checked_mul(unit_ms).ok_or(EXPECTED)?))
}

/// Nothing lies between the two moments.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--since is {since}, and --until {until} UTC: expected an earlier --since")]
pub struct Empty {
    since: String,
    until: String,
}

/// From one moment up to another, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    since: u64,
    until: u64,
}

impl Span {
    /// # Errors
    /// [`Empty`].
    pub fn new(since: When, until: Option<When>, now_unix_ms: u64) -> Result<Self, Empty> {
        let at = |when| match when {
            When::Before(ms) => now_unix_ms.saturating_sub(ms),
            When::At(unix_ms) => unix_ms,
        };
        let span = Self { since: at(since), until: until.map_or(now_unix_ms, at) };
        match span.since < span.until {
            true => Ok(span),
            false => Err(Empty { since: minute(span.since), until: minute(span.until) }),
        }
    }

    pub fn whole(self) -> Range<u64> {
        self.since..self.until
    }

    /// The days of it, the first and the last as far as they are in it.
    pub fn days(self) -> Vec<Range<u64>> {
        let first = self.since / DAY_MS;
        let last = self.until.saturating_sub(1) / DAY_MS;
        (first..=last).map(|day| (day * DAY_MS).max(self.since)..((day + 1) * DAY_MS).min(self.until)).collect()
    }

    /// `2026-11-16 02:40` and the same of its end.
    pub fn told(self) -> (String, String) {
        (minute(self.since), minute(self.until))
    }
}

/// `2026-11-22`.
pub fn date(unix_ms: u64) -> String {
    calendar::date(i64::try_from(unix_ms / 1000).unwrap_or(0))
}

fn minute(unix_ms: u64) -> String {
    let minutes = unix_ms % DAY_MS / MINUTE_MS;
    format!("{} {:02}:{:02}", date(unix_ms), minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_span_before_now_or_a_day() {
        for (text, when) in [
            ("7d", When::Before(7 * DAY_MS)),
            ("24h", When::Before(DAY_MS)),
            ("90m", When::Before(90 * MINUTE_MS)),
            ("0d", When::Before(0)),
            ("1970-01-02", When::At(DAY_MS)),
        ] {
            assert_eq!(parse(text), Ok(when), "{text}");
        }
        for text in
            ["", "7", "d", "-7d", "+7d", "7w", "7 d", "1.5d", "2026-02-30", "yesterday", "99999999999999999999d", "7é"]
        {
            assert_eq!(parse(text), Err(EXPECTED), "{text}");
        }
    }

    #[test]
    fn a_span_ends_after_it_begins() {
        let now = 10 * DAY_MS;
        let span = Span::new(When::Before(DAY_MS), None, now).unwrap();
        assert_eq!((span.whole(), span.told().0.as_str()), (9 * DAY_MS..now, "1970-01-10 00:00"));
        let error = Span::new(When::At(now), Some(When::Before(1)), now).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--since is 1970-01-11 00:00, and --until 1970-01-10 23:59 UTC: expected an earlier --since"
        );
        assert!(Span::new(When::Before(0), None, now).is_err());
    }

    #[test]
    fn days_are_cut_where_the_span_is() {
        let days = |since, until| Span { since, until }.days();
        assert_eq!(days(DAY_MS + 5, DAY_MS + 9).first(), Some(&(DAY_MS + 5..DAY_MS + 9)));
        assert_eq!(days(5, 2 * DAY_MS), [5..DAY_MS, DAY_MS..2 * DAY_MS]);
        assert_eq!(days(DAY_MS, 2 * DAY_MS + 1), [DAY_MS..2 * DAY_MS, 2 * DAY_MS..2 * DAY_MS + 1]);
    }
}
