//! A page in a browser on this machine must not be able to use a gateway that asks for no key: not from another site, and not under a
//! name that was pointed at loopback.

use crate::support::{Gateway, Reply, simulated, soon};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn assert_refused(reply: &Reply, what: &str) {
    assert_eq!(reply.status, 403, "{what}: {reply:?}");
    let body = reply.json();
    assert_eq!(
        (&body["error"]["type"], &body["error"]["code"]),
        (&json!("request_forbidden"), &json!("origin_not_allowed"))
    );
    assert!(reply.header("x-request-id").is_some());
}

/// A request with these header fields alone.
async fn ask(gateway: &Gateway, line: &str, fields: &str) -> Reply {
    let body = json!({"model": "demo", "input": "hello"}).to_string();
    let length = body.len();
    gateway
        .raw(
            format!("{line} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n{fields}\r\n{body}")
                .as_bytes(),
        )
        .await
}

/// The status of a handshake, which leaves the connection open.
async fn upgrade(gateway: &Gateway, fields: &str) -> u16 {
    let mut client = gateway.connect().await;
    client.write_all(format!("GET /v1/responses HTTP/1.1\r\n{UPGRADE}{fields}\r\n").as_bytes()).await.unwrap();
    let mut head = [0; 12];
    client.read_exact(&mut head).await.unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

#[tokio::test]
async fn another_sites_page_is_refused_and_a_local_one_is_not() {
    let gateway = Gateway::start(simulated()).await;
    for origin in [
        "https://evil.example",
        "null",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example:8700",
        "chrome-extension://abc",
    ] {
        let fields = format!("host: localhost\r\norigin: {origin}\r\n");
        for line in [
            "POST /v1/responses",
            "POST /v1/chat/completions",
            "GET /v1/models",
            "GET /nowhere",
            "OPTIONS /v1/responses",
        ] {
            assert_refused(&ask(&gateway, line, &fields).await, &format!("{line} from {origin}"));
        }
        assert_eq!(upgrade(&gateway, &fields).await, 403, "{origin}");
    }
    let metrics = gateway.metrics().await;
    assert!(metrics.contains("flashlane_errors_total{kind=\"origin_refused\"} 30"), "{metrics}");
    for origin in ["http://localhost:3000", "http://127.0.0.1:8700", "http://127.8.9.1", "https://[::1]:3000"] {
        let fields = format!("host: localhost\r\norigin: {origin}\r\n");
        assert_eq!(ask(&gateway, "POST /v1/responses", &fields).await.status, 200, "{origin}");
        assert_eq!(upgrade(&gateway, &fields).await, 101, "{origin}");
    }
}

#[tokio::test]
async fn a_name_that_was_pointed_at_loopback_is_refused() {
    let gateway = Gateway::start(simulated()).await;
    for host in ["evil.example", "evil.example:8700", "127.0.0.1.evil.example", "localhost.evil.example"] {
        let fields = format!("host: {host}\r\n");
        assert_refused(&ask(&gateway, "POST /v1/responses", &fields).await, host);
        assert_eq!(upgrade(&gateway, &fields).await, 403, "{host}");
    }
    assert_refused(
        &ask(&gateway, "GET http://evil.example/v1/models", "host: evil.example\r\n").await,
        "the target's own",
    );
    for host in ["localhost", "LocalHost:8700", "127.0.0.1:8700", "[::1]:8700", "192.168.1.5"] {
        assert_eq!(ask(&gateway, "POST /v1/responses", &format!("host: {host}\r\n")).await.status, 200, "{host}");
    }
}

/// There the name stands in the request's target.
#[tokio::test]
async fn a_foreign_name_is_refused_over_http_2_too() {
    let gateway = Gateway::start(simulated()).await;
    for (address, path) in [(gateway.address, "/v1/models"), (gateway.admin, "/metrics")] {
        for (host, status) in [("evil.example", 403), ("localhost:8700", 200)] {
            assert_eq!(ask_http2(address, &format!("http://{host}{path}"), None).await, status, "{host}{path}");
        }
    }
}

async fn ask_http2(address: SocketAddr, uri: &str, origin: Option<&str>) -> u16 {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = hyper::Request::get(uri).body(Full::new(Bytes::new())).unwrap();
    request.headers_mut().extend(origin.map(|origin| (http::header::ORIGIN, origin.parse().unwrap())));
    let status = soon("an answer", sender.send_request(request)).await.unwrap().status().as_u16();
    connection.abort();
    status
}

#[tokio::test]
async fn what_the_config_allows_is_served_and_no_cors_header_is_sent() {
    let gateway = Gateway::start_with(simulated(), |config, _| {
        config.allowed_origins = vec!["https://App.example:8443".to_owned()];
        config.allowed_hosts = vec!["gateway.internal".to_owned()];
    })
    .await;
    let fields = "host: Gateway.internal:8700\r\norigin: https://app.example:8443\r\n";
    assert_eq!(upgrade(&gateway, fields).await, 101);
    let reply = ask(&gateway, "POST /v1/responses", fields).await;
    assert_eq!(reply.status, 200);
    for name in ["access-control-allow-origin", "access-control-allow-headers", "access-control-allow-methods"] {
        assert_eq!(reply.header(name), None);
    }
    for origin in ["https://app.example", "http://app.example:8443", "https://app.example:8443.evil.example"] {
        let fields = format!("host: localhost\r\norigin: {origin}\r\n");
        assert_refused(&ask(&gateway, "POST /v1/responses", &fields).await, origin);
    }
}
