//! `wire::sse` reads any bytes, in any split, as the specification's words do.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/wire/tests/sse_reading/mod.rs"]
mod sse_reading;

fuzz_target!(|input: &[u8]| {
    let [limit, cuts, stream @ ..] = input else { return };
    let limit = 1 + usize::from(*limit) * 4;
    let expected = sse_reading::reference(limit, stream);
    assert_eq!(sse_reading::decode(limit, [stream]), expected);
    assert_eq!(sse_reading::decode(limit, stream.chunks(1 + usize::from(*cuts))), expected);
});
