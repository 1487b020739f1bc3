//! What the data folder keeps, and what it never sees: a real process, killed without a word and started again.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use flashlane_store::{Options, SqliteStore, Store as _};
use rig::{Gateway, run, text};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs};

/// A folder that is gone after the test, with a config in it that names a data folder beside it.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("flashlane-store-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let place = Self(env::temp_dir().join(name));
        fs::create_dir(&place.0).unwrap();
        let config = format!(
            "[store]\nfolder = {:?}\n[[endpoints]]\nname = \"sim\"\ntier = \"latency\"\nbackend = \"simulator\"\n\
             first_token_ms = 1\ntokens_per_second = 0\n[[models]]\nname = \"demo\"\n",
            place.data()
        );
        fs::write(place.0.join("flashlane.toml"), config).unwrap();
        place
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn config(&self) -> String {
        self.0.join("flashlane.toml").to_str().unwrap().to_owned()
    }

    fn start(&self) -> Gateway {
        Gateway::start(&["--config", &self.config()])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ask(gateway: &Gateway, method: &str, path: &str, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(&gateway.clients).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + body).as_bytes()).unwrap();
    socket
}

/// Of an answer that is not chunked.
fn json_of(gateway: &Gateway, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut answer = String::new();
    ask(gateway, method, path, &body).read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn create(gateway: &Gateway, body: &Value) -> Value {
    json_of(gateway, "POST", "/v1/responses", body)
}

fn retrieve(gateway: &Gateway, id: &Value) -> Value {
    json_of(gateway, "GET", &format!("/v1/responses/{}", id.as_str().unwrap()), &Value::Null)
}

#[test]
fn a_response_outlives_a_kill_and_can_be_gone_on_from() {
    let place = Place::new();
    let mut gateway = place.start();
    let made = create(&gateway, &json!({"model": "demo", "input": "My name is Ada."}));
    gateway.running.signal("KILL");
    gateway.running.child.wait().unwrap();
    let gateway = place.start();
    assert_eq!(retrieve(&gateway, &made["id"]), made);
    let next = json!({"model": "demo", "input": "What is my name?", "previous_response_id": made["id"]});
    assert!(create(&gateway, &next).to_string().contains("Your name is Ada."));
}

#[test]
fn what_a_client_saw_completed_is_on_the_disk() {
    let place = Place::new();
    for round in 0..5 {
        let mut gateway = place.start();
        let body = json!({"model": "demo", "input": format!("repeat: round {round}"), "stream": true}).to_string();
        let mut socket = ask(&gateway, "POST", "/v1/responses", &body);
        let (mut seen, mut buf) = (Vec::new(), [0; 4096]);
        while !seen.windows(25).any(|window| window == b"event: response.completed") {
            let count = socket.read(&mut buf).unwrap();
            assert!(count > 0, "{}", text(&seen));
            seen.extend_from_slice(&buf[..count]);
        }
        gateway.running.child.kill().unwrap();
        gateway.running.child.wait().unwrap();
        let seen = text(&seen);
        let id = seen.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap();
        let found = retrieve(&place.start(), &json!(id));
        assert_eq!(found["status"], "completed", "{found}");
    }
}

/// A WebSocket's client: frames without a mask to speak of, and whole messages.
struct Socket(TcpStream);

impl Socket {
    fn open(gateway: &Gateway) -> Self {
        let mut socket = TcpStream::connect(&gateway.clients).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let asked = "GET /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        socket.write_all(asked.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", text(&head));
        Self(socket)
    }

    fn send(&mut self, mut event: Value) {
        event["type"] = json!("response.create");
        let payload = event.to_string();
        assert!(payload.len() > 125, "it has the middle one of the three forms of a length");
        let mut frame = vec![0x81, 0xfe];
        frame.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload.as_bytes());
        self.0.write_all(&frame).unwrap();
    }

    fn next(&mut self) -> Value {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut length = vec![0; [0, 2, 8][usize::from(head[1].saturating_sub(125))]];
        self.0.read_exact(&mut length).unwrap();
        let long = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let mut payload = vec![0; if length.is_empty() { usize::from(head[1]) } else { long }];
        self.0.read_exact(&mut payload).unwrap();
        assert_eq!(head[0], 0x81, "{payload:?}");
        serde_json::from_slice(&payload).unwrap()
    }

    /// Sends it and waits for its response.
    fn create(&mut self, event: &Value) -> Value {
        self.send(event.clone());
        loop {
            let mut event = self.next();
            let kind = event["type"].as_str().unwrap();
            if kind == "response.completed" {
                return event["response"].take();
            }
            assert!(!["response.failed", "response.incomplete", "error"].contains(&kind), "{event}");
        }
    }
}

