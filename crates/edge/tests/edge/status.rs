//! What the status page is told: at a glance over HTTP, and as it changes over its WebSocket.

use crate::support::{Gateway, Socket, exchange, simulated, soon};
use flashlane_backend::EndpointConfig;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

async fn glance(gateway: &Gateway) -> Value {
    exchange(gateway.admin, "GET", "/status", "", b"").await.json()
}

async fn looking_on(gateway: &Gateway) -> Socket {
    let url = format!("ws://{}/status/live", gateway.admin);
    let stream = TcpStream::connect(gateway.admin).await.unwrap();
    Socket(tokio_tungstenite::client_async(url, stream).await.unwrap().0)
}

fn create() -> Value {
    json!({"type": "response.create", "model": "demo", "input": "a secret story", "store": false})
}

/// The news up to the first that fit.
async fn until(socket: &mut Socket, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    soon(what, async {
        loop {
            let news = socket.event().await;
            if fits(&news) {
                return news;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_glance_tells_every_part_and_nothing_of_any_text() {
    let gateway = Gateway::start(simulated()).await;
    assert_eq!(gateway.post("/v1/responses", &create()).await.status, 200);
    let unknown = json!({"model": "unknown", "input": "a secret story"});
    assert_eq!(gateway.post("/v1/responses", &unknown).await.status, 404);
    let seen = soon("the turn's record", async {
        loop {
            let seen = glance(&gateway).await;
            if seen["ended"].as_array().is_some_and(|ended| ended.len() == 2) {
                return seen;
            }
        }
    })
    .await;
    assert_eq!((&seen["server"]["phase"], &seen["tiers"][0]["name"]), (&json!("ready"), &json!("latency")));
    let endpoint = &seen["endpoints"][0];
    assert_eq!(
        (&endpoint["name"], &endpoint["simulated"], &endpoint["health"]),
        (&json!("sim"), &json!(true), &json!("well"))
    );
    assert!(endpoint["samples"][0]["ttft_us"].is_u64() && endpoint["ttft_us"]["p95"].is_u64(), "{endpoint}");
    assert_eq!(seen["turns"], json!({"running": [], "more": 0}));
    assert_eq!(seen["errors"].as_array().unwrap().len(), 1);
    assert!(seen["ended"][1]["steps"].as_array().unwrap().len() > 2, "{}", seen["ended"]);
    assert_eq!(seen["limits"]["throughput"]["queue"]["turns_max"], 256);
    assert!(!seen.to_string().contains("secret"), "{seen}");
}

#[tokio::test]
async fn who_looks_on_sees_a_turn_come_answer_and_end_and_nothing_twice() {
    let slow = EndpointConfig { first_token_ms: Some(400), tokens_per_second: Some(100), ..simulated() };
    let gateway = Gateway::start(slow).await;
    let mut socket = looking_on(&gateway).await;
    socket.send(&json!({"token": null})).await;
    let first = socket.event().await;
    assert!(first.get("limits").is_some() && first.get("endpoints").is_some());
    let mut client = gateway.websocket().await;
    client.send(&create()).await;
    let phase = |news: &Value, phase: &str| news["turns"]["running"][0]["phase"] == phase;
    let opening = until(&mut socket, "an endpoint", |news| phase(news, "opening")).await;
    assert_eq!(opening["turns"]["running"][0]["endpoint"], "sim");
    assert!(opening.get("limits").is_none(), "told once: {opening}");
    until(&mut socket, "the first token", |news| phase(news, "answering")).await;
    until(&mut socket, "the end", |news| news["turns"]["running"] == json!([])).await;
    let told = until(&mut socket, "a second without news", |news| news.as_object().unwrap().len() == 1).await;
    assert!(told["now_unix_ms"].is_u64());
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_turn_out_of_the_table() {
    let slow = EndpointConfig { first_token_ms: Some(600_000), ..simulated() };
    let gateway = Gateway::start(slow).await;
    let mut client = gateway.websocket().await;
    client.send(&create()).await;
    let running = async |count: usize| {
        while glance(&gateway).await["turns"]["running"].as_array().unwrap().len() != count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("a turn that runs", running(1)).await;
    drop(client);
    soon("its end", running(0)).await;
}

#[tokio::test]
async fn the_page_runs_its_own_script_alone_and_no_page_of_another_site_looks_on() {
    let gateway = Gateway::start(simulated()).await;
    let page = exchange(gateway.admin, "GET", "/", "", b"").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let html = String::from_utf8(page.body).unwrap();
    assert_eq!((html.matches("<script>").count(), html.matches("<style>").count()), (1, 1));
    assert!(!html.contains("innerHTML") && !html.contains("style=\"") && !html.contains("onclick"));

    let mut request = format!("ws://{}/status/live", gateway.admin).into_client_request().unwrap();
    request.headers_mut().insert("origin", "https://elsewhere.example".parse().unwrap());
    let stream = TcpStream::connect(gateway.admin).await.unwrap();
    let refused = tokio_tungstenite::client_async(request, stream).await.unwrap_err().to_string();
    assert!(refused.contains("403"), "{refused}");
    let plain = exchange(gateway.admin, "GET", "/status/live", "", b"").await;
    assert_eq!(plain.status, 400);
}

#[tokio::test]
async fn a_first_message_that_is_none_ends_the_line_and_so_does_the_servers_end() {
    let gateway = Gateway::start(simulated()).await;
    let mut wrong = looking_on(&gateway).await;
    wrong.send(&json!("hello")).await;
    assert!(matches!(wrong.message().await, Some(Message::Close(Some(frame))) if u16::from(frame.code) == 1007));
    let mut socket = looking_on(&gateway).await;
    socket.send(&json!({"token": "any"})).await;
    socket.event().await;
    gateway.stop();
    let began = Instant::now();
    let code = soon("the close frame", async {
        loop {
            match socket.message().await {
                Some(Message::Close(Some(frame))) => return u16::from(frame.code),
                Some(_) => {}
                None => return 0,
            }
        }
    })
    .await;
    assert_eq!(code, 1001);
    gateway.ended().await;
    assert!(began.elapsed() < Duration::from_secs(20));
}
