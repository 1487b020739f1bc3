//! The WebSocket: turns over a real socket, by tungstenite and by hand.

use crate::support::{Gateway, begun, kinds, request, simulated, soon, text, upstream};
use flashlane_testkit::upstream::{Upstream, chat_events, stream};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

fn create(input: &str) -> Value {
    json!({"type": "response.create", "model": "demo", "input": input, "store": false})
}

#[tokio::test]
async fn turns_follow_each_other_and_a_chain_sends_only_what_is_new() {
    let script = [stream(&chat_events(&["Hello", " there"])), vec![flashlane_testkit::upstream::Step::Again]].concat();
    let upstream_server = Upstream::start(vec![script]).await.unwrap();
    let gateway = Gateway::start(upstream(&upstream_server.base_url())).await;
    let mut socket = gateway.websocket().await;
    let events = socket.turn(&create("first")).await;
    assert_eq!(kinds(&events)[..2], ["response.created", "response.in_progress"]);
    let response = &events.last().unwrap()["response"];
    assert_eq!(text(response), "Hello there");

    let mut second = create("second");
    second["previous_response_id"] = response["id"].clone();
    socket.turn(&second).await;
    let seen = upstream_server.until(|seen| seen.requests.len() == 2).await;
    let body: Value = serde_json::from_slice(&seen.requests[1].body).unwrap();
    let said: Vec<_> = body["messages"].as_array().unwrap().iter().map(|message| message["content"].clone()).collect();
    assert_eq!(said, ["first", "Hello there", "second"]);
}

#[tokio::test]
async fn a_warm_up_is_answered_at_once_and_goes_nowhere() {
    let upstream_server = Upstream::start(vec![begun()]).await.unwrap();
    let gateway = Gateway::start(upstream(&upstream_server.base_url())).await;
    let mut socket = gateway.websocket().await;
    let mut warm_up = create("hello");
    warm_up["generate"] = Value::from(false);
    assert_eq!(kinds(&socket.turn(&warm_up).await), ["response.created", "response.completed"]);
    assert!(upstream_server.seen().requests.is_empty());
}

#[tokio::test]
async fn an_interrupt_gets_through_while_the_answer_streams() {
    let upstream_server = Upstream::start(vec![begun(), stream(&chat_events(&["next"]))]).await.unwrap();
    let gateway = Gateway::start(upstream(&upstream_server.base_url())).await;
    let mut socket = gateway.websocket().await;
    socket.send(&create("hello")).await;
    let events = socket.until("response.output_text.delta").await;
    let id = events[0]["response"]["id"].clone();
    socket.send(&json!({"type": "response.interrupt", "response_id": id, "mode": "discard_partial_items"})).await;
    let events = socket.until("response.incomplete").await;
    let kinds = kinds(&events);
    assert!(kinds.contains(&"response.interrupt.accepted") && kinds.contains(&"response.output_item.interrupted"));
    assert_eq!(events.last().unwrap()["response"]["incomplete_details"]["reason"], "interrupted");
    soon("the upstream to be cancelled", upstream_server.until(|seen| seen.closed[0].is_some())).await;
    assert_eq!(text(&socket.turn(&create("again")).await.last().unwrap()["response"]), "next");
}

#[tokio::test]
async fn the_socket_stays_open_after_a_bad_message() {
    let gateway = Gateway::start(simulated()).await;
    let mut socket = gateway.websocket().await;
    socket.0.send(Message::text("{\"type\":")).await.unwrap();
    let error = socket.event().await;
    assert_eq!(
        (&error["type"], &error["status"], &error["error"]["code"]),
        (&json!("error"), &json!(400), &json!("invalid_json"))
    );
    socket.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    let error = socket.event().await;
    assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!("invalid_request_error")));
    socket.send(&json!({"type": "response.steal"})).await;
    assert_eq!(socket.event().await["type"], "error");
    socket.turn(&create("hello")).await;
}

