//! What the gateway does when files or memory run out: it goes on, keeps away what it cannot serve, and operators reach it throughout.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use rig::{FLASHLANE, Running, text};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

struct Served {
    running: Running,
    clients: String,
    admin: String,
}

/// A gateway on free ports, started by a shell that first limits its open files.
fn start(files_max: u32, config: &str) -> Served {
    let folder = std::env::temp_dir().join(format!("flashlane-scarcity-{}-{files_max}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("flashlane.toml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -n {files_max}; exec \"$@\""), "sh", FLASHLANE, "serve", "--config"])
        .arg(file);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    // Nobody reads what it says before its end: no more than a pipe holds.
    command.env_remove("FLASHLANE_CONFIG").env("FLASHLANE_LOG", "warn");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut running = Running { child, out };
    loop {
        let line = running.line();
        assert!(!line.is_empty(), "no ready line: {}", text(&running.end().stderr));
        if let Some((clients, admin)) =
            line.trim_end().strip_prefix("ready http://").and_then(|rest| rest.split_once(" admin http://"))
        {
            let (clients, admin) = (clients.to_owned(), admin.to_owned());
            let _ = fs::remove_dir_all(&folder);
            return Served { running, clients, admin };
        }
    }
}

const CONFIG: &str = "[[endpoints]]\nname = \"w\"\ntier = \"latency\"\nbackend = \"simulator\"\nfirst_token_ms = 0\ntokens_per_second = 0\n\
    [[endpoints]]\nname = \"g\"\ntier = \"throughput\"\nbackend = \"simulator\"\nfirst_token_ms = 0\ntokens_per_second = 0\n\
    [[models]]\nname = \"fast\"\nroute = \"latency-only\"\ncontext_tokens_max = 1000000000\n\
    [[models]]\nname = \"slow\"\nroute = \"throughput-only\"\n";

