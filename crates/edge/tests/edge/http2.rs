//! HTTP/2 as it should not be, by frames made by hand: floods end in GOAWAY after a bounded number of frames, and what a client does not read
//! is not generated for ever.

use crate::support::{Gateway, Reply, begun, simulated, soon, upstream};
use flashlane_testkit::upstream::{Seen, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Of what is sent until GOAWAY comes: the sockets' buffers, and some.
const FLOOD_BYTES_MAX: usize = 32 << 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /v1/models`, and fields, without Huffman's coding.
fn request_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    let mut put = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        assert!(value.len() < 127);
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    };
    put(&[0x01], "localhost");
    put(&[0x04], "/v1/models");
    for (name, value) in fields {
        put(&[&[0x00, name.len() as u8], name.as_bytes()].concat(), value);
    }
    block
}

async fn connected(gateway: &Gateway) -> TcpStream {
    let mut stream = gateway.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// Every frame that came, as its kind and payload, until the connection's end.
fn frames(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        frames.push((head[3], payload));
        bytes = rest;
    }
    frames
}

/// Sends what `make` gives until the connection ends. The code of GOAWAY.
async fn flooded(gateway: &Gateway, mut make: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let (mut from, mut to) = connected(gateway).await.into_split();
    let flood = async {
        let mut sent = 0;
        for number in 0.. {
            let bytes = make(number);
            sent += bytes.len();
            assert!(sent < FLOOD_BYTES_MAX, "{number} frames, and nobody minds");
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let mut said = Vec::new();
    let listen = async { while from.read_buf(&mut said).await.is_ok_and(|count| count > 0) {} };
    soon("the flood's end", async { tokio::join!(flood, listen) }).await;
    let goaway = frames(&said).into_iter().rfind(|(kind, _)| *kind == GOAWAY);
    let (_, payload) = goaway.expect("GOAWAY");
    u32::from_be_bytes(payload[4..8].try_into().unwrap())
}

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

#[tokio::test]
async fn floods_of_frames_that_bring_nothing_end_in_goaway() {
    let gateway = Gateway::start(simulated()).await;
    let pings = flooded(&gateway, |_| frame(PING, 0, 0, &[7; 8]).repeat(10)).await;
    let settings = flooded(&gateway, |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(10)).await;
    let priorities = flooded(&gateway, |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]).repeat(10)).await;
    let block = request_block(&[]);
    let empty = flooded(&gateway, |number| match number {
        0 => frame(HEADERS, END_HEADERS, 1, &block),
        _ => frame(DATA, 0, 1, b"").repeat(10),
    });
    assert_eq!([pings, settings, priorities], [PROTOCOL_ERROR; 3]);
    assert!([PROTOCOL_ERROR, ENHANCE_YOUR_CALM].contains(&empty.await));
    assert_eq!(gateway.get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn requests_that_are_reset_at_once_end_in_goaway() {
    let gateway = Gateway::start(simulated()).await;
    let block = request_block(&[]);
    let resets = flooded(&gateway, |number| {
        let stream = number * 2 + 1;
        let request = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
        [request, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    assert!([PROTOCOL_ERROR, ENHANCE_YOUR_CALM].contains(&resets.await));
    assert_eq!(gateway.get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn a_head_without_an_end_ends_in_goaway() {
    let gateway = Gateway::start(simulated()).await;
    let filler = request_block(&[]);
    let fields = |name: &str| [&[0x00, name.len() as u8], name.as_bytes(), &[1, b'y']].concat().repeat(1000);
    let big = fields("x-flood");
    let code = flooded(&gateway, |number| match number {
        0 => frame(HEADERS, END_STREAM, 1, &filler),
        _ => frame(CONTINUATION, 0, 1, &big),
    });
    assert_eq!(code.await, ENHANCE_YOUR_CALM);
    // As many as are counted, and one that costs next to nothing.
    let code = flooded(&gateway, |number| match number {
        0 => frame(HEADERS, END_STREAM, 1, &filler),
        _ => frame(CONTINUATION, 0, 1, &[]),
    });
    assert!([PROTOCOL_ERROR, ENHANCE_YOUR_CALM].contains(&code.await));
}

#[tokio::test]
async fn more_fields_than_are_allowed_are_refused_and_the_connection_goes_on() {
    let gateway = Gateway::start(simulated()).await;
    let (mut from, mut to) = connected(&gateway).await.into_split();
    let many = request_block(&vec![("x", "y"); 101]);
    let few = request_block(&[("x", "y")]);
    to.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &many)).await.unwrap();
    to.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &few)).await.unwrap();
    let mut said = Vec::new();
    let heads = soon("two answers", async {
        loop {
            assert!(from.read_buf(&mut said).await.unwrap() > 0);
            let heads: Vec<_> = frames(&said).into_iter().filter(|(kind, _)| *kind == HEADERS).collect();
            if let [(_, first), (_, second)] = heads[..] {
                return [first[0], second[0]];
            }
        }
    });
    // `:status 200` is in HPACK's table, 431 is not: a value behind the name of entry 8.
    let [first, second] = heads.await;
    assert_eq!((first & 0x3f, second), (0x08, 0x88));
}

/// A request for a stream of events.
fn create(id: u32) -> Vec<u8> {
    let body = serde_json::json!({"model": "demo", "input": "hi", "stream": true}).to_string();
    let head = [&[0x83, 0x86, 0x04, 13][..], b"/v1/responses", &[0x01, 9], b"localhost"].concat();
    [frame(HEADERS, END_HEADERS, id, &head), frame(DATA, END_STREAM, id, body.as_bytes())].concat()
}

/// What came of one kind, as its stream and payload.
fn of_kind(bytes: &[u8], wanted: u8) -> Vec<(u32, Vec<u8>)> {
    let mut at = 0;
    let mut found = Vec::new();
    for (kind, payload) in frames(bytes) {
        if kind == wanted {
            let id = u32::from_be_bytes(bytes[at + 5..at + 9].try_into().unwrap());
            found.push((id, payload.to_vec()));
        }
        at += 9 + payload.len();
    }
    found
}

const CANCEL: [u8; 4] = 8_u32.to_be_bytes();

#[tokio::test]
async fn a_stream_whose_window_is_never_opened_is_reset_alone_and_its_upstream_cut() {
    let server = Upstream::start(vec![begun()]).await.unwrap();
    let gateway = Gateway::start_with(upstream(&server.base_url()), |config, _| {
        config.limits.write_stall_ms_max = 500;
    });
    let gateway = gateway.await;
    let mut stream = connected(&gateway).await;
    // No stream may be sent a byte of its body, but for the second.
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
    for id in [1, 3, 5] {
        stream.write_all(&create(id)).await.unwrap();
    }
    stream.write_all(&frame(WINDOW_UPDATE, 0, 3, &[0, 1, 0, 0])).await.unwrap();
    let began = std::time::Instant::now();
    let mut said = Vec::new();
    let resets = soon("two resets", async {
        loop {
            assert!(stream.read_buf(&mut said).await.unwrap() > 0, "the connection goes on");
            let resets = of_kind(&said, RST_STREAM);
            if resets.len() == 2 {
                return resets;
            }
        }
    });
    let mut resets = resets.await;
    resets.sort_unstable();
    assert_eq!(resets, [(1, CANCEL.to_vec()), (5, CANCEL.to_vec())]);
    assert!(began.elapsed() >= std::time::Duration::from_millis(500), "{:?}", began.elapsed());
    let ended = |seen: &Seen| seen.requests.iter().filter(|request| request.ended.is_some()).count();
    soon("the cancels", server.until(|seen| seen.requests.len() == 3 && ended(seen) == 2)).await;
    // The second is still answered, and so is who comes now.
    assert!(of_kind(&said, DATA).iter().any(|(id, _)| *id == 3));
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 7, &request_block(&[]))).await.unwrap();
    soon("an answer", async {
        while !of_kind(&said, HEADERS).iter().any(|(id, _)| *id == 7) {
            assert!(stream.read_buf(&mut said).await.unwrap() > 0);
        }
    })
    .await;
    assert_eq!(ended(&server.seen()), 2);
    assert!(gateway.metrics().await.contains("flashlane_clients_cut_total{reason=\"stalled\"} 2\n"));
}

#[tokio::test]
async fn an_answer_in_one_piece_that_is_not_taken_is_reset_too() {
    let gateway = Gateway::start_with(simulated(), |config, _| config.limits.write_stall_ms_max = 300).await;
    let mut stream = connected(&gateway).await;
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request_block(&[]))).await.unwrap();
    let mut said = Vec::new();
    soon("a reset", async {
        while of_kind(&said, RST_STREAM) != [(1, CANCEL.to_vec())] {
            assert!(stream.read_buf(&mut said).await.unwrap() > 0, "the connection goes on");
        }
    })
    .await;
}

#[tokio::test]
async fn what_only_begins_like_http2_is_no_request() {
    let gateway = Gateway::start(simulated()).await;
    let reply: Reply = gateway.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n \r\n").await;
    assert_eq!(reply.status, 400);
    let mut stream = gateway.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[0xff; 64]).await.unwrap();
    let mut said = Vec::new();
    soon("the end", stream.read_to_end(&mut said)).await.unwrap();
    assert!(frames(&said).iter().any(|(kind, _)| *kind == GOAWAY));
}
