//! Who is behind a proxy, what one client may have, and what operators show. Every client here is on loopback: a trusted proxy on it says
//! who it would be.

use crate::support::{Gateway, Reply, Socket, exchange, request, simulated, soon};
use flashlane_edge::{EdgeConfig, KeyConfig};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, http::StatusCode};

const SECRET: &str = "flk_a";
const ONE: &str = "203.0.113.7";
const OTHER: &str = "203.0.113.8";

fn digest(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn keys() -> Vec<KeyConfig> {
    vec![serde_json::from_value(json!({"name": "a", "sha256": [digest(SECRET)]})).unwrap()]
}

fn trusting(config: &mut EdgeConfig) {
    config.trusted_proxies = vec!["127.0.0.0/8".to_owned().try_into().unwrap()];
}

async fn behind_a_proxy(edit: impl FnOnce(&mut EdgeConfig)) -> Gateway {
    Gateway::start_keyed_with(&keys(), |config, _| {
        trusting(config);
        edit(config);
    })
    .await
}

async fn websocket(gateway: &Gateway, forwarded: &str) -> Result<Socket, StatusCode> {
    let mut request = format!("ws://{}/v1/responses", gateway.address).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {SECRET}").parse().unwrap());
    request.headers_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
    match tokio_tungstenite::client_async(request, gateway.connect().await).await {
        Ok((socket, _)) => Ok(Socket(socket)),
        Err(Error::Http(response)) => Err(response.status()),
        Err(error) => panic!("{error}"),
    }
}

async fn models(gateway: &Gateway, forwarded: &str) -> Reply {
    let fields = format!("authorization: Bearer {SECRET}\r\nx-forwarded-for: {forwarded}\r\n");
    gateway.send("GET", "/v1/models", &fields, b"").await
}

#[tokio::test]
async fn a_client_behind_a_proxy_has_places_of_its_own_and_gives_them_back() {
    let gateway = behind_a_proxy(|config| config.limits.connections_per_address_max = Some(1)).await;
    let first = websocket(&gateway, ONE).await.unwrap();
    assert_eq!(websocket(&gateway, ONE).await.err(), Some(StatusCode::TOO_MANY_REQUESTS));
    // What it writes there itself makes it nobody else.
    assert_eq!(websocket(&gateway, &format!("{OTHER}, {ONE}")).await.err(), Some(StatusCode::TOO_MANY_REQUESTS));
    let refused = models(&gateway, ONE).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{refused:?}");
    assert!(websocket(&gateway, OTHER).await.is_ok());
    drop(first);
    soon("its place", async {
        while models(&gateway, ONE).await.status == 429 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(gateway.metrics().await.contains("flashlane_excess_refused_total{reason=\"address_connections\"}"));
}

#[tokio::test]
async fn an_answer_that_still_runs_holds_its_clients_place() {
    let slow = flashlane_backend::EndpointConfig { tokens_per_second: Some(20), ..simulated() };
    let gateway = Gateway::start_with_keys(slow, &keys(), |config, _| {
        trusting(config);
        config.limits.connections_per_address_max = Some(1);
    })
    .await;
    let body = json!({"model": "demo", "input": "count from 1 to 500", "stream": true}).to_string();
    let fields = format!("authorization: Bearer {SECRET}\r\nx-forwarded-for: {ONE}\r\n");
    let mut stream = gateway.connect().await;
    stream.write_all(&request("POST", "/v1/responses", &fields, body.as_bytes())).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("response.output_text.delta") {
        assert!(soon("a token", stream.read_buf(&mut seen)).await.unwrap() > 0);
    }
    assert_eq!(models(&gateway, ONE).await.status, 429);
    assert_eq!(models(&gateway, OTHER).await.status, 200);
    drop(stream);
    soon("its place", async {
        while models(&gateway, ONE).await.status == 429 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_is_not_trusted_is_not_believed() {
    let gateway =
        Gateway::start_keyed_with(&keys(), |config, _| config.limits.connections_per_address_max = Some(1)).await;
    let held = websocket(&gateway, ONE).await;
    assert!(held.is_ok() && websocket(&gateway, ONE).await.is_ok());
}

#[tokio::test]
async fn without_keys_a_proxy_brings_nobody_from_elsewhere() {
    let gateway = Gateway::start_with(simulated(), |config, _| trusting(config)).await;
    let refused = models(&gateway, ONE).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("this machine alone"));
    assert_eq!(models(&gateway, "127.0.0.1").await.status, 200);
    assert_eq!(gateway.get("/v1/models").await.status, 200);
}

async fn admin(gateway: &Gateway, path: &str, fields: &str) -> Reply {
    exchange(gateway.admin, "GET", path, fields, b"").await
}

#[tokio::test]
async fn operators_from_elsewhere_show_a_token() {
    let gateway = behind_a_proxy(|config| {
        config.admin.token_sha256 = vec![digest("old").try_into().unwrap(), digest("new").try_into().unwrap()];
    })
    .await;
    let from = |token: &str| format!("x-forwarded-for: {ONE}\r\nauthorization: Bearer {token}\r\n");
    let elsewhere = format!("x-forwarded-for: {ONE}\r\n");
    for path in ["/limits", "/endpoints", "/metrics"] {
        let refused = admin(&gateway, path, &elsewhere).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        assert!(refused.json()["error"]["message"].as_str().unwrap().contains("Authorization: Bearer TOKEN"));
        assert_eq!(admin(&gateway, path, &from("neither")).await.status, 401, "{path}");
        assert_eq!(admin(&gateway, path, &from("old")).await.status, 200, "{path}");
        assert_eq!(admin(&gateway, path, &from("new")).await.status, 200, "{path}");
        assert_eq!(admin(&gateway, path, "").await.status, 200, "{path} from this machine");
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(admin(&gateway, path, &elsewhere).await.status, 200);
    }
}

#[tokio::test]
async fn metrics_may_be_opened_alone() {
    let gateway = behind_a_proxy(|config| config.admin.metrics_open = true).await;
    let elsewhere = format!("x-forwarded-for: {ONE}\r\n");
    assert_eq!(admin(&gateway, "/metrics", &elsewhere).await.status, 200);
    let refused = admin(&gateway, "/limits", &elsewhere).await;
    assert_eq!(refused.status, 401);
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("flashlane keys create --admin"));
}

#[tokio::test]
async fn no_page_of_another_site_reaches_the_admin_listener() {
    let gateway = behind_a_proxy(|config| config.admin.token_sha256 = vec![digest("t").try_into().unwrap()]).await;
    let host = gateway.admin;
    for (fields, status) in [
        ("origin: https://evil.example\r\n".to_owned(), 403),
        ("origin: null\r\n".to_owned(), 403),
        (format!("origin: http://{host}\r\n"), 200),
        (format!("origin: https://evil.example\r\nx-forwarded-for: {ONE}\r\nauthorization: Bearer t\r\n"), 403),
        (format!("origin: https://localhost\r\nx-forwarded-for: {ONE}\r\nauthorization: Bearer t\r\n"), 200),
        (format!("origin: https://localhost\r\nx-forwarded-for: {ONE}\r\n"), 401),
    ] {
        for path in ["/limits", "/metrics"] {
            assert_eq!(admin(&gateway, path, &fields).await.status, status, "{path} {fields}");
        }
    }
    // A name that was pointed at this machine, with keys for clients or without.
    let mut stream = TcpStream::connect(gateway.admin).await.unwrap();
    stream.write_all(b"GET /limits HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    soon("an answer", stream.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(Reply::parse(&bytes).status, 403);
}

/// A head of the PROXY protocol, version 2: command, family, and what follows.
fn head(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

/// As HAProxy writes it for a client of this address, with an extension behind it.
fn proxied(last: u8) -> Vec<u8> {
    let body = [&[203, 0, 113, last, 10, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb][..], &[0x04, 0, 2, 0, 0]].concat();
    head(0x21, 0x11, &body)
}

fn ask() -> Vec<u8> {
    request("GET", "/v1/models", &format!("authorization: Bearer {SECRET}\r\nconnection: close\r\n"), b"")
}

/// What is answered to these bytes; None: the connection is closed without a word.
async fn answered(gateway: &Gateway, parts: &[&[u8]]) -> Option<u16> {
    let mut stream = gateway.connect().await;
    for part in parts {
        stream.write_all(part).await.ok()?;
        tokio::task::yield_now().await;
    }
    let mut bytes = Vec::new();
    // A reset is a close, too.
    let _ = soon("an end", stream.read_to_end(&mut bytes)).await;
    (!bytes.is_empty()).then(|| Reply::parse(&bytes).status)
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client_of_a_connection() {
    let gateway = behind_a_proxy(|config| {
        config.proxy_protocol = true;
        config.limits.connections_per_address_max = Some(1);
    })
    .await;
    let (one, other) = (proxied(7), proxied(8));
    assert_eq!(answered(&gateway, &[&one, &ask()]).await, Some(200));
    let (begin, rest) = one.split_at(9);
    assert_eq!(answered(&gateway, &[begin, rest, &ask()]).await, Some(200));
    assert_eq!(answered(&gateway, &[&head(0x20, 0x00, b""), &ask()]).await, Some(200));
    let mut held = gateway.connect().await;
    held.write_all(&one).await.unwrap();
    // It has its place when it is answered.
    held.write_all(&request("GET", "/v1/models", &format!("authorization: Bearer {SECRET}\r\n"), b"")).await.unwrap();
    assert!(soon("an answer", held.read(&mut [0; 1024])).await.unwrap() > 0);
    assert_eq!(answered(&gateway, &[&one, &ask()]).await, Some(429));
    assert_eq!(answered(&gateway, &[&other, &ask()]).await, Some(200));
}

#[tokio::test]
async fn a_trusted_proxy_that_does_not_say_who_its_client_is_is_closed() {
    let gateway = behind_a_proxy(|config| config.proxy_protocol = true).await;
    let too_long = head(0x21, 0x11, &[0; 2049]);
    for silent in [&ask()[..], b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", &head(0x22, 0x11, &[0; 12]), &too_long] {
        assert_eq!(answered(&gateway, &[silent]).await, None);
    }
    assert!(gateway.metrics().await.contains("flashlane_excess_refused_total{reason=\"proxy_protocol\"} 4"));
}

#[tokio::test]
async fn a_head_of_the_proxy_protocol_from_elsewhere_is_no_request() {
    let gateway = Gateway::start_keyed_with(&keys(), |config, _| {
        config.trusted_proxies = vec!["10.0.0.0/8".to_owned().try_into().unwrap()];
        config.proxy_protocol = true;
    })
    .await;
    assert_eq!(answered(&gateway, &[&ask()]).await, Some(200));
    assert_ne!(answered(&gateway, &[&proxied(7), &ask()]).await, Some(200));
}
