//! Loads as engines tell them: asked for while somebody wants to know, each handed out once.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use bytes::Bytes;
use flashlane_backend::{Backends, Dialect, EndpointConfig};
use flashlane_engine::router::Load;
use flashlane_testkit::upstream::{Step, Upstream, chat_events};
use rig::{ONLY, backends, config, run, within};

fn metrics(text: &str) -> Vec<Step> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    vec![Step::Expect, Step::Send(Bytes::from(head))]
}

async fn next(backends: &Backends) -> Load {
    let found = async {
        loop {
            if let Some((id, load)) = backends.loads().next() {
                assert_eq!(id, ONLY);
                return load;
            }
            tokio::task::yield_now().await;
        }
    };
    within(found).await
}

#[tokio::test]
async fn an_engine_is_asked_in_time_and_each_answer_is_handed_out_once() {
    let busy = "vllm:num_requests_running 3\nvllm:num_requests_waiting 2\nvllm:kv_cache_usage_perc 0.5\n";
    let scripts = vec![metrics(busy), metrics("nothing\n"), metrics("vllm:num_requests_running 1\n")];
    let upstream = Upstream::start(scripts).await.unwrap();
    let probed = EndpointConfig { dialect: Some(Dialect::Vllm), probe_ms: Some(50), ..config(&upstream) };
    let backends = backends(EndpointConfig { api_key_env: Some("CARGO_PKG_NAME".to_owned()), ..probed });
    assert_eq!(upstream.seen().requests.len(), 0, "nobody wants to know");
    assert_eq!(next(&backends).await, Load { waiting: 2, running: 3, kv_usage: Some(0.5) });
    assert_eq!(backends.loads().count(), 0, "it was handed out");
    assert_eq!(next(&backends).await, Load { waiting: 0, running: 1, kv_usage: None });
    let seen = upstream.seen();
    assert_eq!(seen.requests.len(), 3);
    assert!(seen.requests.iter().all(|request| request.head.starts_with("GET /metrics ")));
    assert_eq!(seen.requests.first().unwrap().header("authorization"), Some("Bearer flashlane-backend"));
    drop(backends);
    let met = upstream.seen().requests.len();
    tokio::time::sleep(std::time::Duration::from_millis(120)).await;
    assert!(upstream.seen().requests.len() <= met + 1, "an endpoint that is gone is asked on");
}

#[tokio::test]
async fn an_answers_own_word_of_the_load_counts_as_well() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\
        endpoint-load-metrics: TEXT named_metrics.num_requests_running=4, named_metrics.num_requests_waiting=1\r\n\r\n";
    let mut steps = vec![Step::Expect, Step::Send(Bytes::from(head))];
    steps.extend(chat_events(&["hi"]).into_iter().map(Step::Chunk));
    steps.push(Step::Chunk(Bytes::new()));
    let upstream = Upstream::start(vec![steps]).await.unwrap();
    let backends =
        backends(EndpointConfig { dialect: Some(Dialect::Vllm), probe_ms: Some(10_000), ..config(&upstream) });
    run(&backends).await;
    let asked = upstream.seen().requests.first().unwrap().header("endpoint-load-metrics-format").map(str::to_owned);
    assert_eq!(asked.as_deref(), Some("TEXT"));
    assert_eq!(backends.loads().next().unwrap().1, Load { waiting: 1, running: 4, kv_usage: None });
}

#[tokio::test]
async fn who_is_not_to_be_probed_is_not() {
    let upstream = Upstream::start(vec![metrics("x\n")]).await.unwrap();
    let backends = backends(EndpointConfig { dialect: Some(Dialect::Vllm), ..config(&upstream) });
    for _ in 0..3 {
        assert_eq!(backends.loads().count(), 0);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(upstream.seen().requests.len(), 0);
}
