//! A WebSocket server that sends back what it gets: what a conformance suite talks to in order to test `flashlane_wire::websocket`.
//!
//! `echo [PORT]` listens on loopback (no port: any free one), prints the port on a line, and serves until it is killed. Its limits are raised
//! above the gateway's, for messages of 16 MB in frames of 64 bytes. Knows nothing of HTTP beyond the two headers of an upgrade.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use flashlane_wire::websocket::{Decoder, Deflate, Encoder, Event, Limits, accept_key, close_code};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const REQUEST_BYTES_MAX: usize = 16 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// How long the peer has to close after our close frame.
const LINGER: Duration = Duration::from_secs(2);
const LIMITS: Limits =
    Limits { message_bytes_max: 64 * 1024 * 1024, message_fragments_max: u32::MAX, pings_per_second_max: 10_000 };

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let port = match std::env::args().nth(1) {
        Some(argument) => argument.parse().map_err(|_| bad("the port is not a number from 0 to 65535"))?,
        None => 0,
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A peer that goes away in the middle is the suite's business.
            let _ = serve(stream).await;
        });
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, deflate) = upgrade(&mut stream).await?;
    let began = Instant::now();
    let mut decoder = Decoder::new(LIMITS, deflate);
    let mut encoder = Encoder::new(deflate);
    let mut out = Vec::new();
    loop {
        let now_ms = began.elapsed().as_millis() as u64;
        let mut closing = false;
        let decoded = decoder.decode(&mut input, now_ms, |event| closing |= echo(event, &mut encoder, &mut out));
        if let Err(error) = decoded {
            encoder.close(error.close_code(), &error.to_string(), &mut out);
            closing = true;
        }
        stream.write_all(&out).await?;
        if closing {
            return linger(stream).await;
        }
        out.clear();
        input.resize(READ_BYTES_MAX, 0);
        let read = stream.read(&mut input).await?;
        if read == 0 {
            return Ok(());
        }
        input.truncate(read);
    }
}

/// Answers one event; true if that was the last answer.
fn echo(event: Event<'_>, encoder: &mut Encoder, out: &mut Vec<u8>) -> bool {
    match event {
        Event::Text(text) => {
            let mark = encoder.begin(out);
            out.extend_from_slice(text.as_bytes());
            encoder.finish(mark, out);
        }
        Event::Binary(bytes) => {
            let mark = encoder.begin(out);
            out.extend_from_slice(bytes);
            encoder.finish_binary(mark, out);
        }
        Event::Ping(payload) => encoder.pong(payload, out),
        Event::Pong(_) => {}
        Event::Close(frame) => {
            encoder.close(frame.map_or(close_code::NORMAL, |frame| frame.code), "", out);
            return true;
        }
    }
    false
}

/// Lets the peer read the close frame: closing with its bytes unread would reset the connection.
async fn linger(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut ignored = vec![0; READ_BYTES_MAX];
    let drained = async { while stream.read(&mut ignored).await.is_ok_and(|read| read > 0) {} };
    let _ = tokio::time::timeout(LINGER, drained).await;
    Ok(())
}

/// Answers the request for an upgrade. Returns what the peer sent after it, and the compression agreed on.
async fn upgrade(stream: &mut TcpStream) -> io::Result<(Vec<u8>, Option<Deflate>)> {
    let mut request = Vec::new();
    let head_bytes = loop {
        if let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if request.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut request).await? == 0 {
            return Err(bad("the request has no end"));
        }
    };
    let after = request.split_off(head_bytes);
    let head = str::from_utf8(&request).map_err(|_| bad("the request is not text"))?;
    let key = header(head, "sec-websocket-key").next().ok_or_else(|| bad("the request has no Sec-WebSocket-Key"))?;
    let offers = header(head, "sec-websocket-extensions").collect::<Vec<_>>().join(", ");
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
        accept_key(key)
    );
    let deflate = Deflate::negotiate(&offers).map(|(deflate, extension)| {
        response.push_str(&format!("Sec-WebSocket-Extensions: {extension}\r\n"));
        deflate
    });
    response.push_str("\r\n");
    stream.write_all(response.as_bytes()).await?;
    Ok((after, deflate))
}

/// The values of all headers of a name.
fn header<'a>(head: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(move |(is, _)| is.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn bad(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