#[tokio::test]
async fn pings_are_answered_and_a_close_is_closed() {
    let gateway = Gateway::start(simulated()).await;
    let mut socket = gateway.websocket().await;
    socket.0.send(Message::Ping("beat".into())).await.unwrap();
    assert_eq!(socket.message().await, Some(Message::Pong("beat".into())));
    socket.0.close(None).await.unwrap();
    assert!(matches!(socket.message().await, Some(Message::Close(_))));
    assert_eq!(socket.message().await, None);
}

/// A client by hand: every byte as it is told.
pub struct Raw {
    pub stream: TcpStream,
    head: String,
}

impl Raw {
    pub async fn connect(gateway: &Gateway, fields: &str) -> Self {
        let mut stream = gateway.connect().await;
        let fields = format!(
            "connection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}"
        );
        stream.write_all(&request("GET", "/v1/responses", &fields, b"")).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon("the handshake", stream.read_u8()).await.unwrap());
        }
        Self { stream, head: String::from_utf8(head).unwrap() }
    }

    async fn frame(&mut self, first: u8, payload: &[u8]) {
        self.stream.write_all(&masked(first, payload)).await.unwrap();
    }

    /// A server's frame: its first byte and its payload.
    pub async fn read(&mut self) -> (u8, Vec<u8>) {
        let first = soon("a frame", self.stream.read_u8()).await.unwrap();
        let length = match self.stream.read_u8().await.unwrap() {
            126 => usize::from(self.stream.read_u16().await.unwrap()),
            127 => usize::try_from(self.stream.read_u64().await.unwrap()).unwrap(),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.unwrap();
        (first, payload)
    }
}

pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..126) => frame.push(0x80 | length as u8),
        Ok(length) => frame.extend([&[0xfe][..], &length.to_be_bytes()].concat()),
        Err(_) => frame.extend([&[0xff][..], &(payload.len() as u64).to_be_bytes()].concat()),
    }
    frame.extend_from_slice(&[1, 2, 3, 4]);
    frame.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
/// A final text frame of a compressed message.
const COMPRESSED: u8 = 0xc1;

