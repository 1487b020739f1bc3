//! How busy an engine says that it is: read from its Prometheus metrics, or from the load header of its answers. Knows no connection, and
//! decides nothing.

use crate::openai::dialect::Dialect;
use flashlane_engine::router::Load;
use serde::Deserialize;

/// The names of an engine's gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gauges {
    waiting: &'static str,
    running: &'static str,
    /// From 0 to 1; empty: the engine has none.
    kv_usage: &'static str,
}

/// The header that vLLM answers with where it was asked to (ORCA: Envoy's load reports).
pub(crate) const HEADER: &str = "endpoint-load-metrics";
/// The request header that asks for it, and its value.
pub(crate) const ASKED: (&str, &str) = ("endpoint-load-metrics-format", "TEXT");

impl Gauges {
    /// `None`: the engine's metrics are not known.
    pub(crate) fn of(dialect: Dialect) -> Option<Self> {
        match dialect {
            Dialect::Vllm => Some(Self {
                waiting: "vllm:num_requests_waiting",
                running: "vllm:num_requests_running",
                kv_usage: "vllm:kv_cache_usage_perc",
            }),
            Dialect::Sglang => Some(Self {
                waiting: "sglang:num_queue_reqs",
                running: "sglang:num_running_reqs",
                kv_usage: "sglang:token_usage",
            }),
            Dialect::LlamaCpp => Some(Self {
                waiting: "llamacpp:requests_deferred",
                running: "llamacpp:requests_processing",
                kv_usage: "",
            }),
            Dialect::Generic | Dialect::Cerebras | Dialect::Groq | Dialect::Sambanova | Dialect::Ollama => None,
        }
    }

    /// Reads Prometheus' text format. Of an engine with several ranks the requests are added, and the fullest cache counts.
    /// `None`: it tells neither who runs nor who waits.
    pub(crate) fn read(&self, text: &str) -> Option<Load> {
        let (mut waiting, mut running, mut kv_usage) = (None, None, None::<f32>);
        for line in text.lines() {
            let Some((name, value)) = sample(line).filter(|_| !is_of_one_priority(line)) else { continue };
            if name == self.waiting {
                waiting = Some(waiting.unwrap_or(0.0) + value);
            } else if name == self.running {
                running = Some(running.unwrap_or(0.0) + value);
            } else if name == self.kv_usage {
                kv_usage = Some(kv_usage.unwrap_or(0.0).max(share(value)));
            }
        }
        load(waiting, running, kv_usage)
    }
}

/// Reads the load header, as `TEXT a=1, b=2` or `JSON {...}`.
pub(crate) fn read_header(value: &[u8]) -> Option<Load> {
    #[derive(Deserialize)]
    struct Report {
        named_metrics: Named,
    }
    #[derive(Deserialize, Default)]
    struct Named {
        num_requests_waiting: Option<f64>,
        num_requests_running: Option<f64>,
        kv_cache_usage_perc: Option<f64>,
    }
    let text = std::str::from_utf8(value).ok()?.trim();
    let mut named = Named::default();
    if let Some(json) = text.strip_prefix("JSON ") {
        named = serde_json::from_str::<Report>(json).ok()?.named_metrics;
    } else {
        for (name, value) in text.strip_prefix("TEXT ")?.split(',').filter_map(|pair| pair.split_once('=')) {
            let value = value.trim().parse::<f64>().ok();
            match name.trim().trim_start_matches("named_metrics.") {
                "num_requests_waiting" => named.num_requests_waiting = value,
                "num_requests_running" => named.num_requests_running = value,
                "kv_cache_usage_perc" => named.kv_cache_usage_perc = value,
                _ => {}
            }
        }
    }
    // Who runs is not in it as vLLM sends it: by itself it would make a busy engine an idle one.
    named.num_requests_running?;
    load(named.num_requests_waiting, named.num_requests_running, named.kv_cache_usage_perc.map(share))
}

fn load(waiting: Option<f64>, running: Option<f64>, kv_usage: Option<f32>) -> Option<Load> {
    if waiting.is_none() && running.is_none() {
        return None;
    }
    Some(Load { waiting: count(waiting), running: count(running), kv_usage })
}

