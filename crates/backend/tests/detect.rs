//! Which engine answers at a URL.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

use bytes::Bytes;
use flashlane_backend::detect::{Detected, DetectedModel, Error, Look, detect};
use flashlane_backend::{Dialect, Secret, Way};
use flashlane_testkit::upstream::{Step, Upstream};

fn answer(status: u16, fields: &str, body: &str) -> Vec<Step> {
    let length = body.len();
    vec![
        Step::Expect,
        Step::Send(Bytes::from(format!("HTTP/1.1 {status} X\r\n{fields}content-length: {length}\r\n\r\n{body}"))),
    ]
}

fn listed(models: &str) -> String {
    format!(r#"{{"object":"list","data":[{models}]}}"#)
}

fn look(base_url: String) -> Look {
    Look { base_url, api_key: None, way: Way::default(), wait_ms_max: 2000 }
}

async fn found(scripts: Vec<Vec<Step>>) -> Result<Detected, Error> {
    let upstream = Upstream::start(scripts).await.unwrap();
    detect(&look(upstream.base_url())).await
}

#[tokio::test]
async fn engines_are_known_by_what_they_say_of_their_models() {
    let llama = include_str!("../../../proto/llama.cpp/models.json");
    let cases = [
        (
            listed(r#"{"id":"a","object":"model","owned_by":"vllm","max_model_len":131072}"#),
            Dialect::Vllm,
            "a",
            Some(131_072),
        ),
        (listed(r#"{"id":"a","owned_by":"sglang","max_model_len":32768}"#), Dialect::Sglang, "a", Some(32_768)),
        (include_str!("../../../proto/vllm/models.json").to_owned(), Dialect::Vllm, "smollm2-135m", Some(8192)),
        (include_str!("../../../proto/sglang/models.json").to_owned(), Dialect::Sglang, "smollm2-135m", Some(8192)),
        (llama.to_owned(), Dialect::LlamaCpp, "smollm2-135m", Some(8192)),
        (listed(r#"{"id":"a","owned_by":"llamacpp","meta":{"n_ctx_train":4096}}"#), Dialect::LlamaCpp, "a", Some(4096)),
        (
            listed(r#"{"id":"gpt-oss-120b","object":"model","created":0,"owned_by":"Cerebras"}"#),
            Dialect::Cerebras,
            "gpt-oss-120b",
            None,
        ),
        (listed(r#"{"id":"llama3:8b","owned_by":"library"}"#), Dialect::Ollama, "llama3:8b", None),
        (listed(r#"{"id":"a","owned_by":"simulator"}"#), Dialect::Generic, "a", None),
    ];
    for (body, dialect, name, context_tokens_max) in cases {
        let detected = found(vec![answer(200, "", &body), answer(404, "", "")]).await.unwrap();
        assert_eq!(detected.dialect, dialect, "{body}");
        assert_eq!(detected.models, [DetectedModel { name: name.to_owned(), context_tokens_max }], "{body}");
        assert_eq!(detected.simulated, body.contains("simulator"), "{body}");
    }
}

#[tokio::test]
async fn engines_that_do_not_say_are_known_by_other_signs() {
    let body = listed(r#"{"id":"a","owned_by":"someone"},{"id":"b"}"#);
    let server = found(vec![answer(200, "Server: llama.cpp\r\n", &body)]).await.unwrap();
    assert_eq!((server.dialect, server.models.len()), (Dialect::LlamaCpp, 2));
    let ollama = found(vec![answer(200, "", &body), answer(200, "", r#"{"version":"0.13.3"}"#)]).await.unwrap();
    assert_eq!(ollama.dialect, Dialect::Ollama);
    let unknown = found(vec![answer(200, "", &body), answer(404, "", "{}")]).await.unwrap();
    assert_eq!(unknown.dialect, Dialect::Generic);
}

#[tokio::test]
async fn the_v1_may_be_left_out_and_the_key_is_sent() {
    let body = listed(r#"{"id":"a","owned_by":"vllm"}"#);
    let with_v1 = Upstream::start(vec![answer(200, "", &body)]).await.unwrap();
    let bare = |upstream: &Upstream| Look {
        api_key: Some(Secret::new("sk-1".to_owned())),
        ..look(upstream.base_url().replace("/v1", ""))
    };
    assert_eq!(detect(&bare(&with_v1)).await.unwrap().base_url, with_v1.base_url());
    let asked = with_v1.seen().requests;
    assert!(asked[0].head.starts_with("GET /v1/models "), "{}", asked[0].head);
    assert_eq!(asked[0].header("authorization"), Some("Bearer sk-1"));

    let without = Upstream::start(vec![answer(404, "", ""), answer(200, "", &body)]).await.unwrap();
    let detected = detect(&bare(&without)).await.unwrap();
    assert_eq!(detected.base_url, without.base_url().replace("/v1", ""));
    assert!(without.seen().requests[1].head.starts_with("GET /models "));
}

#[tokio::test]
async fn what_is_no_engine_is_said_plainly() {
    assert!(matches!(found(vec![answer(401, "", "")]).await, Err(Error::Key { status: 401, .. })));
    assert!(matches!(found(vec![answer(404, "", "")]).await, Err(Error::Status { status: 404, .. })));
    for body in ["<html>", "{}", r#"{"data":[]}"#] {
        assert!(matches!(found(vec![answer(200, "", body)]).await, Err(Error::NotModels { .. })), "{body}");
    }
    assert!(matches!(found(vec![vec![Step::Expect]]).await, Err(Error::Http { .. })));
    let cut = vec![Step::Expect, Step::Send(Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"))];
    assert!(matches!(found(vec![cut]).await, Err(Error::Body { .. })));
    let silent = Upstream::start(vec![vec![Step::Hold]]).await.unwrap();
    let late = detect(&Look { wait_ms_max: 50, ..look(silent.base_url()) }).await;
    assert!(matches!(late, Err(Error::Late { wait_ms_max: 50, .. })), "{late:?}");
    let nobody = silent.base_url();
    drop(silent);
    assert!(matches!(detect(&look(nobody)).await, Err(Error::Unreachable { .. })));
    assert!(matches!(detect(&look("gpu:8000".to_owned())).await, Err(Error::Url { .. })));
}
