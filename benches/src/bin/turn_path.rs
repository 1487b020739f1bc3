//! A whole turn on the pure path under `callgrind`: a client's request through a session to the upstream's body, one token
//! back, and the end of the response.
//!
//! `turn_path SCENARIO TURNS` does so many turns on 400 KB of history and prints how many bytes came out. `benches/micro/run`
//! counts the instructions of two lengths; their difference is what a turn costs, with all set-up taken out.

use flashlane_benches::{fleet, ring, textbook};
use flashlane_engine::admission::Grant;
use flashlane_engine::{Effect, EndpointId, IdSource, Now, Owner, Session, Settings, Shared, Tier, UpstreamEvent};
use flashlane_wire::chat;
use flashlane_wire::websocket::Encoder;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

const HISTORY_BYTES: usize = 400_000;
const INPUT_BYTES: usize = 2048;
const KNOWN_BYTES_MAX: usize = 64 << 20;
/// How a coding agent's text is: short lines, quotes.
const LINE: &str = "    let buffer = count(\\\"name\\\") -> { };\\n";
const STREAM: &[u8] = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ok\"}}]}\n\n\
    data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// With `bytes` for what clients send again.
fn shared(bytes: usize) -> Arc<Shared> {
    let settings = Settings { recognised_bytes_max: bytes, recognised_bytes_per_key_max: bytes, ..Settings::default() };
    Arc::new(Shared::new(settings, Arc::new(fleet()), ring()))
}

/// The item that a user's turn adds; no two are equal.
fn item(role: &str, number: usize) -> String {
    let part = if role == "assistant" { "output_text" } else { "input_text" };
    let text = LINE.repeat(INPUT_BYTES / LINE.len());
    format!(r#"{{"type":"message","role":"{role}","content":[{{"type":"{part}","text":"{number} {text}"}}]}}"#)
}

fn history() -> Vec<String> {
    let roles = ["user", "assistant"].into_iter().cycle();
    roles.enumerate().take(HISTORY_BYTES / INPUT_BYTES).map(|(number, role)| item(role, number)).collect()
}

/// Does what a driver does for one turn; gives the bytes that went up and down.
fn drive(session: &mut Session) -> usize {
    let now = Now::default();
    let mut moved = 0;
    while let Some(effect) = session.poll_effect() {
        match effect {
            Effect::Ask(turn, _) => {
                let grant = Grant { endpoint: EndpointId(0), tier: Tier::Latency };
                session.handle_granted(turn, Ok(grant), now);
            }
            Effect::Open(turn, request) => {
                let body = chat::body(&request.model, &request.fields, &request.messages);
                moved += body.iter().map(|piece| piece.len()).sum::<usize>();
                session.handle_upstream(turn, UpstreamEvent::Opened, now);
                session.handle_upstream(turn, UpstreamEvent::Bytes(STREAM), now);
            }
            Effect::Commit(turn, _) => session.handle_committed(turn, Ok(()), now),
            Effect::Release(_)
            | Effect::Park(_)
            | Effect::Abort(_)
            | Effect::Warm(_)
            | Effect::Load(..)
            | Effect::Find(..)
            | Effect::Count(..)
            | Effect::EndJob(..)
            | Effect::Finish(..)
            | Effect::Close { .. } => {}
        }
    }
    let out = session.outgoing();
    let ready = out.len();
    out.consume(ready);
    moved + ready
}

/// The id of the response that was created last: ids are drawn in order, so it is read from what was sent.
fn created(session: &mut Session) -> String {
    let ready = session.outgoing().ready();
    let at = ready.windows(5).position(|five| five == b"resp_").unwrap_or_default();
    String::from_utf8_lossy(ready.get(at..at + 37).unwrap_or_default()).into_owned()
}

/// Turns that are chained over a WebSocket, each with 2 KB of new input.
fn warm(turns: usize, store: bool) -> usize {
    let mut session = Session::websocket(
        shared(KNOWN_BYTES_MAX),
        IdSource::new([3; 32]),
        Owner::default(),
        Encoder::new(None),
        false,
    );
    let first = format!(
        r#"{{"type":"response.create","model":"m","generate":false,"store":{store},"input":[{}]}}"#,
        history().join(",")
    );
    session.handle_message(first.as_bytes(), Now::default());
    let mut previous = created(&mut session);
    let mut moved = drive(&mut session);
    for number in 0..turns {
        let create = format!(
            r#"{{"type":"response.create","model":"m","store":{store},"previous_response_id":"{previous}","input":[{}]}}"#,
            item("user", 1000 + number)
        );
        session.handle_message(create.as_bytes(), Now::default());
        moved += begin(&mut session);
        previous = created(&mut session);
        moved += drive(&mut session);
    }
    moved
}

/// The first effects of a turn, up to the request's going out: what comes down is still unread.
fn begin(session: &mut Session) -> usize {
    let Some(Effect::Ask(turn, _)) = session.poll_effect() else { return 0 };
    session.handle_granted(turn, Ok(Grant { endpoint: EndpointId(0), tier: Tier::Latency }), Now::default());
    let Some(Effect::Open(turn, request)) = session.poll_effect() else { return 0 };
    let body = chat::body(&request.model, &request.fields, &request.messages);
    session.handle_upstream(turn, UpstreamEvent::Opened, Now::default());
    session.handle_upstream(turn, UpstreamEvent::Bytes(STREAM), Now::default());
    body.iter().map(|piece| piece.len()).sum()
}

/// The bodies of turns over HTTP: the whole history each time, longer by one turn each.
struct Bodies {
    body: Vec<u8>,
    number: usize,
}

impl Bodies {
    fn new() -> Self {
        let history = history().join(",");
        let body = format!(r#"{{"model":"m","stream":true,"store":false,"input":[{history}]}}"#);
        Self { body: body.into_bytes(), number: 1000 }
    }

    fn next(&mut self) -> &[u8] {
        self.body.truncate(self.body.len() - 2);
        for role in ["assistant", "user"] {
            self.body.push(b',');
            self.body.extend_from_slice(item(role, self.number).as_bytes());
        }
        self.number += 1;
        self.body.extend_from_slice(b"]}");
        &self.body
    }
}

/// Turns over HTTP, of which each sends the whole history again.
fn http(turns: usize, shared: &Arc<Shared>) -> usize {
    let mut bodies = Bodies::new();
    let mut moved = 0;
    for _ in 0..turns {
        let mut session = Session::http(Arc::clone(shared), IdSource::new([3; 32]), Owner::default());
        session.handle_responses_body(bodies.next(), Now::default());
        moved += drive(&mut session);
    }
    moved
}

/// What the textbook gateway does to the same bodies, and nothing else of it.
fn textbook(turns: usize) -> usize {
    let mut bodies = Bodies::new();
    (0..turns).filter_map(|_| textbook::chat_request(bodies.next())).map(|chat| chat.to_string().len()).sum()
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let Some(turns) = arguments.next().and_then(|turns| turns.parse().ok()) else { return ExitCode::from(64) };
    let moved = match &*name {
        "warm" => warm(turns, false),
        "stored" => warm(turns, true),
        "unknown" => http(turns, &shared(0)),
        "recognised" => http(turns, &shared(KNOWN_BYTES_MAX)),
        "textbook" => textbook(turns),
        _ => return ExitCode::from(64),
    };
    // The one line that keeps the work from being optimised away.
    let _ = std::io::stdout().write_all(format!("{moved}\n").as_bytes());
    ExitCode::SUCCESS
}
