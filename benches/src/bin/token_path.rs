//! The pure token path under `callgrind`: upstream bytes through a session to framed events, one read a token.
//!
//! `token_path SCENARIO TOKENS` does the work for that many tokens and prints how many bytes came out. `benches/micro/run`
//! counts the instructions of two lengths; their difference is what a token costs, with all set-up taken out.

use flashlane_benches::{fleet, ring};
use flashlane_engine::admission::Grant;
use flashlane_engine::{EndpointId, IdSource, Now, Owner, Session, Settings, Shared, Tier, TurnId, UpstreamEvent};
use flashlane_wire::websocket::Encoder;
use std::process::ExitCode;
use std::sync::Arc;

/// Where tokens go, and what they are.
struct Scenario {
    name: &'static str,
    client: Client,
    /// The upstream's chunk around a token.
    before: &'static str,
    after: &'static str,
    /// A chunk that comes before the first token.
    opening: &'static str,
}

#[derive(Clone, Copy)]
enum Client {
    WebSocket,
    Sse,
    Chat,
}

const CONTENT: (&str, &str) = (
    r#"data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1760000000,"model":"gpt-oss-120b","choices":[{"index":0,"delta":{"content":""#,
    "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
);
const REASONING: &str = r#"data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1760000000,"model":"gpt-oss-120b","choices":[{"index":0,"delta":{"reasoning":""#;
const ARGUMENTS: &str = r#"data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1760000000,"model":"gpt-oss-120b","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":""#;
const CALL: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"run\",\"arguments\":\"\"}}]}}]}\n\n";

const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "websocket", client: Client::WebSocket, before: CONTENT.0, after: CONTENT.1, opening: "" },
    Scenario { name: "sse", client: Client::Sse, before: CONTENT.0, after: CONTENT.1, opening: "" },
    Scenario { name: "chat", client: Client::Chat, before: CONTENT.0, after: CONTENT.1, opening: "" },
    Scenario { name: "reasoning", client: Client::WebSocket, before: REASONING, after: CONTENT.1, opening: "" },
    Scenario {
        name: "arguments",
        client: Client::WebSocket,
        before: ARGUMENTS,
        after: "\"}}]},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        opening: CALL,
    },
];

const TOKENS: [&str; 8] = [" the", " inference", "\\n", " of", " a", " \\\"quoted\\\"", "é", " gateway"];

fn session(client: Client) -> Session {
    let settings = Settings { output_bytes_max: usize::MAX, ..Settings::default() };
    let shared = Arc::new(Shared::new(settings, Arc::new(fleet()), ring()));
    let ids = IdSource::new([3; 32]);
    let now = Now::default();
    let mut session = match client {
        Client::WebSocket => Session::websocket(shared, ids, Owner::default(), Encoder::new(None), false),
        Client::Sse | Client::Chat => Session::http(shared, ids, Owner::default()),
    };
    let create = r#"{"type":"response.create","model":"m","input":"hi","store":false,"stream":true}"#;
    match client {
        Client::WebSocket => session.handle_message(create.as_bytes(), now),
        Client::Sse => session.handle_responses_body(create.as_bytes(), now),
        Client::Chat => {
            session
                .handle_chat_body(br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}"#, now);
        }
    }
    session.handle_asked(TurnId::default(), Grant::outright(EndpointId(0), Tier::Latency).into(), now);
    session.handle_upstream(TurnId::default(), UpstreamEvent::Opened, now);
    session
}

/// Streams `tokens` tokens, one read each, writing after each.
fn stream(scenario: &Scenario, tokens: usize) -> usize {
    let mut session = session(scenario.client);
    let now = Now::default();
    if !scenario.opening.is_empty() {
        session.handle_upstream(TurnId::default(), UpstreamEvent::Bytes(scenario.opening.as_bytes()), now);
    }
    let chunks: Vec<Vec<u8>> =
        TOKENS.iter().map(|token| [scenario.before, token, scenario.after].concat().into_bytes()).collect();
    let mut written = 0;
    for chunk in chunks.iter().cycle().take(tokens) {
        session.handle_upstream(TurnId::default(), UpstreamEvent::Bytes(chunk), now);
        let out = session.outgoing();
        let ready = out.len();
        written += ready;
        out.consume(ready);
    }
    written
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let tokens = arguments.next().and_then(|tokens| tokens.parse().ok());
    match (SCENARIOS.iter().find(|scenario| scenario.name == name), tokens) {
        (Some(scenario), Some(tokens)) => {
            let written = stream(scenario, tokens);
            // The one line that keeps the work from being optimised away.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{written}\n").as_bytes());
            ExitCode::SUCCESS
        }
        _ => ExitCode::from(64),
    }
}
