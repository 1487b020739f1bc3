//! Whatever the split, the same bytes are handed on, and the same fault is found.

use flashlane_wire::inspect::{Fault, Inspector, Limits};

const LIMITS: Limits = Limits { line_bytes_max: 100, control_frames_per_second_max: 2 };

/// What is handed on, and the fault.
fn inspected(input: &[u8], piece_bytes: usize) -> (Vec<u8>, Option<Fault>) {
    let mut inspector = Inspector::new(LIMITS);
    let mut handed_on = Vec::new();
    for piece in input.chunks(piece_bytes) {
        let mut piece = piece.to_vec();
        let count = inspector.inspect(&mut piece, 0);
        assert!(count == piece.len() || inspector.fault().is_some());
        piece.truncate(count);
        handed_on.append(&mut piece);
    }
    (handed_on, inspector.fault())
}

fn assert_found(input: &[u8], fault: Option<Fault>) {
    let whole = inspected(input, usize::MAX);
    assert_eq!(whole.1, fault, "{}", String::from_utf8_lossy(input));
    for piece_bytes in 1..input.len() {
        assert_eq!(inspected(input, piece_bytes), whole, "pieces of {piece_bytes}");
    }
    if fault.is_none() {
        assert_eq!(whole.0, input);
    }
}

#[test]
fn requests_behind_each_other_are_handed_on_as_they_came() {
    assert_found(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na\nb\rc\r\nPOST / HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: Chunked\r\n\r\n\
          3;x=\"y\"\r\n\n\n\n\r\n00\r\nX: y\r\n\r\nGET http://A/x HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        None,
    );
}

#[test]
fn a_fault_is_found_at_its_line_whatever_the_split() {
    let host = "GET / HTTP/1.1\r\nHost: a\r\n";
    for (bytes, fault) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), Fault::Host),
        (format!("{host}\n"), Fault::BareLf),
        (format!("{host}X: {}", "y".repeat(101)), Fault::LongLine),
        (format!("{host} x\r\n\r\n"), Fault::Field),
        (format!("{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), Fault::Framing),
        (format!("{host}Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n"), Fault::Chunk),
        (format!("{host}Upgrade: h2c, WebSocket\r\nContent-Length: 1\r\n\r\nx"), Fault::Upgrade),
        ("PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n".to_owned(), Fault::RequestLine),
        (format!("{host}\r\nPRI * HTTP/2.0\r\n"), Fault::RequestLine),
    ] {
        // How much of a line without an end is there when it is too long depends on the pieces.
        if fault == Fault::LongLine {
            assert_eq!(inspected(bytes.as_bytes(), usize::MAX).1, Some(fault));
        } else {
            assert_found(format!("{bytes}{host}\r\n").as_bytes(), Some(fault));
        }
    }
}

#[test]
fn what_comes_behind_a_handshake_is_no_http() {
    assert_found(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n\x81\x80\n\n\n\n", None);
}

#[test]
fn frames_of_http2_that_bring_nothing_are_counted_and_one_too_many_gets_a_stream_that_it_cannot_have() {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream][..], payload].concat()
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let ping = frame(6, 0, 0, &[1; 8]);
    let work = [frame(1, 5, 1, b"\x82"), frame(0, 0, 1, b"a"), frame(8, 0, 0, &[0, 0, 0, 1]), frame(6, 1, 0, &[0; 8])]
        .concat();
    assert_found(&[preface.clone(), work.repeat(3), ping.repeat(2), work.clone()].concat(), None);
    let flood = [preface.clone(), ping.repeat(2), frame(3, 0, 5, &[0; 4]), work.clone()].concat();
    assert_found(&flood, Some(Fault::ControlFrames));
    let (handed_on, _) = inspected(&flood, usize::MAX);
    assert!(handed_on.ends_with(&frame(3, 0, 0, &[0; 4])));
    let (handed_on, _) = inspected(&[preface, ping.repeat(4)].concat(), usize::MAX);
    assert!(handed_on.ends_with(&frame(6, 0, 1, &[1; 8])));
}
