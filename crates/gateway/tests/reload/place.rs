//! A gateway with a config file of its own, which tests write again, and what it says of itself.

use super::rig::{Running, run_with_input, text};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that is busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Begins every config here.
pub const SERVER: &str = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";
pub const TOKEN: &str = "flk_admin_0123456789abcdef";

/// An endpoint that plays a model.
pub fn endpoint(name: &str, tier: &str, tokens_per_second: u32) -> String {
    format!(
        "[[endpoints]]\nname = \"{name}\"\ntier = \"{tier}\"\nbackend = \"simulator\"\nfirst_token_ms = 0\n\
         tokens_per_second = {tokens_per_second}\n"
    )
}

pub fn model(name: &str) -> String {
    format!("[[models]]\nname = \"{name}\"\n")
}

/// As `flashlane keys digest` tells it.
pub fn digest(key: &str) -> String {
    text(&run_with_input(&["keys", "digest"], key).stdout).trim().to_owned()
}

pub fn key(name: &str, secrets: &[&str], more: &str) -> String {
    let digests: Vec<_> = secrets.iter().map(|secret| format!("{:?}", digest(secret))).collect();
    format!("[[keys]]\nname = \"{name}\"\nsha256 = [{}]\n{more}\n", digests.join(", "))
}

pub struct Place {
    pub folder: PathBuf,
    pub running: Running,
    /// `127.0.0.1:PORT`
    pub clients: String,
    pub admin: String,
    log: Arc<Mutex<String>>,
}

impl Place {
    pub fn start(name: &str, config: &str) -> Self {
        Self::start_with(name, |_| config.to_owned())
    }

    /// `config` is told the folder in which it will stand.
    pub fn start_with(name: &str, config: impl FnOnce(&PathBuf) -> String) -> Self {
        let folder = std::env::temp_dir().join(format!("flashlane-reload-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("flashlane.toml");
        fs::write(&file, config(&folder)).unwrap();
        let mut running = Running::start(&["serve", "--config", file.to_str().unwrap()]);
        let log = follow(running.child.stderr.take().unwrap());
        loop {
            let line = running.line();
            assert!(!line.is_empty(), "{}", log.lock().unwrap());
            let Some((clients, admin)) =
                line.trim_end().strip_prefix("ready ").and_then(|l| l.split_once(" admin http://"))
            else {
                continue;
            };
            let clients = clients.split_once("://").unwrap().1.to_owned();
            return Self { folder, clients, admin: admin.to_owned(), running, log };
        }
    }

    pub fn write(&self, config: &str) {
        fs::write(self.folder.join("flashlane.toml"), config).unwrap();
    }

    /// Writes it, asks for it, and waits until it holds.
    pub fn reload(&self, config: &str) {
        let next = self.metric("flashlane_config_generation") + 1.0;
        self.write(config);
        self.running.signal("HUP");
        self.until("it holds", || self.metric("flashlane_config_generation") >= next);
    }

    /// Looks until something is so.
    pub fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        let began = Instant::now();
        while !is() {
            assert!(began.elapsed() < WAIT_MAX, "waited in vain until {what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Of all rows of that name, the sum.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.ask("GET", "/metrics", "", "").1;
        let rows = metrics.lines().filter_map(|line| line.strip_prefix(name)?.split_once(' '));
        rows.filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'))
            .map(|(_, value)| value.parse::<f64>().unwrap())
            .sum()
    }

    pub fn metrics(&self) -> String {
        self.ask("GET", "/metrics", "", "").1
    }

    /// Of an operator: status and body.
    pub fn ask(&self, method: &str, path: &str, fields: &str, body: &str) -> (u16, String) {
        exchange(&self.admin, method, path, fields, body)
    }

    /// Of a client.
    pub fn post(&self, path: &str, fields: &str, body: &Value) -> (u16, String) {
        exchange(&self.clients, "POST", path, fields, &body.to_string())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn follow(stderr: std::process::ChildStderr) -> Arc<Mutex<String>> {
    let log = Arc::new(Mutex::new(String::new()));
    let into = Arc::clone(&log);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut log = into.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    log
}

/// One request on a connection of its own.
pub fn exchange(address: &str, method: &str, path: &str, fields: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n{fields}content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
