//! More clients than there are places: who comes is told, and so are operators.

use crate::support::{Gateway, Reply, exchange, request, simulated, soon};
use crate::tls::Identity;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn small() -> Gateway {
    Gateway::start_with(simulated(), |config, _| config.limits.connections_max = 2).await
}

/// A connection that has its place, and keeps it.
async fn settled(gateway: &Gateway) -> TcpStream {
    let mut stream = gateway.connect().await;
    stream.write_all(&request("GET", "/v1/models", "", b"")).await.unwrap();
    assert!(soon("an answer", stream.read(&mut [0; 4096])).await.unwrap() > 0);
    stream
}

#[tokio::test]
async fn who_finds_no_place_is_told_by_a_503_and_operators_by_a_metric() {
    let gateway = small().await;
    let first = settled(&gateway).await;
    let second = settled(&gateway).await;
    let refused = exchange(gateway.address, "GET", "/v1/models", "", b"").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(refused.header("x-request-id").unwrap().starts_with("req_"));
    assert_eq!(refused.json()["error"]["code"], "server_is_overloaded");
    // All stays taken: the next are told at once.
    let began = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(exchange(gateway.address, "GET", "/v1/models", "", b"").await.status, 503);
    }
    assert!(began.elapsed().as_millis() < 2_000, "{:?}", began.elapsed());
    let metrics = gateway.metrics().await;
    for line in [
        "flashlane_connections_held 2\n",
        "flashlane_connections_max 2\n",
        "flashlane_excess_refused_total{reason=\"connections\"} 11\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
    drop(first);
    soon("a place", async { while exchange(gateway.address, "GET", "/v1/models", "", b"").await.status != 200 {} })
        .await;
    drop(second);
}

#[tokio::test]
async fn a_place_that_is_given_back_in_a_moment_is_waited_for() {
    let gateway = small().await;
    let (_first, second) = (settled(&gateway).await, settled(&gateway).await);
    let mut waiting = gateway.connect().await;
    waiting.write_all(&request("GET", "/v1/models", "connection: close\r\n", b"")).await.unwrap();
    tokio::task::yield_now().await;
    drop(second);
    let mut bytes = Vec::new();
    soon("an answer", waiting.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(Reply::parse(&bytes).status, 200);
}

#[tokio::test]
async fn over_tls_who_finds_no_place_is_closed() {
    let identity = Identity::new();
    let gateway = Gateway::start_with(simulated(), |config, _| {
        config.limits.connections_max = 1;
        config.tls = Some(identity.config());
    })
    .await;
    // In its handshake, it has a place.
    let mut held = gateway.connect().await;
    held.write_all(&[22, 3, 1]).await.unwrap();
    let mut refused = gateway.connect().await;
    refused.write_all(&[22, 3, 1]).await.unwrap();
    let read = soon("its end", refused.read_to_end(&mut Vec::new())).await;
    assert!(read.is_err() || read.is_ok_and(|bytes| bytes == 0));
    assert!(gateway.metrics().await.contains("flashlane_excess_refused_total{reason=\"connections\"} 1\n"));
}
