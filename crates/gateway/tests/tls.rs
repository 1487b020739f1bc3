//! Clients before a gateway whose certificate nobody has signed: what they say, and what makes them trust it.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use rig::{Running, run, text};
use std::path::PathBuf;
use std::process::Output;
use std::{env, fs};

/// A gateway with TLS, and a folder with its certificate that is gone after the test.
struct Place {
    folder: PathBuf,
    /// `127.0.0.1:PORT`
    clients: String,
    _running: Running,
}

impl Place {
    fn start(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("flashlane-tls-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let [certificate, key] = ["tls.crt", "tls.key"].map(|file| folder.join(file));
        fs::write(&certificate, own.cert.pem()).unwrap();
        fs::write(&key, own.signing_key.serialize_pem()).unwrap();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[server.tls]\n\
             certificate_file = {certificate:?}\nkey_file = {key:?}\n\
             [[endpoints]]\nname = \"sim\"\ntier = \"latency\"\nbackend = \"simulator\"\n[[models]]\nname = \"played\"\n"
        );
        let file = folder.join("flashlane.toml");
        fs::write(&file, config).unwrap();
        let mut running = Running::start(&["serve", "--config", file.to_str().unwrap()]);
        loop {
            let line = running.line();
            assert!(!line.is_empty(), "{}", text(&running.end().stderr));
            if let Some((clients, _)) = line.strip_prefix("ready https://").and_then(|rest| rest.split_once(' ')) {
                return Self { folder, clients: clients.to_owned(), _running: running };
            }
        }
    }

    fn certificate(&self) -> String {
        self.folder.join("tls.crt").to_str().unwrap().to_owned()
    }

    fn chat(&self, scheme: &str, arguments: &[&str]) -> Output {
        let url = format!("{scheme}://{}", self.clients);
        run(&[&["chat", "--url", &url, "count from 1 to 2"], arguments].concat())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[track_caller]
fn assert_failed(output: &Output, stderr: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(stderr), "{said}");
}

#[test]
fn chat_trusts_the_authority_that_it_is_told_and_says_what_is_wrong_without() {
    let place = Place::start("chat");
    for model in [&["--model", "played"][..], &[]] {
        let trusting = place.chat("wss", &[model, &["--cacert", &place.certificate()]].concat());
        assert_eq!(text(&trusting.stdout), "1\n2\n", "{}", text(&trusting.stderr));
        assert_failed(&place.chat("wss", model), "name its certificate by --cacert");
    }
    assert_failed(&place.chat("ws", &["--model", "played"]), "(tls_required)");
    assert_failed(&place.chat("ws", &[]), "does it speak TLS?");
}

#[test]
fn a_block_knows_the_models_and_whom_to_trust() {
    let place = Place::start("connect");
    let (url, certificate) = (format!("https://{}/v1", place.clients), place.certificate());
    let trust = [
        ("codex", format!("CODEX_CA_CERTIFICATE=\"{certificate}\" codex")),
        ("python", format!("os.environ[\"SSL_CERT_FILE\"] = \"{certificate}\"")),
        ("node", format!("NODE_EXTRA_CA_CERTS=\"{certificate}\" node")),
        ("curl", format!("--cacert \"{certificate}\"")),
    ];
    for (client, trust) in trust {
        let output = run(&["connect", client, "--url", &url, "--cacert", &certificate]);
        let (block, said) = (text(&output.stdout), text(&output.stderr));
        assert!(block.contains("\"played\"") && block.contains(&trust), "{block}{said}");
        assert_eq!(said, "");
    }
    let guessed = run(&["connect", "curl", "--url", &url]);
    assert!(text(&guessed.stderr).contains("--cacert\nnote: the model is a guess"), "{}", text(&guessed.stderr));
}
