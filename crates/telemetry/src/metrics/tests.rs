//! The families by what a scrape shows of them.

use super::*;
use crate::label::{Closer, Reload, Transport};
use crate::{attempted, outcome};
use flashlane_engine::admission::Standing;
use flashlane_engine::router::{Cause, Standing as Health};
use flashlane_engine::{ErrorKind, HedgeCost, HedgeEnd, Outcome, Status, Tier};

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
        "flashlane_gateway_token_overhead_seconds_bucket{tier=\"latency\",le=\"0.000005\"} 1",
        "flashlane_itl_seconds_bucket{tier=\"latency\",le=\"0.00005\"} 0",
        "flashlane_itl_seconds_bucket{tier=\"latency\",le=\"0.0001\"} 2",
        "flashlane_itl_seconds_bucket{tier=\"latency\",le=\"+Inf\"} 3",
        "flashlane_itl_seconds_sum{tier=\"latency\"} 0.00112",
        "flashlane_itl_seconds_count{tier=\"throughput\"} 0",
        "flashlane_empty_completions_total{tier=\"latency\"} 0",
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
    assert!(text.contains("flashlane_errors_total{kind=\"overloaded\"} 0"), "{text}");
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
fn a_second_endpoint_is_counted_by_what_became_of_it_and_what_it_took() {
    let metrics = Metrics::new().unwrap();
    for (end, tokens) in [(HedgeEnd::Won, 40), (HedgeEnd::Lost, 50), (HedgeEnd::Won, 7), (HedgeEnd::Unstarted, 0)] {
        metrics.turn_done(&Outcome { hedge: Some(HedgeCost { end, tokens }), ..outcome() });
    }
    let text = render(&metrics);
    for (outcome, count) in [("won", 2), ("lost", 1), ("unstarted", 1), ("took_over", 0)] {
        let line = format!("flashlane_hedges_total{{outcome=\"{outcome}\"}} {count}");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    assert!(text.contains("flashlane_hedge_tokens_total 97"), "{text}");
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
fn a_turn_that_completes_without_a_token_is_empty() {
    let metrics = Metrics::new().unwrap();
    metrics.turn_done(&Outcome { deltas: 0, ..outcome() });
    metrics.turn_done(&Outcome { deltas: 0, status: Status::Cancelled, ..outcome() });
    let text = render(&metrics);
    assert!(text.contains("flashlane_empty_completions_total{tier=\"latency\"} 1"), "{text}");
    assert!(text.contains("flashlane_gateway_token_overhead_seconds_count{tier=\"latency\"} 0"), "{text}");
}

#[test]
fn an_endpoint_is_in_one_state_and_what_it_told_is_not_kept_when_it_is_old() {
    let metrics = Metrics::new().unwrap();
    let mut upstream = Upstream { health: Health::Out { until_ns: 1 }, running_told: Some(3), ..Upstream::default() };
    let text = metrics.render([("gpu", upstream)], []).unwrap();
    for line in [
        "flashlane_endpoint_health{endpoint=\"gpu\",health=\"in\"} 0",
        "flashlane_endpoint_health{endpoint=\"gpu\",health=\"out\"} 1",
        "flashlane_upstream_running_told{endpoint=\"gpu\"} 3",
        "flashlane_endpoint_outs_total{cause=\"slowness\",endpoint=\"gpu\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    metrics.endpoint_out("gpu", Cause::Slowness);
    (upstream.health, upstream.running_told) = (Health::In, None);
    let text = metrics.render([("gpu", upstream)], []).unwrap();
    assert!(text.contains("flashlane_endpoint_health{endpoint=\"gpu\",health=\"in\"} 1"), "{text}");
    assert!(text.contains("flashlane_endpoint_outs_total{cause=\"slowness\",endpoint=\"gpu\"} 1"), "{text}");
    assert!(!text.contains("flashlane_upstream_running_told{"), "{text}");
}

#[test]
fn a_websocket_ends_once_with_a_code_that_is_known_or_other() {
    let metrics = Metrics::new().unwrap();
    metrics.websocket_closed(Closer::Client, Some(1000), 1);
    metrics.websocket_closed(Closer::Client, Some(4321), 3);
    metrics.websocket_closed(Closer::Nobody, None, 1);
    let text = render(&metrics);
    for line in [
        "flashlane_websockets_closed_total{by=\"client\",code=\"1000\"} 1",
        "flashlane_websockets_closed_total{by=\"client\",code=\"other\"} 1",
        "flashlane_websockets_closed_total{by=\"nobody\",code=\"none\"} 1",
        "flashlane_websocket_lanes_bucket{le=\"1\"} 2",
        "flashlane_websocket_lanes_sum 5",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_process_tells_of_itself_and_of_what_was_built() {
    let metrics = Metrics::new().unwrap();
    let build = Build { version: "0.1.0", commit: "abc", rustc: "1.95.0", profile: "ci", target: "x" };
    // Said twice, it is said once.
    metrics.build(&build).unwrap();
    metrics.build(&build).unwrap();
    metrics.runtime(&Runtime { tasks: 7, workers: 2, parks: 3, ..Runtime::default() });
    let text = render(&metrics);
    for line in [
        "flashlane_build_info{commit=\"abc\",profile=\"ci\",rustc=\"1.95.0\",target=\"x\",version=\"0.1.0\"} 1",
        "flashlane_runtime_tasks 7",
        "flashlane_runtime_parks_total 3",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_open_fds") > 2.0 && value("process_open_fds") < value("process_max_fds"));
    assert!(value("process_start_time_seconds") > 1.7e9 && value("process_threads") >= 1.0);
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

#[test]
fn an_endpoint_that_is_gone_has_no_rows() {
    let metrics = Metrics::new().unwrap();
    metrics.endpoint_ordered("gpu");
    metrics.render([("gpu", Upstream::default()), ("other", Upstream::default())], []).unwrap();
    metrics.endpoint_gone("gpu");
    metrics.endpoint_gone("never-there");
    let text = metrics.render([("other", Upstream::default())], []).unwrap();
    assert!(!text.contains("\"gpu\"") && text.contains("\"other\""), "{text}");
}

#[test]
fn a_reload_is_counted_by_what_came_of_it() {
    let metrics = Metrics::new().unwrap();
    metrics.config_holds(3, 1_700_000_000_123);
    metrics.config_reloaded(Reload::Refused);
    metrics.certificate_expires("clients", 1_900_000_000);
    let text = render(&metrics);
    for line in [
        "flashlane_config_generation 3",
        "flashlane_config_read_timestamp_seconds 1700000000",
        "flashlane_config_reloads_total{outcome=\"adopted\"} 0",
        "flashlane_config_reloads_total{outcome=\"refused\"} 1",
        "flashlane_certificate_expiry_seconds{certificate=\"clients\"} 1900000000",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
