//! The scripted upstream: a raw HTTP/1.1 server of Chat Completions that plays a script at its pace, each token being the
//! time at which it was sent. One thread a connection with blocking sockets: a timer of tokio is a millisecond coarse, a
//! sleeping thread some tens of microseconds. It reads what it is asked and looks at no word of it.

use super::Error;
use super::clock::{Clock, STAMP_BYTES, stamp};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The model that it lists and answers for.
pub const MODEL: &str = "bench";

const BUFFER_BYTES: usize = 64 * 1024;
const HEAD_BYTES_MAX: u64 = 64 * 1024;
const BODY_BYTES_MAX: u64 = 256 << 20;

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
/// A chunk of a stream around its delta, as vLLM words it.
const BEFORE: &str = r#"data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1760000000,"model":"bench","choices":[{"index":0,"delta":{"content":""#;
const AFTER: &str = "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const ROLE: &str = "data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const FINISH: &str = "data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n";

/// What every answer is until the next script.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    pub tokens: u32,
    /// From the request's last byte to the first token.
    pub first_token: Duration,
    /// From one token to the next; zero is flat out.
    pub interval: Duration,
    pub tokens_per_write: u32,
}

impl Script {
    /// One token at once: what opens connections and warms caches.
    pub const SHORT: Script =
        Script { tokens: 1, first_token: Duration::ZERO, interval: Duration::ZERO, tokens_per_write: 1 };
}

/// The engine's own part of one answer, by the bench's clock.
#[derive(Debug, Clone, Copy)]
pub struct EngineTurn {
    /// The request had been read.
    pub received_ns: u64,
    pub first_token_ns: u64,
    /// Before the last write.
    pub done_ns: u64,
}

/// The running upstream. Its threads live until the process ends.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    script: Mutex<Script>,
    turns: Mutex<Vec<EngineTurn>>,
}

/// A lock that a panicked thread held is as good as any: its content is plain values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upstream {
    /// Listens and serves.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start(listen: SocketAddr, clock: Clock) -> Result<Upstream, Error> {
        let failed = |source| Error::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared { clock, script: Mutex::new(Script::SHORT), turns: Mutex::default() });
        let upstream = Upstream { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A connection that breaks is its peer's matter: the client's side of the bench hears of it.
                thread::spawn(move || serve(socket, &shared));
            }
        });
        Ok(upstream)
    }

    /// What is played from now on.
    pub fn play(&self, script: Script) {
        *lock(&self.shared.script) = script;
    }

    /// The answers since it was last asked.
    #[must_use]
    pub fn turns(&self) -> Vec<EngineTurn> {
        std::mem::take(&mut *lock(&self.shared.turns))
    }
}

fn serve(socket: TcpStream, shared: &Shared) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut out = socket.try_clone()?;
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, socket);
    while let Some(asks) = read(&mut reader)? {
        match asks {
            Asks::Completion => answer(&mut out, shared)?,
            Asks::Models => {
                let list =
                    format!(r#"{{"object":"list","data":[{{"id":"{MODEL}","object":"model","owned_by":"bench"}}]}}"#);
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
                out.write_all(format!("{head}{}\r\n\r\n{list}", list.len()).as_bytes())?;
            }
            Asks::Else => out.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?,
        }
    }
    Ok(())
}

enum Asks {
    Completion,
    Models,
    Else,
}

/// Reads one request to its end; `None` when no more come.
fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Asks>> {
    let mut head = reader.by_ref().take(HEAD_BYTES_MAX);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default();
    let asks = match path {
        path if path.ends_with("/chat/completions") => Asks::Completion,
        path if path.ends_with("/models") => Asks::Models,
        _ => Asks::Else,
    };
    let mut body_bytes = 0;
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        }
        if name.eq_ignore_ascii_case("transfer-encoding") || body_bytes > BODY_BYTES_MAX {
            return Err(io::ErrorKind::Unsupported.into());
        }
    }
    if io::copy(&mut reader.by_ref().take(body_bytes), &mut io::sink())? < body_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(asks))
}

fn answer(out: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let script = *lock(&shared.script);
    let clock = shared.clock;
    let received_ns = clock.ns();
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut buf = Vec::with_capacity(BUFFER_BYTES);
    buf.extend_from_slice(STREAM.as_bytes());
    push_chunk(&mut buf, ROLE);
    out.write_all(&buf)?;
    let (mut sent, mut due_ns, mut first_token_ns) = (0, received_ns.saturating_add(nanos(script.first_token)), 0);
    while sent < script.tokens {
        clock.sleep_until(due_ns);
        let count = script.tokens_per_write.clamp(1, script.tokens - sent);
        let now_ns = clock.ns();
        if sent == 0 {
            first_token_ns = now_ns;
        }
        buf.clear();
        push_tokens(&mut buf, count, &stamp(now_ns));
        out.write_all(&buf)?;
        sent += count;
        due_ns = due_ns.saturating_add(nanos(script.interval).saturating_mul(u64::from(count)));
    }
    buf.clear();
    let usage = script.tokens;
    push_chunk(&mut buf, FINISH);
    push_chunk(
        &mut buf,
        &format!(
            "data: {{\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"{MODEL}\",\"choices\":[],\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":{usage},\"total_tokens\":{}}}}}\n\n",
            usage + 1
        ),
    );
    push_chunk(&mut buf, "data: [DONE]\n\n");
    buf.extend_from_slice(b"0\r\n\r\n");
    lock(&shared.turns).push(EngineTurn { received_ns, first_token_ns, done_ns: clock.ns() });
    out.write_all(&buf)
}

/// One write's tokens as one HTTP chunk.
fn push_tokens(buf: &mut Vec<u8>, count: u32, stamp: &[u8; STAMP_BYTES]) {
    let bytes = (BEFORE.len() + STAMP_BYTES + AFTER.len()) as u64 * u64::from(count);
    // Into a vector, a write cannot fail.
    let _ = write!(buf, "{bytes:x}\r\n");
    for _ in 0..count {
        buf.extend_from_slice(BEFORE.as_bytes());
        buf.extend_from_slice(stamp);
        buf.extend_from_slice(AFTER.as_bytes());
    }
    buf.extend_from_slice(b"\r\n");
}

fn push_chunk(buf: &mut Vec<u8>, text: &str) {
    let _ = write!(buf, "{:x}\r\n{text}\r\n", text.len());
}
