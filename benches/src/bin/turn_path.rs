//! A whole turn on the pure path under `callgrind`: a client's request through a session to the upstream's body, one token
//! back, and the end of the response.
//!
//! `turn_path SCENARIO TURNS [BYTES]` does so many turns on a history of so many bytes (400,000) and prints how many bytes came
//! out. `benches/micro/run` counts the instructions of two lengths; their difference is what a turn costs, with all set-up taken out.

use flashlane_benches::{fleet, ring, textbook};
use flashlane_engine::admission::Grant;
use flashlane_engine::tokens::Counter;
use flashlane_engine::{Effect, EndpointId, IdSource, Now, Owner, Session, Settings, Shared, Tier, UpstreamEvent};
use flashlane_wire::chat;
use flashlane_wire::websocket::Encoder;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

const HISTORY_BYTES: usize = 400_000;
/// What one step of a history adds: a user's turn and its answer.
const STEP_ITEMS: usize = 2;
/// So many turns go on from each other, and the next one from the history again: it keeps its length.
const TURNS_ON: usize = 10;
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

/// An item of about so many bytes; no two are equal.
fn item(role: &str, number: usize, bytes: usize) -> String {
    let part = if role == "assistant" { "output_text" } else { "input_text" };
    let text = LINE.repeat(bytes / LINE.len());
    format!(r#"{{"type":"message","role":"{role}","content":[{{"type":"{part}","text":"{number} {text}"}}]}}"#)
}

fn history(bytes: usize) -> Vec<String> {
    let roles = ["user", "assistant"].into_iter().cycle();
    let (count, each) = (bytes.div_ceil(INPUT_BYTES), bytes.min(INPUT_BYTES));
    roles.enumerate().take(count).map(|(number, role)| item(role, number, each)).collect()
}

/// Does what a driver does for one turn; gives the response's id, and the bytes that went up and down.
fn drive(session: &mut Session) -> (String, usize) {
    let now = Now::default();
    let mut moved = 0;
    while let Some(effect) = session.poll_effect() {
        match effect {
            Effect::Ask(turn, _) => {
                let grant = Grant::outright(EndpointId(0), Tier::Latency);
                session.handle_asked(turn, grant.into(), now);
            }
            Effect::Open(turn, request) => {
                let body = chat::body(&request.model, &request.fields, &request.messages);
                moved += body.iter().map(|piece| piece.len()).sum::<usize>();
                session.handle_upstream(turn, UpstreamEvent::Opened, now);
                session.handle_upstream(turn, UpstreamEvent::Bytes(STREAM), now);
            }
            Effect::Prepare(turn, _) => session.handle_prepared(turn, None, now),
            Effect::Commit(turn, _) => session.handle_committed(turn, Ok(()), now),
            Effect::Count(turn, job) => session.handle_counted(turn, &Counter::load().count(&job), now),
            Effect::Release(..)
            | Effect::Look(..)
            | Effect::Hedge(..)
            | Effect::Adopt(..)
            | Effect::Forget(_)
            | Effect::Park(_)
            | Effect::Abort(_)
            | Effect::Warm(_)
            | Effect::Prefilled(_)
            | Effect::Inquire(..)
            | Effect::Load(..)
            | Effect::Find(..)
            | Effect::EndJob(..)
            | Effect::Delegate(..)
            | Effect::Join(..)
            | Effect::Answering(_)
            | Effect::Finish(..)
            | Effect::Close { .. } => {}
        }
    }
    let out = session.outgoing();
    let ready = out.ready();
    // What is sent first of a response has its id before any other.
    let at = ready.windows(5).position(|five| five == b"resp_").unwrap_or_default();
    let id = String::from_utf8_lossy(ready.get(at..at + 37).unwrap_or_default()).into_owned();
    let length = out.len();
    out.consume(length);
    (id, moved + length)
}

/// Turns that are chained over a WebSocket, each with 2 KB of new input. Their history comes the same way, step by step.
fn warm(turns: usize, store: bool, bytes: usize) -> usize {
    let known = shared(KNOWN_BYTES_MAX);
    let mut session = Session::websocket(known, IdSource::new([3; 32]), Owner::default(), Encoder::new(None), false);
    let (mut previous, mut moved) = (String::new(), 0);
    let history = history(bytes);
    let mut turn = |previous: &mut String, more, items: &str| {
        session.handle_message(create(previous, store, more, items).as_bytes(), Now::default());
        let (id, bytes) = drive(&mut session);
        *previous = id;
        moved += bytes;
    };
    for items in history.chunks(STEP_ITEMS) {
        turn(&mut previous, r#""generate":false,"#, &items.join(","));
    }
    let all = previous.clone();
    for number in 0..turns {
        if number % TURNS_ON == 0 {
            previous.clone_from(&all);
        }
        turn(&mut previous, "", &item("user", 1000 + number, INPUT_BYTES));
    }
    moved
}

fn create(previous: &str, store: bool, more: &str, items: &str) -> String {
    let previous = if previous.is_empty() { "null".to_owned() } else { format!("\"{previous}\"") };
    format!(
        r#"{{"type":"response.create","model":"m","store":{store},{more}"previous_response_id":{previous},"input":[{items}]}}"#
    )
}

/// The bodies of turns over HTTP: the whole history each time, longer by one turn each.
struct Bodies {
    body: Vec<u8>,
    number: usize,
}

impl Bodies {
    fn new(bytes: usize) -> Self {
        let history = history(bytes).join(",");
        let body = format!(r#"{{"model":"m","stream":true,"store":false,"input":[{history}]}}"#);
        Self { body: body.into_bytes(), number: 1000 }
    }

    fn next(&mut self) -> &[u8] {
        self.body.truncate(self.body.len() - 2);
        for role in ["assistant", "user"] {
            self.body.push(b',');
            self.body.extend_from_slice(item(role, self.number, INPUT_BYTES).as_bytes());
        }
        self.number += 1;
        self.body.extend_from_slice(b"]}");
        &self.body
    }
}

/// Turns over HTTP, of which each sends the whole history again.
fn http(turns: usize, shared: &Arc<Shared>, bytes: usize) -> usize {
    let mut bodies = Bodies::new(bytes);
    let mut moved = 0;
    for _ in 0..turns {
        let mut session = Session::http(Arc::clone(shared), IdSource::new([3; 32]), Owner::default());
        session.handle_responses_body(bodies.next(), Now::default());
        moved += drive(&mut session).1;
    }
    moved
}

/// What the textbook gateway does to the same bodies, and nothing else of it.
fn textbook(turns: usize, bytes: usize) -> usize {
    let mut bodies = Bodies::new(bytes);
    (0..turns).filter_map(|_| textbook::chat_request(bodies.next())).map(|chat| chat.to_string().len()).sum()
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let Some(turns) = arguments.next().and_then(|turns| turns.parse().ok()) else { return ExitCode::from(64) };
    let bytes = arguments.next().map_or(Ok(HISTORY_BYTES), |bytes| bytes.parse());
    let Ok(bytes) = bytes else { return ExitCode::from(64) };
    let moved = match &*name {
        "warm" => warm(turns, false, bytes),
        "stored" => warm(turns, true, bytes),
        "unknown" => http(turns, &shared(0), bytes),
        "recognised" => http(turns, &shared(KNOWN_BYTES_MAX), bytes),
        "textbook" => textbook(turns, bytes),
        _ => return ExitCode::from(64),
    };
    // The one line that keeps the work from being optimised away.
    let _ = std::io::stdout().write_all(format!("{moved}\n").as_bytes());
    ExitCode::SUCCESS
}
