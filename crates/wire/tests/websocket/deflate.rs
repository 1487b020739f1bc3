//! Compressed messages from a client: what is inflated, with which memory of earlier ones, and where it is cut off.

use flashlane_wire::websocket::{Decoder, Error, Limits, close_code};

use crate::chance::Chance;
use crate::client::*;

fn decode_messages(offer: &str, payloads: &[&[u8]]) -> (Vec<Seen>, Result<(), Error>) {
    let bytes: Vec<u8> = payloads.iter().flat_map(|payload| frame(FIN | RSV1 | TEXT, payload)).collect();
    decode(Limits::default(), Some(negotiated(offer)), &bytes)
}

#[test]
fn the_rfcs_examples_are_inflated() {
    // RFC 7692, 7.2.3: one block, one that refers to the message before it, a stored block, a last block, two blocks.
    let payloads: [&[u8]; 5] = [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        &[0xf2, 0x00, 0x11, 0x00, 0x00],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ];
    let expected = vec![Seen::Text("Hello".to_owned()); 5];
    assert_eq!(decode_messages("permessage-deflate", &payloads), (expected, Ok(())));
    assert_eq!(decode_messages("permessage-deflate", &[&[0x00]]), (vec![Seen::Text(String::new())], Ok(())));
}

#[test]
fn a_message_may_refer_to_earlier_ones_only_where_that_was_negotiated() {
    let mut client = Compressor::new();
    let text = text(&mut Chance(1), 400);
    let (first, second) = (client.message(text.as_bytes()), client.message(text.as_bytes()));
    assert!(second.len() < first.len() / 4);
    let both = vec![Seen::Text(text.clone()); 2];
    assert_eq!(decode_messages("permessage-deflate", &[&first, &second]), (both.clone(), Ok(())));
    let alone = "permessage-deflate; client_no_context_takeover";
    assert_eq!(decode_messages(alone, &[&first, &second]), (both[..1].to_vec(), Err(Error::BadDeflate)));
    assert_eq!(decode_messages(alone, &[&first, &first]), (both, Ok(())));
}

#[test]
fn uncompressed_messages_and_control_frames_may_stand_among_compressed_ones() {
    let mut client = Compressor::new();
    let text = text(&mut Chance(2), 300);
    let first = client.message(text.as_bytes());
    let second = client.message(text.as_bytes());
    let bytes = [
        frame(RSV1 | TEXT, &first[..10]),
        frame(FIN | PING, b"?"),
        frame(FIN, &first[10..]),
        frame(FIN | TEXT, b"plain"),
        frame(FIN | RSV1 | TEXT, &second),
    ]
    .concat();
    let (text, plain) = (Seen::Text(text), Seen::Text("plain".to_owned()));
    let expected = vec![Seen::Ping(b"?".to_vec()), text.clone(), plain, text];
    assert_eq!(decode(Limits::default(), Some(negotiated("permessage-deflate")), &bytes), (expected, Ok(())));
}

#[test]
fn what_is_no_deflate_stream_or_no_utf_8_is_a_bad_payload() {
    // A block of the reserved type; a match that reaches before the stream's first byte.
    let cases: [&[u8]; 2] = [&[0x07], &[0xf2, 0x00, 0x11, 0x00, 0x00]];
    for payload in cases {
        assert_eq!(decode_messages("permessage-deflate", &[payload]), (vec![], Err(Error::BadDeflate)));
    }
    assert_eq!(Error::BadDeflate.close_code(), close_code::INVALID_PAYLOAD);
    let not_text = Compressor::new().message(&[b'a', 0xff]);
    assert_eq!(decode_messages("permessage-deflate", &[&not_text]), (vec![], Err(Error::BadUtf8)));
}

#[test]
fn a_small_message_cannot_unpack_to_a_large_one() {
    let bomb = frame(FIN | RSV1 | BINARY, &Compressor::new().message(&vec![0; 5_000_000]));
    assert!(bomb.len() < 10_000);
    let deflate = Some(negotiated("permessage-deflate"));
    let limits = Limits { message_bytes_max: 4_999_999, ..Limits::default() };
    assert_eq!(decode(limits, deflate, &bomb), (vec![], Err(Error::MessageTooLong { bytes_max: 4_999_999 })));
    let limits = Limits { message_bytes_max: 5_000_000, ..Limits::default() };
    assert_eq!(decode(limits, deflate, &bomb).0.len(), 1);
}

#[test]
fn compressed_bytes_without_end_are_cut_off_too() {
    // Empty stored blocks unpack to nothing, for ever.
    let deflate = Some(negotiated("permessage-deflate"));
    let limits = Limits { message_bytes_max: 800, ..Limits::default() };
    let blocks = [0, 0, 0, 0xff, 0xff].repeat(200);
    let (most, one_more) = (800 + 800 / 8 + 64, 800 + 800 / 8 + 65);
    assert_eq!(decode(limits, deflate, &frame(RSV1 | TEXT, &blocks[..most])), (vec![], Ok(())));
    let error = Err(Error::MessageTooLong { bytes_max: 800 });
    let in_two = [frame(RSV1 | TEXT, &blocks[..500]), frame(0, &blocks[500..one_more])].concat();
    assert_eq!(decode(limits, deflate, &in_two), (vec![], error));
    // But what the limit allows is let in where it does not compress.
    let noise = noise(&mut Chance(3), 800);
    let sent = frame(FIN | RSV1 | BINARY, &Compressor::new().message(&noise));
    assert_eq!(decode(limits, deflate, &sent), (vec![Seen::Binary(noise)], Ok(())));
}

#[test]
fn an_idle_decoder_is_small() {
    // The design allows a connection 2 KiB; what is gathered and the inflater are elsewhere and come on demand.
    assert!(size_of::<Decoder>() <= 256, "{}", size_of::<Decoder>());
}
