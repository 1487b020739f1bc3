//! What a client can measure of a turn, and the one line that is shown after it. Knows no clock: times are passed in.

use super::event::{Ended, Timing};
use std::fmt::Write as _;
use std::time::Duration;

/// In the order of a turn.
const STAGES: [&str; 8] = ["receive", "validate", "queue", "route", "connect", "upstream_ttft", "stream", "gateway"];

/// The times of one turn, each since its request was sent.
#[derive(Debug, Default)]
pub struct Stopwatch {
    first: Option<Duration>,
    last: Duration,
    deltas: u64,
}

impl Stopwatch {
    /// A piece of the answer was read.
    pub fn delta(&mut self, at: Duration) {
        self.first.get_or_insert(at);
        self.last = at;
        self.deltas += 1;
    }

    /// `latency tier (simulated) | TTFT 31 ms | 1,498 tokens/s | gateway 0.08 ms in all, 0.53 µs a token`; what a server does not tell is measured
    /// here, or left out.
    #[must_use]
    pub fn line(&self, ended: &Ended, timing: Option<&Timing>) -> String {
        let mut parts = Vec::new();
        match timing.and_then(|t| t.tier.as_deref().map(|tier| (tier, t.simulated))) {
            Some((tier, true)) => parts.push(format!("{tier} tier (simulated)")),
            Some((tier, false)) => parts.push(format!("{tier} tier")),
            None => parts.extend(ended.service_tier.as_ref().map(|tier| format!("service tier {tier}"))),
        }
        parts.extend(self.first.map(|first| format!("TTFT {} ms", short(first.as_secs_f64() * 1e3))));
        parts.extend(self.tokens_per_second(ended.output_tokens).map(|rate| format!("{} tokens/s", grouped(rate))));
        parts.extend(timing.and_then(|t| t.gateway_ms).map(|ms| gateway(ms, ended.output_tokens)));
        parts.join(" | ")
    }

    /// Tokens after the first, over the time after the first. Where they were not counted, as after an interrupt, there is
    /// about one a delta.
    fn tokens_per_second(&self, output_tokens: Option<u64>) -> Option<u64> {
        let counted = output_tokens.filter(|&tokens| tokens > 0);
        let tokens = counted.unwrap_or(self.deltas).checked_sub(1).filter(|&n| n > 0)?;
        let seconds = self.last.checked_sub(self.first?)?.as_secs_f64();
        // Under a millisecond the clock, not the server, would be shown.
        (seconds >= 1e-3).then(|| (tokens as f64 / seconds).round() as u64)
    }
}

/// `receive 0.01 | validate 0.13 | queue 0.00 | … | total 151 ms`; nothing where the server does not tell.
#[must_use]
pub fn stages(timing: &Timing) -> Option<String> {
    let part = |stage: &str| {
        let ms = timing.parts.get(&format!("{stage}_ms"))?;
        Some(format!("{} {}", stage.replace('_', " "), short(*ms)))
    };
    let parts: Vec<_> = STAGES.into_iter().filter_map(part).collect();
    let total = timing.total_ms.filter(|_| !parts.is_empty())?;
    Some(format!("{} | total {} ms", parts.join(" | "), short(total)))
}

/// A sum over the turn, and so no latency: a token's share of it is the nearest to one.
fn gateway(ms: f64, output_tokens: Option<u64>) -> String {
    match output_tokens.filter(|&tokens| tokens > 0) {
        Some(tokens) => format!("gateway {} ms in all, {} µs a token", short(ms), short(ms * 1e3 / tokens as f64)),
        None => format!("gateway {} ms in all", short(ms)),
    }
}

/// Three figures at most: `0.08`, `3.1`, `412`.
#[must_use]
pub fn short(value: f64) -> String {
    match value {
        v if v < 0.995 => format!("{v:.2}"),
        v if v < 99.5 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// `1,498`.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.char_indices() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        let _ = out.write_char(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::event::Status;
    use super::*;

    fn ended(output_tokens: Option<u64>, tier: Option<&str>) -> Ended {
        let service_tier = tier.map(str::to_owned);
        Ended { id: "r".to_owned(), status: Status::Completed, output_tokens, service_tier }
    }

    fn stopwatch(ms: &[u64]) -> Stopwatch {
        let mut stopwatch = Stopwatch::default();
        for &ms in ms {
            stopwatch.delta(Duration::from_millis(ms));
        }
        stopwatch
    }

    fn timing(parts: &[(&str, f64)]) -> Timing {
        Timing {
            tier: Some("latency".to_owned()),
            simulated: true,
            ttft_ms: Some(30.0),
            gateway_ms: Some(0.0789),
            total_ms: Some(151.4),
            parts: parts.iter().map(|(name, ms)| ((*name).to_owned(), *ms)).collect(),
        }
    }

    #[test]
    fn stages_are_shown_in_their_order_with_the_whole() {
        let parts = [("stream_ms", 120.0), ("upstream_ttft_ms", 31.21), ("validate_ms", 0.1)];
        let line = "validate 0.10 | upstream ttft 31.2 | stream 120 | total 151 ms";
        assert_eq!(stages(&timing(&parts)).as_deref(), Some(line));
        assert_eq!(stages(&timing(&[])), None);
    }

    #[test]
    fn a_gateways_timing_is_shown_and_what_is_simulated_says_so() {
        let timing = timing(&[]);
        assert_eq!(
            stopwatch(&[31, 80, 131]).line(&ended(Some(151), Some("priority")), Some(&timing)),
            "latency tier (simulated) | TTFT 31.0 ms | 1,500 tokens/s | gateway 0.08 ms in all, 0.52 µs a token"
        );
        let line = stopwatch(&[31]).line(&ended(None, None), Some(&timing));
        assert!(line.ends_with("| gateway 0.08 ms in all"), "{line}");
    }

    #[test]
    fn a_foreign_server_is_measured_here() {
        assert_eq!(
            stopwatch(&[412, 1412]).line(&ended(Some(66), Some("default")), None),
            "service tier default | TTFT 412 ms | 65 tokens/s"
        );
    }

    #[test]
    fn tokens_that_the_server_did_not_count_are_counted_by_deltas() {
        assert_eq!(stopwatch(&[100, 150, 200]).line(&ended(Some(0), None), None), "TTFT 100 ms | 20 tokens/s");
    }

    #[test]
    fn nothing_is_shown_that_was_not_measured() {
        assert_eq!(stopwatch(&[]).line(&ended(None, None), None), "");
        assert_eq!(stopwatch(&[5]).line(&ended(Some(1), None), None), "TTFT 5.0 ms");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.994, 0.996, 99.49, 99.6, 1234.5].map(short), ["0.00", "0.99", "1.0", "99.5", "100", "1234"]);
        assert_eq!([1, 999, 1000, 1_234_567].map(grouped), ["1", "999", "1,000", "1,234,567"]);
    }
}
