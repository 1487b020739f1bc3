//! The simulated server over real sockets.

use super::*;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(5);

struct Serving {
    address: SocketAddr,
    task: JoinHandle<Result<(), Error>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server on a free port, with more arguments.
async fn start(arguments: &[&str]) -> Serving {
    let server = bound(arguments).await;
    Serving { address: server.address(), task: tokio::spawn(server.serve()) }
}

async fn bound(arguments: &[&str]) -> Server {
    Server::bind(args(arguments)).await.unwrap()
}

fn args(arguments: &[&str]) -> Args {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }
    let arguments = ["simulate", "--listen", "127.0.0.1:0"].iter().chain(arguments);
    let cli: Cli = clap::Parser::parse_from(arguments);
    cli.args
}

impl Serving {
    /// Sends one request on its own connection, and leaves the answer to be read.
    async fn open(&self, method_and_path: &str, headers: &str, body: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let fixed = format!("host: x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        let request = format!("{method_and_path} HTTP/1.1\r\n{fixed}{headers}\r\n{body}");
        socket.write_all(request.as_bytes()).await.unwrap();
        socket
    }

    /// The whole answer: its head in lower case, and its body as it was sent.
    async fn ask(&self, method_and_path: &str, headers: &str, body: &str) -> (String, String) {
        let mut socket = self.open(method_and_path, headers, body).await;
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    }

    async fn metric(&self, name: &str) -> u64 {
        let (_, body) = self.ask("GET /metrics", "", "").await;
        let row = body.lines().find_map(|line| line.strip_prefix(&format!("flashlane_simulator_{name} ")));
        row.unwrap().parse().unwrap()
    }

    /// Asks for a metric until it has this value.
    async fn await_metric(&self, name: &str, value: u64) {
        let asked = async { while self.metric(name).await != value {} };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{name} never was {value}"));
    }
}

fn body(text: &str, stream: bool) -> String {
    json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]}).to_string()
}

/// The chunks of a chunked body.
fn chunks(body: &str) -> Vec<&str> {
    let (mut rest, mut chunks) = (body, Vec::new());
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return chunks;
        }
        chunks.push(&after[..size]);
        rest = &after[size + 2..];
    }
}

#[tokio::test]
async fn a_stream_comes_in_whole_events_as_they_are_due() {
    let server = start(&["--first-token-ms", "1", "--tokens-per-second", "100"]).await;
    let (head, answer) = server.ask("POST /v1/chat/completions", "", &body("count from 1 to 9", true)).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/event-stream") && head.contains("server: flashlane-simulator"), "{head}");
    let chunks = chunks(&answer);
    assert!(chunks.len() > 3, "it comes over time: {chunks:?}");
    assert!(chunks.iter().all(|chunk| chunk.starts_with("data: ") && chunk.ends_with("\n\n")), "{chunks:?}");
    let contents = chunks.concat();
    let contents = contents.split("\n\n").filter_map(|event| {
        let chunk: Value = serde_json::from_str(event.strip_prefix("data: ")?).ok()?;
        chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)
    });
    assert_eq!(contents.collect::<String>(), "1\n2\n3\n4\n5\n6\n7\n8\n9");
    assert!(chunks.last().unwrap().ends_with("data: [DONE]\n\n"));
    assert_eq!(server.metric("requests_running").await, 0);
    assert_eq!((server.metric("requests_total").await, server.metric("requests_cancelled_total").await), (1, 0));
}

