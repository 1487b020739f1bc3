//! The scripted upstream: a raw HTTP/1.1 server of Chat Completions and Responses that plays a script at its pace, each
//! token being the time at which it was sent. One thread a connection with blocking sockets: a timer of tokio is a
//! millisecond coarse, a sleeping thread some tens of microseconds. Of what it is asked it looks at the model and at
//! whether to stream, and at nothing else.

use super::Error;
use super::clock::{Clock, stamp};
use super::link::{self, Link};
use super::wording::{self, Answer, Api, Wording};
use memchr::memmem;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The models that it lists and answers for: most scenarios ask the first, and two plays may run beside each other.
pub const MODEL: &str = "bench";
pub const LATENCY_MODEL: &str = "bench-latency";

const BUFFER_BYTES: usize = 64 * 1024;
const HEAD_BYTES_MAX: u64 = 64 * 1024;
const BODY_BYTES_MAX: u64 = 256 << 20;

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
    script: Mutex<(Script, Answer)>,
    latency_script: Mutex<Script>,
    turns: Mutex<Vec<EngineTurn>>,
    hop: Mutex<Hop>,
}

/// How its clients reach it.
struct Hop {
    link: Link,
    /// Connections that are open or were carried by a link, by number.
    open: BTreeMap<u64, TcpStream>,
    opened: u64,
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
        // Behind a link it listens here.
        let near = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(failed)?;
        let near_address = near.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            clock,
            script: Mutex::new((Script::SHORT, Answer::Text)),
            latency_script: Mutex::new(Script::SHORT),
            turns: Mutex::default(),
            hop: Mutex::new(Hop { link: Link::NONE, open: BTreeMap::new(), opened: 0 }),
        });
        let upstream = Upstream { address, shared: Arc::clone(&shared) };
        let shared_near = Arc::clone(&shared);
        thread::spawn(move || {
            for socket in near.incoming().flatten() {
                let shared = Arc::clone(&shared_near);
                thread::spawn(move || serve(socket, &shared));
            }
        });
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                // A connection that breaks is its peer's matter: the client's side of the bench hears of it.
                let _ = accept(socket, &shared, near_address);
            }
        });
        Ok(upstream)
    }

    /// What is played from now on.
    pub fn play(&self, script: Script) {
        *lock(&self.shared.script) = (script, Answer::Text);
    }

    /// The same, by a call of the tool.
    pub fn play_call(&self, script: Script, number: u32) {
        *lock(&self.shared.script) = (script, Answer::Call(number));
    }

    /// From now on it is reached over this link. Who is connected otherwise must connect again.
    pub fn reach_over(&self, link: Link) {
        let mut hop = lock(&self.shared.hop);
        if hop.link != link {
            hop.link = link;
            for socket in std::mem::take(&mut hop.open).into_values() {
                // It may have been closed by the other side.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// The same, for those who ask the other model.
    pub fn play_latency(&self, script: Script) {
        *lock(&self.shared.latency_script) = script;
    }

    /// The answers since it was last asked.
    #[must_use]
    pub fn turns(&self) -> Vec<EngineTurn> {
        std::mem::take(&mut *lock(&self.shared.turns))
    }
}

fn accept(socket: TcpStream, shared: &Arc<Shared>, near: SocketAddr) -> io::Result<()> {
    let mut hop = lock(&shared.hop);
    let number = hop.opened;
    hop.opened += 1;
    hop.open.insert(number, socket.try_clone()?);
    if !hop.link.is_bare() {
        return link::carry_both(hop.link, socket, near, shared.clock);
    }
    drop(hop);
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let served = serve(socket, &shared);
        lock(&shared.hop).open.remove(&number);
        served
    });
    Ok(())
}

