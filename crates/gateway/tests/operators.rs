//! What an operator types, against an admin port that speaks TLS and asks for proof; and what programs read of `serve`.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use rig::{Running, command, run, text};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

const TOKEN: &str = "fla_token-of-these-tests-0001";
/// SHA-256 of it.
const TOKEN_SHA256: &str = "f461a089f096c5d213eaeb00d88bcf15e4d82fd27925c81fb9880fa00ba714b6";

/// A gateway whose admin port speaks TLS, in a folder that is gone after the test.
struct Place {
    folder: PathBuf,
    clients: String,
    /// `https://127.0.0.1:PORT`
    admin: String,
    _running: Running,
}

impl Place {
    /// `asks`: for a client certificate, of everybody.
    fn start(name: &str, asks: bool) -> Self {
        let folder = std::env::temp_dir().join(format!("flashlane-operators-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (certificate, key) in [("server.crt", "server.key"), ("operator.crt", "operator.key")] {
            let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            fs::write(folder.join(certificate), own.cert.pem()).unwrap();
            fs::write(folder.join(key), own.signing_key.serialize_pem()).unwrap();
        }
        fs::write(folder.join("token"), format!("{TOKEN}\n")).unwrap();
        let file = |name: &str| folder.join(name);
        let ca = if asks { format!("client_ca_file = {:?}\n", file("operator.crt")) } else { String::new() };
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"0.0.0.0:0\"\n\
             [server.admin]\ntoken_sha256 = [\"{TOKEN_SHA256}\"]\n\
             [server.admin.tls]\ncertificate_file = {:?}\nkey_file = {:?}\n{ca}\
             [[endpoints]]\nname = \"sim\"\ntier = \"latency\"\nbackend = \"simulator\"\n[[models]]\nname = \"played\"\n",
            file("server.crt"),
            file("server.key")
        );
        fs::write(file("flashlane.toml"), config).unwrap();
        let mut running = Running::start(&["serve", "--config", file("flashlane.toml").to_str().unwrap()]);
        loop {
            let line = running.line();
            assert!(!line.is_empty(), "{}", text(&running.end().stderr));
            if let Some((clients, admin)) =
                line.trim_end().strip_prefix("ready http://").and_then(|l| l.split_once(" admin "))
            {
                let admin = admin.replace("0.0.0.0", "127.0.0.1");
                return Self { clients: clients.to_owned(), admin, folder, _running: running };
            }
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str], token: Option<&str>) -> Output {
        let mut command = command(arguments);
        command.envs(token.map(|token| ("FLASHLANE_ADMIN_TOKEN", token)));
        command.stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn told(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    text(&output.stderr)
}

/// A turn, and its request's id.
fn turn(clients: &str) -> String {
    let body = "{\"model\": \"played\", \"input\": \"repeat: counted\"}";
    let mut socket = TcpStream::connect(clients).unwrap();
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_owned()
}

#[test]
fn every_verb_asks_an_admin_port_that_speaks_tls_and_wants_a_token() {
    let place = Place::start("tls", false);
    let id = turn(&place.clients);
    let (certificate, token, config) = (place.file("server.crt"), place.file("token"), place.file("flashlane.toml"));
    let trusting = ["--admin", &place.admin, "--cacert", &certificate];
    let by_file = [&trusting[..], &["--token-file", &token]].concat();
    let usage = [&["usage", "--format", "json"], &trusting[..]].concat();
    // No turn waits for the ledger.
    let turns = || {
        let usage: Value = serde_json::from_str(&told(&place.run(&usage, Some(TOKEN)))).unwrap();
        usage["total"]["turns"].as_u64()
    };
    let began = Instant::now();
    while turns() != Some(1) {
        assert!(began.elapsed() < Duration::from_secs(20), "the turn comes into the ledger");
    }
    let explained = told(&place.run(&[&["explain", &id], &by_file[..]].concat(), None));
    assert!(explained.contains(&id) && explained.contains("latency/sim"), "{explained}");
    let by_config = ["explain", &id, "--config", &config, "--cacert", &certificate, "--token-file", &token];
    assert!(refused(&place.run(&by_config, None)).contains("https://127.0.0.1:0"), "the config's port, which is any");
    let missing = refused(&place.run(&[&["explain", "req_none"], &by_file[..]].concat(), None));
    assert!(missing.contains("No turn of 'req_none' is known"), "{missing}");
    let doctor = place.run(&[&["doctor", "--config", &config], &trusting[..]].concat(), None);
    assert!(text(&doctor.stdout).contains("machine admin certificate: good until"), "{}", text(&doctor.stdout));
    // What does not fit says what would.
    let bare = place.admin.strip_prefix("https://").unwrap();
    for (arguments, hint) in [
        (vec!["--admin", &place.admin], "by --cacert"),
        (vec!["--admin", bare], "name it by https://"),
        (vec!["--admin", bare, "--cacert", &certificate], "name it by https://"),
        (vec!["--admin", &place.admin, "--cacert", "no-such.pem"], "no-such.pem"),
        (vec!["--admin", &place.admin, "--token-file", "no-such.token"], "--token-file no-such.token"),
        (trusting.to_vec(), "set FLASHLANE_ADMIN_TOKEN, or name a file"),
    ] {
        for verb in [&["explain", "req_1"][..], &["usage"]] {
            let said = refused(&place.run(&[verb, &arguments].concat(), None));
            assert!(said.to_lowercase().contains(&hint.to_lowercase()), "{verb:?} {arguments:?}: {said}");
        }
    }
}

#[test]
fn where_a_client_certificate_is_asked_for_one_is_shown() {
    let place = Place::start("identity", true);
    let (certificate, own, key) = (place.file("server.crt"), place.file("operator.crt"), place.file("operator.key"));
    let trusting = ["usage", "--admin", &place.admin, "--cacert", &certificate];
    let said = refused(&place.run(&trusting, None));
    assert!(said.contains("--cert and --cert-key"), "{said}");
    let said = told(&place.run(&[&trusting[..], &["--cert", &own, "--cert-key", &key]].concat(), None));
    assert!(said.starts_with("No turns between"), "{said}");
}

#[test]
fn with_json_logs_all_that_is_said_is_objects() {
    let objects = |said: &[u8]| -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        text(said).lines().map(parse).collect()
    };
    let folder = std::env::temp_dir().join(format!("flashlane-operators-json-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("flashlane.toml");
    let config = "[telemetry]\nlog_format = \"json\"\n[[endpoints]]\nname = \"sim\"\ntier = \"latency\"\n\
        backend = \"simulator\"\n[[models]]\nname = \"played\"\n";
    let path = file.to_str().unwrap();
    let serve = ["serve", "--config", path, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    fs::write(&file, config).unwrap();
    let mut running = Running::start(&serve);
    let ready: Value = serde_json::from_str(&running.line()).unwrap();
    assert_eq!((&ready["message"], &ready["models"][0]["name"]), (&"ready".into(), &"played".into()));
    assert!(ready["clients"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{ready}");
    running.signal("INT");
    let ended = running.end();
    assert!(ended.stdout.is_empty() && !objects(&ended.stderr).is_empty(), "{ended:?}");
    for broken in ["[telemetry]\nlog_format = \"json\"\ncolour = 1\n".to_owned(), format!("{config}no TOML")] {
        fs::write(&file, broken).unwrap();
        let ended = run(&serve);
        assert_eq!(ended.status.code(), Some(64));
        let said = objects(&ended.stderr);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0]["level"] == "ERROR" && said[0]["message"].as_str().unwrap().contains("flashlane.toml:"),
            "{said:?}"
        );
    }
    let _ = fs::remove_dir_all(&folder);
}

#[test]
fn whose_reader_has_gone_ends_without_a_word() {
    for arguments in
        [&["doctor"][..], &["doctor", "--json"], &["keys", "create", "--name", "x"], &["completions", "bash"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = command(arguments).stdin(Stdio::null()).stdout(writer).output().unwrap();
        assert_eq!(ended.status.code(), Some(141), "{arguments:?}");
        assert!(!text(&ended.stderr).contains("roken pipe"), "{arguments:?}: {}", text(&ended.stderr));
    }
}