fn is_on_disk(folder: &Path, word: &str) -> bool {
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let bytes: Vec<u8> = files.flatten().collect();
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

const SECRET: &str = "canary-secret-7c1e";
const KEPT: &str = "canary-kept-7c1e";

/// A request with the word wherever a client may put one.
fn telling(word: &str, more: &Value) -> Value {
    let mut asked = json!({
        "model": "demo", "store": word != SECRET, "input": format!("repeat: {word}"),
        "instructions": word, "metadata": {"of": word},
        "tools": [{"type": "function", "name": "look", "description": word, "parameters": {"type": "object"}}],
    });
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    asked
}

/// One turn of `word`, of each kind that a client can ask for; what was sealed in them.
fn tell_all(gateway: &Gateway, word: &str) -> Vec<String> {
    let done = create(gateway, &telling(word, &json!({})));
    assert!(done["output"].to_string().contains(word), "{done}");
    let sealed = json!({"reasoning": {"effort": "high"}, "include": ["reasoning.encrypted_content"]});
    let thought = create(gateway, &telling(word, &sealed))["output"][0].clone();
    let user = json!({"role": "user", "content": format!("repeat: {word}")});
    create(gateway, &telling(word, &json!({"input": [user, thought, user]})));
    let window = json!({"model": "demo", "input": [user, {"role": "assistant", "content": word}, user]});
    let compacted = json_of(gateway, "POST", "/v1/responses/compact", &window);

    let mut socket = Socket::open(gateway);
    let first = socket.create(&telling(word, &json!({})));
    let second = socket.create(&telling(word, &json!({"stream_id": "lane", "previous_response_id": first["id"]})));
    let warm = socket.create(&telling(word, &json!({"stream_id": "warm", "generate": false})));
    socket.create(&telling(word, &json!({"stream_id": "warm", "previous_response_id": warm["id"]})));
    // What goes on from what is not to be stored is not to be stored, whatever it says of itself.
    let told = json!({"stream_id": "lane", "previous_response_id": second["id"], "store": true});
    let third = socket.create(&telling(word, &told));
    let above = json!([{"type": "compaction", "compact_threshold": 1}]);
    let cut = json!({"previous_response_id": third["id"], "context_management": above, "store": true});
    let cut = socket.create(&telling(word, &cut));
    assert_eq!(cut["output"][0]["type"], "compaction", "{cut}");
    let trigger = json!({"previous_response_id": cut["id"], "input": [user, {"type": "compaction_trigger"}]});
    let last = socket.create(&telling(word, &trigger));
    socket.create(&telling(word, &json!({"previous_response_id": last["id"], "store": true})));
    let items =
        [&thought, compacted["output"].as_array().unwrap().last().unwrap(), &cut["output"][0], &last["output"][0]];
    items.map(|item| item["encrypted_content"].as_str().unwrap().to_owned()).to_vec()
}

#[test]
fn what_is_not_to_be_stored_never_reaches_the_disk() {
    let place = Place::new();
    let mut gateway = place.start();
    let secrets = [tell_all(&gateway, SECRET), vec![SECRET.to_owned()]].concat();
    let failed = json!({"model": "demo", "store": false, "previous_response_id": "resp_none", "input": SECRET});
    assert_eq!(create(&gateway, &failed)["error"]["code"], "previous_response_not_found");
    let kept = tell_all(&gateway, KEPT);
    for _ in 0..2 {
        assert!(secrets.iter().all(|secret| !is_on_disk(&place.data(), secret)), "what was not to be stored is there");
        assert!(is_on_disk(&place.data(), KEPT), "the search finds nothing at all");
        assert!(is_on_disk(&place.data(), &kept[0]) && is_on_disk(&place.data(), &kept[2]), "nor what is sealed");
        // Then once more, with the log gone back into the database.
        gateway.running.signal("INT");
        assert_eq!(gateway.running.end().status.code(), Some(0));
        gateway = place.start();
    }
}

#[tokio::test]
async fn a_clean_end_loses_nothing_of_the_ledger_and_a_background_response_is_kept() {
    let place = Place::new();
    let mut gateway = place.start();
    for store in [true, false, true] {
        create(&gateway, &json!({"model": "demo", "input": "repeat: counted", "store": store}));
    }
    let made = create(&gateway, &json!({"model": "demo", "input": "repeat: behind", "background": true}));
    assert_eq!(made["status"], "queued");
    // The stop waits for it, and for what the store has still to write.
    gateway.running.signal("INT");
    assert_eq!(gateway.running.end().status.code(), Some(0));
    let store = SqliteStore::open(&Options::new(place.data())).unwrap();
    let used = store.usage_sum(None, 0..u64::MAX >> 1).await.unwrap();
    assert_eq!(used.len(), 1, "{used:?}");
    assert_eq!((used[0].turns, used[0].model.as_str(), used[0].tier.as_str()), (4, "demo", "latency"));
    assert!(used[0].tokens.input > 0 && used[0].tokens.output > 0, "{used:?}");
    drop(store);
    let done = retrieve(&place.start(), &made["id"]);
    assert_eq!(done["status"], "completed", "{done}");
    assert!(done["output"].to_string().contains("behind"), "{done}");
}

#[test]
fn a_background_response_that_a_kill_cuts_has_failed_and_its_stream_ends() {
    let place = Place::new();
    let slow = fs::read_to_string(place.config()).unwrap().replace("tokens_per_second = 0", "tokens_per_second = 20");
    fs::write(place.config(), slow).unwrap();
    let mut gateway = place.start();
    let made = create(&gateway, &json!({"model": "demo", "input": "count from 1 to 900", "background": true}));
    let body = json!({"model": "demo", "input": "count from 1 to 900", "background": true, "stream": true}).to_string();
    let mut followed = BufReader::new(ask(&gateway, "POST", "/v1/responses", &body)).lines();
    let data = |line: std::io::Result<String>| line.unwrap().strip_prefix("data: ").map(str::to_owned);
    let seen: Vec<String> = followed.by_ref().filter_map(data).take(6).collect();
    gateway.running.child.kill().unwrap();
    gateway.running.child.wait().unwrap();
    let gateway = place.start();
    let first: Value = serde_json::from_str(&seen[0]).unwrap();
    for id in [&made["id"], &first["response"]["id"]] {
        let failed = retrieve(&gateway, id);
        assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("server_error")));
    }
    let path = format!("/v1/responses/{}?stream=true", first["response"]["id"].as_str().unwrap());
    let now: Vec<String> = BufReader::new(ask(&gateway, "GET", &path, "")).lines().filter_map(data).collect();
    assert_eq!(now[..seen.len()], seen, "what was seen reads the same again");
    assert!(now[now.len() - 2].starts_with("{\"type\":\"response.failed\""), "{now:?}");
    assert_eq!(now.last().unwrap(), "[DONE]");
}

#[test]
fn a_folder_has_one_process_and_the_second_says_so() {
    let place = Place::new();
    let _first = place.start();
    let ports = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config"];
    let second = run(&[&ports[..], &[&place.config()]].concat());
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second.stderr);
    assert!(said.contains("store.folder") && said.contains("another process holds the data folder"), "{said}");
}
