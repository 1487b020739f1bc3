//! Two properties of `wire::websocket`: any split of the same bytes gives the same events and the same error, and what the encoder writes
//! is what the decoder reads.

#![no_main]

use flashlane_wire::websocket::{Decoder, Deflate, Encoder, Error, Event, Limits};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { message_bytes_max: 10_000, message_fragments_max: 20, pings_per_second_max: 10 };
const OFFERS: [&str; 3] = [
    "permessage-deflate",
    "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; server_max_window_bits=9",
];

fuzz_target!(|input: &[u8]| {
    let [offer, cuts, round_trip, input @ ..] = input else { return };
    let deflate =
        OFFERS.get(usize::from(offer % 4)).and_then(|offer| Deflate::negotiate(offer)).map(|(deflate, _)| deflate);
    if round_trip % 2 == 0 {
        let whole = decode(deflate, input, |_| usize::MAX);
        assert_eq!(whole, decode(deflate, input, |at| piece_bytes(*cuts, at)));
    } else {
        there_and_back(deflate, *cuts, input);
    }
});

/// The length of the piece that begins at `at`: one byte, or some, or many.
fn piece_bytes(cuts: u8, at: usize) -> usize {
    1 + (usize::from(cuts).wrapping_mul(at + 1) >> 3) % (1 + usize::from(cuts) * 4)
}

#[derive(Debug, PartialEq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Control(u8, Vec<u8>),
    Close(Option<(u16, String)>),
}

fn decode(deflate: Option<Deflate>, input: &[u8], piece_bytes: impl Fn(usize) -> usize) -> (Vec<Seen>, Option<Error>) {
    let mut decoder = Decoder::new(LIMITS, deflate);
    let mut input = input.to_vec();
    let mut rest = input.as_mut_slice();
    let (mut seen, mut at) = (Vec::new(), 0);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at_mut(piece_bytes(at).min(rest.len()));
        at += piece.len();
        let result = decoder.decode(piece, 0, |event| {
            seen.push(match event {
                Event::Text(text) => Seen::Text(text.to_owned()),
                Event::Binary(bytes) => Seen::Binary(bytes.to_vec()),
                Event::Ping(payload) => Seen::Control(9, payload.to_vec()),
                Event::Pong(payload) => Seen::Control(10, payload.to_vec()),
                Event::Close(frame) => Seen::Close(frame.map(|frame| (frame.code, frame.reason.to_owned()))),
            });
        });
        if let Err(error) = result {
            return (seen, Some(error));
        }
        rest = after;
    }
    (seen, None)
}

/// Encodes messages, masks and fragments their frames as a client would, and decodes them.
fn there_and_back(deflate: Option<Deflate>, cuts: u8, input: &[u8]) {
    let mut encoder = Encoder::new(deflate);
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    let mut rest = input;
    while let [kind, length, repeat, after @ ..] = rest {
        let (message, after) = after.split_at(usize::from(*length).min(after.len()));
        let message = message.repeat(1 + usize::from(repeat % 32));
        rest = after;
        let mut out = Vec::new();
        let mark = encoder.begin(&mut out);
        out.extend_from_slice(&message);
        match String::from_utf8(message) {
            Ok(text) if kind & 1 == 0 => {
                encoder.finish(mark, &mut out);
                expected.push(Seen::Text(text));
            }
            text => {
                encoder.finish_binary(mark, &mut out);
                expected.push(Seen::Binary(text.map_or_else(|error| error.into_bytes(), String::into_bytes)));
            }
        }
        put_client_frames(&out, kind & 2 != 0, &mut sent);
        if kind & 4 != 0 {
            encoder.rest();
        }
    }
    assert_eq!(decode(deflate, &sent, |at| piece_bytes(cuts, at)), (expected, None));
}

fn put_client_frames(server_frame: &[u8], fragmented: bool, sent: &mut Vec<u8>) {
    let head_bytes = match server_frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let (first, payload) = (server_frame[0], &server_frame[head_bytes..]);
    if fragmented {
        let (piece, after) = payload.split_at(payload.len() / 3);
        put_client_frame(first & 0x7f, piece, sent);
        put_client_frame(0x80, after, sent);
    } else {
        put_client_frame(first, payload, sent);
    }
}

fn put_client_frame(first: u8, payload: &[u8], sent: &mut Vec<u8>) {
    let mask = [0x5a, 0x01, 0xfe, 0x33];
    sent.push(first);
    match u16::try_from(payload.len()) {
        Ok(length @ 0..126) => sent.push(0x80 | length as u8),
        Ok(length) => {
            sent.push(0xfe);
            sent.extend(length.to_be_bytes());
        }
        Err(_) => {
            sent.push(0xff);
            sent.extend((payload.len() as u64).to_be_bytes());
        }
    }
    sent.extend(mask);
    sent.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}
