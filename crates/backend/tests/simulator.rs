//! The simulated endpoint, in its own time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail this way")]

mod rig;

use bytes::Bytes;
use flashlane_backend::{Backends, EndpointConfig, Kind, ProfileName, Tier};
use flashlane_engine::{Ended, EndpointId, UpstreamFailure};
use rig::{ONLY, backends, request, run, run_until};
use tokio::time::Instant;

fn simulator(tier: Tier) -> EndpointConfig {
    EndpointConfig::new("simulated", tier, Kind::Simulator)
}

/// Milliseconds to the first byte, and to the end.
async fn times(config: EndpointConfig) -> (u128, u128) {
    let backends = backends(config);
    let start = Instant::now();
    let mut first = None;
    run_until(&mut backends.open(ONLY, request()), |ran| {
        if !ran.bytes.is_empty() {
            first.get_or_insert_with(|| start.elapsed().as_millis());
        }
        false
    })
    .await;
    (first.unwrap(), start.elapsed().as_millis())
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_opened_played_and_ended() {
    let backends = backends(simulator(Tier::Latency));
    let ran = run(&backends).await;
    assert_eq!((ran.opened, ran.ended), (1, Some(Ended::Complete)));
    let text = String::from_utf8(ran.bytes).unwrap();
    assert!(text.starts_with("data: {") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(text.contains("flashlane-simulator"), "it does not say so");
    assert_ne!(run(&backends).await.bytes, text.into_bytes(), "two turns have one id");
}

#[tokio::test(start_paused = true)]
async fn the_profile_follows_the_tier_and_the_overrides() {
    let (wafer, _) = times(simulator(Tier::Latency)).await;
    assert!((30..=32).contains(&wafer), "{wafer}");
    let (gpu, _) = times(simulator(Tier::Throughput)).await;
    assert!((250..=252).contains(&gpu), "{gpu}");
    let (gpu, _) = times(EndpointConfig { profile: Some(ProfileName::Gpu), ..simulator(Tier::Latency) }).await;
    assert!((250..=252).contains(&gpu), "{gpu}");
    let own = EndpointConfig { first_token_ms: Some(5), tokens_per_second: Some(0), ..simulator(Tier::Latency) };
    let (first, end) = times(own).await;
    assert!((5..=7).contains(&first) && end <= first + 1, "{first} {end}");
}

#[tokio::test]
async fn what_an_engine_would_refuse_is_refused() {
    let backends = Backends::new(&[simulator(Tier::Latency)]).unwrap();
    let mut wrong = request();
    wrong.messages = vec![Bytes::from_static(b"17")];
    let failure = run_until(&mut backends.open(EndpointId(0), wrong), |_| false).await.failure();
    let UpstreamFailure::Refused { status: 400, body, .. } = failure else { panic!("{failure:?}") };
    assert!(body.starts_with(br#"{"error":"#));
}
