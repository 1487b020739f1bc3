//! The event stream decoder against a direct reading of the specification, at every split of the bytes.
#![allow(clippy::indexing_slicing, clippy::panic, reason = "a test may fail this way")]

mod chance;
mod sse_reading;

use chance::Chance;
use flashlane_wire::sse::{Decoder, Error, Event};
use sse_reading::{Owned, decode, reference};

const LIMIT: usize = 1 << 20;

/// All line ends, comments, names, several data lines, fields that are skipped, multibyte text, empty data, a byte order mark.
const CORPUS: &[u8] = "\u{feff}data: first\n\n\
    : ping\n\n\
    data: {\"content\":\"Grüße, 世界 🦀\"}\n\ndata:no space\n\ndata:  two spaces\n\n\
    event: response.created\ndata: {\"a\":1}\n\n\
    event: crlf\r\ndata: x\r\n\r\ndata: lent too\r\n\r\n\r\n\
    event: cr\rdata: y\rdata: z\r\r\r\
    data: one\ndata: two\r\ndata\rdata: four\n\n\
    id: 7\nretry: 10\nunknown: u\n: comment\ndata: after fields\n\n\
    event: nobody\n\ndata: the name above is gone\n\n\
    event: a\nevent: b\ndata: last name wins\n\n\
    data\n\ndata:\n\n data: not a field\n\ndatax: nor this\n\ndata: mixed\n\r\n\
    data: \u{feff}kept\n\n\
    data: [DONE]\n\ndata: never closed\n"
    .as_bytes();

fn text(pairs: &[(&str, &str)]) -> Vec<Owned> {
    pairs.iter().map(|(name, data)| (name.as_bytes().to_vec(), data.as_bytes().to_vec())).collect()
}

#[test]
fn the_corpus_reads_as_written() {
    let expected = text(&[
        ("", "first"),
        ("", "{\"content\":\"Grüße, 世界 🦀\"}"),
        ("", "no space"),
        ("", " two spaces"),
        ("response.created", "{\"a\":1}"),
        ("crlf", "x"),
        ("", "lent too"),
        ("cr", "y\nz"),
        ("", "one\ntwo\n\nfour"),
        ("", "after fields"),
        ("", "the name above is gone"),
        ("b", "last name wins"),
        ("", ""),
        ("", ""),
        ("", "mixed"),
        ("", "\u{feff}kept"),
        ("", "[DONE]"),
    ]);
    assert_eq!(decode(LIMIT, [CORPUS]), (expected, Ok(())));
}

#[test]
fn any_two_cuts_give_the_same_events() {
    let whole = reference(LIMIT, CORPUS);
    for first in 0..=CORPUS.len() {
        for second in first..=CORPUS.len() {
            let parts = [&CORPUS[..first], &CORPUS[first..second], &CORPUS[second..]];
            assert_eq!(decode(LIMIT, parts), whole, "cut at {first} and {second}");
        }
    }
}

#[test]
fn a_byte_at_a_time_gives_the_same_events() {
    assert_eq!(decode(LIMIT, CORPUS.chunks(1)), reference(LIMIT, CORPUS));
}

#[test]
fn random_streams_in_random_splits_read_as_the_specification_says() {
    const PIECES: [&str; 22] = [
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\n\r\n",
        "data",
        "data:",
        "data: ",
        "event",
        "event: ",
        ":",
        " ",
        "id: 1",
        "x",
        "ö",
        "🦀",
        "\u{feff}",
        "data: {\"a\":\"b\"}\n\n",
        "data: {\"a\":\"b\"}\r\n\r\n",
        "event: e\ndata: d\n\n",
        "data: [DONE]\n\n",
        "retry: 1\n",
    ];
    for seed in 0..20_000 {
        let mut chance = Chance(seed);
        let mut stream = Vec::new();
        for _ in 0..chance.below(24) {
            stream.extend_from_slice(PIECES[chance.below(PIECES.len())].as_bytes());
        }
        let limit = if chance.below(2) == 0 { LIMIT } else { 1 + chance.below(40) };
        let mut parts = Vec::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (part, after) = rest.split_at(1 + chance.below(rest.len().min(12)));
            parts.push(part);
            rest = after;
        }
        let expected = reference(limit, &stream);
        assert_eq!(
            decode(limit, [&stream[..]]),
            expected,
            "seed {seed}, whole: {:?}",
            stream.escape_ascii().to_string()
        );
        assert_eq!(decode(limit, parts), expected, "seed {seed}, split: {:?}", stream.escape_ascii().to_string());
    }
}

#[test]
fn a_whole_event_is_lent_from_the_input() {
    let input = b"data: {\"n\":1}\n\ndata: {\"n\":2}\r\n\r\n: ping\n\ndata:{\"n\":3}\n\n";
    let mut decoder = Decoder::new(LIMIT);
    decoder.decode(b"data: the first line of a stream may bear a mark\n\n", |_| ()).unwrap();
    let mut lent = 0;
    let on_event = |event: Event<'_>| lent += usize::from(input.as_ptr_range().contains(&event.data.as_ptr()));
    decoder.decode(input, on_event).unwrap();
    assert_eq!(lent, 3);
}

#[test]
fn an_event_of_exactly_the_limit_passes_and_a_byte_more_does_not() {
    for (line, fits) in [("data: 12345678\n\n", true), ("data: 123456789\n\n", false), (": 12345678901\n\n", true)] {
        let outcome = decode(14, [b"data: a\n\n", line.as_bytes()]);
        assert_eq!(outcome.1.is_ok(), fits, "{line}");
        assert_eq!(outcome.0.first(), Some(&(Vec::new(), b"a".to_vec())), "{line}");
    }
    let endless = std::iter::repeat_n(&b"xxxx"[..], 1000);
    assert_eq!(decode(14, endless).1, Err(Error::EventTooLong { event_bytes_max: 14 }));
    let endless = std::iter::repeat_n(&b"data:1\n"[..], 1000);
    assert_eq!(decode(14, endless).1, Err(Error::EventTooLong { event_bytes_max: 14 }));
    let pings = std::iter::repeat_n(&b": ping\n"[..], 1000);
    assert_eq!(decode(14, pings), (Vec::new(), Ok(())));
}