#[tokio::test]
async fn a_message_may_come_in_fragments_byte_by_byte_with_a_ping_between() {
    let gateway = Gateway::start(simulated()).await;
    let mut client = Raw::connect(&gateway, "").await;
    assert!(client.head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{}", client.head);
    let message = json!({"type": "response.create", "model": "demo", "input": "héllo", "generate": false}).to_string();
    let (first, second) = message.as_bytes().split_at(message.len() / 2);
    let bytes = [masked(0x01, first), masked(0x89, b"now"), masked(0x80, second)].concat();
    for byte in bytes {
        client.stream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(client.read().await, (0x8a, b"now".to_vec()));
    let (first, payload) = client.read().await;
    let event: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!((first, &event["type"]), (TEXT, &json!("response.created")));
}

#[tokio::test]
async fn a_message_behind_the_handshake_in_the_same_packet_is_not_lost() {
    let gateway = Gateway::start(simulated()).await;
    let mut stream = gateway.connect().await;
    let fields = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut bytes = request("GET", "/v1/responses", fields, b"");
    bytes.extend(masked(0x89, b"early"));
    stream.write_all(&bytes).await.unwrap();
    let mut reply = Vec::new();
    while !reply.ends_with(b"\x8a\x05early") {
        reply.push(soon("the pong", stream.read_u8()).await.unwrap());
    }
}

#[tokio::test]
async fn a_broken_frame_is_answered_by_its_close_code_and_the_end() {
    let gateway = Gateway::start(simulated()).await;
    for (bytes, code) in [
        (vec![TEXT, 2, b'h', b'i'], 1002u16), // not masked
        (masked(0xb1, b"x"), 1002),           // reserved bits
        (masked(TEXT, b"\xff"), 1007),        // not UTF-8
    ] {
        let mut client = Raw::connect(&gateway, "").await;
        client.stream.write_all(&bytes).await.unwrap();
        let (first, payload) = client.read().await;
        assert_eq!((first, payload[..2].to_vec()), (CLOSE, code.to_be_bytes().to_vec()), "{bytes:?}");
        assert_eq!(soon("the end", client.stream.read(&mut [0; 1])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_message_over_the_limit_closes_1009() {
    let gateway = Gateway::start_with(simulated(), |config, _| config.limits.message_bytes_max = 1000).await;
    let mut client = Raw::connect(&gateway, "").await;
    client.frame(TEXT, &[b' '; 1001]).await;
    let (first, payload) = client.read().await;
    assert_eq!((first, payload[..2].to_vec()), (CLOSE, 1009u16.to_be_bytes().to_vec()));
}

#[tokio::test]
async fn a_client_that_offers_deflate_gets_it_with_context_takeover() {
    let gateway = Gateway::start(simulated()).await;
    let offer = "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n";
    let mut client = Raw::connect(&gateway, offer).await;
    let head = client.head.to_ascii_lowercase();
    assert!(head.contains("sec-websocket-extensions: permessage-deflate"), "{head}");
    let mut compressor = Compress::new(Compression::default(), false);
    let mut decompressor = Decompress::new(false);
    let mut sizes = Vec::new();
    for _ in 0..2 {
        let message = json!({"type": "response.create", "model": "demo", "input": "count from 1 to 9", "store": false})
            .to_string();
        let compressed = deflate(&mut compressor, message.as_bytes());
        sizes.push(compressed.len());
        client.frame(COMPRESSED, &compressed).await;
        loop {
            let (first, payload) = client.read().await;
            let payload = if first == COMPRESSED { inflate(&mut decompressor, &payload) } else { payload };
            let event: Value = serde_json::from_slice(&payload).unwrap();
            assert_ne!(event["type"], "error", "{event}");
            if event["type"] == "response.completed" {
                assert_eq!(first, COMPRESSED, "a long event goes out compressed");
                break;
            }
        }
    }
    assert!(sizes[1] * 2 < sizes[0], "the second message refers to the first: {sizes:?}");

    let gateway = Gateway::start_with(simulated(), |config, _| config.websocket_deflate = false).await;
    let client = Raw::connect(&gateway, offer).await;
    assert!(!client.head.to_ascii_lowercase().contains("sec-websocket-extensions"), "{}", client.head);
}

/// RFC 7692, 7.2.1: without the empty block at the end.
fn deflate(compressor: &mut Compress, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 100);
    compressor.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
    out.truncate(out.len() - 4);
    out
}

fn inflate(decompressor: &mut Decompress, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    decompressor.decompress_vec(&input, &mut out, FlushDecompress::Sync).unwrap();
    out
}

#[tokio::test]
async fn a_timing_event_follows_each_response_where_the_handshake_asked_for_it() {
    let gateway = Gateway::start(simulated()).await;
    for asks in ["x-flashlane-timing: 1\r\n", "x-responsesapi-include-timing-metrics: true\r\n"] {
        let mut client = Raw::connect(&gateway, asks).await;
        // The second comes in two halves, in a lane that the first has left.
        for halves in [1, 2] {
            let frame = masked(TEXT, create("hello").to_string().as_bytes());
            for part in frame.chunks(frame.len().div_ceil(halves)) {
                client.stream.write_all(part).await.unwrap();
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            let mut events = Vec::new();
            while events.last().is_none_or(|event: &Value| event["type"] != "responsesapi.websocket_timing") {
                let (_, payload) = client.read().await;
                events.push(serde_json::from_slice(&payload).unwrap());
            }
            // Codex reads no further than the last event: for it, it comes before that.
            if asks.contains("metrics") {
                events.push(serde_json::from_slice(&client.read().await.1).unwrap());
                let end = events.len();
                events.swap(end - 2, end - 1);
            }
            let [.., terminal, told] = &*events else { panic!("{events:?}") };
            assert_eq!(terminal["type"], "response.completed");
            assert_eq!(told["response_id"], terminal["response"]["id"]);
            let receive_ms = told["timing"]["parts"]["receive_ms"].as_f64().unwrap();
            assert_eq!(receive_ms >= 50.0, halves == 2, "{told}");
        }
    }
}
