//! Clients that read a whole answer and hold it to what every answer must be, however it ended. They know nothing of endpoints.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    Http,
}

impl Transport {
    pub const BOTH: [Self; 2] = [Self::WebSocket, Self::Http];
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With this text.
    Completed(String),
    /// `response.failed`, after this text.
    Failed { code: String, text: String },
    /// An error and nothing else.
    Refused { status: u64, code: Option<String> },
}

/// One turn over a connection of its own.
pub async fn ask(address: &str, transport: Transport, body: &Value) -> End {
    let mut body = body.clone();
    body["store"] = json!(false);
    let asked = async {
        match transport {
            Transport::WebSocket => over_websocket(address, body).await,
            Transport::Http => over_http(address, body).await,
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the answer does not end")
}

async fn over_websocket(address: &str, mut body: Value) -> End {
    body["type"] = json!("response.create");
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut socket, _) =
        tokio_tungstenite::client_async(format!("ws://{address}/v1/responses"), stream).await.unwrap();
    socket.send(Message::text(body.to_string())).await.unwrap();
    let mut events = Vec::new();
    let mut has_ended = false;
    loop {
        let message = socket.next().await.expect("the socket stays open").unwrap();
        let Message::Text(text) = message else { continue };
        let event: Value = serde_json::from_str(&text).unwrap();
        if event["error"]["code"] == "response_not_active" {
            return end_of(&events);
        }
        let ends = is_terminal(&event) || event["type"] == "error";
        events.push(event);
        // What is answered behind the end shows that there is nothing between the two.
        if ends && !std::mem::replace(&mut has_ended, true) {
            let behind = json!({"type": "response.cancel", "response_id": "resp_0"});
            socket.send(Message::text(behind.to_string())).await.unwrap();
        }
    }
}

async fn over_http(address: &str, mut body: Value) -> End {
    body["stream"] = json!(true);
    let (status, body) = post(address, &body).await;
    if status != 200 {
        let error: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body}"));
        return End::Refused { status, code: error["error"]["code"].as_str().map(str::to_owned) };
    }
    let events = body.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("no [DONE]: {body}"));
    let data = events.split_terminator("\n\n").filter_map(|event| event.lines().find_map(|l| l.strip_prefix("data: ")));
    end_of(&data.map(|data| serde_json::from_str(data).unwrap()).collect::<Vec<Value>>())
}

/// A request on a connection of its own: status and body.
pub async fn post(address: &str, body: &Value) -> (u64, String) {
    let body = body.to_string();
    exchange(address, "POST /v1/responses", &body).await
}

pub async fn exchange(address: &str, request: &str, body: &str) -> (u64, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let answer = String::from_utf8(bytes).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole head: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let is_chunked = head.contains("transfer-encoding: chunked");
    (status, if is_chunked { dechunked(body) } else { body.to_owned() })
}

fn dechunked(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body += &after[..size];
        rest = &after[size + 2..];
    }
}

fn is_terminal(event: &Value) -> bool {
    matches!(kind(event), "response.completed" | "response.failed" | "response.incomplete")
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap_or("?")
}

/// What the events come to. Fails where they are not as those of every answer.
fn end_of(events: &[Value]) -> End {
    if let [error] = events
        && kind(error) == "error"
    {
        let code = error["error"]["code"].as_str().map(str::to_owned);
        return End::Refused { status: error["status"].as_u64().unwrap(), code };
    }
    let told = || events.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{}", told());
    }
    let (last, before) = events.split_last().expect("there are events");
    assert!(is_terminal(last) && !before.iter().any(is_terminal), "not one end: {}", told());
    assert!(!events.iter().any(|event| kind(event) == "error"), "an error beside: {}", told());
    let begins = |kind_wanted| events.iter().filter(|event| kind(event) == kind_wanted).count() == 1;
    assert!(begins("response.created") && kind(&events[0]) == "response.created", "{}", told());
    assert!(begins("response.in_progress"), "{}", told());
    let mut ids = events.iter().filter_map(|event| event["response"]["id"].as_str());
    let id = ids.next().unwrap();
    assert!(ids.all(|other| other == id), "{}", told());
    let text = text_of(events).unwrap_or_else(|wrong| panic!("{wrong}: {}", told()));
    match kind(last) {
        "response.completed" => {
            let whole: String = last["response"]["output"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|item| item["content"].as_array().cloned().unwrap_or_default())
                .filter_map(|part| part["text"].as_str().map(str::to_owned))
                .collect();
            assert_eq!(whole, text, "{}", told());
            End::Completed(text)
        }
        "response.failed" => End::Failed { code: last["response"]["error"]["code"].as_str().unwrap().to_owned(), text },
        other => panic!("{other}: {}", told()),
    }
}

/// The text of the deltas, each of an item that is open then; at the end none is.
fn text_of(events: &[Value]) -> Result<String, String> {
    let mut open: BTreeMap<String, u64> = BTreeMap::new();
    let mut added = 0;
    let mut text = String::new();
    for event in events {
        let item = event["item"]["id"].as_str().or(event["item_id"].as_str()).unwrap_or_default().to_owned();
        let index = event["output_index"].as_u64();
        match kind(event) {
            "response.output_item.added" => {
                if index != Some(added) || open.insert(item.clone(), added).is_some() {
                    return Err(format!("{item} is not the next item"));
                }
                added += 1;
            }
            "response.output_item.done" | "response.output_item.interrupted" if open.remove(&item) != index => {
                return Err(format!("{item} was not open"));
            }
            "response.output_text.delta" => {
                if open.get(&item).copied() != index {
                    return Err(format!("a delta of {item}, which is not open"));
                }
                text += event["delta"].as_str().unwrap_or_default();
            }
            _ => {}
        }
    }
    if open.is_empty() { Ok(text) } else { Err(format!("{open:?} is left open")) }
}
