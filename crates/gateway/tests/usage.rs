//! `flashlane usage` beside a running gateway, after it, and where its ledger is in memory.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use rig::{Gateway, run, text};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::{env, fs};

/// SHA-256 of `secret-of-partner-a-for-tests`.
const DIGEST: &str = "0c80d165b54243c331bb98c2d584ba9feea8e37a34c6ffc65607a983de787bb4";
const SECRET: &str = "secret-of-partner-a-for-tests";

/// A folder that is gone after the test, with a config in it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str, store: &str, keys: &str) -> Self {
        let place = Self(env::temp_dir().join(format!("flashlane-usage-{name}-{}", std::process::id())));
        fs::create_dir(&place.0).unwrap();
        let store = store.replace("DATA", place.0.join("data").to_str().unwrap());
        let config = format!(
            "{store}\n[[endpoints]]\nname = \"sim\"\ntier = \"latency\"\nbackend = \"simulator\"\nfirst_token_ms = 1\n\
             tokens_per_second = 0\n[[models]]\nname = \"demo\"\n{keys}"
        );
        fs::write(place.0.join("flashlane.toml"), config).unwrap();
        place
    }

    fn config(&self) -> String {
        self.0.join("flashlane.toml").to_str().unwrap().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ask(gateway: &Gateway, headers: &str) {
    let body = "{\"model\": \"demo\", \"input\": \"repeat: counted\"}";
    let mut socket = TcpStream::connect(&gateway.clients).unwrap();
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// What it prints; it must succeed.
fn usage(arguments: &[&str]) -> String {
    let output = run(&[&["usage"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The ledger takes a turn's row after its answer.
fn until_turns(arguments: &[&str], turns: u64) -> Value {
    for _ in 0..200 {
        let said: Value = serde_json::from_str(&usage(&[arguments, &["--format", "json"]].concat())).unwrap();
        if said["total"]["turns"] == turns {
            return said;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("never {turns} turns: {}", usage(arguments));
}

#[test]
fn a_folders_ledger_is_read_beside_the_gateway_and_after_it() {
    let keys = format!("[[keys]]\nname = \"partner, a\"\nsha256 = [\"{DIGEST}\"]\n");
    let place = Place::new("folder", "[store]\nfolder = \"DATA\"", &keys);
    let config = place.config();
    let mut gateway = Gateway::start(&["--config", &config]);
    let asked = ["--config", &config];
    assert!(usage(&asked).starts_with("No turns between 20"), "{}", usage(&asked));
    for _ in 0..3 {
        ask(&gateway, &format!("authorization: Bearer {SECRET}\r\n"));
    }
    let said = until_turns(&asked, 3);
    let row = &said["rows"][0];
    assert_eq!((&row["key"], &row["model"], &row["tier"]), (&"partner, a".into(), &"demo".into(), &"latency".into()));
    assert!(row["input_tokens"].as_u64() > Some(0) && row["output_tokens"] == said["total"]["output_tokens"], "{said}");

    gateway.running.signal("TERM");
    assert_eq!(gateway.running.end().status.code(), Some(0));
    let table = usage(&[&asked[..], &["--by", "day,key"]].concat());
    assert!(table.starts_with("day         key         turns") && table.contains("  partner, a      3  "), "{table}");
    assert!(table.lines().last().unwrap().starts_with("total  "), "{table}");
    let csv = usage(&[&asked[..], &["--by", "key", "--format", "csv", "--since", "1h"]].concat());
    assert!(csv.starts_with("key,turns,input_tokens,") && csv.contains("\r\n\"partner, a\",3,"), "{csv}");
    let unnamed = usage(&["--folder", place.0.join("data").to_str().unwrap(), "--by", "key,key"]);
    assert!(unnamed.contains("(unknown ") && unnamed.starts_with("key  "), "{unnamed}");

    // Who looked on has left nothing that keeps the gateway out, or its rows.
    let gateway = Gateway::start(&["--config", &config]);
    ask(&gateway, &format!("authorization: Bearer {SECRET}\r\n"));
    until_turns(&asked, 4);
}

#[test]
fn a_ledger_in_memory_is_asked_for_where_the_gateway_runs() {
    let place = Place::new("memory", "", "");
    let config = place.config();
    let gateway = Gateway::start(&["--config", &config]);
    ask(&gateway, "");
    ask(&gateway, "authorization: Bearer somebody\r\n");
    let asked = ["--config", &config, "--admin-listen", &gateway.admin];
    let said = until_turns(&asked, 2);
    let keys: Vec<_> = said["rows"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert_eq!(keys[0], "(no key)");
    assert!(keys[1].starts_with("(unknown "), "{keys:?}");
    let gone = usage(&[&asked[..], &["--since", "2020-01-01", "--until", "2020-02-01"]].concat());
    assert_eq!(gone, "No turns between 2020-01-01 00:00 and 2020-02-01 00:00 UTC.\n");
}

#[test]
fn what_cannot_be_asked_says_what_was_expected() {
    for (arguments, code, part) in [
        (&["--since", "a week"][..], 2, "expected a span before now such as 7d, 24h or 90m"),
        (&["--by", "colour"], 2, "possible values: key, model, tier, day"),
        (&["--format", "xml"], 2, "possible values: table, csv, json"),
        (&["--folder", ".", "--since", "2026-11-02", "--until", "2026-11-01"], 1, "expected an earlier --since"),
        (&["--folder", "src"], 1, "store.sqlite cannot be used"),
        (&["--folder", ".", "--by", "day", "--since", "2000-01-01"], 1, "days: expected at most 1000"),
        (&["--config", "no-such.toml"], 64, "no-such.toml"),
        (&["--admin-listen", &rig::closed_address()], 1, "no gateway answers at http://127.0.0.1:"),
    ] {
        let output = run(&[&["usage"], arguments].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}
