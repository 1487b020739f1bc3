//! The admin listener, and those who would keep operators away from it. Every client here is on this machine, at addresses of its own; a
//! trusted proxy says that it is from elsewhere.

use crate::support::{Gateway, Socket, exchange, request, simulated, soon};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const ELSEWHERE: &str = "x-forwarded-for: 203.0.113.7\r\n";
const TOKEN: &str = "x-forwarded-for: 203.0.113.8\r\nauthorization: Bearer t\r\n";

async fn gateway() -> Gateway {
    let token: String = Sha256::digest("t").iter().map(|byte| format!("{byte:02x}")).collect();
    Gateway::start_with(simulated(), |config, _| {
        config.trusted_proxies = vec!["127.0.0.0/8".to_owned().try_into().unwrap()];
        config.admin.token_sha256 = vec![token.try_into().unwrap()];
        config.drain.listen_ms = 60_000;
    })
    .await
}

async fn connect_from(last: u8, to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    socket.connect(to).await.ok()
}

/// One of those who hold what they get, and come again when they are closed: silent, with half a head, or with a WebSocket and no token.
async fn besiege(last: u8, to: SocketAddr) {
    let live = request("GET", "/status/live", &format!("{ELSEWHERE}{HANDSHAKE}"), b"");
    for round in 0_u32.. {
        let Some(mut stream) = connect_from(last, to).await else { continue };
        let said: &[u8] = match round % 3 {
            0 => b"",
            1 => b"GET /metrics HTTP/1.1\r\nhost: ",
            _ => &live,
        };
        if stream.write_all(said).await.is_ok() {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
}

const HANDSHAKE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_all_and_comes_again_keeps_no_operator_out() {
    let gateway = gateway().await;
    let mut siege = JoinSet::new();
    for number in 0..100 {
        siege.spawn(besiege(2 + number % 5, gateway.admin));
    }
    let refused = "flashlane_excess_refused_total{reason=\"operators\"} ";
    let besieged = async {
        loop {
            let metrics = exchange(gateway.admin, "GET", "/metrics", TOKEN, b"").await;
            let metrics = String::from_utf8(metrics.body).unwrap();
            let count = metrics.lines().find_map(|line| line.strip_prefix(refused)).unwrap().parse::<u64>().unwrap();
            if count > 100 {
                return;
            }
        }
    };
    soon("the siege", besieged).await;
    // The siege is of this process, and the machine may be busy with others: of some tries one must be in time.
    let mut waits = Vec::new();
    for _ in 0..5 {
        let asked = Instant::now();
        for path in ["/metrics", "/limits"] {
            assert_eq!(exchange(gateway.admin, "GET", path, TOKEN, b"").await.status, 200, "{path}");
        }
        waits.push(asked.elapsed());
    }
    assert!(waits.iter().any(|wait| *wait < Duration::from_secs(1)), "{waits:?}");
    assert_eq!(exchange(gateway.admin, "POST", "/drain", TOKEN, b"").await.status, 202);
}

async fn looking_on(gateway: &Gateway, last: u8) -> Option<Socket> {
    let mut request = format!("ws://{}/status/live", gateway.admin).into_client_request().unwrap();
    request.headers_mut().insert("x-forwarded-for", "203.0.113.7".parse().unwrap());
    let stream = connect_from(last, gateway.admin).await?;
    tokio_tungstenite::client_async(request, stream).await.ok().map(|(socket, _)| Socket(socket))
}

#[tokio::test]
async fn lines_that_say_no_token_keep_nobody_from_looking_on() {
    let gateway = gateway().await;
    let mut silent = Vec::new();
    for number in 0..80 {
        silent.push(looking_on(&gateway, 2 + number % 8).await.expect("nobody is refused"));
    }
    let mut operator = looking_on(&gateway, 20).await.unwrap();
    operator.send(&json!({"token": "t"})).await;
    assert!(operator.event().await.get("endpoints").is_some());
    // Who has proven who they are stays, whoever comes.
    for number in 0..160 {
        silent.push(looking_on(&gateway, 2 + number % 8).await.expect("nobody is refused"));
    }
    assert!(operator.event().await.get("now_unix_ms").is_some());
}

#[tokio::test]
async fn a_guest_that_asks_nothing_is_closed_in_seconds_and_one_address_has_few() {
    let gateway = gateway().await;
    let began = Instant::now();
    let mut first = connect_from(2, gateway.admin).await.unwrap();
    first.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    // It is there before the others come.
    assert_eq!(exchange(gateway.admin, "GET", "/livez", ELSEWHERE, b"").await.status, 200);
    let mut others = Vec::new();
    for _ in 0..16 {
        others.push(connect_from(2, gateway.admin).await.unwrap());
    }
    // The oldest made room for the last.
    let _ = soon("its end", first.read_to_end(&mut Vec::new())).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    for mut other in others {
        let _ = soon("its end", other.read_to_end(&mut Vec::new())).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    assert!((4.5..10.0).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn where_there_is_a_token_changes_ask_for_it_on_this_machine_too() {
    let gateway = gateway().await;
    for (path, body) in [("/endpoints/sim", &b"{\"state\":\"cordoned\"}"[..]), ("/limits/latency", b"{}")] {
        let bare = exchange(gateway.admin, "PATCH", path, "", body).await;
        assert_eq!(bare.status, 401, "{path}");
        // Who only looks is asked for nothing.
        let table = path.rsplit_once('/').unwrap().0;
        assert_eq!(exchange(gateway.admin, "GET", table, "", b"").await.status, 200, "{table}");
        let proven = exchange(gateway.admin, "PATCH", path, "authorization: Bearer t\r\n", body).await;
        assert_eq!(proven.status, 200, "{path}: {proven:?}");
    }
}