/// A sample's name without its labels, and its value.
fn sample(line: &str) -> Option<(&str, f64)> {
    let name_end = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
    let (name, rest) = line.split_at(name_end);
    // Labels may hold blanks; a value holds no brace.
    let values = rest.rsplit_once('}').map_or(rest, |(_, values)| values);
    let value: f64 = values.split_ascii_whitespace().next()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some((name, value))
}

/// Beside the sum of all, SGLang gives each priority a sample of its own.
fn is_of_one_priority(line: &str) -> bool {
    const LABEL: &str = "priority=\"";
    line.split_once(LABEL).is_some_and(|(_, value)| !value.starts_with('"'))
}

fn count(value: Option<f64>) -> u32 {
    // A cast of a float keeps to the bounds.
    value.unwrap_or(0.0).round() as u32
}

fn share(value: f64) -> f32 {
    value.clamp(0.0, 1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engines_gauges_are_read_among_others() {
        let vllm = "# HELP vllm:num_requests_running Number\n# TYPE vllm:num_requests_running gauge\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"a b} c\"} 3.0\n\
            vllm:num_requests_waiting{engine=\"0\"} 2.0 1793000000\n\
            vllm:num_requests_waiting{engine=\"1\"} 4\n\
            vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.5\n\
            vllm:num_requests_running_total 99\n";
        let read = |dialect, text| Gauges::of(dialect).unwrap().read(text);
        assert_eq!(read(Dialect::Vllm, vllm), Some(Load { waiting: 6, running: 3, kv_usage: Some(0.5) }));
        let sglang = "sglang:num_queue_reqs{model=\"m\"} 1\nsglang:num_running_reqs{model=\"m\"} 7.0\nsglang:token_usage{} 1.5\n";
        assert_eq!(read(Dialect::Sglang, sglang), Some(Load { waiting: 1, running: 7, kv_usage: Some(1.0) }));
        let llama = "llamacpp:requests_processing 4\nllamacpp:requests_deferred 0\n";
        assert_eq!(read(Dialect::LlamaCpp, llama), Some(Load { waiting: 0, running: 4, kv_usage: None }));
    }

    #[test]
    fn the_metrics_of_real_engines_with_one_request_under_way_say_so() {
        let recorded = [
            (Dialect::Vllm, include_str!("../../../proto/vllm/metrics.txt")),
            (Dialect::Sglang, include_str!("../../../proto/sglang/metrics.txt")),
        ];
        for (dialect, text) in recorded {
            let load = Gauges::of(dialect).unwrap().read(text).unwrap();
            assert_eq!((load.waiting, load.running), (0, 1), "{dialect:?}");
            assert!(load.kv_usage.is_some_and(|usage| usage < 0.1), "{dialect:?}: {load:?}");
        }
    }

    #[test]
    fn what_says_nothing_of_load_is_no_load() {
        let gauges = Gauges::of(Dialect::Vllm).unwrap();
        for text in [
            "",
            "<html>",
            "vllm:kv_cache_usage_perc 0.1\n",
            "vllm:num_requests_running NaN\n",
            "vllm:num_requests_running -1\n",
            "vllm:num_requests_running\n",
        ] {
            assert_eq!(gauges.read(text), None, "{text}");
        }
        assert_eq!(gauges.read("vllm:num_requests_running 1e300\n").unwrap().running, u32::MAX);
        assert_eq!(Gauges::of(Dialect::Ollama), None);
    }

    #[test]
    fn the_load_header_is_read_in_both_its_forms() {
        let load = Load { waiting: 2, running: 5, kv_usage: Some(0.5) };
        let text = b"TEXT named_metrics.kv_cache_usage_perc=0.5, named_metrics.num_requests_waiting=2, named_metrics.num_requests_running=5.0";
        assert_eq!(read_header(text), Some(load));
        let json =
            br#"JSON {"named_metrics":{"kv_cache_usage_perc":0.5,"num_requests_waiting":2,"num_requests_running":5}}"#;
        assert_eq!(read_header(json), Some(load));
        for half in [&b"TEXT named_metrics.num_requests_waiting=2"[..], b"TEXT", b"JSON {", b"BIN x", b"\xff"] {
            assert_eq!(read_header(half), None, "{half:?}");
        }
    }
}
