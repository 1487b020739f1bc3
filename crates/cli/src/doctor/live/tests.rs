//! Each assumption against a scripted service that is as it is assumed to be, and against one that differs in one thing.

use super::*;
use crate::doctor::Model;
use flashlane_backend::{Kind, Tier};
use flashlane_testkit::upstream::Identity;
use flashlane_testkit::wafer::{Odd, Rule, Say, Wafer, Ways};

/// Cargo sets the variable for tests.
const KEY_ENV: &str = "CARGO_PKG_NAME";
const KEY: &str = env!("CARGO_PKG_NAME");

fn ways(odds: &[Odd]) -> Ways {
    Ways { key: Some(KEY.to_owned()), odds: odds.to_vec(), ..Ways::default() }
}

fn config(wafer: &Wafer) -> EndpointConfig {
    EndpointConfig {
        base_url: Some(wafer.base_url()),
        api_key_env: Some(KEY_ENV.to_owned()),
        ..EndpointConfig::new("wafer-1", Tier::Latency, Kind::Cerebras)
    }
}

fn parts() -> Parts {
    let latency = Some("gpt-oss-120b".to_owned());
    let model = Model { name: "fast".to_owned(), context_tokens_max: 131_072, latency, throughput: None, guard: None };
    Parts { models: vec![model], ..Parts::default() }
}

async fn examined(config: &EndpointConfig, tokens_max: u64) -> Live {
    let (mut screen, mut capture) = (Screen::new(true), Capture::new(None).unwrap());
    run(&parts(), config, (&mut screen, &mut capture), tokens_max).await.unwrap().unwrap()
}

async fn examine(ways: Ways) -> Live {
    let wafer = Wafer::start(ways, None).await.unwrap();
    examined(&config(&wafer), 20_000).await
}

fn with(live: &Live, verdict: Verdict) -> Vec<(&'static str, &str)> {
    let settled = live.assumptions.iter().filter(|settled| settled.verdict == verdict);
    settled.map(|settled| (settled.name, settled.evidence.as_str())).collect()
}

fn broken(live: &Live) -> Vec<&'static str> {
    with(live, Verdict::DoesNotHold).into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn a_service_as_assumed_holds_all_assumptions_within_the_cap() {
    let live = examine(ways(&[])).await;
    assert_eq!(with(&live, Verdict::DoesNotHold), []);
    assert_eq!(with(&live, Verdict::CouldNotBeTold), []);
    assert_eq!(live.assumptions.len(), ROWS.len());
    assert!(live.is_well());
    // docs/OPERATIONS.md tells what it costs.
    assert!((2_000..=5_000).contains(&live.tokens_spent), "{}", live.tokens_spent);
}

#[tokio::test]
async fn over_tls_all_hold_too() {
    let identity = Identity::new(&["h2", "http/1.1"]).unwrap();
    let wafer = Wafer::start(ways(&[]), Some(identity.clone())).await.unwrap();
    let path = std::env::temp_dir().join(format!("{}-doctor-ca.pem", std::process::id()));
    std::fs::write(&path, identity.pem()).unwrap();
    let live = examined(&EndpointConfig { ca_file: Some(path), ..config(&wafer) }, 20_000).await;
    assert_eq!(with(&live, Verdict::DoesNotHold), []);
    assert_eq!(with(&live, Verdict::CouldNotBeTold), []);
}

