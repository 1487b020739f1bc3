//! The shadow of a service's rate limits: what its `x-ratelimit-*` headers said last, less what was sent since. So a request that
//! the service would refuse need not be sent to it. Pure: time comes in as milliseconds of any steady clock.
//!
//! The service has the last word: each of its answers replaces what was reckoned here, and a bucket whose time has come is unknown,
//! which refuses nothing.

/// What a bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Requests,
    Tokens,
}

/// The three headers of one bucket.
struct Names {
    kind: Kind,
    limit: &'static str,
    remaining: &'static str,
    reset: &'static str,
}

macro_rules! names {
    ($kind:ident, $bucket:literal) => {
        Names {
            kind: Kind::$kind,
            limit: concat!("x-ratelimit-limit-", $bucket),
            remaining: concat!("x-ratelimit-remaining-", $bucket),
            reset: concat!("x-ratelimit-reset-", $bucket),
        }
    };
}

const BUCKETS: usize = 8;

/// Cerebras names the span of each bucket; Groq has two, unnamed: requests of a day and tokens of a minute.
const NAMES: [Names; BUCKETS] = [
    names!(Requests, "requests-minute"),
    names!(Requests, "requests-hour"),
    names!(Requests, "requests-day"),
    names!(Requests, "requests"),
    names!(Tokens, "tokens-minute"),
    names!(Tokens, "tokens-hour"),
    names!(Tokens, "tokens-day"),
    names!(Tokens, "tokens"),
];

/// One bucket, as an answer's headers tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The header that tells what is left.
    pub header: &'static str,
    /// Tokens; requests otherwise.
    pub is_tokens: bool,
    pub limit: Option<u64>,
    pub remaining: u64,
    pub reset_ms: u64,
}

/// The buckets that `header`, which finds a field by its name in lower case, tells of as the shadow reads them.
pub(crate) fn told<'a>(header: impl Fn(&'static str) -> Option<&'a [u8]>) -> Vec<Told> {
    let mut quota = Quota::default();
    quota.observe(header, 0);
    let known = quota.buckets.iter().zip(&NAMES).filter_map(|(bucket, names)| Some((bucket.as_ref()?, names)));
    let told = known.map(|(bucket, names)| Told {
        header: names.remaining,
        is_tokens: names.kind == Kind::Tokens,
        limit: bucket.limit,
        remaining: bucket.remaining,
        reset_ms: bucket.resets_at_ms,
    });
    told.collect()
}

/// Two days: what is further off is nonsense.
const RESET_MS_MAX: f64 = 2.0 * 86_400_000.0;

/// One model's limits at one service, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    /// As [`NAMES`].
    buckets: [Option<Bucket>; BUCKETS],
    /// A refusal told to wait until then, where no header said more.
    closed_until_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    limit: Option<u64>,
    remaining: u64,
    resets_at_ms: u64,
}

impl Quota {
    /// Takes an answer's headers; `header` finds one by its name in lower case.
    pub(crate) fn observe<'a>(&mut self, header: impl Fn(&'static str) -> Option<&'a [u8]>, now_ms: u64) {
        for (bucket, names) in self.buckets.iter_mut().zip(&NAMES) {
            let Some(remaining) = header(names.remaining).and_then(count) else { continue };
            let Some(reset_ms) = header(names.reset).and_then(milliseconds) else { continue };
            let limit = header(names.limit).and_then(count);
            *bucket = Some(Bucket { limit, remaining, resets_at_ms: now_ms.saturating_add(reset_ms) });
        }
    }

    /// A request of so many tokens, prompt and answer together, would be refused now: in how many milliseconds it would not be.
    ///
    /// A full bucket refuses nothing: whether a request is larger than all of it, only the service can tell.
    pub(crate) fn would_exceed(&self, tokens: u64, now_ms: u64) -> Option<u64> {
        let closed_ms = self.closed_until_ms.saturating_sub(now_ms);
        let waits = self.buckets.iter().zip(&NAMES).filter_map(|(bucket, names)| {
            let bucket = bucket.filter(|bucket| now_ms < bucket.resets_at_ms)?;
            let is_full = bucket.limit.is_some_and(|limit| bucket.remaining >= limit);
            let lacks = bucket.remaining < names.kind.of(tokens) && !is_full;
            lacks.then(|| bucket.resets_at_ms - now_ms)
        });
        waits.chain((closed_ms > 0).then_some(closed_ms)).max()
    }

    /// Such a request goes out.
    pub(crate) fn spend(&mut self, tokens: u64) {
        for (bucket, names) in self.buckets.iter_mut().zip(&NAMES) {
            if let Some(bucket) = bucket {
                bucket.remaining = bucket.remaining.saturating_sub(names.kind.of(tokens));
            }
        }
    }

    /// The service refused a request for its limits, and takes none for so long.
    pub(crate) fn close(&mut self, wait_ms: u64, now_ms: u64) {
        self.closed_until_ms = self.closed_until_ms.max(now_ms.saturating_add(wait_ms));
    }
}