/// One answer, on a connection that stays open where it may. None: nothing came in time.
fn ask(stream: &mut TcpStream, request: &str) -> Option<(u16, String)> {
    stream.write_all(request.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let head = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = head.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
            if body.len() >= length {
                return Some((head.split(' ').nth(1).unwrap().parse().unwrap(), format!("{head}\r\n\r\n{body}")));
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

fn connected(address: &str, wait: Duration) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(wait)).unwrap();
    stream
}

fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = connected(address, PATIENCE);
    ask(&mut stream, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
}

fn post(stream: &mut TcpStream, model: &str, input: &str) -> Option<(u16, String)> {
    let body = format!("{{\"model\":\"{model}\",\"input\":\"{input}\"}}");
    let length = body.len();
    ask(
        stream,
        &format!(
            "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
    )
}

#[test]
fn with_256_files_and_1000_connections_operators_are_answered_and_a_second_later_all_are() {
    let mut served = start(256, CONFIG);
    // Behind the accepted ones and the kernel's backlog there may be no room: those are turned away there.
    let address = served.clients.parse().unwrap();
    let connections: Vec<_> =
        (0..1000).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(10))).collect();
    let asked = Instant::now();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(get(&served.admin, path).unwrap().0, 200, "{path}");
    }
    let admin = asked.elapsed();
    assert!(served.running.child.try_wait().unwrap().is_none(), "it has ended");
    drop(connections);
    let left = Instant::now();
    // Where the backlog is still full, the kernel drops the attempt, and would try again a second later by itself.
    let mut client = loop {
        if let Ok(client) = TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
            break client;
        }
        assert!(left.elapsed() < PATIENCE);
    };
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(ask(&mut client, "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap().0, 200);
    drop(client);
    let recovered = left.elapsed();
    println!(
        "1,000 connections at 256 files: three admin pages in {admin:?}, served again {recovered:?} after they left"
    );
    assert!(recovered < Duration::from_secs(1), "{recovered:?}");
    served.running.signal("TERM");
    let end = served.running.end();
    assert!(end.status.success());
    assert!(text(&end.stderr).contains("fewer connections than configured"), "{}", text(&end.stderr));
}

/// A simulated server that plays slowly, in a process of its own.
fn engine() -> (Running, String) {
    let mut running = Running::start(&["simulate", "--listen", "127.0.0.1:0", "--tokens-per-second", "5"]);
    loop {
        let line = running.line();
        assert!(!line.is_empty(), "no address: {}", text(&running.end().stderr));
        if let Some((_, rest)) = line.split_once("http://") {
            let address = rest.split(|c: char| c.is_whitespace() || c == '/').next().unwrap().to_owned();
            return (running, address);
        }
    }
}

/// A folder that is gone after the test.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn with_256_files_every_client_has_its_upstream_and_the_store_its_files() {
    let (_engine, address) = engine();
    let folder = Folder(std::env::temp_dir().join(format!("flashlane-scarcity-store-{}", std::process::id())));
    let config = format!(
        "[store]\nfolder = {:?}\n[[endpoints]]\nname = \"e\"\ntier = \"throughput\"\nbackend = \"openai\"\n\
         base_url = \"http://{address}/v1\"\n[[models]]\nname = \"m\"\nroute = \"throughput-only\"\n",
        folder.0
    );
    // One more than the other test: a folder of its own.
    let mut served = start(257, &config);
    let body = "{\"model\":\"m\",\"input\":\"count from 1 to 500\",\"stream\":true}";
    let request =
        format!("POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut streams: Vec<_> = (0..300).map(|_| connected(&served.clients, PATIENCE)).collect();
    for stream in &mut streams {
        // Some are refused already.
        let _ = stream.write_all(request.as_bytes());
    }
    let asked = Instant::now();
    let value = |name: &str| {
        let metrics = get(&served.admin, "/metrics").unwrap().1;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name).map(str::trim).map(str::to_owned));
        line.unwrap_or_default()
    };
    while value("flashlane_upstream_turns_in_flight{endpoint=\"e\"}") != "64" {
        assert!(asked.elapsed() < PATIENCE, "{}", value("flashlane_upstream_turns_in_flight{endpoint=\"e\"}"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let files: u32 = value("process_open_fds").parse().unwrap();
    assert!((128..=256).contains(&files), "{files}");
    assert_ne!(value("flashlane_excess_refused_total{reason=\"connections\"}"), "0");
    drop(streams);
    let left = Instant::now();
    let answer = loop {
        let mut client = connected(&served.clients, PATIENCE);
        if let Some((200, answer)) = post(&mut client, "m", "count from 1 to 2") {
            break answer;
        }
        assert!(left.elapsed() < PATIENCE);
    };
    println!("64 turns upstream at 257 files: {files} open; served again {:?} after they left", left.elapsed());
    let id = answer.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert_eq!(get(&served.clients, &format!("/v1/responses/{id}")).unwrap().0, 200, "{id}");
    served.running.signal("TERM");
    let end = served.running.end();
    let said = text(&end.stderr);
    assert!(end.status.success() && !said.contains("os error 24"), "{said}");
}

impl Served {
    fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.running.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
    }

    /// Stores until it holds so much.
    fn fill(&self, stream: &mut TcpStream, bytes: u64) {
        let mut word = 0;
        while self.resident_bytes() < bytes {
            word += 1;
            assert!(word < 5000, "it does not fill");
            assert_eq!(post(stream, "fast", &format!("{word} ").repeat(16 * 1024)).unwrap().0, 200);
        }
    }

    fn stage(&self) -> u32 {
        let metrics = get(&self.admin, "/metrics").unwrap().1;
        let line = metrics.lines().find_map(|line| line.strip_prefix("flashlane_memory_stage ")).unwrap();
        line.parse().unwrap()
    }

    fn wait_for_stage(&self, stage: u32) {
        let began = Instant::now();
        while self.stage() < stage {
            assert!(began.elapsed() < PATIENCE, "stage {} and not {stage}", self.stage());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn as_memory_fills_sessions_then_turns_then_connections_are_kept_away_and_what_runs_goes_on() {
    let first = start(1024, CONFIG);
    let mut stream = connected(&first.clients, PATIENCE);
    first.fill(&mut stream, first.resident_bytes() + 4 * 1024 * 1024);
    let most = first.resident_bytes() * 100 / 60;
    drop(first);

    let served = start(1025, &format!("[server.limits]\nmemory_bytes_max = {most}\n{CONFIG}"));
    let mut stream = connected(&served.clients, PATIENCE);
    assert_eq!(post(&mut stream, "slow", "hi").unwrap().0, 200);
    served.fill(&mut stream, most * 81 / 100);
    served.wait_for_stage(1);
    let (status, answer) = get(&served.clients, "/v1/models").unwrap();
    assert!(status == 503 && answer.contains("retry-after: 1") && answer.contains("server_is_overloaded"), "{answer}");
    assert_eq!(post(&mut stream, "fast", "hi").unwrap().0, 200);

    served.fill(&mut stream, most * 91 / 100);
    served.wait_for_stage(2);
    let (status, answer) = post(&mut stream, "slow", "hi").unwrap();
    assert!(status == 503 && answer.contains("server_is_overloaded"), "{answer}");
    assert_eq!(post(&mut stream, "fast", "hi").unwrap().0, 200);

    served.fill(&mut stream, most * 96 / 100);
    served.wait_for_stage(3);
    assert_eq!(post(&mut stream, "fast", "hi").unwrap().0, 200);
    let mut waiting = connected(&served.clients, Duration::from_secs(1));
    // One may have been waited for already when it closed.
    let _ = ask(&mut waiting, "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut waiting = connected(&served.clients, Duration::from_secs(1));
    assert_eq!(ask(&mut waiting, "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"), None);
    assert_eq!(get(&served.admin, "/livez").unwrap().0, 200);
}
