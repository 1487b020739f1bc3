//! No connection lives for ever by saying nothing; and none that is at work is cut.

use crate::support::{Gateway, begun, request, simulated, soon, upstream};
use bytes::Bytes;
use flashlane_testkit::upstream::{Step, Upstream, chat_events};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test]
async fn a_connection_that_says_nothing_or_half_of_something_is_ended() {
    let gateway = Gateway::start_with(simulated(), |config, _| config.limits.header_ms_max = 50).await;
    for bytes in [b"".as_slice(), b"P", &PREFACE[..20], b"GET /v1/models HTTP/1.1\r\nhost:"] {
        let mut client = gateway.connect().await;
        client.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let ended = soon("the end", client.read_to_end(&mut answer)).await;
        assert!(ended.is_err() || answer.is_empty(), "{answer:?}");
    }
}

/// HTTP/2's last word is a GOAWAY.
#[tokio::test]
async fn an_idle_http_2_connection_is_told_to_go_and_ended() {
    let gateway = Gateway::start_with(simulated(), |config, _| config.limits.header_ms_max = 50).await;
    let io = TokioIo::new(gateway.connect().await);
    let (_sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io).await.unwrap();
    soon("the end", connection).await.unwrap();
}

#[tokio::test]
async fn an_http_2_client_that_answers_no_ping_is_dropped() {
    let gateway = Gateway::start_with(simulated(), |config, _| config.limits.ping_ms = 20).await;
    let mut client = gateway.connect().await;
    client.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
    let mut frames = Vec::new();
    let _ = soon("the end", client.read_to_end(&mut frames)).await;
    assert!(!frames.is_empty());
}

/// An upstream that takes many times the idle limit.
async fn slow() -> Upstream {
    let mut script = begun();
    script.pop();
    script.push(Step::Wait(Duration::from_millis(700)));
    script.extend(chat_events(&["one", " two"]).into_iter().skip(3).map(Step::Chunk));
    script.push(Step::Chunk(Bytes::new()));
    Upstream::start(vec![script]).await.unwrap()
}

#[tokio::test]
async fn a_turn_that_takes_longer_than_the_idle_limit_is_not_cut() {
    let upstream_server = slow().await;
    let gateway =
        Gateway::start_with(upstream(&upstream_server.base_url()), |config, _| config.limits.header_ms_max = 200).await;
    let body = json!({"model": "demo", "input": "hi", "stream": true}).to_string();

    let mut client = gateway.connect().await;
    let bytes = request("POST", "/v1/responses", "connection: close\r\n", body.as_bytes());
    client.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    soon("the answer", client.read_to_end(&mut answer)).await.unwrap();
    assert!(String::from_utf8(answer).unwrap().contains("data: [DONE]"));

    let io = TokioIo::new(gateway.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let uri = format!("http://{}/v1/responses", gateway.address);
    // Neither the turn is cut, nor the connection closed to the next one.
    for _ in 0..2 {
        let request = hyper::Request::post(&uri).body(Full::new(Bytes::from(body.clone()))).unwrap();
        let response = soon("the answer", sender.send_request(request)).await.unwrap();
        let body = soon("the answer", response.into_body().collect()).await.unwrap().to_bytes();
        assert!(body.ends_with(b"data: [DONE]\n\n"));
    }
    soon("the end", connection).await.unwrap().unwrap();
}