impl Kind {
    /// What a request of so many tokens takes from a bucket of this kind.
    fn of(self, tokens: u64) -> u64 {
        match self {
            Self::Requests => 1,
            Self::Tokens => tokens,
        }
    }
}

fn count(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// Seconds with or without a fraction (`26.5`), or Go's way of writing a duration (`2m59.56s`).
fn milliseconds(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let ms = match text.parse::<f64>() {
        Ok(seconds) => seconds * 1000.0,
        Err(_) => units(text)?,
    };
    (0.0..=RESET_MS_MAX).contains(&ms).then_some(ms.ceil() as u64)
}

fn units(text: &str) -> Option<f64> {
    let (mut rest, mut ms) = (text, 0.0);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, tail) = rest.split_at(unit_at);
        let next_at = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(next_at);
        let ms_each = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            "ms" => 1.0,
            _ => return None,
        };
        ms += number.parse::<f64>().ok()? * ms_each;
        rest = next;
    }
    Some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(headers: &[(&str, &str)], now_ms: u64) -> Quota {
        let mut quota = Quota::default();
        observe(&mut quota, headers, now_ms);
        quota
    }

    fn observe(quota: &mut Quota, headers: &[(&str, &str)], now_ms: u64) {
        let find = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes());
        quota.observe(find, now_ms);
    }

    fn tokens_minute(remaining: &'static str, reset: &'static str) -> [(&'static str, &'static str); 3] {
        [
            ("x-ratelimit-limit-tokens-minute", "60000"),
            ("x-ratelimit-remaining-tokens-minute", remaining),
            ("x-ratelimit-reset-tokens-minute", reset),
        ]
    }

    #[test]
    fn what_is_not_known_refuses_nothing() {
        assert_eq!(Quota::default().would_exceed(u64::MAX, 0), None);
        // A bucket without its reset would refuse for ever.
        let quota = observed(&[("x-ratelimit-remaining-requests-day", "0")], 0);
        assert_eq!(quota.would_exceed(1, 0), None);
    }

    #[test]
    fn a_request_waits_for_the_bucket_that_lacks_it_and_no_longer() {
        let quota = observed(&tokens_minute("1000", "26.5"), 10_000);
        assert_eq!(quota.would_exceed(1000, 10_000), None);
        assert_eq!(quota.would_exceed(1001, 10_000), Some(26_500));
        assert_eq!(quota.would_exceed(1001, 36_499), Some(1));
        assert_eq!(quota.would_exceed(1001, 36_500), None, "its time has come");
    }

    #[test]
    fn of_several_buckets_the_longest_wait_counts() {
        let mut quota = observed(&tokens_minute("10", "5"), 0);
        let day = [("x-ratelimit-remaining-requests-day", "0"), ("x-ratelimit-reset-requests-day", "33011.382867")];
        observe(&mut quota, &day, 0);
        assert_eq!(quota.would_exceed(11, 0), Some(33_011_383));
    }

    #[test]
    fn what_was_sent_since_is_spent_until_the_service_says_otherwise() {
        let mut quota = observed(&tokens_minute("1000", "60"), 0);
        quota.spend(700);
        assert_eq!(quota.would_exceed(301, 1), Some(59_999));
        assert_eq!(quota.would_exceed(300, 1), None);
        observe(&mut quota, &tokens_minute("800", "59"), 1000);
        assert_eq!(quota.would_exceed(800, 1000), None);
    }

    #[test]
    fn a_full_bucket_leaves_it_to_the_service() {
        let quota = observed(&tokens_minute("60000", "60"), 0);
        assert_eq!(quota.would_exceed(60_001, 0), None);
    }

    #[test]
    fn a_refusal_closes_it_for_its_time() {
        let mut quota = Quota::default();
        quota.close(2000, 500);
        assert_eq!(quota.would_exceed(1, 500), Some(2000));
        assert_eq!(quota.would_exceed(1, 2500), None);
    }

    #[test]
    fn groqs_names_and_durations_are_read_too() {
        let headers = [("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "2m59.56s")];
        assert_eq!(observed(&headers, 0).would_exceed(1, 0), Some(179_560));
        for (text, ms) in [("7.66s", 7660), ("1h2m3s", 3_723_000), ("120ms", 120), ("0", 0), ("0.0001", 1)] {
            assert_eq!(milliseconds(text.as_bytes()), Some(ms), "{text}");
        }
        for nonsense in ["", "s", "-1", "soon", "1x", "1e300", "inf", "2m x"] {
            assert_eq!(milliseconds(nonsense.as_bytes()).filter(|ms| *ms > 0), None, "{nonsense}");
        }
    }
}