#[tokio::test]
async fn all_that_is_due_is_one_write() {
    let server = start(&["--first-token-ms", "0", "--tokens-per-second", "0"]).await;
    let (_, answer) = server.ask("POST /v1/chat/completions", "", &body("count from 1 to 100", true)).await;
    assert_eq!(chunks(&answer).len(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_script() {
    let server = start(&["--profile", "gpu", "--first-token-ms", "0"]).await;
    for (stream, cancelled) in [(true, 1), (false, 2)] {
        let socket = server.open("POST /v1/chat/completions", "", &body("count from 1 to 9000", stream)).await;
        server.await_metric("requests_running", 1).await;
        drop(socket);
        server.await_metric("requests_running", 0).await;
        assert_eq!(server.metric("requests_cancelled_total").await, cancelled);
    }
}

#[tokio::test]
async fn models_and_health_say_what_it_is() {
    let server = start(&["--model", "demo"]).await;
    let (_, models) = server.ask("GET /v1/models", "", "").await;
    let models: Value = serde_json::from_str(&models).unwrap();
    assert_eq!((&models["data"][0]["id"], &models["data"][0]["owned_by"]), (&json!("demo"), &json!("simulator")));
    assert!(server.ask("GET /health", "", "").await.0.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn refusals_are_json_with_their_status() {
    let server = start(&["--api-key", "secret"]).await;
    let key = "authorization: Bearer secret\r\n";
    let gzip = "authorization: Bearer secret\r\ncontent-encoding: gzip\r\n";
    for (path, headers, status, code) in [
        ("GET /v2/nothing", "", 404, json!("unknown_url")),
        ("DELETE /v1/models", key, 405, json!("method_not_allowed")),
        ("POST /v1/chat/completions", "", 401, json!("invalid_api_key")),
        ("GET /v1/models", "authorization: Bearer secre\r\n", 401, json!("invalid_api_key")),
        ("POST /v1/chat/completions", key, 400, Value::Null),
        ("POST /v1/chat/completions", gzip, 415, json!("unsupported_content_encoding")),
    ] {
        let (head, body) = server.ask(path, headers, "{").await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{path}: {head}");
        let error: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(error["error"]["code"], code, "{path}: {body}");
    }
    assert!(server.ask("GET /v1/models", key, "").await.0.starts_with("http/1.1 200"));
    assert_eq!(server.metric("requests_cancelled_total").await, 0, "a refusal is no cancel");
}

#[tokio::test]
async fn http_2_is_spoken_without_tls() {
    const SETTINGS: u8 = 4;
    let server = start(&[]).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frame = [0; 9];
    tokio::time::timeout(PATIENCE, socket.read_exact(&mut frame)).await.unwrap().unwrap();
    assert_eq!(frame[3], SETTINGS);
}

#[tokio::test]
async fn the_command_of_a_tool_turn_writes_the_file() {
    let server = start(&["--first-token-ms", "0"]).await;
    let properties = json!({"cmd": {"type": "string"}});
    let parameters = json!({"type": "object", "properties": properties, "required": ["cmd"]});
    let tool = json!({"type": "function", "function": {"name": "exec_command", "parameters": parameters}});
    let folder = std::env::temp_dir().join(format!("flashlane-simulate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for task in [
        "write a file notes/a.txt containing `it's $HOME`",
        "replace the line \"it's $HOME\" with 'a/b & c' in notes/a.txt",
    ] {
        let request = json!({"model": "m", "tools": [tool], "messages": [{"role": "user", "content": task}]});
        let (_, answer) = server.ask("POST /v1/chat/completions", "", &request.to_string()).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let arguments = answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        let command = arguments["cmd"].as_str().unwrap();
        let status = std::process::Command::new("sh").args(["-c", command]).current_dir(&folder).status().unwrap();
        assert!(status.success(), "{command}");
    }
    let written = std::fs::read_to_string(folder.join("notes/a.txt")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(written, "a/b & c\n");
}

#[tokio::test]
async fn it_says_where_it_listens_and_that_it_is_no_model() {
    let args = Args {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        profile: ProfileName::Wafer,
        model: "demo".to_owned(),
        first_token_ms: None,
        tokens_per_second: None,
        answers: None,
        api_key: Some("hidden".parse().unwrap()),
    };
    assert!(!format!("{args:?}").contains("hidden"));
    let server = Server::bind(args).await.unwrap();
    let mut out = Vec::new();
    server.announce(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains(&format!("http://{}/v1", server.address())), "{text}");
    assert!(text.contains("a script, not a model") && text.contains("flashlane serve --throughput http://"), "{text}");
    let taken = Args {
        listen: server.address(),
        profile: ProfileName::Gpu,
        model: String::new(),
        first_token_ms: None,
        tokens_per_second: None,
        answers: None,
        api_key: None,
    };
    let error = Server::bind(taken).await.err().unwrap().to_string();
    assert!(error.contains("--listen"), "{error}");
}

#[tokio::test]
async fn what_can_be_reached_from_elsewhere_says_so() {
    // Said of the address alone: a test opens none but loopback's.
    let at = async |address: &str, arguments: &[&str]| {
        let server = Server { address: address.parse().unwrap(), ..bound(arguments).await };
        let mut said = Vec::new();
        server.announce(&mut said).unwrap();
        (String::from_utf8(said).unwrap(), server.warning().unwrap_or_default())
    };
    assert_eq!(at("127.0.0.1:8710", &[]).await.1, "");
    let (said, warning) = at("0.0.0.0:8710", &[]).await;
    assert!(said.contains("--throughput http://127.0.0.1:8710/v1"), "{said}");
    assert!(warning.contains("0.0.0.0:8710 is reachable from other machines, and asks for no key"), "{warning}");
    let (_, warning) = at("[::]:8710", &["--api-key", "k"]).await;
    assert!(warning.contains("in plain text"), "{warning}");
}

#[tokio::test]
async fn answers_are_played_in_their_order() {
    let path = std::env::temp_dir().join(format!("flashlane-answers-{}.json", std::process::id()));
    let answers = r#"[{"text":"First.","call":{"name":"run","arguments":"{\"cmd\":\"ls\"}"}},{"text":"Then."}]"#;
    fs::write(&path, answers).unwrap();
    let server = start(&["--first-token-ms", "0", "--answers", path.to_str().unwrap()]).await;
    fs::remove_file(&path).unwrap();
    let user = r#"{"role":"user","content":"count from 1 to 2"}"#;
    let assistant = r#"{"role":"assistant","content":"x"}"#;
    let mut said = Vec::new();
    for before in [vec![user], vec![user, assistant, user], vec![user, assistant, assistant, user]] {
        let body = format!(r#"{{"model":"m","messages":[{}]}}"#, before.join(","));
        let (_, body) = server.ask("POST /v1/chat/completions", "content-type: application/json\r\n", &body).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        said.push(body["choices"][0]["message"].clone());
    }
    assert_eq!((&said[0]["content"], &said[1]["content"]), (&"First.".into(), &"Then.".into()));
    let call = &said[0]["tool_calls"][0];
    assert_eq!(call["id"], "call_00000000000000000000000000000000", "the same each time");
    assert_eq!(call["function"]["arguments"], r#"{"cmd":"ls"}"#);
    assert_eq!(said[2]["content"], "1\n2", "where none is left, its own");
    let absent = ["--answers", "nowhere.json"];
    let error = Server::bind(args(&absent)).await.err().map(|error| error.to_string());
    assert_eq!(error.as_deref(), Some("cannot read nowhere.json"));
}
