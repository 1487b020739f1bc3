//! A gateway of our own for the length of a bench: this binary's `serve` before the scripted upstream, on free ports.

use super::Error;
use super::target::Gateway;
use std::env;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

/// It is killed when this is dropped.
pub struct Serve {
    child: Child,
    pub gateway: Gateway,
    /// What it says goes on having a reader.
    _out: BufReader<ChildStdout>,
}

impl Serve {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it does not start, or ends at once.
    pub fn start(upstream: SocketAddr) -> Result<Serve, Error> {
        let mut child = env::current_exe()
            .and_then(|flashlane| {
                Command::new(flashlane)
                    .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--throughput"])
                    .arg(format!("http://{upstream}/v1"))
                    .env_remove("FLASHLANE_CONFIG")
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
            })
            .map_err(Error::Serve)?;
        let out = child.stdout.take().ok_or_else(|| Error::Serve(io::ErrorKind::BrokenPipe.into()))?;
        let mut out = BufReader::new(out);
        let ready = ready(&mut out);
        match ready {
            Ok(url) => {
                let address = url.parse().map_err(|_| Error::Serve(io::ErrorKind::InvalidData.into()))?;
                let gateway = Gateway { name: "flashlane".to_owned(), address };
                Ok(Serve { child, gateway, _out: out })
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
