//! Another certificate: for whoever connects from then on.

use super::place::{Place, endpoint, model};
use super::rig::{run, text};
use std::path::{Path, PathBuf};

/// A certificate of its own, under this name.
fn issue(folder: &Path, name: &str) -> (PathBuf, String, String) {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let trusted = folder.join(name);
    std::fs::write(&trusted, own.cert.pem()).unwrap();
    (trusted, own.cert.pem(), own.signing_key.serialize_pem())
}

#[test]
fn another_certificate_is_shown_to_new_connections_and_those_of_before_go_on() {
    let mut first = None;
    let place = Place::start_with("tls", |folder| {
        let (trusted, certificate, key) = issue(folder, "first.pem");
        let [certificate_file, key_file] = ["tls.crt", "tls.key"].map(|file| folder.join(file));
        std::fs::write(&certificate_file, certificate).unwrap();
        std::fs::write(&key_file, key).unwrap();
        first = Some(trusted);
        format!(
            "{}[server.tls]\ncertificate_file = {certificate_file:?}\nkey_file = {key_file:?}\n{}{}",
            super::place::SERVER,
            endpoint("sim", "latency", 30),
            model("m")
        )
    });
    let first = first.unwrap();
    let url = format!("wss://{}", place.clients);
    let chat = |trusted: &Path, words: &str| {
        run(&["chat", "--url", &url, "--model", "m", "--cacert", trusted.to_str().unwrap(), words])
    };
    let expiry = "flashlane_certificate_expiry_seconds{certificate=\"clients\"}";
    assert!(place.metrics().contains(expiry));
    std::thread::scope(|scope| {
        let open = scope.spawn(|| chat(&first, "count from 1 to 120"));
        place.until("it runs", || place.metrics().contains("flashlane_upstream_turns_in_flight{endpoint=\"sim\"} 1"));
        let (second, certificate, key) = issue(&place.folder, "second.pem");
        // As one who renews certificates does: one file after the other.
        std::fs::write(place.folder.join("tls.crt"), certificate).unwrap();
        std::fs::write(place.folder.join("tls.key"), key).unwrap();
        place.until("it holds", || place.metric("flashlane_config_generation") == 2.0);
        let log = place.log();
        assert!(log.contains("certificate of clients: 127.0.0.1, until ") && log.contains("/tls.crt, "), "{log}");
        let (old, new) = (chat(&first, "count from 1 to 2"), chat(&second, "count from 1 to 2"));
        assert_eq!(text(&new.stdout), "1\n2\n", "{}", text(&new.stderr));
        assert!(!old.status.success(), "the certificate of before is shown no more");
        let counted: String = (1..=120).map(|number| format!("{number}\n")).collect();
        let open = open.join().unwrap();
        assert_eq!(text(&open.stdout), counted, "{}", text(&open.stderr));
    });
    // A key that is not the certificate's.
    let (_, certificate, _) = issue(&place.folder, "third.pem");
    std::fs::write(place.folder.join("tls.crt"), certificate).unwrap();
    place.until("it is refused", || place.metrics().contains("{outcome=\"refused\"} 1"));
    assert!(place.log().contains("server.tls.key_file"), "{}", place.log());
}
