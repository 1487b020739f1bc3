//! What the server sends: heads, compression and control frames.

use flashlane_wire::websocket::{Deflate, Encoder};

use crate::chance::Chance;
use crate::client::*;

fn put_text(encoder: &mut Encoder, payload: &str, out: &mut Vec<u8>) {
    let mark = encoder.begin(out);
    out.extend_from_slice(payload.as_bytes());
    encoder.finish(mark, out);
}

/// Encodes the texts one after another into one buffer, resting before those whose number is in `rests`.
fn encode(deflate: Option<Deflate>, texts: &[&str], rests: &[usize]) -> Vec<(u8, Vec<u8>)> {
    let mut encoder = Encoder::new(deflate);
    let mut out = Vec::new();
    for (number, payload) in texts.iter().enumerate() {
        if rests.contains(&number) {
            encoder.rest();
        }
        put_text(&mut encoder, payload, &mut out);
    }
    server_frames(&out)
}

#[test]
fn every_length_has_its_shortest_head_and_its_payload_behind_it() {
    let mut encoder = Encoder::new(None);
    let mut out = b"before".to_vec();
    let lengths = [0, 1, 2, 125, 126, 127, 200, 65_535, 65_536, 65_537, 200_000];
    for length in lengths {
        let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let begin = out.len();
        let mark = encoder.begin(&mut out);
        out.extend_from_slice(&payload);
        encoder.finish_binary(mark, &mut out);
        let head_bytes = if length < 126 {
            2
        } else if length < 65_536 {
            4
        } else {
            10
        };
        assert_eq!(out.len() - begin, head_bytes + length);
        assert_eq!(server_frames(&out[begin..]), [(FIN | BINARY, payload)]);
    }
    assert_eq!(server_frames(&out[6..]).len(), lengths.len());
    assert_eq!(&out[..6], b"before");
}

#[test]
fn compressed_messages_refer_to_earlier_ones_until_a_rest() {
    let long = text(&mut Chance(4), 300);
    let texts = [&long, &long, "short", &long, &long];
    let frames = encode(Some(negotiated("permessage-deflate")), &texts, &[3]);
    let mut client = Inflater::new();
    for ((first, payload), text) in frames.iter().zip(texts) {
        let payload = if text == "short" {
            assert_eq!(*first, FIN | TEXT);
            payload.clone()
        } else {
            assert_eq!(*first, FIN | RSV1 | TEXT);
            client.message(payload, text.len())
        };
        assert_eq!(payload, text.as_bytes());
    }
    let lengths: Vec<usize> = frames.iter().map(|(_, payload)| payload.len()).collect();
    assert!(lengths[1] < lengths[0] / 3, "{lengths:?}");
    assert_eq!(lengths[3], lengths[0], "after a rest nothing earlier is referred to");
    assert!(lengths[4] < lengths[3] / 3, "{lengths:?}");
}

#[test]
fn without_context_takeover_each_message_stands_alone() {
    let long = text(&mut Chance(5), 300);
    let frames = encode(Some(negotiated("permessage-deflate; server_no_context_takeover")), &[&long, &long], &[]);
    for (first, payload) in frames {
        assert_eq!(first, FIN | RSV1 | TEXT);
        assert_eq!(Inflater::new().message(&payload, long.len()), long.as_bytes());
    }
}

#[test]
fn any_messages_come_back_from_a_clients_inflater() {
    let mut chance = Chance(6);
    for bits in 9..=15 {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}");
        let mut encoder = Encoder::new(Some(negotiated(&offer)));
        let mut client = Inflater::new();
        for _ in 0..30 {
            let message = match chance.below(4) {
                0 => {
                    let bytes = chance.below(5_000);
                    noise(&mut chance, bytes)
                }
                1 => vec![b'x'; chance.below(100_000)],
                _ => {
                    let words = chance.below(1_000);
                    text(&mut chance, words).into_bytes()
                }
            };
            let mut out = Vec::new();
            let mark = encoder.begin(&mut out);
            out.extend_from_slice(&message);
            encoder.finish_binary(mark, &mut out);
            let [(first, payload)] = server_frames(&out).try_into().unwrap();
            let payload = if first & RSV1 == 0 { payload } else { client.message(&payload, message.len()) };
            assert!(payload == message, "{bits} bits");
            if chance.below(10) == 0 {
                encoder.rest();
            }
        }
    }
}

#[test]
fn control_frames_are_at_most_125_bytes_and_a_reason_is_cut_between_characters() {
    let mut encoder = Encoder::new(Some(negotiated("permessage-deflate")));
    let mut out = Vec::new();
    encoder.ping(b"a", &mut out);
    encoder.pong(&[7; 125], &mut out);
    encoder.pong(&[7; 200], &mut out);
    encoder.close(1000, "", &mut out);
    encoder.close(1011, &"é".repeat(100), &mut out);
    let reason = [&1011_u16.to_be_bytes()[..], "é".repeat(61).as_bytes()].concat();
    let expected = [
        (FIN | PING, b"a".to_vec()),
        (FIN | PONG, vec![7; 125]),
        (FIN | PONG, vec![7; 125]),
        (FIN | CLOSE, vec![0x03, 0xe8]),
        (FIN | CLOSE, reason),
    ];
    assert_eq!(server_frames(&out), expected);
}
