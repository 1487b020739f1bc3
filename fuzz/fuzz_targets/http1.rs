//! `wire::http1` reads any bytes as hyper's client does, but for the differences that `hyper_reading` lists; and the same at any split.

#![no_main]

use flashlane_wire::http1::{Error, Event, Limits, ResponseReader};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/wire/tests/hyper_reading/mod.rs"]
mod hyper_reading;

fuzz_target!(|input: &[u8]| {
    let [cuts, stream @ ..] = input else { return };
    assert_eq!(read([stream]), read(stream.chunks(1 + usize::from(*cuts))));
    hyper_reading::compare(stream);
});

#[derive(Debug, Default, PartialEq)]
struct Seen {
    head: Option<String>,
    body: Vec<u8>,
    end: Option<bool>,
    error: Option<Error>,
}

fn read<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut reader = ResponseReader::new(Limits::default());
    let mut seen = Seen::default();
    for part in parts {
        let on = |event: Event<'_>| match event {
            Event::Head(head) => seen.head = Some(format!("{head:?}")),
            Event::Body(piece) => seen.body.extend_from_slice(piece),
            Event::End { reusable } => seen.end = Some(reusable),
        };
        if let Err(error) = reader.read(part, on) {
            seen.error = Some(error);
            return seen;
        }
    }
    seen
}
