//! The built binary as a child: started, read line by line, and ended by its own process id. Knows no verb.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part; a test may fail this way")]

pub mod guard;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

pub const FLASHLANE: &str = env!("CARGO_BIN_EXE_flashlane");

/// A command that sees nothing of the caller's own settings.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(FLASHLANE);
    command.args(arguments);
    let variables = [
        "FLASHLANE_CONFIG",
        "FLASHLANE_API_KEY",
        "FLASHLANE_ADMIN_TOKEN",
        "FLASHLANE_LOG_FORMAT",
        "FLASHLANE_LOG",
        "FLASHLANE_LATENCY_API_KEY",
        "FLASHLANE_THROUGHPUT_API_KEY",
        "CEREBRAS_API_KEY",
        "COLUMNS",
    ];
    for variable in variables {
        command.env_remove(variable);
    }
    command
}

/// Runs it to its end, with nothing on its standard input.
pub fn run(arguments: &[&str]) -> Output {
    command(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs it to its end, fed by a pipe.
pub fn run_with_input(arguments: &[&str], input: &str) -> Output {
    let mut command = command(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// An address where nothing listens: one that was free a moment ago.
pub fn closed_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A running child, killed when it is dropped.
pub struct Running {
    pub child: Child,
    /// What it still has to say on its standard output.
    pub out: BufReader<ChildStdout>,
}

impl Running {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// With variables in its environment.
    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = command(arguments);
        command.envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The next line, with its end; empty when there is none.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    /// Sends a signal by name, as a person would.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end: what else it said, and its exit code.
    pub fn end(&mut self) -> Output {
        let mut output = Output { status: ExitStatus::default(), stdout: Vec::new(), stderr: Vec::new() };
        self.out.read_to_end(&mut output.stdout).unwrap();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_end(&mut output.stderr).unwrap();
        }
        output.status = self.child.wait().unwrap();
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PORTS: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

/// A running gateway on free ports.
pub struct Gateway {
    pub running: Running,
    /// `127.0.0.1:PORT`
    pub clients: String,
    pub admin: String,
    /// All that it said until it was ready.
    pub said: String,
}

impl Gateway {
    /// Starts `flashlane serve` on free ports and waits for its ready line.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// With variables in its environment.
    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::ready(Running::start_with(&[&PORTS, arguments].concat(), variables))
    }

    /// The same, with its log in a file: a pipe that nobody reads is soon full.
    pub fn logging(arguments: &[&str], variables: &[(&str, &str)], log: &Path) -> Self {
        let mut command = command(&[&PORTS, arguments].concat());
        command.envs(variables.iter().copied()).stderr(File::create(log).unwrap());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self::ready(Running { child, out })
    }

    fn ready(mut running: Running) -> Self {
        let mut said = String::new();
        loop {
            let line = running.line();
            said += &line;
            if let Some(addresses) = line.trim_end().strip_prefix("ready http://") {
                let (clients, admin) = addresses.split_once(" admin http://").unwrap();
                let (clients, admin) = (clients.to_owned(), admin.to_owned());
                return Self { running, clients, admin, said };
            }
            assert!(!line.is_empty(), "no ready line: {said}{}", text(&running.end().stderr));
        }
    }

    /// `ws://127.0.0.1:PORT/v1/responses`
    pub fn websocket(&self) -> String {
        format!("ws://{}/v1/responses", self.clients)
    }
}
