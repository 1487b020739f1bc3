//! The one list of metrics, the log lines, and the last turns as records. It counts what others decided and knows no protocol and no socket.

mod config;
pub mod label;
pub mod log;
pub mod metrics;
pub mod otlp;
pub mod panics;
mod refusals;
pub mod turns;

pub use config::{Format, TelemetryConfig};
pub use metrics::Metrics;
pub use refusals::Refusals;
pub use turns::{TurnRecord, Turns};

/// A request of such a turn that was sent 1 ms after its arrival and took 3 ms.
#[cfg(test)]
fn attempted(failure: Option<&str>) -> flashlane_engine::Attempted {
    flashlane_engine::Attempted {
        endpoint: "wafer-1".into(),
        model: "demo-large".into(),
        decision: outcome().decision.unwrap(),
        began_ns: 1_001_000_000,
        ended_ns: Some(1_004_000_000),
        failure: failure.map(Into::into),
        is_outrun: false,
    }
}

/// A turn that went well, for the tests.
#[cfg(test)]
fn outcome() -> flashlane_engine::Outcome {
    flashlane_engine::Outcome {
        response_id: "resp_1".to_owned(),
        model: "demo".into(),
        status: flashlane_engine::Status::Completed,
        error: None,
        tier: Some(flashlane_engine::Tier::Latency),
        endpoint: Some("wafer-1".into()),
        child: None,
        decision: Some(flashlane_engine::router::Decision {
            tier: flashlane_engine::Tier::Latency,
            endpoint: flashlane_engine::EndpointId(0),
            plan: flashlane_engine::router::PlanReason::ModelRoute,
            pick: flashlane_engine::router::PickReason::Affinity,
            attempt: flashlane_engine::router::Attempt::First,
            queued_ms: 250,
        }),
        simulated: true,
        usage: flashlane_engine::Usage { input: 100, cached: 60, output: 11, reasoning: 0 },
        upstream_times: flashlane_engine::UpstreamTimes {
            queue_ns: Some(500_000),
            prompt_ns: Some(1_000_000),
            completion_ns: Some(9_000_000),
            total_ns: Some(11_000_000),
        },
        began_ns: 1_000_000_000,
        ttft_ns: Some(2_000_000),
        total_ns: 12_000_000,
        parts: flashlane_engine::Parts::default(),
        steps: Vec::new(),
        gateway_ns: 40_000,
        origin: flashlane_engine::router::Origin {
            subagent: true,
            parent: Some(flashlane_engine::router::SessionKey(0xa1)),
            ..flashlane_engine::router::Origin::default()
        },
        session: Some(flashlane_engine::router::SessionKey(0x51)),
        deltas: 9,
        gaps: [1_000_000, 60_000, 60_000].into_iter().fold(flashlane_engine::Gaps::default(), |mut gaps, ns| {
            gaps.add(ns);
            gaps
        }),
        read_ahead: flashlane_engine::ReadAhead::default(),
        place: None,
        attempts: Vec::new(),
        hedge: None,
        splices: Vec::new(),
        hosted_tools: std::collections::BTreeSet::new(),
        guard: None,
        trace: None,
    }
}
