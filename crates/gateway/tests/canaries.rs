//! Secrets, each of them a text that stands nowhere else, wherever a secret can be; every way to fail that brings them near to what is
//! shown; and none of them in what is shown: the log at its finest, metrics, error bodies, and what the admin port tells.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use bytes::Bytes;
use flashlane_testkit::upstream::{Step, Upstream, chat_events, error, stream};
use rig::{Gateway, command, text};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

const CLIENT: &str = "flk_canary-client-0b1c2d3e4f";
/// SHA-256 of it.
const CLIENT_SHA256: &str = "732534b6ba179b8879d555cbeb23614e6628da04537031945d5266fbe04c27a7";
const STRANGER: &str = "flk_canary-stranger-55aa55aa";
const BASIC: &str = "canary-basic-credentials-77";
const BY_ENV: &str = "sk-canary-upstream-by-env-1234";
const BY_FILE: &str = "sk-canary-upstream-by-file-5678";
const SEAL: &str = "ca9a57ca9a57ca9a57ca9a57ca9a57ca9a57ca9a57ca9a57ca9a57ca9a57ca9a";
const ADMIN: &str = "fla_canary-admin-token-99887766";
/// SHA-256 of it.
const ADMIN_SHA256: &str = "237709530791f8601867c2877dc0b32c04edd25f7157f88be941413c4a650ad9";
const QUERY: &str = "canary-query-abcdef";
const COOKIE: &str = "canary-cookie-fedcba";
const PROMPT: &str = "canary-prompt-once-upon-a-time";
const ARGUMENT: &str = "canary-tool-argument-rm-rf";
const ANSWER: &str = "canary-answer-of-the-model";
const TOOL: &str = "canary-type-of-a-tool";

const SECRETS: [&str; 9] = [CLIENT, STRANGER, BASIC, BY_ENV, BY_FILE, SEAL, ADMIN, QUERY, COOKIE];
/// The client's own, and the model's: for that client, and for no log.
const CONTENTS: [&str; 4] = [PROMPT, ARGUMENT, ANSWER, TOOL];

/// A folder that is gone after the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = Self(env::temp_dir().join(format!("flashlane-canaries-{name}-{}", std::process::id())));
        fs::create_dir(&place.0).unwrap();
        place
    }

    fn file(&self, name: &str, contents: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// All that was shown, with the way that it was.
#[derive(Default)]
struct Shown(Vec<(String, String)>);

impl Shown {
    /// An answer, as it is on the wire.
    fn ask(&mut self, address: &str, method: &str, target: &str, (fields, body): (&str, &str)) -> String {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}content-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + body).as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        self.0.push((format!("{method} {target}"), answer.clone()));
        answer
    }

    /// Of an exchange that brings its contents back to the client who sent them.
    fn without_contents(&mut self) {
        self.without(&CONTENTS);
    }

    fn without(&mut self, contents: &[&str]) {
        let (_, answer) = self.0.last_mut().unwrap();
        contents.iter().for_each(|content| *answer = answer.replace(content, ""));
    }

    /// Where canaries sing.
    fn songs(&self) -> Vec<String> {
        let sings = |canary: &&str| {
            let at = self.0.iter().find(|(_, text)| text.contains(*canary))?;
            let line = at.1.lines().find(|line| line.contains(*canary)).unwrap_or_default();
            Some(format!("{canary} in {}: {line}", at.0))
        };
        SECRETS.iter().chain(&CONTENTS).filter_map(sings).collect()
    }
}

/// An error that quotes what the endpoint was asked with.
fn quoting(status: u16, key: &str) -> Vec<Step> {
    let body = format!(
        r#"{{"error":{{"message":"Bad request with authorization: Bearer {key} ({key})","type":"invalid_request_error","code":"{key}"}}}}"#
    );
    let mut steps = error(status, "", &body);
    steps.push(Step::Again);
    steps
}

/// A stream that breaks off with such an error.
fn quoting_late(key: &str) -> Vec<Step> {
    let failed = Bytes::from(format!("data: {{\"error\":{{\"message\":\"no: {key}\",\"code\":400}}}}\n\n"));
    let mut steps = stream(&[failed]);
    steps.push(Step::Again);
    steps
}

/// A stream of no such form, with contents in it.
fn odd() -> Vec<Step> {
    let mut steps = stream(&[Bytes::from(format!("data: {{\"choices\":\"{ANSWER}\",\"id\":\"{ANSWER}\"}}\n\n"))]);
    steps.push(Step::Again);
    steps
}

