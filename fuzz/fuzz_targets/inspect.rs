//! Two properties of `wire::inspect`: any split of the same bytes hands on the same bytes and finds the same fault, and what has no fault is
//! handed on as it came, but for a frame that is about to be one.

#![no_main]

use flashlane_wire::inspect::{Fault, Inspector, Limits};
use libfuzzer_sys::fuzz_target;

/// No line of the inputs is too long: where that is found depends on the pieces.
const LIMITS: Limits = Limits { line_bytes_max: 1 << 20, control_frames_per_second_max: 3 };

fuzz_target!(|input: &[u8]| {
    let [piece_bytes, input @ ..] = input else { return };
    let whole = inspected(input, usize::MAX);
    assert_eq!(whole, inspected(input, 1 + usize::from(*piece_bytes)));
    if whole.1.is_none() {
        // One HTTP/2 frame too many has another stream's id as soon as its head is there, and is a fault once it is whole.
        let changed = whole.0.iter().zip(input).filter(|(handed_on, came)| handed_on != came).count();
        assert!(whole.0.len() == input.len() && changed <= if input.starts_with(b"PRI * HTTP/2.0") { 4 } else { 0 });
    }
});

fn inspected(input: &[u8], piece_bytes: usize) -> (Vec<u8>, Option<Fault>) {
    let mut inspector = Inspector::new(LIMITS);
    let mut handed_on = Vec::new();
    for piece in input.chunks(piece_bytes) {
        let mut piece = piece.to_vec();
        let count = inspector.inspect(&mut piece, 0);
        assert!(count == piece.len() || inspector.fault().is_some());
        handed_on.extend_from_slice(&piece[..count]);
    }
    (handed_on, inspector.fault())
}
