//! A gateway of our own for the length of a bench: this binary's `serve` before the scripted upstream, on free ports.

use super::Error;
use super::target::Gateway;
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Both models of the engine, each on a tier of its own.
const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
[server.limits]
connections_max = 16384
[[endpoints]]
name = "scripted"
tier = "throughput"
backend = "openai"
base_url = "http://{upstream}/v1"
idle_connections_max = 1024
[[endpoints]]
name = "scripted-latency"
tier = "latency"
backend = "openai"
base_url = "http://{upstream}/v1"
idle_connections_max = 1024
[[models]]
name = "bench"
context_tokens_max = 2000000
route = "throughput-only"
[[models]]
name = "bench-latency"
context_tokens_max = 2000000
route = "latency-only"
"#;

/// It is killed when this is dropped.
pub struct Serve {
    child: Child,
    pub gateway: Gateway,
    /// From its start to its line that says so.
    pub ready_after: Duration,
    /// What it says goes on having a reader.
    _out: BufReader<ChildStdout>,
}

impl Serve {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it does not start, or ends at once.
    pub fn start(upstream: SocketAddr) -> Result<Serve, Error> {
        let flashlane = env::current_exe().map_err(Error::Serve)?;
        let began = Instant::now();
        let mut child = Command::new(flashlane)
            .args(["serve", "--config", "/dev/stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::Serve)?;
        let (Some(mut config), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Serve(io::ErrorKind::BrokenPipe.into()));
        };
        let mut out = BufReader::new(out);
        let written = config.write_all(CONFIG.replace("{upstream}", &upstream.to_string()).as_bytes());
        drop(config);
        let ready = written.and_then(|()| ready(&mut out));
        let ready_after = began.elapsed();
        match ready {
            Ok(url) => {
                let address = url.parse().map_err(|_| Error::Serve(io::ErrorKind::InvalidData.into()))?;
                let gateway = Gateway { name: "flashlane".to_owned(), address };
                Ok(Serve { child, gateway, ready_after, _out: out })
            }
            Err(error) => {
                stop(&mut child);
                Err(Error::Serve(error))
            }
        }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Where it listens: the line that it has for programs.
fn ready(out: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    while out.read_line(&mut line)? > 0 {
        if let Some(url) = line.strip_prefix("ready ").and_then(|rest| rest.split_whitespace().next()) {
            return Ok(url.to_owned());
        }
        line.clear();
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// It holds nothing that an orderly end would save.
fn stop(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Serve {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}
