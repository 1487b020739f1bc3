//! The families by what a scrape shows of them.

use super::*;
use crate::label::Transport;
use crate::{attempted, outcome};
use flashlane_engine::admission::Standing;
use flashlane_engine::{ErrorKind, Outcome, Tier};

fn render(metrics: &Metrics) -> String {
    metrics.render([], []).unwrap()
}

#[test]
fn a_turn_enters_every_family_of_its_tier_once() {
    let metrics = Metrics::new().unwrap();
    metrics.turn_done(&outcome());
    let text = render(&metrics);
    for line in [
        "flashlane_turns_total{outcome=\"completed\",tier=\"latency\"} 1",
        "flashlane_ttft_seconds_sum{tier=\"latency\"} 0.002",
        "flashlane_turn_seconds_sum{tier=\"latency\"} 0.012",
        "flashlane_gateway_overhead_seconds_bucket{tier=\"latency\",le=\"0.00005\"} 1",
        "flashlane_output_token_seconds_sum{tier=\"latency\"} 0.001",
        "flashlane_input_tokens_total{tier=\"latency\"} 100",
        "flashlane_cached_tokens_total{tier=\"latency\"} 60",
        "flashlane_output_tokens_total{tier=\"latency\"} 11",
        "flashlane_deltas_total{tier=\"latency\"} 9",
        "flashlane_queue_wait_seconds_sum{tier=\"latency\"} 0.25",
        "flashlane_turn_stage_seconds_count{stage=\"upstream_ttft\",tier=\"latency\"} 1",
        "flashlane_routes_total{attempt=\"first\",origin=\"sub-agent\",pick=\"affinity\",plan=\"model-route\",tier=\"latency\"} 1",
        "flashlane_upstream_phase_seconds_sum{phase=\"queue\",tier=\"latency\"} 0.0005",
        "flashlane_upstream_phase_seconds_sum{phase=\"completion\",tier=\"latency\"} 0.009",
        "flashlane_turns_total{outcome=\"completed\",tier=\"latency\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("flashlane_errors_total{"), "{text}");
}

#[test]
fn an_endpoint_that_failed_a_turn_is_counted_even_when_another_served_it() {
    let metrics = Metrics::new().unwrap();
    let attempts = vec![attempted(Some("silent for 7 ms")), attempted(Some("answered 500")), attempted(None)];
    metrics.turn_done(&Outcome { attempts, ..outcome() });
    let text = render(&metrics);
    assert!(text.contains("flashlane_upstream_attempts_failed_total{endpoint=\"wafer-1\"} 2"), "{text}");
}

#[test]
fn an_endpoint_that_has_not_failed_yet_is_there_at_zero() {
    let metrics = Metrics::new().unwrap();
    let text = metrics.render([("gpu", Upstream::default())], []).unwrap();
    assert!(text.contains("flashlane_upstream_attempts_failed_total{endpoint=\"gpu\"} 0"), "{text}");
}

#[test]
fn a_turn_without_a_token_has_no_ttft() {
    let metrics = Metrics::new().unwrap();
    let error = Some(ErrorKind::Overloaded);
    metrics.turn_done(&Outcome { tier: None, ttft_ns: None, error, ..outcome() });
    let text = render(&metrics);
    assert!(text.contains("flashlane_ttft_seconds_count{tier=\"none\"} 0"), "{text}");
    assert!(text.contains("flashlane_turn_seconds_count{tier=\"none\"} 1"), "{text}");
    assert!(text.contains("flashlane_errors_total{kind=\"overloaded\"} 1"), "{text}");
}

#[test]
fn an_endpoints_counters_follow_what_it_tells() {
    let metrics = Metrics::new().unwrap();
    let mut upstream = Upstream { connections_opened: 2, turns_in_flight: 1, ..Upstream::default() };
    metrics.render([("gpu", upstream)], []).unwrap();
    (upstream.connections_opened, upstream.turns_in_flight) = (5, 0);
    let text = metrics.render([("gpu", upstream)], []).unwrap();
    assert!(text.contains("flashlane_upstream_connections_opened_total{endpoint=\"gpu\"} 5"), "{text}");
    assert!(text.contains("flashlane_upstream_turns_in_flight{endpoint=\"gpu\"} 0"), "{text}");
}

#[test]
fn a_gates_gauges_and_counters_follow_what_it_tells() {
    let metrics = Metrics::new().unwrap();
    let mut standing = Standing { queued: 3, slots: Some(8), spilled: 2, changes: 1, ..Standing::default() };
    standing.refused[1] = 5;
    metrics.render([], [(Tier::Latency, standing.clone())]).unwrap();
    (standing.queued, standing.spilled) = (0, 7);
    let text = metrics.render([], [(Tier::Latency, standing)]).unwrap();
    for line in [
        "flashlane_queue_turns_waiting{tier=\"latency\"} 0",
        "flashlane_tier_slots{tier=\"latency\"} 8",
        "flashlane_spills_total{tier=\"latency\"} 7",
        "flashlane_limit_changes_total{tier=\"latency\"} 1",
        "flashlane_refusals_total{reason=\"tokens\",tier=\"latency\"} 5",
        "flashlane_refusals_total{reason=\"queue_full\",tier=\"latency\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_connection_counts_until_it_is_dropped() {
    let metrics = Metrics::new().unwrap();
    let connection = metrics.connection(Transport::WebSocket);
    assert!(render(&metrics).contains("flashlane_connections_open{transport=\"websocket\"} 1"));
    drop(connection);
    assert!(render(&metrics).contains("flashlane_connections_open{transport=\"websocket\"} 0"));
}
