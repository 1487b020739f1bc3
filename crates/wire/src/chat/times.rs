//! Where a request's time went, as its engine tells it beside the usage: four ways to say it, read leniently. Knows no clock of ours.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Nanoseconds; `None` is what the engine did not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UpstreamTimes {
    /// Before anyone looked at it.
    pub queue_ns: Option<u64>,
    /// Reading the prompt.
    pub prompt_ns: Option<u64>,
    /// Generating.
    pub completion_ns: Option<u64>,
    /// All of it, from the request's arrival there.
    pub total_ns: Option<u64>,
}

impl UpstreamTimes {
    /// What both tell; of a time told twice, the later.
    #[must_use]
    pub fn or(self, earlier: Self) -> Self {
        Self {
            queue_ns: self.queue_ns.or(earlier.queue_ns),
            prompt_ns: self.prompt_ns.or(earlier.prompt_ns),
            completion_ns: self.completion_ns.or(earlier.completion_ns),
            total_ns: self.total_ns.or(earlier.total_ns),
        }
    }

    /// `time_info` (Cerebras), or the same names inside of `usage` (Groq): seconds.
    pub(super) fn of_seconds(raw: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Shape {
            queue_time: Option<f64>,
            prompt_time: Option<f64>,
            completion_time: Option<f64>,
            total_time: Option<f64>,
            /// SambaNova's name for it.
            total_latency: Option<f64>,
        }
        let Ok(shape) = serde_json::from_str::<Shape>(raw.get()) else { return Self::default() };
        Self {
            queue_ns: ns(shape.queue_time, NS_PER_S),
            prompt_ns: ns(shape.prompt_time, NS_PER_S),
            completion_ns: ns(shape.completion_time, NS_PER_S),
            total_ns: ns(shape.total_time.or(shape.total_latency), NS_PER_S),
        }
    }

    /// `metrics` (vLLM) or `timings` (llama.cpp): milliseconds.
    pub(super) fn of_milliseconds(raw: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Shape {
            queue_time_ms: Option<f64>,
            prompt_ms: Option<f64>,
            generation_time_ms: Option<f64>,
            predicted_ms: Option<f64>,
        }
        let Ok(shape) = serde_json::from_str::<Shape>(raw.get()) else { return Self::default() };
        Self {
            queue_ns: ns(shape.queue_time_ms, NS_PER_MS),
            prompt_ns: ns(shape.prompt_ms, NS_PER_MS),
            completion_ns: ns(shape.generation_time_ms.or(shape.predicted_ms), NS_PER_MS),
            total_ns: None,
        }
    }
}

const NS_PER_S: f64 = 1e9;
const NS_PER_MS: f64 = 1e6;
/// A day: what tells more tells nonsense.
const NS_MAX: f64 = 86_400.0 * NS_PER_S;

fn ns(told: Option<f64>, ns_each: f64) -> Option<u64> {
    let ns = told? * ns_each;
    (0.0..=NS_MAX).contains(&ns).then_some(ns as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn seconds_and_milliseconds_become_nanoseconds() {
        let times = UpstreamTimes::of_seconds(raw(
            r#"{"queue_time":0.0015,"prompt_time":2e-6,"completion_time":1,"total_time":1.25,"created":1793000000}"#,
        ));
        let told = (times.queue_ns, times.prompt_ns, times.completion_ns, times.total_ns);
        assert_eq!(told, (Some(1_500_000), Some(2_000), Some(1_000_000_000), Some(1_250_000_000)));
        let times = UpstreamTimes::of_milliseconds(raw(r#"{"queue_time_ms":1.5,"prompt_ms":2,"predicted_ms":3}"#));
        assert_eq!(
            (times.queue_ns, times.prompt_ns, times.completion_ns),
            (Some(1_500_000), Some(2_000_000), Some(3_000_000))
        );
    }

    #[test]
    fn nonsense_tells_nothing_and_spoils_nothing() {
        for text in ["null", "[]", r#"{"queue_time":"soon"}"#, r#"{"queue_time":-1}"#, r#"{"queue_time":1e99}"#] {
            assert_eq!(UpstreamTimes::of_seconds(raw(text)), UpstreamTimes::default(), "{text}");
        }
    }

    #[test]
    fn a_later_word_completes_an_earlier_one() {
        let earlier = UpstreamTimes { queue_ns: Some(1), prompt_ns: Some(2), ..UpstreamTimes::default() };
        let later = UpstreamTimes { prompt_ns: Some(3), ..UpstreamTimes::default() };
        assert_eq!(
            later.or(earlier),
            UpstreamTimes { queue_ns: Some(1), prompt_ns: Some(3), ..UpstreamTimes::default() }
        );
    }
}
