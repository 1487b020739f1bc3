//! Two engines named by flags, one a tier: scripted ones, that of the latency tier in the shape of Cerebras. What of the turns
//! goes where, with which key and fields.

#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use bytes::Bytes;
use flashlane_testkit::upstream::{Step, Upstream, chat_events, error, stream};
use rig::{Gateway, run, text};

/// The first connection asks for the models, each later one runs turns.
async fn engine(owner: &str, models: &[&str], turns: Vec<Step>) -> Upstream {
    let models: Vec<_> =
        models.iter().map(|name| format!(r#"{{"id":"{name}","object":"model","owned_by":"{owner}"}}"#)).collect();
    let body = format!(r#"{{"object":"list","data":[{}]}}"#, models.join(","));
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    let list = vec![Step::Expect, Step::Send(Bytes::from(head + &body))];
    Upstream::start(vec![list, turns]).await.unwrap()
}

fn says(word: &str) -> Vec<Step> {
    let mut steps = stream(&chat_events(&[word]));
    steps.push(Step::Again);
    steps
}

/// A turn as Cerebras streams it by its SDK's types: reasoning under that name, usage and `time_info` in the chunk that ends it.
fn wafer_says(word: &str) -> Vec<Step> {
    let chunk = |delta: &str, rest: &str| {
        let head =
            r#""id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","system_fingerprint":"fp_1""#;
        Bytes::from(format!("data: {{{head},\"choices\":[{{\"index\":0,\"delta\":{delta}{rest}}}\n\n"))
    };
    let end = r#","finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9,
        "prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":1}},
        "time_info":{"queue_time":0.001,"prompt_time":0.002,"completion_time":0.003,"total_time":0.007,"created":1}"#;
    let mut steps = stream(&[
        chunk(r#"{"role":"assistant"}"#, "}]"),
        chunk(r#"{"reasoning":"hm"}"#, "}]"),
        chunk(&format!(r#"{{"content":"{word}"}}"#), "}]"),
        chunk("{}", &end.replace("\n        ", "")),
        Bytes::from_static(b"data: [DONE]\n\n"),
    ]);
    steps.push(Step::Again);
    steps
}

fn serve(latency: &Upstream, throughput: &Upstream) -> Gateway {
    let flags = ["--latency", &latency.base_url(), "--throughput", &throughput.base_url()];
    Gateway::start_with(&flags, &[("FLASHLANE_LATENCY_API_KEY", "csk-scripted")])
}

/// A turn's answer, and the line that tells its tier.
fn turn(gateway: &Gateway, model: &str) -> (String, String) {
    let output = run(&["chat", "--url", &gateway.websocket(), "--model", model, "hello"]);
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    (text(&output.stdout), told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_named_by_flags_serve_a_tier_each() {
    let wafer = engine("Cerebras", &["both", "fast"], wafer_says("from-wafer")).await;
    let gpu = engine("vllm", &["wide", "both"], says("from-gpu")).await;
    let gateway = serve(&wafer, &gpu);
    for (model, answer, tier) in [
        ("fast", "from-wafer\n", "latency tier"),
        ("wide", "from-gpu\n", "throughput tier"),
        ("both", "from-wafer\n", "latency tier"),
    ] {
        let (said, told) = turn(&gateway, model);
        assert_eq!(said, answer, "{model}");
        assert!(told.contains(tier), "{model}: {told}");
    }
    for line in [
        "backend = \"cerebras\"",
        "api_key_env = \"FLASHLANE_LATENCY_API_KEY\"",
        "  both  latency, then throughput\n",
        "  fast  latency\n",
        "  wide  throughput\n",
    ] {
        assert!(gateway.said.contains(line), "{line} is missing in\n{}", gateway.said);
    }
    assert!(!gateway.said.contains("csk-scripted"), "{}", gateway.said);
    assert!(!gateway.said.contains("# No name is at both tiers"), "{}", gateway.said);

    let asked = wafer.seen().requests;
    assert!(asked[0].head.starts_with("GET /v1/models "), "{}", asked[0].head);
    // Others may have warmed a connection before.
    let turns: Vec<_> = asked.iter().filter(|request| request.head.starts_with("POST /v1/chat/completions ")).collect();
    assert!(asked.iter().all(|request| request.header("authorization") == Some("Bearer csk-scripted")));
    let body = String::from_utf8(turns[0].body.clone()).unwrap();
    assert!(body.starts_with(r#"{"model":"fast","stream":true,"#) && !body.contains("\"store\""), "{body}");
    assert!(gpu.seen().requests.iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_of_both_tiers_goes_to_the_second_when_the_first_is_at_its_limit() {
    // Without the envelope `error`, as Cerebras writes it.
    let limit =
        r#"{"message":"too many","type":"too_many_requests_error","param":"quota","code":"request_quota_exceeded"}"#;
    let wafer = engine("Cerebras", &["both"], error(429, "", limit)).await;
    let gpu = engine("vllm", &["both"], says("from-gpu")).await;
    let (said, told) = turn(&serve(&wafer, &gpu), "both");
    assert_eq!(said, "from-gpu\n");
    assert!(told.contains("throughput tier"), "{told}");
    let tried = wafer.seen().requests.iter().any(|request| request.head.starts_with("POST "));
    assert!(tried, "the latency tier was not tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_differ_are_offered_apart_with_a_hint() {
    let wafer = engine("Cerebras", &["gpt-oss-120b"], wafer_says("from-wafer")).await;
    let gpu = engine("vllm", &["openai/gpt-oss-120b"], says("from-gpu")).await;
    let gateway = serve(&wafer, &gpu);
    assert_eq!(turn(&gateway, "gpt-oss-120b").0, "from-wafer\n");
    assert_eq!(turn(&gateway, "openai/gpt-oss-120b").0, "from-gpu\n");
    let hint = r#"# upstream = { latency = "gpt-oss-120b", throughput = "openai/gpt-oss-120b" }"#;
    assert!(gateway.said.contains(hint), "{}", gateway.said);
}

#[test]
fn cerebras_without_a_key_says_which_variable_and_where_keys_are_made() {
    let output = run(&["serve", "--latency", "cerebras"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("--latency cerebras: CEREBRAS_API_KEY is not set"), "{told}");
    assert!(told.contains("https://cloud.cerebras.ai"), "{told}");
    let output = run(&["serve", "--latency", "cerebra"]);
    assert!(text(&output.stderr).contains("expected simulator, cerebras, or the base URL"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_wants_a_key_names_its_variable_and_one_that_refuses_it_says_so() {
    let refused = Upstream::start(vec![error(401, "", "{}")]).await.unwrap();
    let arguments = ["serve", "--latency", &refused.base_url()];
    let told = text(&run(&arguments).stderr);
    assert!(told.contains("wants a key (HTTP 401): set FLASHLANE_LATENCY_API_KEY"), "{told}");
    let output = rig::command(&arguments).env("FLASHLANE_LATENCY_API_KEY", "csk-hidden").output().unwrap();
    let told = text(&output.stderr);
    assert!(told.contains("refuses the key in FLASHLANE_LATENCY_API_KEY (HTTP 401)"), "{told}");
    assert!(!told.contains("csk-hidden"), "{told}");
}