fn calling() -> Vec<Step> {
    let call = format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\
         \"tool_calls\":[{{\"index\":0,\"id\":\"call_1\",\"type\":\"function\",\"function\":{{\"name\":\"run\",\"arguments\":\"{{\\\"a\\\":\\\"{ARGUMENT}\\\"}}\"}}}}]}},\
         \"finish_reason\":\"tool_calls\"}}]}}\n\n"
    );
    let mut steps = stream(&[Bytes::from(call), Bytes::from_static(b"data: [DONE]\n\n")]);
    steps.push(Step::Again);
    steps
}

fn says(word: &str) -> Vec<Step> {
    let mut steps = stream(&chat_events(&[word]));
    steps.push(Step::Again);
    steps
}

fn config(place: &Place, engines: [&Upstream; 2]) -> String {
    let key_file = place.file("key", BY_FILE);
    let [latency, throughput] = engines.map(Upstream::base_url);
    let text = format!(
        "[server.admin]\ntoken_sha256 = [\"{ADMIN_SHA256}\"]\n[seal]\nkeys_env = \"CANARY_SEAL\"\n\
         [[endpoints]]\nname = \"one\"\ntier = \"latency\"\nbackend = \"openai\"\nbase_url = \"{latency}\"\napi_key_env = \"CANARY_KEY\"\n\
         [[endpoints]]\nname = \"two\"\ntier = \"throughput\"\nbackend = \"openai\"\nbase_url = \"{throughput}\"\napi_key_file = {key_file:?}\n\
         [[models]]\nname = \"fast\"\nroute = \"latency-only\"\n[[models]]\nname = \"wide\"\nroute = \"throughput-only\"\n\
         [[keys]]\nname = \"partner\"\nsha256 = [\"{CLIENT_SHA256}\"]\n\
         limits = {{ latency = {{ turns_max = 8 }}, throughput = {{ requests_per_minute = 600 }} }}\n"
    );
    place.file("flashlane.toml", &text)
}

fn turn(model: &str, more: &str) -> String {
    format!(
        r#"{{"model":"{model}","input":[{{"type":"message","role":"user","content":"{PROMPT}"}},{{"type":"function_call","call_id":"call_0","name":"run","arguments":"{{\"a\":\"{ARGUMENT}\"}}"}},{{"type":"function_call_output","call_id":"call_0","output":"{ARGUMENT}"}}],"tools":[{{"type":"function","name":"run","parameters":{{"type":"object"}}}},{{"type":"{TOOL}"}}]{more}}}"#
    )
}

