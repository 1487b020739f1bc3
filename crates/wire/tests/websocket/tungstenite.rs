//! Another implementation at the client's end, without compression, which it does not have.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use flashlane_wire::websocket::{Decoder, Encoder, Event, Limits};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocket};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::client::Seen;

/// The wire between the two, with no network in it.
#[derive(Default)]
struct Wire {
    to_server: Vec<u8>,
    to_client: VecDeque<u8>,
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.to_client.read(buf)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.to_server.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn client() -> WebSocket<Wire> {
    WebSocket::from_raw_socket(Wire::default(), Role::Client, None)
}

#[test]
fn what_tungstenite_sends_is_read() {
    let mut client = client();
    let lengths = [0, 1, 2, 3, 5, 125, 126, 127, 1_000, 65_535, 65_536, 70_000];
    let mut expected = Vec::new();
    for length in lengths {
        let text: String = "añ語🦀".chars().cycle().take(length).collect();
        let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
        client.send(Message::text(text.clone())).unwrap();
        client.send(Message::binary(bytes.clone())).unwrap();
        expected.extend([Seen::Text(text), Seen::Binary(bytes)]);
    }
    let fragments = [
        (OpCode::Data(Data::Text), false),
        (OpCode::Data(Data::Continue), false),
        (OpCode::Data(Data::Continue), true),
    ];
    for (opcode, last) in fragments {
        client.send(Message::Frame(Frame::message(b"part ".to_vec(), opcode, last))).unwrap();
    }
    client.send(Message::Ping(b"are you there".to_vec().into())).unwrap();
    client.close(Some(CloseFrame { code: CloseCode::Away, reason: "done".into() })).unwrap();
    expected.extend([
        Seen::Text("part part part ".to_owned()),
        Seen::Ping(b"are you there".to_vec()),
        Seen::Close(Some((1001, "done".to_owned()))),
    ]);
    for piece_bytes in [usize::MAX, 7_001, 13] {
        let mut decoder = Decoder::new(Limits::default(), None);
        let mut seen = Vec::new();
        for piece in client.get_ref().to_server.clone().chunks_mut(piece_bytes) {
            decoder.decode(piece, 0, |event: Event<'_>| seen.push(Seen::of(event))).unwrap();
        }
        assert!(seen == expected, "in pieces of {piece_bytes}");
    }
}

#[test]
fn what_we_send_is_read_by_tungstenite() {
    let mut client = client();
    let mut encoder = Encoder::new(None);
    let mut out = Vec::new();
    let mut expected = Vec::new();
    for length in [0, 1, 125, 126, 127, 200, 65_535, 65_536, 70_000] {
        let text = "x".repeat(length);
        let mark = encoder.begin(&mut out);
        out.extend_from_slice(text.as_bytes());
        encoder.finish(mark, &mut out);
        let mark = encoder.begin(&mut out);
        out.extend_from_slice(text.as_bytes());
        encoder.finish_binary(mark, &mut out);
        expected.extend([Message::text(text.clone()), Message::binary(text.into_bytes())]);
    }
    encoder.ping(b"ping", &mut out);
    encoder.pong(b"", &mut out);
    encoder.close(1012, "restarting", &mut out);
    expected.extend([
        Message::Ping(b"ping".to_vec().into()),
        Message::Pong(Vec::new().into()),
        Message::Close(Some(CloseFrame { code: CloseCode::Restart, reason: "restarting".into() })),
    ]);
    client.get_mut().to_client.extend(out);
    for message in expected {
        assert!(client.read().unwrap() == message);
    }
    assert!(matches!(client.read(), Err(Error::Io(_) | Error::ConnectionClosed)));
}