fn serve(socket: TcpStream, shared: &Shared) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut out = socket.try_clone()?;
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, socket);
    let mut body = Vec::new();
    while let Some(asks) = read(&mut reader, &mut body)? {
        match asks {
            Asks::Answer(api) => answer(&mut out, shared, api, &body)?,
            Asks::Models => {
                let models = [MODEL, LATENCY_MODEL]
                    .map(|model| format!(r#"{{"id":"{model}","object":"model","owned_by":"bench"}}"#));
                out.write_all(&wording::json(&format!(r#"{{"object":"list","data":[{}]}}"#, models.join(","))))?;
            }
            Asks::Health => out.write_all(&wording::json("{}"))?,
            Asks::Else => out.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?,
        }
    }
    Ok(())
}

enum Asks {
    Answer(Api),
    Models,
    Health,
    Else,
}

/// Reads one request to its end, its body into `body`; `None` when no more come.
fn read(reader: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> io::Result<Option<Asks>> {
    let mut head = reader.by_ref().take(HEAD_BYTES_MAX);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default();
    let asks = match path {
        path if path.ends_with("/chat/completions") => Asks::Answer(Api::Chat),
        path if path.ends_with("/responses") => Asks::Answer(Api::Responses),
        path if path.ends_with("/models") => Asks::Models,
        // Gateways ask it before they send anything.
        "/health" => Asks::Health,
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
    body.clear();
    if (reader.by_ref().take(body_bytes).read_to_end(body)? as u64) < body_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(asks))
}

/// Whether a request has this field, in either spelling of JSON. Inside a string its quotes are escaped, so that no text
/// says it by chance.
fn says(body: &[u8], name: &str, value: &str) -> bool {
    [":", ": "].iter().any(|colon| memmem::find(body, format!("\"{name}\"{colon}{value}").as_bytes()).is_some())
}

fn answer(out: &mut TcpStream, shared: &Shared, api: Api, body: &[u8]) -> io::Result<()> {
    let clock = shared.clock;
    let received_ns = clock.ns();
    let of_latency = says(body, "model", &format!("\"{LATENCY_MODEL}\""));
    let (model, (script, answer)) = if of_latency {
        (LATENCY_MODEL, (*lock(&shared.latency_script), Answer::Text))
    } else {
        (MODEL, *lock(&shared.script))
    };
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut wording = Wording::new(api, model, answer);
    let mut buf = Vec::with_capacity(BUFFER_BYTES);
    let mut due_ns = received_ns.saturating_add(nanos(script.first_token));
    if !says(body, "stream", "true") {
        clock.sleep_until(due_ns.saturating_add(nanos(script.interval * script.tokens.saturating_sub(1))));
        let now_ns = clock.ns();
        wording.whole(script.tokens, &stamp(now_ns), &mut buf);
        lock(&shared.turns).push(EngineTurn { received_ns, first_token_ns: now_ns, done_ns: now_ns });
        return out.write_all(&buf);
    }
    wording.begin(&mut buf);
    out.write_all(&buf)?;
    let (mut sent, mut first_token_ns) = (0, 0);
    while sent < script.tokens {
        clock.sleep_until(due_ns);
        let count = script.tokens_per_write.clamp(1, script.tokens - sent);
        let now_ns = clock.ns();
        if sent == 0 {
            first_token_ns = now_ns;
        }
        buf.clear();
        wording.tokens(count, &stamp(now_ns), &mut buf);
        out.write_all(&buf)?;
        sent += count;
        due_ns = due_ns.saturating_add(nanos(script.interval).saturating_mul(u64::from(count)));
    }
    buf.clear();
    wording.end(&mut buf);
    lock(&shared.turns).push(EngineTurn { received_ns, first_token_ns, done_ns: clock.ns() });
    out.write_all(&buf)
}

#[cfg(test)]
mod tests {
    use super::super::client::HttpClient;
    use super::super::seen::Seen;
    use super::super::target::Place;
    use super::*;

    #[test]
    fn a_new_hop_breaks_what_was_connected_and_costs_its_round_trips() {
        let clock = Clock::start();
        let upstream = Upstream::start(SocketAddr::from(([127, 0, 0, 1], 0)), clock).unwrap();
        let place = Place::of(&format!("http://{}", upstream.address).parse().unwrap(), None).unwrap();
        let mut seen = Seen::new(clock);
        let mut ask = |client: &mut HttpClient| client.turn("/chat/completions", r#"{"stream":true}"#, &mut seen);
        let mut kept = HttpClient::new(place.clone(), true);
        ask(&mut kept).unwrap();
        ask(&mut kept).unwrap();
        upstream.reach_over(Link { rtt_ms: 20, mbit_per_s: 100, slow_start: true });
        assert!(ask(&mut kept).is_err());
        let turn = ask(&mut HttpClient::new(place, true)).unwrap();
        assert!(turn.first_token_ns - turn.started_ns >= 40_000_000, "{turn:?}");
    }

    #[test]
    fn what_a_text_quotes_is_no_field() {
        assert!(says(br#"{"model": "bench-latency","stream":true}"#, "stream", "true"));
        assert!(says(br#"{"model": "bench-latency"}"#, "model", "\"bench-latency\""));
        assert!(!says(br#"{"input":"{\"stream\":true}","stream":false}"#, "stream", "true"));
    }
}
