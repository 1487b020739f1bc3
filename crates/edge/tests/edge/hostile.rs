//! WebSocket clients that send little, slowly, or more than it looks like: each limit ends their connection, with its code.

use crate::support::{Gateway, simulated, soon};
use crate::websocket::{Raw, masked};
use flashlane_edge::LimitsConfig;
use flate2::{Compress, Compression, FlushCompress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const CLOSE: u8 = 0x88;
const POLICY: u16 = 1008;
const TOO_BIG: u16 = 1009;
const TRY_AGAIN_LATER: u16 = 1013;

async fn limited(edit: impl FnOnce(&mut LimitsConfig)) -> Gateway {
    Gateway::start_with(simulated(), |config, _| edit(&mut config.limits)).await
}

/// Waits for the close frame, past pongs and errors, and for the end.
async fn closed(client: &mut Raw) -> u16 {
    let code = loop {
        let (first, payload) = client.read().await;
        if first == CLOSE {
            break u16::from_be_bytes(payload[..2].try_into().unwrap());
        }
    };
    let _ = soon("the end", client.stream.read(&mut [0; 1])).await;
    code
}

#[tokio::test]
async fn a_message_of_too_many_frames_is_closed() {
    let gateway = limited(|limits| limits.message_fragments_max = 3).await;
    let mut client = Raw::connect(&gateway, "").await;
    client.stream.write_all(&[masked(0x01, b"{"), masked(0x00, b"").repeat(3)].concat()).await.unwrap();
    assert_eq!(closed(&mut client).await, POLICY);
}

#[tokio::test]
async fn a_message_that_does_not_end_is_closed_when_its_time_is_over() {
    let gateway = limited(|limits| limits.message_ms_max = 100).await;
    let mut client = Raw::connect(&gateway, "").await;
    client.stream.write_all(&masked(0x01, b"{")).await.unwrap();
    assert_eq!(closed(&mut client).await, POLICY);
    // A frame that never ends is no better.
    let mut client = Raw::connect(&gateway, "").await;
    client.stream.write_all(&masked(0x81, &[b' '; 1000])[..500]).await.unwrap();
    assert_eq!(closed(&mut client).await, POLICY);
}

#[tokio::test]
async fn half_sent_messages_are_bounded_over_all_connections() {
    let gateway = limited(|limits| limits.assembling_bytes_max = 3 << 20).await;
    let half = &masked(0x81, &vec![b' '; 8 << 20])[..1 << 20];
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = Raw::connect(&gateway, "").await;
        client.stream.write_all(half).await.unwrap();
        clients.push(client);
    }
    let mut closed_count = 0;
    for client in &mut clients {
        if tokio::time::timeout(std::time::Duration::from_millis(200), closed(client)).await == Ok(TRY_AGAIN_LATER) {
            closed_count += 1;
        }
    }
    assert!((47..50).contains(&closed_count), "{closed_count} of 50 were closed");
    drop(clients);
    // What they held is there for others again.
    let mut client = Raw::connect(&gateway, "").await;
    client.stream.write_all(&[masked(0x01, &vec![b' '; 1 << 20]), masked(0x80, b"")].concat()).await.unwrap();
    assert_ne!(client.read().await.0, CLOSE);
}

#[tokio::test]
async fn half_sent_bodies_are_bounded_over_all_connections() {
    let gateway = limited(|limits| limits.assembling_bytes_max = 3 << 20).await;
    let head = "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8000000\r\n\r\n".as_bytes();
    let half = [head, &vec![b' '; 1 << 20]].concat();
    let mut clients = Vec::new();
    let mut refused = 0;
    for _ in 0..12 {
        let mut client = gateway.connect().await;
        // Who is refused is not read to its end.
        let _ = client.write_all(&half).await;
        let mut said = [0; 1024];
        if let Ok(Ok(count)) = tokio::time::timeout(std::time::Duration::from_millis(200), client.read(&mut said)).await
        {
            let said = String::from_utf8_lossy(&said[..count]);
            assert!(said.starts_with("HTTP/1.1 503") && said.contains("retry-after: 1"), "{said}");
            refused += 1;
        }
        clients.push(client);
    }
    assert!((9..12).contains(&refused), "{refused} of 12 were refused");
    let metrics = gateway.metrics().await;
    assert!(metrics.contains(&format!("flashlane_clients_cut_total{{reason=\"crowded\"}} {refused}")), "{metrics}");
    drop(clients);
    // What they held is there for others again.
    let body =
        serde_json::json!({"model": "demo", "input": "hi", "metadata": {"a": "b"}, "ignored": " ".repeat(2 << 20)});
    let served = async { while gateway.post("/v1/responses", &body).await.status != 200 {} };
    soon("room", served).await;
}

#[tokio::test]
async fn a_flood_of_pings_is_closed_within_a_second() {
    let gateway = limited(|_| {}).await;
    let mut client = Raw::connect(&gateway, "").await;
    let began = std::time::Instant::now();
    let flood = masked(0x89, &[b'x'; 125]).repeat(100);
    client.stream.write_all(&flood).await.unwrap();
    assert_eq!(closed(&mut client).await, POLICY);
    assert!(began.elapsed().as_millis() < 1000);
}

#[tokio::test]
async fn a_gigabyte_in_a_megabyte_is_cut_off_at_the_limit() {
    let gateway = limited(|_| {}).await;
    // A megabyte of zeros that refers to nothing before it, a thousand times.
    let mut piece = Vec::with_capacity(4096);
    let mut compressor = Compress::new(Compression::best(), false);
    compressor.compress_vec(&vec![0; 1 << 20], &mut piece, FlushCompress::Full).unwrap();
    let bomb = piece.repeat(1024);
    assert!(bomb.len() < 2 << 20, "{} bytes", bomb.len());
    let mut client = Raw::connect(&gateway, "sec-websocket-extensions: permessage-deflate\r\n").await;
    let _ = client.stream.write_all(&masked(0xc1, &bomb)).await;
    assert_eq!(closed(&mut client).await, TOO_BIG);
    let metrics = gateway.metrics().await;
    assert!(metrics.contains("flashlane_clients_cut_total{reason=\"large\"} 1"), "{metrics}");
}
