//! HTTP/1 as it should not be: each request of `proto/http1/requests.txt` is answered with its exact status, the connection is closed, and
//! nothing behind it is served.

use crate::support::{Gateway, simulated, soon};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const REQUESTS: &str = include_str!("../../../../proto/http1/requests.txt");
const BEHIND: &[u8] = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Far below the limits of time.
const WAIT_MAX: Duration = Duration::from_secs(10);

struct Case {
    name: &'static str,
    statuses: Vec<u16>,
    bytes: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let entries = REQUESTS.split("\n== ").skip(1);
    entries
        .map(|entry| {
            let (head, text) = entry.split_once('\n').unwrap();
            let statuses: Vec<u16> = head.split(' ').map_while(|word| word.parse().ok()).collect();
            let name = head.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
            Case { name, statuses, bytes: unescaped(&text.replace('\n', "")) }
        })
        .collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (kind, behind) = escape.split_at(1);
        rest = behind;
        match kind {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "\\" => bytes.push(b'\\'),
            "x" => {
                bytes.push(u8::from_str_radix(&behind[..2], 16).unwrap());
                rest = &behind[2..];
            }
            "{" => {
                let (repeated, behind) = behind.split_once('}').unwrap();
                let (repeated, count) = repeated.rsplit_once('*').unwrap();
                bytes.extend(unescaped(repeated).repeat(count.parse().unwrap()));
                rest = behind;
            }
            other => panic!("\\{other} in {text}"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// The statuses of all that is answered before the connection is closed, and all of the answers.
async fn answered(gateway: &Gateway, bytes: &[u8], piece_bytes: usize) -> (Vec<u16>, String) {
    let (mut from, mut to) = gateway.connect().await.into_split();
    // It may be closed before all is sent.
    let send = async {
        for piece in bytes.chunks(piece_bytes) {
            if to.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let mut said = Vec::new();
    let receive = async { while from.read_buf(&mut said).await.is_ok_and(|count| count > 0) {} };
    tokio::join!(send, receive);
    let said = String::from_utf8_lossy(&said).into_owned();
    (said.match_indices("HTTP/1.").map(|(at, _)| said[at + 9..at + 12].parse().unwrap()).collect(), said)
}

/// A refusal has what every answer has: an id, and an error that says what is wrong.
fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let error: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    head.contains("\r\nx-request-id: req_") && error["error"]["message"].as_str().is_some_and(|text| text.len() > 10)
}

#[tokio::test]
async fn each_request_gets_its_status_and_nothing_behind_a_refused_one_is_served() {
    let gateway = Gateway::start(simulated()).await;
    let cases = cases();
    assert!(cases.iter().filter(|case| *case.statuses.last().unwrap() == 400).count() > 60, "{}", cases.len());
    let wrong = join_all(cases.iter().map(async |Case { name, statuses, bytes }| {
        let is_refused = *statuses.last().unwrap() >= 400;
        let bytes = if is_refused { [bytes, BEHIND].concat() } else { bytes.clone() };
        for piece_bytes in [usize::MAX, 7] {
            let answered = tokio::time::timeout(WAIT_MAX, answered(&gateway, &bytes, piece_bytes)).await;
            if answered.as_ref().map(|(statuses, _)| statuses) != Ok(statuses) {
                return Some(format!("{name} (pieces of {piece_bytes}): {statuses:?}, and it was {answered:?}"));
            }
            let said = answered.map(|(_, said)| said).unwrap_or_default();
            if is_refused && !said.rfind("HTTP/1.").is_some_and(|last| is_whole(&said[last..])) {
                return Some(format!("{name} (pieces of {piece_bytes}): no id, or nothing said: {said}"));
            }
        }
        None
    }));
    let wrong: Vec<_> = wrong.await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let metrics = gateway.metrics().await;
    for reason in ["bare_lf", "request_line", "field", "host", "framing", "chunk", "upgrade", "large"] {
        let counted = format!("flashlane_requests_unreadable_total{{reason=\"{reason}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&counted)).unwrap();
        assert_ne!(count, "0", "{reason}");
    }
    assert_eq!(gateway.get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn operators_are_asked_for_as_much() {
    let gateway = Gateway::start(simulated()).await;
    let mut stream = tokio::net::TcpStream::connect(gateway.admin).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\n\r\n").await.unwrap();
    let mut said = String::new();
    soon("an answer", stream.read_to_string(&mut said)).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 400 ") && is_whole(&said), "{said}");
    let unknown = crate::support::exchange(gateway.admin, "GET", "/unknown", "", b"").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.header("x-request-id").unwrap().starts_with("req_"), "{unknown:?}");
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_refused_and_its_connection_closed() {
    let gateway = Gateway::start_with(simulated(), |config, _| {
        (config.limits.request_grace_ms, config.limits.request_bytes_per_second_min) = (50, 1_000);
    });
    let gateway = gateway.await;
    let (mut from, mut to) = gateway.connect().await.into_split();
    to.write_all(b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n").await.unwrap();
    let dribble = async {
        while to.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut said = Vec::new();
    let listen = async { while from.read_buf(&mut said).await.is_ok_and(|count| count > 0) {} };
    soon("the end", async { tokio::join!(dribble, listen) }).await;
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("did not arrive within"), "{said}");
}
