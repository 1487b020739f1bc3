//! Any split of the same bytes gives the same events and the same error.

use flashlane_wire::websocket::{Deflate, Limits};

use crate::chance::Chance;
use crate::client::*;

const LIMITS: Limits = Limits { message_bytes_max: 20_000, message_fragments_max: 50, pings_per_second_max: 1_000 };

fn whole_is_pieces(deflate: Option<Deflate>, bytes: &[u8], cuts: &[usize]) {
    assert_eq!(
        decode_pieces(LIMITS, deflate, bytes, cuts),
        decode(LIMITS, deflate, bytes),
        "cuts {cuts:?} of {bytes:x?}"
    );
}

#[test]
fn every_two_cuts_of_a_short_conversation() {
    let mut client = Compressor::new();
    let compressed = client.message("aaaa bbbb aaaa 語".as_bytes());
    let bytes = [
        frame(FIN | TEXT, "grüße".as_bytes()),
        frame(RSV1 | TEXT, &compressed[..4]),
        frame(FIN | PING, b"ping"),
        frame(FIN, &compressed[4..]),
        frame(FIN | RSV1 | BINARY, &client.message(&[b'z'; 1_000])),
        frame(BINARY, &[1, 2, 3]),
        frame(FIN, &[]),
        frame(FIN | BINARY, &[9; 130]),
        frame(FIN | CLOSE, &[0x03, 0xe8, b'o', b'k']),
    ]
    .concat();
    let deflate = Some(negotiated("permessage-deflate"));
    let (seen, result) = decode(LIMITS, deflate, &bytes);
    assert_eq!((seen.len(), result), (7, Ok(())));
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            whole_is_pieces(deflate, &bytes, &[first, second]);
        }
    }
    let every_byte: Vec<usize> = (0..bytes.len()).collect();
    whole_is_pieces(deflate, &bytes, &every_byte);
}

/// A conversation of some messages, fragmented and compressed at random, and now and then wrong.
fn conversation(chance: &mut Chance) -> Vec<u8> {
    let mut client = Compressor::new();
    let mut bytes = Vec::new();
    for _ in 0..1 + chance.below(6) {
        let compressed = chance.below(2) == 0;
        let words = [0, 3, 40, 500, 3_000][chance.below(5)];
        let text = text(chance, words).into_bytes();
        let payload = if compressed { client.message(&text) } else { text };
        let mut first = [TEXT, BINARY][chance.below(2)] | if compressed { RSV1 } else { 0 };
        let mut rest = payload.as_slice();
        while chance.below(3) == 0 {
            let (piece, after) = rest.split_at(chance.below(rest.len() + 1));
            bytes.extend(frame(first, piece));
            (first, rest) = (CONTINUATION, after);
            if chance.below(3) == 0 {
                bytes.extend(frame(FIN | PING, &rest[..rest.len().min(10)]));
            }
        }
        bytes.extend(frame(FIN | first, rest));
    }
    while chance.below(4) == 0 {
        let at = chance.below(bytes.len());
        bytes[at] = chance.below(256) as u8;
    }
    bytes
}

#[test]
fn random_conversations_at_random_cuts() {
    let offers = ["permessage-deflate", "permessage-deflate; client_no_context_takeover"];
    let mut chance = Chance(7);
    let (mut messages, mut errors) = (0, 0);
    for round in 0..600 {
        let deflate = (round % 8 != 0).then(|| negotiated(offers[round % 2]));
        let bytes = conversation(&mut chance);
        let (seen, result) = decode(LIMITS, deflate, &bytes);
        messages += seen.len();
        errors += usize::from(result.is_err());
        let mut cuts: Vec<usize> = (0..chance.below(20)).map(|_| chance.below(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        whole_is_pieces(deflate, &bytes, &cuts);
    }
    assert!(messages > 600 && errors > 60, "{messages} messages, {errors} errors");
}

#[test]
fn random_bytes_at_random_cuts() {
    let deflate = Some(negotiated("permessage-deflate"));
    let mut chance = Chance(8);
    for _ in 0..2_000 {
        let mut bytes: Vec<u8> = (0..1 + chance.below(200)).map(|_| chance.below(256) as u8).collect();
        // A start that gets beyond the head.
        bytes.splice(0..1, head([0xc1, 0x41, 0x82, 0x89][chance.below(4)], chance.below(126) as u64, [0; 4]));
        let mut cuts: Vec<usize> = (0..chance.below(10)).map(|_| chance.below(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        whole_is_pieces(deflate, &bytes, &cuts);
    }
}