/// Every way in which a turn can end, of a client with a key.
async fn turns(shown: &mut Shown, gateway: &Gateway, (one, two): (&Upstream, &Upstream)) {
    let fields =
        format!("authorization: Bearer {CLIENT}\r\ncookie: session={COOKIE}\r\ncontent-type: application/json\r\n");
    for (model, engine, key) in [("fast", one, BY_ENV), ("wide", two, BY_FILE)] {
        let mut scripts = vec![(200, says(ANSWER)), (200, calling()), (502, odd()), (400, quoting_late(key))];
        scripts.extend([400, 401, 403, 404, 413, 429, 500, 503].map(|status| (status, quoting(status, key))));
        for (status, script) in scripts {
            engine.play(script);
            for more in ["", ",\"stream\":true", ",\"store\":false"] {
                let answer = shown.ask(
                    &gateway.clients,
                    "POST",
                    &format!("/v1/responses?token={QUERY}"),
                    (&fields, &turn(model, more)),
                );
                assert!(answer.starts_with("HTTP/1.1 "), "{model} {status} {more}: {answer}");
                if status == 200 {
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                    shown.without_contents();
                }
                // A response has its request's tools, however it ends.
                shown.without(&[TOOL]);
            }
            let chat = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{PROMPT}"}}]}}"#);
            shown.ask(&gateway.clients, "POST", &format!("/v1/chat/completions?token={QUERY}"), (&fields, &chat));
            shown.without_contents();
        }
        let seen = engine.seen().requests;
        assert!(seen.iter().any(|request| request.head.contains(key)), "the endpoint is asked with its key");
    }
    let broken = turn("fast", &format!(",\"temperature\":\"{PROMPT}\""));
    let too_much = turn("fast", ",\"max_output_tokens\":-1");
    for body in [&broken, &too_much, &turn("nowhere", ""), "{\"model\"", PROMPT] {
        let answer = shown.ask(&gateway.clients, "POST", "/v1/responses", (&fields, body));
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    for (method, path) in
        [("GET", "/v1/responses/resp_1"), ("GET", "/nowhere"), ("PUT", "/v1/responses"), ("GET", "/v1/responses")]
    {
        shown.ask(&gateway.clients, method, &format!("{path}?token={QUERY}"), (&fields, ""));
    }
}

/// An endpoint that is gone: a turn over HTTP, and a handshake that would have a connection warm there.
fn unreachable(shown: &mut Shown, gateway: &Gateway, log: &Path) {
    let fields = format!("authorization: Bearer {CLIENT}\r\n");
    let answer = shown.ask(&gateway.clients, "POST", "/v1/responses", (&fields, &turn("fast", "")));
    assert!(answer.starts_with("HTTP/1.1 5"), "{answer}");
    let mut socket = TcpStream::connect(&gateway.clients).unwrap();
    let head = format!(
        "GET /v1/responses?token={QUERY} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{fields}\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    for _ in 0..500 {
        if fs::read_to_string(log).unwrap().contains("no warm connection") {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Callers who have no key of this server's, and what they ask operators' port.
fn strangers(shown: &mut Shown, gateway: &Gateway) {
    for sent in [
        format!("Bearer {STRANGER}"),
        format!("Basic {BASIC}"),
        STRANGER.to_owned(),
        format!("Bearer {CLIENT} {STRANGER}"),
    ] {
        let fields = format!("authorization: {sent}\r\ncookie: session={COOKIE}\r\n");
        for path in ["/v1/responses", "/v1/models", "/v1/chat/completions"] {
            let answer =
                shown.ask(&gateway.clients, "POST", &format!("{path}?api_key={QUERY}"), (&fields, &turn("fast", "")));
            assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        }
        shown.ask(&gateway.admin, "POST", &format!("/drain?token={QUERY}"), (&fields, ""));
    }
}

fn operators(shown: &mut Shown, gateway: &Gateway) {
    let fields = format!("authorization: Bearer {ADMIN}\r\ncookie: session={COOKIE}\r\n");
    for path in
        ["/metrics", "/limits", "/usage", "/config", "/endpoints", "/turns", "/status", "/", "/readyz", "/nowhere"]
    {
        shown.ask(&gateway.admin, "GET", &format!("{path}?token={QUERY}"), (&fields, ""));
    }
    let patch = "{\"queue\": {\"turns_max\": \"many\"}}";
    shown.ask(&gateway.admin, "PATCH", "/limits/latency", (&fields, patch));
    shown.ask(&gateway.admin, "PATCH", "/limits/latency", (&fields, "{\"queue\": {\"turns_max\": 7}}"));
}

/// The config read again: with files that hold other secrets, with secrets where none can be, and as it was.
fn reloads(place: &Place, gateway: &Gateway, log: &Path) {
    let good = fs::read_to_string(place.0.join("flashlane.toml")).unwrap();
    let until = |part: &str, times: usize| {
        gateway.running.signal("HUP");
        let is_there = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            fs::read_to_string(log).unwrap().matches(part).count() >= times
        });
        assert!(is_there, "not {times} times in the log: {part}: {}", fs::read_to_string(log).unwrap());
    };
    let (adopted, refused) = ("the config was read again", "the config of before holds");
    place.file("flashlane.toml", &good.replace("turns_max = 8", "turns_max = 9"));
    until(adopted, 1);
    let bad = [
        // A key in the place of the variable that holds it, and elsewhere.
        good.replace("\"CANARY_KEY\"", &format!("{BY_ENV:?}")),
        good.replace("keys_env = \"CANARY_SEAL\"", &format!("keys_env = {SEAL:?}")),
        good.replace("sha256 = [\"7", &format!("sha256 = [{CLIENT:?}, \"7")),
        good.replace("token_sha256 = [", &format!("token_sha256 = [{ADMIN:?}, ")),
        good.replace("[seal]", &format!("api_key = {BY_FILE:?}\n[seal]")),
        good.replace(
            "api_key_env = \"CANARY_KEY\"",
            &format!("api_key_env = \"CANARY_KEY\"\nproxy = \"http://127.0.0.1:1\"\nproxy_login_env = {BASIC:?}"),
        ),
        format!("{good}[[guards]]\nname = \"g\"\nurl = \"http://127.0.0.1:1/\"\napi_key_env = {STRANGER:?}\n"),
        good.replace(&format!("sha256 = [\"{CLIENT_SHA256}\"]"), &format!("sha256 = {CLIENT:?}")),
        good.replace(&format!("[\"{ADMIN_SHA256}\"]"), &format!("{ADMIN:?}")),
        format!("{good}\n{STRANGER} is no TOML {BASIC}\n"),
    ];
    for (times, text) in (1..).zip(&bad) {
        place.file("flashlane.toml", text);
        until(refused, times);
    }
    place.file("key", &format!("{BY_FILE}\n{BASIC}\n"));
    place.file("flashlane.toml", &good);
    until(refused, bad.len() + 1);
    place.file("key", BY_FILE);
    until(adopted, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_and_no_content_is_shown_anywhere() {
    let place = Place::new("serve");
    let mut one = Upstream::start(vec![says(ANSWER)]).await.unwrap();
    let mut two = Upstream::start(vec![says(ANSWER)]).await.unwrap();
    let config = config(&place, [&one, &two]);
    let log = place.0.join("log");
    let variables = [("CANARY_KEY", BY_ENV), ("CANARY_SEAL", SEAL), ("FLASHLANE_LOG", "trace")];
    let mut gateway = Gateway::logging(&["--config", &config], &variables, &log);
    let mut shown = Shown::default();
    for engine in [&mut one, &mut two] {
        engine.shut().await;
    }
    unreachable(&mut shown, &gateway, &log);
    for engine in [&mut one, &mut two] {
        engine.reopen().await.unwrap();
    }
    turns(&mut shown, &gateway, (&one, &two)).await;
    strangers(&mut shown, &gateway);
    operators(&mut shown, &gateway);
    reloads(&place, &gateway, &log);
    operators(&mut shown, &gateway);
    gateway.running.signal("TERM");
    let said = text(&gateway.running.end().stdout);
    shown.0.push(("standard output".to_owned(), gateway.said.clone() + &said));
    let log = fs::read_to_string(log).unwrap();
    for line in ["key=partner", "key refused", "reason=unknown", "reason=malformed", "limits changed"] {
        assert!(log.contains(line), "{line} is not in the log:\n{log}");
    }
    assert!(log.contains("DEBUG no warm connection"), "the log is at its finest:\n{log}");
    shown.0.push(("the log".to_owned(), log));
    assert_eq!(shown.songs(), Vec::<String>::new());
    assert!(shown.0.iter().any(|(_, answer)| answer.contains("flashlane_keys_refused_total{reason=\"unknown\"} 6")));
    assert!(
        shown.0.iter().any(|(_, answer)| answer.contains("authorization: Bearer *** (***)")),
        "what is masked is told"
    );
}

/// What cannot be served is told without what it holds.
#[test]
fn a_config_that_is_refused_tells_no_secret() {
    let place = Place::new("check");
    let rest = "[[models]]\nname = \"m\"\n[[endpoints]]\nname = \"e\"\ntier = \"latency\"\nbackend = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n";
    let broken = place.file("broken", &format!("{BY_FILE}\nand {BASIC} behind it\n"));
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{SEAL}\n{BASIC}\n-----END PRIVATE KEY-----\n");
    let pem = place.file("tls.key", &pem);
    let tls = format!("[server.tls]\ncertificate_file = {pem:?}\nkey_file = {pem:?}\n");
    for (text, field) in [
        (format!("{rest}api_key_file = {broken:?}\n"), "api_key_file"),
        (format!("{rest}api_key_env = \"CANARY_KEY\"\n"), "api_key_env"),
        (format!("[seal]\nkeys_file = {broken:?}\n{rest}"), "seal.keys_file"),
        (format!("[seal]\nkeys_env = \"CANARY_KEY\"\n{rest}"), "seal.keys_env"),
        (format!("{tls}{rest}"), "server.tls"),
        (format!("{rest}[[keys]]\nname = \"a\"\nsha256 = [\"{CLIENT_SHA256}0\"]\n"), "keys[0].sha256"),
    ] {
        let config = place.file("flashlane.toml", &text);
        let mut command = command(&["serve", "--check", "--config", &config]);
        let output = command.env("CANARY_KEY", format!("{BY_ENV} {STRANGER}")).output().unwrap();
        let said = rig::text(&output.stderr) + &rig::text(&output.stdout);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(field), "{field}: {said}");
        let shown = Shown(vec![(field.to_owned(), said)]);
        assert_eq!(shown.songs(), Vec::<String>::new());
    }
}
