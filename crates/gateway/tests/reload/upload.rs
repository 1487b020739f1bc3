//! A config that comes while a client still sends its request: what holds when the request is whole holds for it.

use super::place::{Place, SERVER, endpoint, key, model};
use super::rig::guard::Guard;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const SECRET: &str = "the-secret-of-ada-0000";
const BODY: &str = r#"{"model":"m","input":"a good thing","store":false}"#;

/// A request whose head is here, and half of its body.
struct Upload {
    stream: TcpStream,
    rest: &'static str,
}

impl Upload {
    fn begin(place: &Place, path: &str, body: &'static str) -> Self {
        let mut stream = TcpStream::connect(&place.clients).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (half, rest) = body.split_at(body.len() / 2);
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {SECRET}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\nexpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // Told once the handler waits for the body: the caller was let in by then.
        let mut told = [0; 25];
        stream.read_exact(&mut told).unwrap();
        assert!(told.starts_with(b"HTTP/1.1 100 Continue"));
        stream.write_all(half.as_bytes()).unwrap();
        Self { stream, rest }
    }

    /// The answer's status and body.
    fn end(mut self) -> (u16, String) {
        self.stream.write_all(self.rest.as_bytes()).unwrap();
        let mut reply = String::new();
        self.stream.read_to_string(&mut reply).unwrap();
        (reply.split(' ').nth(1).unwrap().parse().unwrap(), reply)
    }
}

#[test]
fn a_request_that_comes_while_its_models_guard_changes_is_asked_of_the_new_one() {
    let (old, new) = (Guard::start(), Guard::start());
    let config = |guard: &Guard| {
        format!(
            "{SERVER}{}[[guards]]\nname = \"policy\"\nurl = {:?}\ndeadline_ms = 5000\n{}guard = \"policy\"\n",
            endpoint("sim", "latency", 0),
            guard.url,
            model("m")
        )
    };
    let place = Place::start("upload-guard", &config(&old));
    let upload = Upload::begin(&place, "/v1/responses", BODY);
    place.reload(&config(&new));
    let (status, reply) = upload.end();
    assert_eq!(status, 200, "{reply}");
    assert_eq!((old.asked().len(), new.asked().len()), (0, 1));
}

#[test]
fn a_key_that_is_revoked_while_its_request_comes_begins_nothing() {
    let config = |keys: &str| {
        format!(
            "{SERVER}{}{}{keys}{}",
            endpoint("sim", "latency", 0),
            model("m"),
            key("bob", &["the-secret-of-bob-0000"], "")
        )
    };
    let ada = key("ada", &[SECRET], "");
    let place = Place::start("upload-key", &config(&ada));
    let turn = || Upload::begin(&place, "/v1/responses", BODY);
    assert_eq!(turn().end().0, 200);
    let uploads = [
        turn(),
        Upload::begin(&place, "/v1/chat/completions", r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#),
        Upload::begin(&place, "/v1/conversations", r#"{"metadata":{"a":"b"}}"#),
    ];
    place.reload(&config(""));
    for upload in uploads {
        let (status, reply) = upload.end();
        assert!(status == 401 && reply.contains("\"code\":\"invalid_api_key\""), "{reply}");
        assert!(reply.to_lowercase().contains("www-authenticate: bearer"), "{reply}");
    }
    assert_eq!(place.metric("flashlane_turns_total"), 1.0);
}
