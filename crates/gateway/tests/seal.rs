//! The keys of what clients keep: what was sealed outlives a restart and a rotation where the config has its key, and no key is ever shown.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use rig::{Gateway, run, text};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::{env, fs};

const OLD: &str = "0a0b0c0d0e0f1a1b1c1d1e1f2a2b2c2d2e2f3a3b3c3d3e3f4a4b4c4d4e4f5a5b";
const NEW: &str = "f0e0d0c0b0a0f1e1d1c1b1a1f2e2d2c2b2a2f3e3d3c3b3a3f4e4d4c4b4a4f5e5";

/// A config that is gone after the test.
struct Config(PathBuf);

impl Config {
    fn new(name: &str, seal: &str) -> Self {
        let path = env::temp_dir().join(format!("flashlane-seal-{name}-{}.toml", std::process::id()));
        let engine = "[[endpoints]]\nname = \"sim\"\ntier = \"latency\"\nbackend = \"simulator\"\nfirst_token_ms = 1\ntokens_per_second = 0\n";
        fs::write(&path, format!("{seal}{engine}[[models]]\nname = \"demo\"\n")).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn start(&self, keys: &str) -> Gateway {
        Gateway::start_with(&["--config", self.path()], &[("SEAL_KEYS", keys), ("FLASHLANE_LOG", "trace")])
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The status and the body of an answer.
fn create(gateway: &Gateway, body: &Value) -> (String, Value) {
    let mut socket = TcpStream::connect(&gateway.clients).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), serde_json::from_str(body).unwrap())
}

fn reasoning(gateway: &Gateway) -> Value {
    let asked = json!({"model": "demo", "input": "why?", "store": false, "reasoning": {"effort": "high"}, "include": ["reasoning.encrypted_content"]});
    let (status, answer) = create(gateway, &asked);
    assert_eq!(status, "200", "{answer}");
    let item = answer["output"][0].clone();
    assert!(item["encrypted_content"].is_string(), "{answer}");
    item
}

fn bring_back(gateway: &Gateway, item: &Value) -> (String, Value) {
    create(gateway, &json!({"model": "demo", "input": [item, {"role": "user", "content": "hello"}], "store": false}))
}

/// All that it said, once it is ended.
fn said(mut gateway: Gateway) -> String {
    gateway.running.signal("INT");
    let output = gateway.running.end();
    let said = format!("{}{}{}", gateway.said, text(&output.stdout), text(&output.stderr));
    assert!(said.len() > 500, "the log has something to search: {said}");
    said
}

fn assert_shows_no_key(said: &str) {
    let decimal = format!("{}, {}, {}", 0x0a, 0x0b, 0x0c);
    for part in [&OLD[..16], &OLD[48..], &NEW[..16], &NEW[48..], &OLD.to_uppercase()[..16], &decimal] {
        assert!(!said.contains(part), "{part} is in\n{said}");
    }
}

#[test]
fn a_blob_outlives_a_restart_and_a_rotation_and_no_key_is_shown() {
    let config = Config::new("kept", "[seal]\nkeys_env = \"SEAL_KEYS\"\n");
    let gateway = config.start(OLD);
    let item = reasoning(&gateway);
    assert_shows_no_key(&said(gateway));

    let gateway = config.start(&format!("{NEW} {OLD}"));
    assert_eq!(bring_back(&gateway, &item).0, "200");
    let newer = reasoning(&gateway);
    assert_shows_no_key(&said(gateway));

    let gateway = config.start(NEW);
    assert_eq!(bring_back(&gateway, &newer).0, "200");
    let (status, answer) = bring_back(&gateway, &item);
    assert_eq!((status.as_str(), &answer["error"]["param"]), ("400", &json!("input[0].encrypted_content")), "{answer}");
    assert_shows_no_key(&said(gateway));
}

#[test]
fn without_keys_the_log_says_what_a_restart_costs() {
    let config = Config::new("random", "");
    let gateway = config.start("");
    let item = reasoning(&gateway);
    assert_eq!(bring_back(&gateway, &item).0, "200");
    assert!(said(gateway).contains("sealed with a random key"));
    assert_eq!(bring_back(&config.start(""), &item).0, "400");
}

#[test]
fn a_wrong_key_is_told_by_its_place_and_not_shown() {
    let config = Config::new("wrong", "[seal]\nkeys_file = \"/dev/null\"\n");
    let output = run(&["serve", "--config", config.path(), "--check"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(told.contains("toml:2: seal.keys_file: no key"), "{told}");
}
