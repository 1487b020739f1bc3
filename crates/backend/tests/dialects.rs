//! The body that each dialect writes of one and the same request, as files. `UPDATE=1` writes them anew.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use bytes::Bytes;
use flashlane_backend::{Dialect, EndpointConfig};
use flashlane_engine::UpstreamRequest;
use flashlane_engine::router::Urgency;
use flashlane_testkit::upstream::{Upstream, chat_events, stream};
use flashlane_wire::chat::Field;
use rig::{ONLY, backends, config, run_until};
use std::path::Path;

/// A request with every field that matters.
fn full() -> UpstreamRequest {
    let field = |name, value: &'static str| Field::new(name, value);
    UpstreamRequest {
        endpoint: ONLY,
        model: "gpt-oss-120b".into(),
        fields: vec![
            field("max_completion_tokens", "1024"),
            field("temperature", "0.5"),
            field("tools", r#"[{"type":"function","function":{"name":"shell","parameters":{"type":"object"}}}]"#),
            field("tool_choice", r#""auto""#),
            field("parallel_tool_calls", "true"),
            field("reasoning_effort", r#""high""#),
            field("response_format", r#"{"type":"text"}"#),
            field("verbosity", r#""low""#),
            field("service_tier", r#""priority""#),
            field("safety_identifier", r#""u-1""#),
            field("metadata", r#"{"a":"b"}"#),
            field("store", "false"),
            field("user", r#""u-1""#),
        ],
        messages: vec![Bytes::from_static(br#"{"role":"user","content":"hello"}"#)],
        continues: false,
        cache_key: Some("session-1".into()),
        urgency: Urgency::Ordinary,
        trace: None,
    }
}

async fn written(dialect: Dialect, request: UpstreamRequest) -> String {
    let upstream = Upstream::start(vec![stream(&chat_events(&["hi"]))]).await.unwrap();
    let backends = backends(EndpointConfig { dialect: Some(dialect), ..config(&upstream) });
    run_until(&mut backends.open(ONLY, request), |_| false).await;
    String::from_utf8(upstream.seen().requests.remove(0).body).unwrap()
}

#[tokio::test]
async fn each_dialect_writes_its_golden_body() {
    for dialect in Dialect::ALL {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/dialects/{}.json", dialect.name()));
        let body = written(dialect, full()).await + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &body).unwrap();
        }
        assert_eq!(body, std::fs::read_to_string(&path).unwrap(), "{}", dialect.name());
    }
}

#[tokio::test]
async fn ollama_is_told_to_think_not_at_all_or_nothing() {
    for (effort, expected) in [(r#""none""#, true), (r#""low""#, false)] {
        let mut request = full();
        request.fields = vec![Field::new("reasoning_effort", effort)];
        assert_eq!(written(Dialect::Ollama, request).await.contains("reasoning_effort"), expected, "{effort}");
    }
}

#[tokio::test]
async fn cerebras_is_asked_for_no_effort_that_it_does_not_know() {
    let cases = [
        ("none", "none"),
        ("minimal", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "high"),
        ("max", "high"),
    ];
    for (effort, expected) in cases {
        let mut request = full();
        request.fields = vec![Field::string("reasoning_effort", effort)];
        let body = written(Dialect::Cerebras, request).await;
        assert!(body.contains(&format!(r#""reasoning_effort":"{expected}""#)), "{effort}: {body}");
    }
}

#[tokio::test]
async fn engines_that_were_started_for_it_are_told_whose_turn_goes_first() {
    let cases = [
        (Dialect::Vllm, Urgency::Urgent, "-1"),
        (Dialect::Vllm, Urgency::Ordinary, "0"),
        (Dialect::Vllm, Urgency::Patient, "1"),
        (Dialect::Sglang, Urgency::Urgent, "1"),
        (Dialect::Sglang, Urgency::Patient, "-1"),
    ];
    for (dialect, urgency, priority) in cases {
        let upstream = Upstream::start(vec![stream(&chat_events(&["hi"]))]).await.unwrap();
        let told = EndpointConfig { dialect: Some(dialect), priorities: Some(true), ..config(&upstream) };
        run_until(&mut backends(told).open(ONLY, UpstreamRequest { urgency, ..full() }), |_| false).await;
        let body = String::from_utf8(upstream.seen().requests.remove(0).body).unwrap();
        assert!(body.contains(&format!(r#""priority":{priority},"#)), "{dialect:?} {urgency:?}: {body}");
    }
    let unasked = written(Dialect::Vllm, UpstreamRequest { urgency: Urgency::Urgent, ..full() }).await;
    assert!(!unasked.contains("\"priority\":"), "{unasked}");
}

#[tokio::test]
async fn a_cache_key_that_the_client_gave_is_not_doubled() {
    let mut request = full();
    request.fields = vec![Field::string("prompt_cache_key", "client's")];
    let body = written(Dialect::Generic, request).await;
    assert_eq!(body.matches("prompt_cache_key").count(), 1);
    assert!(body.contains("client's"), "{body}");
}

#[tokio::test]
async fn engines_that_can_are_asked_to_go_on_with_the_last_message() {
    for dialect in Dialect::ALL {
        let body = written(dialect, UpstreamRequest { continues: true, ..full() }).await;
        let fields =
            ["\"continue_final_message\":true", "\"add_generation_prompt\":false"].map(|field| body.contains(field));
        let expected = match dialect {
            Dialect::Vllm => [true, true],
            Dialect::Sglang => [true, false],
            Dialect::Generic
            | Dialect::Cerebras
            | Dialect::Groq
            | Dialect::Sambanova
            | Dialect::LlamaCpp
            | Dialect::Ollama => [false, false],
        };
        assert_eq!(fields, expected, "{body}");
    }
}