#[tokio::test]
async fn each_assumption_that_does_not_hold_is_found_and_no_other() {
    let odds: [(Odd, &[&str]); 22] = [
        (Odd::Closes, &["reuse"]),
        (Odd::TellsContext(8192), &["context"]),
        (Odd::NotDone, &["stream"]),
        (Odd::NoUsage, &["usage"]),
        (Odd::NoTimes, &["times"]),
        (Odd::StrangeReasoning, &["reasoning"]),
        (Odd::Talkative, &["output-limit"]),
        (Odd::Refuses("reasoning_effort"), &["reasoning-effort"]),
        (Odd::Refuses("service_tier"), &["service-tier"]),
        (Odd::Refuses("queue_threshold"), &["queue-threshold"]),
        (Odd::Refuses("prompt_cache_key"), &["cache-key"]),
        (Odd::NothingCached, &["cached-tokens"]),
        (Odd::Overlooks(Rule::ToolChoice), &["tool-choice"]),
        (Odd::Overlooks(Rule::ClosedSchemas), &["closed-schemas"]),
        (Odd::Refuses("tools"), &["tool-choice", "closed-schemas"]),
        (Odd::Overlooks(Rule::AnsweredCalls), &["answered-calls"]),
        (Odd::Overlooks(Rule::UnknownFields), &["unknown-fields"]),
        (Odd::Overlooks(Rule::UnknownModels), &["unknown-model"]),
        (Odd::Overlooks(Rule::Types), &["bad-request"]),
        (Odd::StrangeLimits, &["rate-headers"]),
        (Odd::PlainRefusals, &["unknown-model", "bad-request"]),
        (Odd::Http1Alone, &["http2"]),
    ];
    for (odd, names) in odds {
        let live = examine(ways(&[odd])).await;
        assert_eq!(broken(&live), names, "{odd:?}: {:?}", with(&live, Verdict::DoesNotHold));
        assert!(!live.is_well());
    }
    let single: Vec<String> = "Hello from the wafer, as scripted.".chars().map(String::from).collect();
    let say = Say { texts: single, ..Say::default() };
    for (ways, names) in [
        (Ways { warms: false, ..ways(&[]) }, &["warming"][..]),
        (Ways { takes_gzip: false, ..ways(&[]) }, &["gzip"][..]),
        (Ways { say, ..ways(&[]) }, &["chunks-of-tokens"][..]),
        (Ways { models: vec!["another".to_owned()], ..ways(&[]) }, &["models"][..]),
    ] {
        let live = examine(ways).await;
        assert_eq!(broken(&live), names, "{:?}", with(&live, Verdict::DoesNotHold));
    }
}

#[tokio::test]
async fn a_key_that_is_refused_settles_nothing_but_the_list_of_models() {
    let live = examine(Ways { key: Some("another".to_owned()), ..ways(&[]) }).await;
    assert_eq!(broken(&live), ["models"]);
    assert_eq!(with(&live, Verdict::Holds), []);
}

#[tokio::test]
async fn no_question_is_asked_that_could_pass_the_cap() {
    for tokens_max in [0, 100, 400, 2_000] {
        let wafer = Wafer::start(ways(&[]), None).await.unwrap();
        let live = examined(&config(&wafer), tokens_max).await;
        assert!(live.tokens_spent <= tokens_max, "{} of {tokens_max}", live.tokens_spent);
        let untold = with(&live, Verdict::CouldNotBeTold);
        assert!(untold.iter().any(|(_, evidence)| evidence.contains("--tokens-max")), "{untold:?}");
        assert_eq!(broken(&live), Vec::<&str>::new());
        if tokens_max == 0 {
            assert!(wafer.seen().turns().is_empty());
        }
    }
}

#[tokio::test]
async fn the_key_stands_in_no_capture_even_when_the_service_repeats_it() {
    let wafer = Wafer::start(ways(&[Odd::Echoes]), None).await.unwrap();
    let path = std::env::temp_dir().join(format!("{}-doctor-capture.jsonl", std::process::id()));
    let (mut screen, mut capture) = (Screen::new(true), Capture::new(Some(&path)).unwrap());
    // The key is the name of this crate, which nothing else in the capture may hold.
    let live = run(&parts(), &config(&wafer), (&mut screen, &mut capture), 20_000).await.unwrap().unwrap();
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(kept.matches(KEY).count(), 0);
    assert!(live.assumptions.iter().any(|settled| settled.evidence.contains(KEY)), "it was not repeated");
    assert_eq!(screen.clean(&serde_json::to_string(&live).unwrap()).matches(KEY).count(), 0);
    let lines: Vec<serde_json::Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let asked = lines.iter().filter(|line| line["from"] == "client").count();
    assert_eq!(asked, Question::ALL.len() + 2, "each question, the models and the warming");
    let packed = lines.iter().find(|line| line["question"] == "packed" && line["from"] == "client").unwrap();
    assert_eq!(packed["packed"], "gzip");
    assert!(lines.iter().any(|line| line["body"].as_str().is_some_and(|body| body.contains("data: [DONE]"))));
}
