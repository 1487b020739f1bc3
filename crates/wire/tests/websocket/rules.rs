//! What a client may send and may not, uncompressed: each rule of RFC 6455 and each limit.

use flashlane_wire::websocket::{Decoder, Error, Event, Limits, close_code};

use crate::client::*;

const SMALL: Limits = Limits { message_bytes_max: 100, message_fragments_max: 4, pings_per_second_max: 3 };

fn fails_with(bytes: &[u8], error: Error) {
    assert_eq!(decode(SMALL, None, bytes), (vec![], Err(error)), "{bytes:x?}");
}

#[test]
fn a_message_that_lies_whole_in_the_input_is_handed_over_from_there() {
    let mut input = frame(FIN | TEXT, "grüße".as_bytes());
    let range = input.as_ptr_range();
    let mut seen = 0;
    Decoder::new(SMALL, None)
        .decode(&mut input, 0, |event| {
            assert!(matches!(event, Event::Text(text) if text == "grüße" && range.contains(&text.as_ptr())));
            seen += 1;
        })
        .unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn control_frames_may_stand_between_a_messages_fragments() {
    let bytes = [
        frame(TEXT, b"one, "),
        frame(FIN | PING, b"?"),
        frame(CONTINUATION, b""),
        frame(FIN | PONG, b"!"),
        frame(FIN | CONTINUATION, b"two"),
        frame(FIN | BINARY, &[0xff]),
        frame(FIN | TEXT, b""),
    ]
    .concat();
    let expected = vec![
        Seen::Ping(b"?".to_vec()),
        Seen::Pong(b"!".to_vec()),
        Seen::Text("one, two".to_owned()),
        Seen::Binary(vec![0xff]),
        Seen::Text(String::new()),
    ];
    assert_eq!(decode(SMALL, None, &bytes), (expected, Ok(())));
}

#[test]
fn a_frame_out_of_place_is_a_protocol_error() {
    fails_with(&frame(CONTINUATION, b"x"), Error::NothingToContinue);
    fails_with(&[frame(TEXT, b"x"), frame(FIN | TEXT, b"x")].concat(), Error::MessageNotEnded);
    fails_with(&[frame(TEXT, b"x"), frame(BINARY, b"x")].concat(), Error::MessageNotEnded);
    fails_with(&[0x81, 0x01, b'x'], Error::Unmasked);
    assert_eq!(Error::Unmasked.close_code(), close_code::PROTOCOL_ERROR);
    assert_eq!(Error::NothingToContinue.close_code(), close_code::PROTOCOL_ERROR);
}

#[test]
fn rsv1_stands_on_a_messages_first_frame_alone_and_only_where_negotiated() {
    fails_with(&frame(FIN | RSV1 | TEXT, b"x"), Error::ReservedBits);
    let deflate = Some(negotiated("permessage-deflate"));
    let cases = [
        [frame(TEXT, b"x"), frame(FIN | RSV1 | CONTINUATION, b"x")].concat(),
        frame(FIN | RSV1 | PING, b"x"),
        frame(FIN | RSV1 | CLOSE, b""),
    ];
    for bytes in cases {
        assert_eq!(decode(SMALL, deflate, &bytes), (vec![], Err(Error::ReservedBits)));
    }
}

#[test]
fn a_message_may_be_as_long_as_the_limit_and_no_longer() {
    let too_long = Error::MessageTooLong { bytes_max: 100 };
    assert_eq!(too_long.close_code(), close_code::TOO_BIG);
    let longest = Seen::Binary(vec![7; 100]);
    assert_eq!(decode(SMALL, None, &frame(FIN | BINARY, &[7; 100])), (vec![longest.clone()], Ok(())));
    let in_two = [frame(BINARY, &[7; 60]), frame(FIN | CONTINUATION, &[7; 40])].concat();
    assert_eq!(decode(SMALL, None, &in_two), (vec![longest], Ok(())));
    // Refused at the head: nothing is gathered first.
    fails_with(&head(FIN | BINARY, 101, [0; 4]), too_long);
    fails_with(&head(FIN | BINARY, u64::MAX >> 1, [0; 4]), too_long);
    fails_with(&[frame(BINARY, &[7; 60]), head(CONTINUATION, 41, [0; 4])].concat(), too_long);
}

#[test]
fn a_message_may_come_in_as_many_frames_as_the_limit_and_no_more() {
    let four = [frame(TEXT, b"a"), frame(0, b"b"), frame(0, b"c"), frame(FIN, b"d")].concat();
    assert_eq!(decode(SMALL, None, &[four.clone(), four].concat()).0.len(), 2);
    let five = [frame(TEXT, b"a"), frame(0, b""), frame(0, b""), frame(0, b""), frame(FIN, b"")].concat();
    let error = Error::TooManyFragments { fragments_max: 4 };
    fails_with(&five, error);
    assert_eq!(error.close_code(), close_code::POLICY);
}

#[test]
fn pings_are_counted_by_the_second() {
    let mut decoder = Decoder::new(SMALL, None);
    let mut pings = |count: usize, now_ms| {
        let mut seen = 0;
        let result = decoder.decode(&mut frame(FIN | PING, b"").repeat(count), now_ms, |_| seen += 1);
        (seen, result)
    };
    assert_eq!(pings(3, 5_000), (3, Ok(())));
    assert_eq!(pings(2, 6_000), (2, Ok(())));
    assert_eq!(pings(1, 6_999), (1, Ok(())));
    let flood = Error::PingFlood { per_second_max: 3 };
    assert_eq!(flood.close_code(), close_code::POLICY);
    assert_eq!(pings(1, 6_999), (0, Err(flood)));
    assert_eq!(pings(1, 9_000), (0, Err(flood)), "an error stays");
}

#[test]
fn a_text_is_utf_8_as_a_whole_and_not_by_frame() {
    let crab = "🦀".as_bytes();
    let in_two = [frame(TEXT, &crab[..1]), frame(FIN, &crab[1..])].concat();
    assert_eq!(decode(SMALL, None, &in_two), (vec![Seen::Text("🦀".to_owned())], Ok(())));
    fails_with(&frame(FIN | TEXT, &crab[..3]), Error::BadUtf8);
    fails_with(&frame(FIN | TEXT, &[0xed, 0xa0, 0x80]), Error::BadUtf8);
    fails_with(&[frame(TEXT, &crab[..3]), frame(FIN, b"x")].concat(), Error::BadUtf8);
    assert_eq!(Error::BadUtf8.close_code(), close_code::INVALID_PAYLOAD);
}

#[test]
fn a_close_frame_has_a_code_that_may_be_sent_and_ends_it_all() {
    assert_eq!(decode(SMALL, None, &frame(FIN | CLOSE, b"")), (vec![Seen::Close(None)], Ok(())));
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 4999_u16] {
        let close = frame(FIN | CLOSE, &[&code.to_be_bytes()[..], b"bye"].concat());
        // What follows is not read, whatever it is.
        let bytes = [close, frame(FIN | PING, b""), vec![0xff; 40]].concat();
        let expected = vec![Seen::Close(Some((code, "bye".to_owned())))];
        assert_eq!(decode(SMALL, None, &bytes), (expected.clone(), Ok(())));
        let cuts: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(decode_pieces(SMALL, None, &bytes, &cuts), (expected, Ok(())));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535_u16] {
        fails_with(&frame(FIN | CLOSE, &code.to_be_bytes()), Error::BadCloseCode(code));
    }
    fails_with(&frame(FIN | CLOSE, &[3]), Error::BadClose);
    fails_with(&frame(FIN | CLOSE, &[3, 0xe8, 0xff]), Error::BadUtf8);
}

#[test]
fn what_came_before_an_error_is_handed_over() {
    let bytes = [frame(FIN | TEXT, b"first"), vec![0x83, 0x80]].concat();
    assert_eq!(decode(SMALL, None, &bytes), (vec![Seen::Text("first".to_owned())], Err(Error::ReservedOpcode(3))));
}
