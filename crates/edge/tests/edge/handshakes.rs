//! More TLS handshakes than the gateway takes: what becomes of those who have theirs behind them, and when the next one is served.

use crate::support::{Gateway, Socket, simulated, soon};
use crate::tls::{Identity, connect, upgraded};
use flashlane_backend::EndpointConfig;
use flashlane_edge::EdgeConfig;
use rustls::version::TLS13;
use rustls_pki_types::ServerName;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Handshakes that the gateway of the flood takes in a second, and how many times that are tried.
const CAPACITY: u32 = 100;
const FLOOD: u32 = 5;
const FLOOD_TIME: Duration = Duration::from_secs(2);

/// A client's first message, as its library writes it.
fn client_hello(identity: &Identity) -> Vec<u8> {
    let client = identity.client(&["http/1.1"], &[&TLS13]);
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::clone(client.config()), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// Pauses between the tokens of a turn that runs, in milliseconds, sorted.
async fn pauses(socket: &mut Socket<TlsStream<TcpStream>>, time: Duration) -> Vec<f64> {
    let (began, mut last, mut pauses) = (Instant::now(), Instant::now(), Vec::new());
    while began.elapsed() < time {
        socket.until("response.output_text.delta").await;
        pauses.push(last.elapsed().as_secs_f64() * 1000.0);
        last = Instant::now();
    }
    pauses.sort_by(f64::total_cmp);
    pauses
}

/// Up to the server's answer: it has done its work by then.
async fn try_handshake(address: SocketAddr, hello: Vec<u8>) {
    let Ok(mut tcp) = TcpStream::connect(address).await else { return };
    let _ = tcp.write_all(&hello).await;
    let _ = tcp.read(&mut [0; 4096]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_handshakes_holds_up_no_running_stream_and_is_over_when_it_ends() {
    let identity = Identity::new();
    let tls = identity.config();
    let paced = EndpointConfig { tokens_per_second: Some(100), ..simulated() };
    let gateway = Gateway::start_with(paced, |config: &mut EdgeConfig, _| {
        config.tls = Some(tls);
        config.limits.handshakes_per_second_max = CAPACITY;
    })
    .await;
    let client = identity.client(&["http/1.1"], &[&TLS13]);
    let mut socket = upgraded(connect(&client, gateway.connect().await).await).await;
    socket.send(&json!({"type": "response.create", "model": "demo", "input": "count from 1 to 2000"})).await;
    socket.until("response.output_text.delta").await;
    let quiet = pauses(&mut socket, FLOOD_TIME).await;

    let (hello, address) = (client_hello(&identity), gateway.address);
    let flood = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / (CAPACITY * FLOOD));
        let (began, mut tried) = (Instant::now(), tokio::task::JoinSet::new());
        while began.elapsed() < FLOOD_TIME {
            ticks.tick().await;
            tried.spawn(try_handshake(address, hello.clone()));
        }
        let count = tried.len();
        tried.join_all().await;
        count
    });
    let flooded = pauses(&mut socket, FLOOD_TIME).await;
    let tried = soon("the flood", flood).await.unwrap();
    let ended = Instant::now();
    // Refused ones are closed at once: a client tries again.
    soon("a handshake", async {
        let name = ServerName::try_from("localhost").unwrap();
        while client.connect(name.clone(), gateway.connect().await).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let recovered = ended.elapsed();
    let metrics = gateway.metrics().await;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("flashlane_excess_refused_total{reason=\"handshakes_per_second\"} "));
    let refused: usize = line.unwrap().parse().unwrap();
    let of = |pauses: &[f64], percent: usize| pauses[(pauses.len() - 1) * percent / 100];
    println!(
        "{tried} handshakes in {FLOOD_TIME:?} at {FLOOD} x {CAPACITY}/s: {refused} refused; pause between tokens p50/p99 {:.1}/{:.1} ms, \
         quiet {:.1}/{:.1} ms; the next handshake {recovered:?} later",
        of(&flooded, 50),
        of(&flooded, 99),
        of(&quiet, 50),
        of(&quiet, 99),
    );
    assert!(refused * 2 > tried, "{refused} of {tried} refused");
    assert!(of(&flooded, 50) < of(&quiet, 50) * 1.5 + 5.0 && recovered < Duration::from_secs(1));
}
